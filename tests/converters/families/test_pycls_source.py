"""What a pycls checkpoint says beside its tensors: weights, channel order, cfg."""

from __future__ import annotations

import pickle
from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from pycls.core.config import cfg as pycls_cfg
from pycls.datasets.cifar10 import Cifar10

from converters.errors import InputError
from converters.families.options import SourceOptions
from converters.families.source import NOT_UNDERSTOOD
from converters.weights.inspection import inspected
from regnet.image_processor import RegNetImageProcessor
from tests.oracles.pycls import TINY, TINY_X, build, settings

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from torch import Tensor

    from converters.families.source import ChannelOrder, Source, WeightsChoice

State = dict[str, "Tensor"]
STEM = "stem.conv.weight"
CLASSES = 10
X_NETWORK = {"REGNET.SE_ON": False}
THREE_STAGES = {"MODEL.TYPE": "anynet", "ANYNET.DEPTHS": [1, 1, 1], "ANYNET.SE_ON": True}


@cache
def _network(*, attention: bool) -> State:
    state: State = build(TINY if attention else TINY_X, classes=CLASSES).state_dict()
    return state


def state(*, attention: bool = True, fill: float | None = None) -> State:
    """Return a real pycls state; ``fill`` replaces the stem's weights, to tell states apart."""
    tensors = dict(_network(attention=attention))
    if fill is not None:
        tensors[STEM] = torch.full_like(tensors[STEM], fill)
    return tensors


def cfg_text(changes: dict[str, Any] | None = None) -> str:
    """Return the text that the real pycls dumps, with changes by full key (``SECTION.KEY``)."""
    with settings(TINY, CLASSES):
        values = yaml.safe_load(pycls_cfg.dump())
    for name, value in (changes or {}).items():
        section, key = name.split(".")
        values[section][key] = value
    return str(yaml.safe_dump(values))


def checkpoint_with(changes: dict[str, Any], **others: Any) -> dict[str, Any]:
    """Return a whole checkpoint; of an X network where the changes turn attention off."""
    attention = changes.get("REGNET.SE_ON", True)
    weights = state(attention=attention)
    return {"epoch": 99, "model_state": weights, "cfg": cfg_text(changes), **others}


@contextmanager
def opened(
    tree: Any,
    folder: Path,
    *,
    channel_order: ChannelOrder | None = None,
    weights: WeightsChoice = "best",
) -> Iterator[tuple[Source, float]]:
    """Save a tree, read it as pycls', and give the source with its stem's first weight."""
    path = folder / "net.pyth"
    torch.save(tree, path)
    options = SourceOptions("pycls", channel_order, weights)
    with inspected(path, options) as (checkpoint, inspection):
        source = inspection.source
        yield source, float(checkpoint.array(source.tensors[STEM]).flat[0])


def refusal(tree: Any, folder: Path, weights: WeightsChoice = "best") -> str:
    with pytest.raises(InputError) as caught, opened(tree, folder, weights=weights):
        pass
    message = str(caught.value)
    assert message.startswith("net.pyth")
    assert message.endswith(".")
    assert str(folder) not in message
    return message


def decision(source: Source, topic: str) -> tuple[str, str]:
    found = [(d.value, d.reason) for d in source.decisions if d.topic == topic]
    assert len(found) == 1
    return found[0]


RAW, EMA = 1.0, 2.0


def with_ema(**errors: Any) -> dict[str, Any]:
    return {"model_state": state(fill=RAW), "ema_state": state(fill=EMA), **errors}


