"""Watches one run of a reader: what it may raise, import, open and take.

A reader answers every input with a result or one of the three errors a user can meet. What else
happens is a `Violation`: another error, an import, code compiled or executed, a file opened outside
the input's folder or for writing, a process, a connection, or more than `SECONDS` of processor
time. Python reports most of these as audit events, from C code too
(https://docs.python.org/3/library/audit_events.html).
"""

from __future__ import annotations

import ast
import os
import signal
import sys
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from converters.errors import ConversionError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import FrameType

SECONDS = 10.0
"""Of processor time: another process that takes the processor away is no fault of the reader."""

MAX_MESSAGE = 10_000
"""Characters of an error's message."""

_PACKAGES = tuple(str(Path(__file__).parents[1] / name) for name in ("converters", "regnet"))

_FORBIDDEN = (
    "code.", "compile", "ctypes.", "exec", "ftplib.", "http.", "import", "marshal.",
    "os.chmod", "os.chown", "os.exec", "os.fork", "os.link", "os.mkdir", "os.posix_spawn",
    "os.remove", "os.rename", "os.rmdir", "os.spawn", "os.startfile", "os.symlink", "os.system",
    "os.truncate", "pickle.", "pty.", "shutil.", "smtplib.", "socket.", "sqlite3.", "subprocess.",
    "tempfile.", "urllib.", "webbrowser.",
)  # fmt: skip
"""How the names of events begin that no reader has a use for."""


class Violation(BaseException):
    """The reader did what no input may make it do; no handler of the reader's catches this."""


class Guard:
    """Runs readers under watch; one for each process, since audit hooks stay for good.

    Args:
        folder: Where the inputs lie; the only place that may be read.

    Attributes:
        slowest: The processor time of the longest run so far, in seconds.
    """

    def __init__(self, folder: Path) -> None:
        self.slowest = 0.0
        self._readable = (f"{folder}{os.sep}", *(f"{place}{os.sep}" for place in _PACKAGES))
        self._armed = False
        self._seen = ""
        sys.addaudithook(self._audit)

    def run(self, reader: Callable[[Path], object], path: Path) -> bool:
        """Run a reader; return whether it took the input, or refused it.

        Raises:
            Violation: The reader did what it must not.
        """
        modules = set(sys.modules)
        started = time.process_time()
        self._seen = ""
        try:
            with self._watching():
                reader(path)
            accepted = True
        except ConversionError as error:
            require_sentence(str(error))
            accepted = False
        except Exception as error:
            raise Violation(f"{type(error).__name__}: {str(error)[:200]}") from error
        finally:
            self.slowest = max(self.slowest, time.process_time() - started)
        if self._seen:  # and something has swallowed the exception
            raise Violation(self._seen)
        if new := sys.modules.keys() - modules:
            raise Violation(f"imported {', '.join(sorted(new))}")
        return accepted

    @staticmethod
    def warm_up(reader: Callable[[Path], object], path: Path) -> None:
        """Run a reader unwatched, so that it has imported all that it imports late."""
        with suppress(ConversionError):
            reader(path)

    @contextmanager
    def _watching(self) -> Iterator[None]:
        before = signal.signal(signal.SIGPROF, _too_slow)
        signal.setitimer(signal.ITIMER_PROF, SECONDS)
        self._armed = True
        try:
            yield
        finally:
            self._armed = False
            signal.setitimer(signal.ITIMER_PROF, 0)
            signal.signal(signal.SIGPROF, before)

    def _audit(self, event: str, arguments: tuple[Any, ...]) -> None:
        if not self._armed:
            return
        if event == "compile" and sys._getframe(1).f_code is ast.parse.__code__:  # noqa: SLF001
            return  # into a tree, of which nothing runs; "exec" would say so
        if event == "open":
            path, _, flags = arguments
            if isinstance(path, int):  # whose opening was seen before
                return
            written = flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND)
            if not written and (path == os.devnull or str(path).startswith(self._readable)):
                return
        elif not event.startswith(_FORBIDDEN):
            return
        self._seen = f"audit event {event} {arguments!r:.200}"
        raise Violation(self._seen)


def _too_slow(_number: int, _frame: FrameType | None) -> None:
    raise Violation(f"more than {SECONDS:g} seconds of processor time")


def require_sentence(message: str) -> None:
    """Check an error's message.

    Raises:
        Violation: It is none that a user could be shown.
    """
    if not message.isprintable() or not message.endswith(".") or len(message) > MAX_MESSAGE:
        raise Violation(f"an error that is no sentence: {message[:200]!r}")
