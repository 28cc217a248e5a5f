"""HDF5, which Keras and TensorFlow save weights in: where each dataset lies, found out apart.

The file is taken to pieces by h5py in a process of its own (:mod:`converters.checkpoint.hdf5_child`
says why); what that says is held against the file here, and tensors are read like all others.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from itertools import pairwise
from math import prod
from threading import Timer
from typing import TYPE_CHECKING, Any

from converters.checkpoint.source_file import damaged
from converters.checkpoint.values import (
    MAX_AXES,
    MAX_SIZE,
    Storage,
    StoredTensor,
    Tree,
    contiguous_stride,
)
from converters.errors import InputError, UnsafeInputError, printable, require_extra
from regnet.files.dtypes import ELEMENT_TYPES, item_size

if TYPE_CHECKING:
    from collections.abc import Hashable, Mapping

    from converters.checkpoint.source_file import SourceFile


SECONDS = 60.0
"""To find out what is in a file, most of which is the start of a process."""

MAX_ANSWER = 1 << 25
"""Bytes."""

_MAX_WORDS = 1 << 12
"""Characters of a refusal."""

_START = (
    "import sys; sys.path[:] = {path!r}; "
    "from converters.checkpoint.hdf5_child import serve; serve()"
)
"""What the other process runs: with the paths of this one, so that no other code of these names is
found."""


_LAYER = re.compile(
    r"(?P<group>(?P<above>(?:.+\.)?)layers\.(?P<kind>[a-z0-9_]+?)(?:_[0-9]+)?)\.vars\.(?P<index>[0-9])"
)
"""A layer's tensor as Keras 3 calls it, and tf_keras: by the place of both."""

_BEFORE_2_13 = "_layer_checkpoint_dependencies."
"""What stood for ``layers.``."""

LAYER_VARIABLES = {
    "conv2d": ("kernel", "bias"),
    "dense": ("kernel", "bias"),
    "batch_normalization": ("gamma", "beta", "moving_mean", "moving_variance"),
}
"""The tensors of a layer, by its class in small letters, in their order."""


def read_hdf5(
    file: SourceFile, part: Storage | None = None, layers: Mapping[str, str] | None = None
) -> Tree:
    """Find the tensors in an HDF5 file, or in a run of bytes that is one.

    Args:
        file: The file.
        part: The run, if it is not all of the file; its checksum is compared as the first of its
            tensors is read.
        layers: The names of layers, by their groups in a file of Keras 3; if None, those that the
            groups themselves state.

    Returns:
        Tensors by name: the levels of groups joined by dots, without Keras' ``:0`` and the level
        of a layer's group; those of an optimiser in a mapping of their own. Of a layer of Keras 3
        its name, if that is known, else its group; and the tensor's name (``stem.kernel``,
        ``layers.conv2d.kernel``).

    Raises:
        InputError: It is damaged, or holds what is not read.
        UnsafeInputError: It leads to other files, programs may disagree on what it holds, or Keras
            would run code for it.
        StorageError: h5py is not installed.
    """
    require_extra("h5py", "keras", "HDF5 files are read with it")
    whole = part or Storage(file.path, 0, file.size, None, "all of it")
    return taken(file, _asked(file, whole.offset, whole.length), whole, layers)


def taken(
    file: SourceFile, answer: object, whole: Storage, layers: Mapping[str, str] | None = None
) -> Tree:
    """Make tensors of what the other process says, which the file may have made its own.

    Args:
        file: The file.
        answer: What it says.
        whole: The run of bytes that it was asked about.
        layers: As :func:`read_hdf5` takes them.

    Raises:
        InputError: It says so, or what cannot be.
        UnsafeInputError: It says so.
    """
    if not isinstance(answer, dict):
        raise _lost(file, "it said nothing")
    if "error" in answer:
        kind = UnsafeInputError if answer["error"] == UnsafeInputError.__name__ else InputError
        words = answer.get("words")
        if not isinstance(words, str) or not _is_sentence(words):
            raise _lost(file, "it said nothing that can be shown")
        raise kind(words)
    try:
        return _tree(file, answer["tensors"], whole, layers)
    except (KeyError, TypeError, ValueError) as error:
        raise _lost(file, "it said what cannot be") from error


