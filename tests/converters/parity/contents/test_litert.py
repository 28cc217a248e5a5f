"""What the certificate of a ``.tflite`` finds: each fault planted with the library's own schema."""

from __future__ import annotations

import re
import shutil
from typing import TYPE_CHECKING, Any
from zipfile import ZIP_DEFLATED, ZipFile, ZipInfo, is_zipfile

import numpy as np
import pytest

from converters.folder.folder import ConvertedFolder
from converters.formats.format import ExportOptions
from converters.formats.registry import FORMATS
from converters.parity.contents.tensors import certify, is_ours
from regnet import RegNetImageProcessor
from tests.converters.parity.networks import IMAGE_SIZE, random_network

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

schema = pytest.importorskip("ai_edge_litert.schema_py_generated")
flatbuffers = pytest.importorskip("flatbuffers")

NAMES = ("Y", "V, averaged shortcut", "Z of EvoNorm", "group norm", "X, selu", "same padding")
BLOCK = "regnet.encoder.stages.0.layers.0"

ADD, AVERAGE_POOL, CONV, MEAN, MUL, PAD, RELU = 0, 1, 3, 40, 18, 34, 19


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, ConvertedFolder]:
    root = tmp_path_factory.mktemp("litert")
    return {name: written(root / name, name) for name in NAMES}


def written(path: Path, name: str) -> ConvertedFolder:
    random_network(path, name)
    RegNetImageProcessor(size={"shortest_edge": IMAGE_SIZE}).save_pretrained(path)
    folder = ConvertedFolder(path)
    FORMATS["litert"].export(folder, path / "model.tflite", ExportOptions())
    return folder


class Opened:
    """A file in the hands of somebody who changes it."""

    def __init__(self, path: Path) -> None:
        self.model = schema.ModelT.InitFromPackedBuf(path.read_bytes(), 0)
        self.files: dict[str | ZipInfo, bytes] = {}  # behind the network
        if is_zipfile(path):
            with ZipFile(path) as archive:
                self.files = {name: archive.read(name) for name in archive.namelist()}
        (self.graph,) = self.model.subgraphs
        self.tensors = {tensor.name.decode(): tensor for tensor in self.graph.tensors}
        self.index = {name: index for index, name in enumerate(self.tensors)}

    def making(self, name: str) -> Any:
        """The operator that makes a value."""
        (found,) = (op for op in self.graph.operators if op.outputs[0] == self.index[name])
        return found

    def first(self, code: int) -> Any:
        """The first operator of a kind."""
        codes = [each.builtinCode for each in self.model.operatorCodes]
        return next(op for op in self.graph.operators if codes[op.opcodeIndex] == code)

    def data(self, name: str, kind: str = "<f4") -> np.ndarray[Any, Any]:
        """A constant's elements, to be changed."""
        buffer = self.model.buffers[self.tensors[name].buffer]
        buffer.data = np.array(buffer.data, np.uint8)
        elements: np.ndarray[Any, Any] = buffer.data.view(kind)
        return elements

    def saved(self, path: Path) -> Path:
        """As the library lays it out."""
        builder = flatbuffers.Builder()
        builder.Finish(self.model.Pack(builder), b"TFL3")
        path.write_bytes(bytes(builder.Output()))
        if self.files:
            with ZipFile(path, "a") as archive:
                for name, content in self.files.items():
                    archive.writestr(name, content)
        return path


def _stride(file: Opened) -> None:
    file.making(f"{BLOCK}.shortcut.convolution").builtinOptions.strideW = 1


def _dilation(file: Opened) -> None:
    file.making(f"{BLOCK}.layer.0.activation").builtinOptions.dilationHFactor = 2


def _padding(file: Opened) -> None:
    file.making(f"{BLOCK}.layer.1.activation").builtinOptions.padding = 0


def _no_activation(file: Opened) -> None:
    file.making(f"{BLOCK}.layer.0.activation").builtinOptions.fusedActivationFunction = 0


def _six(file: Opened) -> None:
    file.making(f"{BLOCK}.activation").builtinOptions.fusedActivationFunction = 3


