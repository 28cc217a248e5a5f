"""ncnn, for phones and small boards: a ``.param`` lists layers, a ``.bin`` holds their weights.

Written from the list of operations, a layer or a few for each, and called like the operation. What
the numbers of a layer mean is said in ncnn's ``docs/developer-guide/operators.md``, how both files
are read in its ``src/net.cpp`` and ``src/modelbin.cpp``.

Left alone ncnn keeps weights and values in half the bytes where the processor can. Here it is told
to compute in float32, and what it makes of the same files by default is judged beside that.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from converters.checkpoint.graph import INTERFACE
from converters.errors import InputError, require_extra
from converters.formats.format import DEFAULTS, INTERFACE_OPTIONS, Format, OtherRuntime
from converters.formats.memory import require_memory
from converters.formats.onnx.form import FOLDED_BIAS, FOLDED_WEIGHT
from converters.formats.runtime import ArtefactRuntime
from converters.formats.stated import stated_in
from regnet.architecture import (
    PIXELS,
    Act,
    Add,
    AveragePool,
    Conv,
    EvoNorm,
    Flatten,
    GroupNorm,
    Linear,
    Norm,
    Normalise,
    Pool,
    Scale,
    Softmax,
    folded,
)
from regnet.config import TRUNK_OUTPUTS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    import numpy as np
    from ncnn import Net
    from numpy.typing import NDArray

    from converters.folder.folder import ConvertedFolder
    from converters.formats.format import ExportOptions
    from converters.formats.onnx.file import Weight
    from regnet.architecture import Function, Operation

    _Settings = Mapping[int, int | float]

_MAGIC = 7767517
_FLOAT32 = bytes(4)
"""What stands before a kernel that is neither rounded nor quantised."""

_SAME = -233
"""The padding that TensorFlow calls ``SAME``."""

_GLOBAL_MEAN = {0: 1, 4: 1}
_MEAN, _VALID, _REPLICATE = 1, 1, 1
_ADD, _SUB, _MUL, _DIV = range(4)
_SQUARE, _SQRT = 4, 5
"""What settings of `Pooling`, `Padding`, `BinaryOp` and `UnaryOp` mean."""

_STATED = f"#{INTERFACE}="
"""How the line begins that says what the network takes and gives."""

_AFTER_FLAG = ("Convolution", "ConvolutionDepthWise", "InnerProduct")
"""Layers before whose first tensor it says how that is stored."""

_HALF = ("fp16_packed", "fp16_storage", "fp16_arithmetic", "bf16_packed", "bf16_storage")
"""What ncnn may do in half the bytes; a version may lack some."""

_, _POOLED = TRUNK_OUTPUTS

_COPIES = 3
"""How many times the weights' size it takes: read, packed for the processor, and in passing."""


@dataclass(frozen=True, slots=True)
class _Layer:
    """A line of the ``.param``.

    Attributes:
        kind: ncnn's name of what it computes.
        name: Its own.
        inputs: Names of the values that it reads.
        outputs: Names of those that it makes.
        settings: ncnn's numbers of what it is told.
        tensors: Names of what it reads from the ``.bin``, in that order.
    """

    kind: str
    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    settings: _Settings = field(default_factory=dict)
    tensors: tuple[str, ...] = ()

    @property
    def line(self) -> str:
        """As ncnn reads it; what is a float says so by a point or an exponent."""
        count = f"{len(self.inputs)} {len(self.outputs)}"
        settings = (f"{key}={_number(value)}" for key, value in self.settings.items())
        words = (f"{self.kind:24}", f"{self.name:24}", count, *self.inputs, *self.outputs)
        return " ".join((*words, *settings)) + "\n"


def _number(value: float) -> str:
    """As ncnn reads one, of at most 15 characters; of a float's digits float32 keeps nine."""
    if isinstance(value, int):
        return str(value)
    text = f"{value:.9g}"
    return text if {".", "e"} & set(text) else f"{text}.0"


