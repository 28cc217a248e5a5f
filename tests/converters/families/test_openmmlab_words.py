"""What OpenMMLab's configurations say of evaluation, against mmpretrain's own pipeline.

Its shipped configurations are the texts. Pictures are smooth, so that OpenCV's and Pillow's filters
differ by little, and another size, order, mean or deviation by much.
"""

from __future__ import annotations

from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from converters.errors import InputError
from converters.families.openmmlab_config import OpenMMLabConfig
from converters.families.source import FILTERS, NOT_UNDERSTOOD, EvalTransform, Preprocessing
from regnet import RegNetImageProcessor
from tests.converters.families.conversion import LIMIT, converted, difference, noise, source_of

CLOSE = 0.04
"""Of normalised pixels; another size or order is off by more than 0.1."""


@cache
def shipped() -> Path:
    """The folder of mmpretrain's configurations, which its wheel brings along."""
    for module in ("mmengine", "mmcv", "mmpretrain"):
        pytest.importorskip(module, exc_type=ImportError)
    spec = find_spec("mmpretrain")
    assert spec
    assert spec.origin
    return Path(spec.origin).parent / ".mim" / "configs"


def config_of(tmp_path: Path, dataset: str, more: str = "") -> Any:
    """A RegNetX of 400MF on a shipped data set, as mmengine merges it."""
    from mmengine.config import Config  # type: ignore[import-not-found,import-untyped,unused-ignore]

    parts = ("models/regnet/regnetx_400mf", f"datasets/{dataset}", "default_runtime")
    bases = [f"{shipped()}/_base_/{part}.py" for part in parts]
    path = tmp_path / "config.py"
    path.write_text(f"_base_ = {bases!r}\n{more}")
    return Config.fromfile(path, format_python_code=False)


def said(stored: object, key: str = "cfg") -> OpenMMLabConfig:
    """What a checkpoint with this configuration says."""
    return OpenMMLabConfig.of({"meta": {key: stored}}, "net.pth")


def images(read: OpenMMLabConfig) -> Preprocessing:
    """What it says of images."""
    assert read.preprocessing is not None
    return read.preprocessing


def smooth(width: int, height: int) -> Image.Image:
    """A picture of three different ramps."""
    x, y = np.meshgrid(np.linspace(0, 1, width), np.linspace(0, 1, height))
    channels = np.stack([x, y, (1 - x) * y], axis=-1)
    return Image.fromarray((255 * channels).astype(np.uint8))


def theirs(config: Any, picture: Image.Image) -> np.ndarray[Any, Any]:
    """What mmpretrain's network takes of a picture, by the configuration's own test."""
    from tests.oracles import openmmlab

    return openmmlab.tested_pixels(config, picture)


def ours(said: OpenMMLabConfig, picture: Image.Image) -> np.ndarray[Any, Any]:
    """The same by what we read, in the order that the network takes."""
    preprocessing = images(said)
    processor = RegNetImageProcessor(**preprocessing.transform.preprocessor_fields(3))
    pixels: np.ndarray[Any, Any] = processor(picture, return_tensors="np")["pixel_values"][0]
    return pixels[::-1] if preprocessing.channel_order == "bgr" else pixels


SHIPPED = (
    "imagenet_bs32",
    "imagenet_bs64_swin_224",
    "imagenet_bs8_pil_bicubic_320",
    "cifar10_bs16",
)
EVERY = (
    *("cifar100_bs16", "imagenet_bs128_mbv3", "imagenet_bs16_eva_336"),
    *("imagenet_bs128_poolformer_medium_224", "imagenet_bs16_pil_bicubic_384"),
    *("imagenet_bs256_davit_224", "imagenet_bs256_levit_224", "imagenet_bs256_rsb_a12"),
    *("imagenet_bs256_rsb_a3", "imagenet_bs32_pil_resize", "imagenet_bs64_convmixer_224"),
    *("imagenet_bs64_deit3_384", "imagenet_bs64_edgenext_256", "imagenet_bs64_mixer_224"),
    "imagenet_bs64_t2t_224",
)
NUMBERS = "mean=[103.53, 116.28, 123.675], std=[57.375, 57.12, 58.395], to_rgb=False"
BGR = f"data_preprocessor = dict({NUMBERS})"


