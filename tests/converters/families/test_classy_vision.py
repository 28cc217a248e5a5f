"""Checkpoints that the real ClassyVision made: every layout, one network or several heads."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch

from converters.errors import InputError
from converters.families.classy_vision import FAMILY
from converters.families.options import SourceOptions
from converters.weights.inspection import inspected
from regnet.architecture import Architecture
from tests.converters.loading import TOLERANCES, load, relative_error
from tests.converters.stored import headers

pytest.importorskip("classy_vision")

from classy_vision.models import build_model

from converters.families.recognise import architecture_of
from regnet.config import RegNetConfig
from tests.oracles.classy_vision import (
    TINY,
    TINY_X,
    UNEVEN,
    averaging_hook_state,
    build,
    checkpoint,
    head,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

CONFIGS = {"Y": TINY, "X": TINY_X, "uneven groups": UNEVEN}
END = {"Y": 40, "X": 40, "uneven groups": 48}
BOTH_PRECISIONS = pytest.mark.parametrize("dtype", TOLERANCES, ids=str)

PUBLISHED = [
    f"regnet_{kind}_{size}"
    for kind, sizes in {
        "x": ("400mf", "800mf", "1.6gf", "3.2gf", "8gf", "16gf", "32gf"),
        "y": ("400mf", "800mf", "1.6gf", "3.2gf", "8gf", "16gf", "32gf", "64gf", "128gf", "256gf"),
    }.items()
    for size in sizes
]


def with_head(kind: str, block: str = "trunk_output", **options: Any) -> Any:
    return build(CONFIGS[kind], {block: [head("default_head", END[kind], 10, **options)]})


def two_headed() -> Any:
    return build(TINY, {"trunk_output": [head("cats", 40, 3), head("dogs", 40, 5)]})


def in_the_middle() -> Any:
    """A classifier, and a head that reads the second stage."""
    heads = {"trunk_output": [head("main", 40, 7)], "block2-1": [head("aside", 24, 7)]}
    return build(TINY, heads)


def saved(tmp_path: Path, content: Any) -> Path:
    torch.save(content, tmp_path / "checkpoint.torch")
    return tmp_path / "checkpoint.torch"


LAYOUTS: dict[str, Callable[[Any, Any], Any]] = {
    "full nest": checkpoint,
    "model state": lambda network, _: network.get_classy_state(),
    "attached heads": lambda network, _: network.state_dict(),
    "attached heads, DDP": lambda network, _: {
        "state_dict": {f"module.{name}": tensor for name, tensor in network.state_dict().items()}
    },
}


@BOTH_PRECISIONS
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("kind", CONFIGS)
def test_every_layout_is_recognised_and_computes_the_same(
    tmp_path: Path, kind: str, layout: str, dtype: torch.dtype
) -> None:
    network = with_head(kind)
    path = saved(tmp_path, LAYOUTS[layout](network, CONFIGS[kind]))

    loaded = load(path, tmp_path / "out")

    assert loaded.source.framework == "classy-vision"
    assert loaded.source.config.num_labels == 10
    assert relative_error(loaded.network, network, dtype) <= TOLERANCES[dtype]


@pytest.mark.parametrize("block", ["trunk_output", "block3", "block3-0"])
def test_a_head_on_any_block_that_ends_the_network_is_its_classifier(
    tmp_path: Path, block: str
) -> None:
    network = with_head("Y", block)
    path = saved(tmp_path, network.state_dict())

    loaded = load(path, tmp_path / "out")

    assert relative_error(loaded.network, network, torch.float32) <= 1e-5


def test_a_head_on_the_very_first_block_does_not_hide_the_network(tmp_path: Path) -> None:
    network = build(TINY, {"block1-0": [head("early", 16, 4)]})
    path = saved(tmp_path, network.state_dict())

    loaded = load(path, tmp_path / "out")

    assert not loaded.source.has_classifier
    assert "block1-0" in loaded.source.skipped["head early"]


@BOTH_PRECISIONS
def test_a_bare_trunk_becomes_a_network_without_classifier(
    tmp_path: Path, dtype: torch.dtype
) -> None:
    network = build(TINY)
    path = saved(tmp_path, network.state_dict())

    loaded = load(path, tmp_path / "out")

    assert not loaded.source.has_classifier
    assert loaded.decision("head") == "none, a trunk alone"
    assert relative_error(loaded.network, network, dtype) <= TOLERANCES[dtype]


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(("name", "classes"), [("cats", 3), ("dogs", 5)])
def test_of_several_heads_the_one_asked_for_is_taken(
    tmp_path: Path, layout: str, name: str, classes: int
) -> None:
    network = two_headed()
    path = saved(tmp_path, LAYOUTS[layout](network, TINY))

    loaded = load(path, tmp_path / "out", head=name)

    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        ours, theirs = loaded.network(images).logits, network(images)[name]
    assert ours.shape == (2, classes)
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)
    (other,) = {"cats", "dogs"} - {name}
    assert loaded.source.skipped[f"head {other}"] == "not the one asked for"


@pytest.mark.parametrize(
    ("asked", "words"),
    [(None, r"2 heads \(cats, dogs\); choose one with --head"), ("birds", "cats, dogs")],
)
def test_without_a_choice_that_is_there_the_heads_are_named(
    tmp_path: Path, asked: str | None, words: str
) -> None:
    path = saved(tmp_path, checkpoint(two_headed(), TINY))

    with pytest.raises(InputError, match=words), inspected(path, SourceOptions(head=asked)):
        pass


def test_a_head_on_an_earlier_stage_is_left_out_with_the_reason(tmp_path: Path) -> None:
    path = saved(tmp_path, checkpoint(in_the_middle(), TINY))

    loaded = load(path, tmp_path / "out")

    assert loaded.decision("head") == "main"
    assert loaded.source.skipped["head aside"] == "it reads block2-1, not the end of the network"
    with (
        pytest.raises(InputError, match=r"aside cannot be the classifier .*choose one of main"),
        inspected(path, SourceOptions(head="aside")),
    ):
        pass


def test_a_head_with_a_convolution_is_a_classifier(tmp_path: Path) -> None:
    network = with_head("Y", conv_planes=8)
    path = saved(tmp_path, checkpoint(network, TINY))

    loaded = load(path, tmp_path / "out")

    assert loaded.source.config.head_size == 8
    assert relative_error(loaded.network, network, torch.float32) <= 1e-5


def test_a_head_that_normalises_features_is_left_out(tmp_path: Path) -> None:
    network = with_head("Y", normalize_inputs="l2")
    config = TINY | {"heads": [{"unique_id": "default_head", "normalize_inputs": "l2"}]}
    path = saved(tmp_path, checkpoint(network, config))

    loaded = load(path, tmp_path / "out")

    assert "length one" in loaded.source.skipped["head default_head"]


@pytest.mark.parametrize(("weights", "taken"), [("best", "raw"), ("raw", "raw"), ("ema", "ema")])
def test_averaged_weights_of_the_hook_are_taken_when_asked_for(
    tmp_path: Path, weights: str, taken: str
) -> None:
    networks = {
        name: build(TINY, {"trunk_output": [head("default_head", 40, 10)]}, seed)
        for seed, name in enumerate(("raw", "ema"))
    }
    hook = averaging_hook_state(networks["raw"], networks["ema"])
    path = saved(tmp_path, checkpoint(networks["raw"], TINY, averaging=hook))

    loaded = load(path, tmp_path / "out", weights=weights)

    assert loaded.decision("weights") == taken
    assert relative_error(loaded.network, networks[taken], torch.float32) <= 1e-5


def test_strides_come_from_the_configuration_of_the_run(tmp_path: Path) -> None:
    config = UNEVEN | {"strides": [1, 2, 2]}
    network = build(config, {"trunk_output": [head("h", 48, 4)]})
    path = saved(tmp_path, checkpoint(network, config))

    loaded = load(path, tmp_path / "out")

    assert relative_error(loaded.network, network, torch.float32) <= 1e-5


@pytest.mark.parametrize("name", PUBLISHED)
def test_every_published_trunk_fits_the_reference_by_names_and_shapes(name: str) -> None:
    with torch.device("meta"):
        network = build_model({"name": name})
    tensors = headers(network)

    config = RegNetConfig(**architecture_of(tensors, FAMILY.keymap, name) | {"num_labels": 2})

    ours = Architecture.of(config, classifier=False).shapes
    assert sorted(ours.values()) == sorted(t.shape for t in tensors.values())
    if name == "regnet_y_256gf":
        assert config.groups_width == 848
        assert config.hidden_sizes[0] == 640
