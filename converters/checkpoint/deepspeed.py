"""Folders of DeepSpeed: a step of the training, in which one file may hold the whole network.

Source: deepspeed/runtime/engine.py. ``latest`` names the folder of the last step; in it, each rank
of tensor parallelism writes an ``mp_rank_NN_model_states.pt``, and under ZeRO-3, which cuts every
parameter, each process a ``zero_pp_rank_N_mp_rank_NN_model_states.pt`` without weights. Under any
ZeRO, each process writes a ``..._optim_states.pt`` of a part of the optimiser and of the weights.
"""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

from converters.checkpoint.beside import WEIGHTS
from converters.checkpoint.source_file import SourceFile
from converters.errors import InputError, printable
from regnet.files.reading import is_bare
from regnet.files.safetensors_file import is_file

if TYPE_CHECKING:
    from pathlib import Path

_LATEST = "latest"
_MAX_NAME = 255  # bytes, of a folder
_STATES = "*_model_states.pt"
_WHOLE = "mp_rank_00_model_states.pt"
_OPTIMISER = "*_mp_rank_*_optim_states.pt"


def whole_network_in(folder: Path) -> Path | None:
    """The file that holds the network, in a folder of DeepSpeed or of one of its steps.

    Returns:
        None if there is no such file.

    Raises:
        InputError: The network is in parts.
    """
    if any((folder / name).is_file() for name in WEIGHTS):
        return None
    step = _step(folder)
    found = sorted(path.name for path in step.glob(_STATES))
    if found == [_WHOLE]:
        return step / _WHOLE
    if found:
        raise InputError(
            f"{printable(step.name)}: holds the network in parts, as DeepSpeed's ZeRO-3 and tensor "
            "parallelism do; gather them with the zero_to_fp32.py that DeepSpeed wrote beside "
            "them, and give what it makes."
        )
    if any(step.glob(_OPTIMISER)):
        raise InputError(
            f"{printable(step.name)}: holds DeepSpeed's optimiser in parts, without the files "
            "ending in _model_states.pt that say what they are; gather the whole folder of the "
            "training with the zero_to_fp32.py in it, and give what that makes."
        )
    return None


def require_no_part(path: Path) -> None:
    """Check that a file is not what a process keeps of DeepSpeed's optimiser, by its name.

    Raises:
        InputError: It is, or its folder holds the network in parts.
    """
    if is_file(path) and fnmatchcase(path.name, _OPTIMISER):
        whole_network_in(path.parent)
        raise InputError(
            f"{printable(path.name)}: is a part of DeepSpeed's optimiser; give its folder, "
            f"{printable(path.parent.name)}."
        )


def _step(folder: Path) -> Path:
    """The folder of the last step, if one is named; else the same."""
    latest = folder / _LATEST
    if not is_file(latest):
        return folder
    with SourceFile(latest) as file:
        name = file.read(0, min(file.size, _MAX_NAME)).decode("utf-8", "replace").strip()
    return folder / name if is_bare(name) else folder
