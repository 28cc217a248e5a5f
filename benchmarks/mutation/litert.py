"""Faults in the operators of a ``.tflite`` file, and such a file taken apart by LiteRT's schema."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any
from zipfile import ZipFile, ZipInfo, is_zipfile

import numpy as np

from benchmarks.mutation.mutant import Mutant, spread

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from numpy.typing import NDArray

    from benchmarks.mutation.artefact import Artefact
    from converters.folder.folder import ConvertedFolder

    Array = NDArray[Any]
    Fault = Callable[["LiteRtArtefact", Any], None]

_ADD, _AVERAGE_POOL, _CONV, _LOGISTIC, _MUL, _PAD, _MEAN = 0, 1, 3, 14, 18, 34, 40
_TANH, _SUB = 28, 41
_ADD_OPTIONS = 11
_RELU, _RELU6 = 1, 3
_CHANNELS_FIRST, _CHANNELS_LAST = (0, 3, 1, 2), (0, 2, 3, 1)
_KERNEL_AXES = 4


class LiteRtArtefact:
    """A ``.tflite`` file.

    Args:
        path: The file.

    Attributes:
        model: To be changed in place: ``ModelT`` of LiteRT's schema.
        graph: Its one network, ``SubGraphT``.
    """

    def __init__(self, path: Path, _: ConvertedFolder) -> None:
        from ai_edge_litert import schema_py_generated as schema

        self.model = schema.ModelT.InitFromPackedBuf(path.read_bytes(), 0)
        (self.graph,) = self.model.subgraphs
        self._files: dict[str, bytes] = {}
        if is_zipfile(path):  # behind the network, of one with classes
            with ZipFile(path) as archive:
                self._files = {name: archive.read(name) for name in archive.namelist()}
        self._tensors = {tensor.name.decode(): tensor for tensor in self.graph.tensors}

    def names(self) -> list[str]:
        """Names of the weights."""
        return [name for name, tensor in self._tensors.items() if tensor.buffer and "." in name]

    def array(self, name: str) -> Array:
        """A weight, with the axes that torch has."""
        tensor = self._tensors[name]
        data = np.asarray(self.model.buffers[tensor.buffer].data, np.uint8)
        array: Array = data.view(np.float32).reshape(tensor.shape)
        return array.transpose(_CHANNELS_FIRST) if array.ndim == _KERNEL_AXES else array

    def replace(self, name: str, array: Array) -> None:
        """Change a weight."""
        if array.ndim == _KERNEL_AXES:
            array = array.transpose(_CHANNELS_LAST)
        data = np.ascontiguousarray(array, np.float32).reshape(-1).view(np.uint8)
        self.model.buffers[self._tensors[name].buffer].data = data

    def save(self, path: Path) -> None:
        """Write the file."""
        import flatbuffers

        builder = flatbuffers.Builder()
        builder.Finish(self.model.Pack(builder), b"TFL3")
        path.write_bytes(bytes(builder.Output()))
        for name, data in self._files.items():
            with ZipFile(path, "a") as archive:
                archive.writestr(ZipInfo(name), data)  # not dated now: what is equal must stay so

    def code(self, operator: Any) -> int:
        """Of which kind an operator is."""
        return int(self.model.operatorCodes[operator.opcodeIndex].builtinCode)

    def becomes(self, operator: Any, code: int) -> None:
        """Make an operator one of another kind."""
        from ai_edge_litert import schema_py_generated as schema

        kind = schema.OperatorCodeT()
        kind.builtinCode = kind.deprecatedBuiltinCode = code
        self.model.operatorCodes.append(kind)
        operator.opcodeIndex = len(self.model.operatorCodes) - 1

    def name(self, operator: Any) -> str:
        """Of the value that an operator makes."""
        return str(self.graph.tensors[operator.outputs[0]].name.decode())

    def constant(self, operator: Any, position: int) -> Array:
        """An operator's own copy of a constant of integers, to be changed."""
        from ai_edge_litert import schema_py_generated as schema

        tensor, buffer = schema.TensorT(), schema.BufferT()
        shared = self.graph.tensors[operator.inputs[position]]
        vars(tensor).update(vars(shared))
        data = np.array(self.model.buffers[shared.buffer].data, np.uint8)
        buffer.data, tensor.buffer = data, len(self.model.buffers)
        self.model.buffers.append(buffer)
        inputs = [*operator.inputs]
        inputs[position] = len(self.graph.tensors)
        operator.inputs = inputs
        self.graph.tensors.append(tensor)
        return data.view(np.int32)