def _another_relu(file: Opened) -> None:
    file.making(f"{BLOCK}.shortcut.convolution").builtinOptions.fusedActivationFunction = 1


def _zeros_elsewhere(file: Opened) -> None:
    file.data("pad_1", "<i4")[2:6] = [0, 2, 1, 1]


def _mean_of_rows(file: Opened) -> None:
    file.data("axes_1_2", "<i4")[:] = [1, 1]


def _keeps_no_axes(file: Opened) -> None:
    file.making("regnet.pooler").builtinOptions.keepDims = False


def _sum_for_product(file: Opened) -> None:
    codes = [each.builtinCode for each in file.model.operatorCodes]
    gate = file.making(f"{BLOCK}.layer.2.mul")
    gate.opcodeIndex = codes.index(ADD)
    gate.builtinOptionsType, gate.builtinOptions = 11, schema.AddOptionsT()


def _another_operator(file: Opened) -> None:
    code = next(each for each in file.model.operatorCodes if each.builtinCode == 14)
    code.builtinCode = code.deprecatedBuiltinCode = 28  # TANH


def _another_code_of_old(file: Opened) -> None:
    code = next(each for each in file.model.operatorCodes if each.builtinCode == ADD)
    code.deprecatedBuiltinCode = 41  # SUB; of both fields LiteRT takes the larger


def _swapped_weights(file: Opened) -> None:
    stage = "regnet.encoder.stages.1.layers.1.layer"
    one, other = (file.index[f"{stage}.{layer}.folded_weight"] for layer in (0, 3))
    for operator in file.graph.operators:
        swap = {one: other, other: one}
        operator.inputs = [swap.get(index, index) for index in operator.inputs]


def _swapped_names(file: Opened) -> None:
    stage = "regnet.encoder.stages.1.layers.1.layer"
    one, other = (file.tensors[f"{stage}.{layer}.folded_weight"] for layer in (0, 3))
    one.name, other.name = other.name, one.name


def _short_cut(file: Opened) -> None:
    added = file.making(f"{BLOCK}.activation")
    added.inputs = [added.inputs[0], added.inputs[0]]


def _skipped(file: Opened) -> None:
    added = file.making("regnet.encoder.stages.1.layers.1.activation")
    added.inputs = [added.inputs[0], file.index["regnet.encoder.stages.0.layers.0.activation"]]


def _options_of_another(file: Opened) -> None:
    file.making(f"{BLOCK}.layer.0.activation").builtinOptionsType = 2


def _order(file: Opened) -> None:
    operators = file.graph.operators
    operators[1], operators[2] = operators[2], operators[1]


def _twice(file: Opened) -> None:
    file.graph.operators.append(file.graph.operators[-1])


def _dead(file: Opened) -> None:
    copy = schema.TensorT()
    copy.name, copy.shape, copy.buffer = b"more", [1, 10], 0
    file.graph.tensors.append(copy)
    operator = schema.OperatorT()
    operator.opcodeIndex = file.making(f"{BLOCK}.layer.2.attention.3").opcodeIndex
    operator.inputs, operator.outputs = [file.index["logits"]], [len(file.graph.tensors) - 1]
    file.graph.operators.append(operator)


def _hidden(file: Opened) -> None:
    buffer, tensor = schema.BufferT(), schema.TensorT()
    buffer.data = np.zeros(64, np.uint8)
    tensor.name, tensor.shape, tensor.buffer = b"hidden", [16], len(file.model.buffers)
    file.model.buffers.append(buffer)
    file.graph.tensors.append(tensor)


def _another_output(file: Opened) -> None:
    file.graph.outputs = [file.index["classifier.0"]]


def _another_name(file: Opened) -> None:
    file.model.signatureDefs[0].outputs[0].name = "probabilities"


def _fixed_batch(file: Opened) -> None:
    file.tensors["pixel_values"].shapeSignature = [1, -1, -1, 3]


def _fixed_inside(file: Opened) -> None:
    file.tensors[f"{BLOCK}.shortcut.convolution"].shapeSignature = [-1, 12, 12, 16]


def _variable(file: Opened) -> None:
    file.tensors["pad_1"].isVariable = True


