"""PaddleClas' files beyond what :mod:`tests.frameworks.test_recorded` tells of each framework."""

from __future__ import annotations

import pickle
from typing import TYPE_CHECKING

import numpy as np
import pytest
from safetensors.numpy import load_file

from converters.checkpoint import StoredTensor, open_checkpoint
from converters.families.manifest import find
from converters.families.paddle_clas import PADDLECLAS
from tests.converters.families.conversion import converted, refusal, source_of
from tests.frameworks.environments import RECORDED

if TYPE_CHECKING:
    from pathlib import Path

TODAY = RECORDED / "paddleclas" / "y.pdparams"
OF_2021 = RECORDED / "paddleclas" / "odd.pdparams"
"""With biased convolutions, and pairs of names and arrays."""

TABLE = "StructuredToParameterName@@"


def arrays_of(path: Path, *keys: str) -> dict[str, np.ndarray]:
    with open_checkpoint(path) as checkpoint:
        state = checkpoint.tree
        for key in keys:
            assert isinstance(state, dict)
            state = state[key]
        assert isinstance(state, dict)
        return {
            str(name): checkpoint.array(t)
            for name, t in state.items()
            if isinstance(t, StoredTensor)
        }


def written(content: object, path: Path) -> Path:
    path.write_bytes(pickle.dumps(content, protocol=4))
    return path


def test_the_biases_of_2021_are_taken_off_the_means(tmp_path: Path) -> None:
    arrays = arrays_of(OF_2021, "model")

    done = converted(written(arrays, tmp_path / "net.pdparams"))

    state = load_file(done.out / "model.safetensors")
    for theirs, ours in (
        ("conv", "regnet.embedder.embedder"),
        ("s4_b3.conv1", "regnet.encoder.stages.3.layers.2.layer.1"),
        ("s2_b1.short", "regnet.encoder.stages.1.layers.0.shortcut"),
    ):
        mean, bias = arrays[f"{theirs}._batch_norm._mean"], arrays[f"{theirs}._conv.bias"]
        expected = (mean.astype(np.float64) - bias.astype(np.float64)).astype(np.float32)
        assert np.array_equal(state[f"{ours}.normalization.running_mean"], expected)
        assert np.array_equal(
            state[f"{ours}.normalization.bias"], arrays[f"{theirs}._batch_norm.bias"]
        )
        assert np.abs(bias).max() > 0.05
    said = next(d for d in source_of(OF_2021).decisions if d.topic == "convolution bias")
    assert said.value == "26 weights"


def test_nothing_is_said_of_biases_where_there_are_none() -> None:
    source = source_of(TODAY)

    assert not [d for d in source.decisions if d.topic == "convolution bias"]
    assert source.skipped == {}


@pytest.mark.parametrize(
    ("name", "shape"),
    [("conv._conv.bias", (31,)), ("s1_b1.conv3._conv.bias", (8,)), ("conv._conv.offset", (32,))],
)
def test_a_bias_that_no_batch_norm_can_take_up_is_not_left_out(
    name: str, shape: tuple[int, ...], tmp_path: Path
) -> None:
    arrays = arrays_of(TODAY) | {name: np.ones(shape, np.float32)}
    path = written(arrays, tmp_path / "net.pdparams")

    assert name in refusal(lambda: converted(path), "net.pdparams")


def test_pairs_of_names_and_arrays_are_read_wherever_they_are(tmp_path: Path) -> None:
    pairs = {name: (f"own_{n}", a) for n, (name, a) in enumerate(arrays_of(TODAY).items())}
    plain = converted(written(arrays_of(TODAY), tmp_path / "plain.pdparams"))

    nested = converted(written({"a": {"b": pairs}, "step": ("b", 1)}, tmp_path / "n.pdparams"))

    assert (nested.out / "model.safetensors").read_bytes() == (
        plain.out / "model.safetensors"
    ).read_bytes()


def test_squeeze_and_excitation_of_before_2026_is_refused(tmp_path: Path) -> None:
    """Its linear layers have the width that is the quotient of two widths."""
    arrays = {
        name.replace("conv_reduce", "squeeze").replace("conv_expand", "excitation"): (
            array.reshape(array.shape[:2]).T if "se_block" in name and array.ndim > 1 else array
        )
        for name, array in arrays_of(TODAY).items()
    }
    path = written({**arrays, TABLE: {"out.weight": "fc_0.w_0"}}, tmp_path / "net.pdparams")

    assert "that PaddleClas had before 2026" in refusal(lambda: source_of(path), "net.pdparams")


def test_an_optimiser_alone_is_no_network(tmp_path: Path) -> None:
    """PaddleClas saves a list of the state of each, as ``.pdopt``."""
    path = written([{"fc_0.w_0_velocity_0": np.ones((4, 2))}], tmp_path / "net.pdopt")

    assert "holds no tensors by name" in refusal(lambda: source_of(path), "net.pdopt")


def test_a_trunk_is_a_trunk(tmp_path: Path) -> None:
    arrays = {n: array for n, array in arrays_of(TODAY).items() if not n.startswith("out.")}

    assert not source_of(written(arrays, tmp_path / "net.pdparams")).has_classifier


def test_images_are_evaluated_as_paddleclas_configurations_say() -> None:
    source = source_of(TODAY)
    published = find("paddleclas/RegNetX_4GF")

    assert published
    assert source.transform == published.transform
    assert source.transform.in_words == "short side to 256, centre crop 256, bilinear"
    assert source.channel_order == "rgb"


def test_no_name_is_of_two_tensors() -> None:
    assert set(arrays_of(TODAY)) == set(source_of(TODAY).tensors)
    assert all(map(PADDLECLAS.parse, arrays_of(TODAY)))
