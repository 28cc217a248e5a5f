"""TorchScript archives of any exporter: a pickle of modules, and the code of their classes.

Layout: torch's ``torch/csrc/jit/serialization/export_module.cpp`` and ``import.cpp``, as since
torch 1.4. Nothing of the code is run (:mod:`converters.checkpoint.script_program`).
"""

from __future__ import annotations

import struct
from math import prod
from typing import TYPE_CHECKING
from zlib import crc32

from converters.checkpoint.file_audit import require_no_code_beside
from converters.checkpoint.graph import Constant, Graph, ValueInfo
from converters.checkpoint.script_code import MAX_FILE, ScriptCode
from converters.checkpoint.script_program import ScriptProgram
from converters.checkpoint.script_values import module_tree
from converters.checkpoint.values import Opaque, StoredTensor, Tree
from converters.checkpoint.zip_container import OF_CHECKPOINTS, checksum_error
from converters.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Hashable

    from converters.checkpoint.zip_container import ZipArchive

_MAX_CODE = 1 << 22
"""Bytes of all code that is read together."""

_OLD = "model.json"
"""What archives of torch before 1.4 have in the place of `data.pkl`."""

_KNOWN = (*OF_CHECKPOINTS, "constants.pkl", "constants/", "code/", "bytecode.pkl")

_CODES = {"float32": "f", "float64": "d", "float16": "e", "int32": "i", "int64": "q"}
_FEW = 4096
"""Bytes of a storage whose one number is read: a factor, an exponent."""


def read_script(archive: ZipArchive) -> tuple[Graph, Tree]:
    """Read what the network of an archive computes, and where its tensors lie, by their paths.

    Raises:
        InputError: It is damaged, or its program is not a straight line of operations.
        UnsafeInputError: A pickle in it names code to run.
        StorageError: It cannot be read.
    """
    name = archive.file.name
    if any(entry.inside == _OLD for entry in archive.directory.entries):
        raise InputError(
            f"{name}: is a TorchScript archive of torch before 1.4, which is not read; load it "
            "with torch.jit.load and save it again."
        )
    archive.require_kind(script=True)
    note, constants = archive.unpickled("data"), archive.unpickled("constants")
    version = archive.require_known_layout()
    require_no_code_beside(archive.file, archive.directory, _KNOWN)
    if not isinstance(note, Opaque) or not isinstance(constants, tuple):
        raise InputError(
            f"{name}: is a TorchScript archive without a module; name the checkpoint it was made "
            "from."
        )
    try:
        root, tensors = module_tree(note)
    except ValueError as error:
        raise InputError(f"{name}: has {error}; name the checkpoint it was made from.") from error
    held = tensors | {
        f"CONSTANTS.c{index}": constant
        for index, constant in enumerate(constants)
        if isinstance(constant, StoredTensor)
    }
    code = ScriptCode(name, _Texts(archive).text)
    program = ScriptProgram(name, code, root, constants, tuple(held))
    program.follow()
    tree: dict[Hashable, Tree] = dict(held.items())
    return _graph(program, archive, version), tree


class _Texts:
    """The files of code, not more than there can be of a RegNet."""

    def __init__(self, archive: ZipArchive) -> None:
        self._archive = archive
        self._bytes = 0

    def text(self, place: str) -> bytes | None:
        found = self._archive.text(place, MAX_FILE)
        self._bytes += len(found or b"")
        if self._bytes > _MAX_CODE:
            raise InputError(
                f"{self._archive.file.name}: has more than {_MAX_CODE} bytes of code, more than "
                "any RegNet; name the checkpoint it was made from."
            )
        return found


def _graph(program: ScriptProgram, archive: ZipArchive, version: int) -> Graph:
    """What the program comes to; it states no type of its images, which its kernels show.

    Who wrote it, the class of its module tells best.
    """
    types = {tensor.dtype: None for tensor in program.used.values() if len(tensor.shape) > 1}
    other = next((dtype for dtype in types if dtype != "float32"), "float32")
    return Graph(
        inputs=(ValueInfo(program.image, other, (None,) * 4),),
        outputs=tuple(ValueInfo(name, "", None) for name in program.outputs),
        nodes=program.nodes,
        constants={
            name: Constant(t.dtype, t.shape, t, _number(archive, t))
            for name, t in program.used.items()
        }
        | {
            name: Constant("float32", each.shape, None, each.numbers)
            for name, each in program.spelled.items()
        },
        opset=version,
        producer=program.root.kind,
    )


def _number(archive: ZipArchive, tensor: StoredTensor) -> tuple[int | float, ...] | None:
    """The element of a tensor that has one."""
    code, storage = _CODES.get(tensor.dtype), tensor.storage
    if code is None or prod(tensor.shape) != 1 or storage.length > _FEW:
        return None
    data = archive.file.read(storage.offset - archive.file.origin[1], storage.length)
    if storage.crc32 is not None and crc32(data) != storage.crc32:
        raise checksum_error(storage)
    return struct.unpack_from(f"<{code}", data, tensor.storage_offset * tensor.itemsize)
