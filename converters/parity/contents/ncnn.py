"""What ncnn's pair of files holds: layers in a ``.param``, and the weights of each in a ``.bin``.

Every layer is read for what it computes, as ncnn's ``docs/developer-guide/operators.md`` says it,
and compared with what the operation of its name does. If there is one for each operation, each
reads the values that it should, and there is no other, the file computes the folder's network.

Weights have no names. They lie one behind the other in the order of the layers, so what a tensor is
for follows from the layer that takes it.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from converters.checkpoint.graph import INTERFACE
from converters.errors import printable
from converters.folder.interface import Interface
from converters.formats.onnx.form import FOLDED_BIAS, FOLDED_WEIGHT
from converters.parity.contents.held import Contents, HeldTensor, mapped, part
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
    Slot,
    Softmax,
    folded,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from converters.folder.folder import ConvertedFolder
    from regnet.architecture import Operation

_MAGIC = "7767517"
"""The first line of every ``.param``."""

_LONGEST_NAME, _LONGEST_NUMBER = 255, 15
"""Characters that ncnn reads of a word; what follows it takes for the next one."""

_INTEGER = re.compile(r"-?\d+", re.ASCII)
_FLOAT = re.compile(r"-?\d+(\.\d*)?(e[-+]?\d+)?", re.ASCII)
_SAME = -233
_EPS_TOLERANCE = 1e-6
"""Relative: ncnn keeps a setting in float32."""

_FLOAT32 = bytes(4)
"""What precedes a tensor that is neither rounded nor quantised."""


class _Taken(NamedTuple):
    """A tensor that a layer takes from the ``.bin``.

    Attributes:
        leaf: What it is to the layer, in the state dict's word.
        shape: Its sizes.
        flagged: Whether four bytes before it say how it is stored.
    """

    leaf: str
    shape: tuple[int, ...]
    flagged: bool = False


@dataclass(frozen=True, slots=True)
class _Meaning:
    """What a layer computes.

    Attributes:
        what: The function, in words.
        facts: What it depends on beside values and tensors.
        taken: Its tensors, in the order of the ``.bin``.
    """

    what: str
    facts: Mapping[str, Any] = field(default_factory=dict)
    taken: tuple[_Taken, ...] = ()


@dataclass(frozen=True, slots=True)
class _Due:
    """What a layer should compute.

    Attributes:
        value: Of the network, that a message calls it by.
        what: As of :class:`_Meaning`.
        facts: Likewise.
        inputs: Names of the values that it reads.
        output: Name of the one that it makes.
        tensors: By the word that a layer has for it, the name and shape of each that it takes.
    """

    value: str
    what: str
    facts: Mapping[str, Any]
    inputs: tuple[str, ...]
    output: str
    tensors: Mapping[str, tuple[str, tuple[int, ...]]] = field(default_factory=dict)


class _Settings:
    """The numbers behind a layer, each to be taken once.

    Args:
        words: As they stand in the line, ``key=value``.

    Attributes:
        left: Those that nobody has taken.

    Raises:
        ValueError: If one is no setting, too long, or there twice.
    """

    def __init__(self, words: Sequence[str]) -> None:
        pairs = [word.partition("=")[::2] for word in words]
        self.left = dict(pairs)
        sound = (key.isdecimal() and 0 < len(value) <= _LONGEST_NUMBER for key, value in pairs)
        if not all(sound) or len(self.left) < len(pairs):
            raise ValueError(f"the settings {printable(' '.join(words))} cannot be read")

    def integer(self, key: int, default: int | None = None) -> int:
        """An integer; without a default it must be there."""
        text = self.left.pop(str(key), None if default is None else str(default))
        if text is None or not _INTEGER.fullmatch(text):
            raise ValueError(f"setting {key} of a layer is no integer")
        return int(text)

    def real(self, key: int) -> float:
        """A number that ncnn takes for a float, since it has a point or an exponent."""
        text = self.left.pop(str(key), "")
        if not _FLOAT.fullmatch(text) or _INTEGER.fullmatch(text):
            raise ValueError(f"setting {key} of a layer is no float")
        return float(text)


@dataclass(frozen=True, slots=True)
class _Line:
    """A layer as the ``.param`` has it."""

    kind: str
    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    settings: _Settings

    @classmethod
    def of(cls, text: str) -> _Line:
        """Take a line apart.

        Raises:
            ValueError: If it is none.
        """
        words = list(filter(None, text.split(" ")))
        counts = [int(word) for word in words[2:4] if word.isdecimal()]
        end = 4 + sum(counts)
        if (
            len(counts) < len(words[2:4])
            or len(words) < end
            or max(map(len, words)) > _LONGEST_NAME
        ):
            raise ValueError(f"the line {printable(text)} cannot be read")
        names = tuple(words[4:end])
        inputs, outputs = names[: counts[0]], names[counts[0] :]
        return cls(words[0], words[1], inputs, outputs, _Settings(words[end:]))


def read_ncnn(folder: ConvertedFolder, path: Path) -> Contents:
    """Read what the layers of a ``.param`` compute, and which weights each takes from the ``.bin``.

    Raises:
        OSError: If a file cannot be opened.
        ValueError: If the ``.param`` cannot be read, or the ``.bin`` ends too early.
    """
    layers, _, interface = path.read_text(encoding="ascii").partition(f"\n#{INTERFACE}=")
    lines = _lines(layers)
    copied = {
        copy: line.inputs[0] for line in lines if line.kind == "Split" for copy in line.outputs
    }
    due = dict(_all_due(folder))
    weights, at = mapped(path.with_suffix(".bin")), 0
    tensors: list[HeldTensor] = []
    faults = [*_wiring_faults(lines)]
    if Interface.stated({INTERFACE: interface or "{}"}) != folder.interface:
        faults.append("it states another interface")
    for line in lines:
        if line.kind == "Split":
            continue
        meaning, wanted = _meaning(line), due.pop(line.name, None)
        if wanted is None:
            faults.append(f"{printable(line.name)} is a layer that nothing needs")
        else:
            faults += _faults(line, meaning, wanted, copied)
        for taken in meaning.taken:
            tensor, at = _cut(line, taken, wanted, weights, at)
            tensors.append(tensor)
    faults += (f"{missing.value} has no layer {name}" for name, missing in due.items())
    if at != len(weights):
        faults.append(f"the weights end at byte {at}, and the file at {len(weights)}")
    return Contents(tuple(tensors), faults=tuple(faults), graph_compared=True)


def _lines(text: str) -> list[_Line]:
    """The layers of a ``.param``.

    Raises:
        ValueError: If it is none, or its counts, which ncnn trusts, are not those of its lines.
    """
    magic, counts, *rest = text.rstrip("\n").split("\n")
    lines = [_Line.of(line) for line in rest]
    values = sum(len(line.outputs) for line in lines)
    if magic != _MAGIC or counts.split() != [str(len(lines)), str(values)]:
        raise ValueError(
            "its first two lines are not ncnn's, or do not count its layers and values"
        )
    return lines


def _wiring_faults(lines: Sequence[_Line]) -> Iterator[str]:
    """Layers and values that are there twice; ncnn lets one layer make a value, and one read it."""
    for what, names in (
        ("is the name of {} layers", [line.name for line in lines]),
        ("is made {} times", [value for line in lines for value in line.outputs]),
        ("is read {} times without a Split", [value for line in lines for value in line.inputs]),
    ):
        for name, count in Counter(names).items():
            if count > 1:
                yield f"{printable(name)} {what.format(count)}"


def _faults(
    line: _Line, meaning: _Meaning, wanted: _Due, copied: Mapping[str, str]
) -> Iterator[str]:
    """Where a layer computes something else than it should."""
    read = tuple(copied.get(value, value) for value in line.inputs)
    if meaning.what != wanted.what:
        yield f"{wanted.value} is {meaning.what} where {wanted.what} belongs"
        return
    for fact, due in wanted.facts.items():
        found = meaning.facts[fact]
        if not (
            math.isclose(found, due, rel_tol=_EPS_TOLERANCE) if fact == "eps" else found == due
        ):
            yield f"{wanted.value} has {fact} {found} where {due} belongs"
    if read != wanted.inputs:
        yield f"{wanted.value} reads {_words(read)} where {_words(wanted.inputs)} belongs"
    if line.outputs != (wanted.output,):
        yield f"{wanted.value} makes {_words(line.outputs)} where {wanted.output} belongs"
    if {taken.leaf for taken in meaning.taken} != wanted.tensors.keys():
        yield f"{wanted.value} has {_words(t.leaf for t in meaning.taken)} for its tensors"
    for key, value in line.settings.left.items():
        yield f"{wanted.value} is told {printable(f'{key}={value}')}, which nothing needs"


def _words(names: Iterable[str]) -> str:
    return ", ".join(map(printable, names)) or "nothing"


def _cut(
    line: _Line, taken: _Taken, wanted: _Due | None, weights: memoryview, at: int
) -> tuple[HeldTensor, int]:
    """A tensor that begins at a byte of the ``.bin``, and where the next one does."""
    fault = None
    if taken.flagged:
        if part(weights, at, len(_FLOAT32)) != _FLOAT32:
            fault = "is said to be stored otherwise than in float32"
        at += len(_FLOAT32)
    size = 4 * math.prod(taken.shape)
    name, shape = f"{line.name}.{taken.leaf}", taken.shape
    if wanted and taken.leaf in wanted.tensors:
        name, due = wanted.tensors[taken.leaf]
        if [size for size in due if size > 1] == [size for size in shape if size > 1]:
            shape = due  # a product of one pixel is a matrix's
    return HeldTensor(name, "float32", shape, part(weights, at, size), fault), at + size


def _meaning(line: _Line) -> _Meaning:
    """What ncnn computes for a layer.

    Raises:
        ValueError: If it is of a kind that no RegNet has, or what it is told cannot be.
    """
    if line.kind not in _MEANINGS:
        raise ValueError(f"{printable(line.name)} is a {printable(line.kind)}, not of a RegNet")
    return _MEANINGS[line.kind](line.settings)


def _convolution(settings: _Settings) -> _Meaning:
    out, size, count = settings.integer(0), settings.integer(1), settings.integer(6)
    padding, groups = settings.integer(4, 0), settings.integer(7, 1)
    facts = {
        "stride": settings.integer(3, 1),
        "padding": "same" if padding == _SAME else padding,
        "groups": groups,
    }
    shape = (out, _quotient(count, out * size * size), size, size)
    return _Meaning("a convolution", facts, _weight_and_bias(shape, settings.integer(5, 0)))


def _inner_product(settings: _Settings) -> _Meaning:
    out, count = settings.integer(0), settings.integer(2)
    shape = (out, _quotient(count, out))
    return _Meaning("a product", {}, _weight_and_bias(shape, settings.integer(1, 0)))


def _weight_and_bias(shape: tuple[int, ...], has_bias: int) -> tuple[_Taken, ...]:
    return (_Taken("weight", shape, flagged=True), *([_Taken("bias", shape[:1])] * bool(has_bias)))


def _quotient(count: int, part_of_it: int) -> int:
    if part_of_it < 1 or count % part_of_it:
        raise ValueError(f"a kernel of {count} numbers has no shape of {part_of_it} times some")
    return count // part_of_it


def _batch_norm(settings: _Settings) -> _Meaning:
    shape = (settings.integer(0),)
    leaves = ("weight", "running_mean", "running_var", "bias")
    facts = {"eps": settings.real(1)}
    return _Meaning("a batch norm", facts, tuple(_Taken(leaf, shape) for leaf in leaves))


def _group_norm(settings: _Settings) -> _Meaning:
    groups, shape = settings.integer(0), (settings.integer(1),)
    facts = {"groups": groups, "eps": settings.real(2)}
    return _Meaning("a group norm", facts, (_Taken("weight", shape), _Taken("bias", shape)))


def _scale(settings: _Settings) -> _Meaning:
    shape = (settings.integer(0),)
    bias = [_Taken("bias", shape)] * bool(settings.integer(1, 0))
    return _Meaning("a product with each channel's number", {}, (_Taken("weight", shape), *bias))


def _memory(settings: _Settings) -> _Meaning:
    width, height, channels = (settings.integer(key, 0) for key in range(3))
    facts = {"height": height, "width": width}
    return _Meaning("a tensor", facts, (_Taken("numbers", (channels,)),))


def _softmax(settings: _Settings) -> _Meaning:
    axis, mended = settings.integer(0, 0), settings.integer(1, 0)
    return _Meaning("probabilities", {"axis": axis, "of a version": mended})


def _pooling(settings: _Settings) -> _Meaning:
    mean = "mean" if settings.integer(0, 0) == 1 else "largest value"
    if settings.integer(4, 0):
        return _Meaning(f"the {mean} of each channel")
    size, stride = settings.integer(1), settings.integer(2, 1)
    ending = {0: "padded to the end", 1: "of whole windows"}.get(settings.integer(5, 0), "padded")
    return _Meaning(f"the {mean} of windows", {"size": size, "stride": stride, "ending": ending})


def _padding(settings: _Settings) -> _Meaning:
    sides = {side: settings.integer(key, 0) for key, side in enumerate(_SIDES)}
    kind = {1: "the last repeated", 2: "mirrored"}.get(settings.integer(4, 0), "a constant")
    return _Meaning("padding", {**sides, "filling": kind})


def _binary(settings: _Settings) -> _Meaning:
    kind = settings.integer(0, 0)
    what = _BINARY[kind] if 0 <= kind < len(_BINARY) else f"operation {kind}"
    if settings.integer(1, 0):
        return _Meaning(f"{what} with a number", {"eps": settings.real(2)})
    return _Meaning(what)


def _unary(settings: _Settings) -> _Meaning:
    kind = settings.integer(0, 0)
    return _Meaning({4: "the square", 5: "the root"}.get(kind, f"function {kind}"))


def _reshape(settings: _Settings) -> _Meaning:
    sizes = [settings.integer(key, 0) for key in (2, 1, 0) if str(key) in settings.left]
    return _Meaning("another shape", {"sizes": sizes})


def _tile(settings: _Settings) -> _Meaning:
    facts = {"axis": settings.integer(0, 0), "times": settings.integer(1, 1)}
    return _Meaning("repetition", facts)


def _gelu(settings: _Settings) -> _Meaning:
    return _Meaning("gelu_new" if settings.integer(0, 0) else "gelu")


def _no_setting(what: str) -> Callable[[_Settings], _Meaning]:
    return lambda _: _Meaning(what)


_SIDES = ("above", "below", "left", "right")
_BINARY = ("a sum", "a difference", "a product of two", "a quotient")

_MEANINGS: dict[str, Callable[[_Settings], _Meaning]] = {
    "Input": _no_setting("an input"),
    "Convolution": _convolution,
    "ConvolutionDepthWise": _convolution,
    "InnerProduct": _inner_product,
    "BatchNorm": _batch_norm,
    "GroupNorm": _group_norm,
    "Scale": _scale,
    "Pooling": _pooling,
    "Padding": _padding,
    "BinaryOp": _binary,
    "UnaryOp": _unary,
    "Reshape": _reshape,
    "Tile": _tile,
    "Flatten": _no_setting("a flat shape"),
    "ReLU": _no_setting("relu"),
    "Sigmoid": _no_setting("sigmoid"),
    "Swish": _no_setting("silu"),
    "SELU": _no_setting("selu"),
    "GELU": _gelu,
    "MemoryData": _memory,
    "Softmax": _softmax,
}
"""What a layer's kind and settings say; those left out by name are none that a RegNet needs."""


