"""What is named by its place is imported when it is called, and not before."""

from __future__ import annotations

import sys

import pytest

from regnet.files.late import imported, lazily


def test_a_place_is_imported_when_it_is_called(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "colorsys", raising=False)
    convert = lazily("colorsys:rgb_to_hsv")
    assert "colorsys" not in sys.modules
    assert convert(0.0, b=0.0, g=1.0) == (1 / 3, 1.0, 1.0)
    assert "colorsys" in sys.modules


def test_a_place_that_is_not_there_is_an_error_when_it_is_needed() -> None:
    call = lazily("no_such_module:anything")
    with pytest.raises(ModuleNotFoundError, match="no_such_module"):
        call()
    with pytest.raises(AttributeError, match="anything"):
        imported("math:anything")
