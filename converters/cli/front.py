"""The commands of ``regnet``, and the page that lists them, drawn before any of them is imported.

The page is what typer draws of its own accord, which a test says. It costs a third of the time,
since neither typer nor a command is needed for it.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.panel import Panel
    from rich.table import Table

COMMANDS = {
    "convert": "Convert a checkpoint into a folder that every runtime can use, and prove it.",
    "inspect": (
        "Say what a checkpoint is: framework, architecture, what is in it. No weights are read."
    ),
    "list": "List the published checkpoints that can be converted by name.",
    "export": "Write artefacts of a converted folder, again or in another form.",
    "tune": (
        "Write ONNX that ONNX Runtime runs faster on this machine, and that computes the same."
    ),
    "verify": ("Give the verdict again, from nothing but the folder; exit status 1 if it is fail."),
    "compare": (
        "Say whether two networks are the same, whatever each is; exit status 1 if they are not."
    ),
    "predict": "Classify images with a converted folder, through any runtime.",
    "evaluate": (
        "Measure top-1 and top-5 accuracy of artefacts on labelled images, and how far they agree."
    ),
    "bench": (
        "Time every artefact and eager PyTorch in turn, and say which to deploy on this machine."
    ),
    "sign": (
        "Sign every file of a folder, as model_signing does; "
        "`regnet verify --public-key` checks it."
    ),
    "push": (
        "Verify a converted folder and put it on the Hugging Face Hub, private unless told "
        "otherwise."
    ),
    "doctor": (
        "Say what is installed, what can be read, written and run here, and how to install the "
        "rest."
    ),
}
"""Each is ``NAME_command`` of ``converters/cli/NAME.py``; the first sentence of its own page."""

ABOUT = "From any RegNet checkpoint to a proven, deployable folder."
VERSION = "Print the version."

_OPTIONS = {
    "--version": VERSION,
    "--install-completion": "Install completion for the current shell.",
    "--show-completion": (
        "Show completion for the current shell, to copy it or customize the installation."
    ),
    "--help": "Show this message and exit.",
}

HEEDED = frozenset(
    {
        *("_REGNET_COMPLETE", "_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION", "TYPER_USE_RICH"),
        *("_TYPER_FORCE_DISABLE_TERMINAL", "TERMINAL_WIDTH"),
        *("GITHUB_ACTIONS", "FORCE_COLOR", "PY_COLORS"),
    }
)
"""Variables by which typer draws otherwise, or something else."""

_USAGE_ERROR = 2


def is_asked_for() -> bool:
    """Whether this process was called for the page alone, in the way that is drawn here."""
    return sys.argv[1:] in ([], ["--help"]) and not HEEDED & os.environ.keys()


def show() -> int:
    """Print the page.

    Returns:
        The exit status: an error where no command was given.
    """
    from rich.columns import Columns
    from rich.console import Console
    from rich.highlighter import RegexHighlighter
    from rich.padding import Padding
    from rich.text import Text
    from rich.theme import Theme

    class Options(RegexHighlighter):
        highlights = (
            r"(^|\W)(?P<switch>-\w+)(?![a-zA-Z0-9])",
            r"(^|\W)(?P<option>--[\w-]+)(?![a-zA-Z0-9])",
            r"(?P<usage>Usage: )",
        )

    coloured = Options()
    theme = Theme({"switch": "bold green", "option": "bold cyan", "usage": "yellow"})
    console = Console(theme=theme, highlighter=coloured)
    console.print(Padding(coloured("Usage: regnet [OPTIONS] COMMAND [ARGS]..."), 1), style="bold")
    console.print(Padding(Text(ABOUT), (0, 1, 1, 1)))
    table = _table(highlight=True)
    for name, words in _OPTIONS.items():
        table.add_row(coloured(name), *[Text()] * 4, Columns([coloured(words)]))
    console.print(_framed("Options", table))
    table = _table()
    table.add_column(style="bold cyan", no_wrap=True, width=max(map(len, COMMANDS)))
    table.add_column(ratio=10)
    for name, words in COMMANDS.items():
        table.add_row(Text(name), coloured(words))
    console.print(_framed("Commands", table))
    if len(sys.argv) == 1:
        return _USAGE_ERROR
    console.print()
    return 0


def _table(*, highlight: bool = False) -> Table:
    from rich.table import Table

    return Table(show_header=False, expand=True, box=None, pad_edge=False, highlight=highlight)


def _framed(title: str, table: Table) -> Panel:
    from rich.panel import Panel
    from rich.text import Text

    return Panel(table, border_style="dim", title=Text(title), title_align="left")
