"""What a configuration and an image processor share: a JSON file in a folder, both ways."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

if TYPE_CHECKING:
    from collections.abc import Mapping


MAX_BYTES = 20_000_000
"""Of a file; the names of a million classes fit."""


class JsonFile(ABC):
    """Settings that are kept as one JSON object in a file of a fixed name."""

    file_name: ClassVar[str]

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

    def save_pretrained(self, folder: str | Path) -> Path:
        """Write the file into ``folder`` and return its path.

        Args:
            folder: Created if missing.

        Raises:
            OSError: If it cannot be written.
        """
        path = Path(folder) / self.file_name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(self.to_json_string(), encoding="utf-8")
        return path

    @classmethod
    def from_pretrained(cls, folder: str | Path, **overrides: Any) -> Self:
        """Read the file from a folder, or the file itself.

        Args:
            folder: A converted folder, a local transformers folder, or the file.
            **overrides: Settings that win over the file's.

        Raises:
            FileNotFoundError: If there is no such file.
            ValueError: If its content cannot be used; the message names the file.
        """
        path = Path(folder)
        path = path if path.is_file() else path / cls.file_name
        if not path.is_file():
            raise FileNotFoundError(f"{path} does not exist; give a folder with a {cls.file_name}.")
        if path.stat().st_size > MAX_BYTES:
            raise ValueError(f"{path} has more than {MAX_BYTES} bytes; restore the file.")
        try:
            fields = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise ValueError(f"{path} is not valid JSON ({error}).") from error
        except RecursionError as error:
            raise ValueError(f"{path} is nested too deep; restore the file.") from error
        if not isinstance(fields, dict):
            raise ValueError(f"{path} is not a JSON object; restore the file.")
        try:
            return cls.from_dict(fields, **overrides)
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from error

    def __eq__(self, other: object) -> bool:
        return isinstance(other, type(self)) and self.to_dict() == other.to_dict()

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"{type(self).__name__} {self.to_json_string()}"
