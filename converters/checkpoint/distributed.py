"""Folders of torch.distributed.checkpoint: the pieces that many processes wrote, as one checkpoint.

Each tensor, or piece of one, is a complete file of torch.save inside one of the folder's files;
where, says `.metadata`. FSDP and tensor parallelism cut tensors into blocks, which are joined here
without being read.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from converters.checkpoint.beside import WEIGHTS, of_folder
from converters.checkpoint.distributed_metadata import METADATA_NAME, Entry, read_metadata
from converters.checkpoint.file_audit import FileAudit, audit_file
from converters.checkpoint.reader import Checkpoint
from converters.checkpoint.source_file import FilePart, SourceFile, damaged
from converters.checkpoint.values import StoredTensor, join_blocks
from converters.checkpoint.zip_container import read_zip
from converters.errors import InputError, UnsafeInputError, printable

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterator, Sequence
    from pathlib import Path

    from converters.checkpoint.distributed_metadata import Piece
    from converters.checkpoint.values import Tree

DISTRIBUTED = "distributed"
"""What a checkpoint's container is called."""

_PIECES = ".distcp"
_OF_ACCELERATE = "pytorch_model_fsdp_*"
"""The folders beneath one of accelerate's, or of transformers' trainer, that hold a network."""

_OPTIMISER = "optim"
"""How the first key of what an optimiser keeps begins, whoever trained."""

_LEFT_OUT = "optimiser state, not needed to run the network"
_NO_TENSOR = "is no tensor, and of no kind that is read"


def distributed_in(folder: Path) -> Path | None:
    """The folder of torch.distributed.checkpoint that a folder is or has; None if there is none.

    Raises:
        InputError: If it has pieces, and lacks what says what they are.
    """
    if any((folder / name).is_file() for name in WEIGHTS):
        return None
    for candidate in (folder, *sorted(folder.glob(_OF_ACCELERATE))):
        if (candidate / METADATA_NAME).is_file():
            return candidate
        if any(candidate.glob(f"*{_PIECES}")):
            raise InputError(
                f"{printable(candidate.name)}: holds pieces of torch.distributed.checkpoint "
                f"(*{_PIECES}), and lacks {METADATA_NAME}, which says what they are; copy the "
                "whole folder, hidden files too."
            )
    return None


def require_no_piece(path: Path) -> None:
    """Refuse a file that is one of a folder of torch.distributed.checkpoint.

    Raises:
        InputError: It is.
    """
    if path.suffix == _PIECES or path.name == METADATA_NAME:
        raise InputError(
            f"{printable(path.name)}: is a part of a checkpoint that torch.distributed.checkpoint "
            f"wrote; give its folder, {printable(path.absolute().parent.name)}."
        )


def open_distributed(path: Path, folder: Path) -> Checkpoint:
    """Open a folder of torch.distributed.checkpoint.

    Args:
        path: What the user named.
        folder: Where `.metadata` lies: the same, or one beneath it.

    Returns:
        What it holds, nested as it was saved. What an optimiser keeps is left out, and values of
        other types that cannot be read.

    Raises:
        InputError: `.metadata` is damaged or contradicts itself; a file is missing or cut off; or
            a piece is damaged, or another than `.metadata` says.
        UnsafeInputError: A pickle in it would run code in other programs.
        StorageError: A file cannot be read.
    """
    checkpoint = Checkpoint(path, DISTRIBUTED)
    with checkpoint.closed_on_error():
        entries = read_metadata(checkpoint.open_more(folder / METADATA_NAME))
        ignored: dict[str, str] = {}
        kept = []
        for entry in entries:
            of_optimiser = str(entry.keys[0]).startswith(_OPTIMISER)
            if of_optimiser:
                ignored[str(entry.keys[0]).partition(".")[0]] = _LEFT_OUT
            if not (of_optimiser and entry.is_tensor):
                kept.append((entry, of_optimiser))
        reader = _Reader(checkpoint, folder)
        values = reader.values([entry for entry, _ in kept])
        tree: dict[Hashable, Tree] = {}
        for entry, of_optimiser in kept:
            if not of_optimiser and entry.name in values:
                _place(tree, entry, values[entry.name], folder.name)
            elif not of_optimiser:
                ignored[entry.name] = _NO_TENSOR
        checkpoint.tree = _with_lists(tree)
        beside = of_folder(path)
        checkpoint.beside = replace(beside, ignored=ignored)
    return checkpoint


def _place(tree: dict[Hashable, Tree], entry: Entry, value: Tree, where: str) -> None:
    """Put a value where the keys of its entry lead.

    Raises:
        InputError: Something else is there, or on the way.
    """
    branch: Any = tree
    for key in entry.keys[:-1]:
        branch = branch.setdefault(key, {}) if isinstance(branch, dict) else None
    if not isinstance(branch, dict) or entry.keys[-1] in branch:
        raise damaged(f"{printable(where)}, {printable(entry.name)}", "has the place of another")
    branch[entry.keys[-1]] = value


