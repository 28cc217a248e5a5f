"""Faults in the program of a Core ML package, which coremltools' messages take apart."""

from __future__ import annotations

import importlib
import re
import struct
import sys
import tempfile
from functools import partial
from importlib.util import find_spec, module_from_spec, spec_from_file_location
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.mutation.graphs import other_configurations
from benchmarks.mutation.mutant import Mutant, spread
from converters.folder.folder import ConvertedFolder
from converters.formats.coreml.formats import MANIFEST, MODEL, WEIGHTS
from converters.formats.coreml.mil import program
from converters.formats.coreml.package import export_coreml, manifest
from converters.formats.coreml.reading import _fields
from converters.formats.coreml.wire import entries, message
from converters.formats.format import ExportOptions
from converters.formats.onnx.form import FOLDED_BIAS, FOLDED_WEIGHT
from regnet.architecture import PIXELS, Conv, folded

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import ModuleType

    from numpy.typing import NDArray

    from benchmarks.mutation.artefact import Artefact

    Array = NDArray[Any]
    Fault = Callable[["CoreMlArtefact", Any], None]

_BLOB = struct.Struct("<IIQQ")
"""A mark, the type, the size and where the elements begin (``StorageFormat.hpp``)."""

_HALF = 1
_FLOAT16, _FLOAT32 = 10, 11
"""Types, of a tensor in the file and of a value in the program."""

_PACKAGE = "coreml_messages"


def _messages() -> ModuleType:
    """The ``Model_pb2`` of coremltools, without the rest of it, which takes seconds to import."""
    if _PACKAGE not in sys.modules:
        library = find_spec("coremltools")
        if library is None or library.origin is None:
            raise ModuleNotFoundError("coremltools is not installed.")
        place = Path(library.origin).parent / "proto"
        found = spec_from_file_location(
            _PACKAGE, place / "__init__.py", submodule_search_locations=[str(place)]
        )
        if found is None:
            raise ModuleNotFoundError(f"{place} holds no messages.")
        sys.modules[_PACKAGE] = module_from_spec(found)
    return importlib.import_module(f"{_PACKAGE}.Model_pb2")


