"""Ctrl-C: once it ends the command in one sentence, however early it comes and however often."""

from __future__ import annotations

import _thread
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

_MOMENT = 0.005
"""Seconds after which it is tried again, where Python could not be interrupted."""

_LIBRARY = os.path.dirname(threading.__file__)  # noqa: PTH120 -- no pathlib yet
_LOCKING = {
    os.path.join(_LIBRARY, *parts)  # noqa: PTH118
    for parts in (
        ("threading.py",),
        ("queue.py",),
        ("concurrent", "futures", "_base.py"),
        ("concurrent", "futures", "thread.py"),
    )
}
"""Files of the standard library that take locks in steps between which a signal may come."""

_IMPORTING = "<frozen importlib._bootstrap>"
"""Likewise, but it also runs whole modules; of its functions those that lock say so."""

_WAITING = threading.Condition.wait.__code__
"""What waits for others as long as it takes, and can be left while it does."""


class _Listener:
    def __init__(self) -> None:
        self.since: float | None = None
        self.done = False
        self._is_raised = False
        self._seen: tuple[FrameType, int] | None = None

    def renew(self) -> None:
        self.since, self.done = None, False
        self._is_raised, self._seen = False, None

    def __call__(self, _signal: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        if self.since is None:
            self.since = now
        is_late = now - self.since > _PATIENCE
        if not self._is_raised:
            if not is_late and self._would_leave_a_lock(frame) and _come_again():
                return
            self._is_raised, self._seen = True, None  # what a frame holds ends with it
            raise KeyboardInterrupt
        if is_late:
            os.write(2, f"{SENTENCE}\n".encode())
            os._exit(STATUS)

    def retry(self, unraisable: sys.UnraisableHookArgs) -> None:
        """Interrupt again where Python had to swallow it, as in a destructor."""
        if unraisable.exc_type is KeyboardInterrupt:
            self.since, self._is_raised = None, False
            _come_again()
        elif not self._is_raised:  # what was interrupted may not be whole enough to be destroyed
            sys.__unraisablehook__(unraisable)

    def _would_leave_a_lock(self, frame: FrameType | None) -> bool:
        """Whether an exception could leave a lock taken, or a thread begun that nobody knows of.

        A thread of ours that needs the lock would wait for it forever, and the end of the command
        for that thread. Only waiting for others, where that has begun and goes on, may be ended.
        """
        seen, self._seen = self._seen, (frame, frame.f_lasti) if frame else None
        if frame is None:
            return False
        if frame.f_code.co_filename == _IMPORTING:
            return "lock" in frame.f_code.co_qualname.lower()
        waits = frame.f_code is _WAITING and seen == self._seen
        inside: FrameType | None = frame
        while inside is not None and inside.f_code.co_filename in _LOCKING:
            if inside.f_code is threading.Thread.start.__code__:
                return True
            inside = inside.f_back
        return inside is not frame and not waits


def _come_again() -> bool:
    """Have the signal come once more, a moment later; say whether it will.

    The thread that sends it takes no lock, since this one may be just about to.
    """
    try:
        _thread.start_new_thread(_send_later, ())
    except RuntimeError:  # no memory for a thread
        return False
    return True


def _send_later() -> None:
    from regnet.files.system import interrupt_main_thread

    time.sleep(_MOMENT)
    interrupt_main_thread()


_LISTENER = _Listener()


def listen() -> None:
    """Interrupt this process at the first Ctrl-C; leave a process alone that is to ignore it."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN and not _LISTENER.done:
        return
    _LISTENER.renew()
    signal.signal(signal.SIGINT, _LISTENER)
    sys.unraisablehook = _LISTENER.retry


def happened() -> bool:
    """Whether somebody pressed Ctrl-C: whatever went wrong after that went wrong by it."""
    return _LISTENER.since is not None


def ignore() -> None:
    """Let a process that is done end in peace."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _LISTENER.done = True
