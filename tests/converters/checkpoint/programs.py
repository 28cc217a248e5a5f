"""Files of torch.export, as torch writes them, and changed."""

from __future__ import annotations

import io
import json
import zipfile
from typing import TYPE_CHECKING, Any

import torch
from torch._export.serde.serialize import serialize

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from torch.export import ExportedProgram

GRAPH = "models/model.json"
WEIGHTS = "data/weights/model_weights_config.json"


def entries_of(path: Path) -> dict[str, bytes]:
    """What a file holds, by the names inside of its folder."""
    with zipfile.ZipFile(path) as archive:
        return {name.partition("/")[2]: archive.read(name) for name in archive.namelist()}


def packed(path: Path, entries: dict[str, bytes], root: str = "model/") -> Path:
    """A file of these entries."""
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in entries.items():
            archive.writestr(root + name, content)
    return path


def changed(source: Path, path: Path, edit: Callable[[Any], object], name: str = GRAPH) -> Path:
    """A file with one of its descriptions changed, in place or to what the edit gives."""
    entries = entries_of(source)
    content = json.loads(entries[name])
    content = edit(content) or content
    entries[name] = json.dumps(content).encode()
    return packed(path, entries)


def saved_as_2_5(program: ExportedProgram, path: Path) -> Path:
    """What torch.export.save of 2.5 to 2.7 wrote: its parts in no folder."""
    parts = serialize(program, {"aten": 10})
    entries = {
        "version": b"8.2",
        "serialized_exported_program.json": parts.exported_program,
        "serialized_state_dict.pt": parts.state_dict,
        "serialized_constants.pt": parts.constants,
        "serialized_example_inputs.pt": parts.example_inputs,
    }
    return packed(path, entries, "")


def saved_as_2_8(program: ExportedProgram, path: Path) -> Path:
    """What torch.export.save of 2.8 wrote: weights in one pickle."""
    torch.export.save(program, whole := io.BytesIO())
    parts = serialize(program, {"aten": 10})
    with zipfile.ZipFile(whole) as archive:
        entries = {name.partition("/")[2]: archive.read(name) for name in archive.namelist()}
    kept = {
        name: content
        for name, content in entries.items()
        if not name.startswith(("data/weights/", "data/constants/"))
    }
    kept["data/weights/model.pt"] = parts.state_dict
    kept["data/constants/model.pt"] = parts.constants
    return packed(path, kept)
