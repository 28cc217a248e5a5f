"""A converted folder loads as it is in the programs that users have; one test for each.

onnxruntime-web is tested with the page, in ``tests/web``.
"""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

import hubconf
from converters.artefacts import FORMATS
from converters.convert import Silent
from converters.export import export_artefacts

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    Network = Callable[[NDArray[np.float32]], NDArray[np.floating]]
    Check = Callable[[Network], None]

CHECKOUT = Path(__file__).parents[2]

OPTIMUM = """
import sys
import numpy as np
import torch
from optimum.onnxruntime import ORTModelForImageClassification

model = ORTModelForImageClassification.from_pretrained(sys.argv[1])
assert model.config.id2label[9] == "Ankle boot", model.config.id2label
with np.load(sys.argv[2]) as inputs:
    logits = {name: model(torch.from_numpy(inputs[name])).logits.numpy() for name in inputs}
np.savez(sys.argv[3], **logits)
"""


def in_torch(network: Callable[[torch.Tensor], Any]) -> Network:
    """Arrays in, arrays out."""

    def run(pixels: NDArray[np.float32]) -> NDArray[np.floating]:
        with torch.inference_mode():
            output = network(torch.from_numpy(pixels))
        logits: NDArray[np.floating] = getattr(output, "logits", output).numpy()
        return logits

    return run


def test_transformers(out: Path, assert_same_network: Check) -> None:
    from transformers import AutoImageProcessor, AutoModelForImageClassification

    model, info = AutoModelForImageClassification.from_pretrained(out, output_loading_info=True)
    assert not any(info.values()), info
    assert_same_network(in_torch(model))
    processor = AutoImageProcessor.from_pretrained(out)
    picture = np.zeros((28, 28, 3), np.uint8)
    assert processor(picture, return_tensors="np")["pixel_values"].shape == (1, 3, 48, 48)


def test_onnx_runtime(out: Path, assert_same_network: Check) -> None:
    import onnxruntime

    session = onnxruntime.InferenceSession(out / "model.onnx")
    assert_same_network(lambda pixels: session.run(["logits"], {"pixel_values": pixels})[0])


def test_openvino(out: Path, assert_same_network: Check) -> None:
    openvino = pytest.importorskip("openvino", reason="openvino is not installed")
    core = openvino.Core()
    settings = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1}
    network = core.compile_model(core.read_model(out / "model.onnx"), "CPU", settings)
    assert_same_network(lambda pixels: network({"pixel_values": pixels})["logits"])


def test_torch_jit_load(out: Path, assert_same_network: Check) -> None:
    with pytest.warns(DeprecationWarning, match="torch.jit.load"):
        script = torch.jit.load(out / "model.torchscript.pt")
    assert_same_network(in_torch(script))


@pytest.mark.skipif("pt2" not in FORMATS, reason="no exporter writes model.pt2 yet")
def test_torch_export_load(folder: Path, assert_same_network: Check) -> None:
    from converters.artefacts import ExportOptions

    export_artefacts(folder, ["pt2"], ExportOptions(), verify=False, progress=Silent())
    program = torch.export.load(folder / FORMATS["pt2"].file_name)
    assert_same_network(in_torch(program.module()))


def test_torch_hub_load_local(out: Path, assert_same_network: Check) -> None:
    model = torch.hub.load(str(CHECKOUT), "regnet", str(out), source="local")
    assert_same_network(in_torch(model))
    trunk = torch.hub.load(str(CHECKOUT), "trunk", str(out), source="local")
    assert trunk(torch.zeros(1, 3, 48, 48)).pooler_output.shape[2:] == (1, 1)
    processor = torch.hub.load(str(CHECKOUT), "processor", str(out), source="local")
    assert processor.size == {"shortest_edge": 48}


def test_torch_hub_lists_the_entry_points_with_their_words() -> None:
    called = {name: value for name, value in vars(hubconf).items() if callable(value)}
    assert sorted(called) == ["processor", "regnet", "trunk"]
    assert all("Args:" in (entry.__doc__ or "") for entry in called.values())


@pytest.mark.slow
def test_optimum(out: Path, truth: Any, assert_same_network: Check, tmp_path: Path) -> None:
    from benchmarks.optimum import optimum_cli

    python = optimum_cli(CHECKOUT / ".venv-optimum").with_name("python")
    np.savez(tmp_path / "inputs.npz", **truth.inputs)
    files = [tmp_path / "inputs.npz", tmp_path / "logits.npz"]
    subprocess.run([python, "-c", OPTIMUM, out, *files], check=True, timeout=300)
    with np.load(tmp_path / "logits.npz") as logits:
        answers = {pixels.tobytes(): logits[name] for name, pixels in truth.inputs.items()}
    assert_same_network(lambda pixels: answers[pixels.tobytes()])
