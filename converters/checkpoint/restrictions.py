"""What a process gives up, for good, before it opens a stranger's program.

Linux' Landlock (`Documentation/userspace-api/landlock.rst` of the kernel, 5.13 and later) takes the
right to write, make, rename or remove files anywhere but below one scratch folder, to use TCP, and
to signal processes outside, from a process and from all that it starts; or to open any file at all.
Where the kernel has no Landlock, limits that every POSIX system has remain: on memory, and on the
size of written files.
"""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
"""System calls; their numbers are the same on every processor."""

_SET_DEATH_SIGNAL, _SET_NO_NEW_PRIVILEGES = 1, 38
"""Of prctl(2)."""

_WRITE, _REMOVALS, _MAKINGS = 1 << 1, 0b11 << 4, 0b1111111 << 6
_FIRST = _WRITE | _REMOVALS | _MAKINGS
_OPEN = 0b1101
"""The rights to execute and read files, and to list folders."""

_LATER = {2: 1 << 13, 3: 1 << 14, 5: 1 << 15}
"""Rights by the version of Landlock that knows them: to refer, to truncate, to control devices."""

_TCP, _TCP_SINCE = 0b11, 4
_SCOPES, _SCOPES_SINCE = 0b11, 6
_BELOW_PATH = 1
_ASK_VERSION = 1


class _Ruleset(ctypes.Structure):
    _fields_ = (
        ("handled_access_fs", ctypes.c_uint64),
        ("handled_access_net", ctypes.c_uint64),
        ("scoped", ctypes.c_uint64),
    )


class _Below(ctypes.Structure):
    _pack_ = 1
    _fields_ = (("allowed_access", ctypes.c_uint64), ("parent_fd", ctypes.c_int32))


def give_up_rights(scratch: Path | None, memory: int) -> bool:
    """Keep this process, and all it starts, from what running a network does not need.

    Args:
        scratch: The one folder that it may write into; None if it has no use for files but those
            that are open, and may not even read others.
        memory: Bytes of data that it may hold, and that a file may have that it writes.

    Returns:
        Whether the kernel forbids writing; where it has no Landlock only the limits hold.
    """
    _limit(resource.RLIMIT_CORE, 0)
    _limit(resource.RLIMIT_DATA, memory)
    _limit(resource.RLIMIT_FSIZE, memory)
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # so that writing fails with an error
    if not sys.platform.startswith("linux"):
        return False
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(_SET_DEATH_SIGNAL, signal.SIGKILL, 0, 0, 0)
    if libc.prctl(_SET_NO_NEW_PRIVILEGES, 1, 0, 0, 0) != 0:
        return False
    return _landlock(libc, scratch)


def _limit(kind: int, value: int) -> None:
    _, hard = resource.getrlimit(kind)
    value = value if hard == resource.RLIM_INFINITY else min(value, hard)
    resource.setrlimit(kind, (value, value))


def _landlock(libc: ctypes.CDLL, scratch: Path | None) -> bool:
    version = libc.syscall(_CREATE_RULESET, None, ctypes.c_size_t(0), _ASK_VERSION)
    if version < 1:
        return False
    files = _FIRST | sum(right for since, right in _LATER.items() if version >= since)
    files |= 0 if scratch else _OPEN
    rules = _Ruleset(
        files,
        _TCP if version >= _TCP_SINCE else 0,
        _SCOPES if version >= _SCOPES_SINCE else 0,
    )
    # An older kernel refuses a longer structure unless what it does not know is zero; it is.
    ruleset = libc.syscall(
        _CREATE_RULESET, ctypes.byref(rules), ctypes.c_size_t(ctypes.sizeof(rules)), 0
    )
    if ruleset < 0:
        return False
    try:
        if scratch:
            _allow(libc, ruleset, scratch, files)
        _allow(libc, ruleset, os.devnull, _WRITE)
        return bool(libc.syscall(_RESTRICT_SELF, ruleset, 0) == 0)
    finally:
        os.close(ruleset)


def _allow(libc: ctypes.CDLL, ruleset: int, path: Path | str, rights: int) -> None:
    """Except what lies at or below a path from the rules; where that fails it stays forbidden."""
    place = os.open(path, os.O_PATH | os.O_CLOEXEC)
    try:
        rule = _Below(rights, place)
        libc.syscall(_ADD_RULE, ruleset, _BELOW_PATH, ctypes.byref(rule), 0)
    finally:
        os.close(place)
