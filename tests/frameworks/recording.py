"""Records the small networks of a framework: ``python -m tests.frameworks.recording FRAMEWORK``."""

from __future__ import annotations

import json
import sys

from tests.frameworks.drawn import SMALL
from tests.frameworks.environments import FRAMEWORKS, RECORDED


def record(name: str) -> None:
    """Have a framework save the small networks, beside what it computes with them.

    Args:
        name: Of :data:`FRAMEWORKS`.
    """
    framework, folder = FRAMEWORKS[name], RECORDED / name
    folder.mkdir(parents=True, exist_ok=True)
    logits = {
        network: framework.act("record", network, folder / (network + framework.ending)).tolist()
        for network in SMALL
    }
    for other in framework.wider:
        logits[other] = framework.act("record", "y", folder / other).tolist()
    for other in framework.others:
        framework.act("record", "y", folder / other)
    content = {"made with": framework.versions(), "logits": logits}
    (folder / "logits.json").write_text(json.dumps(content) + "\n", "utf-8")


if __name__ == "__main__":
    for name in sys.argv[1:]:
        record(name)
