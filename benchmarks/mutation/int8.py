"""Faults in what is in integers: numbers, what one is worth, and the grids of activations.

Mistakes in the weights are made before they are rounded, as an exporter would make them, so that
the integers fit together. Those here are made behind the rounding.

A grid is a free choice as long as it holds what the network makes of natural images: how much wider
it should be only the pictures know that it was measured on. So a grid that is wider or lies a step
elsewhere, with all that depends on it, is no fault, and none is planted.
"""

from __future__ import annotations

import tempfile
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np
from onnx import numpy_helper

from benchmarks.mutation.artefact import OnnxArtefact
from benchmarks.mutation.litert import LiteRtArtefact
from benchmarks.mutation.mutant import Mutant, spread
from converters.checkpoint.onnx_places import open_onnx
from converters.formats.format import DEFAULTS
from converters.formats.onnx.calibration import measured, verification_pixels
from converters.formats.onnx.export import export_onnx_alone
from converters.formats.onnx.int8_graph import BIAS, SCALE, WEIGHT, ZERO_POINT, in_integers
from converters.formats.onnx.weights import folded_weights

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    from benchmarks.mutation.artefact import Artefact
    from converters.folder.folder import ConvertedFolder

    Array = NDArray[Any]
    Layer = tuple[str, str | None, str]  # names of a kernel, its bias if it has one, what it reads
    Fault = Callable[["Int8", str, np.random.Generator], None]

_FLOATS = ".float32"
_LARGEST = 127
_STEPS = 255
_ROUNDED = 1e-6
"""Relative: what float32 makes of steps that are computed in another order."""

_KERNEL_AXES = 4
_CHANNELS_FIRST, _CHANNELS_LAST = (0, 3, 1, 2), (0, 2, 3, 1)
_MULTIPLYING = {3, 9}
"""LiteRT's convolution and fully connected layer."""

_PAD = 34
_HELD_LAYER = 3
"""Inputs of a layer with a bias."""


@runtime_checkable
class Int8(Protocol):
    """What a fault is planted in: an artefact in integers."""

    def layers(self) -> list[Layer]:
        """What multiplies, in the order of the network."""

    def integers(self, name: str) -> Array:
        """A kernel or bias as it is held, with the axes that torch has."""

    def set_integers(self, name: str, array: Array) -> None:
        """Change it."""

    def steps(self, name: str) -> Array:
        """What an integer of each channel is worth, (channels,)."""

    def set_steps(self, name: str, steps: Array) -> None:
        """Change that."""

    def set_weight_zero(self, name: str, zero: int) -> None:
        """Let another integer than 0 stand for zero."""

    def values(self) -> list[str]:
        """Names of the activations that are on grids of their own."""

    def grid(self, value: str) -> tuple[float, int]:
        """The size of a step, and which of 0 to 255 is zero."""

    def set_grid(self, value: str, scale: float, zero: int, *, padded: bool) -> None:
        """Change both; ``padded`` is also where zeros were put around."""

    def requantise(self, layer: Layer) -> None:
        """Round a layer anew for the grid of what it reads."""


