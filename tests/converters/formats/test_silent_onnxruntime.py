"""ONNX Runtime leaves nothing behind and says nothing, whichever command loads it."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import TYPE_CHECKING

import converters
from tests.converters.cli.running import run

if TYPE_CHECKING:
    import pytest


def test_nothing_is_written_into_home_or_the_temporary_folder(
    demo_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _forget(monkeypatch)
    home, temporary = tmp_path / "home", tmp_path / "temporary"
    home.mkdir()
    temporary.mkdir()
    finished = run(
        "regnet",
        "verify",
        demo_folder,
        cwd=tmp_path,
        env={"HOME": str(home), "TMPDIR": str(temporary)},
    )
    assert (finished.status, finished.err) == (0, "")
    assert not list(home.rglob("*"))
    assert not list(temporary.rglob("*"))


def test_nothing_is_said_where_home_cannot_be_written(
    demo_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _forget(monkeypatch)
    nowhere = {"HOME": "/proc/nowhere", "XDG_CACHE_HOME": "/proc/nowhere"}
    finished = run("regnet", "verify", demo_folder, "-q", cwd=tmp_path, env=nowhere)
    assert (finished.status, finished.err) == (0, "")


def _forget(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take away what this process may have set when it imported the library itself."""
    for name in ("ORT_DISABLE_TELEMETRY", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)


def test_one_module_imports_it() -> None:
    root = Path(converters.__path__[0])
    importing = {
        path.relative_to(root).as_posix()
        for path in root.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if (isinstance(node, ast.Import) and any(n.name == "onnxruntime" for n in node.names))
        or (isinstance(node, ast.ImportFrom) and str(node.module).startswith("onnxruntime"))
    }
    # the other one names a class for its annotations alone
    assert importing == {"formats/onnx/runtime.py", "parity/compare/foreign_onnx.py"}
