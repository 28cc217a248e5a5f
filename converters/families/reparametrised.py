"""Weights that a file holds in parts, of which torch computes them when the network runs.

Pruning keeps a weight and a mask; weight norm a length and a direction for each filter. Both are
computed here, once and in float64. Source: torch/nn/utils/prune.py (``apply_mask``), weight_norm.py
(``weight_g``, ``weight_v``) and parametrizations.py (``_WeightNorm``: ``original0``,
``original1``).

Likewise the mean of a batch norm behind a convolution with a bias: where the bias is left out, so
much less is taken off.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Literal, TypeVar

from converters.checkpoint.values import StoredTensor
from converters.families.source import Decision
from regnet.files.dtypes import DTYPES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    import numpy as np
    from numpy.typing import NDArray

Kind = Literal["pruning", "weight norm", "convolution bias"]

_T = TypeVar("_T")

_PARTS: tuple[tuple[Kind, re.Pattern[str], str, str], ...] = (
    ("pruning", re.compile(r"(?P<before>.*)_orig"), r"{before}_mask", r"{before}"),
    ("weight norm", re.compile(r"(?P<before>.*)_g"), r"{before}_v", r"{before}"),
    (
        "weight norm",
        re.compile(r"(?P<before>(?:.*\.)?)parametrizations\.(?P<leaf>\w+)\.original0"),
        r"{before}parametrizations.{leaf}.original1",
        r"{before}{leaf}",
    ),
)
"""The name of a part, from it that of the other, and that of the weight."""

_ACTIONS: dict[Kind, str] = {
    "pruning": "apply mask",
    "weight norm": "fold weight norm",
    "convolution bias": "fold convolution bias",
}

_REASONS: dict[Kind, str] = {
    "pruning": "the file holds them with the masks of torch.nn.utils.prune; multiplied by those",
    "weight norm": "the file holds length and direction of each filter; multiplied in float64",
    "convolution bias": "a batch norm follows, whose mean takes it up; subtracted in float64",
}


@dataclass(frozen=True, slots=True)
class Reparametrised(StoredTensor):
    """A weight that is computed of two tensors; its shape and dtype are those of the larger one.

    Attributes:
        kind: How.
        inputs: Weight and mask, or mean and bias, of one shape; or length and direction of each
            filter, of as many axes, where the length has size 1 along those that a filter has.
    """

    kind: Kind = "pruning"
    inputs: tuple[StoredTensor, ...] = ()

    @property
    def parts(self) -> tuple[StoredTensor, ...]:
        """What of the file it is computed of."""
        return tuple(part for tensor in self.inputs for part in tensor.parts)

    @property
    def runs(self) -> None:
        """None, as it lies nowhere in the file."""
        return

    @property
    def action(self) -> str:
        """What a plan calls it."""
        return _ACTIONS[self.kind]

    def apply(
        self, tensor: StoredTensor, read: Callable[[StoredTensor], NDArray[np.float64]]
    ) -> NDArray[np.float64]:
        """Compute the weight.

        Args:
            tensor: Itself.
            read: Returns a tensor's numbers in float64.

        Returns:
            Its numbers in float64, which is where all of it is computed.
        """
        import numpy as np

        assert tensor is self  # noqa: S101
        first, second = map(read, self.inputs)
        if self.kind == "convolution bias":
            mean: NDArray[np.float64] = first - second
            return mean
        if self.kind == "pruning":
            pruned: NDArray[np.float64] = first * second
            return pruned
        axes = tuple(axis for axis, size in enumerate(first.shape) if size == 1)
        axes = axes or tuple(range(second.ndim))
        norm = np.sqrt(np.square(second).sum(axes, keepdims=True))
        scaled: NDArray[np.float64] = second * (first / norm)
        return scaled

    def permuted(self, axes: Sequence[int]) -> Reparametrised:
        """The same under axes of another order."""
        inputs = tuple(t.permuted(axes) if t.shape else t for t in self.inputs)
        shape = tuple(self.shape[axis] for axis in axes)
        stride = tuple(self.stride[axis] for axis in axes)
        return replace(self, shape=shape, stride=stride, inputs=inputs)


def computed(mapped: Mapping[str, _T]) -> dict[str, _T | Reparametrised]:
    """Put weights in the place of the parts that a mapping holds of them.

    What only looks alike, such as two tensors of shapes that do not fit, is left as it is.

    Args:
        mapped: Tensors, and whatever else, by name.

    Returns:
        The same, in order, a weight where its first part was.
    """
    weights: dict[str, tuple[str, Reparametrised]] = {}
    others: set[str] = set()
    for name in mapped:
        for kind, pattern, second, whole in _PARTS:
            match = pattern.fullmatch(name)
            other = second.format(**match.groupdict()) if match else ""
            target = whole.format(**match.groupdict()) if match else ""
            if other not in mapped or target in mapped:
                continue
            weight = _of(kind, mapped[name], mapped[other])
            if weight is not None:
                weights[name] = target, weight
                others.add(other)
    if not weights:
        return dict(mapped)
    found: dict[str, _T | Reparametrised] = {}
    for name, value in mapped.items():
        if name in weights:
            target, weight = weights[name]
            found[target] = weight
        elif name not in others:
            found[name] = value
    return found


def without_bias(mean: StoredTensor, bias: StoredTensor) -> Reparametrised | None:
    """The mean of a batch norm, as it is where the convolution before it has no bias.

    Args:
        mean: The running mean, (channels,).
        bias: The convolution's, (channels,).

    Returns:
        Their difference; None if the bias does not fit.
    """
    return _of("convolution bias", mean, bias)


def decisions(tensors: Iterable[StoredTensor]) -> tuple[Decision, ...]:
    """What was computed, for people; nothing where nothing was."""
    kinds = [tensor.kind for tensor in tensors if isinstance(tensor, Reparametrised)]
    return tuple(
        Decision(kind, f"{kinds.count(kind)} weights", _REASONS[kind])
        for kind in dict.fromkeys(kinds)
    )


def _of(kind: Kind, first: object, second: object) -> Reparametrised | None:
    """The weight that two parts give; None if they cannot be the parts of one."""
    if not isinstance(first, StoredTensor) or not isinstance(second, StoredTensor):
        return None
    normed, pruned = kind == "weight norm", kind == "pruning"
    whole, other = (second, first) if normed else (first, second)
    pairs = list(zip(whole.shape, other.shape, strict=False))
    same_axes = len(whole.shape) == len(other.shape) or (normed and not other.shape)
    fits = all(b == a or (b == 1 and normed) for a, b in pairs)
    mask = {*DTYPES, "bool", "uint8", "int8", "int32", "int64"} if pruned else set(DTYPES)
    if not same_axes or not fits or whole.dtype not in DTYPES or other.dtype not in mask:
        return None
    own = {f.name: getattr(whole, f.name) for f in fields(StoredTensor)}
    return Reparametrised(**own, kind=kind, inputs=(first, second))
