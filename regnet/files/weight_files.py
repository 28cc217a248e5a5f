"""Which files of a folder hold its weights: the index says it, never the names of files."""

from __future__ import annotations

from typing import TYPE_CHECKING

from regnet.files.json_text import read_json
from regnet.files.safetensors_file import INDEX_NAME, SHARD_PATTERN, WEIGHTS_NAME

if TYPE_CHECKING:
    from collections.abc import Container, Iterable, Mapping
    from pathlib import Path


def weight_files(folder: Path) -> list[Path]:
    """List the files that `from_pretrained` reads: ``model.safetensors``, else the index's shards.

    Args:
        folder: Of a converted network, or as transformers writes it.

    Raises:
        FileNotFoundError: If there is neither, or a shard is missing.
        ValueError: If the index cannot be used.
    """
    if (folder / WEIGHTS_NAME).is_file():
        return [folder / WEIGHTS_NAME]
    if not (folder / INDEX_NAME).is_file():
        raise FileNotFoundError(
            f"{folder} has neither {WEIGHTS_NAME} nor {INDEX_NAME}; convert the checkpoint with "
            "`regnet convert` first."
        )
    return [folder / name for name in shards_of(folder / INDEX_NAME)]


def shards_of(index: Path) -> dict[str, set[str]]:
    """Read an index.

    Args:
        index: ``model.safetensors.index.json``, or any of its form.

    Returns:
        The names of its files, sorted, each with the names of the tensors in it.

    Raises:
        FileNotFoundError: If a file is missing.
        ValueError: If it is no index, or names a file outside its folder.
    """
    try:
        content = read_json(index)
    except (OSError, ValueError) as error:
        raise ValueError(f"{index.name}: cannot be read as JSON; restore the file.") from error
    if not isinstance(content, dict):
        raise ValueError(f"{index.name}: is no JSON object; restore the file.")
    placed = content.get("weight_map")
    if not isinstance(placed, dict) or not placed:
        raise ValueError(f"{index.name}: has no weight_map; the download is incomplete.")
    shards: dict[str, set[str]] = {}
    for tensor, name in placed.items():
        if not isinstance(name, str):
            raise ValueError(f"{index.name}: names no file for {tensor}; restore the file.")
        shards.setdefault(name, set()).add(tensor)
    outside = [name for name in shards if "/" in name or "\\" in name or name in {"", ".", ".."}]
    if outside:
        raise ValueError(f"{index.name}: names a file outside its folder ({outside[0]!r}).")
    missing = [name for name in sorted(shards) if not is_file(index.parent / name)]
    if missing:
        raise FileNotFoundError(
            f"{index.name}: {len(missing)} of {len(shards)} shards are missing, first "
            f"{missing[0]!r}; complete the download."
        )
    return dict(sorted(shards.items()))


def require_indexed(
    index: Path, shards: Mapping[str, set[str]], held: Mapping[str, Iterable[str]]
) -> None:
    """Check that shards hold what their index says, all of it and nothing else.

    Programs differ in which of the two they go by.

    Args:
        index: For messages.
        shards: What it says; see :func:`shards_of`.
        held: The names of the tensors in each file.

    Raises:
        ValueError: If it does not.
    """
    for name, stated in shards.items():
        different = sorted(stated ^ set(held[name]))
        if different:
            where = (
                "is not in" if different[0] in stated else "is named elsewhere or nowhere but in"
            )
            raise ValueError(
                f"{index.name}: {different[0]} {where} {name}; index and shards are not of one "
                "download, fetch the folder again."
            )


def unindexed(folder: Path, read: Container[str]) -> list[str]:
    """List files that are named like shards of the weights and that nobody reads.

    Args:
        folder: Theirs.
        read: The names of those that are read.
    """
    return sorted(path.name for path in folder.glob(SHARD_PATTERN) if path.name not in read)


def is_file(path: Path) -> bool:
    """Whether a file is there; of a name that no file can have, that it is not."""
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False
