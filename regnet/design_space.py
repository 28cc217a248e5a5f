"""The quantised linear rule of the paper, the 24 published networks, and their cost.

Source: Radosavovic et al., "Designing Network Design Spaces", arXiv 2003.13678, section 3.3; the
numbers are those of pycls' ``configs/dds_baselines`` and its model zoo.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING, Any

from regnet.architecture import Architecture, Conv, Linear, extents
from regnet.config import IMAGENET_CLASSES, RegNetConfig

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from regnet.architecture import Operation
    from regnet.config import LayerType

QUANTUM = 8
"""Widths are multiples of this before they are snapped to groups."""


def stage_widths_and_depths(
    depth: int, w_0: int, w_a: float, w_m: float
) -> tuple[list[int], list[int]]:
    """Apply the quantised linear rule: a width per block, equal neighbours forming a stage.

    Block ``j`` would have width ``w_0 + w_a * j``; it gets the nearest power ``w_0 * w_m ** s``
    with integer ``s``, rounded to a multiple of 8.

    Args:
        depth: Number of blocks.
        w_0: Initial width, a positive multiple of 8.
        w_a: Slope of the width, not negative.
        w_m: Width multiplier between stages, above 1.

    Returns:
        Width and depth of each stage, before groups are fitted.

    Raises:
        ValueError: If a parameter is out of its range.
    """
    if depth < 1 or w_0 <= 0 or w_0 % QUANTUM or w_a < 0 or w_m <= 1:
        raise ValueError(
            f"depth={depth}, w_0={w_0}, w_a={w_a}, w_m={w_m} is outside the design space: it needs "
            "depth >= 1, w_0 a positive multiple of 8, w_a >= 0 and w_m > 1."
        )
    exponents = (round(math.log((w_0 + w_a * j) / w_0) / math.log(w_m)) for j in range(depth))
    widths = [round(w_0 * w_m**s / QUANTUM) * QUANTUM for s in exponents]
    stages = [(width, len(list(blocks))) for width, blocks in groupby(widths)]
    return [width for width, _ in stages], [blocks for _, blocks in stages]


def fit_widths_to_groups(
    widths: Sequence[int], group_width: int, expansion: float = 1.0, *, whole: bool = False
) -> list[int]:
    """Snap the bottleneck of each stage to the nearest multiple of its group width.

    A bottleneck narrower than the group width stays as it is and has one group. Source: pycls
    ``models/regnet.py`` (0.1.1) and ``models/blocks.py`` (main).

    Args:
        widths: Of the stages.
        group_width: Channels per group.
        expansion: Width of the bottleneck as a multiple of the stage's.
        whole: Whether it is snapped to a multiple of ``expansion`` as well, as pycls does it since
            it has RegNetZ, where that is above 1; it must be a whole number then.
    """
    fitted: list[int] = []
    for width in widths:
        inner = max(1, int(width * expansion))
        step = group = min(group_width, inner)
        if whole and expansion > 1:
            if expansion != int(expansion):
                raise ValueError(f"expansion={expansion} is not a whole number.")
            step = math.lcm(group, int(expansion))
        least = step if whole else 0
        fitted.append(int(max(least, round(inner / step) * step) / expansion))
    return fitted


@dataclass(frozen=True, slots=True)
class NamedNetwork:
    """A published network: five numbers and whether it has squeeze-and-excitation.

    A RegNetZ has a width within blocks, and other blocks, beside these.
    """

    name: str
    depth: int
    w_0: int
    w_a: float
    w_m: float
    group_width: int

    @property
    def layer_type(self) -> LayerType:
        """``"y"`` if the network has squeeze-and-excitation, else ``"x"``."""
        return "x" if self.name.startswith("RegNetX") else "y"

    @property
    def wider(self) -> dict[str, Any]:
        """What transformers' configuration cannot say of it, and the activation that goes with it.

        Source: ClassyVision ``models/regnet.py``.
        """
        if not self.name.startswith("RegNetZ"):
            return {}
        return {
            "expansion": 4.0,
            "shortcut": "none",
            "output_act": False,
            "hidden_act": "silu",
            "se_act": "silu",
        }

    def config(self, **fields: Any) -> RegNetConfig:
        """The network's configuration, with 1000 classes unless ``fields`` of it say otherwise."""
        widths, depths = stage_widths_and_depths(self.depth, self.w_0, self.w_a, self.w_m)
        architecture: dict[str, Any] = {
            "hidden_sizes": fit_widths_to_groups(widths, self.group_width),
            "depths": depths,
            "groups_width": self.group_width,
            "layer_type": self.layer_type,
            **self.wider,
        }
        if "id2label" not in fields:
            architecture["num_labels"] = IMAGENET_CLASSES
        return RegNetConfig(**architecture | fields)


