"""Work beside other work: the same results, whoever does it, and an end to what nobody wants."""

from __future__ import annotations

import sys
import threading
import time
import warnings
from typing import TYPE_CHECKING

import pytest

from converters.checkpoint.quiet import ignoring
from converters.formats import beside as module
from converters.formats.beside import Beside, beside, one_after_the_other, stop_if_told
from converters.formats.confined import Allowance, ConfinedProgram, ProgramError
from converters.jobs.convert import convert
from converters.jobs.verify import verify
from tests.converters.demo import CHECKPOINT

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

SECONDS = 10
"""In which any of these is done, or never will be."""


def ident() -> int:
    return threading.get_ident()


def wait_for(event: threading.Event) -> None:
    assert event.wait(SECONDS)


def test_work_goes_on_beside_other_work_and_its_result_is_kept() -> None:
    begun = threading.Event()

    def work() -> int:
        begun.set()
        return ident()

    with Beside(1) as others:
        result = others.begin(work)
        wait_for(begun)
        assert result() == result() != ident()


def test_without_threads_work_is_done_once_when_its_result_is_asked_for() -> None:
    calls: list[int] = []
    with Beside() as others:
        result = others.begin(calls.append, 1)
        assert calls == []
        assert (result(), result(), calls) == (None, None, [1])


def test_what_has_not_begun_is_done_by_who_asks() -> None:
    free = threading.Event()
    with Beside(1) as others:
        blocked = others.begin(wait_for, free)
        inner = others.begin(ident)
        assert inner() == ident()
        free.set()
        blocked()


def test_work_may_ask_for_the_result_of_work_that_was_begun_later() -> None:
    ready = threading.Event()
    later: list[Callable[[], int]] = []

    def ask() -> int:
        wait_for(ready)
        return later[0]()

    with Beside(1) as others:
        result = others.begin(ask)
        later.append(others.begin(lambda: 7))
        ready.set()
        assert result() == 7


def test_errors_are_raised_by_who_asks() -> None:
    def fail() -> None:
        raise ValueError("no")

    with Beside(1) as others:
        result = others.begin(fail)
        others.begin(fail)  # for which nobody asks
        for _ in range(2):
            with pytest.raises(ValueError, match="no"):
                result()


def test_the_end_stops_what_runs_and_what_has_not_begun() -> None:
    begun, ended, never = threading.Event(), threading.Event(), threading.Event()

    def work() -> None:
        begun.set()
        end = time.monotonic() + SECONDS
        try:
            while time.monotonic() < end:
                stop_if_told()
        finally:
            ended.set()

    with Beside(1) as others:
        others.begin(work)
        others.begin(never.set)
        wait_for(begun)
        before = time.monotonic()
    assert ended.is_set()
    assert time.monotonic() - before < SECONDS
    assert not never.is_set()
    stop_if_told()  # this thread is told nothing


@pytest.mark.parametrize("waits", [True, False])
def test_the_end_stops_a_program_that_a_thread_waits_for(waits: bool) -> None:
    """A stranger's may compute for minutes, and nobody waits for it any more."""
    begun, told = threading.Event(), threading.Event()

    def wait_for_program() -> None:
        begun.set()
        if not waits:
            wait_for(told)
        ConfinedProgram("time:sleep", [99], [], Allowance(start=99, rate=0, memory=2**32))

    with Beside(1) as others:
        work = others.begin(wait_for_program)
        wait_for(begun)
        if waits:
            time.sleep(0.3)
        threading.Timer(0.1, told.set).start()
        begin = time.monotonic()
    assert time.monotonic() - begin < SECONDS
    with pytest.raises(ProgramError, match="its process ended by signal 9"):
        work()


def test_memory_that_others_had_is_taken_alone() -> None:
    alone = threading.Event()
    tries: list[int] = []

    def other() -> None:
        time.sleep(0.05)
        alone.set()

    def hungry() -> bool:
        tries.append(ident())
        if len(tries) == 1:
            raise MemoryError
        return alone.is_set()

    with Beside(2) as others:
        others.begin(other)
        result = others.begin(hungry)
        while not tries:
            time.sleep(0.001)
        assert result()
    assert tries[0] != tries[1] == ident()


def test_threads_are_switched_as_before_in_the_end() -> None:
    before = sys.getswitchinterval()
    one, other = Beside(1), Beside(1)
    for step in (one.__enter__, other.__enter__):
        step()
        assert sys.getswitchinterval() < before
    one.__exit__()
    assert sys.getswitchinterval() < before
    other.__exit__()
    assert sys.getswitchinterval() == pytest.approx(before)


def test_work_is_done_side_by_side_where_there_is_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "usable_cores", lambda: 2)
    monkeypatch.setattr(module, "is_limited", lambda: False)
    monkeypatch.setattr(module, "available_memory", lambda: 1000)
    for needed, expected in ((1000, True), (1001, False)):
        with beside(needed) as others:
            assert bool(others) == expected
    with one_after_the_other(), beside(1) as others:
        assert not others
    monkeypatch.setattr(module, "is_limited", lambda: True)
    with beside(1) as others:
        assert not others
    monkeypatch.setattr(module, "is_limited", lambda: False)
    monkeypatch.setattr(module, "usable_cores", lambda: 1)
    with beside(1) as others:
        assert not others


def test_warnings_are_ignored_by_one_thread_at_a_time() -> None:
    before = warnings.filters[:]
    inside, other_began = threading.Event(), threading.Event()

    def first() -> None:
        with ignoring():
            inside.set()
            wait_for(other_began)
            time.sleep(0.02)  # in which the other would go in

    def second() -> None:
        wait_for(inside)
        other_began.set()
        with ignoring(DeprecationWarning, message="old"):
            warnings.warn("old ways", DeprecationWarning, stacklevel=1)
            time.sleep(0.02)

    with Beside(2) as others:
        for result in [others.begin(first), others.begin(second)]:
            result()
    assert warnings.filters == before


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_a_conversion_side_by_side_has_the_bytes_of_one_after_the_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, reports = [], []
    for cores in (1, 3):
        monkeypatch.setattr(module, "usable_cores", lambda cores=cores: cores)
        out = tmp_path / str(cores)
        converted = convert(CHECKPOINT, out).report
        assert converted is not None
        made.append(files(out))
        reports.append((converted.to_dict(), verify(out).to_dict()))
    assert made[0] == made[1]
    assert reports[0] == reports[1]
