"""What is written for LiteRT: read by its own schema, run by its own kernels."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING, Any
from zipfile import ZipFile

import numpy as np
import pytest
import torch

from converters.errors import InputError
from converters.folder.folder import ConvertedFolder
from converters.formats.format import ExportOptions
from converters.formats.litert import export as exporter
from converters.formats.litert.flatbuffer import Data, FlatBuffer, Table
from converters.formats.litert.runtime import LiteRtRuntime
from converters.formats.registry import FORMATS
from converters.parity.contents.tensors import certify
from converters.parity.truth import run
from converters.parity.verdict import judge
from regnet import RegNetForImageClassification, RegNetImageProcessor, RegNetModel
from regnet.config import RegNetConfig
from tests.converters.formats.random_folder import random_folder
from tests.converters.parity.networks import Network, random_network

if TYPE_CHECKING:
    from pathlib import Path

schema = pytest.importorskip("ai_edge_litert.schema_py_generated")

SMALL = RegNetConfig(
    embedding_size=8, hidden_sizes=[16, 24], depths=[1, 2], groups_width=8, num_labels=10
)
LITERT = FORMATS["litert"]

BOTH_KERNELS = ("X", "Y", "V", "Z of EvoNorm", "group norm", "all at once")


def written(folder: ConvertedFolder) -> Path:
    path = folder.path / LITERT.file_name
    LITERT.export(folder, path, ExportOptions())
    return path


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> ConvertedFolder:
    folder = random_folder(tmp_path_factory.mktemp("litert"), SMALL)
    written(folder)
    return folder


def unpacked(folder: ConvertedFolder) -> Any:
    """The file as the library's own reader sees it."""
    content = (folder.path / LITERT.file_name).read_bytes()
    return schema.ModelT.InitFromPackedBuf(content, 0)


def test_its_own_schema_reads_names_groups_and_weights(network: ConvertedFolder) -> None:
    model = unpacked(network)
    (graph,) = model.subgraphs
    tensors = {tensor.name.decode(): tensor for tensor in graph.tensors}
    (signature,) = model.signatureDefs
    assert signature.signatureKey == b"serving_default"
    assert [entry.name for entry in signature.inputs] == [b"pixel_values"]
    assert [entry.name for entry in signature.outputs] == [b"logits"]
    assert tensors["pixel_values"].shape.tolist() == [1, 224, 224, 3]
    assert tensors["pixel_values"].shapeSignature.tolist() == [-1, -1, -1, 3]
    kernel = tensors["regnet.encoder.stages.0.layers.0.layer.1.folded_weight"]
    assert kernel.shape.tolist() == [16, 3, 3, 8]  # two groups, which no split takes apart
    codes = {(code.builtinCode, code.deprecatedBuiltinCode) for code in model.operatorCodes}
    names = {number: name for name, number in vars(schema.BuiltinOperator).items()}
    assert {names[code] for code, _ in codes} == {
        *("PAD", "CONV_2D", "MEAN", "LOGISTIC", "MUL", "ADD", "RESHAPE", "FULLY_CONNECTED")
    }
    assert all(code == old for code, old in codes)
    held = model.buffers[tensors["classifier.1.weight"].buffer].data
    assert bytes(held) == network.array("classifier.1.weight").tobytes()
    assert model.buffers[0].data is None


def test_weights_lie_where_the_schema_aligns_them(network: ConvertedFolder) -> None:
    content = (network.path / LITERT.file_name).read_bytes()
    model = schema.Model.GetRootAs(content, 0)
    assert schema.Model.ModelBufferHasIdentifier(content, 0)
    lengths = [model.Buffers(index).DataLength() for index in range(model.BuffersLength())]
    assert sum(length > 0 for length in lengths) == model.BuffersLength() - 1
    for index, length in enumerate(lengths):
        if length:
            place = model.Buffers(index)._tab
            assert place.Vector(place.Offset(4)) % 16 == 0


def test_any_program_finds_the_names_of_its_classes(tmp_path: Path) -> None:
    names = ["tench, Tinca tinca", "été", "two\nlines", "", "the last"]
    config = RegNetConfig(**SMALL.to_dict() | {"id2label": dict(enumerate(names))})
    RegNetImageProcessor(size=64).save_pretrained(tmp_path)
    path = written(random_folder(tmp_path, config))
    with ZipFile(path) as behind:
        assert behind.testzip() is None
        assert behind.namelist() == ["labels.txt"]
        lines = behind.read("labels.txt").decode().split("\n")
    assert lines == ["tench, Tinca tinca", "été", "two lines", "", "the last", ""]
    model = schema.ModelT.InitFromPackedBuf(path.read_bytes(), 0)
    stated = {entry.name: bytes(model.buffers[entry.buffer].data) for entry in model.metadata}
    assert json.loads(stated[b"id2label"]) == {str(i): name for i, name in enumerate(names)}
    assert json.loads(stated[b"preprocessing"])["size"] == {"shortest_edge": 64}
    assert stated[b"TFLITE_METADATA"][4:8] == b"M001"
    assert certify(ConvertedFolder(tmp_path), "litert", path).wrong == ()


