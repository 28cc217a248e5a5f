"""The ML program of a RegNet, written from its configuration instead of traced.

A value is called like the module of the reference model that makes it, with underscores for dots.
An operation that takes several of MIL's has more behind the names of all but the last. Batch norms
are folded into the convolutions before them. What an operation is told is written out, defaults
too, as constants of its own, which is how coremltools writes programs.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from converters.errors import InputError
from converters.formats.coreml import mil
from converters.formats.coreml.mil import identifier
from converters.formats.onnx.graph import folded_names
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

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from converters.formats.coreml.mil import Dims, Scalar
    from converters.formats.onnx.form import Element, GraphForm
    from regnet.architecture import Architecture, Function, Operation, Slot

CLASS_LABEL, CLASS_SCORES = "classLabel", "classLabel_probs"
"""What coremltools calls the outputs of a classifier: the best class, and a score for each."""

_PIXEL_AXES = [2, 3]
_SELU_SCALE, _SELU_ALPHA = 1.0507009873554805, 1.6732632423543772
"""Source: Klambauer et al., "Self-Normalizing Neural Networks", arXiv 1706.02515."""


@dataclass(frozen=True, slots=True)
class Program:
    """What was written.

    Attributes:
        content: The program, as a message.
        outputs: What the network gives: name to sizes, None where open.
    """

    content: bytes
    outputs: Mapping[str, Dims]


def build_program(  # noqa: PLR0913, PLR0917 -- what there is to say
    architecture: Architecture,
    outputs: Sequence[str],
    pixels: Dims,
    form: GraphForm,
    offsets: Mapping[str, int],
    classes: Sequence[str] = (),
) -> Program:
    """Spell a network's operations.

    Args:
        architecture: The network; batch norms that convolutions can take in are folded here.
        outputs: Names of the values that it returns.
        pixels: Sizes of the input ``pixel_values`` (batch, num_channels, height, width); None is
            open.
        form: Its ``precision`` is that of all values, its ``io_precision`` that of those which the
            program takes and returns; where they differ these are cast.
        offsets: Where in the file of the weights each tensor is described, by its name in ONNX.
        classes: Names that it gives instead of the one output, (1, classes): :data:`CLASS_LABEL`
            and :data:`CLASS_SCORES`.

    Raises:
        InputError: If it pads by sizes that are open.
    """
    operations = folded(architecture.operations)
    outside = [each for each in operations if isinstance(each, Normalise | Softmax)]
    image = next((each.output for each in outside if isinstance(each, Normalise)), PIXELS)
    results = next((each.inputs for each in outside if isinstance(each, Softmax)), tuple(outputs))
    writer = _Writer(form.precision, offsets, {PIXELS: pixels})
    inside: dict[str, str] = {}
    if form.io_precision != form.precision:
        inside = {name: f"{name}.{form.precision}" for name in (image, *results)}
        if image == PIXELS:
            writer.cast(inside[PIXELS], PIXELS, form.precision)
    for operation in operations:
        if operation in outside:
            writer.element = form.io_precision
            _SPELLINGS[type(operation)](writer, operation)
            writer.element = form.precision
            if operation.output in inside:
                writer.cast(inside[image], image, form.precision)
            continue
        reads = tuple(inside.get(value, value) for value in operation.inputs)
        name = inside.get(operation.output, operation.output)
        _SPELLINGS[type(operation)](writer, replace(operation, inputs=reads, output=name))
        if name != operation.output:
            writer.cast(operation.output, name, form.io_precision)
    inputs = [mil.named_type(PIXELS, form.io_precision, pixels)]
    made = {name: writer.sizes[name] for name in outputs}
    if classes:
        (scores,) = outputs
        named = mil.classification(CLASS_LABEL, CLASS_SCORES, scores, classes)
        writer.operations.append(named)
        outputs = (CLASS_LABEL, CLASS_SCORES)
    return Program(mil.program(inputs, writer.operations, outputs), made)


@dataclass
class _Writer:
    """Appends operations in the order of execution.

    Attributes:
        element: The type of tensors and values.
        offsets: Where each tensor is described, by its name.
        sizes: Of each value, by its name in the architecture.
        operations: As messages.
    """

    element: Element
    offsets: Mapping[str, int]
    sizes: dict[str, Dims]
    operations: list[bytes] = field(default_factory=list)

    def add(
        self,
        kind: str,
        name: str,
        sizes: Dims,
        reads: Mapping[str, str],
        **says: Scalar | list[int],
    ) -> str:
        """Append an operation, and before it the constants that it reads.

        Args:
            kind: MIL's name.
            name: Of the value that it makes, which is returned.
            sizes: Of that value.
            reads: Inputs that are values or weights.
            says: Inputs that are constants.
        """
        inputs = {key: identifier(read) for key, read in reads.items()}
        for key, content in says.items():
            inputs[key] = f"{identifier(name)}_{key}"
            self._constant(inputs[key], content)
        made = mil.named_type(identifier(name), self.element, sizes)
        self.operations.append(mil.operation(kind, identifier(name), inputs, made))
        self.sizes[name] = sizes
        return name

    def cast(self, name: str, value: str, element: Element) -> None:
        """Append a value of another type than the others."""
        kinds = {"float16": "fp16", "float32": "fp32"}
        own, self.element = self.element, element
        self.add("cast", name, self.sizes[value], {"x": value}, dtype=kinds[element])
        self.element = own

    def weight(self, name: str, sizes: tuple[int, ...]) -> str:
        """Append a tensor of the weights, in some sizes."""
        kind = mil.named_type(identifier(name), self.element, sizes)
        content = mil.stored(self.element, sizes, self.offsets[name])
        self.operations.append(mil.constant(identifier(name), kind, content))
        return name

    def per_channel(self, slot: Slot) -> str:
        """A tensor of (C,) as (1, C, 1, 1)."""
        return self.weight(slot.name, (1, *slot.shape, 1, 1))

    def per_image(self, name: str, content: Sequence[float]) -> str:
        """Append a float32 of each channel, (1, C, 1, 1)."""
        sizes = (1, len(content), 1, 1)
        kind = mil.named_type(identifier(name), "float32", sizes)
        self.operations.append(mil.constant(identifier(name), kind, mil.numbers(content, sizes)))
        return name

    def _constant(self, name: str, content: Scalar | list[int]) -> None:
        scalar = content[0] if isinstance(content, list) else content
        kinds = {bool: "bool", int: "int32", float: self.element, str: "string"}
        sizes = (len(content),) if isinstance(content, list) else ()
        made = mil.named_type(name, kinds[type(scalar)], sizes)
        self.operations.append(mil.constant(name, made, mil.value(content, self.element)))


def _conv(writer: _Writer, operation: Conv) -> None:
    (value,), kernel = operation.inputs, operation.slots[0]
    batch, _, *pixels = writer.sizes[value]
    sizes = (batch, kernel.shape[0], *(_strided(size, operation.stride) for size in pixels))
    names = folded_names(operation.around) if operation.norm else _names(operation)
    shapes = (kernel.shape, kernel.shape[:1])
    held = {
        key: writer.weight(name, shape)
        for key, name, shape in zip(("weight", "bias"), names, shapes, strict=False)
    }
    writer.add(
        "conv",
        operation.output,
        sizes,
        {"x": value, **held},
        strides=[operation.stride] * 2,
        pad_type="valid" if operation.kernel_size == 1 else "custom",
        pad=[zeros for size in pixels for zeros in _zeros(operation, size)],
        dilations=[1, 1],
        groups=operation.groups,
    )


def _strided(size: int | None, stride: int) -> int | None:
    return size and (size - 1) // stride + 1


def _zeros(operation: Conv, size: int | None) -> tuple[int, int]:
    """How many zeros a convolution puts before and behind so many pixels.

    MIL has a padding "same", whose documentation says two things, so the numbers are written.
    """
    if operation.padding == "symmetric":
        return operation.kernel_size // 2, operation.kernel_size // 2
    if size is None:
        raise InputError(
            "The network pads images as Keras does, by their size, and Core ML takes numbers "
            "alone; leave height and width out of --dynamic."
        )
    last = (size - 1) // operation.stride * operation.stride
    both = max(last + operation.kernel_size - size, 0)
    return both // 2, both - both // 2


def _norm(writer: _Writer, operation: Norm) -> None:
    """A batch norm that no convolution has taken in."""
    leaves = ("gamma", "beta", "mean", "variance")
    slots = (slot for slot in operation.slots if not slot.is_counter)
    held = {
        leaf: writer.weight(slot.name, slot.shape) for leaf, slot in zip(leaves, slots, strict=True)
    }
    _one(writer, "batch_norm", operation, held, epsilon=operation.eps)


def _group_norm(writer: _Writer, operation: GroupNorm) -> None:
    centred, deviation = _grouped(writer, operation)
    _affine(writer, operation, centred, deviation)


def _evonorm(writer: _Writer, operation: EvoNorm) -> None:
    (value,), name = operation.inputs, operation.name
    _, deviation = _grouped(writer, operation)
    sizes = writer.sizes[value]
    if len(operation.slots) > 2:  # noqa: PLR2004 -- weight and bias; v makes it an activation
        sloped = {"x": value, "y": writer.per_channel(operation.slots[2])}
        gate = writer.add("mul", f"{name}.sloped", sizes, sloped)
        gate = writer.add("sigmoid", f"{name}.sigmoid", sizes, {"x": gate})
        value = writer.add("mul", f"{name}.gated", sizes, {"x": value, "y": gate})
    _affine(writer, operation, value, deviation)


def _grouped(writer: _Writer, operation: GroupNorm | EvoNorm) -> tuple[str, str]:
    """The value less its mean, (N, C, H, W), and its deviation, (N, C, 1, 1), of each group."""
    (value,), name = operation.inputs, operation.name
    sizes = writer.sizes[value]
    mean = _group_mean(writer, operation, f"{name}.mean", value)
    centred = writer.add("sub", f"{name}.centred", sizes, {"x": value, "y": mean})
    square = writer.add("mul", f"{name}.square", sizes, {"x": centred, "y": centred})
    variance = _group_mean(writer, operation, f"{name}.variance", square)
    one_pixel = writer.sizes[variance]
    shifted = writer.add("add", f"{name}.shifted", one_pixel, {"x": variance}, y=operation.eps)
    return centred, writer.add("sqrt", f"{name}.deviation", one_pixel, {"x": shifted})


def _group_mean(writer: _Writer, operation: GroupNorm | EvoNorm, name: str, value: str) -> str:
    """The mean of each group of channels, (N, C, H, W) to (N, C, 1, 1).

    That of the means of its channels, which all have as many pixels: so the one size that may be
    open when channels are grouped is the batch, and MIL's reshape takes one.
    """
    batch, (channels,) = writer.sizes[value][0], operation.slots[0].shape
    groups, each = operation.groups, channels // operation.groups
    one_pixel, grouped = (batch, channels, 1, 1), (batch, groups, each, 1)
    pooled = _mean(writer, f"{name}.channels", one_pixel, value, _PIXEL_AXES)
    rows = _reshaped(writer, f"{name}.grouped", grouped, pooled)
    of_group = _mean(writer, f"{name}.groups", (batch, groups, 1, 1), rows, [2])
    spread = writer.add("tile", f"{name}.spread", grouped, {"x": of_group}, reps=[1, 1, each, 1])
    return _reshaped(writer, name, one_pixel, spread)


def _mean(writer: _Writer, name: str, sizes: Dims, value: str, axes: list[int]) -> str:
    return writer.add("reduce_mean", name, sizes, {"x": value}, axes=axes, keep_dims=True)


def _reshaped(writer: _Writer, name: str, sizes: Dims, value: str) -> str:
    shape = [-1 if size is None else size for size in sizes]
    return writer.add("reshape", name, sizes, {"x": value}, shape=shape)


def _affine(writer: _Writer, operation: GroupNorm | EvoNorm, value: str, deviation: str) -> None:
    """Divided by its deviation, times the weight and plus the bias of each channel."""
    name, sizes = operation.name, writer.sizes[value]
    weight, bias = (writer.per_channel(slot) for slot in operation.slots[:2])
    value = writer.add("real_div", f"{name}.divided", sizes, {"x": value, "y": deviation})
    value = writer.add("mul", f"{name}.scaled", sizes, {"x": value, "y": weight})
    writer.add("add", operation.output, sizes, {"x": value, "y": bias})


def _act(writer: _Writer, operation: Act) -> None:
    if operation.function == "selu":
        (value,), sizes = operation.inputs, writer.sizes[operation.inputs[0]]
        value = writer.add("elu", f"{operation.name}.elu", sizes, {"x": value}, alpha=_SELU_ALPHA)
        writer.add("mul", operation.output, sizes, {"x": value}, y=_SELU_SCALE)
        return
    kind, says = _ACTIVATIONS[operation.function]
    _one(writer, kind, operation, {}, **says)


def _pool(writer: _Writer, operation: Pool) -> None:
    batch, channels, *_ = writer.sizes[operation.inputs[0]]
    _mean(writer, operation.output, (batch, channels, 1, 1), operation.inputs[0], _PIXEL_AXES)


def _average_pool(writer: _Writer, operation: AveragePool) -> None:
    (value,) = operation.inputs
    batch, channels, *pixels = writer.sizes[value]
    writer.add(
        "avg_pool",
        operation.output,
        (batch, channels, *(_strided(size, operation.stride) for size in pixels)),
        {"x": value},
        kernel_sizes=[2, 2],
        strides=[operation.stride] * 2,
        pad_type="valid",
        pad=[0, 0, 0, 0],
        ceil_mode=True,
        exclude_padding_from_average=True,
    )


def _of_two(kind: str) -> Callable[[_Writer, Operation], None]:
    """An operation of two values, of whose sizes it makes the first's."""

    def spell(writer: _Writer, operation: Operation) -> None:
        one, other = operation.inputs
        writer.add(kind, operation.output, writer.sizes[one], {"x": one, "y": other})

    return spell