@pytest.mark.parametrize(
    ("errors", "choice", "taken", "reason"),
    [
        ({"test_err": 20.5, "ema_err": 20.25}, "best", EMA, "20.5 % raw and 20.25 % EMA"),
        ({"test_err": 20.0, "ema_err": 20.5}, "best", RAW, "20 % raw and 20.5 % EMA"),
        ({"test_err": 20.0, "ema_err": 20.0}, "best", RAW, "20 % raw and 20 % EMA"),
        ({"ema_err": 99.5}, "best", EMA, "100 % raw and 99.5 % EMA"),
        ({"test_err": 99}, "best", RAW, "99 % raw and 100 % EMA"),
        ({}, "best", RAW, "100 % raw and 100 % EMA"),
        ({"test_err": None, "ema_err": 5.0}, "best", EMA, "100 % raw and 5 % EMA"),
        ({"test_err": 20.5, "ema_err": 20.25}, "raw", RAW, "as asked for with --weights"),
        ({"test_err": 20.0, "ema_err": 20.5}, "ema", EMA, "as asked for with --weights"),
    ],
)
def test_the_weights_are_chosen_by_the_rule_of_pycls_or_by_the_user(
    tmp_path: Path, errors: dict[str, Any], choice: WeightsChoice, taken: float, reason: str
) -> None:
    with opened(with_ema(**errors), tmp_path, weights=choice) as (source, stem):
        assert stem == taken
        value, why = decision(source, "weights")

    assert value == {RAW: "raw", EMA: "ema"}[taken]
    assert reason in why
    left = {RAW: "ema_state", EMA: "model_state"}[taken]
    assert source.skipped == {left: "the weights that were not chosen"}


@pytest.mark.parametrize("choice", ["best", "raw"])
def test_a_file_without_ema_gives_its_one_set_of_weights(
    tmp_path: Path, choice: WeightsChoice
) -> None:
    tree = {"model_state": state(fill=RAW), "optimizer_state": {"state": {}}}

    with opened(tree, tmp_path, weights=choice) as (source, stem):
        assert stem == RAW

    assert decision(source, "weights") == (
        "raw",
        "the file holds one set of weights, at model_state",
    )
    assert list(source.skipped) == ["optimizer_state"]


@pytest.mark.parametrize("wrap", [lambda s: {"model_state": s}, lambda s: s])
def test_asking_for_ema_weights_that_are_not_there_is_refused(tmp_path: Path, wrap: Any) -> None:
    assert "leave out --weights ema" in refusal(wrap(state()), tmp_path, weights="ema")


@pytest.mark.parametrize(
    "wrap",
    [
        lambda s: s,
        lambda s: {"state_dict": s},
        lambda s: {"model": s, "epoch": 3},
        lambda s: {"model_state": s},
        lambda s: {"model_state": {f"module.{name}": tensor for name, tensor in s.items()}},
        lambda s: {f"module.{name}": tensor for name, tensor in s.items()},
        lambda s: {"state_dict": {f"_orig_mod.{name}": tensor for name, tensor in s.items()}},
    ],
    ids=["bare", "state_dict", "model", "model_state", "DDP", "bare DDP", "compiled"],
)
def test_the_state_is_found_in_whatever_wraps_it(tmp_path: Path, wrap: Any) -> None:
    with opened(wrap(state(fill=RAW)), tmp_path) as (source, stem):
        assert stem == RAW

    assert set(source.tensors) == set(state())
    assert source.config.num_labels == CLASSES
    assert source.has_classifier


FFCV = {"DATA_LOADER": {"MODE": "ffcv"}}
PYTORCH = {"DATA_LOADER": {"MODE": "pytorch"}}


