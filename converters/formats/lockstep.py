"""The reference model on many batches at once, and in the memory of one of its modules.

The weights stay where they are, mapped from their file. All batches go through the network in
lockstep, module by module: what a module computes with is taken from its weights (cast, folded,
rounded), used for every batch, and dropped. So each weight is read once, however many batches there
are, and a network may be larger than the machine's memory.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.fusion import fuse_conv_bn_weights

from converters.formats.reference import reference_model, torch_threads
from regnet.model import RegNetConvLayer

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from converters.folder.folder import ConvertedFolder

    Rounding = Callable[[Tensor], Tensor]
    Evaluation = Callable[[Callable[..., Tensor], list[Any], dict[str, Any]], Tensor]

_LINEAR = (torch.conv2d, functional.linear)
"""What multiplies by weights, as torch names it to ``__torch_function__``."""

_BIAS = 2
"""The argument of both that is added."""


@dataclass(frozen=True, slots=True)
class Arithmetic:
    """How the reference model is computed.

    Attributes:
        dtype: Of weights and everything that passes between modules.
        folded: Whether batch norms are folded into their convolutions, as every deployment runtime
            does, so that its rounding is part of an honest computation.
        joined: Whether a 1x1 convolution of all batches is one product, which is five times as fast
            where weights outnumber pixels: torch packs them anew for every image.
        weight: Rounds the weights of convolutions and linear layers.
        bias: Rounds their biases.
        activation: Rounds what goes into them and what comes out.
        value: Rounds the pixels and what every function gives that computes new numbers.
        evaluations: For each batch what computes a function of torch, given its arguments, in
            place of the function, with errors of its own; it is told more of folded norms.
    """

    dtype: torch.dtype
    folded: bool = False
    joined: bool = False
    weight: Rounding | None = None
    bias: Rounding | None = None
    activation: Rounding | None = None
    value: Rounding | None = None
    evaluations: Sequence[Evaluation] | None = None


EXACT = (functional.relu, torch.relu, torch.flatten)
"""Functions that give numbers which they were given, or zero."""

ORACLE = Arithmetic(torch.float64, joined=True)
EAGER = Arithmetic(torch.float32)


def run_in_lockstep(
    folder: ConvertedFolder, inputs: Mapping[str, NDArray[np.float32]], arithmetic: Arithmetic
) -> dict[str, dict[str, NDArray[np.floating]]]:
    """Run the reference model with a folder's weights on every batch.

    On one thread, and, unless the arithmetic joins them, each operation on each batch by itself:
    then outputs are to the last bit what the whole model gives for a batch alone.

    Args:
        folder: A converted folder.
        inputs: Batch to pixels, (N, num_channels, H, W), normalised.
        arithmetic: How.

    Returns:
        Batch to output name to array, in the arithmetic's dtype.
    """
    with torch.inference_mode(), torch_threads():
        model: nn.Module = reference_model(folder)
        if arithmetic.folded:
            _fold(model)
        pixels = [torch.from_numpy(batch).to(arithmetic.dtype) for batch in inputs.values()]
        if arithmetic.value:
            pixels = [arithmetic.value(batch) for batch in pixels]
        outputs = model(_Batches(pixels, arithmetic))
    results: dict[str, dict[str, NDArray[np.floating]]] = {batch: {} for batch in inputs}
    for name in folder.output_names:
        for batch, output in zip(inputs, outputs[name].tensors, strict=True):
            results[batch][name] = output.contiguous().numpy()
    return results


def _fold(model: nn.Module) -> None:
    for module in model.modules():
        if isinstance(module, RegNetConvLayer):
            folded = _FoldedConvolution(module.convolution, module.normalization)
            module.convolution = folded  # type: ignore[assignment]
            module.normalization = nn.Identity()  # type: ignore[assignment]


class _FoldedConvolution(nn.Module):
    """A convolution that takes its batch norm in each time it is called, and keeps neither."""

    def __init__(self, convolution: nn.Conv2d, normalization: nn.BatchNorm2d) -> None:
        super().__init__()
        self.convolution = convolution
        self.normalization = normalization

    def forward(self, hidden: _Batches) -> _Batches:
        """Map (N, in, H, W) to (N, out, H/stride, W/stride).

        Who evaluates it is told as well of what size of numbers the bias is the difference.
        """
        layer, norm = self.convolution, self.normalization
        stored = (norm.running_mean, norm.running_var, norm.weight, norm.bias)
        mean, variance, scale, shift = (hidden.cast(tensor) for tensor in stored)
        kernel = hidden.cast(layer.weight)
        weight, bias = fuse_conv_bn_weights(kernel, None, mean, variance, norm.eps, scale, shift)
        settings = (layer.stride, layer.padding, layer.dilation, layer.groups)
        if not hidden.evaluated:
            return hidden.computed(torch.conv2d, [hidden, weight, bias, *settings], {})
        factor = scale / torch.sqrt(variance + norm.eps)
        magnitude = torch.hypot(bias, mean * factor) * (factor != 0)
        extra = {"magnitude": magnitude}
        return hidden.computed(torch.conv2d, [hidden, weight, bias, *settings], extra)


class _Batches:
    """Tensors of several shapes that stand for one: what is done to it is done to each.

    Weights met on the way are cast and rounded once for all, and live no longer than the operation.
    Torch's functions hand over to ``__torch_function__`` wherever one of these is an argument
    (https://docs.pytorch.org/docs/stable/notes/extending.html, "Extending torch Python API").
    """

    def __init__(self, tensors: Sequence[Tensor], arithmetic: Arithmetic) -> None:
        self.tensors = tensors
        self._arithmetic = arithmetic

    @classmethod
    def __torch_function__(
        cls,
        func: Callable[..., Tensor],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> _Batches:
        batches = next(value for value in args if isinstance(value, cls))
        return batches.computed(func, list(args), kwargs or {})

    def computed(
        self, func: Callable[..., Tensor], args: list[Any], kwargs: dict[str, Any]
    ) -> _Batches:
        """What a function of torch gives for each, where it is called with these."""
        args = [self.cast(value) for value in args]
        kwargs = {name: self.cast(value) for name, value in kwargs.items()}
        if self._arithmetic.joined and func is torch.conv2d and _is_pointwise(*args[1:]):
            return _Batches(_pointwise(self.tensors, *args[1:4]), self._arithmetic)
        rounding = self._arithmetic if func in _LINEAR else None
        if rounding and rounding.weight:
            args[1] = rounding.weight(args[1])
        if rounding and rounding.bias and len(args) > _BIAS and args[_BIAS] is not None:
            args[_BIAS] = rounding.bias(args[_BIAS])
        value = self._arithmetic.value if func not in EXACT else None

        def compute(batch: int) -> Tensor:
            own = [value.tensors[batch] if isinstance(value, _Batches) else value for value in args]
            if self._arithmetic.evaluations:
                return self._arithmetic.evaluations[batch](func, own, kwargs)
            if not (rounding and rounding.activation):
                result = func(*own, **kwargs)
                return value(result) if value else result
            own[0] = rounding.activation(own[0])
            return rounding.activation(func(*own, **kwargs))

        return _Batches([compute(batch) for batch in range(len(self.tensors))], self._arithmetic)

    def cast(self, value: Any) -> Any:
        """A tensor of weights in the arithmetic's dtype; anything else as it is."""
        return value.to(self._arithmetic.dtype) if isinstance(value, Tensor) else value

    @property
    def evaluated(self) -> bool:
        """Whether something else computes torch's functions."""
        return self._arithmetic.evaluations is not None

    @property
    def shape(self) -> torch.Size:
        """Of the first; the number of channels is the same for all."""
        return self.tensors[0].shape

    def dim(self) -> int:
        """Number of axes, the same for all."""
        return self.tensors[0].dim()

    def flatten(self, *axes: int) -> _Batches:
        """As `torch.flatten`."""
        return self.computed(torch.flatten, [self, *axes], {})

    def __add__(self, other: Any) -> _Batches:
        return self.computed(torch.add, [self, other], {})

    def __mul__(self, other: Any) -> _Batches:
        return self.computed(torch.mul, [self, other], {})

    __radd__ = __add__
    __rmul__ = __mul__


def _is_pointwise(weight: Tensor, *settings: Any) -> bool:
    groups = settings[-1]
    return tuple(weight.shape[2:]) == (1, 1) and groups == 1


def _pointwise(
    tensors: Sequence[Tensor], weight: Tensor, bias: Tensor | None, stride: tuple[int, int]
) -> list[Tensor]:
    """A 1x1 convolution without padding, of (N, in, H, W) each, as one matrix product."""
    seen = [tensor[:, :, :: stride[0], :: stride[1]].transpose(0, 1) for tensor in tensors]
    product = weight.flatten(1) @ torch.cat([tensor.flatten(1) for tensor in seen], dim=1)
    if bias is not None:
        product += bias[:, None]
    parts = torch.split(product, [tensor[0].numel() for tensor in seen], dim=1)
    return [
        part.reshape(-1, *tensor.shape[1:]).transpose(0, 1).contiguous()
        for part, tensor in zip(parts, seen, strict=True)
    ]