def _is_sentence(words: str) -> bool:
    return words.isprintable() and words.endswith(".") and len(words) <= _MAX_WORDS


def _asked(file: SourceFile, start: int, size: int) -> object:
    """What the other process says of a file."""
    late: list[bool] = []
    command = [sys.executable, "-P", "-c", _START.format(path=sys.path)]
    with subprocess.Popen(  # noqa: S603 -- nothing of it comes from outside
        [*command, file.name, str(start), str(size)],
        stdin=file.fileno(),
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    ) as process:

        def end() -> None:
            late.append(True)
            process.kill()

        timer = Timer(SECONDS, end)
        timer.daemon = True
        timer.start()
        try:
            assert process.stdout  # noqa: S101 -- a pipe
            said = process.stdout.read(MAX_ANSWER)
        finally:
            process.kill()
            timer.cancel()
        status = process.wait()
    file.require_unchanged()
    try:
        answer: object = json.loads(said.decode("ascii"))  # of no other encoding
    except (ValueError, RecursionError) as error:
        why = f"was not done within {SECONDS:.0f} seconds" if late else f"ended with {status}"
        raise _lost(file, f"it {why}") from error
    return answer


def _lost(file: SourceFile, why: str) -> InputError:
    return InputError(
        f"{file.name}: is damaged or an attack, the process that h5py read it in broke down "
        f"({why}); get the checkpoint from a source you trust."
    )


def _tree(
    file: SourceFile, described: list[Any], whole: Storage, layers: Mapping[str, str] | None
) -> Tree:
    """The tensors that were described, if they can be.

    Raises:
        UnsafeInputError: Two have one name.
        KeyError, TypeError, ValueError: They cannot.
    """
    tree: dict[Hashable, Tree] = {}
    runs: list[tuple[int, int, str]] = []
    for said in described:
        name, within, dtype = str(said["name"]), str(said["within"]), said["dtype"]
        offset, shape = said["offset"], tuple(said["shape"])
        sizes = [*shape, offset]
        if len(shape) > MAX_AXES or not all(type(n) is int and 0 <= n <= MAX_SIZE for n in sizes):
            raise ValueError("no size")
        length = prod(shape) * item_size(dtype) if dtype in ELEMENT_TYPES else -1
        if not 0 <= length <= whole.length - offset:
            raise InputError(
                f"{file.name}, {printable(name)}: has its elements behind the end of the file; "
                "download or copy the file again."
            )
        mapping: Any = tree.setdefault(within, {}) if within else tree
        called = _called(name, layers, said.get("layer"))
        if called in mapping:
            raise UnsafeInputError(
                f"{file.name}: it has the tensor {printable(called)} twice, so that programs may "
                "disagree on its content; get the checkpoint from a source you trust."
            )
        storage, first = _within(whole, offset, length, item_size(dtype), name)
        mapping[called] = StoredTensor(dtype, shape, contiguous_stride(shape), storage, first)
        if length:
            runs.append((offset, offset + length, name))
    runs.sort()
    for (_, end, name), (begin, _, other) in pairwise(runs):
        if begin < end:
            what = f"is damaged, {printable(name)} and {printable(other)} share bytes"
            raise damaged(file.name, what)
    return tree


def _within(whole: Storage, offset: int, length: int, item: int, name: str) -> tuple[Storage, int]:
    """A storage, and where in it a tensor begins: all of a run of which the checksum is known."""
    if whole.crc32 is not None and offset % item == 0:
        return whole, offset // item
    label = f"dataset '{printable(name)}'"
    return Storage(whole.path, whole.offset + offset, length, None, label), 0


def _called(name: str, layers: Mapping[str, str] | None, stated: object) -> str:
    """What a tensor is called whose place in the file has a name.

    Args:
        name: That name.
        layers: The names of layers by their groups, if others know them.
        stated: What its layer's group says; anything.
    """
    match = _LAYER.fullmatch(name.replace(_BEFORE_2_13, "layers."))
    if match is None:
        return name
    layer = layers.get(match["group"]) if layers is not None else None
    if layers is None and isinstance(stated, str):
        layer = match["above"].replace("layers.", "") + stated
    leaves, index = LAYER_VARIABLES.get(match["kind"], ()), int(match["index"])
    leaf = leaves[index] if index < len(leaves) else match["index"]
    return f"{layer or match['group']}.{leaf}"