def _outside(file: Opened) -> None:
    buffer = file.model.buffers[file.tensors["classifier.1.weight"].buffer]
    buffer.offset, buffer.size = 64, 1600


def _wrong_size(file: Opened) -> None:
    file.tensors["classifier.1.bias"].shape = [9]


def _flipped(file: Opened) -> None:
    file.data(f"{BLOCK}.layer.1.folded_weight").view("<u4")[7] ^= 1


def _replaced(key: str, old: bytes, new: bytes) -> Callable[[Opened], None]:
    """Other bytes in what a file says of itself."""

    def plant(file: Opened) -> None:
        (entry,) = (each for each in file.model.metadata if each.name == key.encode())
        buffer = file.model.buffers[entry.buffer]
        content = bytes(buffer.data)
        assert old in content, (key, content)
        buffer.data = np.frombuffer(content.replace(old, new), np.uint8)

    return plant


def _described(old: bytes, new: bytes) -> Callable[[Opened], None]:
    return _replaced("TFLITE_METADATA", old, new)


def _float(number: float) -> bytes:
    return np.float32(number).tobytes()


def _packed(name: str | None, content: str, method: int = 0) -> Callable[[Opened], None]:
    """Other files behind the network: none, or one of this name, or of this content."""

    def plant(file: Opened) -> None:
        entry = ZipInfo(name or "labels.txt")
        entry.compress_type = method
        file.files = {entry: content.encode()} if name is not None else {}

    return plant


NAMES_OF_CLASSES = "".join(f"LABEL_{index}\n" for index in range(10))

SAID: dict[str, tuple[Callable[[Opened], None], str]] = {
    "mean": (_described(_float(0.485 * 255), _float(0.5 * 255)), "normalise images otherwise than"),
    "deviation": (_described(_float(0.225 * 255), _float(58)), "normalise images otherwise than"),
    "least": (_described(_float(-0.485 / 0.229), _float(0)), "normalise images otherwise than"),
    "size": (_described(np.uint32(IMAGE_SIZE).tobytes(), b"\x07\0\0\0"), "are .* pixels large"),
    "threshold": (_described(_float(np.finfo(np.float32).min), _float(0)), "leave out some of log"),
    "version": (_described(b"1.0.0", b"9.0.0"), "ask for version 9.0.0 of their reader"),
    "input": (_described(b"pixel_values", b"pixel_valuez"), "are of pixel_valuez, logits"),
    "labels": (_described(b"labels.txt", b"labelz.txt"), "name other files for logits"),
    "kind": (_described(b"M001", b"M002"), "no flatbuffer of the kind M001"),
    "json": (_replaced("preprocessing", b"0.485", b"0.486"), "states another preprocessing"),
    "names": (_replaced("id2label", b"LABEL_3", b"LABEL_4"), "names other classes"),
    "no file": (_packed(None, ""), "the files behind its network are nothing"),
    "another": (_packed("more.txt", NAMES_OF_CLASSES), "the files behind .* are more.txt"),
    "order": (_packed("labels.txt", NAMES_OF_CLASSES[::-1]), "labels.txt names other classes"),
    "one more": (_packed("labels.txt", f"{NAMES_OF_CLASSES}more\n"), "names other classes than"),
    "compressed": (_packed("labels.txt", NAMES_OF_CLASSES, ZIP_DEFLATED), "is compressed or dam"),
    "elsewhere": (_packed("../labels.txt", NAMES_OF_CLASSES), "leads out of it"),
}


@pytest.mark.parametrize("fault", SAID)
def test_what_is_said_of_images_and_classes_is_proven(
    folders: dict[str, ConvertedFolder], tmp_path: Path, fault: str
) -> None:
    plant, clause = SAID[fault]
    folder = folders["Y"]
    file = Opened(folder.path / "model.tflite")
    plant(file)
    found = certify(folder, "litert", file.saved(tmp_path / "model.tflite"))
    assert any(re.search(clause, each) for each in found.wrong), found.wrong


