"""torchvision: flat files from its server, and what its reference trainer saves.

Source: torchvision ``models/regnet.py`` and ``references/classification/train.py``. Its weights
come in two recipes that no tensor tells apart: IMAGENET1K_V1 was evaluated at 256 -> 224, V2, the
default since 2022, at 232 -> 224. The trainer's ``args`` tell. What is written back is a flat file,
as on its server: ``RegNet(BlockParams(...))`` takes any stages; whose widths are not those of a
builder such as ``regnet_y_400mf`` is built from the class.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from converters.errors import InputError
from converters.families.family import Family, write_flat
from converters.families.keymap import keymap
from converters.families.linear_rule import group_widths
from converters.families.reading import family_source
from converters.families.real_network import RealNetwork
from converters.families.source import BILINEAR, FILTERS, EvalTransform, Preprocessing
from converters.families.words import SHOWN, Vocabulary, keys, mapping_in, not_understood

if TYPE_CHECKING:
    from collections.abc import Mapping

    from converters.checkpoint import Checkpoint
    from converters.families.family import Found
    from converters.families.source import Source

TORCHVISION = keymap(
    "torchvision",
    "trunk_output.block{stage+1}.block{stage+1}-{block}",
    stem=("stem.0", "stem.1"),
    shortcut=("proj.0", "proj.1"),
    reduce=("f.a.0", "f.a.1"),
    grouped=("f.b.0", "f.b.1"),
    expand=("f.c.0", "f.c.1"),
    attention=("f.se.fc1", "f.se.fc2"),
    classifier="fc",
)

_DECLARED: list[object] = []
"""What must live as long as torchvision is used."""

_CROP = "val_crop_size"

_ARGUMENTS = Vocabulary(
    read=keys("val_resize_size val_crop_size interpolation"),
    harmless=keys(
        # data, what was trained, where weights came from
        "data_path data dataset model pretrained weights resume start_epoch cache_dataset",
        "output_dir workers batch_size train_* test_only",
        # optimiser and schedule
        "opt lr lr_* momentum weight_decay *weight_decay wd epochs label_smoothing clip_grad_norm",
        "warmup_*",
        # augmentation
        "mixup_alpha cutmix_alpha auto_augment random_erase ra_* augmix_* aug*",
        # how it was computed
        "device world_size dist_* rank gpu distributed local_rank amp apex apex_opt_level sync_bn",
        "model_ema* use_deterministic_algorithms print_freq use_v2 seed prototype use_meta",
    ),
    harmless_as={"backend": ("PIL", "pil", "tensor"), "num_classes": ()},
)
"""Arguments of ``references/classification/train.py``, of 2019 to today."""


def _read(found: Found) -> Source:
    """Read a torchvision checkpoint."""
    arguments = mapping_in(found.tree, "args")
    if not arguments:
        return family_source(found)
    reason = "the training run's args"
    if _CROP not in arguments:
        reason += ", of a trainer from before 2022, which evaluates at 256"
    transform = _transform(arguments, found.where)
    source = family_source(found.by(preprocessing=Preprocessing(transform, reason)))
    unknown = not_understood(_ARGUMENTS.unknown(arguments), "the training run's args")
    return source.decided(*unknown)


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


def _build(source: Source, _: Checkpoint) -> RealNetwork:
    """Build torchvision's network."""
    import_torchvision()
    from torch.nn import Identity
    from torchvision.models.regnet import BlockParams, RegNet

    config = source.config
    shape = BlockParams(
        depths=config.depths,
        widths=config.hidden_sizes,
        group_widths=group_widths(config),
        bottleneck_multipliers=[config.expansion] * len(config.depths),
        strides=config.stage_strides,
        se_ratio=config.se_ratio if config.layer_type == "y" else None,
    )
    module = RegNet(shape, num_classes=config.num_labels, stem_width=config.embedding_size)
    if not source.has_classifier:
        module.fc = Identity()
    return RealNetwork(module, module.trunk_output, module)


def import_torchvision() -> None:
    """Import torchvision, also beside a torch that lacks the operators its wheel was built with.

    Its own detection operators, which no RegNet uses, are declared first where a CPU build of torch
    brings none.
    """
    try:
        import_module("torchvision")
    except RuntimeError:
        import torch

        library: Any = torch.library.Library("torchvision", "DEF")  # type: ignore[no-untyped-call]
        library.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        library.define("qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        _DECLARED.append(library)
        import_module("torchvision")


FAMILY = Family(
    keymap=TORCHVISION,
    title="torchvision",
    package="torchvision",
    read=_read,
    preprocessing=Preprocessing(
        EvalTransform(232, 224, BILINEAR),
        "torchvision's IMAGENET1K_V2; its V1 files were evaluated at 256",
    ),
    prefers_ema=True,
    build=_build,
    write=write_flat,
    wider=SHOWN,
    anynet=SHOWN,
)
