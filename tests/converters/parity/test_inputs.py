"""The inputs find the faults that they are there for."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from converters.folder.inputs import fitted, fitted_batches, verification_inputs

BATCHES = ("native", "odd", "checkerboards", "impulses", "constant", "extremes", "denormals")


@pytest.mark.parametrize(("channels", "size"), [(3, 224), (1, 32), (4, 97)])
def test_batches_have_their_sizes(channels: int, size: int) -> None:
    inputs = verification_inputs(channels, size)
    assert tuple(inputs) == BATCHES
    assert inputs["native"].shape == (1, channels, size, size)
    assert {len(inputs[name]) for name in BATCHES} >= {1, 2, 7}
    height, width = inputs["odd"].shape[2:]
    assert 32 <= height < width
    assert width % 2 or height % 2
    for batch in inputs.values():
        assert batch.dtype == np.float32
        assert batch.shape[1] == channels
        assert np.isfinite(batch).all()


def test_inputs_are_the_same_every_time() -> None:
    first, again = (verification_inputs(3, 64) for _ in range(2))
    assert all(first[name].tobytes() == again[name].tobytes() for name in first)


def test_each_impulse_lights_one_channel() -> None:
    impulses = verification_inputs(4, 64)["impulses"]
    lit = [tuple(np.argwhere(image > 5)[0]) for image in impulses]
    assert [np.count_nonzero(np.abs(image) > 5) for image in impulses] == [1] * 4
    assert [place[0] for place in lit] == [0, 1, 2, 3]
    _, row, column = lit[0]
    height, width = impulses.shape[2:]
    assert row not in {column, height - 1 - row}
    assert column != width - 1 - column


def test_checkerboards_change_sign_with_every_field() -> None:
    fine, coarse = np.sign(verification_inputs(3, 224)["checkerboards"][:, 0])
    assert np.all(fine[:, 1:] == -fine[:, :-1])
    assert np.all(coarse[0, :5] == coarse[0, 0])
    assert coarse[0, 5] == coarse[5, 0] == -coarse[0, 0]
    assert coarse[5, 5] == coarse[0, 0]


def test_denormals_are_denormal_and_extremes_extreme() -> None:
    inputs = verification_inputs(3, 224)
    tiny = np.abs(inputs["denormals"]) < np.finfo(np.float32).tiny
    assert 0.4 < tiny.mean() < 0.6
    assert np.all(inputs["denormals"] != 0)
    assert inputs["extremes"].std() > 65504


def test_images_of_a_batch_differ() -> None:
    for name in ("odd", "checkerboards", "impulses", "extremes"):
        batch = verification_inputs(3, 224)[name]
        assert all(not np.array_equal(a, b) for a, b in pairwise(batch))


@pytest.mark.parametrize("count", [1, 2, 3, 7, 9])
@pytest.mark.parametrize("side", [None, 40])
def test_fitting_a_batch_leaves_the_inputs_as_they_are(count: int, side: int | None) -> None:
    inputs = verification_inputs(3, 64)
    before = {name: pixels.copy() for name, pixels in inputs.items()}
    for name, pixels in inputs.items():
        pixels.flags.writeable = False
        made = fitted(pixels, (count, side, side))
        height, width = (side or size for size in pixels.shape[2:])
        assert made.shape == (count, 3, height, width)
        assert len({image.tobytes() for image in made}) == count
        assert np.array_equal(pixels, before[name])
        assert (made is pixels) == (made.shape == pixels.shape)


@pytest.mark.parametrize("count", [1, 9])
def test_small_batches_share_images_of_one_size(count: int) -> None:
    inputs = verification_inputs(3, 224)
    made = fitted_batches(inputs, (count, 224, 224))
    assert made.keys() == {"native", "odd", "extremes", "tiles"}
    assert {batch.shape for batch in made.values()} == {(count, 3, 224, 224)}
    assert len({image.tobytes() for image in made["tiles"]}) == count
    _, _, height, width = inputs["impulses"].shape
    places = [(row * height, column * width) for row in range(4) for column in range(3)]
    for image in made["tiles"][:7]:
        tiles = {image[:, y : y + height, x : x + width].tobytes() for y, x in places}
        for name in ("checkerboards", "impulses", "constant", "denormals"):
            assert tiles.issuperset(each.tobytes() for each in inputs[name]), name


def test_where_a_size_is_open_or_small_every_batch_stays_by_itself() -> None:
    inputs = verification_inputs(3, 224)
    for sizes in ((None, 224, 224), (1, None, 224), (1, 96, 96)):
        assert tuple(fitted_batches(inputs, sizes)) == BATCHES
