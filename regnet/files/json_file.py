"""A folder's JSON files: written for people, and read back as settings that several files share."""

from __future__ import annotations

import inspect
import json
from abc import ABC, abstractmethod
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

from regnet.files.loading import settings_of
from regnet.files.reading import read_json_object

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence


PREPROCESSOR_NAME = "preprocessor_config.json"
PROCESSOR_NAME = "processor_config.json"

MAX_COUNT = 1 << 20
"""Of channels or classes: more than any network has, and few enough for any memory."""


def as_text(value: Any) -> str:
    """JSON as people read it.

    Raises:
        ValueError: If it holds NaN or infinity, which JSON has not.
    """
    return json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def write_json(path: Path, fields: Mapping[str, Any]) -> None:
    """Write a JSON object as people read it; errors are those of :func:`as_text`."""
    path.write_text(as_text(fields), encoding="utf-8", newline="\n")


def read_object(path: Path) -> dict[str, Any]:
    """Read a file's JSON object.

    Raises:
        OSError: If it cannot be read.
        ValueError: If it holds none; the message names it.
    """
    try:
        return read_json_object(path)
    except ValueError as error:
        raise ValueError(f"{path} {error}; restore the file.") from error


def processor_settings(
    folder: Path, read: Callable[[Path], dict[str, Any]]
) -> tuple[str, dict[str, Any]]:
    """Find the settings of a folder's image processor, where transformers 5 looks for them.

    Args:
        folder: Where they are.
        read: Gives the keys of a file, none if it is not there.

    Returns:
        The name of the file that has them, ``processor_config.json`` before
        ``preprocessor_config.json``, and the settings; empty if there are none.
    """
    nested = read(folder / PROCESSOR_NAME).get("image_processor")
    if isinstance(nested, dict):
        return PROCESSOR_NAME, nested
    return PREPROCESSOR_NAME, read(folder / PREPROCESSOR_NAME)


class JsonFile(ABC):
    """Settings that are kept as one JSON object in a file of a fixed name."""

    file_name: ClassVar[str]
    title: ClassVar[str]
    """What the settings are those of, in a sentence."""

    @classmethod
    def settings(cls) -> frozenset[str]:
        """The names of the documented settings, without unknown ones that a file may have."""
        return frozenset(inspect.signature(cls).parameters.keys() - {"extra"})

    def _require_switches(self, *names: str) -> None:
        for name in names:
            if not isinstance(getattr(self, name), bool):
                raise ValueError(f"{name}={getattr(self, name)!r} must be true or false.")

    def _require_member(self, name: str, allowed: Collection[str]) -> None:
        if (value := getattr(self, name)) not in allowed:
            raise ValueError(f"{name}={value!r} is not one of {', '.join(allowed)}.")

    @abstractmethod
    def to_dict(self) -> dict[str, Any]:
        """Every setting as plain values, including kept unknown ones."""

    @classmethod
    @abstractmethod
    def from_dict(cls, fields: Mapping[str, Any], **overrides: Any) -> Self:
        """Build from the keys of a file; ``overrides`` win.

        Raises:
            ValueError: If a value cannot be used.
        """

    def _fields_of_file(self) -> dict[str, Any]:
        """What of `to_dict` is written; everything, unless a subclass leaves defaults out."""
        return self.to_dict()

    def to_json_string(self) -> str:
        """The text of the file: sorted keys, two-space indent."""
        fields = self._fields_of_file()
        return json.dumps(fields, indent=2, sort_keys=True, ensure_ascii=False) + "\n"

    def _save(self, folder: str | Path) -> Path:
        """Write the file into ``folder``, which is created if missing."""
        path = Path(folder) / self.file_name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(self.to_json_string(), encoding="utf-8", newline="\n")
        return path

    @classmethod
    def from_pretrained(cls, folder: str | Path, *, subfolder: str = "", **overrides: Any) -> Self:
        """Read the file from a folder, or the file itself.

        Args:
            folder: A converted folder, a local transformers folder, or the file.
            subfolder: Below it.
            **overrides: Settings that win over the file's, of those that there are. Keywords of
                loading, such as ``token``, change nothing; see :mod:`regnet.files.loading`.

        Raises:
            FileNotFoundError: If there is no such file.
            TypeError: If a keyword is no setting, or asks for what is not done.
            ValueError: If its content cannot be used; the message names the file.
        """
        path, fields = cls._read(Path(folder) / subfolder)
        overrides = settings_of(overrides, cls.settings() | fields.keys(), cls.title)
        try:
            return cls.from_dict(fields, **overrides)
        except (AttributeError, OverflowError, TypeError, ValueError) as error:
            raise ValueError(f"{path}: {error}") from error

    @classmethod
    def _read(cls, place: Path) -> tuple[Path, dict[str, Any]]:
        """Read the keys of a folder's file, or of the file itself, and say which it is."""
        path = place if place.is_file() else place / cls.file_name
        if not path.is_file():
            raise FileNotFoundError(f"{path} does not exist; give a folder with a {cls.file_name}.")
        return path, read_object(path)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, type(self)) and self.to_dict() == other.to_dict()

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"{type(self).__name__} {self.to_json_string()}"


def require_int(name: str, value: object, *, minimum: int) -> None:
    """Check a count; raises ValueError, which names it."""
    if not isinstance(value, int) or isinstance(value, bool) or value < minimum:
        raise ValueError(f"{name}={value!r} must be an integer of at least {minimum}.")
    if value > MAX_COUNT:
        raise ValueError(f"{name} is larger than {MAX_COUNT}, which no network needs.")


def require_positive(name: str, value: object) -> None:
    """Check a factor; raises ValueError, which names it."""
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 < value < MAX_COUNT:
        raise ValueError(f"{name}={value!r} must be a number above 0.")


def int_list(name: str, values: Sequence[int]) -> list[int]:
    """Check positive integers, and give them as a list; raises ValueError, which names them."""
    if not isinstance(values, (list, tuple)):
        raise ValueError(f"{name}={values!r} must be a list of integers, one per stage.")
    for value in values:
        require_int(f"{name} entry", value, minimum=1)
    return list(values)
