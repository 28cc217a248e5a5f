"""JSON of strangers: bounded, whole, and never waited for; and names of theirs."""

from __future__ import annotations

import json
import os
from pathlib import PureWindowsPath
from typing import TYPE_CHECKING

import pytest

from regnet.files.reading import (
    MAX_DEPTH,
    is_bare,
    is_inside,
    parse_json,
    read_json,
    read_json_object,
)

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(
    ("text", "clause"),
    [
        ("[" * 100_000, "is nested too deep"),
        ('{"a":' * 50_000, "is nested too deep"),
        ("[" * (MAX_DEPTH + 1) + "]" * (MAX_DEPTH + 1), "is nested too deep"),
        (b"\xff\xfe{", "is no UTF-8 text"),
        ("{}".encode("utf-16-le"), "is not valid JSON"),
        ("", "is not valid JSON"),
        ("{} {}", "is not valid JSON"),
        ("1" * 5000, "is not valid JSON"),
        ('{"a": "\\ud800"}', "holds half of a character"),
        ('{"\\udc00": 1}', "holds half of a character"),
    ],
    ids=range(10),
)
def test_what_is_no_json_to_everybody_is_refused_in_a_clause(
    text: str | bytes, clause: str
) -> None:
    with pytest.raises(ValueError, match=f"^{clause}"):
        parse_json(text)


def test_what_is_json_is_read_as_ever() -> None:
    deep = "[" * MAX_DEPTH + "]" * MAX_DEPTH
    for text in (deep, '{"a": [1, 2.5, null, "\\ud83d\\ude00"]}', "3", '"\u00e9"'):
        assert parse_json(text) == json.loads(text)
        assert parse_json(text.encode()) == json.loads(text)


def test_a_file_is_bounded_regular_and_an_object(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text('{"a": 1}')
    assert read_json(path) == read_json_object(path, 8) == {"a": 1}
    with pytest.raises(ValueError, match="has more than 7 bytes"):
        read_json(path, 7)
    path.write_text("[]")
    with pytest.raises(ValueError, match="is not a JSON object"):
        read_json_object(path)
    with pytest.raises(IsADirectoryError):
        read_json(tmp_path)
    if hasattr(os, "mkfifo"):
        os.mkfifo(tmp_path / "pipe")
        with pytest.raises(OSError, match="Not a regular file"):
            read_json(tmp_path / "pipe")


LEAVING = (
    *("", ".", "..", "../x", "a/../../x", "a/..", "/x", "//server/share/x", "\0", "a\0b"),
    *("..\\x", "a\\b", "\\x", "\\\\server\\share\\x", "\\\\?\\C:\\x", "\\\\.\\pipe\\x"),
    *("C:", "C:x", "C:\\x", "C:/x", "c:/../x", "a/C:/x", "x:stream", "a/x::$DATA", "file:///x"),
)
"""Names that lead out of a folder on one system or another."""

STAYING = (
    "x",
    "a/b",
    "./x",
    "a/./b",
    "a..b",
    "...",
    "weights 1.bin",
    "~/x",
    "$HOME",
    "%TEMP%",
    "é",
)


@pytest.mark.parametrize("name", LEAVING)
def test_a_name_that_leaves_its_folder_on_any_system_does_on_all(name: str) -> None:
    assert not is_inside(name)
    assert not is_bare(name)


@pytest.mark.parametrize("name", STAYING)
def test_a_name_that_stays_in_its_folder_does_as_windows_reads_it(name: str) -> None:
    assert is_inside(name)
    assert is_bare(name) == ("/" not in name)
    folder = PureWindowsPath("D:\\models\\out")
    path = folder / name
    assert path.is_relative_to(folder)
    assert path != folder
    assert not {"..", ""} & set(path.parts)
