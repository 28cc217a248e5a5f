"""Faults in the layers of ncnn's ``.param`` and in its ``.bin``, and both files taken apart."""

from __future__ import annotations

import math
import re
import tempfile
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.mutation.graphs import other_configurations
from benchmarks.mutation.mutant import Mutant, spread
from converters.folder.folder import ConvertedFolder
from converters.formats.ncnn import export_ncnn
from converters.formats.onnx.form import FOLDED_BIAS, FOLDED_WEIGHT
from regnet.architecture import Conv, EvoNorm, Linear, Norm, folded

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

    from benchmarks.mutation.artefact import Artefact

    Array = NDArray[Any]
    Fault = Callable[["NcnnArtefact", "Layer"], None]
    Held = dict[str, tuple[bool, dict[str, tuple[int, ...]]]]

_HEAD = 2
"""Lines above the layers."""

_FLAG = bytes(4)
_HALF = (0x01306B47).to_bytes(4, "little")
"""What stands before a kernel in float32, and in float16 (ncnn's ``src/modelbin.cpp``)."""

_IMAGE_RANGE = ("-2.12", "2.64")


@dataclass
class Layer:
    """A line of the ``.param``, to be changed in place."""

    kind: str
    name: str
    inputs: list[str]
    outputs: list[str]
    settings: dict[str, str]

    @classmethod
    def of(cls, line: str) -> Layer:
        """Take a line apart."""
        kind, name, reads, makes, *words = line.split()
        end = int(reads), int(reads) + int(makes)
        settings = dict(word.split("=") for word in words[end[1] :])
        return cls(kind, name, words[: end[0]], words[end[0] : end[1]], settings)

    @property
    def line(self) -> str:
        """As ncnn reads it."""
        settings = (f"{key}={value}" for key, value in self.settings.items())
        counts = f"{len(self.inputs)} {len(self.outputs)}"
        return " ".join((self.kind, self.name, counts, *self.inputs, *self.outputs, *settings))


class NcnnArtefact:
    """A ``.param`` and the ``.bin`` beside it.

    Args:
        path: The ``.param``.
        folder: Whose network it is.

    Attributes:
        layers: To be changed in place.
        left_out: Names of tensors that are not written.
        in_half: Of kernels that are written as float16.
        after: What is written behind all weights.
    """

    def __init__(self, path: Path, folder: ConvertedFolder) -> None:
        self.layers = [Layer.of(line) for line in path.read_text().splitlines()[_HEAD:]]
        self.left_out: set[str] = set()
        self.in_half: set[str] = set()
        self.after = b""
        held = dict(_held(folder))
        self._flags: dict[str, bool] = {}
        self._arrays: dict[str, Array] = {}
        content, at = path.with_suffix(".bin").read_bytes(), 0
        for layer in self.layers:
            flagged, shapes = held.get(layer.name, (False, {}))
            at += len(_FLAG) * flagged
            for name, shape in shapes.items():
                count = math.prod(shape)
                self._arrays[name] = np.frombuffer(content, "<f4", count, at).reshape(shape)
                self._flags[name] = flagged and name == next(iter(shapes))
                at += 4 * count

    def names(self) -> list[str]:
        """Names of the weights."""
        return list(self._arrays)

    def array(self, name: str) -> Array:
        """A weight, with the axes that torch has."""
        return self._arrays[name]

    def replace(self, name: str, array: Array) -> None:
        """Change a weight."""
        self._arrays[name] = np.ascontiguousarray(array, np.float32)

    def save(self, path: Path) -> None:
        """Write both files."""
        values = sum(len(layer.outputs) for layer in self.layers)
        lines = ["7767517", f"{len(self.layers)} {values}", *(each.line for each in self.layers)]
        path.write_text("\n".join(lines) + "\n")
        path.with_suffix(".bin").write_bytes(b"".join(self._stored()) + self.after)

    def _stored(self) -> Iterator[bytes]:
        for name, array in self._arrays.items():
            if name in self.left_out:
                continue
            if name in self.in_half:
                data = array.astype("<f2").tobytes()
                yield _HALF + data + bytes(-len(data) % 4)
            else:
                yield _FLAG * self._flags[name] + array.tobytes()

    def layer(self, name: str) -> Layer:
        """The layer of a name."""
        return next(layer for layer in self.layers if layer.name == name)

    def before(self, layer: Layer, kind: str, **settings: str) -> None:
        """Insert a layer between another and what it reads first."""
        name = f"{layer.name}.{kind.lower()}{len(self.layers)}"
        new = Layer(kind, name, layer.inputs[:1], [name], _keyed(settings))
        self.layers.insert(self.layers.index(layer), new)
        layer.inputs[0] = name

    def copy_of(self, value: str) -> str:
        """Another name of a value for one more reader: ncnn lets one alone read each."""
        copy = f"{value}_copy{len(self.layers)}"
        split = next((each for each in self.layers if value in _split(each)), None)
        if split is None:
            maker = next(each for each in self.layers if value in each.outputs)
            split = Layer("Split", f"{value}_split", [value], [f"{value}_own"], {})
            for layer in self.layers:
                layer.inputs = [
                    split.outputs[0] if read == value else read for read in layer.inputs
                ]
            self.layers.insert(self.layers.index(maker) + 1, split)
        split.outputs.append(copy)
        return copy

    def tensors_of(self, layer: Layer) -> list[str]:
        """Names of what a layer takes from the ``.bin``."""
        own = layer.name.removesuffix(".convolution")
        return [name for name in self._arrays if name.rpartition(".")[0] in {own, layer.name}]