NETWORKS: dict[str, NamedNetwork] = {
    network.name: network
    for network in (
        NamedNetwork("RegNetX-200MF", 13, 24, 36.44, 2.49, 8),
        NamedNetwork("RegNetX-400MF", 22, 24, 24.48, 2.54, 16),
        NamedNetwork("RegNetX-600MF", 16, 48, 36.97, 2.24, 24),
        NamedNetwork("RegNetX-800MF", 16, 56, 35.73, 2.28, 16),
        NamedNetwork("RegNetX-1.6GF", 18, 80, 34.01, 2.25, 24),
        NamedNetwork("RegNetX-3.2GF", 25, 88, 26.31, 2.25, 48),
        NamedNetwork("RegNetX-4.0GF", 23, 96, 38.65, 2.43, 40),
        NamedNetwork("RegNetX-6.4GF", 17, 184, 60.83, 2.07, 56),
        NamedNetwork("RegNetX-8.0GF", 23, 80, 49.56, 2.88, 120),
        NamedNetwork("RegNetX-12GF", 19, 168, 73.36, 2.37, 112),
        NamedNetwork("RegNetX-16GF", 22, 216, 55.59, 2.1, 128),
        NamedNetwork("RegNetX-32GF", 23, 320, 69.86, 2.0, 168),
        NamedNetwork("RegNetY-200MF", 13, 24, 36.44, 2.49, 8),
        NamedNetwork("RegNetY-400MF", 16, 48, 27.89, 2.09, 8),
        NamedNetwork("RegNetY-600MF", 15, 48, 32.54, 2.32, 16),
        NamedNetwork("RegNetY-800MF", 14, 56, 38.84, 2.4, 16),
        NamedNetwork("RegNetY-1.6GF", 27, 48, 20.71, 2.65, 24),
        NamedNetwork("RegNetY-3.2GF", 21, 80, 42.63, 2.66, 24),
        NamedNetwork("RegNetY-4.0GF", 22, 96, 31.41, 2.24, 64),
        NamedNetwork("RegNetY-6.4GF", 25, 112, 33.22, 2.27, 72),
        NamedNetwork("RegNetY-8.0GF", 17, 192, 76.82, 2.19, 56),
        NamedNetwork("RegNetY-12GF", 19, 168, 73.36, 2.37, 112),
        NamedNetwork("RegNetY-16GF", 18, 200, 106.23, 2.48, 112),
        NamedNetwork("RegNetY-32GF", 20, 232, 115.89, 2.53, 232),
    )
}


REGNETZ: dict[str, NamedNetwork] = {
    network.name: network
    for network in (
        NamedNetwork("RegNetZ-500MF", 21, 16, 10.7, 2.51, 4),
        NamedNetwork("RegNetZ-4.0GF", 28, 48, 14.5, 2.226, 8),
    )
}
"""The two RegNetZ of pycls and ClassyVision, without the convolution that heads may have."""


@dataclass(frozen=True, slots=True)
class Complexity:
    """What a network costs, counted as the paper counts.

    Attributes:
        parameters: Learned numbers; batch-norm statistics are buffers and not counted.
        flops: Multiply-adds of convolutions and linear layers, and one more for each bias, for
            one image; batch norm, pooling and activations add none.
        activations: Elements in the outputs of convolutions and linear layers for one image.
    """

    parameters: int
    flops: int
    activations: int


def complexity(config: RegNetConfig, image_size: int = 224) -> Complexity:
    """Count parameters, flops and activations as pycls does (its ``complexity``).

    Args:
        config: The network.
        image_size: Height and width of the input image, in pixels.
    """
    operations = Architecture.of(config).operations
    return complexity_of(operations, extents(operations, image_size))


def complexity_of(operations: Iterable[Operation], sizes: Mapping[str, int]) -> Complexity:
    """:func:`complexity` of a part of a network.

    Args:
        operations: Of the part.
        sizes: Height and width of every value, as :func:`regnet.architecture.extents` gives them.
    """
    parameters = flops = activations = 0
    for operation in operations:
        parameters += sum(math.prod(slot.shape) for slot in operation.slots if slot.is_learned)
        if isinstance(operation, Conv | Linear):
            weight = operation.slots[0].shape
            pixels = sizes[operation.output] ** 2
            flops += sum(math.prod(slot.shape) for slot in operation.slots) * pixels
            activations += weight[0] * pixels
    return Complexity(parameters, flops, activations)


def size_number(size: str) -> str:
    """A size such as ``4.0GF`` in the hundreds of MFLOPs that timm and Keras name networks by."""
    return f"{round(float(size[:-2]) * {'MF': 0.01, 'GF': 10}[size[-2:]]):03}"


def named_like(config: RegNetConfig) -> str | None:
    """The published network with this architecture; ``None`` if none.

    Whatever its classes are, and however it pads: Keras published the same networks. A RegNetZ is
    named whatever convolution its head has.
    """
    beside = {"padding", "head_size"}
    wider = {name: one for name, one in config.wider_fields().items() if name not in beside}
    for network in (REGNETZ if wider else NETWORKS).values():
        published = network.config(num_labels=0)
        fields = ["hidden_sizes", "depths", "groups_width", "layer_type", "embedding_size"]
        fields += ["hidden_act"] if wider else []
        same = all(getattr(config, field) == getattr(published, field) for field in fields)
        if same and wider == published.wider_fields() and (wider or not config.head_size):
            return network.name
    return None
