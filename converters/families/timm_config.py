"""What timm's words say: a hub folder's ``config.json``, the ``args`` of a training run.

Source: timm ``data/config.py`` (``resolve_data_config``, which both its ``train.py`` and its
``create_transform`` go by), ``models/_hub.py`` (the folder), ``train.py`` (the arguments),
``layers/adaptive_avgmax_pool.py``. A model that the arguments name is evaluated as its
``pretrained_cfg`` says; those of RegNets are in the manifest.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from converters.errors import InputError
from converters.families.manifest import timm_default
from converters.families.source import BICUBIC, FILTERS, Decision, EvalTransform, Preprocessing
from converters.families.words import (
    ACTIVATIONS,
    Says,
    Vocabulary,
    Word,
    always,
    keys,
    mapping_in,
    not_understood,
)
from regnet.wider import NORM_EPS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from converters.checkpoint import Checkpoint
    from converters.families.manifest import Published

DEFAULT = EvalTransform(256, 224, BICUBIC)
"""timm's, where nothing is said."""

SILENT = "timm's default; the file does not say"

AVERAGE = ("avg", "fast", "fastavg")
"""timm's names of global average pooling."""

SAYS: Says = {
    "hidden_act": Word("act_layer", ACTIVATIONS, "relu, silu or gelu"),
    "norm": always("norm_layer", "batchnorm", "batchnorm2d", only="batch norms"),
    "norm_eps": always("bn_eps", NORM_EPS, only=f"an epsilon of {NORM_EPS}"),
    "stride": always("output_stride", 32, only="stride 32"),
    "shortcut": Word(
        "downsample", {"conv1x1": "conv", "avg": "avg", "": "none"}, "conv1x1, avg or none"
    ),
    "output_act": Word("linear_out", {False: True, True: False}, "true or false"),
    "preactivation": Word("preact", {False: False, True: True}, "true or false"),
}
"""Arguments that change the network and need not show in names or shapes."""

_DATA = ("input_size", "interpolation", "crop_pct", "crop_mode", "mean", "std")
"""What ``resolve_data_config`` takes from the arguments, else from the ``pretrained_cfg``."""

_MODEL = Vocabulary(
    read=keys(
        "global_pool pretrained_cfg pretrained_cfg_overlay", *(word.key for word in SAYS.values())
    ),
    harmless=keys(
        # shown by the shapes
        "depth w0 wa wm group_size group_min_ratio se_ratio stem_width num_features num_classes",
        "bottle_ratio",
        "in_chans",
        # of training
        "drop_* zero_init_last weight_init bn_momentum scriptable exportable pretrained*",
        "checkpoint_path cache_dir no_jit device dtype",
    ),
)
"""Keyword arguments of a model: ``model_args`` of a folder, ``--model-kwargs`` of a training."""

_ARGUMENTS = Vocabulary(
    read=keys(
        "model gp img_size in_chans chans bn_eps model_kwargs num_classes eval_crop_ratio", *_DATA
    ),
    harmless=keys(
        # data and where it lies
        "data* dataset* train_* val_* class_map input_key target_key batch_size",
        "validation_batch_size workers pin_mem no_prefetcher prefetcher use_multi_epochs_loader",
        "epoch_repeats",
        # where weights came from
        "pretrained* initial_checkpoint resume no_resume_opt start_epoch head_init_* checkpoint_*",
        "recovery_interval",
        # how it was computed
        "channels_last fuser jit torchscript torchcompile* grad_* clip_* fast_norm device* amp*",
        "apex_amp native_amp model_dtype no_ddp_bb synchronize_step local_rank rank world_size",
        "distributed dist_* num_gpu gpu seed worker_seeding sync_bn bn_momentum bn_tf",
        # optimiser and schedule
        "opt opt_* momentum weight_decay layer_decay* sched* lr lr_* warmup_* min_lr epochs",
        "decay_* cooldown_epochs patience_epochs",
        # augmentation, regularisation and loss
        "no_aug scale ratio hflip vflip color_jitter* grayscale_prob gaussian_blur_prob aa aug_*",
        "jsd* bce_* reprob remode recount resplit mixup* cutmix* smoothing drop drop_* kd_*",
        "distill_* task_loss_weight model_ema* tta naflex_* cache_dir",
        # names, logs and places
        "config output experiment eval_metric log_* wandb_* save_images use_wandb rank_zero",
        "check_resume",
    ),
    harmless_as={
        "split_bn": (False,),
        "input_img_mode": ("RGB",),
        "naflex_loader": (False,),
        "crop_border_pixels": (0,),
    },
)
"""Arguments of ``train.py``, of 2019 to 2026."""

_FOLDER = Vocabulary(
    read=keys("architecture num_classes global_pool model_args pretrained_cfg label_names labels"),
    harmless=keys("num_features label_descriptions description license tags notes"),
)

