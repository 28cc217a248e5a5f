"""What operating systems differ in does its part wherever something is missing."""

from __future__ import annotations

import itertools
import mmap
import os
import signal
import subprocess
import sys
import threading
from contextlib import ExitStack
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from regnet.files import system
from tests.other_systems import HIDDEN, windows, without

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="hides what Linux has")

CHECKOUT = Path(__file__).parents[2]
CONTENT = bytes(range(256)) * 64

LOCKS = pytest.mark.parametrize("hidden", [None, "fcntl"])
"""The lock on the thing itself, and that on a file beside it."""

HOLDER = """
import sys
from pathlib import Path

from regnet.files import system

if sys.argv[2] == "fcntl":
    system._fcntl = None
with system.locked(Path(sys.argv[1]), is_folder=True):
    print("locked", flush=True)
    sys.stdin.read()
"""


def hide(hidden: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    if hidden:
        HIDDEN[hidden](monkeypatch)


@LOCKS
def test_a_lock_ends_with_the_process_that_has_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hidden: str | None
) -> None:
    hide(hidden, monkeypatch)
    place = tmp_path / "place"
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, place, str(hidden)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=CHECKOUT,
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"locked\n"
        with pytest.raises(BlockingIOError), system.locked(place, is_folder=True):
            pytest.fail("the block was entered")
        assert place.is_dir()
        holder.send_signal(signal.SIGKILL)
    with system.locked(place, is_folder=True) as held:
        assert held.is_at(place)
    assert [path.name for path in tmp_path.iterdir()] == ["place"]


@LOCKS
@pytest.mark.parametrize("is_folder", [True, False])
def test_of_many_that_want_a_lock_one_has_it_at_a_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hidden: str | None, is_folder: bool
) -> None:
    hide(hidden, monkeypatch)
    place, inside = tmp_path / "place", []
    times: list[int] = []
    count = itertools.count()

    def take() -> None:
        while len(times) < 40:
            try:
                with system.locked(place, is_folder=is_folder) as held:
                    inside.append(1)
                    times.append(len(inside))
                    assert held.is_at(place)
                    inside.pop()
                    place.rename(tmp_path / f"done-{next(count)}")  # as who publishes it
            except BlockingIOError:
                continue

    threads = [threading.Thread(target=take) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(times) == {1}
    assert not [path for path in tmp_path.iterdir() if not path.name.startswith("done-")]


@LOCKS
def test_what_was_renamed_is_not_what_is_made_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hidden: str | None
) -> None:
    hide(hidden, monkeypatch)
    with system.locked(tmp_path / "one", is_folder=True) as held:
        assert held.is_own
        (tmp_path / "one").rename(tmp_path / "other")
        (tmp_path / "one").mkdir()
        assert not held.is_at(tmp_path / "one")
        assert held.is_at(tmp_path / "other")


def test_folders_are_exchanged_in_one_step_as_macos_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    linux = system._libc()

    def renamex_np(one: bytes, other: bytes, flags: int) -> int:
        assert flags == 2
        return int(linux.renameat2(-100, one, -100, other, 2))

    monkeypatch.setattr(system, "_libc", lambda: SimpleNamespace(renamex_np=renamex_np))
    for name in ("one", "other"):
        (tmp_path / name).mkdir()
        (tmp_path / name / name).touch()
    assert system.exchange(tmp_path / "one", tmp_path / "other")
    assert (tmp_path / "one" / "other").exists()
    assert (tmp_path / "other" / "one").exists()
    assert not system.exchange(tmp_path / "one", tmp_path / "nothing")


@pytest.mark.parametrize("hidden", [None, "the C library", "renameat2", "an exchange"])
def test_who_cannot_exchange_says_so_and_does_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hidden: str | None
) -> None:
    hide(hidden, monkeypatch)
    (tmp_path / "one").mkdir()
    (tmp_path / "other").mkdir()
    assert system.exchange(tmp_path / "one", tmp_path / "other") == (hidden is None)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["one", "other"]