def export_ncnn(folder: ConvertedFolder, path: Path, _: ExportOptions = DEFAULTS) -> None:
    """Write the network for ncnn, in float32, with batch norms folded.

    The input is ``pixel_values``, one image of any size, and the outputs are called as the network
    calls them. Two exports give the same bytes: the ``.param``, and the ``.bin`` beside it.
    """
    from converters.formats.onnx.weights import folded_weights

    operations = folded(folder.architecture.operations)
    layers = [_Layer("Input", PIXELS, (), (PIXELS,))]
    for operation in operations:
        layers += _SPELLINGS[type(operation)](operation)
    layers = list(_with_splits(layers))
    values = sum(len(layer.outputs) for layer in layers)
    head = f"{_MAGIC}\n{len(layers)} {values}\n"
    stated = stated_in(folder).get(INTERFACE)
    end = f"{_STATED}{stated}\n" if stated else ""  # where ncnn, which counts layers, does not read
    text = head + "".join(layer.line for layer in layers) + end
    path.write_text(text, encoding="utf-8", newline="\n")
    weights = {weight.name: weight for weight in folded_weights(folder)}
    weights |= {weight.name: weight for weight in _statistics(operations[0])}
    with path.with_suffix(".bin").open("wb") as file:
        for layer in layers:
            if layer.kind in _AFTER_FLAG:
                file.write(_FLOAT32)
            for name in layer.tensors:
                file.write(weights[name].computed().data)


def _statistics(first: Operation) -> Iterator[Weight]:
    """The numbers by which images are normalised, if the network begins with that."""
    import numpy as np

    from converters.formats.onnx.file import Weight

    if isinstance(first, Normalise):
        for leaf in ("mean", "std"):
            numbers = getattr(first, leaf)
            yield Weight(f"{first.name}.{leaf}", (len(numbers),), partial(np.array, numbers))


def stated_in_param(path: Path) -> Mapping[str, str]:
    """What a ``.param`` states behind its layers.

    Raises:
        OSError: If it cannot be read.
        ValueError: If it is no text.
    """
    last = path.read_text(encoding="utf-8").rstrip("\n").rpartition("\n")[2]
    return {INTERFACE: last.removeprefix(_STATED)} if last.startswith(_STATED) else {}


def _with_splits(layers: Sequence[_Layer]) -> Iterator[_Layer]:
    """The same, and a layer behind each value that several read: to ncnn a value has one reader."""
    readers = Counter(value for layer in layers for value in layer.inputs)
    copies = {
        value: [f"{value}_splitncnn_{index}" for index in range(count)]
        for value, count in readers.items()
        if count > 1
    }
    left = {value: iter(names) for value, names in copies.items()}
    for layer in layers:
        read = tuple(next(left[value]) if value in left else value for value in layer.inputs)
        yield replace(layer, inputs=read)
        for value in filter(copies.get, layer.outputs):
            yield _Layer("Split", f"{value}_split", (value,), tuple(copies[value]))


def _conv(operation: Conv) -> Iterator[_Layer]:
    if len(operation.slots) > 1:  # with a bias of its own it is a gate's, of one pixel
        yield _product(operation)
        return
    tensors = _names(operation)
    if operation.norm:
        tensors = (operation.around + FOLDED_WEIGHT, operation.around + FOLDED_BIAS)
    (kernel,), size = operation.slots, operation.kernel_size
    if operation.padding == "same" and operation.stride > size:
        raise InputError(
            f"ncnn has no padding for {operation.name}, which is `same` with a stride of "
            f"{operation.stride}; export it to another format, such as onnx."
        )
    settings = {
        0: kernel.shape[0],
        1: size,
        3: operation.stride,
        4: _SAME if operation.padding == "same" else size // 2,
        5: len(tensors) - 1,
        6: math.prod(kernel.shape),
    }
    kind = "Convolution"
    if operation.groups > 1:
        kind, settings[7] = "ConvolutionDepthWise", operation.groups
    yield _layer(kind, operation, settings, tensors)


def _linear(operation: Linear) -> Iterator[_Layer]:
    yield _product(operation)


def _product(operation: Conv | Linear) -> _Layer:
    shape = operation.slots[0].shape
    settings = {0: shape[0], 1: 1, 2: math.prod(shape)}
    return _layer("InnerProduct", operation, settings, _names(operation))


def _norm(operation: Norm) -> Iterator[_Layer]:
    weight, bias, mean, variance = _names(operation)
    settings = {0: operation.slots[0].shape[0], 1: operation.eps}
    yield _layer("BatchNorm", operation, settings, (weight, mean, variance, bias))


def _group_norm(operation: GroupNorm) -> Iterator[_Layer]:
    settings = {0: operation.groups, 1: operation.slots[0].shape[0], 2: operation.eps}
    yield _layer("GroupNorm", operation, settings, _names(operation))