_PRETRAINED = Vocabulary(
    read=keys("tag label_names license", *_DATA),
    harmless=keys(
        "num_classes label_descriptions pool_size first_conv classifier fixed_input_size",
        "custom_load global_pool",
        # at another size, which only `validate.py` asks for
        "test_input_size test_crop_pct test_pool_size min_input_size",
        # where it came from
        "url file hf_hub_* source architecture origin_url paper_* description notes",
    ),
    harmless_as={"label_offset": (0,)},
)


_WRAPPER = {
    "model_type",
    "do_pooling",
    "initializer_range",
    "transformers_version",
    "architectures",
}
_WRAPPER |= {"dtype", "torch_dtype", "problem_type", "id2label", "label2id", "_name_or_path"}
"""What transformers adds to a folder whose network it has timm build (``timm_wrapper``)."""


@dataclass(frozen=True)
class TimmConfig:
    """The words of a checkpoint of timm, each in its place.

    Attributes:
        where: What messages call the checkpoint.
        folder: A hub folder's ``config.json``; empty for a file.
        arguments: A training run's ``args``; empty where there are none.
        model: Keyword arguments that the model was made with.
    """

    where: str
    folder: Mapping[str, Any]
    arguments: Mapping[Any, Any]
    model: Mapping[Any, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, checkpoint: Checkpoint) -> TimmConfig:
        """Take the words of an open checkpoint apart."""
        folder = {key: one for key, one in checkpoint.beside.config.items() if key not in _WRAPPER}
        if folder and not isinstance(folder.get("pretrained_cfg"), dict):
            folder = _from_single_dict(folder)
        arguments = {
            key: value
            for key, value in mapping_in(checkpoint.tree, "args").items()
            if value is not None
        }
        parts = (mapping_in(arguments, "model_kwargs"), mapping_in(folder, "model_args"))
        model = {key: value for part in parts for key, value in part.items() if value is not None}
        for key in ("bn_eps", "in_chans", "act_layer"):
            if key in arguments:
                model.setdefault(key, arguments[key])
        return cls(checkpoint.path.name, folder, arguments, model)

    @property
    def pretrained(self) -> Mapping[Any, Any]:
        """The ``pretrained_cfg``: the folder's own, else that of the model the arguments name."""
        if self.folder:
            return mapping_in(self.folder, "pretrained_cfg")
        stated: dict[Any, Any] = {}
        if named := self.named:
            transform = named.transform
            stated = {
                "input_size": (3, transform.crop, transform.crop),
                "interpolation": transform.filter_name,
                "crop_pct": named.crop_pct,
                "mean": transform.mean,
                "std": transform.std,
            }
        overlays = (mapping_in(self.model, f"pretrained_cfg{part}") for part in ("", "_overlay"))
        return {key: value for part in (stated, *overlays) for key, value in part.items()}

    @property
    def named(self) -> Published | None:
        """The published checkpoint whose evaluation the arguments name; None if they name none."""
        model = self.arguments.get("model")
        if not isinstance(model, str):
            return None
        source, _, name = model.rpartition(":")
        return timm_default(name.removeprefix("timm/") if source in _HUB else name)

    @property
    def pooling(self) -> str:
        """The type of global pooling, in small letters; empty if there is none."""
        places = (self.arguments.get("gp"), self.model.get("global_pool"))
        for place in (*places, self.folder.get("global_pool")):
            if place is not None and str(place).lower() not in AVERAGE:
                return str(place).lower()
        return AVERAGE[0]

    def stated(self, name: str) -> Any:
        """What the arguments say of a field of the configuration; None if they say nothing.

        They must be expressible.
        """
        word = SAYS[name]
        if word.key not in self.model:
            return None
        value = self.model[word.key]
        return word.ours[value.lower() if isinstance(value, str) else value]

    def require_expressible(self, *, has_classifier: bool) -> None:
        """Check everything that the reference's configuration cannot say.

        Args:
            has_classifier: A trunk may leave its features unpooled.

        Raises:
            InputError: Naming the first argument that stands in the way.
        """
        for word in SAYS.values():
            value = self.model.get(word.key, word.default)
            if not word.allows(value.lower() if isinstance(value, str) else value):
                raise InputError(
                    f"{self.where}: it was made with {word.key} {value!r}; the reference RegNet "
                    f"can only be built with {word.only}."
                )
        pooling = self.pooling
        if pooling not in AVERAGE and (pooling or has_classifier):
            raise InputError(
                f"{self.where}: it was made with global pooling {pooling!r}; the reference RegNet "
                "averages, and only a network that does can be converted without changing it."
            )

    @property
    def preprocessing(self) -> Preprocessing:
        """How timm evaluates it.

        Raises:
            InputError: If no `preprocessor_config.json` can say it.
        """
        reason = SILENT
        if self.folder:
            tag = self.pretrained.get("tag")
            reason = "the folder's pretrained_cfg" + (f", tag {tag}" if tag else "")
        elif self.arguments:
            deit = isinstance(self.arguments.get("input_size"), int)
            base = f"timm's {self.named.name}" if self.named and not deit else "timm's default"
            reason = f"the training run's args; what they leave out is {base}"
        return Preprocessing(_transform(self.arguments, self.pretrained, self.where), reason)

    @property
    def not_understood(self) -> tuple[Decision, ...]:
        """Words that may change the network or its evaluation, and are not understood."""
        unknown = _ARGUMENTS.unknown(self.arguments)
        if self.arguments.get("model") and not self.named:
            unknown.append(f"model {self.arguments['model']}")
        unknown += _FOLDER.unknown(self.folder)
        unknown += _PRETRAINED.unknown(mapping_in(self.folder, "pretrained_cfg"), "pretrained_cfg.")
        for key, place in (("model_kwargs", self.arguments), ("model_args", self.folder)):
            unknown += _MODEL.unknown(mapping_in(place, key), f"{key}.")
        where = "the folder's config.json" if self.folder else "the training run's args"
        return not_understood(unknown, where)


