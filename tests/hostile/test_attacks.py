"""Every attack in attacks/ works on the tool it is for, and ours refuses the file."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

import pytest

SCRIPTS = sorted(p.stem for p in (Path(__file__).parents[2] / "attacks").glob("[a-z]*_*.py"))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", SCRIPTS)
def test_an_attack_works_elsewhere_and_not_here(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    import_module(f"attacks.{name}").main()
    *others, answer = capsys.readouterr().out.splitlines()
    assert any("fell" in line for line in others)
    assert answer.startswith(("regnet convert: exit status 2", "regnet convert: exit status 3"))