class CoreMlArtefact:
    """A package.

    Args:
        path: The package.
        folder: Whose network it is.

    Attributes:
        model: To be changed in place: ``Model`` of coremltools.
        weights: The file of the weights, likewise.
    """

    def __init__(self, path: Path, folder: ConvertedFolder) -> None:
        content = (path / MODEL).read_bytes()
        self.model = _messages().Model.FromString(content)
        (self._description,) = _fields(memoryview(content))[2]
        self.weights = bytearray((path / WEIGHTS).read_bytes())
        self._names = {name.replace(".", "_"): name for name in _names(folder)}

    @property
    def block(self) -> Any:
        """The operations and outputs of the one function."""
        (function,) = self.model.mlProgram.functions.values()
        (block,) = function.block_specializations.values()
        return block

    def operation(self, name: str) -> Any:
        """What makes a value."""
        return next(each for each in self.block.operations if each.outputs[0].name == name)

    def names(self) -> list[str]:
        """Names of the weights."""
        made = (each.outputs[0].name for each in self.block.operations if each.type == "const")
        return [self._names[name] for name in made if name in self._names]

    def array(self, name: str) -> Array:
        """A weight, with the axes that torch has."""
        _, _, size, begin = _BLOB.unpack_from(self.weights, self._place(name).offset)
        shape = [each.constant.size for each in self._type(name).dimensions]
        if shape[:1] == [1] and shape[2:] == [1, 1] and ".normalization." in name:
            shape = shape[1:2]
        array: Array = np.frombuffer(bytes(self.weights[begin : begin + size]), "<f4")
        return array.reshape(shape)

    def replace(self, name: str, array: Array) -> None:
        """Change a weight."""
        begin = _BLOB.unpack_from(self.weights, self._place(name).offset)[3]
        data = np.ascontiguousarray(array, np.float32).tobytes()
        self.weights[begin : begin + len(data)] = data

    def save(self, path: Path) -> None:
        """Write the package, whose list of files says what is in it."""
        content = self._content()
        for place, data in (
            (MODEL, content),
            (WEIGHTS, self.weights),
            (MANIFEST, manifest(content).encode()),
        ):
            (path / place).parent.mkdir(parents=True, exist_ok=True)
            (path / place).write_bytes(data)

    def _content(self) -> bytes:
        """The model as it is written, whose maps are sorted; protobuf's sort otherwise."""
        (function,) = self.model.mlProgram.functions.values()
        operations = [
            message(
                (1, each.type),
                *entries(2, _serialised(each.inputs)),
                (3, each.outputs[0].SerializeToString()),
                *entries(5, _serialised(each.attributes)),
            )
            for each in self.block.operations
        ]
        inputs = [given.SerializeToString() for given in function.inputs]
        written = program(inputs, operations, list(self.block.outputs))
        version = self.model.specificationVersion
        return message((1, version), (2, bytes(self._description)), (502, written))

    def in_half(self, name: str) -> None:
        """Store a weight as float16, and say so in the file alone."""
        place = self._place(name).offset
        mark, _, _, begin = _BLOB.unpack_from(self.weights, place)
        data = self.array(name).astype("<f2").tobytes()
        self.weights[begin : begin + len(data)] = data
        _BLOB.pack_into(self.weights, place, mark, _HALF, len(data), begin)

    def exchange(self, one: str, other: str) -> None:
        """Let two weights lie where the other one does."""
        first, second = self._place(one), self._place(other)
        first.offset, second.offset = second.offset, first.offset

    def constant(self, operation: Any, key: str) -> Any:
        """The message of a constant that an operation reads."""
        name = operation.inputs[key].arguments[0].name
        return self.operation(name).attributes["val"].immediateValue.tensor

    def add_constant(self, operation: Any, key: str, number: float) -> None:
        """Let an operation read a number of its own."""
        like = next(each for each in self.block.operations if each.type == "const")
        new = type(like)()
        new.CopyFrom(like)
        name = f"{operation.outputs[0].name}_{key}"
        new.outputs[0].name = name
        kind = new.outputs[0].type.tensorType
        kind.dataType, kind.rank = _FLOAT32, 0
        del kind.dimensions[:]
        value = new.attributes["val"]
        value.type.tensorType.CopyFrom(kind)
        value.immediateValue.tensor.floats.values.append(number)
        new.attributes["name"].immediateValue.tensor.strings.values[0] = name
        self.insert(new, operation)
        reads(operation, key, name)

    def insert(self, new: Any, before: Any) -> None:
        """Put an operation before another."""
        place = [each.outputs[0].name for each in self.block.operations].index(
            before.outputs[0].name
        )
        self.block.operations.insert(place, new)

    def like(self, operation: Any, name: str, kind: str, **inputs: str) -> Any:
        """An operation that makes another value of the same type."""
        new = type(operation)()
        new.CopyFrom(operation)
        new.type = kind
        new.outputs[0].name = name
        new.attributes["name"].immediateValue.tensor.strings.values[0] = name
        new.inputs.clear()
        for key, read in inputs.items():
            reads(new, key, read)
        return new

    def bypass(self, operation: Any, key: str = "x") -> None:
        """Let all who read an operation's value read what it reads instead."""
        made, read = operation.outputs[0].name, operation.inputs[key].arguments[0].name
        for each in self.block.operations:
            for argument in each.inputs.values():
                for binding in argument.arguments:
                    if binding.name == made:
                        binding.name = read

    def _place(self, name: str) -> Any:
        return self.operation(name.replace(".", "_")).attributes["val"].blobFileValue

    def _type(self, name: str) -> Any:
        return self.operation(name.replace(".", "_")).outputs[0].type.tensorType


def _serialised(messages: Any) -> dict[str, bytes]:
    return {key: each.SerializeToString() for key, each in messages.items()}


def reads(operation: Any, key: str, name: str) -> None:
    """Let an operation read another value."""
    arguments = operation.inputs[key].arguments
    if not arguments:
        arguments.add()
    arguments[0].name = name


def _names(folder: ConvertedFolder) -> Iterator[str]:
    for operation in folded(folder.architecture.operations):
        if isinstance(operation, Conv) and operation.norm:
            yield from (operation.around + FOLDED_WEIGHT, operation.around + FOLDED_BIAS)
        else:
            yield from (slot.name for slot in operation.slots)


def _sets(artefact: CoreMlArtefact, operation: Any, **constants: Any) -> None:
    """Other constants."""
    for key, value in constants.items():
        tensor = artefact.constant(operation, key)
        field = getattr(tensor, tensor.WhichOneof("value"))
        field.values[:] = value if isinstance(value, list) else [value]


def _becomes(artefact: CoreMlArtefact, operation: Any, kind: str, **numbers: float) -> None:
    """Another operation of the same values, with numbers of its own."""
    operation.type = kind
    for key, number in numbers.items():
        artefact.add_constant(operation, key, number)