def _sets(_: LiteRtArtefact, operator: Any, **options: int) -> None:
    for name, value in options.items():
        setattr(operator.builtinOptions, name, value)


def _other_padding(_: LiteRtArtefact, operator: Any) -> None:
    operator.builtinOptions.padding = 1 - operator.builtinOptions.padding


def _zeros_after(artefact: LiteRtArtefact, operator: Any) -> None:
    artefact.constant(operator, 1)[2:6] = [0, 2, 0, 2]


def _mean_of(artefact: LiteRtArtefact, operator: Any, axes: tuple[int, int]) -> None:
    artefact.constant(operator, 1)[:] = axes


def _sum(artefact: LiteRtArtefact, operator: Any) -> None:
    from ai_edge_litert import schema_py_generated as schema

    artefact.becomes(operator, _ADD)
    operator.builtinOptionsType, operator.builtinOptions = _ADD_OPTIONS, schema.AddOptionsT()


def _tanh(artefact: LiteRtArtefact, operator: Any) -> None:
    artefact.becomes(operator, _TANH)


def _difference(artefact: LiteRtArtefact, operator: Any) -> None:
    from ai_edge_litert import schema_py_generated as schema

    options = schema.SubOptionsT()
    options.fusedActivationFunction = operator.builtinOptions.fusedActivationFunction
    artefact.becomes(operator, _SUB)
    operator.builtinOptionsType, operator.builtinOptions = 28, options


def _first_twice(_: LiteRtArtefact, operator: Any) -> None:
    operator.inputs = [operator.inputs[0], operator.inputs[0]]


def _any(_: LiteRtArtefact, __: Any) -> bool:
    return True


def _has_relu(_: LiteRtArtefact, operator: Any) -> bool:
    return bool(operator.builtinOptions.fusedActivationFunction == _RELU)


def _is_padded(artefact: LiteRtArtefact, operator: Any) -> bool:
    """Whether zeros come before it: in a 1x1 convolution SAME is VALID, and no dilation shows."""
    return bool(artefact.graph.tensors[operator.inputs[0]].name.endswith(b".padded"))


def _is_of_pixels(artefact: LiteRtArtefact, operator: Any) -> bool:
    """Whether it is a mean of an image, and not of the channels of a group."""
    return bool(artefact.graph.tensors[operator.inputs[1]].shape[0] > 1)


OPERATOR_FAULTS: dict[str, tuple[int, Callable[[LiteRtArtefact, Any], bool], Fault]] = {
    "padding on the other side": (_PAD, _any, _zeros_after),
    "SAME for VALID": (_CONV, _is_padded, _other_padding),
    "dilated": (_CONV, _is_padded, partial(_sets, dilationWFactor=2, dilationHFactor=2)),
    "ReLU of a convolution lost": (
        _CONV,
        _has_relu,
        partial(_sets, fusedActivationFunction=0),
    ),
    "ReLU6 for ReLU": (_CONV, _has_relu, partial(_sets, fusedActivationFunction=_RELU6)),
    "ReLU of a sum lost": (_ADD, _has_relu, partial(_sets, fusedActivationFunction=0)),
    "difference for sum": (_ADD, _has_relu, _difference),
    "summand twice": (_ADD, _has_relu, _first_twice),
    "gate added": (_MUL, _any, _sum),
    "tanh for sigmoid": (_LOGISTIC, _any, _tanh),
    "mean of rows alone": (_MEAN, _is_of_pixels, partial(_mean_of, axes=(1, 1))),
    "pixels left out of an average": (_AVERAGE_POOL, _any, partial(_sets, filterWidth=1)),
}
"""Fault to the operators that it is planted in, and what it changes."""


def litert_mutants(
    artefact: LiteRtArtefact, count: int, random: np.random.Generator
) -> Iterator[Mutant]:
    """Every kind of fault in ``count`` places each."""
    for kind, (code, has_place, fault) in OPERATOR_FAULTS.items():
        operators = enumerate(artefact.graph.operators)
        places = [
            at for at, op in operators if artefact.code(op) == code and has_place(artefact, op)
        ]
        for at in spread(places, count, random):
            name = artefact.name(artefact.graph.operators[at])
            yield Mutant(kind, name, partial(_planted, at=at, fault=fault))


def _planted(artefact: Artefact, at: int, fault: Fault) -> None:
    if isinstance(artefact, LiteRtArtefact):
        fault(artefact, artefact.graph.operators[at])
