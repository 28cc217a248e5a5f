"""What other tools make of files, one JSON line each; run by whichever Python has the tool.

Run: python -m tests.hostile.others TOOL FILE...

The scanners live in an environment of their own, which runs this as a script: they need nothing of
the project.
"""

from __future__ import annotations

import json
import sys
import warnings
import zipfile
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

_MEMORY = 1 << 30


def torch_loads(path: str) -> str:
    """What ``torch.load(path, weights_only=True)`` does."""
    import torch

    torch.load(path, weights_only=True)
    return "loads"


def transformers_loads(path: str) -> str:
    """What transformers' ``load_state_dict`` does, which ``from_pretrained`` calls."""
    import_module("tests.conftest")  # before transformers, which imports torchvision
    from transformers.modeling_utils import load_state_dict

    load_state_dict(path)
    return "loads"


def picklescan_finds(path: str) -> str:
    """What picklescan's command would exit with."""
    from picklescan.scanner import scan_file_path  # type: ignore[import-not-found]

    result = scan_file_path(path)
    if result.scan_err:
        return "fails"
    return "warns" if result.issues_count or result.infected_files else "clean"


def fickling_finds(path: str) -> str:
    """The worst severity that fickling's safety check gives."""
    from fickling.loader import scan_file, scan_zip_archive  # type: ignore[import-not-found]

    found: Any = scan_zip_archive(path) if zipfile.is_zipfile(path) else {"": scan_file(path)}
    severities = [result.severity for result in found.values()]
    worst = max(severities, key=lambda severity: severity.value, default=None)
    return "nothing" if worst is None else str(worst.name.lower().replace("_", " "))


def own_reads(path: str) -> str:
    """What h5py, msgpack by Flax's lines, or protobuf by MindSpore's make of a file of theirs."""
    import resource
    from pathlib import Path

    from converters.checkpoint.hdf5_container import HDF5_START
    from converters.checkpoint.msgpack_container import looks_like_msgpack
    from fuzz.differential import named_readers

    resource.setrlimit(resource.RLIMIT_DATA, (_MEMORY, _MEMORY))
    content = Path(path).read_bytes()
    reader = named_readers.flax if looks_like_msgpack(content) else named_readers.mindspore
    if content.startswith(HDF5_START):
        reader = named_readers.hdf5
    reader(Path(path))
    return "loads"


OWN = "own"
"""The libraries of containers that no other of the tools reads."""

TOOLS: dict[str, tuple[Callable[[str], str], str]] = {
    "torch": (torch_loads, "refuses"),
    "transformers": (transformers_loads, "refuses"),
    "picklescan": (picklescan_finds, "fails"),
    "fickling": (fickling_finds, "fails"),
    OWN: (own_reads, "refuses"),
}
"""What asks a tool, and what it means that it raises."""


def main() -> None:
    """Ask one tool about every file."""
    warnings.simplefilter("ignore")
    ask, raised = TOOLS[sys.argv[1]]
    for path in sys.argv[2:]:
        try:
            answer = ask(path)
        except Exception:  # noqa: BLE001 -- each tool has errors of its own
            answer = raised
        sys.stdout.write(json.dumps([path, answer]) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
