"""The measuring parent, held to children whose costs are known."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import pytest

from benchmarks.measure_closely import Cost, StoppedError, measure_closely
from benchmarks.sizes.sources import forget

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads Linux's /proc")

MEGABYTE = 10**6
SLACK = 16 * MEGABYTE
"""What Python itself takes, and then some."""


def cost_of(code: str, folder: Path, most_anonymous: int | None = None) -> Cost:
    return measure_closely([sys.executable, "-c", code], folder, folder / "log", most_anonymous)


def file_of(folder: Path, megabytes: int) -> Path:
    path = folder / "file"
    path.write_bytes(b"x" * megabytes * MEGABYTE)
    return path


def test_memory_that_was_given_back_before_the_end_counts(tmp_path: Path) -> None:
    cost = cost_of(f"import time; a = b'x' * {64 * MEGABYTE}; time.sleep(.1); del a", tmp_path)
    assert 0 <= cost.anonymous - 64 * MEGABYTE < SLACK
    assert cost.anonymous <= cost.resident < cost.anonymous + SLACK


def test_a_mapped_file_is_resident_and_not_anonymous(tmp_path: Path) -> None:
    file_of(tmp_path, 64)
    code = (
        "import mmap, time; f = open('file'); m = mmap.mmap(f.fileno(), 0, prot=mmap.PROT_READ); "
        "sum(m[::4096]); time.sleep(.1)"
    )
    cost = cost_of(code, tmp_path)
    assert cost.anonymous < SLACK
    assert cost.resident > 64 * MEGABYTE
    assert cost.read_by_calls < 8 * MEGABYTE


def test_bytes_read_and_written_are_counted_apart(tmp_path: Path) -> None:
    file_of(tmp_path, 8)
    code = f"open('file', 'rb').read(); open('new', 'wb').write(b'x' * {32 * MEGABYTE})"
    cost = cost_of(code, tmp_path)
    assert 0 <= cost.read_by_calls - 8 * MEGABYTE < 4 * MEGABYTE
    assert 0 <= cost.written_by_calls - 32 * MEGABYTE < MEGABYTE


def test_what_a_child_of_the_command_moves_counts(tmp_path: Path) -> None:
    file_of(tmp_path, 8)
    cost = cost_of("import subprocess; subprocess.run(['cp', 'file', 'copy'])", tmp_path)
    assert (tmp_path / "copy").stat().st_size == 8 * MEGABYTE
    assert 0 <= cost.written_by_calls - 8 * MEGABYTE < MEGABYTE


def test_bytes_written_by_the_very_last_call_count(tmp_path: Path) -> None:
    code = f"import os; os.write(1, b'x' * {MEGABYTE}); os.kill(os.getpid(), 0)"
    assert cost_of(code, tmp_path).written_by_calls == MEGABYTE


def test_processor_time_is_not_wall_time(tmp_path: Path) -> None:
    asleep = cost_of("import time; time.sleep(.5)", tmp_path)
    busy = cost_of("import time\nwhile time.process_time() < .5: pass", tmp_path)
    assert asleep.wall >= 0.5 > asleep.cpu
    assert busy.wall >= busy.cpu >= 0.5


def test_a_command_with_too_much_memory_is_stopped_before_it_has_it_all(tmp_path: Path) -> None:
    code = (
        "import time\na = []\n"
        f"for _ in range(200):\n a.append(b'x' * {MEGABYTE}); time.sleep(.005)\n"
        "open('end', 'w').close()"
    )
    with pytest.raises(StoppedError, match=r"stopped at 0\.1 GB of anonymous memory"):
        cost_of(code, tmp_path, most_anonymous=64 * MEGABYTE)
    assert not (tmp_path / "end").exists()


def test_a_command_that_fails_has_no_cost(tmp_path: Path) -> None:
    with pytest.raises(StoppedError, match="failed with status 3"):
        cost_of("raise SystemExit(3)", tmp_path)


def test_bytes_of_the_disk_are_counted_apart_from_those_of_the_page_cache(tmp_path: Path) -> None:
    written = cost_of(f"open('file', 'wb').write(b'x' * {32 * MEGABYTE})", tmp_path)
    if not written.written_to_disk:
        pytest.skip("the folder for tests lies in memory")
    assert 0 <= written.written_to_disk - 32 * MEGABYTE < MEGABYTE
    read = "open('file', 'rb').read()"
    cached = cost_of(read, tmp_path)
    assert min(cached.read_by_calls, written.written_by_calls) >= 32 * MEGABYTE
    assert cached.read_from_disk < 16 * MEGABYTE
    forget(tmp_path)
    assert cost_of(read, tmp_path).read_from_disk >= 32 * MEGABYTE
