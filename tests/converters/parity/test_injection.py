"""The errors that are injected are those that float32 makes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from torch.nn import functional

from converters.formats.operations import computed
from converters.parity.injection import AMPLIFIED, Injection, noise_pool, spread_of_orders
from converters.parity.metrics import rms
from regnet.architecture import Act
from regnet.model import ACTIVATIONS

if TYPE_CHECKING:
    from regnet.config import Activation

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


def test_the_draws_are_the_same_on_every_machine() -> None:
    pool = noise_pool()
    assert pool.shape == (1 << 20,)
    assert pool[:3].tolist() == pytest.approx([-0.9983966, 0.7074612, -1.0905290], rel=1e-6)
