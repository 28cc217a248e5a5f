"""Whether the grids of int8 hold what the network makes of natural images.

The numbers that come out hardly show that a few activations are clipped. So the folder's own
network is computed on the natural batches of verification, among which the exporter measures its
ranges, and every grid must reach from the least to the largest number of its value there.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from converters.folder.inputs import NATURAL, verification_inputs
from converters.folder.interface import NETWORK
from converters.formats.lockstep import Arithmetic, run_in_lockstep
from regnet.architecture import NORMALISED, PIXELS

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from torch import Tensor

    from converters.folder.folder import ConvertedFolder

    Ranges = dict[str, tuple[float, float]]

_STEPS = 255


def clipping(folder: ConvertedFolder, grids: Mapping[str, tuple[float, float]]) -> Iterator[str]:
    """Name values that are cut off by more than a step.

    Args:
        folder: Whose network.
        grids: The least and the largest number of each value's grid, by its name.

    Yields:
        A clause each, which begins with the name.

    Raises:
        InputError: If the folder is incomplete.
    """
    for name, (least, most) in natural_ranges(folder).items():
        if name not in grids:
            continue
        begin, end = grids[name]
        step = (end - begin) / _STEPS
        if least < begin - step or most > end + step:
            yield (
                f"{name} is cut to {begin:.6g} to {end:.6g}, "
                f"and natural images make it {least:.6g} to {most:.6g}"
            )


def natural_ranges(folder: ConvertedFolder) -> Ranges:
    """The least and the largest number of each value on the natural batches, by its name."""
    import torch

    folder = folder.offering(NETWORK)
    inputs = verification_inputs(folder.config.num_channels, folder.image_size)
    natural = {name: pixels for name, pixels in inputs.items() if name in NATURAL}
    ranges: Ranges = {}

    def seen(name: str, made: Sequence[Tensor]) -> None:
        ranges[name] = (
            min(float(value.min()) for value in made),
            max(float(value.max()) for value in made),
        )

    seen(PIXELS, [torch.from_numpy(pixels) for pixels in natural.values()])
    run_in_lockstep(folder, natural, Arithmetic(torch.float32, folded=True), seen)
    return {**ranges, NORMALISED: ranges[PIXELS]}
