"""The reference RegNet in PyTorch: `RegNetModel` and `RegNetForImageClassification`.

Modules, names and arithmetic are those of transformers' ``models/regnet/modeling_regnet.py``, so a
state dict of one loads in the other and logits agree to the last bit. What transformers does not
have is here as well, a field of :mod:`regnet.wider` for each thing. It is written out for people to
read, from the layers (:mod:`regnet.layers`) up; :mod:`regnet.architecture` lists the same network
for programs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional

from regnet.hub import PretrainedMixin
from regnet.layers import (
    ACTIVATIONS,
    SQUEEZE_ACTIVATIONS,
    activation_behind_norm,
    convolution,
    norm_layer,
)
from regnet.outputs import ClassifierOutput, ModelOutput

if TYPE_CHECKING:
    from collections.abc import Callable

    from regnet.config import RegNetConfig


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
