"""The reference RegNet in PyTorch: `RegNetModel` and `RegNetForImageClassification`.

Modules, names and arithmetic are those of transformers' ``models/regnet/modeling_regnet.py``, so a
state dict of one loads in the other and logits agree to the last bit. It is written out here for
people to read; :mod:`regnet.architecture` lists the same network for programs.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from regnet.architecture import NORM_EPS
from regnet.config import group_count, squeeze_width
from regnet.hub import PretrainedMixin

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from regnet.config import RegNetConfig


class _Output(Mapping[str, Any]):
    """A mapping of the fields that are not None, in order, that is also indexed by position."""

    def to_tuple(self) -> tuple[Any, ...]:
        """The values that are not None, in order."""
        return tuple(self.values())

    def __getitem__(self, key: str | int | slice) -> Any:
        if isinstance(key, str):
            if key not in tuple(self):
                raise KeyError(key)
            return getattr(self, key)
        return self.to_tuple()[key]

    def __contains__(self, key: object) -> bool:
        return key in tuple(self)

    def __iter__(self) -> Iterator[str]:
        names = (field.name for field in fields(self))  # type: ignore[arg-type]
        return (name for name in names if getattr(self, name) is not None)

    def __len__(self) -> int:
        return sum(1 for _ in self)


@dataclass(eq=False, kw_only=True)
class ModelOutput(_Output):
    """What :class:`RegNetModel` returns.

    Attributes:
        last_hidden_state: (N, C, H/32, W/32), the last stage's output.
        pooler_output: (N, C, 1, 1), its mean over height and width.
        hidden_states: The stem's output, then each stage's; None unless asked for.
    """

    last_hidden_state: Tensor
    pooler_output: Tensor
    hidden_states: tuple[Tensor, ...] | None = None


@dataclass(eq=False, kw_only=True)
class ClassifierOutput(_Output):
    """What :class:`RegNetForImageClassification` returns.

    Attributes:
        loss: Scalar; None without labels.
        logits: (N, num_labels), before softmax.
        hidden_states: The stem's output, then each stage's; None unless asked for.
    """

    loss: Tensor | None = None
    logits: Tensor
    hidden_states: tuple[Tensor, ...] | None = None


def gelu_new(hidden: Tensor) -> Tensor:
    """GELU by its tanh approximation, elementwise, in the order of transformers' ``gelu_new``."""
    half = 0.5 * hidden  # first, so that gradients are summed in the same order too
    inner = math.sqrt(2.0 / math.pi) * (hidden + 0.044715 * torch.pow(hidden, 3.0))
    return half * (1.0 + torch.tanh(inner))


ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": functional.relu,
    "gelu": functional.gelu,
    "gelu_new": gelu_new,
    "selu": functional.selu,
    "silu": functional.silu,
}


class RegNetConvLayer(nn.Module):
    """Convolution, batch norm and, unless the layer is linear, the activation."""

    def __init__(  # noqa: PLR0913, PLR0917 -- those of a convolution, and the activation
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int = 1,
        stride: int = 1,
        groups: int = 1,
        hidden_act: str | None = None,
    ) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(
            in_channels,
            out_channels,
            kernel_size,
            stride=stride,
            padding=kernel_size // 2,
            groups=groups,
            bias=False,
        )
        self.normalization = nn.BatchNorm2d(out_channels, eps=NORM_EPS)
        self.activation = ACTIVATIONS[hidden_act] if hidden_act else None

    def forward(self, hidden: Tensor) -> Tensor:
        """Map (N, in, H, W) to (N, out, H/stride, W/stride)."""
        hidden = self.normalization(self.convolution(hidden))
        return self.activation(hidden) if self.activation else hidden


class RegNetSELayer(nn.Module):
    """Squeeze-and-excitation: scale each channel by a gate computed from all channel means.

    The activation between the two convolutions is ReLU whatever the network's is.
    """

    def __init__(self, channels: int, squeezed: int) -> None:
        super().__init__()
        self.pooler = nn.AdaptiveAvgPool2d((1, 1))
        self.attention = nn.Sequential(
            nn.Conv2d(channels, squeezed, kernel_size=1),
            nn.ReLU(),
            nn.Conv2d(squeezed, channels, kernel_size=1),
            nn.Sigmoid(),
        )

    def forward(self, hidden: Tensor) -> Tensor:
        """Map (N, C, H, W) to the same shape."""
        gate: Tensor = self.attention(self.pooler(hidden))
        return hidden * gate


