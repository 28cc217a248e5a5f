"""What lies beside a file of weights: the rest of its folder, which says what it is, and shards."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from converters.checkpoint.reader import Checkpoint
from converters.checkpoint.values import Beside
from converters.errors import InputError
from regnet.config import CONFIG_NAME, MODEL_TYPE
from regnet.files.json_file import PREPROCESSOR_NAME, PROCESSOR_NAME, processor_settings
from regnet.files.reading import json_object
from regnet.files.safetensors_file import (
    INDEX_NAME,
    WEIGHTS_NAME,
    is_file,
    require_indexed,
    shards_of,
    unindexed,
)
from regnet.wider import WIDER_TYPE

if TYPE_CHECKING:
    from collections.abc import Hashable, Mapping
    from pathlib import Path

    from converters.checkpoint.values import Tree

CONFIGURATIONS = (CONFIG_NAME, PREPROCESSOR_NAME, PROCESSOR_NAME)
"""What says what the weights of a folder of Hugging Face's libraries are."""

WEIGHTS = (
    WEIGHTS_NAME,
    INDEX_NAME,
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
    "open_clip_model.safetensors",
    "tf_model.h5",
    "tf_model.h5.index.json",
    "flax_model.msgpack",
    "flax_model.msgpack.index.json",
)
"""What its weights can lie in: the first that is there, as transformers looks for them."""

_MAX_JSON = 5_000_000
"""In bytes, of which Python makes 200 MB; the names of 21,000 classes take one."""

_VARIANT = r"(\.(?P<variant>[\w-]+))?"
"""What ``save_pretrained(variant=...)`` puts into a name: ``model.fp16.safetensors``."""

_VARIANTS = (
    re.compile(rf"model{_VARIANT}\.safetensors"),
    re.compile(rf"model\.safetensors\.index{_VARIANT}\.json"),
    re.compile(rf"pytorch_model{_VARIANT}\.bin"),
    re.compile(rf"pytorch_model\.bin\.index{_VARIANT}\.json"),
)
"""Weights of a variant, in the order of :data:`WEIGHTS`."""

_OTHERS = {
    "adapter_config.json": (
        "holds an adapter of peft and no network; load it on its network, call "
        "merge_and_unload() and save_pretrained(), and give that folder"
    ),
    "latest": (
        "is what DeepSpeed saves; run the zero_to_fp32.py that lies in it and give the result, or "
        "give mp_rank_00_model_states.pt of the folder that `latest` names"
    ),
}
"""What a folder without weights may be instead, by a file in it."""

_INDEX = re.compile(r".*\.index(\.[\w-]+)?\.json")
_SHARD = re.compile(
    r"(?P<stem>.*)-\d{3,6}-of-(?P<count>\d{3,6})\.(?P<ending>safetensors|bin|h5|msgpack)"
)
_OF_A_FOLDER = re.compile(
    r"(model|pytorch_model|open_clip_model|open_clip_pytorch_model)(\.[\w-]+)?\.(safetensors|bin)"
    r"|tf_model\.h5|flax_model\.msgpack"
)
"""Names that Hugging Face's libraries give to weights, and nobody to a file that stands alone."""

_STALE = "named like a shard, but not by the index"

_GRAPHS = ("model.onnx", "onnx/model.onnx")

_ENDINGS = frozenset({".bin", ".ckpt", ".pt", ".pth", ".pyth", ".safetensors", ".tar", ".torch"})
_WITH_WEIGHTS = _ENDINGS | {".h5", ".msgpack", ".distcp"}
"""How the names of files end that hold a network's weights, and no graph."""


def of_folder(folder: Path) -> Beside:
    """Read a folder's configuration and the settings of its image processor.

    Raises:
        InputError: If a file cannot be read as a JSON object.
    """
    name, settings = processor_settings(folder, read_json)
    return Beside(read_json(folder / CONFIG_NAME), settings, name)


def of_file(path: Path) -> Beside:
    """Read what lies beside a file, where it says what the file is.

    It does beside names that belong into such a folder, and where a RegNet's ``config.json`` lies
    beside no other weights.

    Raises:
        InputError: If it does and cannot be read.
    """
    if _OF_A_FOLDER.fullmatch(path.name):
        return of_folder(path.parent)
    if not _is_regnets(path.parent / CONFIG_NAME):
        return Beside()
    others = [other for other in path.parent.iterdir() if other.suffix in {*_ENDINGS, path.suffix}]
    if others == [path.parent / path.name]:
        return of_folder(path.parent)
    reason = "it lies beside several files of weights, and does not say of which it speaks"
    return Beside(ignored={CONFIG_NAME: reason})


def index_of(path: Path) -> Path | None:
    """The index that a file is, or that names it as one of its shards; else None.

    Raises:
        InputError: If there is one that cannot be read, or none that names a shard of several.
    """
    if _INDEX.fullmatch(path.name):
        return path
    match = _SHARD.fullmatch(path.name)
    if match is None:
        return None
    stem, ending = match["stem"], match["ending"]
    network, _, variant = stem.rpartition(".")
    names = (f"{stem}.{ending}.index.json", f"{network}.{ending}.index.{variant}.json")
    indices = (path.with_name(name) for name in names)
    index = next((i for i in indices if i.is_file() and path.name in read_index(i)), None)
    if index is None and int(match["count"]) > 1:
        raise InputError(
            f"{path.name}: is one of {int(match['count'])} shards, and no index beside it names "
            "it; get the whole folder, with its index."
        )
    return index