def _bypassed(artefact: CoreMlArtefact, operation: Any, key: str = "x") -> None:
    artefact.bypass(operation, key)


def _stride_one(artefact: CoreMlArtefact, operation: Any) -> None:
    """In a 3x3 convolution, and in the shortcut beside it, so that the shapes fit."""
    name = operation.outputs[0].name
    shortcut = f"{name.rpartition('_layer_')[0]}_shortcut_convolution"
    for each in artefact.block.operations:
        if each.outputs[0].name in {name, shortcut}:
            _sets(artefact, each, strides=[1, 1])


def _one_more(artefact: CoreMlArtefact, operation: Any) -> None:
    values = artefact.constant(operation, "groups").ints.values
    values[0] += 1


def _second_twice(_: CoreMlArtefact, operation: Any) -> None:
    reads(operation, "x", operation.inputs["y"].arguments[0].name)


def _from_block_before(artefact: CoreMlArtefact, operation: Any) -> None:
    """A shortcut that begins a block too early, where that has one."""
    stage, number, _ = operation.outputs[0].name.rsplit("_", 2)
    name = f"{stage}_{int(number) - 1}_add"
    for each in artefact.block.operations:
        if each.outputs[0].name == name:
            reads(operation, "y", each.inputs["y"].arguments[0].name)


def _before_activation(artefact: CoreMlArtefact, operation: Any) -> None:
    """A shortcut from the sum of the block before, not from its activation, if it has one."""
    name = operation.inputs["y"].arguments[0].name.removesuffix("activation") + "add"
    others = [each.outputs[0].name for each in artefact.block.operations if each != operation]
    if name in others:
        reads(operation, "y", name)


def _rescaled(artefact: CoreMlArtefact, operation: Any, number: float) -> None:
    """Behind an operation, which makes an output, a product with a number."""
    made = operation.outputs[0].name
    new = artefact.like(operation, made, "mul", x=f"{made}_before")
    operation.outputs[0].name = f"{made}_before"
    artefact.block.operations.append(new)
    artefact.add_constant(artefact.block.operations[-1], "y", number)


def _pixels_rescaled(artefact: CoreMlArtefact, operation: Any) -> None:
    """Before the first convolution, as if the caller gave bytes."""
    relu = next(each for each in artefact.block.operations if each.type in {"relu", "silu", "conv"})
    new = artefact.like(relu, "pixels_rescaled", "mul", x=PIXELS)
    (given,) = next(iter(artefact.model.mlProgram.functions.values())).inputs
    new.outputs[0].type.CopyFrom(given.type)
    artefact.insert(new, operation)
    artefact.add_constant(artefact.operation("pixels_rescaled"), "y", 1 / 255)
    reads(operation, "x", "pixels_rescaled")


def _through_half(artefact: CoreMlArtefact, operation: Any) -> None:
    """What an operation reads goes through float16."""
    read = operation.inputs["x"].arguments[0].name
    made = next(each for each in artefact.block.operations if each.outputs[0].name == read)
    for name, element, text in (("half", _FLOAT16, "fp16"), ("whole", _FLOAT32, "fp32")):
        new = artefact.like(made, f"{operation.outputs[0].name}_{name}", "cast", x=read)
        new.outputs[0].type.tensorType.dataType = element
        artefact.insert(new, operation)
        _say(artefact, artefact.operation(new.outputs[0].name), "dtype", text)
        read = new.outputs[0].name
    reads(operation, "x", read)


def _say(artefact: CoreMlArtefact, operation: Any, key: str, text: str) -> None:
    """A text that an operation reads, as the constant of a padding's type is one."""
    like = next(
        each for each in artefact.block.operations if each.outputs[0].name.endswith("_pad_type")
    )
    name = f"{operation.outputs[0].name}_{key}"
    new = type(like)()
    new.CopyFrom(like)
    new.outputs[0].name = name
    new.attributes["name"].immediateValue.tensor.strings.values[0] = name
    new.attributes["val"].immediateValue.tensor.strings.values[0] = text
    artefact.insert(new, operation)
    reads(operation, key, name)


def _in_half(artefact: CoreMlArtefact, operation: Any) -> None:
    artefact.in_half(_weight_of(artefact, operation))


def _weight_of(artefact: CoreMlArtefact, operation: Any) -> str:
    name = operation.inputs["weight"].arguments[0].name
    return next(each for each in artefact.names() if each.replace(".", "_") == name)


