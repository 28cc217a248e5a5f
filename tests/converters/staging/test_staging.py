"""A folder appears whole or not at all, whatever happens while it is made."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from converters.errors import InputError, StorageError
from converters.staging.staged import staged_file, staged_folder, staged_update
from converters.staging.unfinished import partial_name
from regnet.files import system

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

CHECKOUT = Path(__file__).parents[3]
FULL = Path("/dev/full")
NOBODY = 65534

Snapshot = dict[str, bytes | None]


def snapshot(folder: Path) -> Snapshot:
    """Return everything below a folder, hidden or not: path to content, None for folders."""
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None
        for path in sorted(folder.rglob("*"))
    }


def fill(folder: Path, text: str = "new") -> None:
    (folder / "config.json").write_text(text, encoding="utf-8")


def stage(target: Path, then: Callable[[Path], None], *, force: bool = True) -> None:
    """Write something into a staged folder, then do something else with it."""
    with staged_folder(target, force=force) as folder:
        fill(folder)
        then(folder)


def never(_: Path) -> None:
    pytest.fail("the block was entered")


@pytest.fixture
def old(tmp_path: Path) -> Path:
    """An output of an earlier run."""
    target = tmp_path / "out"
    target.mkdir()
    fill(target, "old")
    (target / "extra").mkdir()
    return target


def assert_is_one_sentence(error: BaseException) -> None:
    message = str(error)
    assert message.endswith(".")
    assert message.count(". ") == 0
    assert "\n" not in message


@pytest.mark.parametrize("parents", ["", "a", "a/b"])
def test_the_folder_appears_when_the_block_is_done(tmp_path: Path, parents: str) -> None:
    target = tmp_path / parents / "out"

    with staged_folder(target) as folder:
        fill(folder)
        assert not target.exists()
        assert folder.parent == target.parent
        assert folder.name.startswith(".out.")

    assert snapshot(target) == {"config.json": b"new"}
    assert [path.name for path in target.parent.iterdir()] == ["out"]


def test_a_relative_target_is_meant_from_where_the_block_began(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path)

    with staged_folder(Path("out")) as folder:
        fill(folder)
        os.chdir(tmp_path / "elsewhere")

    assert snapshot(tmp_path) == {"elsewhere": None, "out": None, "out/config.json": b"new"}


def test_an_existing_folder_is_replaced_as_a_whole_with_force(tmp_path: Path, old: Path) -> None:
    with staged_folder(old, force=True) as folder:
        fill(folder)
        assert (old / "config.json").read_text() == "old"

    assert snapshot(tmp_path) == {"out": None, "out/config.json": b"new"}


def test_an_empty_folder_needs_no_force(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()

    with staged_folder(tmp_path / "out") as folder:
        fill(folder)

    assert snapshot(tmp_path) == {"out": None, "out/config.json": b"new"}


def a_file(target: Path) -> None:
    target.write_text("precious", encoding="utf-8")


def a_folder(target: Path) -> None:
    target.mkdir()
    fill(target, "precious")


def a_link_to_a_folder(target: Path) -> None:
    a_folder(target.with_name("real"))
    target.symlink_to("real")


def a_link_to_nothing(target: Path) -> None:
    target.symlink_to("nothing")


@pytest.mark.parametrize(
    ("occupy", "force", "words"),
    [
        (a_folder, False, "exists already; choose another output or replace it with --force."),
        (a_file, False, "exists and is not a folder; choose another output."),
        (a_file, True, "exists and is not a folder; choose another output."),
        (a_link_to_a_folder, False, "exists and is not a folder; choose another output."),
        (a_link_to_a_folder, True, "exists and is not a folder; choose another output."),
        (a_link_to_nothing, True, "exists and is not a folder; choose another output."),
    ],
)
@pytest.mark.parametrize("when", ["before", "meanwhile"])
def test_what_is_in_the_way_is_left_alone(
    tmp_path: Path,
    occupy: Callable[[Path], None],
    force: bool,
    words: str,
    when: str,
) -> None:
    target = tmp_path / "out"
    if when == "before":
        occupy(target)

    then = never if when == "before" else lambda _: occupy(target)
    with pytest.raises(InputError, match=words):
        stage(target, then, force=force)

    left = snapshot(tmp_path)
    assert b"new" not in left.values()
    assert not [name for name in left if name.startswith(".")]
    assert (b"precious" in left.values()) is (occupy is not a_link_to_nothing)


def interrupt(_: Path) -> None:
    signal.raise_signal(signal.SIGINT)


def fail(_: Path) -> None:
    raise ZeroDivisionError


def refuse(_: Path) -> None:
    raise InputError("The labels do not fit.")


def leave(_: Path) -> None:
    sys.exit(1)


FAILURES = pytest.mark.parametrize(
    ("happen", "error"),
    [
        (interrupt, KeyboardInterrupt),
        (fail, ZeroDivisionError),
        (refuse, InputError),
        (leave, SystemExit),
    ],
)


@FAILURES
def test_a_failure_leaves_everything_as_it_was(
    tmp_path: Path, old: Path, happen: Callable[[Path], None], error: type[BaseException]
) -> None:
    before = snapshot(tmp_path)

    for target in (old, tmp_path / "another", tmp_path / "a" / "b" / "another"):
        with pytest.raises(error):
            stage(target, happen)

    assert snapshot(tmp_path) == before


@FAILURES
def test_a_failure_while_the_folders_are_exchanged_brings_the_old_one_back(
    tmp_path: Path,
    old: Path,
    monkeypatch: pytest.MonkeyPatch,
    happen: Callable[[Path], None],
    error: type[BaseException],
) -> None:
    before = snapshot(tmp_path)
    rename = Path.rename
    renamed: list[Path] = []

    def fail_the_second_time(path: Path, target: Path) -> Path:
        renamed.append(path)
        if len(renamed) == 2:
            happen(path)
        return rename(path, target)

    monkeypatch.setattr(system, "exchange", lambda *_: False)
    monkeypatch.setattr(Path, "rename", fail_the_second_time)
    with pytest.raises(error):
        stage(old, lambda _: None)

    assert len(renamed) == 3
    assert snapshot(tmp_path) == before


def test_a_target_that_cannot_be_moved_aside_stays_and_nothing_is_left_beside_it(
    tmp_path: Path, old: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = snapshot(tmp_path)

    def busy(path: Path, _: Path) -> Path:  # what a folder says that something is mounted on
        raise OSError(16, "Device or resource busy", str(path))

    monkeypatch.setattr(system, "exchange", lambda *_: False)
    monkeypatch.setattr(Path, "rename", busy)
    with pytest.raises(StorageError, match="device or resource busy") as caught:
        stage(old, lambda _: None)

    assert_is_one_sentence(caught.value)
    assert snapshot(tmp_path) == before


@pytest.mark.skipif(not FULL.exists(), reason="this system has no device that is always full")
def test_a_full_disk_is_one_sentence_and_leaves_everything_as_it_was(
    tmp_path: Path, old: Path
) -> None:
    before = snapshot(tmp_path)

    def write_to_the_full_disk(folder: Path) -> None:
        (folder / "model.safetensors").symlink_to(FULL)
        (folder / "model.safetensors").write_bytes(bytes(100))

    with pytest.raises(StorageError, match="no space left on device") as caught:
        stage(old, write_to_the_full_disk)

    assert_is_one_sentence(caught.value)
    assert caught.value.exit_status == 4
    assert snapshot(tmp_path) == before


LIMITED = """
import resource, signal, sys
from pathlib import Path

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))

