"""Programs that are older or pickier than what the project runs itself take its files too."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import onnx
import pytest
import torch

from converters.formats.format import ExportOptions
from converters.formats.onnx.form import NEWEST_OPSET, OLDEST_OPSET, GraphForm
from converters.formats.registry import FORMATS
from converters.formats.torchscript import TorchScriptRuntime
from regnet.config import RegNetConfig
from regnet.image_processor import RegNetImageProcessor
from tests.converters.formats.onnx_helpers import SMALL, reference
from tests.converters.formats.random_folder import random_folder

if TYPE_CHECKING:
    from converters.folder.folder import ConvertedFolder

NETWORKS: dict[str, dict[str, Any]] = {
    "X": {"layer_type": "x"},
    "Y": {},
    "silu": {"hidden_act": "silu"},
}
ONNX_FORMATS = [kind for kind in FORMATS if kind.startswith("onnx")]
OLD_ONNXRUNTIME = Path(f"{sys.prefix}-onnxruntime-1.17") / "bin" / "python"
"""An environment of its own, since it wants an older numpy; `make test-all` installs it."""

SIZE = 64


@pytest.fixture(scope="module", params=NETWORKS)
def folder(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> ConvertedFolder:
    path = tmp_path_factory.mktemp("network") / "folder"
    made = random_folder(path, RegNetConfig(**SMALL | NETWORKS[request.param]))
    RegNetImageProcessor(size=SIZE).save_pretrained(path)
    return made


def exported(folder: ConvertedFolder, kind: str, options: ExportOptions) -> Path:
    path = folder.path / FORMATS[kind].file_name
    path.parent.mkdir(exist_ok=True)
    FORMATS[kind].export(folder, path, options)
    return path


def pixels() -> np.ndarray[Any, np.dtype[np.float32]]:
    shape = (1, 3, SIZE, SIZE)
    return np.random.default_rng(5).standard_normal(shape).astype(np.float32)


def logits_of(folder: ConvertedFolder) -> Any:
    with torch.inference_mode():
        return reference(folder)(torch.from_numpy(pixels())).logits.numpy()


def least_format(opset: int) -> int:
    """The first that a release of ONNX had together with the opset, by ONNX's own table."""
    rows = onnx.helper.VERSION_TABLE
    return next(ir for _, ir, *versions in rows if versions[0] == opset)


@pytest.mark.parametrize("kind", [kind for kind in ONNX_FORMATS if "int8" not in kind])
def test_the_format_is_the_oldest_that_the_opset_allows(kind: str, tmp_path: Path) -> None:
    folder = random_folder(tmp_path / "folder", RegNetConfig(**SMALL))
    RegNetImageProcessor(size=SIZE).save_pretrained(folder.path)
    oldest = 18 if kind == "onnx-preprocessing" else OLDEST_OPSET
    block = 16 if "block" in FORMATS[kind].options else None  # or it would be timed each time
    found = {}
    for opset in range(oldest, min(NEWEST_OPSET, onnx.helper.VERSION_TABLE[-1][2]) + 1):
        path = exported(folder, kind, ExportOptions(form=GraphForm(opset), block=block))
        found[opset] = onnx.load(path, load_external_data=False).ir_version
    assert found == {opset: least_format(opset) for opset in found}
    assert found[18] == 8
    assert len(set(found.values())) > 2


@pytest.mark.parametrize("share", [False, True], ids=["self-contained", "sharing"])
def test_the_classic_engine_of_opencv_takes_fixed_sizes(
    folder: ConvertedFolder, share: bool
) -> None:
    form = GraphForm(batch=1, height=SIZE, width=SIZE)
    path = exported(folder, "onnx", ExportOptions(form=form, share_weights=share))
    network = cv2.dnn.readNetFromONNX(str(path), cv2.dnn.ENGINE_CLASSIC)
    network.setInput(pixels())
    expected = logits_of(folder)
    assert np.abs(network.forward() - expected).max() < 1e-5 * np.abs(expected).max()


OLD_SESSION = """
import sys, json, numpy, onnxruntime
assert onnxruntime.__version__.startswith("1.17."), onnxruntime.__version__
results = {}
for path in sys.argv[2:]:
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    feed = {session.get_inputs()[0].name: numpy.load(sys.argv[1])}
    results[path] = session.run(["logits"], feed)[0].tolist()
print(json.dumps(results))
"""


