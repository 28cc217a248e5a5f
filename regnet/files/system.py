"""What operating systems differ in, here and nowhere else: each function does what this one can.

Linux alone has copies by the kernel, Landlock and ``/proc``. Linux and macOS exchange two folders
in one step, and lock the very thing that a lock protects. Windows does neither, opens no folder,
and renames nothing that is open. Where something is missing, a function says what holds instead.
The tests hide all of this on Linux, one by one and at once; on macOS and Windows nothing was run.
"""

from __future__ import annotations

import _thread
import ctypes
import errno
import mmap
import os
import platform
import re
import shutil
import signal
import sys
import threading
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterator
    from contextlib import AbstractContextManager


def _module(name: str) -> Any:
    """A module that Windows lacks; None there."""
    try:
        return import_module(name)
    except ImportError:
        return None


_fcntl, _resource = _module("fcntl"), _module("resource")

# Files.


def flags(*names: str) -> int:
    """Those flags of :func:`os.open` that this system has: ``O_BINARY`` is Windows' alone."""
    return sum(getattr(os, name, 0) for name in names)


_SEEKING = threading.Lock()


def read_at(descriptor: int, length: int, offset: int) -> bytes:
    """Read up to ``length`` bytes at ``offset``.

    Windows reads only where a file's position is, so that threads take turns; no more may depend
    on the position.
    """
    if hasattr(os, "pread"):
        data: bytes = os.pread(descriptor, length, offset)
        return data
    with _SEEKING:
        os.lseek(descriptor, offset, os.SEEK_SET)
        return os.read(descriptor, length)


def write_at(descriptor: int, data: bytes | memoryview, offset: int) -> int:
    """Write bytes at ``offset``, and return how many; as :func:`read_at`."""
    if hasattr(os, "pwrite"):
        count: int = os.pwrite(descriptor, data, offset)
        return count
    with _SEEKING:
        os.lseek(descriptor, offset, os.SEEK_SET)
        return os.write(descriptor, data)


def copy(source: int, start: int, target: int, position: int, length: int) -> int:
    """Let the kernel copy between two files, and return how many bytes it has.

    0 where it does not: on systems other than Linux, and between some file systems.
    """
    if not hasattr(os, "copy_file_range"):
        return 0
    count = 0
    with suppress(OSError):  # what else is wrong is found by who reads the bytes
        count = os.copy_file_range(source, target, length, start, position)
    return count


_NORESERVE = 0x4000 if sys.platform == "linux" else 0
"""Linux' ``MAP_NORESERVE``, for which Python's mmap has no name; others do not reserve."""


def private_memory(file: IO[bytes]) -> mmap.mmap | bytearray:
    """Map a file as memory that can be written to, whereupon the file stays as it is.

    Windows replaces no file that is mapped, as who saves a model where it came from does; there the
    file is read.
    """
    if not hasattr(mmap, "MAP_PRIVATE"):
        file.seek(0)
        return bytearray(file.read())
    how: Any = {"flags": mmap.MAP_PRIVATE | _NORESERVE}
    return mmap.mmap(file.fileno(), 0, **how)


def sync(path: Path) -> None:
    """Bring a file, or what a folder says of its files, to the disk.

    Windows does so for what it may write to, and for no folder: NTFS keeps a journal of names.
    """
    if hasattr(os, "O_DIRECTORY"):
        descriptor = os.open(path, os.O_RDONLY)
    elif path.is_dir() or not os.access(path, os.W_OK):
        return
    else:
        descriptor = os.open(path, os.O_RDWR)
    try:
        flush(descriptor)
    finally:
        os.close(descriptor)


def flush(descriptor: int) -> None:
    """Bring an open file to the disk; on macOS out of the disk's own memory too."""
    if hasattr(_fcntl, "F_FULLFSYNC"):
        with suppress(OSError):  # as of file systems on other machines
            _fcntl.fcntl(descriptor, _fcntl.F_FULLFSYNC)
            return
    os.fsync(descriptor)


def link(path: Path, place: Path) -> None:
    """Let another place lead to a file: as a link, else as a second name of it, else as a copy.

    Windows lets only some users make links, and no system gives a file names on two disks.
    """
    with suppress(OSError):
        place.symlink_to(path)
        return
    with suppress(OSError):
        place.hardlink_to(path.resolve())
        return
    shutil.copyfile(path, place)


def give_owner(path: Path, status: os.stat_result) -> None:
    """Give a file or folder to the owner of another, where there are such and one may."""
    if hasattr(os, "chown"):
        with suppress(PermissionError):  # only root may
            os.chown(path, status.st_uid, status.st_gid)