@pytest.mark.parametrize(
    ("loader", "asked", "flips", "reason"),
    [
        ({}, None, True, "the cfg names pycls' own loader"),
        (PYTORCH, None, True, "the cfg names pycls' own loader"),
        (FFCV, None, False, "the cfg's DATA_LOADER.MODE is ffcv"),
        (None, None, True, "pycls' default; the file has no cfg"),
        (FFCV, "bgr", True, "as asked for with --channel-order"),
        ({}, "rgb", False, "as asked for with --channel-order"),
        (None, "rgb", False, "as asked for with --channel-order"),
    ],
)
def test_the_channel_order_is_decided_and_the_reason_given(
    tmp_path: Path,
    loader: dict[str, Any] | None,
    asked: ChannelOrder | None,
    flips: bool,
    reason: str,
) -> None:
    tree: dict[str, Any] = {"model_state": state()}
    if loader is not None:
        tree["cfg"] = yaml.safe_dump(yaml.safe_load(cfg_text()) | loader)

    with opened(tree, tmp_path, channel_order=asked) as (source, _):
        value, why = decision(source, "channel order")

    assert source.flips_stem is flips
    assert value == ("BGR, stem flipped to take RGB" if flips else "RGB, stem kept")
    assert reason in why


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"REGNET.STEM_TYPE": "res_stem_in"}, "REGNET.STEM_TYPE to res_stem_in"),
        ({"REGNET.BLOCK_TYPE": "vanilla_block"}, "BLOCK_TYPE to vanilla_block"),
        (X_NETWORK | {"MODEL.ACTIVATION_FUN": "mish"}, "ACTIVATION_FUN to mish.* relu, silu or"),
        ({"MODEL.NUM_CLASSES": 11}, "its head has 10 classes where its cfg says 11"),
        ({"MODEL.TYPE": "effnet"}, "MODEL.TYPE effnet, which is not a RegNet"),
        ({"MODEL.TYPE": "resnet"}, "MODEL.TYPE resnet, which is not a RegNet"),
        (THREE_STAGES | {"ANYNET.BOT_MULS": [1.0, 1.0, 0.5]}, "ANYNET.BOT_MULS to .*0.5"),
        ({"TEST.IM_SIZE": 0}, "TEST.IM_SIZE 0 and TRAIN.IM_SIZE 224"),
        ({"TRAIN.IM_SIZE": -224}, "TRAIN.IM_SIZE -224"),
        ({"TRAIN.IM_SIZE": 288}, "TEST.IM_SIZE 256 and TRAIN.IM_SIZE 288"),
        ({"TEST.IM_SIZE": "large"}, "TEST.IM_SIZE large"),
        ({"TEST.IM_SIZE": [256, 256]}, r"TEST.IM_SIZE \[256, 256\]"),
        ({"TEST.IM_SIZE": None}, "TEST.IM_SIZE None"),
    ],
)
def test_a_cfg_that_the_reference_cannot_express_is_refused_by_name(
    tmp_path: Path, changes: dict[str, Any], words: str
) -> None:
    tree = checkpoint_with(changes)

    with (
        pytest.raises(InputError, match=rf"^net\.pyth: .*{words}.*\.$"),
        opened(tree, tmp_path),
    ):
        pass


@pytest.mark.parametrize(
    ("changes", "field", "value"),
    [
        (X_NETWORK | {"MODEL.ACTIVATION_FUN": "relu"}, "hidden_act", "relu"),
        (X_NETWORK | {"MODEL.ACTIVATION_FUN": "silu"}, "hidden_act", "silu"),
        (X_NETWORK | {"MODEL.ACTIVATION_FUN": "swish"}, "hidden_act", "silu"),
        (X_NETWORK | {"MODEL.ACTIVATION_FUN": "gelu"}, "hidden_act", "gelu"),
        ({"REGNET.HEAD_W": 0}, "hidden_act", "relu"),
        ({"MODEL.ACTIVATION_FUN": "silu"}, "hidden_act", "silu"),
        ({"MODEL.ACTIVATION_FUN": "silu"}, "se_act", "silu"),
        (X_NETWORK | {"MODEL.ACTIVATION_FUN": "silu"}, "se_act", "relu"),
        ({"BN.EPS": 1e-3}, "norm_eps", 1e-3),
        ({"REGNET.STEM_TYPE": "res_stem_cifar"}, "stem_strides", [1]),
        ({"REGNET.STRIDE": 4}, "strides", [4, 4, 4]),
        (THREE_STAGES | {"ANYNET.STRIDES": [2, 1, 2]}, "strides", [2, 1, 2]),
        ({}, "downsample_in_first_stage", True),
        (THREE_STAGES, "downsample_in_first_stage", True),
        (THREE_STAGES | {"ANYNET.STRIDES": [2, 2, 2]}, "downsample_in_first_stage", True),
        (THREE_STAGES | {"ANYNET.STRIDES": [1, 2, 2]}, "downsample_in_first_stage", False),
        (THREE_STAGES | {"REGNET.STRIDE": 1}, "downsample_in_first_stage", True),
        (THREE_STAGES | {"ANYNET.BOT_MULS": [1.0, 1.0, 1.0]}, "layer_type", "y"),
    ],
)
def test_what_only_the_cfg_tells_reaches_the_configuration(
    tmp_path: Path, changes: dict[str, Any], field: str, value: object
) -> None:
    with opened(checkpoint_with(changes), tmp_path) as (source, _):
        assert getattr(source.config, field) == value


