"""Where output goes: the result to stdout or a file, progress and errors to stderr."""

from __future__ import annotations

import json
import os
import sys
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Event, Thread
from typing import TYPE_CHECKING, Any, Literal

from rich.console import Console
from rich.text import Text

from converters.errors import InputError, escaped

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from rich.console import RenderableType
    from rich.progress import Progress, TaskID

    from converters.families.source import Decision
    from converters.weights.inspection import Inspection

SCHEMA = 1
"""Of what ``--json`` prints; it grows when a key changes its meaning."""

_NO_LIMIT = 10_000
"""Columns of a log, which breaks no lines of its own."""

_SHOW_AFTER = 1.0
"""Seconds of work before a progress bar appears."""

_SAY_EVERY = 60.0
"""Seconds between lines on how far a job is, in a log, where nobody sees a bar."""


@dataclass(frozen=True, slots=True)
class Output:
    """How a command speaks.

    Attributes:
        as_json: One JSON object on stdout instead of tables.
        quiet: Nothing but errors.
    """

    as_json: bool = False
    quiet: bool = False

    def result(self, *tables: RenderableType) -> None:
        """Print tables for people, unless JSON or silence was asked for."""
        if self.as_json or self.quiet:
            return
        limited = sys.stdout.isatty() or os.environ.get("COLUMNS", "").isdigit()
        # Of its own accord rich would keep bold type under NO_COLOR.
        colours: Literal["auto"] | None = None if os.environ.get("NO_COLOR") else "auto"
        console = Console(
            highlight=False,
            markup=False,
            emoji=False,
            width=None if limited else _NO_LIMIT,
            color_system=colours,
        )
        with console.capture() as capture:
            for table in tables:
                console.print(table)
        write_out("".join(f"{line.rstrip()}\n" for line in capture.get().splitlines()))

    def warn(self, decisions: Iterable[Decision]) -> None:
        """Say on stderr what of a checkpoint was not understood, unless silence was asked for."""
        from converters.families.source import NOT_UNDERSTOOD

        for decision in decisions:
            if decision.topic == NOT_UNDERSTOOD and not self.quiet:
                words = escaped(f"{decision.value} ({decision.reason})")
                sys.stderr.write(f"warning: not understood: {words}\n")

    def note(self, sentence: str) -> None:
        """Say on stderr what is no error, unless silence was asked for."""
        if not self.quiet:
            sys.stderr.write(f"{escaped(sentence)}\n")

    def record(self, record: dict[str, Any]) -> None:
        """Print the JSON object, if JSON was asked for; :data:`SCHEMA`, if it states none."""
        if self.as_json:
            stated = {"schema": SCHEMA} | record
            write_out(json.dumps(stated, indent=2, ensure_ascii=False) + "\n")

    @contextmanager
    def progress(self, unit: Literal["bytes", "items"] = "bytes") -> Iterator[Steps]:
        """Show a bar on stderr while the block works, if a person is watching."""
        from rich.progress import (
            BarColumn,
            DownloadColumn,
            MofNCompleteColumn,
            Progress,
            Task,
            TextColumn,
            TimeRemainingColumn,
        )

        class Bytes(DownloadColumn):
            """Nothing where nobody knows of how many bytes."""

            def render(self, task: Task) -> Text:
                return Text() if task.total is None else super().render(task)

        console = Console(stderr=True)
        done = (Bytes(),) if unit == "bytes" else (MofNCompleteColumn(), TimeRemainingColumn())
        columns = (TextColumn("{task.description}"), BarColumn(), *done)
        hidden = self.quiet or not console.is_terminal
        bar = Progress(*columns, console=console, transient=True, disable=hidden)
        in_log = not self.quiet and not console.is_terminal
        steps = Steps(bar, self, in_log=in_log)
        ended = Event()
        if in_log:
            Thread(target=steps.tell, args=(ended,), daemon=True).start()
        try:
            yield steps
        finally:
            ended.set()
            bar.stop()


class Steps:
    """The progress of a job: a bar, once work has taken a second; in a log a line each minute."""

    def __init__(self, bar: Progress, output: Output, *, in_log: bool = False) -> None:
        self._bar = bar
        self._output = output
        self._in_log = in_log
        self._began = self._said = self._step_began = time.monotonic()
        self._task: TaskID | None = None
        self._started = False

    def planned(self, inspection: Inspection) -> None:
        """Print what the checkpoint is and what will be done."""
        from converters.cli.tables import inspection_table

        self._bar.stop()  # of fetching, if that took its time
        self._began, self._started = time.monotonic(), False
        self._output.result(inspection_table(inspection))
        self._output.warn(inspection.source.decisions)

    def step(self, title: str, total: int | None = None) -> None:
        """Replace the bar by the next step's, of so many bytes or items."""
        if self._task is not None:
            self._bar.remove_task(self._task)
        self._task, self._step_began = self._bar.add_task(title, total=total), time.monotonic()
        self._show()

    def retitle(self, title: str) -> None:
        """Say something else of the current step."""
        if self._task is not None:
            self._bar.update(self._task, description=title)

    def advance(self, amount: int) -> None:
        """Move the bar by so many bytes or items."""
        if self._task is not None:
            self._bar.advance(self._task, amount)
        self._show()

    def tell(self, ended: Event) -> None:
        """Print a line each minute until the job ends, also while a long step moves nothing."""
        while not ended.wait(_SAY_EVERY):
            self._say()

    def _say(self) -> None:
        """Print a line, if a minute has passed since the last."""
        now = time.monotonic()
        if self._in_log and self._task is not None and now - self._said >= _SAY_EVERY:
            self._said = now
            task = self._bar.tasks[-1]
            words = escaped(task.description)
            if task.total and task.completed:
                left = (now - self._step_began) * (task.total / task.completed - 1)
                words += f": {task.percentage:.0f} %, {left / 60:.0f} min left"
            elif (passed := now - self._step_began) >= _SAY_EVERY:
                words += f": {passed / 60:.0f} min so far"
            sys.stderr.write(f"{words}\n")

    def _show(self) -> None:
        self._say()
        if not self._started and time.monotonic() - self._began > _SHOW_AFTER:
            self._started = True
            self._bar.start()


def write_out(text: str) -> None:
    """Write to stdout; where its reader has gone (``| head``), the rest is for nobody."""
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except BrokenPipeError:
        with Path(os.devnull).open("wb") as nowhere:
            os.dup2(nowhere.fileno(), sys.stdout.fileno())


def require_one_on_stdout(*targets: Path | None, as_json: bool) -> None:
    """Do nothing unless two forms would run into each other.

    Raises:
        InputError: If they would.
    """
    if [*map(str, targets), "-" if as_json else ""].count("-") > 1:
        raise InputError("Two reports would go to stdout; name a file for all but one.")


def write_text(target: Path, text: str) -> None:
    """Write a text whole or not at all; ``-`` is stdout.

    Raises:
        StorageError: If the file cannot be written.
    """
    from converters.staging.staged import staged_file, storage_errors

    if str(target) == "-":
        write_out(text)
    elif target.is_symlink() or (target.exists() and not target.is_file()):
        with storage_errors(target):  # /dev/stdout or a pipe is written into, never replaced
            target.write_text(text, encoding="utf-8", newline="\n")
    else:
        with storage_errors(target):
            target.parent.mkdir(parents=True, exist_ok=True)
        with staged_file(target) as staging:
            staging.write_text(text, encoding="utf-8", newline="\n")
