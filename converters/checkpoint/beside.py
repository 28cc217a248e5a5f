"""What lies beside a named file of weights: the rest of its folder, which says what it is."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from converters.errors import InputError
from regnet.config import CONFIG_NAME
from regnet.files.json_file import PREPROCESSOR_NAME, PROCESSOR_NAME, processor_settings
from regnet.files.reading import read_json as read_text_as_json
from regnet.files.safetensors_file import INDEX_NAME, WEIGHTS_NAME, shards_of

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

CONFIGURATIONS = (CONFIG_NAME, PREPROCESSOR_NAME, PROCESSOR_NAME)
"""What says what the weights of a folder of Hugging Face's libraries are."""

WEIGHTS = (
    WEIGHTS_NAME,
    INDEX_NAME,
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
    "open_clip_model.safetensors",
)
"""What its weights can lie in: the first that is there, as transformers looks for them."""

_MAX_JSON = 5_000_000
"""In bytes, of which Python makes 200 MB; the names of 21,000 classes take one."""

_INDEX = re.compile(r".*\.index(\.[\w-]+)?\.json")
_SHARD = re.compile(r"(?P<stem>.*)-\d{3,6}-of-\d{3,6}\.(?P<ending>safetensors|bin)")
_OF_A_FOLDER = re.compile(
    r"(model|pytorch_model|open_clip_model|open_clip_pytorch_model)(\.[\w-]+)?\.(safetensors|bin)"
)
"""Names that Hugging Face's libraries give to weights, and nobody to a file that stands alone."""

_ENDINGS = frozenset({".bin", ".ckpt", ".pt", ".pth", ".pyth", ".safetensors", ".tar", ".torch"})


@dataclass(frozen=True)
class Beside:
    """What a folder says of its weights.

    Attributes:
        config: The content of ``config.json``; empty if there is none.
        preprocessor: The settings of its image processor; empty if it has none.
        preprocessor_file: The name of the file that has them.
        ignored: What was not read: name to reason.
    """

    config: Mapping[str, Any] = field(default_factory=dict)
    preprocessor: Mapping[str, Any] = field(default_factory=dict)
    preprocessor_file: str = PREPROCESSOR_NAME
    ignored: Mapping[str, str] = field(default_factory=dict)


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
    others = [other for other in path.parent.iterdir() if other.suffix in _ENDINGS]
    if others == [path.parent / path.name]:
        return of_folder(path.parent)
    reason = "it lies beside several files of weights, and does not say of which it speaks"
    return Beside(ignored={CONFIG_NAME: reason})


def index_of(path: Path) -> Path | None:
    """The index that a file is, or that names it as one of its shards; else None.

    Raises:
        InputError: If there is one that cannot be read.
    """
    if _INDEX.fullmatch(path.name):
        return path
    match = _SHARD.fullmatch(path.name)
    index = path.with_name(f"{match['stem']}.{match['ending']}.index.json") if match else None
    return index if index and index.is_file() and path.name in read_index(index) else None


def read_index(index: Path) -> dict[str, set[str]]:
    """Read an index; see :func:`regnet.files.safetensors_file.shards_of`.

    Raises:
        InputError: If it cannot be used, or a shard is missing.
    """
    try:
        return shards_of(index)
    except (FileNotFoundError, ValueError) as error:
        raise InputError(str(error)) from error


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object; empty if there is no such file.

    Raises:
        InputError: If it is none.
    """
    if not path.is_file():
        return {}
    try:
        value = read_text_as_json(path, _MAX_JSON)
    except (OSError, ValueError) as error:
        raise InputError(f"{path.name}: cannot be read as JSON; restore the file.") from error
    if not isinstance(value, dict):
        raise InputError(f"{path.name}: is no JSON object; restore the file.")
    return value


def _is_regnets(path: Path) -> bool:
    """Whether a configuration is a RegNet's, of transformers or timm."""
    try:
        keys = read_json(path)
    except InputError:
        return False
    return keys.get("model_type") == "regnet" or str(keys.get("architecture")).startswith("regnet")
