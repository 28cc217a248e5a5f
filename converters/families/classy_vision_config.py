"""What ClassyVision's words say: the configuration in ``input_args``, its test above all.

Source: ClassyVision ``dataset/transforms/`` (its own transforms; all other names are those of
``torchvision.transforms``, also in snake case), ``dataset/classy_cifar.py``,
``tasks/classification_task.py``.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from converters.families.pixel_steps import (
    TORCHVISION,
    Picture,
    Step,
    Steps,
    as_it_is,
    follow,
    listed,
)
from converters.families.source import Preprocessing
from converters.families.words import (
    FIRST_STRIDES,
    Says,
    Vocabulary,
    Word,
    always,
    keys,
    mapping_in,
    not_understood,
)
from regnet.config import IMAGENET_MEAN, IMAGENET_STD, NORM_EPS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from converters.families.source import Decision

_NATIVE = {"classy_cifar10": 32, "classy_cifar100": 32}
"""Data sets of pictures of one size."""

_TASK = Vocabulary(
    read=keys("dataset model"),
    harmless=keys(
        "name num_epochs loss meters optimizer *hooks test_only use_gpu amp_args mixup",
        "batch_norm_sync_mode find_unused_parameters clip_grad_norm data_parallel* bn_weight_decay",
        "simulated_global_batchsize test_phase_period checkpoint_* log_* profiler fsdp*",
        "use_sharded_ddp num_workers dataloader_mp_context distributed* ema* optimizer_schedulers",
        "seed",
    ),
)

SAYS: Says = {
    "hidden_act": Word("activation", {"relu": "relu"}, "relu"),
    "norm_eps": always("bn_epsilon", NORM_EPS),
    "downsample_in_first_stage": Word("strides", FIRST_STRIDES, 2),
}
"""What the model's configuration can set although neither names nor shapes show it."""

_MODEL = Vocabulary(
    read=keys("heads", *(word.key for word in SAYS.values())),
    harmless=keys(
        # shown by the shapes, or of training
        "name depth depths w_0 w_a w_m widths group_w* bot_mul* bottleneck_multiplier* stem_width",
        "use_se se_ratio bn_momentum freeze_trunk num_classes",
    ),
    harmless_as={
        "stem_type": ("simple_stem_in", "SIMPLE_STEM_IN"),
        "block_type": ("res_bottleneck_block", "RES_BOTTLENECK_BLOCK"),
    },
)

_HEAD = Vocabulary(
    read=keys("unique_id fork_block normalize_inputs"),
    harmless=keys("name num_classes in_plane conv_planes zero_init_bias"),
)

_DATASET = Vocabulary(
    read=keys("name transforms"),
    harmless=keys(
        "split batchsize_per_replica shuffle use_shuffle num_samples image_* root download",
        "num_classes class_ratio seed length num_workers",
    ),
)


@dataclass(frozen=True)
class ClassyVisionConfig:
    """The configuration of a training run.

    Attributes:
        values: As it is stored; empty where there is none.
    """

    values: Mapping[str, Any]

    @classmethod
    def of(cls, tree: object) -> ClassyVisionConfig:
        """Find it in a checkpoint."""
        return cls(mapping_in(mapping_in(tree, "input_args"), "config"))

    @property
    def model(self) -> Mapping[str, Any]:
        """What the network was built from."""
        return mapping_in(self.values, "model")

    @property
    def _test(self) -> Mapping[str, Any]:
        """The data set of the test, with its transforms."""
        return mapping_in(mapping_in(self.values, "dataset"), "test")

    @property
    def says(self) -> bool:
        """Whether it says anything of evaluation."""
        return isinstance(self._test.get("transforms"), list | tuple)

    @property
    def _followed(self) -> tuple[Picture, list[str]]:
        """From the file of a picture to what the network takes; the steps that are not followed."""
        start = Picture(order="rgb", native=_NATIVE.get(str(self._test.get("name"))))
        picture, missed = follow(listed(self._test.get("transforms"), _named), _STEPS, start)
        if not missed and not picture.has_size:
            missed.append("list, which crops nothing")
        return picture, missed

    def preprocessing(self, own: Preprocessing) -> Preprocessing:
        """How it was evaluated; as the framework does where it is not said or not followed."""
        if not self.says:
            return own
        transform = self._followed[0].transform(own.transform)
        return Preprocessing(transform, "the checkpoint's own configuration")

    @property
    def not_understood(self) -> tuple[Decision, ...]:
        """Words that may change the network or its evaluation, and are not understood."""
        unknown = [f"the transform {step}" for step in self._followed[1] if self.says]
        unknown += _TASK.unknown(self.values)
        unknown += _MODEL.unknown(self.model, "model.")
        unknown += _DATASET.unknown(self._test, "dataset.test.")
        heads = self.model.get("heads")
        for head in heads if isinstance(heads, list | tuple) else ():
            unknown += _HEAD.unknown(head, "model.heads.") if isinstance(head, dict) else []
        return not_understood(unknown, "the checkpoint's own configuration")


def _named(step: object) -> Step | None:
    settings = step if isinstance(step, dict) else {}
    name = str(settings.get("name", step)).replace("_", "").lower()
    if name == "applytransformtokey" and settings.get("key", "input") not in {"input", 0}:
        return None
    if name == "genericimagetransform" and settings.get("split") == "test":
        return "imagenetnoaugment", {}
    return name, settings


def _imagenet(picture: Picture, settings: Mapping[str, Any]) -> Picture:
    """``ImagenetNoAugmentTransform``: four steps in one."""
    picture = picture.resized(settings.get("resize", 256), "bilinear")
    picture = replace(picture.cropped(settings.get("crop_size", 224)), levels=1.0)
    mean, std = settings.get("mean", IMAGENET_MEAN), settings.get("std", IMAGENET_STD)
    return picture.normalised(mean, std)


_STEPS: Steps = {
    **{name.lower(): step for name, step in TORCHVISION.items()},
    "imagenetnoaugment": _imagenet,
    "tupletomap": as_it_is,
    "genericimagetransform": as_it_is,
}
"""torchvision's and ClassyVision's own, without underscores and in small letters."""
