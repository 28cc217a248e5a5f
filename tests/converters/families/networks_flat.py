"""The published networks of pycls, timm, torchvision, OpenMMLab, transformers and pytorchcv."""

from __future__ import annotations

import argparse
import json
from functools import partial
from typing import TYPE_CHECKING, Any

import timm
import torch
import torchvision
from timm.models import save_for_hf
from timm.utils import CheckpointSaver, ModelEmaV3
from torch.optim.swa_utils import AveragedModel

from regnet import RegNetConfig, RegNetForImageClassification
from regnet.design_space import NETWORKS
from tests.converters.families import test_transformers
from tests.converters.families.every_network import (
    Built,
    Family,
    Layout,
    negated,
    prefixed,
    tree,
    wrapped,
)
from tests.converters.families.test_openmmlab import RENAMES
from tests.oracles import openmmlab, pixels, pycls, pytorchcv
from tests.oracles import timm as timm_oracle
from tests.oracles import torchvision as torchvision_oracle
from tests.oracles import transformers as transformers_oracle
from tests.oracles.statistics import randomise

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from PIL import Image
    from torch import Tensor

    from tests.converters.families.every_network import State


def _without_counters(state: State, *heads: str) -> State:
    """A trunk as detectors hold it, whose frozen batch norms count nothing."""
    dropped = ("num_batches_tracked",)
    return {n: t for n, t in state.items() if not n.endswith(dropped) and not n.startswith(heads)}


# pycls


def _save_pycls(built: Built, folder: Path, *, legacy: bool) -> Path:
    settings = pycls.published(built.name)
    return pycls.save(folder / "net.pyth", built.network, settings, legacy=legacy, optimiser=legacy)


def _save_pycls_with_averages(built: Built, folder: Path) -> Path:
    """As pycls writes since May 2021; the smaller error is that of the averaged weights."""
    stored = torch.load(_save_pycls(built, folder, legacy=False), weights_only=True)
    raw = {"model_state": negated(built.state), "ema_state": built.state}
    torch.save(stored | raw | {"test_err": 25.0, "ema_err": 24.0}, folder / "net.pyth")
    return folder / "net.pyth"


def _as_detectron2(state: State) -> dict[str, Any]:
    return {"model": prefixed("backbone.bottom_up.", _without_counters(state, "head."))}


def _pycls_pixels(picture: Image.Image, _: Built, __: Path) -> Tensor:
    with pycls.settings(pycls.TINY):
        return pixels.pycls(picture)


PYCLS = Family(
    framework="pycls",
    build=lambda name: Built(name, pycls.halve_branches(pycls.build(pycls.published(name)))),
    names=tuple(sorted(NETWORKS, key=lambda name: "-200MF" not in name)),
    layouts={
        "model zoo": Layout(partial(_save_pycls, legacy=True), _pycls_pixels),
        "zip": Layout(partial(_save_pycls, legacy=False), _pycls_pixels),
        "averaged": Layout(_save_pycls_with_averages, _pycls_pixels),
        "detectron2": Layout(tree(_as_detectron2), _pycls_pixels, trunk=True, counters=False),
        **wrapped(_pycls_pixels),
    },
    bgr=True,
    picture=(342, 256),
)


# timm


def _save_hub_folder(built: Built, folder: Path, *, safe: bool) -> Path:
    save_for_hf(built.network, str(folder / "net"), safe_serialization=safe)
    return folder / "net"


_TIMM_DATA: dict[str, Any] = {"img_size": 192, "crop_pct": 0.9, "interpolation": "bilinear"}


def _save_timm_training(built: Built, folder: Path) -> Path:
    """As timm's ``train.py``; its loaders take the averaged weights."""
    averaged = ModelEmaV3(built.network)
    raw = {name: tensor.clone() for name, tensor in built.state.items()}
    optimizer = torch.optim.SGD(built.network.parameters(), 0.1)
    args = argparse.Namespace(model=built.name, **_TIMM_DATA)
    built.network.load_state_dict(negated(raw))
    CheckpointSaver(built.network, optimizer, args, averaged)._save(folder / "net.pth.tar", 3)
    built.network.load_state_dict(raw)
    return folder / "net.pth.tar"


def _timm_stated(picture: Image.Image, built: Built, _: Path) -> Tensor:
    return pixels.timm(picture, built.network.pretrained_cfg)


def _timm_default(picture: Image.Image, _: Built, __: Path) -> Tensor:
    return pixels.timm(picture, {})


def _timm_trained(picture: Image.Image, built: Built, _: Path) -> Tensor:
    """What arguments leave out is as the model that they name has it, such as its means."""
    return pixels.timm(picture, built.network.pretrained_cfg, **_TIMM_DATA)


TIMM = Family(
    framework="timm",
    build=lambda name: Built(name, randomise(timm.create_model(name))),
    names=tuple(n for n in timm_oracle.EXPRESSIBLE if n not in {"regnety_1280", "regnety_2560"}),
    layouts={
        "hub folder": Layout(partial(_save_hub_folder, safe=True), _timm_stated),
        "hub folder, bin": Layout(partial(_save_hub_folder, safe=False), _timm_stated),
        "training": Layout(_save_timm_training, _timm_trained),
        "DeiT": Layout(tree(lambda state: {"model": state}), _timm_default),
        **wrapped(_timm_default),
    },
)


# torchvision


def _save_torchvision_training(built: Built, folder: Path) -> Path:
    """As torchvision's reference trainer, which is taken at its averaged weights."""
    averaged = AveragedModel(built.network)
    args = argparse.Namespace(val_resize_size=256, val_crop_size=224, interpolation="bilinear")
    torch.save(
        {"model": negated(built.state), "model_ema": averaged.state_dict(), "args": args},
        folder / "model_9.pth",
    )
    return folder / "model_9.pth"


