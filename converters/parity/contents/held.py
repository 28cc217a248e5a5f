"""What an artefact holds, as its reader hands it to :mod:`converters.parity.contents.tensors`.

Each kind of artefact has one reader beside this file, which its format names
(:attr:`converters.formats.format.Format.certificate`). It is called with the folder and the path of
the file, which is neither trusted nor executed, and raises whatever it comes to if that cannot be
read. A reader maps the file and takes its structure apart; the elements of the tensors stay on disk
until they are compared, one tensor after another.
"""

from __future__ import annotations

import mmap
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from regnet.files.dtypes import COMPUTED, item_size

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from numpy.typing import NDArray

    from regnet.files.dtypes import DType


LARGEST_BIAS = 2**30
"""In steps: what is added to a product of integers leaves a bit to the sum."""


@dataclass(frozen=True, slots=True)
class HeldTensor:
    """A tensor of an artefact.

    Attributes:
        name: That of the state dict, or ``<module>.folded_weight`` or ``<module>.folded_bias``.
        dtype: torch's name of the element type, without ``torch.``.
        shape: The sizes.
        data: The elements, little-endian and row-major, without gaps; mapped rather than read.
        fault: What is wrong with the way it is held, as a clause that follows its name; then the
            elements do not matter.
        steps: Of integers: what one is worth, for each index of the first axis; None for floats.
        least_steps: What one must be worth at least, of kernels in integers, (rows,), so that what
            is added to their products can be said in steps as well.
        axes: Where each axis of the shape is in the data, if they lie in another order.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    data: memoryview
    fault: str | None = None
    steps: NDArray[np.float32] | None = None
    least_steps: NDArray[np.float64] | None = None
    axes: tuple[int, ...] = ()

    @property
    def row_major(self) -> memoryview:
        """The elements in the order of the shape; copied where they lie in another."""
        if not self.axes:
            return self.data
        lying = [0] * len(self.axes)
        for size, axis in zip(self.shape, self.axes, strict=True):
            lying[axis] = size
        array = np.frombuffer(self.data, f"V{item_size(self.dtype)}").reshape(lying)
        return memoryview(array.transpose(self.axes).tobytes())


@dataclass(frozen=True, slots=True)
class Contents:
    """All that an artefact holds.

    Attributes:
        tensors: In the order of the file.
        counters: Whether ``num_batches_tracked`` must be among them.
        weights_sha256: Digests of the weights files that the artefact says it belongs to, by file
            name; None if it needs none of them.
        faults: What else is wrong, one clause each.
        precision: What folded and cast tensors are rounded to: ``float32`` or ``float16``.
        graph_compared: Whether its graph or code was compared, node by node or line by line, with
            what is written for the folder; what differed is among the faults.
        folded_in: The type that folds were computed in before they were rounded to ``precision``:
            ours in float64, those of other exporters in float32.
        grids: Of activations in integers the least and the largest number that each can be, by
            the name of the value.
        marked: Of ONNX, whether it says that this project wrote it, in whatever revision.
    """

    tensors: tuple[HeldTensor, ...]
    counters: bool = False
    weights_sha256: Mapping[str, str] | None = None
    faults: tuple[str, ...] = ()
    precision: str = COMPUTED
    graph_compared: bool = False
    folded_in: DType = "float64"
    marked: bool = False
    grids: Mapping[str, tuple[float, float]] = field(default_factory=dict)


def mapped(path: Path) -> memoryview:
    """Map a file that is not empty, read-only; the map lasts as long as a view of it.

    Raises:
        OSError: If it cannot be opened.
        ValueError: If it is empty.
    """
    with path.open("rb") as file:
        return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))


def part(view: memoryview, offset: int, length: int) -> memoryview:
    """Take a stretch of a view.

    Raises:
        ValueError: If it does not lie inside.
    """
    if not 0 <= offset <= offset + length <= len(view):
        raise ValueError(f"it ends at byte {len(view)}, where {offset + length} are needed")
    return view[offset : offset + length]
