"""The reference model on many batches at once, and in the memory of one of its operations.

The weights stay where they are, mapped from their file. All batches go through the list of
operations in lockstep: what an operation computes with is taken from its weights (cast, folded,
rounded), used for every batch, and dropped. So each weight is read once, however many batches there
are, and a network may be larger than the machine's memory.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch.nn.utils.fusion import fuse_conv_bn_weights

from converters.formats.beside import stop_if_told
from converters.formats.operations import computed, tensors_of
from converters.formats.reference import reference_model, torch_threads
from regnet.architecture import PIXELS, Conv, Normalise, folded

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

    from converters.folder.folder import ConvertedFolder
    from converters.formats.operations import Call
    from regnet.architecture import Operation


@dataclass(frozen=True)
class Arithmetic:
    """How the reference model is computed; subclasses round, or err.

    Attributes:
        dtype: Of weights and everything that passes between operations.
        folded: Whether batch norms are folded into their convolutions, as every deployment runtime
            does, so that its rounding is part of an honest computation.
        joined: Whether a 1x1 convolution of all batches is one product, which is five times as fast
            where weights outnumber pixels: torch packs them anew for every image.
    """

    dtype: torch.dtype
    folded: bool = False
    joined: bool = False

    def pixels(self, pixels: Tensor) -> Tensor:
        """A batch, (N, num_channels, H, W), as the network reads it."""
        return pixels

    def held(self, operation: Operation, stored: Mapping[str, Tensor]) -> list[Tensor]:
        """What an operation computes with, once for all batches: kernel and bias if it is folded.

        Args:
            operation: Which.
            stored: The state dict.
        """
        held = tensors_of(operation, stored, self.dtype)
        if isinstance(operation, Conv) and operation.norm:
            scale, shift, mean, variance = tensors_of(operation.norm, stored, self.dtype)
            eps = operation.norm.eps
            return list(fuse_conv_bn_weights(held[0], None, mean, variance, eps, scale, shift))
        return held

    def call(self, batch: int, function: Call, *arguments: Any) -> Tensor:  # noqa: ARG002
        """What a function of torch gives for one of the batches, counted from 0."""
        return function(*arguments)


ORACLE = Arithmetic(torch.float64, joined=True)
EAGER = Arithmetic(torch.float32)


def run_in_lockstep(
    folder: ConvertedFolder,
    inputs: Mapping[str, NDArray[np.float32]],
    arithmetic: Arithmetic,
    seen: Callable[[str, Sequence[Tensor]], None] | None = None,
) -> dict[str, dict[str, NDArray[np.floating]]]:
    """Run the reference model with a folder's weights on every batch.

    On one thread, and, unless the arithmetic joins them, each operation on each batch by itself:
    then outputs are to the last bit what the whole model gives for a batch alone.

    Args:
        folder: A converted folder.
        inputs: Batch to pixels, (N, num_channels, H, W), as the folder's interface takes them.
        arithmetic: How.
        seen: Is shown each value on the way: its name, and what it is for each batch.

    Returns:
        Batch to output name to array, in the arithmetic's dtype.
    """
    operations: Sequence[Operation] = folder.architecture.operations
    operations = _as_needed(folded(operations) if arithmetic.folded else operations)
    last_reader = {value: operation for operation in operations for value in operation.inputs}
    results: dict[str, dict[str, NDArray[np.floating]]] = {batch: {} for batch in inputs}
    with torch.inference_mode(), torch_threads():
        stored = reference_model(folder).state_dict()
        pixels = (torch.from_numpy(batch).to(arithmetic.dtype) for batch in inputs.values())
        normalises = isinstance(operations[0], Normalise)  # and rounds what comes out of that
        values = {PIXELS: [b if normalises else arithmetic.pixels(b) for b in pixels]}
        for operation in operations:
            stop_if_told()
            made = _computed(operation, [values[v] for v in operation.inputs], stored, arithmetic)
            values[operation.output] = made
            if seen:
                seen(operation.output, made)
            for name in operation.inputs:
                if last_reader[name] is operation:
                    del values[name]
            if operation.output in folder.output_names:
                for outputs, output in zip(results.values(), made, strict=True):
                    outputs[operation.output] = output.contiguous().numpy()
    return results


def _as_needed(operations: Sequence[Operation]) -> Sequence[Operation]:
    """In the order of the model written by hand, in which errors are drawn: a shortcut comes last.

    That is, whatever makes the first value that an operation reads comes before what makes others.
    """
    makers = {operation.output: operation for operation in operations}
    ordered: dict[str, Operation] = {}
    needed = [operations[-1].output]
    while needed:
        maker = makers[needed[-1]]
        missing = [value for value in maker.inputs if value in makers and value not in ordered]
        if missing:
            needed.append(missing[0])
        else:
            ordered[needed.pop()] = maker
    return list(ordered.values())


def _computed(
    operation: Operation,
    inputs: Sequence[list[Tensor]],
    stored: Mapping[str, Tensor],
    arithmetic: Arithmetic,
) -> list[Tensor]:
    """What an operation makes of each batch; what it computes with lives no longer than this."""
    held = arithmetic.held(operation, stored)
    match operation:
        case Conv(kernel_size=1, groups=1, stride=stride) if arithmetic.joined:
            return _pointwise(inputs[0], stride, *held)

    def call(function: Call, *arguments: Any) -> list[Tensor]:
        def of(batch: int) -> Tensor:
            own = (value[batch] if isinstance(value, list) else value for value in arguments)
            return arithmetic.call(batch, function, *own)

        return [of(batch) for batch in range(len(inputs[0]))]

    return computed(operation, inputs, held, call)


def _pointwise(
    tensors: Sequence[Tensor], stride: int, weight: Tensor, bias: Tensor | None = None
) -> list[Tensor]:
    """A 1x1 convolution without padding, of (N, in, H, W) each, as one matrix product."""
    seen = [tensor[:, :, ::stride, ::stride].transpose(0, 1) for tensor in tensors]
    product = weight.flatten(1) @ torch.cat([tensor.flatten(1) for tensor in seen], dim=1)
    if bias is not None:
        product += bias[:, None]
    parts = torch.split(product, [tensor[0].numel() for tensor in seen], dim=1)
    return [
        part.reshape(-1, *tensor.shape[1:]).transpose(0, 1).contiguous()
        for part, tensor in zip(parts, seen, strict=True)
    ]