@pytest.mark.parametrize("reference", [False, True], ids=["XNNPACK", "reference kernels"])
@pytest.mark.parametrize("name", BOTH_KERNELS)
def test_both_kinds_of_kernels_are_within_float32(
    name: str, reference: bool, workspace: Path, networks: dict[str, Network]
) -> None:
    if name not in networks:
        random_network(workspace / name, name)
        networks[name] = Network.of(ConvertedFolder(workspace / name))
    network = networks[name]
    runtime = LiteRtRuntime(written(network.folder), ("logits",), reference=reference)
    units = network.truth.units(runtime.precision)
    outputs = run(runtime, network.truth.inputs_for(runtime.precision))
    measured = judge(outputs, units, network.truth.oracle, runtime.precision)
    assert [each.failure for each in measured if each.failure] == []


@pytest.fixture(scope="module")
def networks() -> dict[str, Network]:
    """Those that were written already."""
    return {}


@pytest.mark.parametrize("shape", [(3, 33, 50), (1, 224, 224), (2, 1, 1), (1, 7, 90)])
def test_any_number_of_images_of_any_size(
    network: ConvertedFolder, shape: tuple[int, int, int]
) -> None:
    count, height, width = shape
    pixels = torch.randn(count, 3, height, width, generator=torch.Generator().manual_seed(0))
    runtime = LITERT.load(network.path / LITERT.file_name, ("logits",))
    model = RegNetForImageClassification.from_pretrained(network.path)
    with torch.inference_mode():
        logits = model(pixels).logits.numpy()
    runtime(pixels[:, :, :1, :1].numpy())  # planned for another size before
    np.testing.assert_allclose(runtime(pixels.numpy())["logits"], logits, rtol=1e-3, atol=1e-4)


def test_a_trunk_gives_its_features_with_channels_first(tmp_path: Path) -> None:
    folder = random_folder(tmp_path, SMALL, classifier=False)
    pixels = torch.randn(2, 3, 40, 56, generator=torch.Generator().manual_seed(0))
    outputs = LITERT.load(written(folder), folder.output_names)(pixels.numpy())
    with torch.inference_mode():
        features = RegNetModel.from_pretrained(tmp_path)(pixels)
    assert outputs.keys() == {"last_hidden_state", "pooler_output"}
    for name, output in outputs.items():
        np.testing.assert_allclose(output, features[name].numpy(), rtol=1e-3, atol=1e-4)


def test_it_opens_without_a_word(network: ConvertedFolder) -> None:
    code = (
        "import sys, numpy; from pathlib import Path; "
        "from converters.formats.litert.runtime import LiteRtRuntime; "
        "LiteRtRuntime(Path(sys.argv[1]))(numpy.zeros((1, 3, 32, 32), numpy.float32)); "
        "print('still heard', file=sys.stderr)"
    )
    command = [sys.executable, "-c", code, str(network.path / LITERT.file_name)]
    run = subprocess.run(command, capture_output=True, text=True, check=True)
    assert (run.stdout, run.stderr) == ("", "still heard\n")


def test_what_is_too_large_is_refused_before_anything_is_written(
    network: ConvertedFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with ZipFile(network.path / LITERT.file_name) as behind:
        (labels,) = behind.infolist()
    size = labels.header_offset  # that of the flatbuffer, in which distances are limited
    path = tmp_path / "model.tflite"
    monkeypatch.setattr(exporter, "LARGEST", size - 1)
    with pytest.raises(InputError, match=r"larger than the 2 GB that a \.tflite file can be"):
        LITERT.export(network, path, ExportOptions())
    assert not path.exists()
    monkeypatch.setattr(exporter, "LARGEST", size)  # the size is known to the byte
    LITERT.export(network, path, ExportOptions())
    assert path.read_bytes() == (network.path / LITERT.file_name).read_bytes()


def test_large_vectors_are_computed_when_they_are_written_and_not_before(tmp_path: Path) -> None:
    computed = []

    def vector(size: int) -> Data:
        def compute() -> np.ndarray[Any, Any]:
            computed.append(size)
            return np.arange(size, dtype=np.uint8)

        return Data(size, compute)

    rows = [Table((vector(size),)) for size in (5, 16, 3)]
    file = FlatBuffer.of(Table((None, np.int64(-7), "name", rows)), b"TEST")
    assert computed == []
    path = tmp_path / "file"
    file.write(path)
    assert computed == [5, 16, 3]
    assert path.stat().st_size == file.nbytes
    content = path.read_bytes()
    at = int.from_bytes(content[:4], "little")
    assert content[4:8] == b"TEST"
    assert at % 8 == 0  # as its largest field
    assert content.endswith(bytes([3, 0, 0, 0, 0, 1, 2]))
