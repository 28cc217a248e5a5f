"""What OpenMMLab's words say: the configuration in a checkpoint's ``meta``, of both generations.

Source: mmpretrain ``datasets/transforms/``, ``datasets/cifar.py``,
``models/utils/data_preprocessor.py``, ``models/backbones/regnet.py``; mmcls 0.x
``datasets/pipelines/``; mmcv ``transforms/``; mmengine ``runner/runner.py`` and
``model/base_model/data_preprocessor.py``. Images are loaded as BGR; CIFAR's are RGB; ``to_rgb``
turns them round, whichever they are.

Of a configuration's names only those count that a runner takes: all others are variables, whose
values stand where they were used.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from converters.errors import InputError
from converters.families.config_text import read_config
from converters.families.pixel_steps import (
    TORCHVISION,
    Picture,
    Step,
    StepError,
    Steps,
    as_it_is,
    filter_of,
    follow,
    listed,
    sides,
    whole,
)
from converters.families.source import BILINEAR, Decision, EvalTransform, Preprocessing
from converters.families.words import (
    Says,
    Vocabulary,
    count,
    keys,
    mapping_in,
    not_understood,
    number,
)
from regnet.wider import NORM_EPS

if TYPE_CHECKING:
    from collections.abc import Mapping


DEFAULT = EvalTransform(256, 224, BILINEAR)
"""That of mmpretrain's ``configs/regnet``."""

_MAX_WRAPPERS = 30
_NATIVE = {"CIFAR10": 32, "CIFAR100": 32}
"""Data sets that are arrays of RGB pictures of one size."""

_NORMS = {"BN", "BN2d", "SyncBN", "MMSyncBN", "naiveSyncBN"}
_HEADS = {"LinearClsHead", "ClsHead", "MultiLabelLinearClsHead", "StackedLinearClsHead"}

_PREPROCESSOR = Vocabulary(
    read=keys("type mean std to_rgb bgr_to_rgb rgb_to_bgr num_classes"),
    harmless=keys(
        "pad_value to_onehot batch_augments pad_mask mask_pad_value pad_seg seg_pad_value",
        "non_blocking boxtype2tensor batch_first",
    ),
    harmless_as={"pad_size_divisor": (1,)},
)

SAYS: Says = {
    "strides": count("strides", 2, least=1),
    "norm_eps": number("norm_cfg.eps", NORM_EPS),
}
"""Of its backbone."""

FIELDS = frozenset(SAYS)
"""What any of its networks may have beyond transformers'."""

_BACKBONE = Vocabulary(
    read=keys("type strides dilations style norm_cfg conv_cfg deep_stem avg_down"),
    harmless=keys(
        # shown by the shapes, or of training
        "arch depth in_channels stem_channels base_channels num_stages out_indices frozen_stages",
        "norm_eval with_cp zero_init_residual init_cfg pretrained",
    ),
)

_MODEL = Vocabulary(
    read=keys("type backbone neck head data_preprocessor"),
    harmless=keys("train_cfg test_cfg init_cfg pretrained _scope_"),
)

_DETECTORS = frozenset({"rpn_head", "roi_head", "bbox_head", "decode_head", "keypoint_head"})


