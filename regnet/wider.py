"""`WiderFields`: what networks that are called RegNet have and transformers' configuration has not.

RegNetV and RegNetZ, AnyNets and the RegNets of Keras differ from transformers' network in these
fields, each of which has that network's value unless it is given. They are written down once, here:
names, defaults, what is allowed, and the sizes that follow from them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, get_args

from regnet.files.json_file import JsonFile, int_list, require_int, require_positive

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

SqueezeActivation = Literal["relu", "gelu", "selu", "silu"]
ExpansionOf = Literal["output", "input"]
SqueezeOf = Literal["input", "bottleneck"]
Shortcut = Literal["conv", "avg", "none"]
NormType = Literal["batch", "group", "evonorm-s0a"]
Padding = Literal["symmetric", "same"]

WIDER_TYPE = "anynet"
"""The model type of what transformers' RegNet cannot be; pycls calls the general network so."""

WIDER_NAME = "AnyNet"
"""What such a file's ``architectures`` begin with, in place of ``RegNet``."""

NORM_EPS = 1e-5
"""Epsilon of norms where nothing else is said; transformers' config cannot express another."""


@dataclass(frozen=True, slots=True)
class Bottleneck:
    """The sizes inside a block.

    Attributes:
        width: Channels of its 3x3 convolution.
        groups: Of these.
        squeezed: Channels between the convolutions of squeeze-and-excitation; 0 without it.
    """

    width: int
    groups: int
    squeezed: int