def _torchvision_second(picture: Image.Image, built: Built, _: Path) -> Tensor:
    return pixels.torchvision(picture, built.name, "IMAGENET1K_V2")


def _torchvision_first(picture: Image.Image, built: Built, _: Path) -> Tensor:
    return pixels.torchvision(picture, built.name, "IMAGENET1K_V1")


TORCHVISION = Family(
    framework="torchvision",
    build=lambda name: Built(name, randomise(torchvision.models.get_model(name))),
    names=torchvision_oracle.BUILDERS,
    layouts={
        **wrapped(_torchvision_second),
        "training": Layout(_save_torchvision_training, _torchvision_first),
    },
)


# OpenMMLab


def _save_mmengine(built: Built, folder: Path, **beside: Any) -> Path:
    from mmengine.runner import save_checkpoint  # type: ignore[import-not-found]

    save_checkpoint({"meta": {}, "state_dict": built.state} | beside, str(folder / "net.pth"))
    return folder / "net.pth"


def _save_mmengine_averages(built: Built, folder: Path) -> Path:
    """As mmengine's hook: averaged weights under ``state_dict``, the raw ones beside."""
    raw: Any = openmmlab.averaged(built.network)
    raw.module.load_state_dict(negated(built.state))
    return _save_mmengine(built, folder, ema_state_dict=raw.state_dict())


def _as_mmdetection(state: State) -> dict[str, Any]:
    """In the names of mmdetection's script, which are mmpretrain's without its two levels."""
    names = {name: name.removeprefix("backbone.").removeprefix("head.") for name in state}
    known = tuple(new.split(".")[0].rstrip(r"\1") for _, new in RENAMES)
    assert all(name.startswith(known) for name in names.values())
    return {"state_dict": {names[name]: tensor for name, tensor in state.items()}, "meta": {}}


def _as_detector(state: State) -> dict[str, Any]:
    trunk = {name: tensor for name, tensor in state.items() if name.startswith("backbone.")}
    return {"meta": {}, "state_dict": trunk | {"bbox_head.cls.bias": torch.ones(3)}}


def _openmmlab_pixels(picture: Image.Image, _: Built, __: Path) -> Tensor:
    return pixels.openmmlab(picture)


OPENMMLAB = Family(
    framework="mmpretrain",
    build=lambda name: Built(name, openmmlab.build(name, classes=1000)),
    names=openmmlab.ARCHITECTURES,
    layouts={
        "mmengine": Layout(_save_mmengine, _openmmlab_pixels),
        "averaged": Layout(_save_mmengine_averages, _openmmlab_pixels),
        "mmdetection's names": Layout(tree(_as_mmdetection), _openmmlab_pixels),
        "detector": Layout(tree(_as_detector), _openmmlab_pixels, trunk=True),
        **wrapped(_openmmlab_pixels),
    },
    bgr=True,
    picture=(342, 256),
)


# transformers

_SEER_64: dict[str, Any] = {
    "hidden_sizes": [328, 984, 1968, 4920],
    "depths": [2, 5, 12, 1],
    "groups_width": 328,
    "num_labels": 1000,
}


def _transformers_build(name: str) -> Built:
    if name == "RegNetY-64GF-SEER":
        ours = RegNetForImageClassification(RegNetConfig(**_SEER_64))
    else:
        ours = RegNetForImageClassification(NETWORKS[name].config())
    randomise(ours)
    size = 384 if name.endswith("SEER") else 224
    return Built(name, transformers_oracle.twin(ours), size)


def _save_pretrained(built: Built, folder: Path, *, form: str) -> Path:
    """The processor's file is that of the Hub, of 2022, or today's, which the sizes differ in."""
    built.network.save_pretrained(folder / "net")
    test_transformers.LAYOUTS[form](folder / "net")
    return _with_processor(folder / "net", built.more)


def _with_processor(folder: Path, size: int) -> Path:
    keys: Mapping[str, Any] = {
        "crop_pct": 0.875,
        "do_normalize": True,
        "do_resize": True,
        "feature_extractor_type": "ConvNextFeatureExtractor",
        "image_mean": [0.485, 0.456, 0.406],
        "image_std": [0.229, 0.224, 0.225],
        "resample": 3,
        "size": size,
    }
    (folder / "preprocessor_config.json").write_text(json.dumps(keys))
    return folder


def _save_trunk(built: Built, folder: Path) -> Path:
    built.network.regnet.save_pretrained(folder / "net")
    return _with_processor(folder / "net", built.more)


def _transformers_pixels(picture: Image.Image, _: Built, path: Path) -> Tensor:
    return pixels.transformers(picture, path)


def _transformers_default(picture: Image.Image, _: Built, path: Path) -> Tensor:
    return pixels.transformers(picture, _with_processor(path.parent, 224))


TRANSFORMERS = Family(
    framework="transformers",
    build=_transformers_build,
    names=(*PYCLS.names, "RegNetY-64GF-SEER"),
    layouts={
        **{
            form: Layout(partial(_save_pretrained, form=form), _transformers_pixels)
            for form in test_transformers.LAYOUTS
        },
        "trunk": Layout(_save_trunk, _transformers_pixels, trunk=True),
        **wrapped(_transformers_default),
    },
)


# pytorchcv


def _pytorchcv_pixels(picture: Image.Image, _: Built, __: Path) -> Tensor:
    return pixels.resized_and_cropped(picture, 256, 224)


PYTORCHCV = Family(
    framework="pytorchcv",
    build=lambda name: Built(name, randomise(pytorchcv.model(name))),
    names=tuple(map(pytorchcv.name_of, PYCLS.names)),
    layouts=wrapped(_pytorchcv_pixels),
)