def _all_due(folder: ConvertedFolder) -> Iterator[tuple[str, _Due]]:
    """Name of a layer to what it should be."""
    yield PIXELS, _Due(PIXELS, "an input", {}, (), PIXELS)
    for operation in folded(folder.architecture.operations):
        norm = operation.norm if isinstance(operation, Conv) else None
        value = operation.around if norm else operation.name
        steps = list(_steps(operation))
        for index, step in enumerate(steps):
            last = index == len(steps) - 1
            name = operation.name if last else f"{operation.name}.{step.name}"
            tensors = {leaf: (slot.name, slot.shape) for leaf, slot in step.tensors.items()}
            if norm:
                shape = operation.slots[0].shape
                tensors = {
                    "weight": (operation.around + FOLDED_WEIGHT, shape),
                    "bias": (operation.around + FOLDED_BIAS, shape[:1]),
                }
            output = operation.output if last else name
            yield name, _Due(value, step.what, step.facts, step.inputs, output, tensors)


class _Step(NamedTuple):
    """A layer that an operation takes.

    Attributes:
        what: As of :class:`_Meaning`.
        inputs: What it reads.
        facts: As of :class:`_Meaning`.
        tensors: By a layer's word for it.
        name: Behind the operation's; of the last it is not asked.
    """

    what: str
    inputs: tuple[str, ...]
    facts: Mapping[str, Any] = {}
    tensors: Mapping[str, Slot] = {}
    name: str = ""