class WiderFields(JsonFile):
    """The fields, beneath those of :class:`regnet.config.RegNetConfig`.

    Attributes:
        stem_sizes: Output channels of each 3x3 convolution of the stem; None for one, of
            ``embedding_size``, which is taken from the last where they are given.
        stem_strides: Stride of each of them; None for 2 in the first and 1 in others.
        strides: Stride of each stage; None for 2, and in the first stage what
            ``downsample_in_first_stage`` says.
        expansion: Width of a block's 3x3 convolution, as a multiple of what `expansion_of` says,
            rounded half to even.
        expansion_of: ``"output"`` or ``"input"`` of the block.
        se_ratio: Channels between the two convolutions of squeeze-and-excitation, as a multiple of
            what `se_of` says.
        se_of: ``"input"`` of the block, or its ``"bottleneck"``, which is the 3x3 convolution.
        se_divisor: These channels are a multiple of it, at least one (see :func:`squeeze_width`).
        se_act: The activation between the two convolutions; any of ``hidden_act`` but ``gelu_new``.
        shortcut: What stands in the shortcut of a block whose output has another shape than its
            input: ``"conv"``, a 1x1 convolution with the block's stride; ``"avg"``, the mean of 2x2
            pixels with that stride before a 1x1 convolution; ``"none"``, no shortcut at all.
        output_act: Whether an activation follows the sum at the end of a block.
        preactivation: Whether norm and activation precede each convolution of a block instead of
            following it. The stem is bare convolutions then, shortcuts begin behind the first
            activation, and no activation follows the sum.
        norm: ``"batch"``, ``"group"``, or ``"evonorm-s0a"``, which is its own activation.
        norm_group_size: Channels per group of the latter two.
        norm_eps: What is added to the variance, of all norms.
        head_size: Output channels of a 1x1 convolution with norm and activation behind the last
            stage; 0 for none.
        final_act: Whether, without such a head, an activation stands there.
        padding: Where the zeros around images lie when a 3x3 convolution has a stride:
            ``"symmetric"``, one on every side; ``"same"``, as TensorFlow has it, so many that the
            size is divided by the stride, the odd one below and to the right.
    """

    # Of transformers' configuration, for what follows from both.
    embedding_size: int
    hidden_sizes: list[int]
    depths: list[int]
    groups_width: int | Sequence[int]
    layer_type: Literal["x", "y"]
    downsample_in_first_stage: bool

    stem_sizes: list[int] | None = None
    stem_strides: list[int] | None = None
    strides: list[int] | None = None
    expansion: float = 1.0
    expansion_of: ExpansionOf = "output"
    se_ratio: float = 0.25
    se_of: SqueezeOf = "input"
    se_divisor: int = 1
    se_act: SqueezeActivation = "relu"
    shortcut: Shortcut = "conv"
    output_act: bool = True
    preactivation: bool = False
    norm: NormType = "batch"
    norm_group_size: int = 16
    norm_eps: float = NORM_EPS
    head_size: int = 0
    final_act: bool = False
    padding: Padding = "symmetric"

    def _set_wider(self, given: dict[str, Any]) -> None:
        """Set these fields, taking from ``given`` those that are in it.

        What transformers' fields can say is said in them, so that one network has one spelling.
        """
        for name, default in WIDER_DEFAULTS.items():
            setattr(self, name, given.pop(name, default))
        if self.stem_sizes is not None:
            self.stem_sizes = int_list("stem_sizes", self.stem_sizes)
            self.embedding_size = next(reversed(self.stem_sizes), 0)
            self.stem_sizes = self.stem_sizes if len(self.stem_sizes) > 1 else None
        if self.stem_strides is not None:
            self.stem_strides = int_list("stem_strides", self.stem_strides)
            usual = [2, *(1 for _ in self.stem_sizes or ())][: len(self.stem_sizes or (0,))]
            self.stem_strides = self.stem_strides if self.stem_strides != usual else None
        if self.strides is not None:
            self.strides = int_list("strides", self.strides)
            self.downsample_in_first_stage = self.strides[:1] != [1]
            usual = [2 if self.downsample_in_first_stage else 1, *(2 for _ in self.depths[1:])]
            self.strides = self.strides if self.strides != usual else None
        if isinstance(self.groups_width, (list, tuple)):
            self.groups_width = int_list("groups_width", self.groups_width)
            if len(self.groups_width) == len(self.depths) and len(set(self.groups_width)) == 1:
                self.groups_width = self.groups_width[0]

    def wider_fields(self) -> dict[str, Any]:
        """What of the network transformers' configuration cannot say; empty of most."""
        wider = {} if isinstance(self.groups_width, int) else {"groups_width": self.groups_width}
        for name, usual in WIDER_DEFAULTS.items():
            if (value := getattr(self, name)) != usual:
                wider[name] = value
        return wider

    @property
    def stem_convolutions(self) -> list[tuple[int, int]]:
        """Output channels and stride of each convolution of the stem."""
        sizes = self.stem_sizes or [self.embedding_size]
        strides = self.stem_strides or [2, *(1 for _ in sizes[1:])]
        return list(zip(sizes, strides, strict=True))

    @property
    def stage_strides(self) -> list[int]:
        """Stride of each stage, which is that of its first block."""
        first = 2 if self.downsample_in_first_stage else 1
        return list(self.strides or (first, *(2 for _ in self.depths[1:])))

    @property
    def stage_groups_widths(self) -> list[int]:
        """Channels per group of each stage."""
        if isinstance(self.groups_width, int):
            return [self.groups_width for _ in self.depths]
        return list(self.groups_width)

    @property
    def feature_size(self) -> int:
        """Channels of the features that are pooled and classified."""
        return self.head_size or self.hidden_sizes[-1]

    def bottleneck_of(self, stage: int, in_channels: int) -> Bottleneck:
        """The sizes inside a block.

        Args:
            stage: Which it is in, from 0.
            in_channels: Of its input.
        """
        out = self.hidden_sizes[stage]
        width = round((in_channels if self.expansion_of == "input" else out) * self.expansion)
        of = in_channels if self.se_of == "input" else width
        return Bottleneck(
            width,
            group_count(width, self.stage_groups_widths[stage]),
            squeeze_width(of, self.se_ratio, self.se_divisor) if self.layer_type == "y" else 0,
        )

    def _validate_wider(self) -> None:
        """Check these fields, and that every layer can be built.

        Raises:
            ValueError: If one cannot.
        """
        for name in ("norm_group_size", "se_divisor"):
            require_int(name, getattr(self, name), minimum=1)
        require_int("head_size", self.head_size, minimum=0)
        for name, allowed in _MEMBERS.items():
            self._require_member(name, get_args(allowed))
        self._require_switches("output_act", "preactivation", "final_act")
        for name in ("expansion", "se_ratio", "norm_eps"):
            require_positive(name, getattr(self, name))
        self._require_as_many("stem_strides", self.stem_strides, "stem_sizes")
        self._require_as_many("strides", self.strides, "depths")
        if isinstance(self.groups_width, list):
            self._require_as_many("groups_width", self.groups_width, "depths")
        else:
            require_int("groups_width", self.groups_width, minimum=1)
        self._validate_blocks()
        if self.norm != "batch":
            self._validate_norm_groups()

    def _require_as_many(self, name: str, values: Sequence[int] | None, as_in: str) -> None:
        """Check that a list has one number for each of another."""
        items = getattr(self, as_in) or (self.embedding_size,)
        if values is not None and len(values) != len(items):
            raise ValueError(
                f"{name} has {len(values)} numbers and {as_in} {len(items)}; give as many in both."
            )

    def _validate_blocks(self) -> None:
        for stage, in_channels in self._block_inputs():
            block = self.bottleneck_of(stage, in_channels)
            require_int(f"the bottleneck of stage {stage}", block.width, minimum=1)
            if block.width % block.groups:
                raise ValueError(
                    f"stage {stage} cannot be built: its width {block.width} does not divide into "
                    f"the {block.groups} groups that groups_width={self.groups_width} asks for."
                )
            if self.layer_type == "y" and block.squeezed == 0:
                raise ValueError(
                    f"a squeeze-and-excitation block fed with {in_channels} channels would squeeze "
                    "to none; widen it or use layer_type='x'."
                )

    def _validate_norm_groups(self) -> None:
        """Check that every normalised width is whole groups."""
        inside = (self.bottleneck_of(*block).width for block in self._block_inputs())
        widths = [
            *(width for width, _ in self.stem_convolutions),
            *self.hidden_sizes,
            *inside,
            self.head_size,
        ]
        for width in widths:
            if width % self.norm_group_size:
                raise ValueError(
                    f"{width} channels do not divide into groups of norm_group_size="
                    f"{self.norm_group_size}."
                )

    def _block_inputs(self) -> Iterator[tuple[int, int]]:
        """Stage and input channels of every kind of block that there is."""
        in_channels = self.embedding_size
        for stage, (width, depth) in enumerate(zip(self.hidden_sizes, self.depths, strict=True)):
            yield stage, in_channels
            if depth > 1:
                yield stage, width
            in_channels = width