class RegNetBlock(nn.Module):
    """The residual bottleneck block, with (Y) or without (X) squeeze-and-excitation."""

    def __init__(
        self, config: RegNetConfig, in_channels: int, out_channels: int, stride: int
    ) -> None:
        super().__init__()
        act = config.hidden_act
        groups = group_count(out_channels, config.groups_width)
        needs_projection = in_channels != out_channels or stride != 1
        self.shortcut = (
            RegNetConvLayer(in_channels, out_channels, stride=stride)
            if needs_projection
            else nn.Identity()
        )
        layers: list[nn.Module] = [
            RegNetConvLayer(in_channels, out_channels, hidden_act=act),
            RegNetConvLayer(out_channels, out_channels, 3, stride, groups, act),
        ]
        if config.layer_type == "y":
            layers.append(RegNetSELayer(out_channels, squeeze_width(in_channels)))
        self.layer = nn.Sequential(*layers, RegNetConvLayer(out_channels, out_channels))
        self.activation = ACTIVATIONS[act]

    def forward(self, hidden: Tensor) -> Tensor:
        """Map (N, in, H, W) to (N, out, H/stride, W/stride)."""
        return self.activation(self.layer(hidden) + self.shortcut(hidden))


class RegNetStage(nn.Module):
    """Blocks of one width; the first may halve the resolution."""

    def __init__(
        self, config: RegNetConfig, in_channels: int, out_channels: int, depth: int, stride: int
    ) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            RegNetBlock(config, in_channels, out_channels, stride),
            *(RegNetBlock(config, out_channels, out_channels, 1) for _ in range(depth - 1)),
        )

    def forward(self, hidden: Tensor) -> Tensor:
        """Run the blocks in order: (N, in, H, W) to (N, out, H', W')."""
        output: Tensor = self.layers(hidden)
        return output


class RegNetEmbeddings(nn.Module):
    """The stem: one 3x3 convolution of stride 2."""

    def __init__(self, config: RegNetConfig) -> None:
        super().__init__()
        self.num_channels = config.num_channels
        self.embedder = RegNetConvLayer(
            config.num_channels, config.embedding_size, 3, stride=2, hidden_act=config.hidden_act
        )

    def forward(self, pixel_values: Tensor) -> Tensor:
        """Map (N, num_channels, H, W) to (N, embedding_size, H/2, W/2).

        Raises:
            ValueError: If the image has another number of channels than the configuration.
        """
        if pixel_values.shape[1] != self.num_channels:
            raise ValueError(
                f"pixel_values has {pixel_values.shape[1]} channels where the configuration says "
                f"num_channels={self.num_channels}."
            )
        output: Tensor = self.embedder(pixel_values)
        return output


class RegNetEncoder(nn.Module):
    """The stages, in order."""

    def __init__(self, config: RegNetConfig) -> None:
        super().__init__()
        strides = (2 if config.downsample_in_first_stage else 1, *(2 for _ in config.depths[1:]))
        widths = (config.embedding_size, *config.hidden_sizes)
        stages = zip(widths, widths[1:], config.depths, strides, strict=False)
        self.stages = nn.ModuleList(RegNetStage(config, *stage) for stage in stages)


class RegNetModel(PretrainedMixin, nn.Module):
    """The trunk: pixels to feature map and pooled features."""

    def __init__(self, config: RegNetConfig) -> None:
        super().__init__()
        self.config = config
        self.embedder = RegNetEmbeddings(config)
        self.encoder = RegNetEncoder(config)
        self.pooler = nn.AdaptiveAvgPool2d((1, 1))
        self.apply(_initialise)

    def forward(
        self,
        pixel_values: Tensor,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
    ) -> ModelOutput | tuple[Tensor | tuple[Tensor, ...], ...]:
        """Compute features.

        Args:
            pixel_values: Float tensor (N, num_channels, H, W), as the image processor gives it.
            output_hidden_states: Overrides the configuration.
            return_dict: Overrides the configuration.

        Returns:
            The output, or a tuple of what in it is not None if ``return_dict`` is off.

        Raises:
            ValueError: If the image has another number of channels than the configuration.
        """
        hidden = self.embedder(pixel_values)
        states = [hidden]
        for stage in self.encoder.stages:
            hidden = stage(hidden)
            states.append(hidden)
        output = ModelOutput(
            last_hidden_state=hidden,
            pooler_output=self.pooler(hidden),
            hidden_states=tuple(states)
            if _either(output_hidden_states, self.config.output_hidden_states)
            else None,
        )
        return output if _either(return_dict, self.config.return_dict) else output.to_tuple()