@dataclass(frozen=True)
class OpenMMLabConfig:
    """The configuration of a training run.

    Attributes:
        values: Its names and values; empty where the file has none that can be read.
        place: Where in the file it lies; empty where there is none.
        where: What messages call the file.
    """

    values: Mapping[str, Any]
    place: str
    where: str

    @classmethod
    def of(cls, tree: object, where: str) -> OpenMMLabConfig:
        """Find and read the configuration in a checkpoint."""
        meta = mapping_in(tree, "meta")
        for key in ("cfg", "config"):
            if meta.get(key):
                values = read_config(meta[key])
                return cls(values or {}, f"meta.{key}", where)
        return cls({}, "", where)

    @property
    def runner(self) -> str:
        """Which runner of mmcv's trained the network; empty if it is not said."""
        kind = mapping_in(self.values, "runner").get("type")
        return kind if isinstance(kind, str) else ""

    @property
    def _model(self) -> Mapping[str, Any]:
        return mapping_in(self.values, "model")

    @property
    def _is_detector(self) -> bool:
        """Whether the network is part of another, whose pictures have other sizes."""
        return bool(_DETECTORS & self._model.keys())

    @property
    def _preprocessor(self) -> Mapping[str, Any]:
        """The data preprocessor: the model's own goes before the configuration's.

        mmcls 0.x has none, but a step that normalises; what is left of a text that lost its
        pipeline is the variable that the step was written with.
        """
        own = mapping_in(self._model, "data_preprocessor")
        stated = own or mapping_in(self.values, "data_preprocessor")
        if not stated and not any(name == "Normalize" for name, _ in self._test()[1]):
            variable = mapping_in(self.values, "img_norm_cfg")
            return {"to_rgb": True, **variable} if variable else {}
        return stated

    def require_expressible(self) -> None:
        """Check everything about the network that neither names nor shapes show.

        Raises:
            InputError: Naming the first setting that stands in the way.
        """
        backbone = mapping_in(self._model, "backbone")
        norm, conv = (backbone.get(key) or {} for key in ("norm_cfg", "conv_cfg"))
        expected: dict[str, tuple[object, bool]] = {
            "style": (backbone.get("style"), backbone.get("style", "pytorch") == "pytorch"),
            "deep_stem": (backbone.get("deep_stem"), not backbone.get("deep_stem")),
            "avg_down": (backbone.get("avg_down"), not backbone.get("avg_down")),
            "dilations": (backbone.get("dilations"), set(self._stages("dilations", 1)) == {1}),
            "strides": (
                backbone.get("strides"),
                all(map(SAYS["strides"].allows, self._stages("strides", 2))),
            ),
            "norm_cfg": (norm, norm.get("type", "BN").rpartition(".")[2] in _NORMS),
            "norm_cfg.eps": (norm.get("eps"), SAYS["norm_eps"].allows(norm.get("eps", NORM_EPS))),
            "conv_cfg": (conv, conv.get("type", "Conv2d") in {"Conv2d", "Conv"}),
        }
        for key, (value, fits) in expected.items():
            if not fits:
                raise InputError(
                    f"{self.where}: its {self.place} sets model.backbone.{key} to {value!r}, which "
                    "the reference RegNet cannot express."
                )
        neck = mapping_in(self._model, "neck")
        if not self._is_detector and _kind(neck) not in {"", "GlobalAveragePooling"}:
            raise InputError(
                f"{self.where}: its {self.place} pools with {_kind(neck)}; the reference RegNet "
                "averages, and only a network that does can be converted without changing it."
            )

    def _stages(self, key: str, default: int) -> tuple[Any, ...]:
        value = mapping_in(self._model, "backbone").get(key)
        return tuple(value) if isinstance(value, list | tuple) and value else (default,)

    def fields(self, stages: int) -> dict[str, Any]:
        """The fields of the configuration that it says; none if no backbone is described.

        Args:
            stages: How many the network has.
        """
        backbone = mapping_in(self._model, "backbone")
        if not backbone:
            return {}
        strides = self._stages("strides", 2)
        return {
            "strides": list(strides) if "strides" in backbone else [2] * stages,
            "norm_eps": mapping_in(backbone, "norm_cfg").get("eps", NORM_EPS),
        }

    @property
    def _followed(self) -> tuple[Picture, list[str]]:
        """From the file of a picture to what the network takes; the steps that are not followed."""
        dataset, steps = self._test()
        native = None if self._is_detector else _NATIVE.get(_kind(dataset))
        start = Picture(order="rgb" if native else None, native=native)
        if self._is_detector:  # its sizes are no classifier's
            steps = [step for step in steps if step[0] in {"LoadImageFromFile", "Normalize"}]
        picture, missed = follow(steps, _STEPS, start)
        if picture.order is None:
            picture = replace(picture, order="bgr")
        preprocessor = self._preprocessor
        try:
            if any(_flag(preprocessor, key) for key in ("to_rgb", "bgr_to_rgb", "rgb_to_bgr")):
                picture = picture.flipped()
            if preprocessor.get("mean") is not None:
                picture = picture.normalised(preprocessor["mean"], preprocessor.get("std"))
        except StepError as error:
            missed.append(f"data_preprocessor ({error})")
        if steps and not picture.has_size and not self._is_detector and not missed:
            missed.append("a pipeline that crops nothing")
        return picture, missed

    def _test(self) -> tuple[Mapping[str, Any], list[Step]]:
        """The data set of the test, or of the validation, and its steps."""
        for place in ("test", "val"):
            loader = mapping_in(self.values, f"{place}_dataloader")
            old = mapping_in(mapping_in(self.values, "data"), place)
            dataset = _innermost(mapping_in(loader, "dataset") or old)
            steps = list(listed(dataset.get("pipeline"), _named))
            if steps or _kind(dataset) in _NATIVE:
                return dataset, steps
        return {}, list(listed(self.values.get("test_pipeline"), _named))

    @property
    def preprocessing(self) -> Preprocessing | None:
        """How it was evaluated; None if it says nothing of that."""
        if not self._preprocessor and not any(self._test()):
            return None
        (picture, _), place = self._followed, f"the file's {self.place}"
        sizes = "" if picture.has_size else "; the sizes are those of mmpretrain's configs/regnet"
        order = picture.order or "bgr"
        return Preprocessing(picture.transform(DEFAULT), place + sizes, order, place)

    def not_understood(self, classes: int) -> tuple[Decision, ...]:
        """Words that may change a network of so many classes or its evaluation, not understood."""
        if not self.place:
            return ()
        if not self.values:
            return not_understood([self.place], self.where)
        unknown = [f"the step {step}" for step in self._followed[1]]
        preprocessor, backbone = self._preprocessor, mapping_in(self._model, "backbone")
        if not self._is_detector:
            unknown += _PREPROCESSOR.unknown(preprocessor, "data_preprocessor.")
            unknown += _MODEL.unknown(self._model, "model.")
        unknown += _BACKBONE.unknown(backbone, "model.backbone.")
        head = mapping_in(self._model, "head")
        if classes and _kind(head) not in {"", *_HEADS}:
            unknown.append(f"model.head.type {_kind(head)}")
        if classes and head.get("num_classes", classes) != classes:
            unknown.append(f"model.head.num_classes {head['num_classes']} beside {classes} classes")
        return not_understood(unknown, f"the file's {self.place}")