def _split(layer: Layer) -> list[str]:
    """Names of the one value that a layer copies; none if it does something else."""
    return [*layer.inputs, *layer.outputs] if layer.kind == "Split" else []


def _held(folder: ConvertedFolder) -> Iterator[tuple[str, tuple[bool, dict[str, Any]]]]:
    """By layer: whether a flag stands before its first tensor; name to shape of each."""
    for operation in folded(folder.architecture.operations):
        shapes = {slot.name: slot.shape for slot in operation.slots if not slot.is_counter}
        if isinstance(operation, Conv) and operation.norm:
            shape = operation.slots[0].shape
            names = operation.around + FOLDED_WEIGHT, operation.around + FOLDED_BIAS
            shapes = dict(zip(names, (shape, shape[:1]), strict=True))
        if isinstance(operation, Norm):
            weight, bias, *measured = shapes
            shapes = {name: shapes[name] for name in (weight, *measured, bias)}
        if isinstance(operation, EvoNorm) and len(shapes) > 2:  # noqa: PLR2004 -- v behind both
            (*_, slope) = shapes
            yield f"{operation.name}.sloped", (False, {slope: shapes.pop(slope)})
        yield operation.name, (isinstance(operation, Conv | Linear), shapes)


def _keyed(settings: dict[str, str]) -> dict[str, str]:
    """Keywords as ncnn's numbers of settings: ``_4`` is 4."""
    return {key.removeprefix("_"): value for key, value in settings.items()}


def _sets(_: NcnnArtefact, layer: Layer, **settings: str) -> None:
    layer.settings |= _keyed(settings)


def _becomes(_: NcnnArtefact, layer: Layer, kind: str, inputs: int = 1, **settings: str) -> None:
    layer.kind, layer.settings = kind, _keyed(settings)
    del layer.inputs[inputs:]


def _inserts(artefact: NcnnArtefact, layer: Layer, *kinds: tuple[str, dict[str, str]]) -> None:
    for kind, settings in kinds:
        artefact.before(layer, kind, **settings)


def _stride_one(artefact: NcnnArtefact, layer: Layer) -> None:
    """In a 3x3 convolution, and in the shortcut beside it, so that the shapes fit."""
    shortcut = f"{layer.name.rpartition('.layer.')[0]}.shortcut.convolution"
    for each in artefact.layers:
        if each.name in {layer.name, shortcut}:
            each.settings["3"] = "1"


