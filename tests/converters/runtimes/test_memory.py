"""On a machine that is too small, what can be proven is proven and the rest is called not run."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from converters.parity.too_large import TooLargeVerdict
from converters.runtimes.memory import MemoryShortError, available_memory, require_memory
from tests.converters.parity.networks import Network, export, random_network

if TYPE_CHECKING:
    from pathlib import Path

    from converters.parity.report import Report


def with_memory(monkeypatch: pytest.MonkeyPatch, folder: Path, kilobytes: int) -> None:
    """Have the machine say that so much is free."""
    fake = folder / "meminfo"
    fake.write_text(f"MemTotal: 9999999 kB\nMemAvailable: {kilobytes} kB\n")
    monkeypatch.setattr("converters.runtimes.memory._MEMINFO", fake)


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
    assert isinstance(verdict, TooLargeVerdict)
    assert report.passed
    assert verdict.outcome == "not run"
    assert verdict.tensors is not None
    assert verdict.tensors.identical > 0
    assert "its tensors are the folder's; not run: it needs about" in verdict.reason
    assert verdict.reason.endswith("GB of memory and 0.0 GB are free")


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
    with pytest.raises(MemoryShortError, match=r"needs about 1000000\.0 GB of memory and"):
        require_memory(10**15)
