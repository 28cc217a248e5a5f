"""The errors that are injected are those that float32 makes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from torch.nn import functional

from converters.formats.operations import called, computed
from converters.parity.injection import Injection, noise_pool, spread_of_orders
from converters.parity.metrics import AMPLIFIED, rms
from regnet.architecture import Act, EvoNorm, GroupNorm
from regnet.layers import ACTIVATIONS, group_deviation

if TYPE_CHECKING:
    from collections.abc import Callable

    from regnet.config import Activation

    Array = np.ndarray

ROUNDING = 2.0**-24


def one_after_the_other(terms: np.ndarray) -> np.ndarray:
    """Sums over the last axis in float32, in turn."""
    return np.cumsum(terms.astype(np.float32), axis=-1, dtype=np.float32)[..., -1]


@pytest.mark.parametrize("length", [16, 144, 1024])
@pytest.mark.parametrize("terms_are", ["scattered", "of one sign", "cancelling"])
def test_a_sum_errs_as_one_that_is_added_in_turn(length: int, terms_are: str) -> None:
    random = np.random.default_rng(0)
    mean = float(terms_are == "of one sign")
    pixels = random.normal(mean, 1, (1, length, 20, 20)).astype(np.float32)
    kernel = random.normal(mean, 1, (8, length, 1, 1)).astype(np.float32)
    if terms_are == "cancelling":
        pixels = 1 + pixels / 1000
        kernel -= kernel.mean(1, keepdims=True)
    terms = np.einsum("nihw,oi->nohwi", pixels.astype(np.float64), kernel[:, :, 0, 0])
    exact = terms.sum(-1)
    honest = rms(one_after_the_other(terms) - exact)
    tensors = map(torch.from_numpy, (pixels, kernel))
    result = Injection(1)(torch.conv2d, *tensors, None, 1, 0, 1, 1)
    drawn = rms(result.double().numpy() - exact) / AMPLIFIED
    assert 0.5 < drawn / honest < 2


def test_each_copy_has_errors_of_its_own() -> None:
    pixels = torch.ones(3, 4, 5, 5).repeat(2, 1, 1, 1)
    kernel = torch.randn(8, 4, 1, 1, generator=torch.Generator().manual_seed(0))
    result = Injection(2)(torch.conv2d, pixels, kernel, None, 1, 0, 1, 1)
    assert not torch.equal(result[:3], result[3:])


def test_each_operation_has_errors_of_its_own() -> None:
    inject = Injection(1)
    pixels = torch.ones(1, 8, 40, 40)
    first, second = (inject(torch.add, pixels, pixels).flatten() - 2 for _ in range(2))
    assert abs(torch.corrcoef(torch.stack([first, second]))[0, 1]) < 0.05


def test_what_gamma_makes_zero_is_the_bias_exactly() -> None:
    zero = torch.zeros(2)
    bias = torch.tensor([0.1, 7])
    hidden, kernel = torch.randn(1, 3, 4, 4), torch.zeros(2, 3, 1, 1)
    result = Injection(1)(torch.conv2d, hidden, kernel, bias, 1, 0, 1, 1, magnitude=zero)
    assert torch.equal(result[0, :, 0, 0], bias)
    assert result.flatten(2).std(2).max() == 0


@pytest.mark.parametrize("act", ACTIVATIONS)
def test_activations_err_as_their_approximations_do(act: Activation) -> None:
    """ReLU rounds nothing; the others by a part of their argument or of 1 where they are small."""
    values = torch.full((1, 4, 10, 10), -6.0)
    exact = ACTIVATIONS[act](values.double())
    operation = Act("act", ("value",), "act", function=act)
    result = computed(operation, [values], (), Injection(1))
    error = rms((result.double() - exact).numpy()) / AMPLIFIED / ROUNDING
    assert error == 0 if act == "relu" else 0.3 < error < 20


@pytest.mark.parametrize("channels", [1, 2, 5])
@pytest.mark.parametrize("value", [0.1, 0.7, 3.3])
def test_equal_terms_round_one_way_in_a_mean(value: float, channels: int) -> None:
    pixels = np.full((1, channels, 50, 60), value, np.float32)
    total = np.float32(0)
    for term in pixels[0, 0].ravel():
        total += term
    off = abs(float(total) - 3000 * float(np.float32(value))) / 3000
    assert off > 0
    assert spread_of_orders(pixels)[0, 0] >= 0.999 * off
    scattered = np.random.default_rng(0).normal(value, 1, (1, 1, 50, 60)).astype(np.float32)
    assert spread_of_orders(scattered)[0, 0] < off / 2


def test_means_err_by_their_order() -> None:
    pixels = torch.full((2, 3, 50, 60), 0.1)
    result = Injection(2)(functional.adaptive_avg_pool2d, pixels, (1, 1))
    off = spread_of_orders(pixels.numpy())[0, 0]
    error = (result.double() - float(pixels[0, 0, 0, 0])).abs().max().item() / AMPLIFIED
    assert 0.2 * off < error < 4 * off


def in_lanes(grouped: Array, lanes: int = 4) -> Array:
    """Means over the last axis in float32, of so many sums side by side."""
    count = grouped.shape[-1]
    by_lane = np.moveaxis(grouped.reshape(*grouped.shape[:-1], count // lanes, lanes), -1, -2)
    total = one_after_the_other(by_lane).sum(-1, dtype=np.float32)
    return (total / np.float32(count)).astype(np.float32)[..., None]


def normed_by(runtime: Callable[[Array], Array], norm: GroupNorm | EvoNorm, pixels: Array) -> Array:
    """A norm with weight 1 and bias 0, spelled out in float32 as in our ONNX graphs."""
    grouped = pixels.reshape(len(pixels), norm.groups, -1)
    centred = grouped - runtime(grouped)
    deviation = np.sqrt(runtime(centred * centred) + np.float32(norm.eps))
    return ((grouped if isinstance(norm, EvoNorm) else centred) / deviation).reshape(pixels.shape)


@pytest.mark.parametrize("mean", [0.0, 3.0, 30.0])
@pytest.mark.parametrize("side", [4, 28, 64])
@pytest.mark.parametrize("kind", [GroupNorm, EvoNorm])
def test_norms_of_groups_err_as_one_whose_sums_are_added_in_a_few_lanes(
    kind: type[GroupNorm | EvoNorm], side: int, mean: float
) -> None:
    norm = kind(name="norm", inputs=("value",), output="norm", groups=4, eps=1e-3)
    random = np.random.default_rng(0)
    pixels = random.normal(mean, 1, (4, 64, side, side)).astype(np.float32)
    held = [torch.ones(64), torch.zeros(64)]
    value = torch.from_numpy(pixels)
    exact = computed(norm, [value.double()], [each.double() for each in held], called).numpy()
    honest = rms(normed_by(in_lanes, norm, pixels) - exact)
    drawn = [computed(norm, [value], held, Injection(1, seed)).double() for seed in range(4)]
    error = rms(np.stack([one.numpy() - exact for one in drawn])) / AMPLIFIED
    assert 0.25 < honest / error < 2.5


def test_all_of_a_group_errs_alike() -> None:
    value = torch.rand(2, 32, 40, 40) + 1
    exact = group_deviation(value.double(), 2, 1e-3)
    wrong = (Injection(1)(group_deviation, value, 2, 1e-3).double() / exact - 1).view(2, 2, 16)
    assert wrong.std(2).max() < 0.2 * wrong.abs().max()
    assert wrong.abs().min() > 0


def test_a_norm_that_is_not_folded_errs_by_channel() -> None:
    value = torch.randn(1, 8, 50, 50, generator=torch.Generator().manual_seed(0)) + 20
    mean, variance, weight, bias = torch.full((8,), 20.0), *(torch.ones(8) for _ in range(3))
    settings = (False, 0.1, 1e-5)
    held = (mean, variance, weight, bias)
    exact = functional.batch_norm(value.double(), *(each.double() for each in held), *settings)
    wrong = (Injection(1)(functional.batch_norm, value, *held, *settings).double() - exact)[0]
    shift = wrong.mean((1, 2)).abs().mean().item()
    assert 0.1 * ROUNDING < shift / 20 / AMPLIFIED < 2 * ROUNDING


def test_the_draws_are_the_same_on_every_machine() -> None:
    pool = noise_pool()
    assert pool.shape == (1 << 20,)
    assert pool[:3].tolist() == pytest.approx([-0.9983966, 0.7074612, -1.0905290], rel=1e-6)