class _Requantised:
    """Weights as they were before they were rounded, and rounding them anew.

    Attributes:
        _folder: Whose network it is.
    """

    _folder: ConvertedFolder

    @cached_property
    def _weights(self: Any) -> dict[str, Array]:
        """Of layers in integers."""
        rounded = {name for layer in self.layers() for name in layer[:2]}
        held = (weight for weight in folded_weights(self._folder) if weight.name in rounded)
        return {weight.name: weight.computed() for weight in held}

    def names(self: Any) -> list[str]:
        """Names of the weights in integers, without what says that they are, and of the others."""
        return [*self._weights, *self.in_floats()]

    def array(self, name: str) -> Array:
        """A weight as it was before it was rounded."""
        if name in self._weights:
            return self._weights[name]
        array: Array = super().array(name)  # type: ignore[misc]
        return array

    def replace(self: Any, name: str, array: Array) -> None:
        """Round another weight."""
        if name not in self._weights:
            super().replace(name, array)  # type: ignore[misc]
            return
        self._weights[name] = np.ascontiguousarray(array, np.float32)
        self.requantise(next(layer for layer in self.layers() if name in layer[:2]))

    def requantise(self: Any, layer: Layer) -> None:
        """Round a layer anew for the grid of what it reads."""
        kernel, bias, value = layer
        weight = self._weights[kernel]
        added = self._weights[bias] if bias else np.zeros(len(weight), np.float32)
        with np.errstate(all="ignore"):
            steps, size, bias_steps, bias_size = in_integers(weight, added, self.grid(value)[0])
        if self._rounds_alike(layer, steps, size, bias_steps, bias_size):
            return
        self.set_integers(kernel, steps)
        self.set_steps(kernel, size)
        if bias:
            self.set_integers(bias, bias_steps)
            self.set_steps(bias, bias_size)

    def _rounds_alike(self: Any, layer: Layer, steps: Array, size: Array, *of_bias: Array) -> bool:
        """Whether rounding hides a change: no integer is another, no step by a millionth."""
        kernel, bias, _ = layer
        alike = np.array_equal(steps, self.integers(kernel)) and np.allclose(
            size, self.steps(kernel), _ROUNDED, 0
        )
        if bias and alike:
            integers, bias_size = of_bias
            away = np.abs(integers.astype(np.int64) - self.integers(bias))
            alike = away.max() <= 1 and np.allclose(bias_size, self.steps(bias), _ROUNDED, 0)
        return bool(alike)


class _OnnxInt8(_Requantised, OnnxArtefact):
    """An ONNX file in int8."""

    def layers(self) -> list[Layer]:
        found: list[Layer] = []
        for node in self.model.graph.node:
            if node.op_type in {"Conv", "Gemm"} and node.input[1].endswith(WEIGHT + _FLOATS):
                value, kernel, *biases = (name.removesuffix(_FLOATS) for name in node.input)
                bias = next((name.removesuffix(BIAS) for name in biases), None)
                found.append((kernel.removesuffix(WEIGHT), bias, value))
        return found

    def in_floats(self) -> list[str]:
        slots = {slot.name for slot in self._folder.architecture.slots}
        return [name for name in self._tensors if name in slots]

    def integers(self, name: str) -> Array:
        return OnnxArtefact.array(self, self._held(name))

    def set_integers(self, name: str, array: Array) -> None:
        OnnxArtefact.replace(self, self._held(name), array)

    def steps(self, name: str) -> Array:
        return OnnxArtefact.array(self, self._held(name) + SCALE)

    def set_steps(self, name: str, steps: Array) -> None:
        OnnxArtefact.replace(self, self._held(name) + SCALE, steps.astype(np.float32))

    def set_weight_zero(self, name: str, zero: int) -> None:
        place = self._held(name) + ZERO_POINT
        OnnxArtefact.replace(self, place, np.full_like(OnnxArtefact.array(self, place), zero))

    def values(self) -> list[str]:
        return [node.input[0] for node in self.model.graph.node if node.op_type == "QuantizeLinear"]

    def grid(self, value: str) -> tuple[float, int]:
        scale, zero = (OnnxArtefact.array(self, value + end) for end in (SCALE, ZERO_POINT))
        return float(scale), int(zero)

    def set_grid(self, value: str, scale: float, zero: int, *, padded: bool) -> None:  # noqa: ARG002 -- has no such values
        for end, number in ((SCALE, np.float32(scale)), (ZERO_POINT, np.uint8(zero))):
            name = value + end
            self._tensors[name].CopyFrom(numpy_helper.from_array(np.array(number), name))

    def read_on_another(self, value: str, factor: float) -> None:
        """Let a value be read with other steps than it was put into."""
        tensor = numpy_helper.from_array(
            np.array(self.grid(value)[0] * factor, np.float32), f"{value}.read{SCALE}"
        )
        self.model.graph.initializer.append(tensor)
        for node in self.model.graph.node:
            if node.op_type == "DequantizeLinear" and node.input[1] == value + SCALE:
                node.input[1] = tensor.name

    def off_grid(self, value: str) -> None:
        """Let a value be read as it is in floats."""
        for node in self.model.graph.node:
            node.input[:] = [value if name == value + _FLOATS else name for name in node.input]

    def _held(self, name: str) -> str:
        return next(name + end for end in (WEIGHT, BIAS) if name + end in self._tensors)