def _evonorm(operation: EvoNorm) -> Iterator[_Layer]:
    """Spelled out; what is one number for a channel has one axis, along which ncnn broadcasts."""
    name, (value,) = operation.name, operation.inputs
    weight, bias, *slope = _names(operation)
    channels = operation.slots[0].shape[0]
    parts = _Parts(operation)
    mean = parts.mean_of_groups("mean", value)
    centred = parts.add("BinaryOp", "centred", (value, mean), {0: _SUB})
    square = parts.add("UnaryOp", "square", (centred,), {0: _SQUARE})
    variance = parts.mean_of_groups("variance", square)
    shifted = parts.add("BinaryOp", "shifted", (variance,), {0: _ADD, 1: 1, 2: operation.eps})
    deviation = parts.add("UnaryOp", "deviation", (shifted,), {0: _SQRT})
    if slope:
        sloped = parts.add("Scale", "sloped", (value,), {0: channels}, tuple(slope))
        gate = parts.add("Sigmoid", "sigmoid", (sloped,))
        value = parts.add("BinaryOp", "gated", (value, gate), {0: _MUL})
    divided = parts.add("BinaryOp", "divided", (value, deviation), {0: _DIV})
    yield from parts.layers
    yield _Layer(
        "Scale", name, (divided,), (operation.output,), {0: channels, 1: 1}, (weight, bias)
    )


@dataclass
class _Parts:
    """Layers that make one operation together, all but the last."""

    operation: EvoNorm
    layers: list[_Layer] = field(default_factory=list)

    def add(
        self,
        kind: str,
        part: str,
        inputs: tuple[str, ...],
        settings: _Settings | None = None,
        tensors: tuple[str, ...] = (),
    ) -> str:
        value = f"{self.operation.name}.{part}"
        self.layers.append(_Layer(kind, value, inputs, (value,), settings or {}, tensors))
        return value

    def mean_of_groups(self, part: str, value: str) -> str:
        """For each channel the mean of its group, (C,): of means, which are of equal counts."""
        channels, groups = self.operation.slots[0].shape[0], self.operation.groups
        width = channels // groups
        value = self.add("Pooling", f"{part}.channels", (value,), _GLOBAL_MEAN)
        value = self.add("Reshape", f"{part}.grouped", (value,), {0: width, 1: 1, 2: groups})
        value = self.add("Pooling", f"{part}.groups", (value,), _GLOBAL_MEAN)
        value = self.add("Reshape", f"{part}.column", (value,), {0: 1, 1: groups})
        value = self.add("Tile", f"{part}.tiled", (value,), {0: 1, 1: width})
        return self.add("Reshape", part, (value,), {0: channels})


def _normalise(operation: Normalise) -> Iterator[_Layer]:
    """Of each channel, along which ncnn broadcasts a tensor of one pixel."""
    name, (value,), channels = operation.name, operation.inputs, len(operation.mean)
    for what, leaf, made in ((_SUB, "mean", f"{name}.centred"), (_DIV, "std", operation.output)):
        held = f"{name}.{leaf}"
        yield _Layer("MemoryData", held, (), (held,), {0: 1, 1: 1, 2: channels}, (held,))
        yield _Layer("BinaryOp", made, (value, held), (made,), {0: what})
        value = made


def _average_pool(operation: AveragePool) -> Iterator[_Layer]:
    """Behind the last row and column these are repeated: the mean of what is there stays."""
    padded = f"{operation.name}.padded"
    yield _Layer("Padding", padded, operation.inputs, (padded,), {1: 1, 3: 1, 4: _REPLICATE})
    settings = {0: _MEAN, 1: 2, 2: operation.stride, 5: _VALID}
    yield _Layer("Pooling", operation.name, (padded,), (operation.output,), settings)


def _act(operation: Act) -> Iterator[_Layer]:
    kind, settings = _ACTIVATIONS[operation.function]
    yield _layer(kind, operation, settings)


def _plain(kind: str, settings: _Settings | None = None) -> Callable[[Operation], Iterator[_Layer]]:
    """One layer that holds nothing."""
    return lambda operation: iter([_layer(kind, operation, settings or {})])


def _layer(
    kind: str, operation: Operation, settings: _Settings, tensors: tuple[str, ...] = ()
) -> _Layer:
    """One that makes the value of an operation from what that reads."""
    return _Layer(kind, operation.name, operation.inputs, (operation.output,), settings, tensors)


def _names(operation: Operation) -> tuple[str, ...]:
    """Of the tensors that an operation holds, without the counter of a batch norm."""
    return tuple(slot.name for slot in operation.slots if not slot.is_counter)


_SPELLINGS: dict[type[Operation], Callable[[Any], Iterator[_Layer]]] = {
    Conv: _conv,
    Norm: _norm,
    GroupNorm: _group_norm,
    EvoNorm: _evonorm,
    Act: _act,
    Pool: _plain("Pooling", _GLOBAL_MEAN),
    AveragePool: _average_pool,
    Scale: _plain("BinaryOp", {0: _MUL}),
    Add: _plain("BinaryOp", {0: _ADD}),
    Flatten: _plain("Flatten"),
    Linear: _linear,
    Normalise: _normalise,
    Softmax: _plain("Softmax", {0: 0, 1: 1}),
}