@pytest.mark.parametrize(
    "text",
    [
        "MODEL: [",
        "- a\n- b\n",
        "plain words",
        "",
        "\x00",
        "A: !!python/name:os.system",
        "x" * 10**6,
    ],
    ids=["cut off", "a list", "words", "empty", "control character", "code", "endless"],
)
def test_a_damaged_cfg_is_refused(tmp_path: Path, text: str) -> None:
    tree = {"model_state": state(), "cfg": text}

    assert "its cfg is not the YAML text that pycls writes" in refusal(tree, tmp_path)


@pytest.mark.parametrize("section", [None, "text", 3, []])
def test_a_section_that_is_no_mapping_leaves_the_defaults(tmp_path: Path, section: object) -> None:
    tree = {"model_state": state(), "cfg": yaml.safe_dump({"REGNET": section, "BN": section})}

    with opened(tree, tmp_path) as (source, _):
        assert source.config.downsample_in_first_stage


@pytest.mark.parametrize(
    ("sizes", "resize", "crop"),
    [
        ({}, 256, 224),
        ({"TEST.IM_SIZE": 320, "TRAIN.IM_SIZE": 288}, 320, 288),
        ({"TEST.IM_SIZE": 36, "TRAIN.IM_SIZE": 32}, 36, 32),
        ({"TEST.IM_SIZE": 32, "TRAIN.IM_SIZE": 32}, 32, 32),
    ],
)
def test_the_evaluation_transform_is_that_of_the_cfg(
    tmp_path: Path, sizes: dict[str, int], resize: int, crop: int
) -> None:
    with opened(checkpoint_with(sizes), tmp_path) as (source, _):
        value, _ = decision(source, "evaluation transform")
    processor = RegNetImageProcessor(**source.preprocessor_fields())

    assert value == f"short side to {resize}, centre crop {crop}, bilinear"
    assert int(crop / processor.crop_pct) == resize
    assert list(processor.image_mean) == [0.485, 0.456, 0.406]
    assert list(processor.image_std) == [0.229, 0.224, 0.225]


def test_cifar_is_seen_as_pycls_own_loader_feeds_it(tmp_path: Path) -> None:
    pictures = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), np.uint8)
    batch = {b"data": pictures.transpose(0, 3, 1, 2).reshape(2, -1), b"labels": [0, 1]}
    (tmp_path / "test_batch").write_bytes(pickle.dumps(batch))
    cifar = {"TRAIN.DATASET": "cifar10", "TEST.DATASET": "cifar10", "TEST.SPLIT": "test"}
    with settings(TINY, CLASSES, TRAIN__IM_SIZE=32):
        theirs = [image for image, _ in Cifar10(str(tmp_path), "test")]

    with opened(checkpoint_with(cifar | {"TRAIN.IM_SIZE": 32}), tmp_path) as (source, _):
        processor = RegNetImageProcessor(**source.preprocessor_fields())

    assert source.channel_order == "rgb"
    assert not said_of(source, NOT_UNDERSTOOD)
    for picture, expected in zip(pictures, theirs, strict=True):
        ours = processor(Image.fromarray(picture), return_tensors="np")["pixel_values"][0]
        assert np.allclose(ours, expected, atol=1e-5)


