"""What lies in a folder runs in this process only if it is what this project writes."""

from __future__ import annotations

import json
import warnings
from typing import TYPE_CHECKING

import numpy as np
import onnx
import pytest
import torch

from converters.checkpoint.digests import sha256_of
from converters.folder.folder import ConvertedFolder
from converters.formats.confined import program
from converters.formats.confined.runtime import ConfinedRuntime
from converters.formats.format import ExportOptions
from converters.formats.registry import FORMATS
from converters.jobs.bench import bench
from converters.jobs.predict import open_runtime
from converters.parity.contents.tensors import is_ours
from converters.parity.verify import verify_folder

if TYPE_CHECKING:
    from pathlib import Path

    from converters.parity.report import Report
    from converters.parity.verdict import Verdict


class Written(torch.nn.Module):
    """Computes the network's logits, and tries to leave a file behind."""

    def __init__(self, inside: torch.nn.Module) -> None:
        super().__init__()
        self.inside = inside

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        torch.save(pixels, "written")
        return self.inside(pixels)


def replace_torchscript(folder: Path) -> None:
    """Put a program that writes a file in the place of the folder's own."""
    path = folder / FORMATS["torchscript"].file_name
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        inside = torch.jit.load(path)  # type: ignore[no-untyped-call]
        torch.jit.script(Written(inside)).save(path)
    record(folder, path.name)


def record(folder: Path, name: str) -> None:
    """Let the record say of a file what is so."""
    report = folder / "conversion.json"
    keys = json.loads(report.read_text())
    keys["files"][name]["sha256"] = sha256_of(folder / name)
    report.write_text(json.dumps(keys))


def exported(folder: ConvertedFolder, kind: str) -> Path:
    path = folder.path / FORMATS[kind].file_name
    path.parent.mkdir(exist_ok=True)
    FORMATS[kind].export(folder, path, ExportOptions())
    return path


def verdict_of(report: Report, name: str) -> Verdict:
    return next(verdict for verdict in report.verdicts if verdict.artefact == name)


def test_what_this_project_writes_is_known(demo_folder: Path) -> None:
    folder = ConvertedFolder(demo_folder)
    for kind in ("onnx", "torchscript"):
        assert is_ours(folder, kind, demo_folder / FORMATS[kind].file_name)
        assert not isinstance(open_runtime(folder, kind), ConfinedRuntime)


def test_known_artefacts_are_verified_without_another_process(
    demo_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(program.subprocess, "Popen", None)
    assert verify_folder(ConvertedFolder(demo_folder)).passed


def test_a_torchscript_that_writes_is_judged_and_writes_nothing(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    replace_torchscript(folder)
    monkeypatch.chdir(tmp_path)
    found = ConvertedFolder(folder)
    network = open_runtime(found, "torchscript")
    assert isinstance(network, ConfinedRuntime)
    network(np.zeros((1, 3, 32, 32), np.float32))
    verdict = verdict_of(verify_folder(found), "model.torchscript.pt")
    assert verdict.measurements[0].failure is None
    assert "graph" in (verdict.not_compared or "")
    assert not (tmp_path / "written").exists()
    assert not (folder / "written").exists()


def test_an_onnx_of_another_producer_is_run_apart_and_passes(folder: Path) -> None:
    path = folder / "model.onnx"
    model = onnx.load(path)
    model.producer_name = "another"
    onnx.save(model, path)
    record(folder, path.name)
    found = ConvertedFolder(folder)
    assert isinstance(open_runtime(found, "onnx"), ConfinedRuntime)
    assert verdict_of(verify_folder(found), "model.onnx").passed


@pytest.mark.parametrize("kind", ["openvino", "onnx-preprocessing"])
def test_what_cannot_be_known_is_run_apart_with_the_same_outputs(kind: str, folder: Path) -> None:
    found = ConvertedFolder(folder)
    path = exported(found, kind)
    pixels = np.random.default_rng(0).standard_normal((2, 3, 32, 32), np.float32)
    here = FORMATS[kind].load(path, found.output_names)(pixels)
    there = ConfinedRuntime(found, kind, path)(pixels)
    assert here.keys() == there.keys()
    for name, array in here.items():
        np.testing.assert_array_equal(array, there[name])


def test_a_changed_graph_with_preprocessing_is_measured_apart(folder: Path) -> None:
    found = ConvertedFolder(folder)
    path = exported(found, "onnx-preprocessing")
    assert is_ours(found, "onnx-preprocessing", path)
    model = onnx.load(path)
    model.producer_name = "another"
    onnx.save(model, path)
    assert not is_ours(found, "onnx-preprocessing", path)
    verdict = verdict_of(verify_folder(found), FORMATS["onnx-preprocessing"].file_name)
    assert verdict.passed, verdict.failure
    assert any(m.output == "probabilities" for m in verdict.measurements)


def test_timing_counts_no_way_between_processes(folder: Path) -> None:
    model = onnx.load(folder / "model.onnx")
    model.producer_name = "another"
    onnx.save(model, folder / "model.onnx")
    (entry,) = bench(folder, runtimes=("onnx",), batch_sizes=(1,), rounds=2).entries
    assert not isinstance(entry.timings[0], str)
    assert entry.timings[0].calls == 4
