"""What a file would have done to whoever opened it with another program. Nothing is run."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from converters.checkpoint.distributed import audit_distributed, distributed_in, open_distributed
from converters.checkpoint.file_audit import FileAudit, audit_file
from converters.checkpoint.onnx_places import parsed, require_readable
from converters.checkpoint.pickle_machine import ADVICE
from converters.checkpoint.reader import Checkpoint, read_checkpoint
from converters.checkpoint.source_file import SourceFile
from converters.checkpoint.values import StoredTensor
from converters.errors import ConversionError, InputError, UnsafeInputError, printable

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from converters.checkpoint.values import Tree

SCHEMA = 1
"""Of what `regnet inspect --security --json` prints; grows when a key changes its meaning."""

_DOMAINS = ("", "ai.onnx", "ai.onnx.ml", "ai.onnx.training", "ai.onnx.preview.training")

_CODELESS = {
    "safetensors": "safetensors, which cannot name code",
    "hdf5": "HDF5, which can name code in a network's description alone, and does not",
    "keras": "Keras' archive, which can name code in a network's description alone, and does not",
    "msgpack": "msgpack, which cannot name code",
    "mindspore": "protobuf of MindSpore, which cannot name code",
}
"""What holds tensors and nothing that runs, by the name of the container."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SecurityReport(FileAudit):
    """What is dangerous in a file, or in a folder of torch.distributed.checkpoint.

    Attributes:
        name: Of the file or folder.
        size: In bytes.
        refusal: Why it is not converted; None if it can be opened.
    """

    name: str
    size: int
    refusal: ConversionError | None

    @property
    def harmless(self) -> bool:
        """Whether other programs can open the file without running anything it brings."""
        followed = all(pickle.lost is None for pickle in self.pickles)
        return not self.running and self.refusal is None and followed

    def require_harmless(self) -> None:
        """Do nothing if the file is harmless.

        Raises:
            UnsafeInputError: It would run code in other programs, or they would disagree on it.
            InputError: It cannot be followed, so that nothing is known.
            StorageError: It cannot be read.
        """
        # Most names in TorchScript are the program's own.
        self.require_no_code(foreign=self.kind != "torchscript")
        if self.refusal is not None:
            raise self.refusal
        for pickle in self.pickles:
            if pickle.lost is not None:
                raise InputError(
                    f"{pickle.place}: cannot be followed behind {pickle.lost}, so nobody knows "
                    "what it does; get the checkpoint from a source you trust."
                )

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            "schema": SCHEMA,
            "file": self.name,
            "kind": self.kind,
            "size": self.size,
            "harmless": self.harmless,
            "refusal": None if self.refusal is None else str(self.refusal),
            "notes": list(self.notes),
            "pickles": [
                {
                    "place": pickle.place,
                    "not_followed_behind": pickle.lost,
                    "names": [
                        {key: value for key, value in asdict(named).items() if key != "spelled"}
                        for named in pickle.names
                    ],
                }
                for pickle in self.pickles
            ],
        }


def inspect_security(path: Path) -> SecurityReport:
    """Follow every pickle in a file, and note what else is dangerous about it.

    Pickles are looked for whatever the file seems to be, as some loaders do.

    Args:
        path: The file; or a folder of torch.distributed.checkpoint, in which each piece has a
            pickle.

    Raises:
        InputError: There is no such file, or it is none.
        StorageError: It cannot be read.
    """
    pieces = distributed_in(path) if path.is_dir() else None
    if pieces:
        return _of_distributed(path, pieces)
    with SourceFile(path) as file:
        audit = audit_file(file)
        notes = (*audit.notes, *(_onnx_notes(path) if audit.kind == "onnx" else ()))
        found = _read(file, audit.kind)
        file.require_unchanged()
    refusal = found if isinstance(found, ConversionError) else None
    if isinstance(found, Checkpoint):
        notes = (*notes, *_contents(found))
    return SecurityReport(
        audit.kind, audit.pickles, notes, name=file.name, size=file.size, refusal=refusal
    )


def _of_distributed(path: Path, pieces: Path) -> SecurityReport:
    audit, size = audit_distributed(pieces)
    refusal = None
    try:
        open_distributed(path, pieces).close()
    except (InputError, UnsafeInputError) as error:
        refusal = error
    return SecurityReport(
        audit.kind,
        audit.pickles,
        audit.notes,
        audit.of_torch,
        name=printable(path.name),
        size=size,
        refusal=refusal,
    )


def _onnx_notes(path: Path) -> list[str]:
    """The operators that are not ONNX's own: a library must be registered to run them."""
    model = parsed(path)
    if model is None:  # no runtime opens it either
        return ["cannot be read as ONNX"]
    domains = sorted({opset.domain for opset in model.opset_import} - set(_DOMAINS))
    return [f"needs a library for operators of {printable(domain)}" for domain in domains]


def _contents(checkpoint: Checkpoint) -> Iterator[str]:
    """What a file holds, where that is more than pickles, and what runs when others load it."""
    if checkpoint.container in _CODELESS:
        count = f"{_tensors(checkpoint.tree)} tensors"
        yield f"holds {count} in {_CODELESS[checkpoint.container]}"
    for keys, kind in checkpoint.modules.items():
        place = f" at {printable(keys)}" if keys else ""
        yield f"holds a module pickled whole{place}, for which torch.load imports {printable(kind)}"


def _tensors(tree: Tree) -> int:
    """How many tensors are in nested mappings."""
    if isinstance(tree, dict):
        return sum(map(_tensors, tree.values()))
    return isinstance(tree, StoredTensor)


def _read(file: SourceFile, kind: str) -> Checkpoint | ConversionError | None:
    """What the project's own readers find in a file, or why they do not take it.

    Of a program they follow the way of the images alone, so nothing is known of what it does.
    """
    if kind == "torchscript":
        return UnsafeInputError(
            f"{file.name}: is a TorchScript archive, a program that torch.jit.load runs with "
            f"operators that can read and write files; nothing was run, {ADVICE}."
        )
    try:
        if kind == "onnx":
            require_readable(file.path)
        elif kind != "numpy":  # which holds no network, and nothing else than its pickles
            return read_checkpoint(file)
    except (InputError, UnsafeInputError) as error:
        return error
    return None
