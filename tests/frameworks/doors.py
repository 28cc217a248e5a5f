"""What transformers answers to folders at each of its doors; needs transformers alone.

``python -m tests.frameworks.doors FOLDER ...`` writes it as JSON. Ordinary tests ask the version
beside ours, ``make test-frameworks`` that of ``.venv-optimum`` too.
"""

from __future__ import annotations

import json
import sys

import transformers

DOORS = (
    "AutoConfig",
    "AutoModel",
    "AutoModelForImageClassification",
    "RegNetModel",
    "RegNetForImageClassification",
)
"""Classes whose `from_pretrained` people call; the last two take folders of other model types, and
say so in the log alone."""


def answers(folder: str) -> dict[str, str | None]:
    """Why each door does not open; None where it does."""
    found: dict[str, str | None] = {}
    for door in DOORS:
        try:
            getattr(transformers, door).from_pretrained(folder)
        except Exception as error:  # noqa: BLE001 -- whatever keeps it shut
            found[door] = f"{type(error).__name__}: {error}"
        else:
            found[door] = None
    return found


if __name__ == "__main__":
    sys.stdout.write(json.dumps({folder: answers(folder) for folder in sys.argv[1:]}))
