"""MindCV's files beyond what :mod:`tests.frameworks.test_recorded` tells of each framework."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import numpy as np
import pytest
from safetensors.numpy import load_file

from converters.checkpoint import StoredTensor, open_checkpoint
from converters.checkpoint.values import Storage, contiguous_stride
from converters.errors import InputError
from converters.families.harmless import OPTIMISER
from converters.families.manifest import find
from converters.families.mindcv import MINDCV
from regnet.architecture import Architecture
from regnet.design_space import NETWORKS
from tests.converters.checkpoint.mindspore_files import of_array
from tests.converters.families.conversion import converted, refusal, source_of, source_of_headers
from tests.frameworks.environments import RECORDED

if TYPE_CHECKING:
    from pathlib import Path

    from regnet.config import RegNetConfig

TRAINED = RECORDED / "mindcv" / "x.ckpt"
"""Saved by the trainer."""

FOLDED = RECORDED / "mindcv" / "y.ckpt"


def arrays_of(path: Path) -> dict[str, np.ndarray]:
    with open_checkpoint(path) as checkpoint:
        assert isinstance(checkpoint.tree, dict)
        return {
            str(name): checkpoint.array(t)
            for name, t in checkpoint.tree.items()
            if isinstance(t, StoredTensor)
        }


def written(arrays: dict[str, np.ndarray], path: Path) -> Path:
    path.write_bytes(b"".join(of_array(name, array) for name, array in arrays.items()))
    return path


def stored_name(name: str) -> str:
    """How MindSpore 2.10 calls what the keymap calls ``name``; the first stage is no level."""
    head, _, rest = name.partition("stages.")
    if not rest:
        return name
    stage, _, inner = rest.partition(".")
    return f"{head}0.{inner}" if stage == "0" else f"{head}0.blocks.{stage}.{inner}"


def headers(config: RegNetConfig) -> dict[str, StoredTensor]:
    """The names and shapes that MindCV saves of a network, without bytes."""
    found = {}
    for slot in Architecture.of(config, classifier=True).slots:
        if slot.is_counter:
            continue
        name, shape = stored_name(MINDCV.spell(slot.role, slot.fields)), slot.shape
        storage = Storage(TRAINED, 0, 4 * int(np.prod(shape)), None, name)
        found[name] = StoredTensor("float32", shape, contiguous_stride(shape), storage, 0)
    return found


def test_recorded_names_are_those_of_this_test() -> None:
    source = source_of(FOLDED)

    assert list(map(stored_name, source.tensors)) == list(arrays_of(FOLDED))


@pytest.mark.parametrize("name", NETWORKS)
def test_a_network_is_recognised_by_names_and_shapes(name: str) -> None:
    config = NETWORKS[name].config(num_labels=1000)
    found = source_of_headers(headers(config))

    assert found.family == "mindcv"
    assert found.config.to_dict() == config.to_dict()


def test_the_file_that_is_registered_for_another_network_is_what_its_shapes_say() -> None:
    """MindCV's ``regnet_x_16gf`` loads the file of Y-16GF."""
    published = find("mindcv/regnet_y_16gf-c30a856f")
    assert published
    config = NETWORKS["RegNetY-16GF"].config(num_labels=1000)

    source = published.describe(source_of_headers(headers(config)), None)

    assert source.config.layer_type == "y"
    assert (source.transform.resize, source.transform.crop) == (248, 224)


def test_what_training_needs_is_left_out_and_said() -> None:
    source = source_of(TRAINED)

    assert source.skipped == {
        **dict.fromkeys(
            ("scale_sense", "updates", "global_step", "learning_rate", "momentum", "moments",
             "epoch_num"),
            OPTIMISER,
        ),
        "ema": "the weights that were not chosen",
    }  # fmt: skip


@pytest.mark.parametrize(("weights", "prefix"), [("best", ""), ("raw", ""), ("ema", "ema.")])
def test_the_weights_asked_for_are_taken(weights: str, prefix: str, tmp_path: Path) -> None:
    shutil.copy(TRAINED, tmp_path / "x.ckpt")
    arrays = arrays_of(TRAINED)

    done = converted(tmp_path / "x.ckpt", weights=weights)

    state = load_file(done.out / "model.safetensors")
    for theirs, ours in (
        ("stem.bn.moving_variance", "regnet.embedder.embedder.normalization.running_var"),
        (
            "0.blocks.3.blocks.1.f.b.weight",
            "regnet.encoder.stages.3.layers.1.layer.1.convolution.weight",
        ),
        (
            "0.blocks.0.f.b_bn.gamma",
            "regnet.encoder.stages.0.layers.0.layer.1.normalization.weight",
        ),
        ("head.fc.weight", "classifier.1.weight"),
    ):
        assert np.array_equal(state[ours], arrays[prefix + theirs])
    assert not np.array_equal(arrays["head.fc.weight"], arrays["ema.head.fc.weight"])


@pytest.mark.parametrize("prefix", ["", "backbone.", "network.backbone."])
def test_a_network_within_another_cell_has_other_names(prefix: str, tmp_path: Path) -> None:
    """A cell that is given to another as its member gets the names of its members."""
    names = dict(zip(arrays_of(FOLDED), source_of(FOLDED).tensors, strict=True))
    arrays = {prefix + names[name]: array for name, array in arrays_of(FOLDED).items()}
    shutil.copy(FOLDED, tmp_path / "y.ckpt")

    inner = converted(written(arrays, tmp_path / "inner.ckpt"))
    weights = (inner.out / "model.safetensors").read_bytes()

    assert weights == (converted(tmp_path / "y.ckpt").out / "model.safetensors").read_bytes()


def test_a_trunk_is_a_trunk(tmp_path: Path) -> None:
    arrays = {n: array for n, array in arrays_of(FOLDED).items() if not n.startswith("head.")}

    assert not source_of(written(arrays, tmp_path / "trunk.ckpt")).has_classifier


def test_momentum_alone_is_no_network(tmp_path: Path) -> None:
    arrays = {n: array for n, array in arrays_of(TRAINED).items() if n.startswith("moments.")}
    path = written(arrays, tmp_path / "optim.ckpt")

    assert "is not a RegNet of a known framework" in refusal(lambda: source_of(path), "optim.ckpt")


@pytest.mark.parametrize("name", ["head.conv.weight", "0.blocks.0.f.d.weight", "other.weight"])
def test_what_nobody_knows_is_not_left_out(name: str, tmp_path: Path) -> None:
    arrays = arrays_of(FOLDED) | {name: np.ones((4, 4), np.float32)}
    path = written(arrays, tmp_path / "y.ckpt")

    with pytest.raises(
        InputError, match=r"1 unknown|head\.conv\.weight, which may change what comes out"
    ):
        converted(path)


def test_another_network_of_mindcv_with_such_a_stem_is_no_regnet(tmp_path: Path) -> None:
    arrays = {n: array for n, array in arrays_of(FOLDED).items() if n.startswith("stem.")}
    arrays["layer1.0.conv1.weight"] = np.ones((4, 4, 3, 3), np.float32)
    path = written(arrays, tmp_path / "net.ckpt")

    assert "it looks like a ResNet" in refusal(lambda: source_of(path), "net.ckpt")


def test_images_are_evaluated_as_mindcv_s_default_says() -> None:
    source = source_of(FOLDED)

    assert source.transform.in_words == "short side to 256, centre crop 224, bilinear"
    assert source.channel_order == "rgb"