def _steps(operation: Operation) -> Iterator[_Step]:  # noqa: C901, PLR0912 -- one for each kind
    """The layers that an operation takes, in order."""
    inputs = operation.inputs
    held = {slot.leaf: slot for slot in operation.slots if not slot.is_counter}
    match operation:
        case Linear():
            yield _Step("a product", inputs, {}, held)
        case Conv() if "bias" in held:  # a gate's, of one pixel
            yield _Step("a product", inputs, {}, held)
        case Conv(stride=stride, groups=groups, padding=padding, kernel_size=size):
            pads = "same" if padding == "same" else size // 2
            facts = {"stride": stride, "padding": pads, "groups": groups}
            yield _Step("a convolution", inputs, facts, held)
        case Norm(eps=eps):
            yield _Step("a batch norm", inputs, {"eps": eps}, held)
        case GroupNorm(groups=groups, eps=eps):
            yield _Step("a group norm", inputs, {"groups": groups, "eps": eps}, held)
        case EvoNorm():
            yield from _evonorm_steps(operation, held)
        case Act(function=function):
            yield _Step(function, inputs)
        case Pool():
            yield _Step("the mean of each channel", inputs)
        case AveragePool(stride=stride):
            sides = dict(zip(_SIDES, (0, 1, 0, 1), strict=True))
            yield _Step("padding", inputs, {**sides, "filling": "the last repeated"}, {}, "padded")
            facts = {"size": 2, "stride": stride, "ending": "of whole windows"}
            yield _Step("the mean of windows", (f"{operation.name}.padded",), facts)
        case Scale():
            yield _Step("a product of two", inputs)
        case Add():
            yield _Step("a sum", inputs)
        case Flatten():
            yield _Step("a flat shape", inputs)
        case Normalise():
            yield from _normalise_steps(operation)
        case Softmax():
            yield _Step("probabilities", inputs, {"axis": 0, "of a version": 1})