def is_of_folder(path: Path) -> bool:
    """Whether a file is what tells of a folder's weights, which is what whoever names it means."""
    return path.name in CONFIGURATIONS and is_file(path)


def read_index(index: Path) -> dict[str, set[str]]:
    """Read an index; see :func:`regnet.files.safetensors_file.shards_of`.

    TensorFlow's and Flax's name what a tensor belongs to before its levels: the class of the whole
    network, and the collection. Names are given as the readers of their files give them.

    Raises:
        InputError: If it cannot be used, or a shard is missing.
    """
    try:
        shards = shards_of(index)
    except (FileNotFoundError, ValueError) as error:
        raise InputError(str(error)) from error
    return {file: set(map(_as_read, names)) for file, names in shards.items()}


def _as_read(name: str) -> str:
    _, slash, levels = name.partition("/")  # which no name of torch's has
    return levels.removesuffix(":0").replace("/", ".") if slash else name


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object; empty if there is no such file.

    Raises:
        InputError: If it is none.
    """
    try:
        return json_object(path, _MAX_JSON) if path.is_file() else {}
    except ValueError as error:
        raise InputError(str(error)) from error


def _is_regnets(path: Path) -> bool:
    """Whether a configuration is a RegNet's, of transformers or timm."""
    try:
        keys = read_json(path)
    except InputError:
        return False
    return keys.get("model_type") in {MODEL_TYPE, WIDER_TYPE} or str(
        keys.get("architecture")
    ).startswith("regnet")


def graph_in(folder: Path) -> Path | None:
    """The ONNX file that stands for a network in a folder without weights of any other kind.

    It is ``model.onnx``, as optimum calls it, there or in ``onnx``, where transformers.js looks for
    it; else the only one there is.

    Raises:
        InputError: If there are several, and none has that name.
    """
    if any(path.suffix in _WITH_WEIGHTS for path in folder.iterdir()):
        return None
    for name in _GRAPHS:
        if (folder / name).is_file():
            return folder / name
    found = sorted(path for path in folder.glob("*.onnx") if path.is_file())
    if len(found) > 1:
        listed = " and ".join(path.name for path in found)
        raise InputError(f"{folder}: holds several ONNX files, {listed}; name one of these files.")
    return found[0] if found else None


def open_folder(path: Path, index: Path | None = None) -> Checkpoint:
    """Open a folder as Hugging Face's libraries write it.

    Args:
        path: What the user named: the folder, or a file in it.
        index: The index of the shards, where it is the file or names it; None looks for it.

    Returns:
        The tensors of all weights files by name; what lies beside them has the files that were not
        read: those that are named like shards, and those of other frameworks.
    """
    folder = index.parent if index else path
    beside = of_folder(folder)
    found = index or _weights_of(folder)
    is_index = found.suffix == ".json"
    shards = read_index(found) if is_index else {found.name: set()}
    checkpoint = Checkpoint(path, "folder")
    with checkpoint.closed_on_error():
        opened = {name: checkpoint.add(folder / name).tree for name in shards}
        checkpoint.tree, names = _merged(opened)
        if is_index:
            try:
                require_indexed(found, shards, names)
            except ValueError as error:
                raise InputError(str(error)) from error
        ignored = dict.fromkeys(unindexed(folder, shards), _STALE)
        if index is None:  # nobody said which
            why = f"the weights are read from {found.name}, where transformers looks first"
            others = (name for name in WEIGHTS if name != found.name)
            ignored |= {name: why for name in others if (folder / name).is_file()}
        checkpoint.beside = replace(beside, ignored=ignored)
    return checkpoint


def _merged(opened: Mapping[str, Tree]) -> tuple[Tree, dict[str, list[str]]]:
    """What several files hold together, and the names in each."""
    tree: dict[Hashable, Tree] = {}
    names = {}
    for file, held in opened.items():
        if not isinstance(held, dict):
            raise InputError(f"{file}: holds no tensors by name; give a state dict.")
        repeated = tree.keys() & held.keys()
        if repeated:
            raise InputError(f"{file}: repeats {min(map(str, repeated))} of another shard.")
        tree.update(held)
        names[file] = list(map(str, held))
    return tree, names


def _weights_of(folder: Path) -> Path:
    """The file with the weights, or an index; a variant's where there is but one variant."""
    for name in WEIGHTS:
        if (folder / name).is_file():
            return folder / name
    found: dict[str, Path] = {}
    names = sorted(path.name for path in folder.iterdir() if path.is_file())
    for pattern in _VARIANTS:
        for match in filter(None, map(pattern.fullmatch, names)):
            if not _SHARD.fullmatch(match[0]):
                found.setdefault(match["variant"], folder / match[0])
    if len(found) == 1:
        return next(iter(found.values()))
    if found:
        listed = " and ".join(path.name for path in found.values())
        raise InputError(f"{folder}: holds several variants, {listed}; name one of these files.")
    other = next((what for name, what in _OTHERS.items() if name in names), None)
    if other:
        raise InputError(f"{folder}: {other}.")
    raise InputError(
        f"{folder}: holds none of {', '.join(WEIGHTS[:4])}; give the checkpoint's file, or a "
        "folder that transformers or timm wrote."
    )