def _twice_as_many(_: NcnnArtefact, layer: Layer, key: str) -> None:
    layer.settings[key] = str(2 * int(layer.settings[key]))


def _second_twice(artefact: NcnnArtefact, layer: Layer) -> None:
    layer.inputs[0] = artefact.copy_of(layer.inputs[1])


def _from_block_before(artefact: NcnnArtefact, layer: Layer) -> None:
    """A shortcut that begins a block too early, where that has one."""
    stage, number, _ = layer.name.rsplit(".", 2)
    name = f"{stage}.{int(number) - 1}.add"
    for earlier in [each for each in artefact.layers if each.name == name]:
        layer.inputs[1] = artefact.copy_of(earlier.inputs[1])


def _before_activation(artefact: NcnnArtefact, layer: Layer) -> None:
    """A shortcut from the sum of the block before, not from its activation, if it has one."""
    name = re.sub(r"activation_splitncnn_\d+$", "add", layer.inputs[1])
    if any(each.name == name for each in artefact.layers if each is not layer):
        layer.inputs[1] = artefact.copy_of(name)


def _exchanged(artefact: NcnnArtefact, layer: Layer) -> None:
    """The lines of a shortcut and of the convolution behind it: each takes the other's weights."""
    place = artefact.layers.index(layer)
    artefact.layers[place : place + 2] = artefact.layers[place : place + 2][::-1]


def _without_bias(artefact: NcnnArtefact, layer: Layer) -> None:
    layer.settings["1" if layer.kind in {"InnerProduct", "Scale"} else "5"] = "0"
    artefact.left_out.add(artefact.tensors_of(layer)[-1])


def _without_scale(artefact: NcnnArtefact, layer: Layer) -> None:
    artefact.left_out.update(artefact.tensors_of(layer))
    _becomes(artefact, layer, "Noop")


def _shifted(_: NcnnArtefact, layer: Layer) -> None:
    """The bias is in the file, and not taken from it: all that follows is read too early."""
    layer.settings["5"] = "0"


def _in_half(artefact: NcnnArtefact, layer: Layer) -> None:
    artefact.in_half.add(artefact.tensors_of(layer)[0])


def _renamed(artefact: NcnnArtefact, names: dict[str, str]) -> None:
    """Outputs under other names."""
    for each in artefact.layers:
        each.inputs = [names.get(value, value) for value in each.inputs]
        each.outputs = [names.get(value, value) for value in each.outputs]


def _output_renamed(artefact: NcnnArtefact, layer: Layer) -> None:
    _renamed(artefact, {layer.outputs[0]: "output"})


def _outputs_exchanged(artefact: NcnnArtefact, _: Layer) -> None:
    """Both outputs of a trunk under each other's name."""
    first, second = "last_hidden_state", "pooler_output"
    _renamed(artefact, {first: second, second: first})


def _appended(artefact: NcnnArtefact, layer: Layer, kind: str, **settings: str) -> None:
    (output,) = layer.outputs
    layer.outputs = [f"{output}.before"]
    new = Layer(kind, f"{output}.after", layer.outputs, [output], _keyed(settings))
    artefact.layers.append(new)


_ANY_CONV = r"Convolution(DepthWise)? .*"
_CONV = r"Convolution(DepthWise)? (.*layer\.1|.*embedder)\.convolution"
_STRIDED = r"Convolution(DepthWise)? (.*layers\.0\.layer\.1|.*embedder)\.convolution"
_ACTIVATION = r"ReLU .*\.activation"
_SUM = r"BinaryOp .*\.layers\.\d+\.add"
_LATER_SUM = r"BinaryOp .*\.layers\.[1-9]\d*\.add"
_GATE = r"Sigmoid .*attention\.3"
_SCALED = r"BinaryOp .*layer\.2\.mul"
_INPUT = r"Convolution .*embedder\.convolution"
_OUTPUT = r"InnerProduct classifier.*"
_LAST = rf"{_OUTPUT}|Pooling pooler"
_POOLER = r"Pooling (regnet\.)?pooler"
_WINDOWS = r"Pooling .*shortcut\.pooler"

