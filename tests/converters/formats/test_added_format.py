"""A format that is added to the list of formats is exported, verified, run and shown by all."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np
import pytest

from converters.errors import InputError
from converters.folder.folder import ConvertedFolder
from converters.formats.format import ExportOptions
from converters.formats.onnx.form import GraphForm
from converters.formats.registry import FORMATS, named_formats, require_writable
from converters.jobs.export import export
from converters.jobs.predict import open_runtime, present_runtimes
from converters.parity.contents.tensors import certify
from converters.parity.verify import verify_folder
from tests.converters.formats.npz import NPZ, NpzRuntime

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(autouse=True)
def _added(monkeypatch: pytest.MonkeyPatch) -> None:
    """The one line that ``converters/formats/registry.py`` would gain."""
    monkeypatch.setitem(FORMATS, NPZ.name, NPZ)


@pytest.fixture
def exported(folder: Path) -> Path:
    report = export(folder, ["npz"])
    assert report
    verdict = report.verdicts[-1]
    assert (verdict.artefact, verdict.outcome, verdict.not_compared) == ("model.npz", "pass", None)
    assert verdict.tensors
    assert verdict.tensors.identical == len(ConvertedFolder(folder).tensors)
    return folder


def test_it_is_written_recorded_and_shown_on_the_card(exported: Path) -> None:
    record = json.loads((exported / "conversion.json").read_text())
    assert record["files"]["model.npz"]["size"] == (exported / "model.npz").stat().st_size
    assert record["verification"]["passed"] is True
    assert record["verification"]["verdicts"][-1]["artefact"] == "model.npz"
    card = (exported / "README.md").read_text()
    assert '"npz"' in next(line for line in card.splitlines() if line.startswith("tags: "))
    assert "| model.npz | npz " in card
    assert "**NumPy, `model.npz`**\n\n```python\nimport numpy, torch\nstate = {name: " in card


def test_it_is_verified_with_the_folder_and_run_in_this_process(exported: Path) -> None:
    folder = ConvertedFolder(exported)
    assert verify_folder(folder).passed
    assert present_runtimes(folder)[-1] == "npz"
    network, onnx = open_runtime(folder, "npz"), open_runtime(folder, "onnx")
    assert isinstance(network, NpzRuntime)
    pixels = np.random.default_rng(0).normal(size=(2, 3, 32, 32)).astype(np.float32)
    assert np.allclose(network(pixels)["logits"], onnx(pixels)["logits"], atol=1e-4)


def test_a_changed_weight_has_its_name(exported: Path) -> None:
    path = exported / "model.npz"
    with np.load(path) as held:
        arrays = {name: held[name].copy() for name in held.files}
    arrays["classifier.1.bias"].view(np.uint32)[0] ^= 1
    np.savez(path, **arrays)
    folder = ConvertedFolder(exported)
    failure = certify(folder, "npz", path).failure
    assert failure == "classifier.1.bias differs from the weights in 1 of 10 values, first at [0]"


def test_it_is_named_on_the_command_line_and_takes_no_other_format_s_options() -> None:
    assert named_formats(["npz,onnx"]) == ("npz", "onnx")
    with pytest.raises(InputError, match=r"^--opset says how onnx, .* and npz is asked for"):
        require_writable(["npz"], ExportOptions(form=GraphForm(opset=20)))
    with pytest.raises(InputError, match=r"choose among onnx, .*, npz\.$"):
        named_formats(["numpy"])
