"""Ctrl-C: once it ends the command in one sentence, however early it comes and however often."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from types import FrameType

STATUS = 130
SENTENCE = "Interrupted; the next run takes up whatever is left."

_PATIENCE = 1.0
"""Seconds in which a key that is pressed again is the same wish: what runs removes what it began.
After that a second Ctrl-C ends the process as a kill would, which the next run takes up as well."""


class _Listener:
    def __init__(self) -> None:
        self.since: float | None = None
        self.done = False

    def __call__(self, _signal: int, _frame: FrameType | None) -> None:
        if self.since is None:
            self.since = time.monotonic()
            raise KeyboardInterrupt
        if time.monotonic() - self.since > _PATIENCE:
            os.write(2, f"{SENTENCE}\n".encode())
            os._exit(STATUS)

    def retry(self, unraisable: sys.UnraisableHookArgs) -> None:
        """Interrupt again where Python had to swallow it, as in a destructor."""
        if unraisable.exc_type is not KeyboardInterrupt:
            sys.__unraisablehook__(unraisable)
            return
        self.since = None
        timer = threading.Timer(0.05, signal.raise_signal, [signal.SIGINT])
        timer.daemon = True
        timer.start()


_LISTENER = _Listener()


def listen() -> None:
    """Interrupt this process at the first Ctrl-C; leave a process alone that is to ignore it."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN and not _LISTENER.done:
        return
    _LISTENER.since, _LISTENER.done = None, False
    signal.signal(signal.SIGINT, _LISTENER)
    sys.unraisablehook = _LISTENER.retry


def happened() -> bool:
    """Whether somebody pressed Ctrl-C: whatever went wrong after that went wrong by it."""
    return _LISTENER.since is not None


def ignore() -> None:
    """Let a process that is done end in peace."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _LISTENER.done = True
