"""The forms that one network takes as an ONNX graph: opset, sizes, precision."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

from converters.checkpoint.graph import BLOCKS
from converters.errors import InputError
from regnet.files.reading import parse_json

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from converters.folder.folder import ConvertedFolder
    from converters.formats.blocks import Stages

Element = Literal["float32", "float16"]

FOLDED_WEIGHT = ".folded_weight"
FOLDED_BIAS = ".folded_bias"
"""What follows a module's name where a convolution has taken in its batch norm.

Not ``.convolution.weight`` as in the state dict: whoever puts a state dict into the file by name
would overwrite the folded values with unfolded ones, and nothing fails.
"""

PER_CHANNEL = ".per_channel"
"""What follows the name of a tensor (C,) where it is read as (C, 1, 1)."""

OPSET = 18
"""Unless somebody asks for another: the newest that every runtime of the last years takes."""

OLDEST_OPSET = 17
"""The oldest whose operators say what is written here."""

NEWEST_OPSET = 28
"""The newest that ONNX Runtime 1.32 takes."""

PRECISION_KEY = "precision"
"""Metadata key of files that do not compute in float32: in what they do."""

INT8 = "int8"
"""Precision of activations on 256 steps from their least to their largest value."""

SYMMETRIC_INT8 = "symmetric int8"
"""The same with zero in the middle: of an activation that is never negative, half the steps."""

SIZES_KEY = "fixed_sizes"
"""Metadata key of files that fix sizes because somebody asked for it: axis to size, as JSON."""

AXES = ("batch", "height", "width")
"""Names of the sizes that a graph may leave open."""


@dataclass(frozen=True, slots=True)
class GraphForm:
    """What a graph leaves open and what it fixes.

    Attributes:
        opset: Version of ONNX's operators.
        batch: Number of images; None leaves it open.
        height: Of the images in pixels; None leaves it open.
        width: Likewise.
        precision: Of the weights, and of what passes between the layers.
        io_precision: Of input and outputs; where it is not ``precision``, they are cast.
        stages: How the groups of each stage lie in blocks; empty if they are the network's.

    Raises:
        InputError: If there is no such opset, or a size is below 1.
    """

    opset: int = OPSET
    batch: int | None = None
    height: int | None = None
    width: int | None = None
    precision: Element = "float32"
    io_precision: Element = "float32"
    stages: Stages = ()

    def __post_init__(self) -> None:
        if not OLDEST_OPSET <= self.opset <= NEWEST_OPSET:
            raise InputError(
                f"There is no ONNX graph of opset {self.opset} here; choose one from "
                f"{OLDEST_OPSET} to {NEWEST_OPSET} with --opset."
            )
        if any(size is not None and size < 1 for size in self.sizes.values()):
            raise InputError("--shape has a size below 1; give batch, channels, height and width.")

    @property
    def sizes(self) -> dict[str, int | None]:
        """Name of each axis of :data:`AXES` to its size, None where that is open."""
        return dict(zip(AXES, (self.batch, self.height, self.width), strict=True))

    @property
    def fixed(self) -> dict[str, int]:
        """The axes that are not open, and their sizes."""
        return {axis: size for axis, size in self.sizes.items() if size is not None}

    def dim(self, axis: str) -> int | str:
        """The size of an axis of :data:`AXES`, or its name where that is open."""
        return self.sizes[axis] or axis

    def in_float16(self, *, io: bool) -> GraphForm:
        """The same form in float16; ``io`` says whether input and outputs are float16 too."""
        return replace(self, precision="float16", io_precision="float16" if io else "float32")


DEFAULT_FORM = GraphForm()
"""Everything open, in float32."""

_NONE_STATED = (None,) * len(AXES)
_OPEN = (1, 224, 224)
"""What is reckoned with where a size is open."""

_WIDEST = 4096
"""Channels of a group that a file can have laid out, or groups that it can have merged."""

_MOST_STATED = 1 << 27
"""Pixels of a batch that a file can fix: more than there is memory for, so that it cannot have been
run."""


def stated_sizes(metadata: Mapping[str, str]) -> tuple[int | None, ...]:
    """Batch, height and width that a file says it fixes; None is open, or was fixed by mistake."""
    try:
        stated = parse_json(metadata.get(SIZES_KEY, "{}"))
        sizes = tuple(stated.get(axis) for axis in AXES)
    except (ValueError, AttributeError):
        return _NONE_STATED
    taken = [open_ if size is None else size for size, open_ in zip(sizes, _OPEN, strict=True)]
    possible = all(type(size) is int and size > 0 for size in taken)
    return sizes if possible and math.prod(taken) <= _MOST_STATED else _NONE_STATED


def stages_text(stages: Stages) -> str:
    """How groups lie in blocks, as files state it."""
    return json.dumps([blocks and [blocks.pitch, blocks.merged] for blocks in stages])


def stated_stages(metadata: Mapping[str, str]) -> Stages:
    """How a file says that its groups lie in blocks; as the network's, where it says nothing.

    Raises:
        ValueError: If what it says cannot be.
    """
    from converters.formats.blocks import Blocks

    try:
        stated = parse_json(metadata.get(BLOCKS, "[]"))
        stages = tuple(None if each is None else Blocks(*each) for each in stated)
    except TypeError as error:
        raise ValueError("it does not state how its channels lie") from error
    numbers = [number for each in stages if each for number in (each.pitch, each.merged)]
    if not all(type(number) is int and 0 < number <= _WIDEST for number in numbers):
        raise ValueError(f"it states channels in blocks of none, or of more than {_WIDEST}")
    return stages


def with_sizes(
    form: GraphForm,
    folder: ConvertedFolder,
    dynamic: Collection[str] | None,
    shape: tuple[int, ...] | None,
) -> GraphForm:
    """Fix sizes as a user asks for it.

    Args:
        form: In all other respects.
        folder: Whose network it is; its processor says how large images are.
        dynamic: Axes of :data:`AXES` to leave open. None is all of them, or, with ``shape``, none.
        shape: (batch, channels, height, width) of the axes that are not open; by default one image
            as large as the processor makes it.

    Raises:
        InputError: If an axis is unknown, or the shape is not one of this network.
    """
    channels = folder.config.num_channels
    unknown = sorted(set(dynamic or ()) - set(AXES))
    if unknown:
        raise InputError(f"--dynamic {unknown[0]} is no axis; name some of {', '.join(AXES)}.")
    if shape is not None and (len(shape) != len(AXES) + 1 or shape[1] != channels):
        raise InputError(
            f"--shape {','.join(map(str, shape))} is no input of this network; give "
            f"batch,{channels},height,width."
        )
    if dynamic is None:
        dynamic = AXES if shape is None else ()
    batch, _, height, width = shape or (1, channels, folder.image_size, folder.image_size)
    return replace(
        form,
        batch=None if "batch" in dynamic else batch,
        height=None if "height" in dynamic else height,
        width=None if "width" in dynamic else width,
    )