def _weights_exchanged(artefact: CoreMlArtefact, operation: Any) -> None:
    """With those of the next layer of the same shape, if there is one."""
    own = _weight_of(artefact, operation)
    names, shape = artefact.names(), artefact.array(own).shape
    others = names[names.index(own) + 1 :]
    for other in [each for each in others if artefact.array(each).shape == shape][:1]:
        artefact.exchange(own, other)


def _bias_of_another(artefact: CoreMlArtefact, operation: Any) -> None:
    """Of the next layer of as many channels, where both have some."""
    if "bias" not in operation.inputs:
        return
    made = operation.outputs[0].type.tensorType.dimensions[1]
    alike = [
        each
        for each in artefact.block.operations
        if each.type == "conv"
        and "bias" in each.inputs
        and each.outputs[0].type.tensorType.dimensions[1] == made
    ]
    place = [each.outputs[0].name for each in alike].index(operation.outputs[0].name)
    for other in alike[place + 1 : place + 2]:
        own = operation.inputs["bias"].arguments[0].name
        reads(operation, "bias", other.inputs["bias"].arguments[0].name)
        # It must be there before it is read.
        constant = artefact.operation(operation.inputs["bias"].arguments[0].name)
        copy = type(constant)()
        copy.CopyFrom(constant)
        artefact.block.operations.remove(constant)
        artefact.insert(copy, artefact.operation(own))


def _without_bias(_: CoreMlArtefact, operation: Any) -> None:
    operation.inputs.pop("bias", None)


def _renamed(artefact: CoreMlArtefact, names: dict[str, str]) -> None:
    """Outputs under other names."""
    block = artefact.block
    block.outputs[:] = [names.get(name, name) for name in block.outputs]
    for each in block.operations:
        each.outputs[0].name = names.get(each.outputs[0].name, each.outputs[0].name)
        for argument in each.inputs.values():
            for binding in argument.arguments:
                binding.name = names.get(binding.name, binding.name)


def _output_renamed(artefact: CoreMlArtefact, operation: Any) -> None:
    _renamed(artefact, {operation.outputs[0].name: "output"})


def _outputs_exchanged(artefact: CoreMlArtefact, _: Any) -> None:
    """Both outputs of a trunk under each other's name."""
    first, second = "last_hidden_state", "pooler_output"
    _renamed(artefact, {first: second, second: first})


def _one_size(artefact: CoreMlArtefact, _: Any) -> None:
    (given,) = next(iter(artefact.model.mlProgram.functions.values())).inputs
    for place, size in ((2, 64), (3, 64)):
        given.type.tensorType.dimensions[place].constant.size = size


_CONV = r"conv (.*layer_1|.*embedder)_convolution"
_ANY_CONV = r"conv .*_convolution"
_STRIDED = r"conv (.*layers_0_layer_1|.*embedder)_convolution"
_ACTIVATION = r"relu .*_activation"
_SUM = r"add .*_layers_\d+_add"
_LATER_SUM = r"add .*_layers_[1-9]\d*_add"
_GATE = r"sigmoid .*attention_3"
_SCALED = r"mul .*layer_2_mul"
_INPUT = r"conv .*embedder_convolution"
_POOLER = r"reduce_mean (regnet_)?pooler(_output)?"
_LAST = r"linear .*|reduce_mean pooler_output"
_WINDOWS = r"avg_pool .*"