WIDER_DEFAULTS: Mapping[str, Any] = {
    name: vars(WiderFields)[name]
    for name in WiderFields.__annotations__
    if name in vars(WiderFields)
}
"""Each field, as transformers' network has it."""

_MEMBERS = {
    "expansion_of": ExpansionOf,
    "se_of": SqueezeOf,
    "se_act": SqueezeActivation,
    "shortcut": Shortcut,
    "norm": NormType,
    "padding": Padding,
}


def group_count(width: int, groups_width: int) -> int:
    """Groups of a 3x3 convolution of ``width`` channels.

    A stage narrower than the group width is one group, as in RegNetX-8.0GF (80 channels, 120 per
    group).
    """
    return max(1, width // groups_width)


def squeeze_width(channels: int, ratio: float = 0.25, divisor: int = 1) -> int:
    """Channels between the two convolutions of squeeze-and-excitation.

    As it is published, a quarter of the *block's input*, rounded half to even: 746 gives 186, where
    rounding half up would give 187 (pycls ``models/anynet.py``, transformers ``RegNetYLayer``). A
    divisor rounds to its nearest multiple instead, half up, and gives at least one (timm
    ``layers/helpers.py``, ``make_divisible`` with ``round_limit=0``).
    """
    if divisor == 1:
        return round(channels * ratio)
    return max(divisor, int(channels * ratio + divisor / 2) // divisor * divisor)