class _LiteRtInt8(_Requantised, LiteRtArtefact):
    """A ``.tflite`` file in int8."""

    def __init__(self, path: Path, folder: ConvertedFolder) -> None:
        super().__init__(path, folder)
        self._folder = folder

    def layers(self) -> list[Layer]:
        found: list[Layer] = []
        for operator in self.graph.operators:
            if self.code(operator) not in _MULTIPLYING:
                continue
            value, kernel, bias = (
                self.graph.tensors[place].name.decode() for place in operator.inputs
            )
            if kernel.endswith(WEIGHT):
                own = bias.removesuffix(BIAS) if bias.endswith(BIAS) else None
                found.append((kernel.removesuffix(WEIGHT), own, value.removesuffix(WEIGHT)))
        return found

    def in_floats(self) -> list[str]:
        return [name for name in LiteRtArtefact.names(self) if self._tensors[name].type == 0]

    def integers(self, name: str) -> Array:
        tensor, kind = self._held(name)
        data = np.asarray(self.model.buffers[tensor.buffer].data, np.uint8)
        array: Array = data.view(kind).reshape(tensor.shape)
        return array.transpose(_CHANNELS_FIRST) if array.ndim == _KERNEL_AXES else array

    def set_integers(self, name: str, array: Array) -> None:
        tensor, kind = self._held(name)
        if array.ndim == _KERNEL_AXES:
            array = array.transpose(_CHANNELS_LAST)
        data = np.ascontiguousarray(array, kind).reshape(-1).view(np.uint8)
        self.model.buffers[tensor.buffer].data = data

    def steps(self, name: str) -> Array:
        return np.asarray(self._held(name)[0].quantization.scale, np.float32)

    def set_steps(self, name: str, steps: Array) -> None:
        self._held(name)[0].quantization.scale = steps.astype(np.float32)

    def set_weight_zero(self, name: str, zero: int) -> None:
        quantised = self._held(name)[0].quantization
        quantised.zeroPoint = np.full(len(quantised.scale), zero, np.int64)

    def values(self) -> list[str]:
        made = {op.outputs[0]: self.code(op) for op in self.graph.operators}
        return [
            tensor.name.decode().removesuffix(WEIGHT)
            for place, tensor in enumerate(self.graph.tensors)
            if tensor.name.endswith(WEIGHT.encode()) and place in made and made[place] != _PAD
        ]

    def grid(self, value: str) -> tuple[float, int]:
        quantised = self._tensors[value + WEIGHT].quantization
        return float(quantised.scale[0]), int(quantised.zeroPoint[0]) + 128

    def set_grid(self, value: str, scale: float, zero: int, *, padded: bool) -> None:
        changed = [value + WEIGHT]
        if padded:
            changed += [
                self.graph.tensors[op.outputs[0]].name.decode()
                for op in self.graph.operators
                if self.code(op) == _PAD
                and self.graph.tensors[op.inputs[0]].name.decode() == changed[0]
            ]
        for name in changed:
            quantised = self._tensors[name].quantization
            quantised.scale = np.array([scale], np.float32)
            quantised.zeroPoint = np.array([zero - 128], np.int64)

    def _held(self, name: str) -> tuple[Any, str]:
        for end, kind in ((WEIGHT, "i1"), (BIAS, "<i4")):
            if tensor := self._tensors.get(name + end):
                return tensor, kind
        raise KeyError(name)


def _one(
    artefact: Int8, name: str, random: np.random.Generator, change: Callable[[int], int]
) -> None:
    """One integer that stays within its range and is not zero."""
    array = artefact.integers(name).copy()
    limit = np.iinfo(array.dtype).max
    places = np.flatnonzero((array != 0) & (np.abs(array.astype(np.int64)) < limit))
    if len(places):
        place = random.choice(places)
        array.flat[place] = change(int(array.flat[place]))
        artefact.set_integers(name, array)


def _all(
    artefact: Int8, name: str, _: np.random.Generator, change: Callable[[Array], Array]
) -> None:
    array = artefact.integers(name)
    limits = np.iinfo(array.dtype)
    changed = np.clip(change(array.astype(np.int64)), limits.min, limits.max)
    artefact.set_integers(name, changed.astype(array.dtype))


def _sized(
    artefact: Int8, name: str, _: np.random.Generator, change: Callable[[Array], Array]
) -> None:
    artefact.set_steps(name, change(artefact.steps(name).copy()))