def _flatten(writer: _Writer, operation: Flatten) -> None:
    (value,) = operation.inputs
    sizes = writer.sizes[value][:2]
    writer.add("squeeze", operation.output, sizes, {"x": value}, axes=_PIXEL_AXES)


def _linear(writer: _Writer, operation: Linear) -> None:
    (value,), (matrix, bias) = operation.inputs, operation.slots
    batch, _ = writer.sizes[value]
    held = {"weight": writer.weight(matrix.name, matrix.shape)}
    held["bias"] = writer.weight(bias.name, bias.shape)
    writer.add("linear", operation.output, (batch, matrix.shape[0]), {"x": value, **held})


def _normalise(writer: _Writer, operation: Normalise) -> None:
    (value,), name = operation.inputs, operation.name
    sizes = writer.sizes[value]
    mean = writer.per_image(f"{name}.mean", operation.mean)
    value = writer.add("sub", f"{name}.centred", sizes, {"x": value, "y": mean})
    std = writer.per_image(f"{name}.std", operation.std)
    writer.add("real_div", operation.output, sizes, {"x": value, "y": std})


def _softmax(writer: _Writer, operation: Softmax) -> None:
    _one(writer, "softmax", operation, {}, axis=1)


def _one(
    writer: _Writer, kind: str, operation: Operation, held: Mapping[str, str], **says: Any
) -> None:
    """One operation of MIL, whose value has the sizes of the one that it reads."""
    (value,) = operation.inputs
    writer.add(kind, operation.output, writer.sizes[value], {"x": value, **held}, **says)


def _names(operation: Operation) -> tuple[str, ...]:
    """Of the tensors that an operation reads."""
    return tuple(slot.name for slot in operation.slots if not slot.is_counter)


_SPELLINGS: dict[type[Operation], Callable[[_Writer, Any], None]] = {
    Conv: _conv,
    Norm: _norm,
    GroupNorm: _group_norm,
    EvoNorm: _evonorm,
    Act: _act,
    Pool: _pool,
    AveragePool: _average_pool,
    Scale: _of_two("mul"),
    Add: _of_two("add"),
    Flatten: _flatten,
    Linear: _linear,
    Normalise: _normalise,
    Softmax: _softmax,
}

_ACTIVATIONS: dict[Function, tuple[str, dict[str, str]]] = {
    "relu": ("relu", {}),
    "gelu": ("gelu", {"mode": "EXACT"}),
    "gelu_new": ("gelu", {"mode": "TANH_APPROXIMATION"}),
    "sigmoid": ("sigmoid", {}),
    "silu": ("silu", {}),
}