@pytest.mark.parametrize(
    ("changes", "resize", "crop", "mean"),
    [
        ({}, 256, 224, (123 / 255, 116 / 255, 103 / 255)),
        ({"TRAIN.AUGMENT": "AutoAugment"}, 256, 224, (0.485, 0.456, 0.406)),
        ({"TEST.IM_SIZE": 288}, 256, 224, (123 / 255, 116 / 255, 103 / 255)),
        ({"TRAIN.IM_SIZE": 192}, 219, 192, (123 / 255, 116 / 255, 103 / 255)),
        ({"TRAIN.IM_SIZE": 320}, 366, 320, (123 / 255, 116 / 255, 103 / 255)),
    ],
)
def test_ffcv_crops_a_share_of_the_short_side(
    tmp_path: Path, changes: dict[str, Any], resize: int, crop: int, mean: tuple[float, ...]
) -> None:
    tree = checkpoint_with({"DATA_LOADER.MODE": "ffcv", "TEST.DATASET": "imagenet"} | changes)
    with opened(tree, tmp_path) as (source, _):
        transform = source.transform

    assert (transform.resize, transform.crop, transform.mean) == (resize, crop, mean)
    assert source.channel_order == "rgb"


def said_of(source: Source, topic: str) -> list[str]:
    """The values of the decisions on a topic."""
    return [d.value for d in source.decisions if d.topic == topic]


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({}, []),
        ({"MODEL.ACTIVATION_FUN": "relu", "TRAIN.MIXUP_ALPHA": 0.2, "OPTIM.ANY": 1}, []),
        ({"REGNET.DOWNSAMPLE": "avg"}, ["REGNET.DOWNSAMPLE"]),
        ({"ANYNET.DOWNSAMPLE": "avg"}, []),
        ({"TRAIN.DATASET": "birds", "TEST.DATASET": "birds"}, ["the data set birds"]),
        ({"DATA_LOADER.MODE": "dali", "TEST.CROP": 3}, ["DATA_LOADER.MODE, TEST.CROP"]),
    ],
)
def test_what_pycls_does_not_say_is_named(
    tmp_path: Path, changes: dict[str, Any], named: list[str]
) -> None:
    with opened(checkpoint_with(changes), tmp_path) as (source, _):
        assert sorted(said_of(source, NOT_UNDERSTOOD)) == named


@pytest.mark.parametrize(("resize", "crop"), [(256, 224), (438, 384), (480, 448)])
def test_a_wide_image_is_cropped_and_never_squashed(tmp_path: Path, resize: int, crop: int) -> None:
    tree = checkpoint_with({"TEST.IM_SIZE": resize, "TRAIN.IM_SIZE": crop})
    with opened(tree, tmp_path) as (source, _):
        processor = RegNetImageProcessor(**source.preprocessor_fields())
    black_between_white = np.full((600, 1200, 3), 255, np.uint8)
    black_between_white[:, 300:900] = 0

    pixels = processor(black_between_white, return_tensors="np")["pixel_values"]

    assert pixels.shape == (1, 3, crop, crop)
    assert np.ptp(pixels, axis=(0, 2, 3)).max() == 0


def test_a_headless_file_is_a_trunk(tmp_path: Path) -> None:
    tensors = {name: tensor for name, tensor in state().items() if "head" not in name}

    with opened({"model_state": tensors, "cfg": cfg_text()}, tmp_path) as (source, _):
        assert not source.has_classifier


def test_a_network_for_grey_images_keeps_its_stem_and_is_not_normalised(tmp_path: Path) -> None:
    tensors = state()
    tensors[STEM] = tensors[STEM].mean(dim=1, keepdim=True)

    with opened({"model_state": tensors, "cfg": cfg_text()}, tmp_path) as (source, _):
        assert decision(source, "channel order") == ("kept", "1 input channels")

    assert source.config.num_channels == 1
    assert not source.flips_stem
    assert source.preprocessor_fields()["do_normalize"] is False


@pytest.mark.parametrize("tree", [{"model_state": {}}, {"model_state": None}, {}, [1, 2], "text"])
def test_a_file_without_a_state_is_refused(tmp_path: Path, tree: object) -> None:
    assert "holds no tensors by name" in refusal(tree, tmp_path)
