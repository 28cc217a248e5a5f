"""Runs what a notebook or a page shows, as its reader does: ``python -m tests.cells FILE``.

Code cells, or blocks of Python, run one after the other in one namespace; a value at a cell's end
is shown as Jupyter shows it. Of a page, blocks of ``regnet`` commands run too. Nothing of IPython
is needed for that, so notebooks may use none of its magics.
"""

from __future__ import annotations

import ast
import json
import re
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tests.conftest  # noqa: F401 -- declares torchvision's operators, which transformers imports

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parent.parent

_BLOCK = re.compile(r"^```(python|sh)\n(.*?)^```", re.DOTALL | re.MULTILINE)
_PICTURES = ("_repr_svg_", "_repr_png_")


def notebook(path: Path) -> dict[str, Any]:
    """What is in an ``.ipynb``."""
    content: dict[str, Any] = json.loads(path.read_text("utf-8"))
    return content


def cells(path: Path) -> Iterator[tuple[str, str]]:
    """Each cell's language, ``python`` or ``sh``, and its code."""
    if path.suffix == ".md":
        yield from _BLOCK.findall(path.read_text("utf-8"))
        return
    for cell in notebook(path)["cells"]:
        if cell["cell_type"] == "code":
            yield "python", "".join(cell["source"])


def run_python(code: str, where: str, names: dict[str, Any]) -> None:
    """Run a cell, and show the value of the expression that it ends with, if it does."""
    tree = ast.parse(code, where)
    last = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
    exec(compile(tree, where, "exec"), names)  # noqa: S102 -- our own
    if last is not None:
        value = eval(compile(ast.Expression(last.value), where, "eval"), names)  # noqa: S307
        for name in _PICTURES:
            if shown := getattr(value, name, lambda: None)():
                sys.stdout.write(f"{name}: {len(shown)}\n")
                return
        if value is not None:
            sys.stdout.write(f"{value!r}\n")


def run_commands(code: str) -> None:
    """Run commands, each of which has to end with 0."""
    from tests.converters.cli.running import run

    for line in code.splitlines():
        command, *arguments = shlex.split(line, comments=True)
        finished = run(command, *arguments, cwd=Path.cwd())
        sys.stdout.write(finished.out)
        sys.stderr.write(finished.err)
        if finished.status:
            raise SystemExit(f"`{line}` ended with {finished.status}")


def main() -> None:
    """Run a file's cells in the working directory."""
    path = Path(sys.argv[1])
    names: dict[str, Any] = {"__name__": "__main__"}
    for number, (language, code) in enumerate(cells(path), 1):
        if language == "sh":
            run_commands(code)
        else:
            run_python(code, f"{path.name}, cell {number}", names)


if __name__ == "__main__":
    main()