@pytest.mark.parametrize("behind", [b"\0", bytes(16), b"more", b"PK\x05\x06" + bytes(18)])
def test_nothing_else_lies_behind_the_network(
    folders: dict[str, ConvertedFolder], tmp_path: Path, behind: bytes
) -> None:
    folder, path = folders["Y"], tmp_path / "model.tflite"
    content = (folder.path / "model.tflite").read_bytes()
    path.write_bytes(content + behind)
    assert certify(folder, "litert", path).wrong
    with ZipFile(folder.path / "model.tflite") as archive:
        (labels,) = archive.infolist()
    network = content[: labels.header_offset]
    path.write_bytes(network + bytes(16) + b"more")
    with ZipFile(path, "a") as archive:
        archive.writestr("labels.txt", NAMES_OF_CLASSES)
    (wrong,) = certify(folder, "litert", path).wrong
    assert "its files begin at byte" in wrong


FAULTS: dict[Callable[[Opened], None], str] = {
    _stride: "the width of regnet.*shortcut is 1 where 2 belongs",
    _dilation: "has a dilation of 2",
    _padding: "layer.1 has padding 0",
    _no_activation: "layer.0 has the activation 0 where 1 belongs",
    _six: f"{BLOCK}.add has the activation 3 where 1 belongs",
    _another_relu: "shortcut has the activation 1 where 0 belongs",
    _zeros_elsewhere: "a constant of .* is other than it should be",
    _mean_of_rows: "a constant of .* is other than it should be",
    _keeps_no_axes: "the keep_dims of regnet.pooler is 0 where 1 belongs",
    _sum_for_product: "layer.2.mul is made by ADD where MUL belongs",
    _another_operator: "attention.3 is made by operator 28 where LOGISTIC belongs",
    _another_code_of_old: ".add is made by SUB where ADD belongs",
    _swapped_weights: "layer.*folded_weight is read where .*folded_weight belongs",
    _swapped_names: "layer.0.folded_weight differs from the fold recomputed",
    _short_cut: "layer.3.folded_weight is read where .*shortcut.folded_weight belongs",
    _skipped: "regnet.encoder.stages.1.layers.0.activation is read from two tensors",
    _options_of_another: "layer.0 has options of kind 2",
    _order: "an operator reads what is not there yet",
    _twice: "an operator makes what is there already",
    _dead: "nothing needs more",
    _hidden: "nothing needs hidden",
    _another_output: "its signature names other outputs",
    _another_name: "its signature names other outputs",
    _fixed_batch: "pixel_values is float32 of shape",
    _fixed_inside: "shortcut is float32 of shape",
    _variable: "pad_1 has is_variable",
    _outside: "classifier.1.weight lies at an offset",
    _wrong_size: "classifier.1.bias has 40 bytes, not those of its shape",
    _flipped: "layer.1.folded_weight differs from the fold recomputed in float64 in 1 of",
}


@pytest.mark.parametrize("plant", FAULTS, ids=[fault.__name__[1:] for fault in FAULTS])
def test_a_fault_is_found_and_named(
    folders: dict[str, ConvertedFolder], tmp_path: Path, plant: Callable[[Opened], None]
) -> None:
    folder = folders["Y"]
    file = Opened(folder.path / "model.tflite")
    plant(file)
    found = certify(folder, "litert", file.saved(tmp_path / "model.tflite"))
    assert any(re.search(FAULTS[plant], clause) for clause in found.wrong), found.wrong


@pytest.mark.parametrize("name", NAMES)
def test_a_file_that_another_writer_laid_out_is_proven(
    folders: dict[str, ConvertedFolder], tmp_path: Path, name: str
) -> None:
    folder = folders[name]
    again = Opened(folder.path / "model.tflite").saved(tmp_path / "model.tflite")
    assert again.read_bytes() != (folder.path / "model.tflite").read_bytes()
    for path in (folder.path / "model.tflite", again):
        found = certify(folder, "litert", path)
        assert (found.wrong, found.graph_compared) == ((), True)
        assert found.identical + found.recomputed > len(folder.config.depths)
        assert is_ours(folder, "litert", path)


