"""On a machine that is too small, what can be proven is proven and the rest is called not run."""

from __future__ import annotations

import dataclasses
import json
import sys
from typing import TYPE_CHECKING

import pytest

from converters.folder.folder import ConvertedFolder
from converters.formats.memory import MemoryShortError, require_memory
from converters.formats.registry import FORMATS
from converters.jobs.batch.engine import perform
from converters.jobs.batch.job import Job
from converters.jobs.bench import recorded_verdicts
from converters.jobs.conversion import ConvertOptions
from converters.jobs.convert import convert
from converters.parity.contents.tensors import TensorCertificate
from converters.parity.report import VerificationError
from converters.parity.verdict import NOT_RUN, Verdict
from converters.testing import assert_parity
from regnet.files.system import available_memory
from tests.converters.demo import CHECKPOINT
from tests.converters.parity.networks import Network, export, random_network

if TYPE_CHECKING:
    from pathlib import Path

    from converters.parity.report import Report


def with_memory(monkeypatch: pytest.MonkeyPatch, folder: Path, kilobytes: int) -> None:
    """Have the machine say that so much is free."""
    fake = folder / "meminfo"
    fake.write_text(f"MemTotal: 9999999 kB\nMemAvailable: {kilobytes} kB\n")
    monkeypatch.setattr("regnet.files.system._MEMINFO", fake)