from converters.jobs.convert import convert
from converters.errors import StorageError

try:
    convert(Path(sys.argv[1]), Path(sys.argv[2]), force=True)
except StorageError as error:
    print(error, end="")
"""


def test_a_conversion_that_meets_the_limit_of_the_file_system_leaves_the_output_as_it_was(
    tmp_path: Path, old: Path
) -> None:
    checkpoint = CHECKOUT / "checkpoints" / "fashion_mnist" / "RegNetY-FashionMNIST.pyth"
    before = snapshot(tmp_path)

    run = subprocess.run(
        [sys.executable, "-c", LIMITED, checkpoint, old],
        capture_output=True,
        text=True,
        check=True,
        cwd=CHECKOUT,
        env=os.environ | {"PYTHONDONTWRITEBYTECODE": "1"},
    )

    assert run.stdout == (
        f"Writing {old} failed (file too large); nothing was left behind, make room or choose "
        "another place and run the command again."
    )
    assert snapshot(tmp_path) == before


@pytest.fixture(params=[0o555, 0o000], ids=["read-only", "closed"])
def forbidden(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    """A folder that may not be written; root, whom no mode binds, is somebody else meanwhile."""
    folder = tmp_path / "forbidden"
    folder.mkdir(mode=request.param)
    is_root = os.geteuid() == 0
    if is_root:
        for parent in (tmp_path, *tmp_path.parents[:2]):  # which pytest keeps to its owner
            parent.chmod(0o755)
        try:
            os.seteuid(NOBODY)
        except PermissionError:
            pytest.skip("this root cannot become another user")
    yield folder
    if is_root:
        os.seteuid(0)
    folder.chmod(0o755)


@pytest.mark.parametrize("below", ["out", "a/b/out"])
def test_a_place_that_may_not_be_written_is_one_sentence(forbidden: Path, below: str) -> None:
    with pytest.raises(StorageError, match="permission denied") as caught:
        stage(forbidden / below, never)

    assert_is_one_sentence(caught.value)


@pytest.mark.parametrize(
    ("below", "reason"),
    [("file/out", "file exists"), ("file/a/out", "not a directory"), ("x" * 300, "too long")],
)
def test_a_place_that_cannot_be_is_one_sentence(tmp_path: Path, below: str, reason: str) -> None:
    a_file(tmp_path / "file")

    with pytest.raises(StorageError, match=reason) as caught:
        stage(tmp_path / below, never)

    assert_is_one_sentence(caught.value)
    assert snapshot(tmp_path) == {"file": b"precious"}


@pytest.mark.parametrize("mask", [0o022, 0o027, 0o077, 0o002])
def test_the_modes_follow_the_umask(tmp_path: Path, mask: int) -> None:
    target = tmp_path / "out"
    before = os.umask(mask)
    try:
        with staged_folder(target) as folder:
            fill(folder)
    finally:
        os.umask(before)

    assert stat.S_IMODE(target.stat().st_mode) == 0o777 & ~mask
    assert stat.S_IMODE((target / "config.json").stat().st_mode) == 0o666 & ~mask


def test_a_file_is_replaced_when_the_block_is_done_and_not_before(tmp_path: Path) -> None:
    target = tmp_path / "model.onnx"
    a_file(target)

    with staged_file(target) as fresh:
        fresh.write_bytes(b"new")
        assert target.read_bytes() == b"precious"

    assert snapshot(tmp_path) == {"model.onnx": b"new"}


@FAILURES
def test_a_failure_leaves_a_file_as_it_was(
    tmp_path: Path, happen: Callable[[Path], None], error: type[BaseException]
) -> None:
    target = tmp_path / "model.onnx"
    a_file(target)

    def write() -> None:
        with staged_file(target) as fresh:
            fresh.write_bytes(b"new")
            happen(fresh)

    with pytest.raises(error):
        write()

    assert snapshot(tmp_path) == {"model.onnx": b"precious"}


WHERES = ("elsewhere", "in it", "where folders cannot be exchanged")


@pytest.fixture(params=WHERES)
def where(request: pytest.FixtureRequest, old: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Whether the folder is exchanged as a whole, or its files are replaced one after the other."""
    if request.param == "in it":
        monkeypatch.chdir(old)
    elif request.param != "elsewhere":
        monkeypatch.setattr(system, "exchange", lambda *_: False)
    return str(request.param)


