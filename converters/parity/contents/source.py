"""Proof that a folder holds a checkpoint's weights: every tensor against the bytes it came from.

What a tensor should be is worked out here from the plan once more, and on purpose not by the code
that writes weights, which this checks.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from converters.errors import printable
from converters.parity.contents.elements import compare_bits
from converters.parity.contents.tensors import TensorCertificate
from regnet.files.dtypes import cast

if TYPE_CHECKING:
    from converters.folder.folder import ConvertedFolder
    from converters.parity.loaded import Tensors
    from converters.weights.plan import Plan, Step


def certify_source(folder: ConvertedFolder, checkpoint: Tensors, plan: Plan) -> TensorCertificate:
    """Compare every tensor of a folder with the checkpoint's, one in memory at a time.

    Args:
        folder: What was converted.
        checkpoint: Gives its tensors: itself, or its own library.
        plan: Of the checkpoint, in the folder's own dtype.

    Returns:
        ``identical`` counts tensors with the checkpoint's numbers, copied or their channels
        reversed; ``recomputed`` those that were cast or folded.

    Raises:
        InputError: If the checkpoint is damaged.
    """
    faults = {step.target.name: _fault(folder, checkpoint, step) for step in plan.steps}
    right = [step for step in plan.steps if faults[step.target.name] is None]
    recomputed = sum(step.cast is not None for step in right)
    wrong = [f"{name} {fault}" for name, fault in faults.items() if fault]
    extra = (name for name in folder.tensors if name not in faults)
    wrong += (f"{printable(name)} is no tensor of the checkpoint" for name in extra)
    return TensorCertificate(len(right) - recomputed, recomputed, ulps=0, wrong=tuple(wrong))


def _fault(folder: ConvertedFolder, checkpoint: Tensors, step: Step) -> str | None:
    """What is wrong with one of the folder's tensors."""
    name = step.target.name
    held = folder.tensors.get(name)
    if held is None:
        return "is missing"
    if held.shape != step.target.shape:
        return f"has shape {list(held.shape)} where {list(step.target.shape)} belongs"
    dtype = step.target.dtype
    if held.dtype != dtype:
        return f"is {printable(held.dtype)} where the plan has {dtype}"
    planned = _planned_bytes(checkpoint, step)
    difference = compare_bits(memoryview(planned), folder.array(name))
    if not difference.count:
        return None
    filled = f"{step.fill:g}, over and over" if step.fill else "zeros"
    origin = f"the checkpoint's {printable(step.source_name)}" if step.source_name else filled
    return f"differs from {origin} {difference.describe(held.shape)}"


def _planned_bytes(checkpoint: Tensors, step: Step) -> bytes:
    """The elements that a step gives, row-major and little-endian."""
    if step.tensor is None:
        if not step.fill:
            return bytes(step.target.nbytes)
        numbers = np.full(step.target.shape, step.fill, np.float64)
        return cast(numbers, "float64", step.target.dtype).tobytes()
    if step.fold is None:
        array, dtype = checkpoint.array(step.tensor), step.tensor.dtype
    else:
        dtype = "float64"
        array = step.fold.apply(
            step.tensor, lambda tensor: cast(checkpoint.array(tensor), tensor.dtype, dtype)
        )
    if step.flip:
        array = array[:, ::-1]
    if step.cast is not None:
        array = cast(np.ascontiguousarray(array), dtype, step.cast)
    return array.tobytes()
