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
    """What the library of a file of HDF5, msgpack, MindSpore, ONNX, Keras or NumPy makes of it."""
    import resource
    from pathlib import Path

    resource.setrlimit(resource.RLIMIT_DATA, (_MEMORY, _MEMORY))
    _OWN[int(Path(path).parent.name.split("_")[1])](path)
    return "loads"


def _named(reader: str) -> Callable[[str], object]:
    def read(path: str) -> object:
        from pathlib import Path

        from fuzz.differential import named_readers

        return getattr(named_readers, reader)(Path(path))

    return read


def _checked(path: str) -> None:
    import onnx

    onnx.checker.check_model(onnx.load(path))


def _arrays(path: str) -> None:
    import numpy as np

    loaded: Any = np.load(path, allow_pickle=False)
    for name in loaded.files:
        loaded[name]


_OWN: dict[int, Callable[[str], object]] = {
    60: _named("hdf5"),
    61: _named("hdf5"),
    62: _named("flax"),
    63: _named("mindspore"),
    64: _checked,
    65: _checked,
    66: _named("keras"),
    67: _arrays,
}
"""By class; each reads a file, or raises."""


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
