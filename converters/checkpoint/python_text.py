"""Python that a file brings: parsed into a tree, and never run."""

from __future__ import annotations

import ast
import os

from converters.checkpoint.quiet import ignoring


def parsed(text: str | bytes) -> ast.Module:
    """Parse a program.

    To show the line of an error, CPython opens the file that the text is said to be from, and
    without a word on that a file called ``<unknown>`` in the working directory. So it is told of
    one in which there is nothing.

    Raises:
        SyntaxError: It is no program.
        ValueError: It has a zero byte.
        MemoryError, RecursionError: It is nested too deep.
    """
    with ignoring():  # of escapes in its strings
        return ast.parse(text, os.devnull)
