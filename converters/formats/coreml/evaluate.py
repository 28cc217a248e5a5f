"""What an ML program computes, operation by operation, by torch and in float64.

Each value is rounded to the type that the program gives it, as every runtime does that keeps to the
program. Operations are read as coremltools documents them (``converters/mil/mil/ops/defs/iOS15``),
and know nothing of RegNets.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.nn import functional

from converters.formats.coreml.reading import CLASSIFY, Place

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from torch import Tensor

    from converters.formats.coreml.reading import Kind, Package, Step

    Inputs = Mapping[str, Any]

_TYPES = {"float32": torch.float32, "float16": torch.float16}


def evaluate(package: Package, values: Mapping[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
    """Compute a program, value by value.

    Args:
        package: Whose.
        values: Its inputs by name.

    Yields:
        Name and value of each operation that is no constant, in float64, its numbers those of the
        type that the program states. What no later operation reads is not kept.

    Raises:
        ValueError: If an operation is none that is known here, or its value has another shape than
            the program states.
        KeyError: If an operation reads what nothing has made, or lacks an input.
        RuntimeError: From torch, if shapes do not fit.
    """
    last = {read: step.name for step in package.steps for read in step.reads.values()}
    held: dict[str, Any] = {}
    for name, kind in package.inputs.items():
        held[name] = _typed(name, values[name].double(), kind)
    for step in package.steps:
        if step.kind == "const":
            held[step.name] = _constant(package, step)
            continue
        if step.kind == CLASSIFY:  # makes no number
            continue
        if step.kind not in _OPERATIONS:
            raise ValueError(
                f"{step.name} is an operation {step.kind}, which is none that is known"
            )
        inputs = {key: held[read] for key, read in step.reads.items()}
        held[step.name] = _typed(step.name, _OPERATIONS[step.kind](inputs), step.made)
        yield step.name, held[step.name]
        for read in {*step.reads.values(), step.name}:
            if last.get(read, step.name) == step.name:
                held.pop(read, None)


def _constant(package: Package, step: Step) -> Any:
    if isinstance(step.constant, tuple) and step.made.element == "float32":
        sizes = [size or 0 for size in step.made.sizes]
        return torch.tensor(step.constant, dtype=torch.float64).reshape(sizes)
    if not isinstance(step.constant, Place):
        return step.constant
    element, data = package.elements(step)
    sizes = [size or 0 for size in step.made.sizes]
    if element != step.made.element:
        raise ValueError(f"{step.name} is {element} where the program has {step.made.element}")
    return torch.from_numpy(np.frombuffer(data, element).astype(np.float64).reshape(sizes))


def _typed(name: str, value: Tensor, kind: Kind) -> Tensor:
    """A value as its type can hold it."""
    fits = len(kind.sizes) == value.ndim and all(
        stated in {None, size} for stated, size in zip(kind.sizes, value.shape, strict=True)
    )
    if not fits or kind.element not in _TYPES:
        found = f"{list(value.shape)} where {kind.element} of {list(kind.sizes)} is stated"
        raise ValueError(f"{name} has the shape {found}")
    return value.to(_TYPES[kind.element]).double()


def _conv(of: Inputs) -> Tensor:
    value = _padded(of["x"], of, "conv")
    geometry = (of["strides"], (0, 0), of["dilations"], of["groups"])
    return functional.conv2d(value, of["weight"], of.get("bias"), *geometry)


def _padded(value: Tensor, of: Inputs, kind: str) -> Tensor:
    """With the zeros that padding by numbers asks for: before and behind rows, then columns."""
    if of["pad_type"] == "valid":
        return value
    if of["pad_type"] != "custom":
        raise ValueError(f"{kind} pads by {of['pad_type']}, which is not read here")
    top, bottom, left, right = of["pad"]
    return functional.pad(value, (left, right, top, bottom))


def _batch_norm(of: Inputs) -> Tensor:
    mean, variance, gamma, beta = (
        of[key].reshape(-1, 1, 1) for key in ("mean", "variance", "gamma", "beta")
    )
    deviation = torch.sqrt(variance + of["epsilon"])
    return torch.addcmul(beta, gamma, (of["x"] - mean) / deviation)


def _avg_pool(of: Inputs) -> Tensor:
    """The mean of what of each window is in the image."""
    if of["pad_type"] != "valid" or not of["exclude_padding_from_average"]:
        raise ValueError("a mean of windows counts zeros around the image, which is not read here")
    sizes, strides = of["kernel_sizes"], of["strides"]
    return functional.avg_pool2d(of["x"], sizes, strides, 0, of["ceil_mode"], False)


def _gelu(of: Inputs) -> Tensor:
    value: Tensor = of["x"]
    if of["mode"] == "EXACT":
        return 0.5 * value * (1 + torch.erf(value / math.sqrt(2)))
    if of["mode"] != "TANH_APPROXIMATION":
        raise ValueError(f"a gelu is {of['mode']}, which is not read here")
    inner = math.sqrt(2 / math.pi) * (value + 0.044715 * value**3)
    return 0.5 * value * (1 + torch.tanh(inner))


def _elu(of: Inputs) -> Tensor:
    value = of["x"]
    return torch.where(value > 0, value, of["alpha"] * torch.expm1(value.clamp(max=0)))


def _of_two(function: Callable[[Tensor, Any], Tensor]) -> Callable[[Inputs], Tensor]:
    return lambda of: function(of["x"], of["y"])


def _of_one(function: Callable[[Tensor], Tensor]) -> Callable[[Inputs], Tensor]:
    return lambda of: function(of["x"])


_OPERATIONS: dict[str, Callable[[Inputs], Tensor]] = {
    "add": _of_two(torch.add),
    "avg_pool": _avg_pool,
    "batch_norm": _batch_norm,
    "cast": _of_one(torch.Tensor.clone),
    "conv": _conv,
    "elu": _elu,
    "gelu": _gelu,
    "linear": lambda of: of["x"] @ of["weight"].T + of["bias"],
    "mul": _of_two(torch.mul),
    "real_div": _of_two(torch.div),
    "reduce_mean": lambda of: of["x"].mean(of["axes"], keepdim=of["keep_dims"]),
    "relu": lambda of: of["x"].clamp(min=0),
    "reshape": lambda of: of["x"].reshape(of["shape"]),
    "sigmoid": _of_one(torch.sigmoid),
    "silu": lambda of: of["x"] * torch.sigmoid(of["x"]),
    "softmax": lambda of: torch.softmax(of["x"], of["axis"]),
    "sqrt": _of_one(torch.sqrt),
    "squeeze": lambda of: of["x"].squeeze(of["axes"]),
    "sub": _of_two(torch.sub),
    "tile": lambda of: of["x"].repeat(of["reps"]),
}
