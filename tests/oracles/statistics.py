"""Weights and batch-norm statistics in the ranges of trained RegNets.

Fresh batch norms (weight 1, bias 0, mean 0, variance 1) hide swapped tensors and forgotten
epsilons, so no test uses them. Kernels have the spread of torchvision's fifteen trained RegNets
(standard deviation times the square root of the fan-in, median over layers); batch-norm weights and
biases lie a third below theirs, since independent draws, unlike trained layers, amplify each other.
Running statistics are measured, then jittered.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

if TYPE_CHECKING:
    from collections.abc import Callable

_STEM_GAIN = 3.1
_CONV_GAIN = 0.85
_SE_GAIN = 0.5
_LINEAR_GAIN = 1.5
_NORM_WEIGHT = (0.8, 0.3)
_NORM_BIAS = (-0.2, 0.6)
_JITTER = 0.03

_CHOSEN = 0.3
"""Part of the channels of which something is peculiar."""


@torch.no_grad()
def randomise(model: nn.Module, *, seed: int = 0, image_size: int = 64) -> nn.Module:
    """Fill a RegNet of any framework with weights like a trained one's, and calibrate it.

    Running statistics are those of a batch of noise, then jittered by a few percent, so that
    signals stay alive through any depth and no two channels are alike.

    Args:
        model: Taking images (N, 3, H, W); left in evaluation mode.
        seed: Same seed, same weights.
        image_size: Height and width of the calibration images, in pixels.
    """
    generator = torch.Generator().manual_seed(seed)
    convolutions = [module for module in model.modules() if isinstance(module, nn.Conv2d)]
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            gain = _STEM_GAIN if module is convolutions[0] else _CONV_GAIN
            _fill_affine(module, _SE_GAIN if module.bias is not None else gain, generator)
        elif isinstance(module, nn.Linear):
            _fill_affine(module, _LINEAR_GAIN, generator)
        elif isinstance(getattr(module, "weight", None), nn.Parameter):  # a norm of any kind
            module.weight.normal_(*_NORM_WEIGHT, generator=generator).abs_().clamp_(min=0.05)
            module.bias.normal_(*_NORM_BIAS, generator=generator)
            if isinstance(slope := getattr(module, "v", None), nn.Parameter):
                slope.normal_(*_NORM_WEIGHT, generator=generator)
    _calibrate(model, image_size, generator)
    return model.eval()


def _fill_affine(module: nn.Conv2d | nn.Linear, gain: float, generator: torch.Generator) -> None:
    fan_in = math.prod(module.weight.shape[1:])
    module.weight.normal_(0, gain / math.sqrt(fan_in), generator=generator)
    if module.bias is not None:
        module.bias.normal_(0, 0.03, generator=generator)


@torch.no_grad()
def used_to(model: nn.Module, pictures: torch.Tensor) -> nn.Module:
    """Measure the running statistics anew, on noise and pictures.

    A network that has seen noise alone makes numbers of photographs that are a thousand times as
    large, if its activation functions let them grow: neighbouring pixels add up there. A trained
    one does not, and no grid of 256 steps would hold both.

    Args:
        model: From :func:`randomise`; left in evaluation mode.
        pictures: Normalised, (N, 3, H, H).
    """
    _calibrate(model, pictures.shape[-1], torch.Generator().manual_seed(0), pictures)
    return model.eval()


def _calibrate(
    model: nn.Module,
    image_size: int,
    generator: torch.Generator,
    pictures: torch.Tensor | None = None,
) -> None:
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum = 1.0
    channels = next(m.in_channels for m in model.modules() if isinstance(m, nn.Conv2d))
    images = torch.randn(4, channels, image_size, image_size, generator=generator)
    model.train()(images if pictures is None else torch.cat((images, pictures)))
    for norm in norms:
        norm.momentum = 0.1
        spread = norm.running_var.sqrt()
        norm.running_mean += _JITTER * spread * _noise(norm.running_mean, generator)
        norm.running_var *= 1 + _JITTER * _noise(norm.running_var, generator)
        norm.running_var.clamp_(min=float(norm.running_var.median()) / 4)  # dead channels
        norm.num_batches_tracked.fill_(int(torch.randint(1000, 500_000, (), generator=generator)))


def _noise(like: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Uniform in -1..1."""
    return torch.rand(like.shape, generator=generator) * 2 - 1


@torch.no_grad()
def adversarial(model: nn.Module, kind: str, *, seed: int = 0, image_size: int = 64) -> nn.Module:
    """Weights like a trained RegNet's but for one thing.

    Args:
        model: Taking images (N, channels, H, W); left in evaluation mode.
        kind: Of :data:`ADVERSARIAL`.
        seed: Same seed, same weights.
        image_size: Height and width of the calibration images, in pixels.
    """
    randomise(model, seed=seed, image_size=image_size)
    generator = torch.Generator().manual_seed(seed + 1)
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    if kind in _OF_NORMS:
        for norm in norms:
            _OF_NORMS[kind](norm, torch.rand(norm.weight.shape, generator=generator) < _CHOSEN)
    elif kind in _OF_SOME_NORM:
        _OF_SOME_NORM[kind](norms[int(torch.randint(len(norms), (), generator=generator))])
    else:
        model.apply(_OF_MODULES[kind])
    return model.eval()


def _large_means(norm: nn.BatchNorm2d, chosen: torch.Tensor) -> None:
    norm.running_mean[chosen] += 100 * norm.running_var[chosen].sqrt()  # type: ignore[index, union-attr]
    norm.bias[chosen] += 100 * norm.weight[chosen]


def _equal_channels(norm: nn.BatchNorm2d, _: torch.Tensor) -> None:
    norm.bias[:] = norm.bias[0]
    norm.weight[:] = norm.weight[0]


def _tiny_variances(norm: nn.BatchNorm2d) -> None:
    norm.running_var[::3] = 1e-9  # type: ignore[index]


def _small_weights(module: nn.Module) -> None:
    if isinstance(module, nn.Conv2d) and module.bias is None:
        module.weight *= 2.0**-6
    elif isinstance(module, nn.BatchNorm2d):
        module.running_mean *= 2.0**-6  # type: ignore[operator]
        module.running_var *= 2.0**-12  # type: ignore[operator]


def _saturated_gates(module: nn.Module) -> None:
    if isinstance(module, nn.Conv2d) and module.bias is not None:
        module.weight *= 30


def _shifted_classifier(module: nn.Module) -> None:
    if isinstance(module, nn.Linear):
        module.bias += 1000


_OF_NORMS: dict[str, Callable[[nn.BatchNorm2d, torch.Tensor], Any]] = {
    "gammas of zero": lambda norm, chosen: norm.weight.masked_fill_(chosen, 0),
    "negative gammas": lambda norm, chosen: norm.weight.mul_(torch.where(chosen, -1.0, 1.0)),
    "large gains": lambda norm, chosen: norm.weight.mul_(torch.where(chosen, 4.0, 1.0)),
    "large means": _large_means,
    "equal channels": _equal_channels,
}
_OF_SOME_NORM: dict[str, Callable[[nn.BatchNorm2d], Any]] = {
    "tiny variances": _tiny_variances,
    "a dead layer": lambda norm: norm.weight.zero_(),
}
_OF_MODULES: dict[str, Callable[[nn.Module], Any]] = {
    "small weights": _small_weights,
    "saturated gates": _saturated_gates,
    "a shifted classifier": _shifted_classifier,
}
ADVERSARIAL = (*_OF_NORMS, *_OF_SOME_NORM, *_OF_MODULES)
"""Statistics on the edge of what trainings give, each of its own kind."""