@pytest.fixture(params=[(), ("pread", "pwrite")], ids=["at", "by seeking"])
def descriptor(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[int]:
    without("os", *request.param)(monkeypatch)
    (tmp_path / "file").write_bytes(CONTENT)
    with (tmp_path / "file").open("r+b", buffering=0) as file:
        yield file.fileno()


def test_threads_read_and_write_where_they_mean_to(descriptor: int) -> None:
    wrong: list[int] = []

    def use(offset: int) -> None:
        for _ in range(300):
            if system.read_at(descriptor, 256, offset) != CONTENT[offset : offset + 256]:
                wrong.append(offset)
            system.write_at(descriptor, CONTENT[offset : offset + 256], offset)

    threads = [threading.Thread(target=use, args=(number * 256,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    assert system.read_at(descriptor, len(CONTENT) + 1, 0) == CONTENT
    assert system.read_at(descriptor, 1, len(CONTENT)) == b""


@pytest.mark.parametrize("hidden", [None, "mmap.MAP_PRIVATE"])
def test_what_is_written_into_private_memory_does_not_reach_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hidden: str | None
) -> None:
    hide(hidden, monkeypatch)
    (tmp_path / "file").write_bytes(CONTENT)
    with (tmp_path / "file").open("rb") as file:
        memory = system.private_memory(file)
    memory[0] = 77
    assert (memory[0], memory[1:]) == (77, CONTENT[1:])
    assert (tmp_path / "file").read_bytes() == CONTENT
    assert isinstance(memory, mmap.mmap) == (hidden is None)


@pytest.mark.parametrize("hidden", [(), ("links",), ("links", "second names")], ids=str)
def test_another_place_leads_to_a_file_by_whatever_can_be_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hidden: tuple[str, ...]
) -> None:
    (tmp_path / "blob").write_bytes(CONTENT)
    (tmp_path / "file").symlink_to("blob")
    for name in hidden:
        hide(name, monkeypatch)
    system.link(tmp_path / "file", tmp_path / "place")
    place = tmp_path / "place"
    assert place.read_bytes() == CONTENT
    assert place.is_symlink() == (not hidden)
    assert place.samefile(tmp_path / "blob") == (len(hidden) < 2)


@pytest.mark.parametrize("hidden", [None, "os.O_DIRECTORY"])
def test_files_and_folders_are_synced_with_what_the_system_has(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hidden: str | None
) -> None:
    hide(hidden, monkeypatch)
    synced: list[Path] = []
    monkeypatch.setattr(os, "fsync", lambda f: synced.append(Path(f"/proc/self/fd/{f}").readlink()))
    (tmp_path / "file").touch()
    system.sync(tmp_path / "file")
    system.sync(tmp_path)
    assert synced == [tmp_path / "file"] + [tmp_path] * (hidden is None)


@pytest.mark.parametrize("can", [True, False])
def test_macos_is_asked_to_empty_the_disks_own_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, can: bool
) -> None:
    asked: list[Any] = []

    def fcntl(descriptor: int, request: int) -> None:
        asked.append((descriptor, request))
        if not can:
            raise OSError(45, "Operation not supported")

    synced: list[int] = []
    monkeypatch.setattr(system, "_fcntl", SimpleNamespace(F_FULLFSYNC=51, fcntl=fcntl))
    monkeypatch.setattr(os, "fsync", synced.append)
    with (tmp_path / "file").open("wb") as file:
        system.flush(file.fileno())
        assert asked == [(file.fileno(), 51)]
        assert synced == [file.fileno()] * (not can)


def test_where_nobody_tells_there_is_memory_and_a_core(monkeypatch: pytest.MonkeyPatch) -> None:
    assert system.load_average() is not None
    HIDDEN["/proc"](monkeypatch)
    assert 10**8 < system.available_memory() < 10**14
    assert isinstance(system.processor_name(), str)
    windows(monkeypatch)
    assert system.available_memory() == sys.maxsize
    assert system.usable_cores() == os.cpu_count()
    assert system.load_average() is None
    assert not system.is_limited()


def test_where_no_right_can_be_given_up_nobody_says_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    windows(monkeypatch)
    assert system.give_up_rights(None, 1 << 30) is False


def test_where_signals_cannot_be_held_back_processes_are_started(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    with system.without_ctrl_c():
        assert signal.SIGINT in signal.pthread_sigmask(signal.SIG_BLOCK, ())
    HIDDEN["signal.pthread_sigmask"](monkeypatch)
    with system.without_ctrl_c():
        assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == before


def test_all_is_imported_where_the_modules_of_posix_are_missing() -> None:
    code = (
        "import sys; sys.modules.update(dict.fromkeys(('fcntl', 'resource', 'pwd', 'grp'))); "
        "import converters.cli.app, converters.jobs.batch.processes, converters.jobs.convert, "
        "converters.published.fetch, converters.formats.confined.child"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=CHECKOUT)


def test_the_first_lock_is_not_lost_when_a_second_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    HIDDEN["fcntl"](monkeypatch)
    with ExitStack() as stack:
        stack.enter_context(system.locked(tmp_path / "file", is_folder=False))
        for _ in range(3):
            with pytest.raises(BlockingIOError):
                stack.enter_context(system.locked(tmp_path / "file", is_folder=False))