def exchange(one: Path, other: Path) -> bool:
    """Let two folders have each other's name, in one step; False where that cannot be.

    ``renameat2`` of Linux and ``renamex_np`` of macOS can, on most file systems of theirs.
    """
    libc, names = _libc(), (os.fsencode(one), os.fsencode(other))
    if hasattr(libc, "renameat2"):
        here, swap = -100, 2  # AT_FDCWD of fcntl.h, RENAME_EXCHANGE of linux/fs.h
        return bool(libc.renameat2(here, names[0], here, names[1], swap) == 0)
    if hasattr(libc, "renamex_np"):
        return bool(libc.renamex_np(*names, 2) == 0)  # RENAME_SWAP of sys/stdio.h
    return False


def _libc() -> Any:
    """The C library that is loaded already; None where it does not go by no name."""
    try:
        return ctypes.CDLL(None, use_errno=True)
    except (OSError, TypeError):  # the second on Windows
        return None


# Locks.


@dataclass(frozen=True, slots=True)
class Held:
    """A file or folder that other processes are kept from.

    Attributes:
        status: What :func:`os.stat` says of it.
    """

    status: os.stat_result

    def is_at(self, path: Path) -> bool:
        """Whether a path leads to it, and not to what has taken its place."""
        try:
            return os.path.samestat(path.stat(), self.status)
        except FileNotFoundError:
            return False

    @property
    def is_own(self) -> bool:
        """Whether it is of who runs this process; others could change it at any time.

        True on Windows, where owners have no numbers.
        """
        return not hasattr(os, "geteuid") or self.status.st_uid == os.geteuid()


def locked(path: Path, *, is_folder: bool) -> AbstractContextManager[Held]:
    """Make a file or folder, or take the one that is there, and keep other processes from it.

    The lock is the system's and ends with the process. It is on the very thing (``flock``), so that
    whoever renames or removes that takes the lock along. Windows has none on folders, and renames
    nothing that is open; there it is on an empty file beside it, which is removed afterwards, or by
    the next process if this one is killed.

    Args:
        path: No link.
        is_folder: What to make.

    Returns:
        A context of what is held.

    Raises:
        BlockingIOError: On entering: another process has it.
        OSError: It cannot be made or opened.
    """
    return _locked(path, is_folder) if _fcntl else _locked_beside(path, is_folder)


@contextmanager
def _locked(path: Path, is_folder: bool) -> Iterator[Held]:
    how = flags("O_DIRECTORY") if is_folder else os.O_RDWR | os.O_CREAT
    while True:
        if is_folder:
            with suppress(FileExistsError):
                path.mkdir(mode=0o700)
        try:
            descriptor = os.open(path, how | flags("O_NOFOLLOW"), 0o666)
        except FileNotFoundError:
            if is_folder:  # which was there: who had it has renamed or removed it
                continue
            raise
        try:
            _fcntl.flock(descriptor, _fcntl.LOCK_EX | _fcntl.LOCK_NB)
            held = Held(os.fstat(descriptor))
            if held.is_at(path):  # else likewise
                yield held
                return
        finally:
            os.close(descriptor)


@contextmanager
def _locked_beside(path: Path, is_folder: bool) -> Iterator[Held]:
    """The lock is SQLite's, of the one library of Python's that can everywhere."""
    import sqlite3

    beside = path.with_name(f"{path.name}.regnet-lock")
    while True:
        # While it is open no other file gets its number.
        descriptor = os.open(beside, os.O_RDWR | os.O_CREAT, 0o666)
        lock = sqlite3.connect(beside, timeout=0, isolation_level=None, check_same_thread=False)
        is_done = True
        try:
            failure = _failure_of_locking(lock)
            if not Held(os.fstat(descriptor)).is_at(beside):  # who had it until now has removed it
                continue
            if failure:
                raise failure
            is_done = False
            if is_folder:
                path.mkdir(mode=0o700, exist_ok=True)
            else:
                path.touch()
            yield Held(path.lstat())
            return
        finally:
            is_done = is_done or _is_removed(beside)
            lock.close()
            os.close(descriptor)
            if not is_done:
                _is_removed(beside)


def _failure_of_locking(database: sqlite3.Connection) -> OSError | None:
    import sqlite3

    try:
        database.execute("BEGIN EXCLUSIVE")
    except sqlite3.Error as error:
        is_busy = error.sqlite_errorcode == sqlite3.SQLITE_BUSY
        return OSError(errno.EAGAIN if is_busy else errno.ENOLCK, str(error))
    return None


def _is_removed(path: Path) -> bool:
    """Remove a file if that can be: on Windows not while anybody has it open."""
    try:
        path.unlink(missing_ok=True)
    except PermissionError:
        return False
    return True


# Processor and memory.

_CPUINFO = Path("/proc/cpuinfo")
_MEMINFO = Path("/proc/meminfo")
_CONTROL_GROUP = Path("/sys/fs/cgroup/memory.max")