@pytest.mark.parametrize(
    "dataset", [*SHIPPED, *(pytest.param(name, marks=pytest.mark.slow) for name in EVERY)]
)
@pytest.mark.parametrize("more", ["", BGR], ids=["as it is", "BGR"])
def test_a_shipped_data_set_is_evaluated_as_mmpretrain_does(
    dataset: str, more: str, tmp_path: Path
) -> None:
    config = config_of(tmp_path, dataset, more)
    read = said(config.pretty_text)
    picture = smooth(32, 32) if dataset.startswith("cifar") else smooth(600, 500)

    expected, found = theirs(config, picture), ours(read, picture)

    assert found.shape == expected.shape
    assert np.abs(found - expected).max() < CLOSE
    assert not [d for d in read.not_understood(1000) if "step" in d.value]


FILTER_TEXT = (
    "test_dataloader = dict(dataset=dict(pipeline=[dict(type='LoadImageFromFile'), {}]))\n"
)


@pytest.mark.parametrize(
    ("steps", "expected"),
    [
        ("dict(type='Resize', scale=96)", EvalTransform(96, 96, 2, squash=True)),
        ("dict(type='Resize', scale=(96, 96), interpolation='area')", (96, 96, 5, True)),
        ("dict(type='EfficientNetCenterCrop', crop_size=96)", (128, 96, 3, False)),
        ("dict(type='CenterCrop', crop_size=96, efficientnet_style=True)", (128, 96, 2, False)),
        (
            (
                "dict(type='mmpretrain.datasets.transforms.ResizeEdge', scale=99), "
                "dict(type='CenterCrop', crop_size=(96, 96))"
            ),
            (99, 96, 2, False),
        ),
        (
            (
                "dict(type='torchvision/Resize', size=99, interpolation='bicubic'), "
                "dict(type='torchvision/CenterCrop', size=96)"
            ),
            (99, 96, 3, False),
        ),
    ],
)
def test_every_way_of_resizing_is_followed(steps: str, expected: Any) -> None:
    transform = images(said(FILTER_TEXT.format(steps))).transform
    if isinstance(expected, EvalTransform):
        expected = (expected.resize, expected.crop, expected.resample, expected.squash)

    assert (transform.resize, transform.crop, transform.resample, transform.squash) == expected


def old_text(size: object, *, to_rgb: bool, dataset: str = "ImageNet") -> str:
    """A test of mmcls 0.x, as its configurations state it."""
    mean, std = [123.675, 116.28, 103.53], [58.395, 57.12, 57.375]
    normalise = {"type": "Normalize", "mean": mean, "std": std, "to_rgb": to_rgb}
    sizes = [{"type": "Resize", "size": size}, {"type": "CenterCrop", "crop_size": 224}]
    ends = [normalise, {"type": "ImageToTensor", "keys": ["img"]}, {"type": "Collect"}]
    pipeline = [{"type": "LoadImageFromFile"}, *sizes, *ends]
    data = {"test": {"type": dataset, "pipeline": pipeline}}
    return f"img_norm_cfg = {normalise!r}\ndata = {data!r}"


@pytest.mark.parametrize("to_rgb", [True, False])
def test_the_older_generation_normalises_in_its_pipeline(to_rgb: bool) -> None:
    read = said(old_text((320, -1), to_rgb=to_rgb), "config")

    assert images(read).channel_order == ("rgb" if to_rgb else "bgr")
    assert (images(read).transform.resize, images(read).transform.crop) == (320, 224)
    mean = (123.675, 116.28, 103.53)[:: 1 if to_rgb else -1]
    assert images(read).transform.mean == pytest.approx([value / 255 for value in mean])
    assert not read.not_understood(1000)


def test_the_text_of_files_one_behind_another_is_merged_as_mmcv_does() -> None:
    base = old_text((256, -1), to_rgb=True)
    child = "data = dict(samples_per_gpu=32)\nimg_norm_cfg = dict(_delete_=True, mean=[0.5])"
    text = f"/home/me/base.py\n{base}\n\n/home/me/config.py\n_base_ = './base.py'\n{child}\n"

    assert images(said(text, "config")) == images(said(base, "config"))