def judged(
    form: str, kilobytes: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> tuple[Network, Path, Report]:
    network = random_network(tmp_path, "Y")
    path = export(network.folder, form)
    with_memory(monkeypatch, tmp_path, kilobytes)
    return network, path, network.report(form, path)


@pytest.mark.parametrize("form", ["self-contained", "torchscript"])
def test_an_artefact_larger_than_memory_is_not_run_and_says_so(
    form: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, _, report = judged(form, 10, tmp_path, monkeypatch)
    verdict = report.verdicts[-1]
    assert report.passed
    assert not verdict.measurements
    assert verdict.outcome == "not run"
    assert verdict.tensors is not None
    assert verdict.tensors.identical > 0
    assert verdict.reason == (
        "its tensors are proven; not run: it needs about 0.1 GB of memory, more than is free here"
    )


def test_memory_that_runs_out_on_the_way_is_no_fault_of_the_artefact(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def load(*_: object) -> None:
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory")

    network = random_network(tmp_path, "Y")
    path = export(network.folder, "self-contained")
    short = dataclasses.replace(FORMATS["onnx"], load=load)
    monkeypatch.setitem(FORMATS, "onnx", short)
    verdict = network.report("self-contained", path).verdicts[-1]
    assert (verdict.outcome, verdict.not_run) == ("not run", "there is not enough memory")


@pytest.mark.skipif(sys.platform != "linux", reason="names are bytes on Linux alone")
@pytest.mark.parametrize("form", ["self-contained", "torchscript"])
def test_a_path_that_is_no_text_is_no_fault_of_the_artefact(form: str, tmp_path: Path) -> None:
    """As of umlauts where Python was told not to take names as UTF-8."""
    folder = tmp_path / "\udcc3\udcbc"
    folder.mkdir()
    network = random_network(folder, "Y")
    verdict = network.report(form, export(network.folder, form)).verdicts[-1]
    assert (verdict.outcome, verdict.passed) == ("not run", True)
    assert "its path is no text in this locale" in verdict.reason


@pytest.mark.parametrize("form", ["self-contained", "torchscript"])
def test_wrong_tensors_fail_without_a_run(
    form: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    network, path, _ = judged(form, 10, tmp_path, monkeypatch)
    other = random_network(tmp_path / "other", "Y", seed=1)
    path.write_bytes(export(other.folder, form).read_bytes())
    report = network.report(form, path)
    assert not report.passed
    assert report.verdicts[-1].outcome == "FAIL"


@pytest.fixture
def _garbage(monkeypatch: pytest.MonkeyPatch) -> None:
    """An exporter of AOTInductor that writes nothing a network could be in."""
    kind = dataclasses.replace(
        FORMATS["aotinductor"], export=lambda _, path, __: path.write_bytes(b"garbage" * 100_000)
    )
    monkeypatch.setitem(FORMATS, "aotinductor", kind)


@pytest.mark.usefixtures("_garbage")
def test_what_is_neither_run_nor_proven_is_not_published(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_memory(monkeypatch, tmp_path, 10)
    with pytest.raises(VerificationError, match="could not be verified here: ") as caught:
        convert(CHECKPOINT, tmp_path / "out", formats=("aotinductor",))
    assert caught.value.exit_status == 4
    assert not (tmp_path / "out").exists()
    (verdict,) = (v for v in caught.value.report.verdicts if v.artefact == "model.aoti.pt2")
    assert (verdict.passed, verdict.outcome) == (False, "not run")
    assert "nothing else of it can be proven" in str(caught.value)
    assert verdict.to_dict()["passed"] is False


@pytest.mark.usefixtures("_garbage")
def test_where_something_is_wrong_as_well_that_is_what_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wrong = dataclasses.replace(
        FORMATS["onnx"], export=lambda _, path, __: path.write_bytes(b"garbage")
    )
    monkeypatch.setitem(FORMATS, "onnx", wrong)
    with_memory(monkeypatch, tmp_path, 10)
    with pytest.raises(VerificationError, match="verification failed: ") as caught:
        convert(CHECKPOINT, tmp_path / "out", formats=("aotinductor", "onnx"))
    assert caught.value.exit_status == 1


def test_what_is_proven_but_not_run_is_published_as_that(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_memory(monkeypatch, tmp_path, 10)
    out = tmp_path / "out"
    convert(
        CHECKPOINT,
        out,
    )
    record = json.loads((out / "conversion.json").read_text())
    verdicts = {v["artefact"]: v for v in record["verification"]["verdicts"]}
    assert {name: v["outcome"] for name, v in verdicts.items()} == {
        "model.safetensors": "pass",
        "model.onnx": "not run",
        "model.torchscript.pt": "not run",
    }
    assert record["verification"]["passed"] is True
    assert len(assert_parity(out).not_run) == 2
    with pytest.raises(AssertionError, match="2 not run"):
        assert_parity(out, strict=True)
    card = (out / "README.md").read_text()
    assert "| model.onnx | not run | - | - | not run |" in card
    assert "inf" not in card
    assert recorded_verdicts(ConvertedFolder(out)) == {
        "torch": "pass",
        "onnx": "not run",
        "torchscript": "not run",
    }


@pytest.mark.parametrize("found", [False, True])
@pytest.mark.parametrize("graph_compared", [False, True])
def test_tensors_do_not_speak_for_a_strangers_graph(found: bool, graph_compared: bool) -> None:
    verdict = Verdict(
        *("model.pt2", NOT_RUN, "float32", (), TensorCertificate(3, 0, 0), "it is large"),
        None if graph_compared else "graph",
        found=found,
    )
    assert verdict.outcome == "not run"
    assert verdict.passed == (graph_compared or not found)
    if not verdict.passed:
        assert verdict.reason == "not run: it is large, and nothing else speaks for its graph"


def test_a_batch_says_that_not_all_was_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with_memory(monkeypatch, tmp_path, 10)
    job = Job("demo", CHECKPOINT, tmp_path / "out", ConvertOptions())
    assert perform(job).result == "converted, not all run"
    assert perform(job).result == "already converted"


def test_a_sharing_file_is_run_on_its_mapped_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = random_network(tmp_path, "thousand classes")
    path = export(network.folder, "sharing")
    assert not network.report("sharing", path).verdicts[-1].runtime.endswith("optimisation")
    size = (network.folder.path / "model.safetensors").stat().st_size
    assert 3 * path.stat().st_size < 2 * size
    with_memory(monkeypatch, tmp_path, 2 * size // 1024)
    verdict = network.report("sharing", path).verdicts[-1]
    assert verdict.passed
    assert verdict.measurements
    assert verdict.runtime.endswith(", without optimisation")


def test_what_is_free_is_less_than_what_there_is() -> None:
    assert 10**7 < available_memory() < 10**14
    require_memory(available_memory() // 2)
    with pytest.raises(MemoryShortError, match=r"about 1000000\.0 GB of memory, more than is free"):
        require_memory(10**15)