CONSTANTS = {
    "group norm": ("epsilon", "axes_3", "times_8", "shape_1_2_8"),
    "X, selu": ("selu", "selu_slope", "zero"),
    "V, averaged shortcut": ("zeros_16",),
}


@pytest.mark.parametrize(
    ("name", "constant"), [(name, each) for name, names in CONSTANTS.items() for each in names]
)
def test_every_number_in_the_graph_counts(
    folders: dict[str, ConvertedFolder], tmp_path: Path, name: str, constant: str
) -> None:
    folder = folders[name]
    file = Opened(folder.path / "model.tflite")
    assert constant in file.tensors, sorted(n for n in file.tensors if "." not in n)
    file.data(constant, "u1")[2] ^= 64
    found = certify(folder, "litert", file.saved(tmp_path / "model.tflite"))
    assert found.wrong
    assert "is other than it should be" in found.wrong[0]


def test_an_average_over_other_pixels_is_found(
    folders: dict[str, ConvertedFolder], tmp_path: Path
) -> None:
    folder = folders["V, averaged shortcut"]
    for option in ("padding", "strideH", "filterWidth"):
        file = Opened(folder.path / "model.tflite")
        options = file.first(AVERAGE_POOL).builtinOptions
        setattr(options, option, getattr(options, option) + 1)
        found = certify(folder, "litert", file.saved(tmp_path / "model.tflite"))
        assert "where" in (found.failure or ""), option


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "cannot be read"),
        (b"\x1c\0\0\0TFL3", "it ends at byte 8, where 32 are needed"),
        (b"\x08\0\0\0TFL3" + b"\xff" * 64, "are needed"),
        (b"PK\x03\x04" + bytes(60), "no flatbuffer of the kind TFL3"),
    ],
)
def test_what_is_no_network_is_refused_in_a_clause(
    folders: dict[str, ConvertedFolder], tmp_path: Path, content: bytes, why: str
) -> None:
    path = tmp_path / "model.tflite"
    path.write_bytes(content)
    (clause,) = certify(folders["Y"], "litert", path).wrong
    assert clause.startswith("its tensors cannot be read (")
    assert why in clause


def test_no_byte_of_the_structure_leads_elsewhere_than_to_a_clause(
    folders: dict[str, ConvertedFolder], tmp_path: Path
) -> None:
    folder = folders["Y"]
    content = (folder.path / "model.tflite").read_bytes()
    first = schema.Model.GetRootAs(content, 0).Buffers(1)._tab
    head = first.Vector(first.Offset(4))
    random = np.random.default_rng(0)
    path = tmp_path / "model.tflite"
    unseen = 0
    for at in random.integers(0, head, 60):
        changed = bytearray(content)
        changed[at] ^= 1 << int(random.integers(8))
        path.write_bytes(changed)
        unseen += not certify(folder, "litert", path).wrong
    assert unseen < 30  # names of values, what pads, versions


def test_the_file_of_another_folder_fails(
    folders: dict[str, ConvertedFolder], tmp_path: Path
) -> None:
    path = tmp_path / "model.tflite"
    shutil.copy(folders["same padding"].path / "model.tflite", path)
    assert certify(folders["Y"], "litert", path).wrong


def test_weights_in_float16_are_proven_and_neither_file_is_taken_for_the_other(
    folders: dict[str, ConvertedFolder], tmp_path: Path
) -> None:
    for name in ("Y", "V, averaged shortcut"):
        folder = folders[name]
        half, single = tmp_path / "model_fp16.tflite", folder.path / "model.tflite"
        FORMATS["litert-fp16"].export(folder, half, ExportOptions())
        assert certify(folder, "litert-fp16", half).wrong == ()
        assert half.stat().st_size < single.stat().st_size
        assert "is float16 where float32 belongs" in certify(folder, "litert", half).wrong[0]
        assert "float16 belongs" in certify(folder, "litert-fp16", single).wrong[0]
        file = Opened(half)
        file.data("classifier.1.bias", "<u2")[3] ^= 1
        (wrong,) = certify(folder, "litert-fp16", file.saved(half)).wrong
        assert wrong.startswith("classifier.1.bias differs from the weights rounded")