LAYER_FAULTS: dict[str, tuple[str, Fault]] = {
    "stride 1 for 2": (_STRIDED, _stride_one),
    "padding at the end": (_CONV, partial(_sets, _4="0", _14="0", _15="2", _16="2")),
    "padding at the beginning": (_CONV, partial(_sets, _4="2", _14="2", _15="0", _16="0")),
    "TensorFlow's SAME padding": (_STRIDED, partial(_sets, _4="-233")),
    "no padding": (_INPUT, partial(_sets, _4="0")),
    "padding of ones": (_CONV, partial(_sets, _18="1.0")),
    "dilation 2": (_CONV, partial(_sets, _2="2", _4="2")),
    "one pixel for a kernel": (_INPUT, partial(_sets, _1="1", _4="0")),
    "twice as many groups": (r"ConvolutionDepthWise .*", partial(_twice_as_many, key="7")),
    "ReLU part of a convolution": (_ANY_CONV, partial(_sets, _9="1")),
    "ReLU missing": (_ACTIVATION, partial(_becomes, kind="Noop")),
    "ReLU6 for ReLU": (_ACTIVATION, partial(_becomes, kind="Clip", _0="0.0", _1="6.0")),
    "ReLU clipped at float16's largest": (
        _ACTIVATION,
        partial(_becomes, kind="Clip", _0="0.0", _1="65504.0"),
    ),
    "LeakyReLU for ReLU": (_ACTIVATION, partial(_sets, _0="0.01")),
    "ELU for ReLU": (_ACTIVATION, partial(_becomes, kind="ELU", _0="1.0")),
    "hard sigmoid for the gate": (
        _GATE,
        partial(_becomes, kind="HardSigmoid", _0="0.2", _1="0.5"),
    ),
    "tanh for the gate": (_GATE, partial(_becomes, kind="TanH")),
    "squeeze without ReLU": (r"ReLU .*attention\.1", partial(_becomes, kind="Noop")),
    "largest value squeezed": (r"Pooling .*layer\.2\.pooler", partial(_sets, _0="0")),
    "gate missing": (_SCALED, partial(_becomes, kind="Noop")),
    "gate added": (_SCALED, partial(_sets, _0="0")),
    "residual missing": (_SUM, partial(_becomes, kind="Noop")),
    "shortcut twice": (_SUM, _second_twice),
    "difference for sum": (_SUM, partial(_sets, _0="1")),
    "larger for sum": (_SUM, partial(_sets, _0="4")),
    "shortcut from a block before": (_LATER_SUM, _from_block_before),
    "shortcut from before the activation": (_LATER_SUM, _before_activation),
    "largest value for the mean": (_POOLER, partial(_sets, _0="0")),
    "not flat": (r"Flatten .*", partial(_becomes, kind="Noop")),
    "values rounded to float16": (
        _CONV,
        lambda artefact, layer: _inserts(
            artefact, layer, ("Cast", {"_0": "1", "_1": "2"}), ("Cast", {"_0": "2", "_1": "1"})
        ),
    ),
    "height and width exchanged": (
        _INPUT,
        lambda artefact, layer: _inserts(artefact, layer, ("Permute", {"_0": "1"})),
    ),
    "input clipped": (
        _INPUT,
        lambda artefact, layer: _inserts(
            artefact, layer, ("Clip", dict(zip(("_0", "_1"), _IMAGE_RANGE, strict=True)))
        ),
    ),
    "input rescaled again": (
        _INPUT,
        lambda artefact, layer: _inserts(
            artefact, layer, ("BinaryOp", {"_0": "2", "_1": "1", "_2": "0.003921569"})
        ),
    ),
    "softmax added": (_LAST, partial(_appended, kind="Softmax", _0="0")),
    "output negated": (_LAST, partial(_appended, kind="UnaryOp", _0="1")),
    "output under another name": (_LAST, _output_renamed),
    "outputs exchanged": (r"Pooling pooler", _outputs_exchanged),
    "bias not taken": (_ANY_CONV, _without_bias),
    "classifier bias not taken": (_OUTPUT, _without_bias),
    "bias left in the way": (_ANY_CONV, _shifted),
    "two layers in each other's place": (r"Convolution .*shortcut\.convolution", _exchanged),
    "kernel stored in float16": (rf"{_ANY_CONV}|{_OUTPUT}", _in_half),
}
"""What is planted, and in which layers, by kind and name."""

