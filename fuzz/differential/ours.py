"""What our own readers find in a file."""

from __future__ import annotations

import signal
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from unittest import mock

import torch

from converters.checkpoint import (
    Checkpoint,
    Opaque,
    Storage,
    StoredTensor,
    hdf5_container,
    open_any,
    open_checkpoint,
)
from converters.checkpoint.pickle_globals import BUILT, VALUES, qualified_name
from converters.checkpoint.security import inspect_security
from fuzz.differential.named_readers import flattened
from fuzz.differential.reading import UNREAD, EndlessError, Leaf, Reading, taken_apart, tensor
from tests.converters.checkpoint.keras_files import asked_here
from tests.converters.loading import load

_SECONDS = 3.0  # of processor time


def checkpoint(path: Path) -> Reading:
    """What `open_checkpoint` reads, or `open_any` of a folder, every byte of it.

    Raises:
        ConversionError: It refuses the file.
    """
    with (open_any if path.is_dir() else open_checkpoint)(path) as opened:
        reading = taken_apart(opened.tree, lambda value: _leaf(opened, value))
        if opened.container == "safetensors":
            reading["metadata"] = ["plain", repr(sorted(opened.metadata.items()))]
        return reading


def named(path: Path) -> Reading:
    """What is read of a file that names tensors without pickles, by their names with all levels.

    Raises:
        ConversionError: It is refused.
    """
    with open_checkpoint(path) as opened:
        tree = flattened(opened.tree) if isinstance(opened.tree, dict) else opened.tree
        reading = taken_apart(tree, lambda value: _leaf(opened, value))
        return reading | {name: ["plain", text] for name, text in opened.metadata.items()}


def named_here(path: Path) -> Reading:
    """Likewise, with HDF5 taken to pieces in this process, which may die of it.

    libhdf5 runs in circles in some files, of which the process is ended, as our own is.
    """
    signal.signal(signal.SIGPROF, signal.SIG_DFL)
    signal.setitimer(signal.ITIMER_PROF, _SECONDS)
    try:
        with mock.patch.object(hdf5_container, "_asked", asked_here):
            return named(path)
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)


IMAGE = torch.linspace(-2, 2, 3 * 32 * 32).reshape(1, 3, 32, 32)


def numbers(output: torch.Tensor) -> Leaf:
    """What a network computes."""
    return ["numbers", list(output.shape), output.double().reshape(-1).tolist()]


def computed(path: Path) -> Reading:
    """What the network computes that we find in an exported file.

    Of a trunk also what is pooled; files end in either.

    Raises:
        ConversionError: It is refused.
        EndlessError: It takes other images.
    """
    with TemporaryDirectory(dir=path.parent) as folder:
        network = load(path, Path(folder)).network
    if network.config.num_channels != IMAGE.shape[1]:
        raise EndlessError
    with torch.inference_mode():
        output: Any = network(IMAGE)
    if "logits" in output:
        return {"logits": numbers(output.logits)}
    pooled = output.pooler_output
    found = {"map": output.last_hidden_state, "pooled": pooled, "flat": pooled.flatten(1)}
    return {name: numbers(values) for name, values in found.items()}


def _leaf(opened: Checkpoint, value: object) -> Leaf | None:
    match value:
        case StoredTensor():
            return tensor(
                value.dtype,
                value.shape,
                value.stride,
                value.nbytes,
                lambda: opened.array(value).tobytes(),
            )
        case Opaque() | Storage():
            return UNREAD
    return None


def understood(path: Path) -> bool:
    """Whether every name in a file is one of which we know what it gives.

    What is made by others may be unread, and dropped again, wherever it stands.
    """
    report = inspect_security(path)
    spelled = {named.name for pickle in report.pickles for named in pickle.names}
    return {_today(name) for name in spelled} <= BUILT | VALUES


def _today(name: str) -> str:
    module, _, last = name.rpartition(".")
    return qualified_name(module, last)


def names(path: Path) -> set[str] | None:
    """Every name that a loader could look up, if the file is said to be harmless; None if not.

    Raises:
        ConversionError: It cannot be read at all.
    """
    report = inspect_security(path)
    if not report.harmless:
        return None
    return {named.name for pickle in report.pickles for named in pickle.names}