_HUB = {"hf-hub", "hf_hub"}
"""What timm reads before a model's name as a place on the Hugging Face Hub."""


def _from_single_dict(folder: dict[str, Any]) -> dict[str, Any]:
    """A folder of before 2023, in which the ``pretrained_cfg`` is the whole file."""
    own = {"architecture", "num_classes", "num_features", "global_pool", "model_args"}
    config = {key: value for key, value in folder.items() if key in own}
    stated = {key: value for key, value in folder.items() if key not in own}
    if "labels" in stated:
        stated["label_names"] = stated.pop("labels")
    return config | {"pretrained_cfg": stated}


def _transform(
    arguments: Mapping[Any, Any], stated: Mapping[Any, Any], where: str
) -> EvalTransform:
    """What ``resolve_data_config`` gives for arguments and a ``pretrained_cfg``.

    The short side goes to ``floor(size / crop_pct)``, as ``transforms_imagenet_eval`` has it. An
    ``input_size`` that is one number is DeiT's, whose trainer shares timm's files and names but not
    the models' ``pretrained_cfg``.
    """
    if isinstance(side := arguments.get("input_size"), int):
        own = {"input_size": (3, side, side), "crop_pct": arguments.get("eval_crop_ratio")}
        arguments, stated = {**arguments, **own}, {}
    channels, height, width = _size(arguments, stated, where)

    def resolved(key: str, default: Any) -> Any:
        return arguments.get(key) or stated.get(key) or default

    crop_pct = resolved("crop_pct", DEFAULT.crop / DEFAULT.resize)
    interpolation = resolved("interpolation", DEFAULT.filter_name)
    mode = resolved("crop_mode", "center")
    squash = mode == "squash" and crop_pct == 1
    kept = interpolation in FILTERS and isinstance(crop_pct, float | int) and 0 < crop_pct <= 1
    if not kept or height != width or mode == "border" or (mode == "squash" and not squash):
        raise InputError(
            f"{where}: it is evaluated at {height} x {width} pixels with crop_pct {crop_pct}, "
            f"crop_mode {mode} and {interpolation}, which no preprocessor_config.json can say; "
            "save it with a square input, a centre crop and a filter of Pillow's."
        )
    return EvalTransform(
        math.floor(height / crop_pct),
        height,
        FILTERS[interpolation],
        _per_channel(resolved("mean", DEFAULT.mean), channels),
        _per_channel(resolved("std", DEFAULT.std), channels),
        squash,
    )


def _size(arguments: Mapping[Any, Any], stated: Mapping[Any, Any], where: str) -> tuple[int, ...]:
    """Channels, height and width of the input."""
    channels = arguments.get("in_chans") or arguments.get("chans") or 3
    side = arguments.get("img_size")
    size = arguments.get("input_size") or ((channels, side, side) if side else None)
    size = size or stated.get("input_size") or (channels, DEFAULT.crop, DEFAULT.crop)
    whole = isinstance(size, list | tuple) and all(isinstance(n, int) and n > 0 for n in size)
    if not whole or len(size) != 3:  # noqa: PLR2004
        raise InputError(f"{where}: its input_size {size!r} is not channels, height and width.")
    return tuple(size)


def _per_channel(values: Sequence[float] | float, channels: int) -> tuple[float, ...]:
    """A single number counts for every channel."""
    values = (values,) if isinstance(values, int | float) else tuple(values)
    return values * channels if len(values) == 1 else values
