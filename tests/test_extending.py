"""What docs/extending.md says of the length of its examples."""

from __future__ import annotations

import ast
from pathlib import Path

TESTS = Path(__file__).parent
PAGE = " ".join((TESTS.parent / "docs" / "extending.md").read_text("utf-8").split())


def lines(example: str, *names: str) -> int:
    """How many of a file, or of what in it has these names, are neither imports nor empty."""
    text = (TESTS / "converters" / example).read_text("utf-8")
    tree = ast.parse(text)
    kept = set(range(1, len(text.splitlines()) + 1))
    if names:
        kept = {n for node in tree.body if _name(node) in names for n in _numbers(node)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            kept -= _numbers(node)
    return sum(n in kept and bool(line.strip()) for n, line in enumerate(text.splitlines(), 1))


def _numbers(node: ast.stmt) -> set[int]:
    return set(range(node.lineno, (node.end_lineno or node.lineno) + 1))


def _name(node: ast.stmt) -> str:
    if isinstance(node, ast.FunctionDef | ast.ClassDef):
        return node.name
    return ast.unparse(node.targets[0]) if isinstance(node, ast.Assign) else ""


def test_the_framework_of_the_page_is_as_long_as_it_says() -> None:
    whole = len((TESTS / "converters" / "families" / "toy.py").read_text("utf-8").splitlines())
    code = lines("families/toy.py")
    assert f"{whole} lines, of which {code} are neither imports nor empty" in PAGE


def test_the_format_of_the_page_is_as_long_as_it_says() -> None:
    format_lines = lines("formats/npz.py", "export_npz", "NpzRuntime", "NPZ")
    assert f"Of the `.npz` this is {format_lines} lines, imports aside." in PAGE
    assert f"{lines('formats/npz.py', 'read_npz')} lines of the `.npz`." in PAGE
