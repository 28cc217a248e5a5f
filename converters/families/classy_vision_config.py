"""What ClassyVision's words say: the configuration in ``input_args``, its test above all.

Source: ClassyVision ``dataset/transforms/`` (its own transforms; all other names are those of
``torchvision.transforms``, also in snake case), ``dataset/classy_cifar.py``,
``tasks/classification_task.py``.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from converters.errors import InputError
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
    LINEAR,
    Says,
    Vocabulary,
    Word,
    anynet_words,
    count,
    keys,
    mapping_in,
    not_understood,
    number,
)
from regnet.config import IMAGENET_MEAN, IMAGENET_STD
from regnet.wider import NORM_EPS

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

_ACTIVATION = Word("activation", {"relu": "relu", "silu": "silu"}, "relu or silu")

SAYS: Says = {
    "hidden_act": _ACTIVATION,
    "se_act": _ACTIVATION,
    "norm_eps": number("bn_epsilon", NORM_EPS),
    **anynet_words("stem_type", "block_type"),
    "se_ratio": number("se_ratio", 0.25),
    "expansion": number("bottleneck_multipliers", 1.0),
    "strides": count("strides", 2, least=1),
    "head_size": count("conv_planes", 0),
}
"""What the model's configuration can set, or its head's, whose are the planes."""

FIELDS = frozenset({"groups_width", *SAYS}) - {"hidden_act"}
"""What any of its networks may have beyond transformers'; group widths show in shapes."""

OF_NETWORK = (FIELDS | {"hidden_act"}) - {"expansion", "strides", "head_size"}
"""The fields with a word of their own beside the lists of stages."""

_PER_STAGE = {"strides", "expansion"}
OF_ATTENTION = frozenset({"se_ratio", "se_act"})

_REGNETZ = {"block_type": LINEAR, "activation": "silu"}
_PRESETS: Mapping[str, Mapping[str, Any]] = {
    "regnet_z_500mf": _REGNETZ,
    "regnet_z_4gf": _REGNETZ,
}
"""What its own networks have that is not the default (``models/regnet.py``)."""

_MODEL = Vocabulary(
    read=keys("heads", *(word.key for word in SAYS.values())),
    harmless=keys(
        # shown by the shapes, or of training
        "name depth depths w_0 w_a w_m widths group_w* bot_mul* bottleneck_multiplier stem_width",
        "use_se bn_momentum freeze_trunk num_classes",
    ),
)

_HEAD = Vocabulary(
    read=keys("unique_id fork_block normalize_inputs activation"),
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
    def network(self) -> Mapping[str, Any]:
        """The same with what a named network has, in the words and letters of :data:`SAYS`."""
        own = _PRESETS.get(str(self.model.get("name")).lower(), {})
        return {**own, **{key: _in_small(value) for key, value in self.model.items()}}

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


def _in_small(value: Any) -> Any:
    """A text in small letters: ClassyVision reads the words of its enumerations in any."""
    return value.lower() if isinstance(value, str) else value


def said(network: Mapping[str, Any], word: Word) -> Any:
    """What a network's configuration says by a word; what it has where nothing is said."""
    value = network.get(word.key)
    if value is None:
        return word.default
    return value[0] if word is SAYS["expansion"] and isinstance(value, list | tuple) else value


def require_expressible(network: Mapping[str, Any], where: str) -> None:
    """Check everything that the reference's configuration cannot say.

    Raises:
        InputError: Naming the first setting that stands in the way.
    """
    for name, word in SAYS.items():
        stated, only = network.get(word.key), word.only
        if stated is None:
            continue
        is_list = isinstance(stated, list | tuple)
        values = list(stated) if is_list else [stated]
        if name == "expansion" and any(value != values[0] for value in values):
            only = "one number for all stages"
        elif is_list == (name in _PER_STAGE) and all(map(word.allows, values)):
            continue
        raise InputError(
            f"{where}: its configuration sets {word.key} to {stated!r}; the reference RegNet can "
            f"only be built with {only}."
        )


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
