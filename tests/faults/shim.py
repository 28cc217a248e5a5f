"""The C shim that makes system calls go wrong: built when it is needed, armed in a forked child."""

from __future__ import annotations

import ctypes
import errno
import os
import shutil
import signal
import subprocess
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path

SOURCE = Path(__file__).with_name("shim.c")
COMPILER = shutil.which("cc") or shutil.which("gcc")
"""None where there is none, and nothing can be injected."""


class Action(IntEnum):
    """What happens to a call; ``shim.c`` has these numbers too."""

    LISTEN = 0
    FAIL = 1
    HALF = 2
    RAISE = 3
    SHRINK = 4
    CHANGE = 5
    SILENCE = 6


SPACE = ("create", "mkdir", "write", "copy", "rename", "exchange", "link", "truncate", "fsync")
NAMES = ("create", "mkdir", "rename", "exchange", "unlink", "link", "truncate", "chmod")
CHANGES = (*NAMES, "write", "copy", "fsync", "flock")
SLOW = ("open", "create", "read", "write", "copy", "truncate", "fsync", "flock")
NETWORK = ("connect", "send", "receive")


@dataclass(frozen=True, slots=True)
class Fault:
    """One way for system calls to go wrong.

    Attributes:
        name: For the table.
        calls: Kinds of calls that it can happen to, as ``shim.c`` names them.
        action: What happens.
        value: The errno or the signal.
        lasts: Whether all later calls of these kinds fail too: a disk that is full stays full.
    """

    name: str
    calls: tuple[str, ...]
    action: Action
    value: int = 0
    lasts: bool = False


FAULTS = (
    Fault("disk full (ENOSPC)", SPACE, Action.FAIL, errno.ENOSPC, lasts=True),
    Fault("quota (EDQUOT)", SPACE, Action.FAIL, errno.EDQUOT, lasts=True),
    Fault("read-only (EROFS)", CHANGES, Action.FAIL, errno.EROFS, lasts=True),
    Fault("no permission (EACCES)", ("open", *NAMES), Action.FAIL, errno.EACCES),
    Fault("device (EIO)", ("open", "read", *CHANGES), Action.FAIL, errno.EIO),
    Fault("no locks (ENOLCK)", ("flock",), Action.FAIL, errno.ENOLCK, lasts=True),
    Fault("no exchange (EINVAL)", ("exchange",), Action.FAIL, errno.EINVAL, lasts=True),
    Fault("interrupted call (EINTR)", SLOW, Action.FAIL, errno.EINTR),
    Fault("short read or write", ("read", "write", "copy", "send", "receive"), Action.HALF),
    Fault("kill -9", (*CHANGES, *NETWORK), Action.RAISE, signal.SIGKILL),
    Fault("Ctrl-C", (*CHANGES, *NETWORK), Action.RAISE, signal.SIGINT),
    Fault("SIGTERM", (*CHANGES, *NETWORK), Action.RAISE, signal.SIGTERM),
    Fault("input shrinks", ("read", "copy"), Action.SHRINK),
    Fault("input changes", ("read", "copy"), Action.CHANGE),
    Fault("connection reset", NETWORK, Action.FAIL, errno.ECONNRESET),
    Fault("network gone", NETWORK, Action.FAIL, errno.ENETUNREACH, lasts=True),
    Fault("connection closed", ("receive",), Action.SILENCE),
)


def build(folder: Path) -> Path:
    """Compile the shim into a folder; return what LD_PRELOAD takes."""
    library = folder / "shim.so"
    options = ("-O1", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC")
    subprocess.run([str(COMPILER), *options, "-o", library, SOURCE], check=True)
    return library


def arm(fault: Fault, nth: int, root: Path, source: Path) -> None:
    """Let the N-th of a fault's calls below ``root``, or on a socket, go wrong in this process.

    Args:
        fault: Which.
        nth: 1 for the first call.
        root: Files elsewhere are left alone.
        source: The file that shrinks or changes.
    """
    _arm(root, fault.calls, nth, fault.action, fault.value, fault.lasts, source, -1)


def listen(root: Path, log: Path) -> None:
    """Let nothing go wrong in this process, and write down its calls: kind, tab, place."""
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    _arm(root, (), 0, Action.LISTEN, 0, False, root, descriptor)


def disarm() -> bool:
    """Let nothing go wrong any more; return whether it has, if it was to."""
    return bool(ctypes.CDLL(None).fault_disarm())


def _arm(  # noqa: PLR0913, PLR0917 -- the shim's own
    root: Path,
    calls: tuple[str, ...],
    nth: int,
    action: int,
    value: int,
    lasts: bool,
    source: Path,
    log: int,
) -> None:
    ctypes.CDLL(None).fault_arm(
        os.fsencode(root),
        f",{','.join(calls)},".encode(),
        *(nth, int(action), int(value), int(lasts)),
        os.fsencode(source),
        log,
    )