def usable_cores() -> int:
    """How many cores this process may use; on other systems than Linux, how many there are."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def load_average() -> float | None:
    """How many processes wanted a core in the last minute; None on Windows, which counts none."""
    return os.getloadavg()[0] if hasattr(os, "getloadavg") else None


def processor_name() -> str:
    """What the processor calls itself; on other systems than Linux, what Python says of it."""
    try:
        text = _CPUINFO.read_text(encoding="utf-8")
    except OSError:
        text = ""
    named = re.search(r"^model name\s*: (.+)$", text, re.MULTILINE)
    return named[1].strip() if named else platform.processor() or platform.machine()


def available_memory() -> int:
    """Bytes that can be taken without others having to go.

    On Linux what the kernel estimates (``MemAvailable`` of proc(5)), or a control group's limit if
    that is less; on macOS all the machine has; on Windows as if there were enough.
    """
    if not _MEMINFO.is_file():
        if not hasattr(os, "sysconf"):
            return sys.maxsize
        return int(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    lines = dict(line.split(":") for line in _MEMINFO.read_text(encoding="ascii").splitlines())
    available = int(lines["MemAvailable"].split()[0]) * 1024
    limit = _CONTROL_GROUP.read_text(encoding="ascii").strip() if _CONTROL_GROUP.is_file() else ""
    return min(available, int(limit)) if limit.isdecimal() else available


def is_limited() -> bool:
    """Whether somebody has limited the memory of this process (``ulimit -v`` or ``-d``)."""
    if _resource is None:  # Windows has no such limits
        return False
    kinds = (_resource.RLIMIT_AS, _resource.RLIMIT_DATA)
    return any(_resource.getrlimit(kind)[0] != _resource.RLIM_INFINITY for kind in kinds)


# Processes.


@contextmanager
def without_ctrl_c() -> Iterator[None]:
    """Let processes that are started in the block never see Ctrl-C, which a terminal sends to all.

    Windows holds no signals back; there a new process has to ignore it itself, and one that is told
    to before it does dies, as by a kill.
    """
    posix: Any = signal
    if not hasattr(posix, "pthread_sigmask"):
        yield
        return
    before = posix.pthread_sigmask(posix.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        posix.pthread_sigmask(posix.SIG_SETMASK, before)


def interrupt_main_thread() -> None:
    """Do to the main thread what Ctrl-C does, and wake it up from what it waits for."""
    posix: Any = signal
    if hasattr(posix, "pthread_kill"):
        posix.pthread_kill(threading.main_thread().ident, signal.SIGINT)
    else:
        _thread.interrupt_main()


_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
"""System calls; their numbers are the same on every processor."""

_SET_DEATH_SIGNAL, _SET_NO_NEW_PRIVILEGES = 1, 38
"""Of prctl(2)."""

_SIGKILL = 9
"""On every Linux; Windows has no name for it."""

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
    """Keep this process, and all it starts, from what running a stranger's program does not need.

    Linux' Landlock (`Documentation/userspace-api/landlock.rst` of the kernel, 5.13 and later) takes
    the right to write, make, rename or remove files anywhere but below one scratch folder, to use
    TCP, and to signal processes outside, from a process and from all that it starts; or to open any
    file at all. Where there is no Landlock, limits that every POSIX system has remain: on memory,
    and on the size of written files. On Windows there are none of these either.

    Args:
        scratch: The one folder that it may write into; None if it has no use for files but those
            that are open, and may not even read others.
        memory: Bytes of data that it may hold, and that a file may have that it writes.

    Returns:
        Whether the kernel forbids writing.
    """
    if _resource is not None:
        _limit("RLIMIT_CORE", 0)
        _limit("RLIMIT_DATA", memory)
        _limit("RLIMIT_FSIZE", memory)
    if hasattr(signal, "SIGXFSZ"):
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # so that writing fails with an error
    libc = _libc()
    if not hasattr(libc, "prctl"):
        return False
    libc.prctl(_SET_DEATH_SIGNAL, _SIGKILL, 0, 0, 0)
    if libc.prctl(_SET_NO_NEW_PRIVILEGES, 1, 0, 0, 0) != 0:
        return False
    return _landlock(libc, scratch)


def _limit(name: str, value: int) -> None:
    kind = getattr(_resource, name)
    _, hard = _resource.getrlimit(kind)
    value = value if hard == _resource.RLIM_INFINITY else min(value, hard)
    _resource.setrlimit(kind, (value, value))


def _landlock(libc: Any, scratch: Path | None) -> bool:
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


def _allow(libc: Any, ruleset: int, path: Path | str, rights: int) -> None:
    """Except what lies at or below a path from the rules; where that fails it stays forbidden."""
    place = os.open(path, flags("O_PATH"))
    try:
        rule = _Below(rights, place)
        libc.syscall(_ADD_RULE, ruleset, _BELOW_PATH, ctypes.byref(rule), 0)
    finally:
        os.close(place)
