"""The reference RegNet in PyTorch: `RegNetModel` and `RegNetForImageClassification`.

Modules, names and arithmetic are those of transformers' ``models/regnet/modeling_regnet.py``, so a
state dict of one loads in the other and logits agree to the last bit. What transformers does not
have, RegNetV and RegNetZ, AnyNets and the RegNets of Keras, is here as well; `RegNetConfig` has a
field for each thing in which these differ. It is written out for people to read;
:mod:`regnet.architecture` lists the same network for programs.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional

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


SQUEEZE_ACTIVATIONS: dict[str, type[nn.Module]] = {
    "relu": nn.ReLU,
    "gelu": nn.GELU,
    "selu": nn.SELU,
    "silu": nn.SiLU,
}


class EvoNormS0a(nn.Module):
    """EvoNorm S0a, norm and activation in one (timm ``layers/evo_norm.py``, ``EvoNorm2dS0a``).

    Args:
        groups: Of channels, whose variance is taken together, for each image by itself.
        channels: Of the input.
        eps: What is added to the variance.
        activates: Whether it is an activation, too; else it divides by the deviation alone.
    """

    def __init__(self, groups: int, channels: int, eps: float, *, activates: bool) -> None:
        super().__init__()
        self.groups, self.eps = groups, eps
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.v = nn.Parameter(torch.ones(channels)) if activates else None

    def forward(self, hidden: Tensor) -> Tensor:
        """Map (N, C, H, W) to the same shape."""
        deviation = group_deviation(hidden, self.groups, self.eps)
        if self.v is not None:
            hidden = hidden * torch.sigmoid(hidden * self.v.view(-1, 1, 1))
        hidden = hidden / deviation
        return hidden * self.weight.view(-1, 1, 1) + self.bias.view(-1, 1, 1)


def group_deviation(hidden: Tensor, groups: int, eps: float) -> Tensor:
    """The deviation of the group of each channel of each image: (N, C, H, W) to (N, C, 1, 1)."""
    channels = hidden.shape[1]
    variance = torch.unflatten(hidden, 1, (groups, -1)).var(dim=(2, 3, 4), unbiased=False)
    deviation = variance.add(eps).sqrt().unsqueeze(2)
    return deviation.expand(-1, -1, channels // groups).reshape(-1, channels, 1, 1)


def same_padded(hidden: Tensor, kernel_size: int, stride: int) -> Tensor:
    """Put zeros around images, (N, C, H, W), as TensorFlow's ``same`` has it.

    A convolution of ``n`` pixels then gives ``ceil(n / stride)``. An odd number of zeros has one
    more below and to the right: with a stride of 2 even sizes get none above and one row below.
    """
    height, width = (
        (size - 1) // stride * stride + kernel_size - size for size in hidden.shape[2:]
    )
    if stride > kernel_size:  # where some pixels are not read at all
        height, width = max(height, 0), max(width, 0)
    left, top = width // 2, height // 2
    return functional.pad(hidden, (left, width - left, top, height - top))


class SamePadConv2d(nn.Conv2d):
    """A convolution whose input is :func:`same_padded`."""

    def forward(self, hidden: Tensor) -> Tensor:
        """Map (N, in, H, W) to (N, out, H/stride, W/stride), rounded up."""
        return super().forward(same_padded(hidden, self.kernel_size[0], self.stride[0]))


def convolution(  # noqa: PLR0913 -- those of a convolution
    config: RegNetConfig,
    in_channels: int,
    out_channels: int,
    kernel_size: int = 1,
    *,
    stride: int = 1,
    groups: int = 1,
) -> nn.Conv2d:
    """A convolution without bias, which leaves images as large as they are at a stride of 1."""
    is_same = config.padding == "same" and stride > 1 and kernel_size > 1
    kind, padding = (SamePadConv2d, 0) if is_same else (nn.Conv2d, kernel_size // 2)
    return kind(
        in_channels,
        out_channels,
        kernel_size,
        stride=stride,
        padding=padding,
        groups=groups,
        bias=False,
    )


def norm_layer(config: RegNetConfig, channels: int, *, activates: bool = True) -> nn.Module:
    """The norm of a layer, which with EvoNorm is also its activation, if it has one."""
    if config.norm == "batch":
        return nn.BatchNorm2d(channels, eps=config.norm_eps)
    groups = channels // config.norm_group_size
    if config.norm == "group":
        return nn.GroupNorm(groups, channels, eps=config.norm_eps)
    return EvoNormS0a(groups, channels, config.norm_eps, activates=activates)


def activation_behind_norm(config: RegNetConfig) -> Callable[[Tensor], Tensor] | None:
    """The activation of a layer, unless its norm is one."""
    return None if config.norm == "evonorm-s0a" else ACTIVATIONS[config.hidden_act]


class RegNetConvLayer(nn.Module):
    """Convolution, norm and, unless the layer is linear, the activation."""

    def __init__(  # noqa: PLR0913 -- those of a convolution, and the activation
        self,
        config: RegNetConfig,
        in_channels: int,
        out_channels: int,
        kernel_size: int = 1,
        *,
        stride: int = 1,
        groups: int = 1,
        activates: bool = True,
    ) -> None:
        super().__init__()
        self.convolution = convolution(
            config, in_channels, out_channels, kernel_size, stride=stride, groups=groups
        )
        self.normalization = norm_layer(config, out_channels, activates=activates)
        self.activation = activation_behind_norm(config) if activates else None

    def forward(self, hidden: Tensor) -> Tensor:
        """Map (N, in, H, W) to (N, out, H/stride, W/stride)."""
        hidden = self.normalization(self.convolution(hidden))
        return self.activation(hidden) if self.activation else hidden


class RegNetPreactivatedLayer(nn.Module):
    """Norm, activation and convolution, in this order; or a bare convolution."""

    def __init__(  # noqa: PLR0913 -- those of a convolution, and the norm
        self,
        config: RegNetConfig,
        in_channels: int,
        out_channels: int,
        kernel_size: int = 1,
        *,
        stride: int = 1,
        groups: int = 1,
        normalizes: bool = True,
    ) -> None:
        super().__init__()
        self.normalization = norm_layer(config, in_channels) if normalizes else nn.Identity()
        self.activation = activation_behind_norm(config) if normalizes else None
        self.convolution = convolution(
            config, in_channels, out_channels, kernel_size, stride=stride, groups=groups
        )

    def forward(self, hidden: Tensor) -> Tensor:
        """Map (N, in, H, W) to (N, out, H/stride, W/stride)."""
        hidden = self.normalization(hidden)
        output: Tensor = self.convolution(self.activation(hidden) if self.activation else hidden)
        return output


class RegNetSELayer(nn.Module):
    """Squeeze-and-excitation: scale each channel by a gate computed from all channel means.

    The activation between the two convolutions, ReLU in nearly all RegNets, may be another than the
    network's.
    """

    def __init__(self, channels: int, squeezed: int, act: str) -> None:
        super().__init__()
        self.pooler = nn.AdaptiveAvgPool2d((1, 1))
        self.attention = nn.Sequential(
            nn.Conv2d(channels, squeezed, kernel_size=1),
            SQUEEZE_ACTIVATIONS[act](),
            nn.Conv2d(squeezed, channels, kernel_size=1),
            nn.Sigmoid(),
        )

    def forward(self, hidden: Tensor) -> Tensor:
        """Map (N, C, H, W) to the same shape."""
        gate: Tensor = self.attention(self.pooler(hidden))
        return hidden * gate


class RegNetShortcut(nn.Module):
    """A projection that a RegNetX or RegNetY does not have: behind a mean, or without a norm."""

    def __init__(
        self, config: RegNetConfig, in_channels: int, out_channels: int, stride: int
    ) -> None:
        super().__init__()
        self.pooler: nn.Module = nn.Identity()
        if config.shortcut == "avg" and stride > 1:
            self.pooler = nn.AvgPool2d(2, stride, ceil_mode=True, count_include_pad=False)
            stride = 1
        self.convolution = convolution(config, in_channels, out_channels, stride=stride)
        self.normalization = (
            nn.Identity()
            if config.preactivation
            else norm_layer(config, out_channels, activates=False)
        )

    def forward(self, hidden: Tensor) -> Tensor:
        """Map (N, in, H, W) to (N, out, H/stride, W/stride), rounded up."""
        output: Tensor = self.normalization(self.convolution(self.pooler(hidden)))
        return output


def shortcut_layer(
    config: RegNetConfig, in_channels: int, out_channels: int, stride: int
) -> nn.Module | None:
    """What a block adds to the output of its layers; None if it adds nothing."""
    if in_channels == out_channels and stride == 1:
        return nn.Identity()
    if config.shortcut == "none":
        return None
    if config.shortcut == "avg" or config.preactivation:
        return RegNetShortcut(config, in_channels, out_channels, stride)
    return RegNetConvLayer(config, in_channels, out_channels, stride=stride, activates=False)


class RegNetBlock(nn.Module):
    """The residual bottleneck block, with (Y) or without (X) squeeze-and-excitation."""

    def __init__(
        self, config: RegNetConfig, stage: int, in_channels: int, out_channels: int, stride: int
    ) -> None:
        super().__init__()
        inner = config.bottleneck_of(stage, in_channels)
        self.shortcut = shortcut_layer(config, in_channels, out_channels, stride)
        layers: list[nn.Module] = [
            RegNetConvLayer(config, in_channels, inner.width),
            RegNetConvLayer(
                config, inner.width, inner.width, 3, stride=stride, groups=inner.groups
            ),
        ]
        if inner.squeezed:
            layers.append(RegNetSELayer(inner.width, inner.squeezed, config.se_act))
        self.layer = nn.Sequential(
            *layers, RegNetConvLayer(config, inner.width, out_channels, activates=False)
        )
        self.activation = ACTIVATIONS[config.hidden_act] if config.output_act else None

    def forward(self, hidden: Tensor) -> Tensor:
        """Map (N, in, H, W) to (N, out, H/stride, W/stride)."""
        output: Tensor = self.layer(hidden)
        if self.shortcut is not None:
            output = output + self.shortcut(hidden)
        return self.activation(output) if self.activation else output


class RegNetPreactivatedBlock(nn.Module):
    """The block of a RegNetV: norm and activation precede each convolution.

    The shortcut, too, sees what the first of them made.
    """

    def __init__(
        self, config: RegNetConfig, stage: int, in_channels: int, out_channels: int, stride: int
    ) -> None:
        super().__init__()
        inner = config.bottleneck_of(stage, in_channels)
        self.normalization = norm_layer(config, in_channels)
        self.activation = activation_behind_norm(config)
        self.shortcut = shortcut_layer(config, in_channels, out_channels, stride)
        layers: list[nn.Module] = [
            RegNetPreactivatedLayer(config, in_channels, inner.width, normalizes=False),
            RegNetPreactivatedLayer(
                config, inner.width, inner.width, 3, stride=stride, groups=inner.groups
            ),
        ]
        if inner.squeezed:
            layers.append(RegNetSELayer(inner.width, inner.squeezed, config.se_act))
        self.layer = nn.Sequential(
            *layers, RegNetPreactivatedLayer(config, inner.width, out_channels)
        )

    def forward(self, hidden: Tensor) -> Tensor:
        """Map (N, in, H, W) to (N, out, H/stride, W/stride)."""
        hidden = self.normalization(hidden)
        hidden = self.activation(hidden) if self.activation else hidden
        output: Tensor = self.layer(hidden)
        return output if self.shortcut is None else output + self.shortcut(hidden)


class RegNetStage(nn.Module):
    """Blocks of one width; the first may halve the resolution."""

    def __init__(self, config: RegNetConfig, stage: int, in_channels: int) -> None:
        super().__init__()
        block = RegNetPreactivatedBlock if config.preactivation else RegNetBlock
        width, stride = config.hidden_sizes[stage], config.stage_strides[stage]
        self.layers = nn.Sequential(
            block(config, stage, in_channels, width, stride),
            *(block(config, stage, width, width, 1) for _ in range(config.depths[stage] - 1)),
        )

    def forward(self, hidden: Tensor) -> Tensor:
        """Run the blocks in order: (N, in, H, W) to (N, out, H', W')."""
        output: Tensor = self.layers(hidden)
        return output


class RegNetEmbeddings(nn.Module):
    """The stem: one 3x3 convolution of stride 2, or what the configuration says."""

    def __init__(self, config: RegNetConfig) -> None:
        super().__init__()
        self.num_channels = config.num_channels
        layers, width = [], config.num_channels
        for out, stride in config.stem_convolutions:
            layers.append(
                RegNetPreactivatedLayer(config, width, out, 3, stride=stride, normalizes=False)
                if config.preactivation
                else RegNetConvLayer(config, width, out, 3, stride=stride)
            )
            width = out
        self.embedder = nn.Sequential(*layers) if config.stem_sizes else layers[0]

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
        widths = (config.embedding_size, *config.hidden_sizes[:-1])
        self.stages = nn.ModuleList(
            RegNetStage(config, stage, width) for stage, width in enumerate(widths)
        )


class RegNetModel(PretrainedMixin, nn.Module):
    """The trunk: pixels to feature map and pooled features."""

    def __init__(self, config: RegNetConfig) -> None:
        super().__init__()
        self.config = config
        self.embedder = RegNetEmbeddings(config)
        self.encoder = RegNetEncoder(config)
        self.head: Callable[[Tensor], Tensor] | None = None
        if config.head_size:
            self.head = RegNetConvLayer(config, config.hidden_sizes[-1], config.head_size)
        elif config.final_act:
            self.head = ACTIVATIONS[config.hidden_act]
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
        hidden = self.head(hidden) if self.head else hidden
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
            nn.Linear(config.feature_size, config.num_labels)
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
