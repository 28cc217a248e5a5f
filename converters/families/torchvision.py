"""torchvision: flat files from its server, and what its reference trainer saves.

Source: torchvision ``models/regnet.py`` and ``references/classification/train.py``. Its weights
come in two recipes that no tensor tells apart: IMAGENET1K_V1 was evaluated at 256 -> 224, V2, the
default since 2022, at 232 -> 224. The trainer's ``args`` tell.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from converters.errors import InputError
from converters.families.family import Family, family_source
from converters.families.source import BILINEAR, FILTERS, EvalTransform
from converters.families.torchvision_keymap import TORCHVISION
from converters.families.words import Vocabulary, mapping_in, not_understood

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from converters.checkpoint import AnyCheckpoint
    from converters.families.options import SourceOptions
    from converters.families.source import Source
    from converters.families.wrapping import StateDict

FAMILY = Family(
    keymap=TORCHVISION,
    transform=EvalTransform(232, 224, BILINEAR),
    transform_reason="torchvision's IMAGENET1K_V2; its V1 files were evaluated at 256",
    prefers_ema=True,
)


_CROP = "val_crop_size"

_ARGUMENTS = Vocabulary(
    read=frozenset({"val_resize_size", _CROP, "interpolation"}),
    harmless=frozenset(
        # data, what was trained, where weights came from
        {"data_path", "data", "dataset", "model", "pretrained", "weights", "resume", "start_epoch"}
        | {"cache_dataset", "output_dir", "workers", "batch_size", "train_*", "test_only"}
        # optimiser and schedule
        | {"opt", "lr", "lr_*", "momentum", "weight_decay", "*weight_decay", "wd", "epochs"}
        | {"label_smoothing", "clip_grad_norm", "warmup_*"}
        # augmentation
        | {"mixup_alpha", "cutmix_alpha", "auto_augment", "random_erase", "ra_*"}
        | {"augmix_*", "aug*"}
        # how it was computed
        | {"device", "world_size", "dist_*", "rank", "gpu", "distributed", "local_rank", "amp"}
        | {"apex", "apex_opt_level", "sync_bn", "model_ema*", "use_deterministic_algorithms"}
        | {"print_freq", "use_v2", "seed", "prototype", "use_meta"}
    ),
    harmless_as={"backend": ("PIL", "pil", "tensor"), "num_classes": ()},
)
"""Arguments of ``references/classification/train.py``, of 2019 to today."""


def read_torchvision(
    checkpoint: AnyCheckpoint, states: Sequence[StateDict], options: SourceOptions
) -> Source:
    """Read a torchvision checkpoint; see :class:`converters.families.registry.Reader`."""
    where = checkpoint.path.name
    arguments = mapping_in(checkpoint.tree, "args")
    if not arguments:
        return family_source(FAMILY, states, options, where)
    reason = "the training run's args"
    if _CROP not in arguments:
        reason += ", of a trainer from before 2022, which evaluates at 256"
    transform = _transform(arguments, where)
    family = replace(FAMILY, transform=transform, transform_reason=reason)
    source = family_source(family, states, options, where)
    unknown = not_understood(_ARGUMENTS.unknown(arguments), "the training run's args")
    return replace(source, decisions=(*source.decisions, *unknown))


def _transform(arguments: Mapping[Any, Any], where: str) -> EvalTransform:
    """The evaluation of torchvision's trainer, by its command line.

    Before it had options for it, it resized to 256 and cropped 224.
    """
    resize, crop = arguments.get("val_resize_size", 256), arguments.get(_CROP, 224)
    interpolation = arguments.get("interpolation", "bilinear")
    whole = isinstance(resize, int) and isinstance(crop, int)
    if whole and 0 < crop <= resize and interpolation in FILTERS:
        return EvalTransform(resize, crop, FILTERS[interpolation])
    raise InputError(
        f"{where}: its args evaluate with val_resize_size {resize}, val_crop_size {crop} and "
        f"{interpolation}; the crop must be positive and no larger than the image."
    )