OPERATION_FAULTS: dict[str, tuple[str, Fault]] = {
    "stride 1 for 2": (_STRIDED, _stride_one),
    "padding at the end": (_CONV, partial(_sets, pad=[0, 2, 0, 2])),
    "padding at the beginning": (_CONV, partial(_sets, pad=[2, 0, 2, 0])),
    "no padding": (_INPUT, partial(_sets, pad=[0, 0, 0, 0])),
    "no kind of padding": (_INPUT, partial(_sets, pad_type="valid")),
    "dilation 2": (_CONV, partial(_sets, dilations=[2, 2], pad=[2, 2, 2, 2])),
    "one group more": (_CONV, _one_more),
    "bias not taken": (_ANY_CONV, _without_bias),
    "bias of another layer": (_ANY_CONV, _bias_of_another),
    "two kernels in each other's place": (rf"{_ANY_CONV}|linear .*", _weights_exchanged),
    "kernel stored in float16": (rf"{_ANY_CONV}|linear .*", _in_half),
    "values rounded to float16": (r"conv .*layer_1_convolution", _through_half),
    "ReLU missing": (_ACTIVATION, _bypassed),
    "ELU for ReLU": (_ACTIVATION, partial(_becomes, kind="elu", alpha=1.0)),
    "SiLU for ReLU": (_ACTIVATION, partial(_becomes, kind="silu")),
    "an operation that nobody knows": (_ACTIVATION, partial(_becomes, kind="softsign")),
    "ReLU for the gate": (_GATE, partial(_becomes, kind="relu")),
    "squeeze without ReLU": (r"relu .*attention_1", _bypassed),
    "gate missing": (_SCALED, _bypassed),
    "gate alone": (_SCALED, partial(_bypassed, key="y")),
    "gate added": (_SCALED, partial(_becomes, kind="add")),
    "residual missing": (_SUM, _bypassed),
    "shortcut twice": (_SUM, _second_twice),
    "difference for sum": (_SUM, partial(_becomes, kind="sub")),
    "product for sum": (_SUM, partial(_becomes, kind="mul")),
    "shortcut from a block before": (_LATER_SUM, _from_block_before),
    "shortcut from before the activation": (_LATER_SUM, _before_activation),
    "mean of channels": (_POOLER, partial(_sets, axes=[1, 3])),
    "mean without its axes": (_POOLER, partial(_sets, keep_dims=False)),
    "input rescaled again": (_INPUT, _pixels_rescaled),
    "output negated": (_LAST, partial(_rescaled, number=-1.0)),
    "output halved": (_LAST, partial(_rescaled, number=0.5)),
    "output under another name": (_LAST, _output_renamed),
    "outputs exchanged": (r"reduce_mean pooler_output", _outputs_exchanged),
    "fixed size": (_INPUT, _one_size),
}
"""What is planted, and in which operations, by kind and name."""

WIDER_OPERATION_FAULTS: dict[str, tuple[str, Fault]] = {
    "a norm's epsilon 1.1e-5": (r"batch_norm .*", partial(_sets, epsilon=1.1e-5)),
    "a norm's epsilon 1.1e-3": (r"add .*_shifted", partial(_sets, y=1.1e-3)),
    "no ceiling in a mean of 2x2": (_WINDOWS, partial(_sets, ceil_mode=False)),
    "zeros counted in a mean of 2x2": (
        _WINDOWS,
        partial(_sets, exclude_padding_from_average=False),
    ),
    "pixels left out of an average": (_WINDOWS, partial(_sets, kernel_sizes=[2, 1])),
    "variance for deviation": (r"sqrt .*_deviation", _bypassed),
    "mean not subtracted": (r"sub .*_centred", _bypassed),
    "hard sigmoid in an EvoNorm": (
        r"sigmoid .*normalization_sigmoid",
        partial(_becomes, kind="relu"),
    ),
    "v lost": (r"mul .*_sloped", _bypassed),
    "a norm's weight lost": (r"mul .*normalization_scaled", _bypassed),
    "product for quotient": (r"real_div .*", partial(_becomes, kind="mul")),
    "groups in each other's place": (r"reshape .*_grouped", _bypassed),
}
"""Likewise in networks that transformers does not have."""


def coreml_mutants(
    artefact: CoreMlArtefact, folder: ConvertedFolder, count: int, random: np.random.Generator
) -> Iterator[Mutant]:
    """Every kind of fault in ``count`` places each, and the programs of other configurations."""
    for kind, (where, fault) in {**OPERATION_FAULTS, **WIDER_OPERATION_FAULTS}.items():
        names = [
            each.outputs[0].name
            for each in artefact.block.operations
            if re.fullmatch(where, f"{each.type} {each.outputs[0].name}")
        ]
        for name in spread(names, count, random):
            yield Mutant(kind, name, partial(_planted, name=name, fault=fault))
    for fields in other_configurations(folder):
        (kind,) = fields
        if fields.get("padding") != "same":  # for which sizes must be fixed
            plant = partial(_other_program, folder=folder, fields=fields)
            yield Mutant(f"another {kind}", str(fields[kind]), plant)


def _planted(artefact: Artefact, name: str, fault: Fault) -> None:
    if isinstance(artefact, CoreMlArtefact):
        fault(artefact, artefact.operation(name))


def _other_program(artefact: Artefact, folder: ConvertedFolder, fields: dict[str, Any]) -> None:
    """The program of another configuration, around the same weights."""
    other = ConvertedFolder(folder.path)
    for key, value in fields.items():
        setattr(other.config, key, value)
    if isinstance(artefact, CoreMlArtefact):
        with tempfile.TemporaryDirectory() as path:
            export_coreml(other, Path(path), ExportOptions(open_sizes=True))
            artefact.model = CoreMlArtefact(Path(path), other).model