WIDER_LAYER_FAULTS: dict[str, tuple[str, Fault]] = {
    "a norm's epsilon 1.1e-5": (r"BatchNorm .*", partial(_sets, _1="1.1e-05")),
    "a norm's epsilon 1.1e-3": (r"BinaryOp .*\.shifted", partial(_sets, _2="0.0011")),
    "no ceiling in a mean of 2x2": (r"Padding .*", partial(_becomes, kind="Noop")),
    "zeros counted in a mean of 2x2": (r"Padding .*", partial(_sets, _4="0")),
    "largest of 2x2 for the mean": (_WINDOWS, partial(_sets, _0="0")),
    "variance for deviation": (r"UnaryOp .*\.deviation", partial(_becomes, kind="Noop")),
    "not squared": (r"UnaryOp .*\.square", partial(_becomes, kind="Noop")),
    "mean not subtracted": (r"BinaryOp .*\.centred", partial(_becomes, kind="Noop")),
    "largest value for a group's mean": (r"Pooling .*\.mean\.groups", partial(_sets, _0="0")),
    "hard sigmoid in an EvoNorm": (
        r"Sigmoid .*normalization\.sigmoid",
        partial(_becomes, kind="HardSigmoid", _0="0.2", _1="0.5"),
    ),
    "v lost": (r"Scale .*\.sloped", _without_scale),
    "a norm's bias not taken": (r"Scale .*\.normalization", _without_bias),
    "groups in each other's place": (r"Tile .*", partial(_sets, _0="0")),
}
"""Likewise in networks that transformers does not have."""


def ncnn_mutants(
    artefact: NcnnArtefact, folder: ConvertedFolder, count: int, random: np.random.Generator
) -> Iterator[Mutant]:
    """Every kind of fault in ``count`` places each, and the layers of other configurations."""
    for kind, (where, fault) in {**LAYER_FAULTS, **WIDER_LAYER_FAULTS}.items():
        names = [
            each.name for each in artefact.layers if re.fullmatch(where, f"{each.kind} {each.name}")
        ]
        for name in spread(names, count, random):
            yield Mutant(kind, name, partial(_planted, name=name, fault=fault))
    yield Mutant("numbers behind the weights", "everywhere", _longer)
    for fields in other_configurations(folder):
        (kind,) = fields
        plant = partial(_other_layers, folder=folder, fields=fields)
        yield Mutant(f"another {kind}", str(fields[kind]), plant)


def _planted(artefact: Artefact, name: str, fault: Fault) -> None:
    if isinstance(artefact, NcnnArtefact):
        fault(artefact, artefact.layer(name))


def _longer(artefact: Artefact) -> None:
    if isinstance(artefact, NcnnArtefact):
        artefact.after = bytes(4)


def _other_layers(artefact: Artefact, folder: ConvertedFolder, fields: dict[str, Any]) -> None:
    """The layers of another configuration, around the same weights."""
    other = ConvertedFolder(folder.path)
    for key, value in fields.items():
        setattr(other.config, key, value)
    if isinstance(artefact, NcnnArtefact):
        with tempfile.TemporaryDirectory() as path:
            file = Path(path) / "model.param"
            export_ncnn(other, file)
            artefact.layers = NcnnArtefact(file, other).layers
