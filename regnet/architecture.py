"""The layers of a RegNet, named, from its configuration, without torch.

One walk over the network, in one place, for everybody who needs its structure: the model builds
its modules from it, the planner knows every tensor and shape before a byte is read, the ONNX
exporter writes nodes from it, and :mod:`regnet.design_space` counts with it.

Names and rules are those of transformers' ``models/regnet/modeling_regnet.py``, which computes the
network of the paper (Radosavovic et al., "Designing Network Design Spaces", arXiv 2003.13678).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from regnet.config import RegNetConfig, group_count, squeeze_width

if TYPE_CHECKING:
    from collections.abc import Iterator

NORM_EPS = 1e-5
"""Epsilon of every batch norm; transformers' config cannot express another."""

CLASSIFIER = "classifier.1"
BASE_PREFIX = "regnet."
"""What precedes every name but the classifier's in `RegNetForImageClassification`."""

KERNEL = ".convolution.weight"
"""How the name of every convolution's kernel ends, the attention's apart."""

COUNTER = "num_batches_tracked"
"""How many batches a batch norm has seen, the only tensor that is no float; training alone asks."""

BUFFER_LEAVES = ("running_mean", "running_var", COUNTER)
"""What a batch norm measures instead of learning: in the state dict, but no parameter."""

BATCH_NORM_LEAVES = ("weight", "bias", *BUFFER_LEAVES)


@dataclass(frozen=True, slots=True)
class ConvNorm:
    """A convolution without bias, its batch norm, and perhaps the activation."""

    name: str
    in_channels: int
    out_channels: int
    kernel_size: int = 1
    stride: int = 1
    groups: int = 1
    activation: bool = True

    @property
    def weight_shape(self) -> tuple[int, int, int, int]:
        """Shape of the kernel: (out, in per group, height, width)."""
        per_group = self.in_channels // self.groups
        return (self.out_channels, per_group, self.kernel_size, self.kernel_size)


@dataclass(frozen=True, slots=True)
class SqueezeExcite:
    """Global average pool, squeeze, ReLU, excite, sigmoid, multiply."""

    name: str
    channels: int
    squeezed: int


@dataclass(frozen=True, slots=True)
class Block:
    """A residual bottleneck block of width ratio 1."""

    name: str
    reduce: ConvNorm
    grouped: ConvNorm
    attention: SqueezeExcite | None
    expand: ConvNorm
    shortcut: ConvNorm | None

    @property
    def layers(self) -> tuple[ConvNorm | SqueezeExcite, ...]:
        """The residual branch, in execution order."""
        attention = (self.attention,) if self.attention else ()
        return (self.reduce, self.grouped, *attention, self.expand)


@dataclass(frozen=True)
class Architecture:
    """The whole network: stem, stages of blocks, classifier."""

    stem: ConvNorm
    stages: tuple[tuple[Block, ...], ...]
    num_labels: int

    @classmethod
    def of(cls, config: RegNetConfig) -> Architecture:
        """Lay out the network that ``config`` describes; names carry no ``regnet.`` prefix."""
        stem = ConvNorm(
            "embedder.embedder", config.num_channels, config.embedding_size, kernel_size=3, stride=2
        )
        stages = []
        in_channels = config.embedding_size
        for stage, (width, depth) in enumerate(
            zip(config.hidden_sizes, config.depths, strict=True)
        ):
            stride = 2 if stage > 0 or config.downsample_in_first_stage else 1
            blocks = []
            for index in range(depth):
                name = f"encoder.stages.{stage}.layers.{index}"
                blocks.append(_block(name, config, in_channels, width, stride if index == 0 else 1))
                in_channels = width
            stages.append(tuple(blocks))
        return cls(stem, tuple(stages), config.num_labels)

    @cached_property
    def convolutions(self) -> tuple[ConvNorm, ...]:
        """Every convolution with its batch norm, in execution order, shortcuts last in a block."""
        blocks = [block for stage in self.stages for block in stage]
        in_blocks = (
            layer
            for block in blocks
            for layer in (*block.layers, *((block.shortcut,) if block.shortcut else ()))
            if isinstance(layer, ConvNorm)
        )
        return (self.stem, *in_blocks)

    @property
    def out_channels(self) -> int:
        """Channels of the last stage, which the classifier reads."""
        return self.stages[-1][-1].expand.out_channels

    def tensors(self, *, classifier: bool) -> Iterator[tuple[str, tuple[int, ...]]]:
        """Names and shapes of the state dict, in its order.

        Args:
            classifier: Whether for `RegNetForImageClassification` (names get the ``regnet.``
                prefix, the classifier follows) or for `RegNetModel`.

        Yields:
            Name and shape; every tensor is float32 but ``num_batches_tracked``, an int64 scalar.
        """
        prefix = BASE_PREFIX if classifier else ""
        for name, shape in self._trunk_tensors():
            yield prefix + name, shape
        if classifier and self.num_labels:
            yield f"{CLASSIFIER}.weight", (self.num_labels, self.out_channels)
            yield f"{CLASSIFIER}.bias", (self.num_labels,)

    def _trunk_tensors(self) -> Iterator[tuple[str, tuple[int, ...]]]:
        yield from _conv_norm_tensors(self.stem)
        for stage in self.stages:
            for block in stage:
                if block.shortcut:
                    yield from _conv_norm_tensors(block.shortcut)
                for layer in block.layers:
                    if isinstance(layer, ConvNorm):
                        yield from _conv_norm_tensors(layer)
                    else:
                        yield from _attention_tensors(layer)


def _block(
    name: str, config: RegNetConfig, in_channels: int, out_channels: int, stride: int
) -> Block:
    attention = config.layer_type == "y"
    groups = group_count(out_channels, config.groups_width)
    last = 3 if attention else 2
    needs_projection = in_channels != out_channels or stride != 1
    return Block(
        name=name,
        reduce=ConvNorm(f"{name}.layer.0", in_channels, out_channels),
        grouped=ConvNorm(f"{name}.layer.1", out_channels, out_channels, 3, stride, groups),
        attention=SqueezeExcite(f"{name}.layer.2", out_channels, squeeze_width(in_channels))
        if attention
        else None,
        expand=ConvNorm(f"{name}.layer.{last}", out_channels, out_channels, activation=False),
        shortcut=ConvNorm(
            f"{name}.shortcut", in_channels, out_channels, stride=stride, activation=False
        )
        if needs_projection
        else None,
    )


def _conv_norm_tensors(layer: ConvNorm) -> Iterator[tuple[str, tuple[int, ...]]]:
    yield layer.name + KERNEL, layer.weight_shape
    for leaf in BATCH_NORM_LEAVES:
        shape = () if leaf == COUNTER else (layer.out_channels,)
        yield f"{layer.name}.normalization.{leaf}", shape


def _attention_tensors(layer: SqueezeExcite) -> Iterator[tuple[str, tuple[int, ...]]]:
    yield f"{layer.name}.attention.0.weight", (layer.squeezed, layer.channels, 1, 1)
    yield f"{layer.name}.attention.0.bias", (layer.squeezed,)
    yield f"{layer.name}.attention.2.weight", (layer.channels, layer.squeezed, 1, 1)
    yield f"{layer.name}.attention.2.bias", (layer.channels,)
