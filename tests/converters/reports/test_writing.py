"""Reports are written whole, or the reason why not is one sentence."""

from __future__ import annotations

import os
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING

import pytest

from converters.cli.verify import write_reports
from converters.errors import StorageError
from converters.reports.html import html
from converters.reports.junit import junit
from converters.reports.markdown import markdown

if TYPE_CHECKING:
    from converters.reports.findings import Findings


def test_each_form_goes_where_it_was_asked_for(passing: Findings, tmp_path: Path) -> None:
    folder = tmp_path / "new" / "folder"
    paths = [folder / name for name in ("junit.xml", "summary.md", "index.html")]
    write_reports(passing, junit=paths[0], markdown=paths[1], html=paths[2])
    forms = (junit, markdown, html)
    assert [path.read_text("utf-8") for path in paths] == [form(passing) for form in forms]
    assert sorted(folder.iterdir()) == sorted(paths)


def test_nothing_is_written_that_was_not_asked_for(passing: Findings, tmp_path: Path) -> None:
    write_reports(passing, markdown=tmp_path / "summary.md")
    assert [path.name for path in tmp_path.iterdir()] == ["summary.md"]


def test_an_existing_file_is_replaced(passing: Findings, tmp_path: Path) -> None:
    path = tmp_path / "junit.xml"
    path.write_text("old " * 10_000)
    write_reports(passing, junit=path)
    assert path.read_text("utf-8") == junit(passing)


def test_a_dash_is_stdout(passing: Findings, capsys: pytest.CaptureFixture[str]) -> None:
    write_reports(passing, markdown=Path("-"))
    assert capsys.readouterr().out == markdown(passing)


def test_a_pipe_is_written_into_and_a_link_is_kept(passing: Findings, tmp_path: Path) -> None:
    pipe, link, target = tmp_path / "pipe", tmp_path / "link", tmp_path / "target"
    os.mkfifo(pipe)
    received: list[str] = []
    reader = Thread(target=lambda: received.append(pipe.read_text("utf-8")))
    reader.start()
    write_reports(passing, junit=pipe)
    reader.join(10)
    assert received == [junit(passing)]
    target.touch()
    link.symlink_to(target)
    write_reports(passing, junit=link)
    assert link.is_symlink()
    assert target.read_text("utf-8") == junit(passing)


def test_what_cannot_be_written_is_told_in_one_sentence(passing: Findings, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for target in (tmp_path, tmp_path / "file" / "junit.xml"):
        with pytest.raises(StorageError, match=r"^Writing .* failed \(.*\); .*\.$"):
            write_reports(passing, junit=target)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
