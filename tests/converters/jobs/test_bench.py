"""Timing in turn, and what is chosen."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING

import numpy as np
import pytest

from converters.errors import InputError
from converters.folder.folder import ConvertedFolder
from converters.formats.runtime import ArtefactRuntime
from converters.jobs.bench import bench, recorded_verdicts
from converters.jobs.export import export
from converters.jobs.timing import Contender, Entry, Timing, choose, time_in_turn
from tests.converters.told import Told

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from converters.jobs.timing import VerdictWord


class Sleeper(ArtefactRuntime):
    """A runtime that takes a known time and writes down when it was called."""

    def __init__(self, name: str, seconds: float, log: list[tuple[str, int]]) -> None:
        self.name = name
        self._seconds = seconds
        self._log = log

    def __call__(self, pixels: NDArray[np.float32]) -> dict[str, NDArray[np.floating]]:
        if len(pixels) > 2:
            raise RuntimeError("batch\ntoo large")
        self._log.append((self.name, len(pixels)))
        time.sleep(self._seconds)
        return {}


def timed() -> tuple[dict[Contender, list[Timing | str]], list[tuple[str, int]]]:
    log: list[tuple[str, int]] = []
    contenders = {
        Contender("slow", 1): Sleeper("slow", 0.02, log),
        Contender("quick", 1): Sleeper("quick", 0.005, log),
    }
    batches = [np.zeros((count, 3, 4, 4), np.float32) for count in (1, 2, 3)]
    return time_in_turn(contenders, batches, 3), log


def test_contenders_take_turns_and_the_first_call_of_each_is_not_timed() -> None:
    timings, log = timed()
    one_round = [(name, batch) for batch in (1, 2) for name in ("slow", "quick") for _ in range(3)]
    assert log == one_round * 3
    for name, least in (("slow", 0.02), ("quick", 0.005)):
        for timing in timings[Contender(name, 1)][:2]:
            assert isinstance(timing, Timing)
            assert timing.calls == 6
            assert least <= timing.lower <= timing.median <= timing.upper < 20 * least
            assert timing.throughput == pytest.approx(timing.batch / timing.median)


def test_a_batch_that_a_runtime_cannot_take_does_not_stop_the_rest() -> None:
    timings, _ = timed()
    assert [each[2] for each in timings.values()] == ["batch too large"] * 2


def test_quartiles_are_those_of_numpy() -> None:
    seconds = [5.0, 1.0, 4.0, 2.0, 9.0, 7.0]
    timing = Timing.of(1, seconds)
    expected = np.quantile(seconds, [0.25, 0.5, 0.75])
    assert [timing.lower, timing.median, timing.upper] == pytest.approx(list(expected))


def entry(  # noqa: PLR0913 -- what may differ
    runtime: str,
    milliseconds: float,
    *,
    threads: int = 1,
    precision: str = "float32",
    verdict: VerdictWord = "pass",
    batch: int = 1,
) -> Entry:
    """Quartiles lie 10 % to each side."""
    median = milliseconds / 1e3
    timing = Timing(batch, median, median * 0.9, median * 1.1, 20)
    return Entry(Contender(runtime, threads), runtime, runtime, precision, 1, verdict, [timing])


@pytest.mark.parametrize(
    ("entries", "expected", "equals"),
    [
        ([entry("torch", 9), entry("onnx", 3)], "onnx", []),
        ([entry("torch", 3), entry("onnx", 9)], "torch", []),
        ([entry("torch", 3), entry("onnx", 3.1)], "onnx", ["torch"]),
        ([entry("onnx", 3, verdict="FAIL"), entry("torch", 9)], "torch", []),
        ([entry("onnx", 3, verdict="changed"), entry("torch", 9)], "torch", []),
        ([entry("onnx", 3, verdict="not verified"), entry("torch", 9)], "torch", []),
        ([entry("onnx", 3), entry("int8", 1, precision="int8")], "int8", []),
        ([entry("onnx", 3), entry("half", 2.9, precision="float16")], "onnx", ["half"]),
        ([entry("b", 3, threads=2), entry("a", 3)], "a", ["b"]),
        ([entry("onnx", 3), entry("script", 3)], "onnx", ["script"]),
        ([entry("many", 1, batch=8), entry("onnx", 3)], "onnx", []),
    ],
)
def test_the_fastest_that_passed_is_chosen_and_ties_change_least(
    entries: list[Entry], expected: str, equals: list[str]
) -> None:
    choice = choose(entries, "latency")
    assert choice is not None
    assert choice.entry.contender.runtime == expected
    assert [contender.runtime for contender in choice.equals] == equals


def test_throughput_counts_images_and_latency_the_smallest_batch() -> None:
    entries = [entry("single", 2), entry("batched", 8, batch=8)]
    many, soon = choose(entries, "throughput"), choose(entries, "latency")
    assert many is not None
    assert soon is not None
    assert (many.entry.title, soon.entry.title) == ("batched", "single")
    assert choose([entry("a", 1, verdict="FAIL")], "latency") is None


def test_all_that_a_folder_holds_is_timed_with_its_verdict(demo_folder: Path) -> None:
    told = Told()
    result = bench(
        demo_folder,
        batch_sizes=(1, 3),
        threads=(1, 2),
        rounds=2,
        progress=told,
    )
    contenders = [(e.contender.runtime, e.contender.threads) for e in result.entries]
    assert contenders == [
        (name, threads) for name in ("torch", "onnx", "torchscript") for threads in (1, 2)
    ]
    assert (told.totals, told.amounts) == ([24], [1] * 24)
    assert {entry.verdict for entry in result.entries} == {"pass"}
    assert result.image_size == 48
    for each in result.entries:
        assert [t.batch for t in each.timings if isinstance(t, Timing)] == [1, 3]
    sizes = {e.contender.runtime: e.size for e in result.entries}
    assert sizes["onnx"] == (demo_folder / "model.onnx").stat().st_size
    assert [choice.goal for choice in result.choices] == ["latency", "throughput"]
    json.dumps(result.to_dict(), allow_nan=False)


def test_a_file_that_was_changed_or_never_judged_is_not_recommended(folder: Path) -> None:
    converted = ConvertedFolder(folder)
    expected = dict.fromkeys(("torch", "onnx", "torchscript"), "pass")
    assert recorded_verdicts(converted) == expected

    with (folder / "model.onnx").open("ab") as file:
        file.write(b"\0")
    assert recorded_verdicts(converted) == expected | {"onnx": "changed"}

    report = folder / "conversion.json"
    record = json.loads(report.read_text())
    verdicts = record["verification"]["verdicts"]
    record["verification"]["verdicts"] = [v for v in verdicts if "torchscript" not in v["artefact"]]
    record["verification"]["verdicts"][0]["passed"] = False
    report.write_text(json.dumps(record))
    assert recorded_verdicts(converted)["torchscript"] == "not verified"
    assert recorded_verdicts(converted)["torch"] == "FAIL"

    report.write_text("{}")
    with pytest.raises(InputError, match=r"conversion\.json is damaged"):
        recorded_verdicts(converted)
    report.unlink()
    assert set(recorded_verdicts(converted).values()) == {"not verified"}


def test_what_is_missing_is_an_error_only_if_it_was_asked_for(folder: Path) -> None:
    (folder / "model.onnx").unlink()
    result = bench(folder, batch_sizes=(1,), rounds=1)
    assert set(result.runtimes) == {"torch", "torchscript"}
    with pytest.raises(InputError, match=r"regnet export \S+ --format onnx"):
        bench(folder, runtimes=("onnx",), batch_sizes=(1,), rounds=1)


def test_what_is_there_but_cannot_be_opened_is_named(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from converters.errors import StorageError
    from converters.jobs import bench as module

    def without_extra(converted: ConvertedFolder, name: str, threads: int) -> object:
        if name == "onnx":
            raise StorageError("onnx is not installed.")
        return opened(converted, name, threads)

    opened = module.open_runtime
    monkeypatch.setattr(module, "open_runtime", without_extra)
    result = bench(folder, batch_sizes=(1,), rounds=1)
    assert result.absent == {"onnx": "onnx is not installed."}
    assert "onnx" not in result.runtimes


def test_an_export_replaces_the_verdict_on_what_it_replaces(folder: Path) -> None:
    def exported(*, verify: bool) -> str:
        export(folder, ["onnx"], share_weights=True, verify=verify)
        return recorded_verdicts(ConvertedFolder(folder))["onnx"]

    assert exported(verify=False) == "not verified"
    assert exported(verify=True) == "pass"
    assert recorded_verdicts(ConvertedFolder(folder))["torchscript"] == "pass"
