"""Every target takes the seeds made for it, under a watch that sees what it must not do."""

from __future__ import annotations

import importlib
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from converters.errors import InputError
from fuzz import guard as guarding
from fuzz.guard import Guard, Violation
from fuzz.log import Run, read, table
from fuzz.seeds import make_corpora
from fuzz.targets import TARGETS

if TYPE_CHECKING:
    from collections.abc import Callable


@pytest.fixture(scope="module")
def corpora(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("corpora")
    make_corpora(root)
    return root


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("inputs")


@pytest.fixture(scope="module")
def guard(folder: Path) -> Guard:
    return Guard(folder)


@pytest.mark.parametrize("name", TARGETS)
def test_a_target_takes_its_seeds(name: str, corpora: Path, folder: Path, guard: Guard) -> None:
    place = folder / name
    if (corpora / name / "beside").is_dir():
        shutil.copytree(corpora / name / "beside", place)
    place.mkdir(exist_ok=True)
    target = TARGETS[name]
    seeds = [path.read_bytes() for path in sorted((corpora / name / "seeds").iterdir())]
    for seed in seeds:
        guard.warm_up(target.read, target.place(seed, place))
    taken = [guard.run(target.read, target.place(seed, place)) for seed in seeds]
    assert any(taken)


def test_seeds_are_those_of_real_frameworks(corpora: Path) -> None:
    networks = [path.read_bytes() for path in (corpora / "pickle" / "seeds").iterdir()]
    for parameter in (b"s1.b1.f.a.weight", b"s1.b1.conv1.conv.weight", b"trunk_output.block1"):
        assert any(parameter in network for network in networks)


FORBIDDEN: dict[str, Callable[[Path], object]] = {
    "another error": lambda _: {}["x"],
    "a module imported": lambda _: importlib.import_module("this"),
    "code compiled": lambda _: compile("1", "x", "eval"),
    "code executed": lambda _: eval("1"),  # noqa: S307
    "a file written": lambda path: path.write_bytes(b""),
    "a file elsewhere": lambda _: Path("/etc/hostname").read_bytes(),
    "a file removed": lambda path: path.unlink(),
    "a process": lambda _: subprocess.run([sys.executable, "-V"], check=True),
    "a command": lambda _: os.system("true"),  # noqa: S605, S607
    "an error without a full stop": lambda _: (_ for _ in ()).throw(InputError("wrong")),
}


@pytest.mark.parametrize("reader", FORBIDDEN.values(), ids=FORBIDDEN)
def test_the_guard_sees(reader: Callable[[Path], object], folder: Path, guard: Guard) -> None:
    path = folder / "input"
    path.write_bytes(b"x")
    with pytest.raises(Violation):
        guard.run(reader, path)
    assert path.read_bytes() == b"x"


def test_the_guard_sees_what_a_reader_hides(folder: Path, guard: Guard) -> None:
    def reader(path: Path) -> None:
        try:
            path.unlink()
        except BaseException:  # noqa: BLE001 -- as badly as can be
            raise InputError("It is damaged.") from None

    (folder / "input").write_bytes(b"x")
    with pytest.raises(Violation, match=r"os\.remove"):
        guard.run(reader, folder / "input")


def test_the_guard_sees_that_there_is_no_end(
    folder: Path, guard: Guard, monkeypatch: pytest.MonkeyPatch
) -> None:
    def reader(_: Path) -> None:
        while True:
            pass

    monkeypatch.setattr(guarding, "SECONDS", 0.1)
    with pytest.raises(Violation, match="processor time"):
        guard.run(reader, folder)
    assert guard.slowest >= 0.05  # the timer of the kernel is coarser than its clock


OUTPUT = """
#64\tINITED cov: 299 ft: 1050 corp: 31/247Kb exec/s: 43 rss: 80Mb
#128\tDONE   cov: 305 ft: 1166 corp: 35/280Kb exec/s: 52 rss: 81Mb
stat::number_of_executed_units: 128
stat::peak_rss_mb:              81
"""


def test_the_table_adds_up_what_the_log_says(tmp_path: Path) -> None:
    log = tmp_path / "log.jsonl"
    Run.of_output("zip", 60.04, OUTPUT, 0.5, []).append(log)
    Run.of_output("zip", 120, OUTPUT, 0.25, ["crash-1"]).append(log)
    assert read(log)[1] == Run("zip", 120, 128, 305, 81, 0.25, ("crash-1",))
    assert table(read(log))[2:] == [
        "| zip | 3 | 256 | 305 | 81 MB | 0.5 s | 1 |",
        "| **all** | 3 | 256 |  | 81 MB | 0.5 s | 1 |",
    ]