class RegNetForImageClassification(PretrainedMixin, nn.Module):
    """The trunk with a linear classifier on the pooled features.

    Args:
        config: The architecture; with ``num_labels=0`` the logits are the pooled features (N, C).
    """

    def __init__(self, config: RegNetConfig) -> None:
        super().__init__()
        self.config = config
        self.regnet = RegNetModel(config)
        self.classifier = nn.Sequential(
            nn.Flatten(),
            nn.Linear(config.hidden_sizes[-1], config.num_labels)
            if config.num_labels
            else nn.Identity(),
        )
        self.classifier.apply(_initialise)

    def forward(
        self,
        pixel_values: Tensor,
        labels: Tensor | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
    ) -> ClassifierOutput | tuple[Tensor | tuple[Tensor, ...], ...]:
        """Classify images.

        Args:
            pixel_values: Float tensor (N, num_channels, H, W), as the image processor gives it.
            labels: Class indices (N,), or targets (N, num_labels) for regression and multi-label
                classification; see :func:`classification_loss`.
            output_hidden_states: Overrides the configuration.
            return_dict: Overrides the configuration.

        Returns:
            The output, or a tuple of what in it is not None if ``return_dict`` is off.

        Raises:
            ValueError: If the image has another number of channels than the configuration.
        """
        trunk = self.regnet(pixel_values, output_hidden_states, return_dict=True)
        logits = self.classifier(trunk.pooler_output)
        output = ClassifierOutput(
            loss=None if labels is None else classification_loss(logits, labels, self.config),
            logits=logits,
            hidden_states=trunk.hidden_states,
        )
        return output if _either(return_dict, self.config.return_dict) else output.to_tuple()


def classification_loss(logits: Tensor, labels: Tensor, config: RegNetConfig) -> Tensor:
    """The loss that ``config.problem_type`` names, or that the labels ask for.

    Mean squared error for ``regression`` (the default with one label), cross-entropy for
    ``single_label_classification`` (integer labels), binary cross-entropy for
    ``multi_label_classification`` (any other labels), as transformers' ``loss_utils.py`` has it;
    unlike there, the choice is not written back into the configuration.

    Args:
        logits: (N, num_labels).
        labels: On any device; integers (N,) or floats (N, num_labels).
        config: Gives ``num_labels`` and ``problem_type``.

    Returns:
        Scalar.
    """
    labels = labels.to(logits.device)
    problem = config.problem_type
    if problem is None:
        if config.num_labels == 1:
            problem = "regression"
        elif labels.dtype in (torch.int64, torch.int32):
            problem = "single_label_classification"
        else:
            problem = "multi_label_classification"
    if problem == "single_label_classification":
        indices = labels.view(-1).long()  # torch refuses int32
        return functional.cross_entropy(logits.view(-1, config.num_labels), indices)
    if problem == "multi_label_classification":
        return functional.binary_cross_entropy_with_logits(logits, labels)
    if config.num_labels == 1:
        logits, labels = logits.squeeze(), labels.squeeze()
    return functional.mse_loss(logits, labels)


def _either(override: bool | None, default: bool) -> bool:
    return default if override is None else override


def _initialise(module: nn.Module) -> None:
    """Draw fresh weights as the paper's code does (pycls, ``init_weights``)."""
    if not isinstance(module, nn.Conv2d | nn.Linear) or module.weight.is_meta:
        return  # on meta weights are about to be replaced
    if isinstance(module, nn.Conv2d):
        nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
    else:
        nn.init.normal_(module.weight, std=0.01)
        nn.init.zeros_(module.bias)