def test_an_update_replaces_the_named_files_and_keeps_the_others(
    tmp_path: Path, old: Path, where: str
) -> None:
    (old / "extra" / "notes").write_text("precious")
    (old / "link").symlink_to("config.json")
    (old / "stale").write_text("old")
    if where != WHERES[2]:
        (old / partial_name("update")).mkdir()  # of a process that was killed
    old.chmod(0o750)
    inode = old.stat().st_ino

    with staged_update(old, ["onnx/new", "config.json", "stale"]) as folder:
        assert sorted(p.name for p in folder.iterdir()) == ["extra", "link"]
        (folder / "onnx").mkdir()
        fill(folder)
        (folder / "onnx" / "new").write_text("new")
        (old / "extra" / "notes").unlink()  # as an editor saves
        (old / "extra" / "notes").write_text("more precious")
        assert (old / "config.json").read_text() == "old"

    assert snapshot(tmp_path) == {
        "out": None,
        "out/config.json": b"new",
        "out/extra": None,
        "out/extra/notes": b"more precious",
        "out/link": b"new",
        "out/onnx": None,
        "out/onnx/new": b"new",
    }
    assert (old / "link").is_symlink()
    assert stat.S_IMODE(old.stat().st_mode) == 0o750
    assert (old.stat().st_ino == inode) == (where != "elsewhere")


@FAILURES
def test_a_failed_update_leaves_everything_as_it_was(
    tmp_path: Path,
    old: Path,
    where: str,
    happen: Callable[[Path], None],
    error: type[BaseException],
) -> None:
    before = snapshot(tmp_path)

    def update() -> None:
        with staged_update(old, ["config.json", "new"]) as folder:
            fill(folder)
            happen(folder)

    with pytest.raises(error):
        update()

    assert snapshot(tmp_path) == before, where


def test_a_folder_without_links_is_updated_with_copies(
    tmp_path: Path, old: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse_links(*_: object, **__: object) -> None:
        raise OSError(1, "Operation not permitted")

    (old / "weights").write_text("precious")
    monkeypatch.setattr(os, "link", refuse_links)
    with staged_update(old, ["config.json"]) as folder:
        fill(folder)

    assert (old / "weights").read_text() == "precious"
    assert (old / "config.json").read_text() == "new"
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