def _kind(settings: Mapping[str, Any]) -> str:
    """The ``type`` without the module that newer texts name with it."""
    return str(settings.get("type") or "").rpartition(".")[2]


def _innermost(dataset: Mapping[str, Any]) -> Mapping[str, Any]:
    """The data set in wrappers that repeat or join data sets."""
    for _ in range(_MAX_WRAPPERS):
        joined = dataset.get("datasets")
        inner = joined[0] if isinstance(joined, list) and joined else dataset.get("dataset")
        if not isinstance(inner, dict):
            break
        dataset = inner
    return dataset


def _named(step: object) -> Step:
    if not isinstance(step, dict):
        return str(step), {}
    name = str(step.get("type") or "")
    return name if name.startswith("torchvision/") else _kind(step), step


def _load(picture: Picture, settings: Mapping[str, Any]) -> Picture:
    colour = settings.get("color_type", "color")
    if colour not in {"color", "color_ignore_orientation"}:
        raise StepError(f"color_type {colour}")
    return replace(picture, order="bgr")


def _resize_edge(picture: Picture, settings: Mapping[str, Any]) -> Picture:
    if settings.get("edge", "short") != "short":
        raise StepError(f"edge {settings['edge']}")
    return picture.resized(whole(settings["scale"]), filter_of(settings))


def _resize(picture: Picture, settings: Mapping[str, Any]) -> Picture:
    """A number is the side of a square, in both generations; mmcls' (256, -1) is the short side."""
    size = settings["scale"] if "scale" in settings else settings["size"]
    if isinstance(size, list | tuple) and len(size) == 2 and size[1] == -1:  # noqa: PLR2004
        if settings.get("adaptive_side", "short") != "short":
            raise StepError(f"adaptive_side {settings['adaptive_side']}")
        return picture.resized(whole(size[0]), filter_of(settings))
    if settings.get("keep_ratio"):
        raise StepError("keep_ratio")
    return picture.resized(sides(size)[0], filter_of(settings), squash=True)


def _centre_crop(picture: Picture, settings: Mapping[str, Any]) -> Picture:
    if settings.get("efficientnet_style"):
        return _efficientnet_crop(picture, {"interpolation": "bilinear"} | dict(settings))
    return picture.cropped(sides(settings["crop_size"])[0])


def _efficientnet_crop(picture: Picture, settings: Mapping[str, Any]) -> Picture:
    """A share of the short side that is resized: as if all had been resized, and then cropped."""
    side = sides(settings["crop_size"])[0]
    padding = settings.get("crop_padding", 32)
    filter_name = settings.get("interpolation", "bicubic")
    return picture.resized(side + padding, filter_name).cropped(side)


def _normalise(picture: Picture, settings: Mapping[str, Any]) -> Picture:
    picture = picture.flipped() if _flag(settings, "to_rgb", default=True) else picture
    return picture.normalised(settings["mean"], settings["std"])


def _flag(settings: Mapping[str, Any], key: str, *, default: bool = False) -> bool:
    value = settings.get(key, default)
    if not isinstance(value, bool | int):
        raise StepError(f"{key} is {value!r}")
    return bool(value)


_STEPS: Steps = {
    "LoadImageFromFile": _load,
    "ResizeEdge": _resize_edge,
    "Resize": _resize,
    "CenterCrop": _centre_crop,
    "EfficientNetCenterCrop": _efficientnet_crop,
    "Normalize": _normalise,
    "NumpyToPIL": lambda p, s: p.flipped() if _flag(s, "to_rgb") else p,
    "ToPIL": lambda p, s: p.flipped() if _flag(s, "to_rgb") else p,
    "PILToNumpy": lambda p, s: p.flipped() if _flag(s, "to_bgr") else p,
    **{f"torchvision/{name}": step for name, step in TORCHVISION.items()},
    **dict.fromkeys(
        ("PackInputs", "PackClsInputs", "ImageToTensor", "ToTensor", "Collect", "ToNumpy"),
        as_it_is,
    ),
    **dict.fromkeys(("DefaultFormatBundle", "LoadAnnotations", "Pad"), as_it_is),
}
"""mmpretrain's, mmcls' and mmcv's steps, of both generations."""