_ACTIVATIONS: dict[Function, tuple[str, _Settings]] = {
    "relu": ("ReLU", {}),
    "gelu": ("GELU", {}),
    "gelu_new": ("GELU", {0: 1}),
    "selu": ("SELU", {}),
    "silu": ("Swish", {}),
    "sigmoid": ("Sigmoid", {}),
}


class NcnnRuntime(ArtefactRuntime):
    """Runs a ``.param`` and the ``.bin`` beside it, an image at a time: ncnn knows no batches.

    Attributes:
        name: ncnn and its version.
    """

    _in_half = False

    def __init__(
        self, path: Path, output_names: Sequence[str] = ("logits",), threads: int = 1
    ) -> None:
        self.name = f"ncnn {require_extra('ncnn', 'ncnn')}"
        weights = path.with_suffix(".bin")
        require_memory(_COPIES * weights.stat().st_size)
        self._net = open_net(path, threads, in_half=self._in_half)
        self._output_names = tuple(output_names)

    def __call__(self, pixel_values: NDArray[np.float32]) -> dict[str, NDArray[np.float32]]:
        """Compute every output, image by image."""
        import numpy as np

        images = [values_of(self._net, image, self._output_names) for image in pixel_values]
        outputs = {name: np.stack([image[name] for image in images]) for name in images[0]}
        if _POOLED in outputs:
            outputs[_POOLED] = outputs[_POOLED][:, :, None, None]
        return outputs


class NcnnByDefault(NcnnRuntime):
    """The same without being told anything: in half the bytes wherever the processor can."""

    precision = "float16"
    _in_half = True


def open_net(path: Path, threads: int = 1, *, in_half: bool = False) -> Net:
    """Load both files, to be computed in float32 unless it may be in half the bytes.

    Args:
        path: The ``.param``, the ``.bin`` beside it.
        threads: How many compute.
        in_half: Whether ncnn is left to its defaults.

    Raises:
        RuntimeError: If ncnn does not take one.
    """
    import ncnn

    net = ncnn.Net()
    net.opt.num_threads = threads
    for option in () if in_half else _HALF:
        if hasattr(net.opt, f"use_{option}"):
            setattr(net.opt, f"use_{option}", False)
    for load, file in ((net.load_param, path), (net.load_model, path.with_suffix(".bin"))):
        if status := load(str(file)):
            raise RuntimeError(f"ncnn does not take {file.name} (status {status})")
    return net


def values_of(
    net: Net, image: NDArray[np.float32], names: Iterable[str], *, keeps: bool = False
) -> dict[str, NDArray[np.float32]]:
    """Compute values of one image by name.

    Args:
        net: Loaded.
        image: (C, H, W), normalised.
        names: Of values in the file, those first that are computed first.
        keeps: Whether each is what its own layer made, and nothing that was done to it in place.

    Returns:
        Each with the axes (C, H, W); (C,) behind a mean of all pixels.

    Raises:
        RuntimeError: If one cannot be computed.
    """
    import ncnn
    import numpy as np

    found = {}
    with net.create_extractor() as extractor:
        extractor.set_light_mode(not keeps)
        extractor.input(PIXELS, ncnn.Mat(np.ascontiguousarray(image)).clone())
        for name in names:
            status, value = extractor.extract(name)
            if status:
                raise RuntimeError(f"ncnn cannot compute {name} (status {status})")
            found[name] = np.array(value)
    return found


_LOAD = 'net.load_param("{file}"); net.load_model("model.ncnn.bin"); run = net.create_extractor()'
_RUN = (
    'run.input("pixel_values", ncnn.Mat(pixels[0].numpy())); '
    "_, *outputs = run.extract(net.output_names()[0])"
)

NCNN = Format(
    name="ncnn",
    title="ncnn",
    file_name="model.ncnn.param",
    companions=("model.ncnn.bin",),
    extra="ncnn",
    options=INTERFACE_OPTIONS,
    states=stated_in_param,
    export=export_ncnn,
    load=NcnnRuntime,
    certificate="converters.parity.contents.ncnn:read_ncnn",
    intermediates="converters.parity.locate.intermediates_ncnn:run_ncnn",
    usage=("import ncnn; net = ncnn.Net()", _LOAD, _RUN),
    others=(OtherRuntime("ncnn-default", "ncnn by default", NcnnByDefault, always=True),),
)