def _with_lists(tree: Tree) -> Tree:
    """The same with lists where the keys are 0, 1, 2 and so on, which torch takes apart too."""
    if not isinstance(tree, dict):
        return tree
    members = {key: _with_lists(value) for key, value in tree.items()}
    if members and all(type(key) is int for key in members):
        ordered = sorted(members.items(), key=lambda member: int(str(member[0])))
        if [key for key, _ in ordered] == list(range(len(ordered))):
            return [value for _, value in ordered]
    return members


class _Reader:
    """Reads what describes the tensors in the files of a folder.

    Args:
        checkpoint: Gets the files.
        folder: Where they lie.
    """

    def __init__(self, checkpoint: Checkpoint, folder: Path) -> None:
        self._checkpoint = checkpoint
        self._folder = folder

    def values(self, entries: Sequence[Entry]) -> dict[str, Tree]:
        """What entries are, by name, without those that are no tensors and cannot be read."""
        blocks: dict[str, dict[tuple[int, ...], StoredTensor]] = defaultdict(dict)
        values: dict[str, Tree] = {}
        for part, entry, piece in self.parts(entries):
            if entry.is_tensor:
                blocks[entry.name][piece.corner] = _block(part, entry, piece)
            else:
                _read_value(part, entry, values)
        for entry in entries:
            if entry.is_tensor:
                values[entry.name] = join_blocks(blocks[entry.name], entry.shape)
        return values

    def parts(self, entries: Sequence[Entry]) -> Iterator[tuple[FilePart, Entry, Piece]]:
        """Where the pieces of entries lie: file by file, each from front to back.

        Raises:
            InputError: A file is missing or cut off.
        """
        by_file: dict[str, list[tuple[int, Entry, Piece]]] = defaultdict(list)
        for entry in entries:
            for piece in entry.pieces:
                by_file[piece.place.file].append((piece.place.offset, entry, piece))
        for name in sorted(by_file):
            file = self._opened(name)
            for _, entry, piece in sorted(by_file[name], key=lambda member: member[0]):
                yield _part(file, entry, piece), entry, piece

    def _opened(self, name: str) -> SourceFile:
        path = self._folder / name
        if not path.exists():
            raise InputError(
                f"{printable(self._folder.name)}: {printable(name)}, which its {METADATA_NAME} "
                "names, is missing; copy the whole folder."
            )
        return self._checkpoint.open_more(path)


def _part(file: SourceFile, entry: Entry, piece: Piece) -> FilePart:
    place = piece.place
    if place.end > file.size:
        what = f"is truncated, it has {file.size} bytes and {printable(entry.name)} ends at byte"
        raise damaged(file.name, f"{what} {place.end}")
    return FilePart(file, place.offset, place.length, f"{file.name}, {printable(entry.name)}")


def _block(part: FilePart, entry: Entry, piece: Piece) -> StoredTensor:
    """The tensor that a part of a file is."""
    tensor = read_zip(part)
    found = "no tensor"
    if isinstance(tensor, StoredTensor):
        found = f"{tensor.dtype} of shape {list(tensor.shape)}"
        if tensor.nbytes != tensor.storage.length:
            found += ", and more"
    said = f"{entry.dtype} of shape {list(piece.shape)}"
    if not isinstance(tensor, StoredTensor) or found != said:
        raise damaged(part.name, f"is {found} where {METADATA_NAME} says {said}", "the folder")
    label = f"{printable(entry.name)}, {tensor.storage.label}"
    return replace(tensor, storage=replace(tensor.storage, label=label))


def _read_value(part: FilePart, entry: Entry, values: dict[str, Tree]) -> None:
    """Read a value of another type, which torch unpickles without a limit.

    Raises:
        UnsafeInputError: It would run code.
    """
    audit_file(part).require_no_code(foreign=False)
    try:
        values[entry.name] = read_zip(part)
    except InputError:
        return


def audit_distributed(folder: Path) -> tuple[FileAudit, int]:
    """Follow every pickle in a folder: `.metadata`, and one in each piece of the files it names.

    Pickles that only hold data are counted and not listed, for there are thousands.

    Args:
        folder: Where `.metadata` lies.

    Returns:
        What is in it, and the bytes of its files.

    Raises:
        StorageError: A file cannot be read.
    """
    with Checkpoint(folder, DISTRIBUTED) as checkpoint:
        file = checkpoint.open_more(folder / METADATA_NAME)
        audit = audit_file(file)
        pickles = list(audit.pickles)
        followed = 0
        notes: list[str] = []
        try:
            entries = read_metadata(file)
        except (InputError, UnsafeInputError):
            entries = []  # who refuses it says why
            notes.append(f"{METADATA_NAME} cannot be used, so nothing else was looked at")
        reader = _Reader(checkpoint, folder)
        try:
            for part, *_ in reader.parts(entries):
                found = audit_file(part).pickles
                followed += len(found)
                pickles += [pickle for pickle in found if pickle.running or pickle.lost is not None]
        except InputError as error:
            notes.append(str(error))
        notes.append(f"{followed} pickles in its pieces were followed")
        return FileAudit(DISTRIBUTED, tuple(pickles), tuple(notes), of_torch=True), checkpoint.size