def test_nothing_in_a_text_is_run(tmp_path: Path) -> None:
    trap = tmp_path / "trap"
    text = (
        f"import os\nos.system('touch {trap}')\nx = open({str(trap)!r}, 'w')\n"
        f"data_preprocessor = dict(to_rgb=True, mean=[__import__('os').system('touch {trap}')])\n"
    )
    read = said(text)

    assert images(read).channel_order == "rgb"
    assert "data_preprocessor" in read.not_understood(1000)[0].value
    assert not trap.exists()


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("not a configuration at all", "meta.cfg"),
        (FILTER_TEXT.format("dict(type='ResizeEdge', scale=96, edge='long')"), "ResizeEdge"),
        (FILTER_TEXT.format("dict(type='MyResize', side=96)"), "the step MyResize"),
        (FILTER_TEXT.format("dict(type='CenterCrop', crop_size=96)"), "CenterCrop"),
        (
            "data_preprocessor = dict(to_rgb=chosen())",
            "data_preprocessor (to_rgb is an expression)",
        ),
        ("data_preprocessor = dict(gamma=2.2)", "data_preprocessor.gamma"),
        ("model = dict(type='ImageClassifier', attention=True)", "model.attention"),
        ("model = dict(backbone=dict(type='RegNet', gates=3))", "model.backbone.gates"),
        ("model = dict(head=dict(type='ArcFaceClsHead'))", "model.head.type ArcFaceClsHead"),
        ("model = dict(head=dict(type='LinearClsHead', num_classes=7))", "num_classes 7"),
    ],
)
def test_what_is_not_understood_is_named(text: str, named: str) -> None:
    (decision,) = said(text).not_understood(1000)

    assert decision.topic == NOT_UNDERSTOOD
    assert named in decision.value


@pytest.mark.parametrize(
    ("backbone", "named"),
    [
        ("style='caffe'", "backbone.style to 'caffe'"),
        ("norm_cfg=dict(type='GN', num_groups=8)", "backbone.norm_cfg"),
        ("norm_cfg=dict(type='BN', eps=0)", "norm_cfg.eps to 0"),
        ("dilations=(1, 1, 2, 2)", "backbone.dilations"),
        ("strides=(2, 2, 0, 2)", "backbone.strides"),
    ],
)
def test_a_network_that_the_reference_is_not_is_refused(backbone: str, named: str) -> None:
    read = said(f"model = dict(backbone=dict(type='RegNet', {backbone}))")
    with pytest.raises(InputError, match=named):
        read.require_expressible()


def test_pooling_that_does_not_average_is_refused() -> None:
    with pytest.raises(InputError, match="pools with GeneralizedMeanPooling"):
        said("model = dict(neck=dict(type='GeneralizedMeanPooling'))").require_expressible()


def test_a_detector_s_sizes_are_no_classifier_s() -> None:
    norm = f"dict(type='Normalize', {NUMBERS})"
    resize = "dict(type='Resize', keep_ratio=True)"
    flips = f"dict(type='MultiScaleFlipAug', transforms=[{resize}, {norm}])"
    read = said(
        "model = dict(type='FasterRCNN', rpn_head=dict(), backbone=dict(type='RegNet'))\n"
        f"data = dict(test=dict(pipeline=[dict(type='LoadImageFromFile'), {flips}]))",
        "config",
    )

    assert images(read).channel_order == "bgr"
    assert images(read).transform == EvalTransform(
        256, 224, FILTERS["bilinear"], *reversed_pairs(read)
    )
    assert not read.not_understood(0)


def reversed_pairs(read: OpenMMLabConfig) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """ImageNet's mean and deviation as the text has them."""
    assert images(read).transform.mean == pytest.approx([0.485, 0.456, 0.406])
    return images(read).transform.mean, images(read).transform.std


@pytest.mark.parametrize("to_rgb", [True, False])
def test_a_trained_network_computes_the_same_with_its_own_words(
    to_rgb: bool, tmp_path: Path
) -> None:
    shipped()
    from tests.oracles import openmmlab

    network = openmmlab.build()
    config = config_of(tmp_path, "imagenet_bs32", f"data_preprocessor = dict(to_rgb={to_rgb})")
    meta = {"cfg": config.pretty_text, "mmengine_version": "0.10.7", "epoch": 100}
    torch.save({"meta": meta, "state_dict": network.state_dict()}, tmp_path / "net.pth")

    ours = converted(tmp_path / "net.pth")

    pixels = noise()
    order = pixels if to_rgb else pixels.flip(1)  # ours take RGB
    with torch.inference_mode():
        assert difference(ours.logits(order), network(pixels, mode="tensor")) < LIMIT
    assert ours.decision("channel order")[1] == "the file's meta.cfg"


def test_a_first_stage_of_stride_one_is_kept(tmp_path: Path) -> None:
    shipped()
    from tests.oracles import openmmlab

    text = "model = dict(backbone=dict(type='RegNet', strides=(1, 2, 2, 2)))"
    state = openmmlab.build().state_dict()
    torch.save({"meta": {"cfg": text}, "state_dict": state}, tmp_path / "net.pth")

    assert not source_of(tmp_path / "net.pth").config.downsample_in_first_stage
