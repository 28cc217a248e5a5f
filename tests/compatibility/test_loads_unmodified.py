"""A converted folder loads as it is in the programs that users have; one test for each.

onnxruntime-web is tested with the page, in ``tests/web``.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from PIL import Image

import hubconf
from converters.formats.registry import FORMATS
from converters.jobs.export import export
from regnet import RegNetImageProcessor

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from converters.parity.truth import Truth

    Network = Callable[[NDArray[np.float32]], NDArray[np.floating]]
    Check = Callable[[Network], None]

CHECKOUT = Path(__file__).parents[2]

TRANSFORMERS_JS = "@huggingface/transformers@4.3.1"

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


def test_torch_export_load(folder: Path, assert_same_network: Check) -> None:
    export(folder, ["pt2"], verify=False)
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
def test_optimum(out: Path, truth: Truth, assert_same_network: Check, tmp_path: Path) -> None:
    from benchmarks.optimum import optimum_cli

    python = optimum_cli(CHECKOUT / ".venv-optimum").with_name("python")
    np.savez(tmp_path / "inputs.npz", **truth.inputs)
    files = [tmp_path / "inputs.npz", tmp_path / "logits.npz"]
    subprocess.run([python, "-c", OPTIMUM, out, *files], check=True, timeout=300)
    with np.load(tmp_path / "logits.npz") as logits:
        answers = {pixels.tobytes(): logits[name] for name, pixels in truth.inputs.items()}
    assert_same_network(lambda pixels: answers[pixels.tobytes()])


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("npm"), reason="no npm on this machine")
def test_transformers_js(
    folder: Path, truth: Truth, assert_same_network: Check, tmp_path: Path
) -> None:
    # It has no class for RegNet (4.3): AutoModel runs the file, the pipelines refuse the folder.
    export(folder, ["onnx-web"], verify=False)
    install = ("npm", "install", "--silent", "--ignore-scripts", TRANSFORMERS_JS)
    subprocess.run(install, check=True, timeout=300, cwd=tmp_path)
    names = {pixels.tobytes(): name for name, pixels in truth.inputs.items()}
    for name, pixels in truth.inputs.items():
        (tmp_path / f"{name}.bin").write_bytes(pixels.tobytes())
    sizes = {name: pixels.shape for name, pixels in truth.inputs.items()}
    (tmp_path / "inputs.json").write_text(json.dumps(sizes), encoding="utf-8")
    noise = np.random.default_rng(0).integers(256, size=(48, 48, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "picture.png")

    script = shutil.copy(Path(__file__).with_name("transformers_js.mjs"), tmp_path)
    run = ("node", script, folder, tmp_path)
    subprocess.run(run, check=True, timeout=300)

    def logits(pixels: NDArray[np.float32]) -> NDArray[np.floating]:
        found = np.fromfile(tmp_path / f"{names[pixels.tobytes()]}.logits", np.float32)
        return found.reshape(len(pixels), -1)

    assert_same_network(logits)
    # Of a picture that is not resized, which is where it parts from Pillow.
    processor = RegNetImageProcessor.from_pretrained(folder)
    (prepared,) = processor([Image.fromarray(noise)])["pixel_values"]
    found = np.fromfile(tmp_path / "picture.pixels", np.float32).reshape(prepared.shape)
    np.testing.assert_allclose(found, prepared, rtol=0, atol=1e-6)