@pytest.mark.slow
def test_onnxruntime_of_early_2024_runs_every_format(
    folder: ConvertedFolder, tmp_path: Path
) -> None:
    if not OLD_ONNXRUNTIME.is_file():
        pytest.skip("`make test-all` installs ONNX Runtime 1.17 into a place of its own")
    np.save(tmp_path / "pixels.npy", pixels())
    paths = {
        "onnx": exported(folder, "onnx", ExportOptions(share_weights=True)),
        "onnx-web": exported(folder, "onnx-web", ExportOptions()),
        "onnx-fp16": exported(folder, "onnx-fp16", ExportOptions()),
    }
    command = [OLD_ONNXRUNTIME, "-c", OLD_SESSION, tmp_path / "pixels.npy", *paths.values()]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert not done.returncode, done.stderr
    results, expected = json.loads(done.stdout), logits_of(folder)
    for kind, path in paths.items():
        error = np.abs(np.array(results[str(path)]) - expected).max() / np.abs(expected).max()
        assert error < (1e-2 if kind == "onnx-fp16" else 1e-5), kind


def test_convolutions_of_torchscript_have_constants_for_settings(folder: ConvertedFolder) -> None:
    """Which is what coremltools and pnnx want: they follow no attributes of modules."""
    path = exported(folder, "torchscript", ExportOptions())
    module = TorchScriptRuntime(path).program  # which owns the nodes
    graph = module.inlined_graph
    convolutions = graph.findAllNodes("aten::conv2d")
    assert convolutions
    settings = [value.node() for node in convolutions for value in list(node.inputs())[3:]]
    lists = [part for part in settings if part.kind() == "prim::ListConstruct"]
    numbers = [value.node() for part in lists for value in part.inputs()]
    others = [part for part in settings if part not in lists]
    assert {part.kind() for part in (*numbers, *others)} == {"prim::Constant"}


TO_CORE_ML = """
import sys, json, collections, torch, coremltools
module = torch.jit.load(sys.argv[1]).eval()
converted = coremltools.convert(
    module, inputs=[coremltools.TensorType(name="pixel_values", shape=(1, 3, 64, 64))],
    convert_to="mlprogram", minimum_deployment_target=coremltools.target.iOS16)
(function,) = converted.get_spec().mlProgram.functions.values()
(block,) = function.block_specializations.values()
print(json.dumps(collections.Counter(operation.type for operation in block.operations)))
"""


@pytest.mark.slow
def test_coremltools_converts_torchscript(folder: ConvertedFolder) -> None:
    path = exported(folder, "torchscript", ExportOptions())
    command = [sys.executable, "-c", TO_CORE_ML, path]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert not done.returncode, done.stderr[-2000:]
    operations = json.loads(done.stdout.splitlines()[-1])
    kernels = [t for t in folder.tensors.values() if len(t.shape) == 4]
    assert operations["conv"] == len(kernels)
    assert operations["linear"] == 1


RUN_PNNX = """
import sys, json, numpy, torch, model_pnnx
with torch.inference_mode():
    logits = model_pnnx.Model().eval()(torch.from_numpy(numpy.load("pixels.npy")))
print(json.dumps(logits.tolist()))
"""


@pytest.mark.slow
def test_pnnx_converts_torchscript(folder: ConvertedFolder, tmp_path: Path) -> None:
    """It writes a PyTorch program as well, in which what it understood can be run."""
    exported(folder, "torchscript", ExportOptions()).rename(tmp_path / "model.pt")
    np.save(tmp_path / "pixels.npy", pixels())
    convert = [Path(sys.executable).with_name("pnnx"), "model.pt", "inputshape=[1,3,64,64]"]
    for command in ([*convert, "fp16=0"], [sys.executable, "-c", RUN_PNNX]):
        done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
        assert not done.returncode, done.stderr[-2000:]
    expected = logits_of(folder)
    assert np.abs(json.loads(done.stdout) - expected).max() < 1e-5 * np.abs(expected).max()
    assert (tmp_path / "model.ncnn.param").stat().st_size > 1000
