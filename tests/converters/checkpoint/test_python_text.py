"""Python that a file brings is parsed, and nothing else happens."""

from __future__ import annotations

from pathlib import Path

import pytest

from converters.checkpoint.python_text import parsed


@pytest.mark.parametrize("text", ["x = (\n", "def f(:\n  pass\n", b"x = 'a\n", "x\n  y\n"])
def test_the_line_of_an_error_is_looked_for_in_no_file(
    text: str | bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("<unknown>").write_text("a line of somebody else's\n" * 9)

    with pytest.raises(SyntaxError) as raised:
        parsed(text)

    assert "somebody" not in (raised.value.text or "")


@pytest.mark.filterwarnings("error")
def test_an_escape_that_is_none_warns_nobody() -> None:
    assert parsed(r"x = '\d'").body