def _normalise_steps(operation: Normalise) -> Iterator[_Step]:
    """The pixels less their mean, divided by their deviation."""
    (value,) = operation.inputs
    for what, leaf in (("a difference", "mean"), ("a quotient", "std")):
        held = f"{operation.name}.{leaf}"
        slot = Slot(held, (len(operation.mean),), "", {})
        yield _Step("a tensor", (), {"height": 1, "width": 1}, {"numbers": slot}, leaf)
        yield _Step(what, (value, held), name="centred")
        value = f"{operation.name}.centred"


def _evonorm_steps(operation: EvoNorm, held: Mapping[str, Slot]) -> Iterator[_Step]:
    """``f(x) / sqrt(var(x) + eps) * weight + bias``, with what is alike in a group per channel."""

    def made(name: str) -> str:
        return f"{operation.name}.{name}"

    def mean_of_groups(name: str, value: str) -> Iterator[_Step]:
        channels, groups = held["weight"].shape[0], operation.groups
        width = channels // groups
        steps: list[tuple[str, str, dict[str, Any]]] = [
            ("the mean of each channel", f"{name}.channels", {}),
            ("another shape", f"{name}.grouped", {"sizes": [groups, 1, width]}),
            ("the mean of each channel", f"{name}.groups", {}),
            ("another shape", f"{name}.column", {"sizes": [groups, 1]}),
            ("repetition", f"{name}.tiled", {"axis": 1, "times": width}),
            ("another shape", name, {"sizes": [channels]}),
        ]
        for what, step, facts in steps:
            yield _Step(what, (value,), facts, {}, step)
            value = made(step)

    (value,) = operation.inputs
    yield from mean_of_groups("mean", value)
    yield _Step("a difference", (value, made("mean")), name="centred")
    yield _Step("the square", (made("centred"),), name="square")
    yield from mean_of_groups("variance", made("square"))
    yield _Step("a sum with a number", (made("variance"),), {"eps": operation.eps}, name="shifted")
    yield _Step("the root", (made("shifted"),), name="deviation")
    per_channel = "a product with each channel's number"
    if slope := held.get("v"):
        yield _Step(per_channel, (value,), {}, {"weight": slope}, "sloped")
        yield _Step("sigmoid", (made("sloped"),), name="sigmoid")
        yield _Step("a product of two", (value, made("sigmoid")), name="gated")
        value = made("gated")
    yield _Step("a quotient", (value, made("deviation")), name="divided")
    affine = {leaf: held[leaf] for leaf in ("weight", "bias")}
    yield _Step(per_channel, (made("divided"),), {}, affine)
