"""What other operating systems lack, hidden on Linux: one thing at a time, or all as on Windows."""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import TYPE_CHECKING, Any

from regnet.files import system

if TYPE_CHECKING:
    from collections.abc import Callable

    import pytest

LACKED = {
    "os": (
        *("O_DIRECTORY", "O_NOFOLLOW", "O_NONBLOCK", "O_PATH", "chown", "copy_file_range"),
        *("geteuid", "getloadavg", "pread", "pwrite", "sched_getaffinity", "sysconf"),
    ),
    "signal": ("SIGXFSZ", "pthread_kill", "pthread_sigmask"),
    "mmap": ("MAP_PRIVATE",),
}
"""Names that not every system has, by the module that they would be in."""


class Lacking:
    """A module without some of its names, and with others in the place of its own."""

    def __init__(self, module: ModuleType, names: tuple[str, ...], **others: object) -> None:
        self._module, self._names, self._others = module, names, others

    def __getattr__(self, name: str) -> Any:
        if name in self._names:
            raise AttributeError(name)
        return self._others.get(name, getattr(self._module, name))


def without(module: str, *names: str) -> Callable[[pytest.MonkeyPatch], None]:
    """Hide names of a module."""
    found = getattr(system, module)
    return lambda patch: patch.setattr(system, module, Lacking(found, names))


def instead(name: str, value: object) -> Callable[[pytest.MonkeyPatch], None]:
    """Put something in the place of one of the module's own names."""
    return lambda patch: patch.setattr(system, name, value)


def fails(name: str, number: int) -> Callable[[pytest.MonkeyPatch], None]:
    """Let a function of :mod:`os` be refused."""

    def call(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number))

    return lambda patch: patch.setattr(os, name, call)


def no_proc(patch: pytest.MonkeyPatch) -> None:
    """Let there be no ``/proc`` and ``/sys``."""
    for name in ("_CPUINFO", "_MEMINFO", "_CONTROL_GROUP"):
        patch.setattr(system, name, Path("/nowhere") / name)


HIDDEN: dict[str, Callable[[pytest.MonkeyPatch], None]] = {
    "fcntl": instead("_fcntl", None),
    "resource": instead("_resource", None),
    "the C library": instead("_libc", lambda: None),
    "renameat2": instead("_libc", SimpleNamespace),
    "an exchange": instead("_libc", lambda: SimpleNamespace(renameat2=lambda *_: -1)),
    "/proc": no_proc,
    "a copy between file systems": fails("copy_file_range", errno.EXDEV),
    "a copy by the kernel": fails("copy_file_range", errno.ENOSYS),
    "links": fails("symlink", errno.EPERM),
    "second names": fails("link", errno.EPERM),
} | {f"{module}.{name}": without(module, name) for module in LACKED for name in LACKED[module]}
"""One thing each."""


def opened(place: Path) -> list[str]:
    """What this process has open, or mapped, at a path or below."""
    found = [os.path.realpath(each) for each in Path("/proc/self/fd").iterdir()]
    with open("/proc/self/maps", encoding="utf-8") as maps:  # noqa: PTH123 -- no link of its own
        found += [line.split(maxsplit=5)[5].strip() for line in maps if " /" in line]
    return [name for name in found if Path(name).is_relative_to(place.resolve())]


def windows(patch: pytest.MonkeyPatch) -> None:
    """Hide all at once, open no folder, and neither rename nor remove what is open."""

    def refused(name: str) -> Callable[..., Any]:
        right = getattr(os, name)

        def call(path: Any, *arguments: Any, **named: Any) -> Any:
            places = [path, *arguments] if name == "replace" else [path]
            found = [] if named.get("dir_fd") else [n for p in places for n in opened(Path(p))]
            if found:
                raise PermissionError(errno.EACCES, "open", found[0])
            return right(path, *arguments, **named)

        return call

    def open_file(path: Path, *arguments: Any) -> int:
        if Path(path).is_dir():
            raise PermissionError(errno.EACCES, "a folder", str(path))
        return os.open(path, *arguments)

    for name in ("fcntl", "resource", "the C library", "/proc", "links"):
        HIDDEN[name](patch)
    for module, names in LACKED.items():
        others = {"open": open_file} if module == "os" else {}
        lacking = Lacking(getattr(system, module), names, **others)
        patch.setattr(system, module, lacking)
    patch.setattr(shutil, "_use_fd_functions", False)
    for name in ("rename", "replace", "unlink"):
        patch.setattr(os, name, refused(name))
