"""Weights and batch-norm statistics in the ranges of trained RegNets.

Fresh batch norms (weight 1, bias 0, mean 0, variance 1) hide swapped tensors and forgotten
epsilons, so no test uses them. Kernels have the spread of torchvision's fifteen trained RegNets
(standard deviation times the square root of the fan-in, median over layers); batch-norm weights and
biases lie a third below theirs, since independent draws, unlike trained layers, amplify each other.
Running statistics are measured, then jittered.
"""

from __future__ import annotations

import math

import torch
from torch import nn

_STEM_GAIN = 3.1
_CONV_GAIN = 0.85
_SE_GAIN = 0.5
_LINEAR_GAIN = 1.5
_NORM_WEIGHT = (0.8, 0.3)
_NORM_BIAS = (-0.2, 0.6)
_JITTER = 0.03


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
        elif isinstance(module, nn.BatchNorm2d):
            module.weight.normal_(*_NORM_WEIGHT, generator=generator).abs_().clamp_(min=0.05)
            module.bias.normal_(*_NORM_BIAS, generator=generator)
    _calibrate(model, image_size, generator)
    return model.eval()


def _fill_affine(module: nn.Conv2d | nn.Linear, gain: float, generator: torch.Generator) -> None:
    fan_in = math.prod(module.weight.shape[1:])
    module.weight.normal_(0, gain / math.sqrt(fan_in), generator=generator)
    if module.bias is not None:
        module.bias.normal_(0, 0.03, generator=generator)


def _calibrate(model: nn.Module, image_size: int, generator: torch.Generator) -> None:
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum = 1.0
    channels = next(m.in_channels for m in model.modules() if isinstance(m, nn.Conv2d))
    model.train()(torch.randn(4, channels, image_size, image_size, generator=generator))
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
