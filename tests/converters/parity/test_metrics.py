"""Errors and class agreement, on numbers that can be checked by hand."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from converters.parity.metrics import Errors, TopK, rms

if TYPE_CHECKING:
    from numpy.typing import NDArray


def top_one(logits: list[list[float]], oracle: list[list[float]]) -> tuple[int, int, int]:
    found = TopK.of(np.array(logits, np.float32), np.array(oracle), 1)
    return found.images, found.agree, found.proven


def test_errors_are_the_largest_and_the_root_mean_square() -> None:
    oracle = np.array([[1.0, 2.0], [3.0, 4.0]])
    assert Errors.of(oracle + np.array([[0, 1], [1, -7]]), oracle) == Errors(7.0, math.sqrt(51 / 4))
    assert Errors.of(oracle.astype(np.float32), oracle) == Errors(0.0, 0.0)
    assert rms(np.array([3.0, 4.0, 0.0, 0.0])) == 2.5


def test_errors_are_measured_in_float64() -> None:
    oracle = np.array([1 + 2.0**-40])
    assert Errors.of(np.array([1.0], np.float32), oracle).max == 2.0**-40


def test_a_nan_shows_in_both_errors() -> None:
    errors = Errors.of(np.array([np.nan, 1.0]), np.array([1.0, 1.0]))
    assert math.isnan(errors.max)
    assert math.isnan(errors.rms)


@pytest.mark.parametrize(
    ("logits", "oracle", "expected"),
    [
        pytest.param([3.25, 1.0, 0.0], [3.0, 1.0, 0.0], (1, 1, 1), id="twice 0.25 is below 2"),
        pytest.param(
            [2.25, 1.0, 0.0], [3.0, 2.0, 0.0], (1, 1, 0), id="an error of 1, a margin of 1"
        ),
        pytest.param(
            [3.0, 2.0, 0.5], [3.0, 2.0, 0.0], (1, 1, 0), id="twice 0.5 is exactly the margin"
        ),
        pytest.param([2.0, 3.0, 0.0], [3.0, 2.0, 0.0], (1, 0, 0), id="another class"),
        pytest.param([3.0, 3.0, 0.0], [3.0, 3.0, 0.0], (1, 1, 0), id="a tie is never proven"),
        pytest.param([3.0, 3.0, 0.0], [2.5, 3.0, 0.0], (1, 0, 0), id="a tie goes to the first"),
    ],
)
def test_one_image(
    logits: list[float], oracle: list[float], expected: tuple[int, int, int]
) -> None:
    assert top_one([logits], [oracle]) == expected


def test_images_are_counted_each_by_its_own_margin() -> None:
    oracle = [[3.0, 1.0], [1.0, 1.5], [0.0, 8.0]]
    logits = [[3.5, 1.0], [1.0, 1.0], [8.0, 0.0]]
    assert top_one(logits, oracle) == (3, 1, 1)


@given(
    oracle=arrays(np.float64, (4, 5), elements=st.floats(-8, 8, width=16)),
    noise=arrays(np.float64, (4, 5), elements=st.floats(-2, 2, width=16)),
    k=st.integers(1, 4),
)
def test_what_is_proven_agrees(
    oracle: NDArray[np.float64], noise: NDArray[np.float64], k: int
) -> None:
    found = TopK.of(oracle + noise, oracle, k)
    assert found.proven <= found.agree <= found.images == 4


def test_the_best_classes_are_a_set_whose_edge_must_be_clear() -> None:
    oracle = np.array([[6.0, 5.0, 4.0, 1.0], [6.0, 5.0, 4.0, 3.5]])
    swapped_inside = oracle[:, [1, 0, 2, 3]]
    error = np.abs(swapped_inside - oracle).max()
    assert error == 1
    assert TopK.of(swapped_inside, oracle, 3) == TopK(3, images=2, agree=2, proven=1)
    assert TopK.of(oracle[:, [0, 1, 3, 2]], oracle, 3).agree == 0