def _one_larger(steps: Array) -> Array:
    steps[len(steps) // 2] *= np.float32(1.01)
    return steps


def _zero(artefact: Int8, name: str, _: np.random.Generator) -> None:
    artefact.set_weight_zero(name, 1)


def _coarser(
    artefact: Int8, name: str, _: np.random.Generator, sizes: Callable[[Array], Array]
) -> None:
    """Fewer steps for all weights, with the biases to fit: nothing but bits are lost."""
    layer = next(layer for layer in artefact.layers() if layer[0] == name)
    before = artefact.steps(name).astype(np.float64)
    after = sizes(before).astype(np.float32)
    worth = artefact.integers(name) * before.reshape(-1, *[1] * (artefact.integers(name).ndim - 1))
    integers = np.rint(worth / after.reshape(-1, *[1] * (worth.ndim - 1)))
    artefact.set_integers(name, np.clip(integers, -_LARGEST, _LARGEST).astype(np.int8))
    artefact.set_steps(name, after)
    if layer[1]:
        size = np.float32(artefact.grid(layer[2])[0]) * after
        held = artefact.integers(layer[1]) * artefact.steps(layer[1]).astype(np.float64)
        artefact.set_integers(layer[1], np.rint(held / size).astype(np.int32))
        artefact.set_steps(layer[1], size)


KERNEL_FAULTS: dict[str, Fault] = {
    "one integer one more": partial(_one, change=lambda value: value + 1),
    "one integer negated": partial(_one, change=lambda value: -value),
    "integers doubled": partial(_all, change=lambda array: 2 * array),
    "integers taken for unsigned": partial(_all, change=lambda array: array ^ -128),
    "integers of half the bits": partial(_all, change=lambda array: array >> 4 << 4),
    "steps 1 % larger": partial(_sized, change=lambda steps: steps * np.float32(1.01)),
    "steps of one channel 1 % larger": partial(_sized, change=_one_larger),
    "steps of the next channel": partial(_sized, change=lambda steps: np.roll(steps, 1)),
    "a zero that is not 0": _zero,
    "twice as large steps": partial(_coarser, sizes=lambda steps: 2 * steps),
    "1 % larger steps, and all that depends on them": partial(
        _coarser, sizes=lambda steps: 1.01 * steps
    ),
    "half as large steps": partial(_coarser, sizes=lambda steps: steps / 2),
    "one size of steps for all channels": partial(
        _coarser, sizes=lambda steps: np.full_like(steps, steps.max())
    ),
}
"""Behind the rounding of a kernel; the last keep steps and biases in line."""

BIAS_FAULTS: dict[str, Fault] = {
    "a bias one step more": partial(_one, change=lambda value: value + 1),
    "biases one step more": partial(_all, change=lambda array: array + 1),
    "biases lost": partial(_all, change=np.zeros_like),
    "biases negated": partial(_all, change=np.negative),
    "biases in 16 bits": partial(_all, change=lambda array: (array + 2**15) % 2**16 - 2**15),
    "biases of the next channel": partial(_all, change=lambda array: np.roll(array, 1)),
    "steps of biases doubled": partial(_sized, change=lambda steps: 2 * steps),
}
"""Behind the rounding of a bias."""


OTHER_GRIDS: dict[str, Callable[[float, int], tuple[float, int]]] = {
    "a grid of 1 % larger steps": lambda scale, zero: (1.01 * scale, zero),
    "a grid of twice as large steps": lambda scale, zero: (2 * scale, zero),
    "a grid of half as large steps": lambda scale, zero: (scale / 2, zero),
    "a grid's zero in the middle": lambda scale, _: (scale, 128),
    "a grid's zero at the other end": lambda scale, zero: (scale, _STEPS - zero),
    "a grid's zero 16 steps higher": lambda scale, zero: (scale, min(zero + 16, _STEPS)),
}
"""Another grid, while biases stay in steps of the right one."""

FITTED_GRIDS: dict[str, float] = {
    "a grid that ends at half of the range": 0.5,
    "a grid that ends at nine tenths of the range": 0.9,
}
"""How far a grid reaches, in terms of what the network makes of natural images; biases follow."""


def _is_fault(
    artefact: Int8, value: str, grid: tuple[float, int], range_: tuple[float, float]
) -> bool:
    """Whether biases are in other steps now, or what is seen of natural images does not fit."""
    scale, zero = grid
    biases = (bias for _, bias, read in artefact.layers() if read == value)
    if scale != artefact.grid(value)[0] and any(bias is not None for bias in biases):
        return True
    return bool(range_[0] < (-zero - 1) * scale or range_[1] > (_STEPS - zero + 1) * scale)


def _fitted(artefact: Int8, value: str, least: float, most: float) -> None:
    """A grid from the least to the largest of some numbers, with all that depends on it."""
    least, most = min(least, 0.0), max(most, 0.0)
    scale = max((most - least) / _STEPS, 1e-30)
    artefact.set_grid(value, scale, round(-least / scale), padded=True)
    for layer in artefact.layers():
        if layer[2].removesuffix(".padded") == value:
            artefact.requantise(layer)


def natural_ranges(
    folder: ConvertedFolder, values: Sequence[str]
) -> Mapping[str, tuple[float, float]]:
    """The least and the largest that the network in float32 makes of natural images, by value."""
    with tempfile.TemporaryDirectory() as path:
        file = Path(path) / "model.onnx"
        export_onnx_alone(folder, file, DEFAULTS)
        return measured(open_onnx(file), verification_pixels(folder), values)[1]


def int8_mutants(
    artefact: Int8, folder: ConvertedFolder, count: int, random: np.random.Generator
) -> Iterator[Mutant]:
    """Every kind of fault in ``count`` places each."""
    layers = artefact.layers()
    kernels = [kernel for kernel, *_ in layers]
    biases = [bias for _, bias, _ in layers if bias]
    for faults, places in ((KERNEL_FAULTS, kernels), (BIAS_FAULTS, biases)):
        for kind, fault in faults.items():
            for place in spread(places, count, random):
                seed = int(random.integers(2**31))
                plant = partial(_planted, place=place, fault=fault, seed=seed)
                yield Mutant(kind, place, plant, in_weights=True)
    yield from _grid_mutants(artefact, folder, count, random)
    if isinstance(artefact, _OnnxInt8):
        for kind, read in _READ_OTHERWISE.items():
            for value in spread(artefact.values(), count, random):
                yield Mutant(kind, value, partial(read, value=value))


def _grid_mutants(
    artefact: Int8, folder: ConvertedFolder, count: int, random: np.random.Generator
) -> Iterator[Mutant]:
    ranges = natural_ranges(folder, artefact.values())
    for kind, change in OTHER_GRIDS.items():
        grids = {value: change(*artefact.grid(value)) for value in ranges}
        values = [each for each in ranges if _is_fault(artefact, each, grids[each], ranges[each])]
        for value in spread(values, count, random):
            yield Mutant(kind, value, partial(_regrid, value=value, grid=grids[value]))
    for kind, factor in FITTED_GRIDS.items():
        for value in spread([*ranges], count, random):
            ends = factor * ranges[value][0], factor * ranges[value][1]
            yield Mutant(kind, value, partial(_plant_grid, value=value, ends=ends))


def _planted(artefact: Artefact, place: str, fault: Fault, seed: int) -> None:
    if isinstance(artefact, Int8):
        fault(artefact, place, np.random.default_rng(seed))


def _regrid(artefact: Artefact, value: str, grid: tuple[float, int]) -> None:
    if isinstance(artefact, Int8):
        artefact.set_grid(value, *grid, padded=False)


def _plant_grid(artefact: Artefact, value: str, ends: tuple[float, float]) -> None:
    if isinstance(artefact, Int8):
        _fitted(artefact, value, *ends)


def _read_on(artefact: Artefact, value: str) -> None:
    if isinstance(artefact, _OnnxInt8):
        artefact.read_on_another(value, 1.01)


def _off_grid(artefact: Artefact, value: str) -> None:
    if isinstance(artefact, _OnnxInt8):
        artefact.off_grid(value)


_READ_OTHERWISE = {"read with 1 % larger steps": _read_on, "read as it is in floats": _off_grid}

OPENED: dict[str, Callable[[Path, ConvertedFolder], Any]] = {
    "onnx-int8": _OnnxInt8,
    "litert-int8": _LiteRtInt8,
}
"""What takes an artefact of each format apart."""
