"""OpenMMLab (mmpretrain, mmcls, mmdetection): RegNetX on BGR images.

Source: mmpretrain ``models/backbones/regnet.py`` (names; mmcls and mmdetection have the same) and
``configs/regnet/*.py``: short side 256, centre crop 224, bilinear; mean and deviation are
ImageNet's times 255, in BGR. What a training's own configuration says goes before that
(:mod:`converters.families.openmmlab_config`). mmengine ``hooks/ema_hook.py``: where weights were
averaged, ``state_dict`` holds the averaged ones and ``ema_state_dict`` the raw ones. mmcv 1.7
``runner/hooks/ema.py``, and those of mmdetection 2: the others are buffers, called ``ema_`` and the
name with underscores for dots; the hook exchanges them before an epoch's file is saved, and where
there are no epochs never. What is written back is a file as mmengine saves it, whose ``meta`` holds
the configuration that builds it.
"""

from __future__ import annotations

import warnings
from collections import OrderedDict
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from converters.checkpoint import StoredTensor
from converters.families.family import Family
from converters.families.keymap import keymap
from converters.families.openmmlab_config import DEFAULT, FIELDS, SAYS, OpenMMLabConfig
from converters.families.reading import family_source
from converters.families.real_network import RealNetwork, rule_behind
from converters.families.source import EvalTransform, Preprocessing
from converters.families.torchvision import import_torchvision
from converters.families.words import mapping_in
from regnet.wider import NORM_EPS

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from converters.checkpoint import Checkpoint
    from converters.families.family import Found, Network
    from converters.families.source import Source, StateDict
    from regnet.config import RegNetConfig

OPENMMLAB = keymap(
    "mmpretrain",
    "layer{stage+1}.{block}",
    stem=("conv1", "bn1"),
    shortcut=("downsample.0", "downsample.1"),
    reduce=("conv1", "bn1"),
    grouped=("conv2", "bn2"),
    expand=("conv3", "bn3"),
    classifier="head.fc",
)
"""Without the ``backbone.`` that mmpretrain puts before all but the head."""

_STATE, _RAW_BESIDE_AVERAGED = "state_dict", "ema_state_dict"
_BUFFERS = "ema_*"
"""What the place of weights is called that are such buffers, in that of the others."""

_WITHOUT_EPOCHS = "IterBasedRunner"

_MMDETECTION_HEAD = {"fc.weight": "head.fc.weight", "fc.bias": "head.fc.bias"}
"""mmdetection's ``regnet2mmdet.py`` to mmpretrain."""

_HEAD = "head."
_BACKBONE = "backbone."
_LEVELS = 255
"""mmpretrain normalises pixels of 0 to 255."""


def is_regnet(prefix: str, mapped: Mapping[str, object]) -> bool:
    """Whether layers are a RegNet's, not a ResNet's: 3x3 stem, output as wide as the bottleneck."""
    stem, expand = mapped.get(f"{prefix}conv1.weight"), mapped[f"{prefix}layer1.0.conv3.weight"]
    if not isinstance(stem, StoredTensor) or not isinstance(expand, StoredTensor):
        return False
    return stem.shape[2:] == (3, 3) and expand.shape[:1] == expand.shape[1:2]


def _read(found: Found) -> Source:
    """Read an OpenMMLab checkpoint."""
    config = OpenMMLabConfig.of(found.tree, found.where)
    config.require_expressible()
    rules: dict[str, Any] = {"preprocessing": config.preprocessing} if config.preprocessing else {}
    states = [one for state in found.states for one in _with_buffers(state)]
    buffers = any(_BUFFERS in state.path for state in states)
    if buffers and config.runner == _WITHOUT_EPOCHS:
        rules |= {"ema_keys": frozenset({_BUFFERS})}
    elif buffers or any(_RAW_BESIDE_AVERAGED in state.path for state in states):
        rules |= {"ema_keys": frozenset({_STATE}), "prefers_ema": True}
    renamed = [
        replace(state, tensors=_heads(state.tensors), beside=_heads(state.beside))
        for state in states
    ]
    source = family_source(replace(found.by(**rules), states=renamed))
    source = source.decided(
        *config.not_understood(source.config.num_labels * source.has_classifier)
    )
    if fields := config.fields(len(source.config.depths)):
        reason = f"the file's {config.place}"
        source = source.strided(reason, downsamples=fields["strides"][0] != 1)
        source = source.described(fields, f"{found.where}: its {config.place}")
    meta = mapping_in(found.tree, "meta")  # of mmengine, or of mmcv before it
    names = mapping_in(meta, "dataset_meta").get("classes") or meta.get("CLASSES")
    return source.labelled(names, "the file's meta")


def _with_buffers(state: StateDict) -> list[StateDict]:
    """A state dict, and behind it the same with the buffers of mmcv's hook in it, if it has such.

    The first is without them. Only parameters may have one; what has none is of both.
    """
    whole = {state.prefix + name: tensor for name, tensor in state.tensors.items()}
    whole |= state.beside
    names = {f"ema_{name.replace('.', '_')}": name for name in whole}
    found = {
        names[buffer]: tensor
        for buffer, tensor in state.beside.items()
        if buffer in names and tensor.shape == whole[names[buffer]].shape
    }
    if not found or state.path[-1:] != (_STATE,):
        return [state]
    beside = {name: one for name, one in state.beside.items() if names.get(name) not in found}
    order = tuple(name for name in state.order if names.get(name) not in found)
    rest = replace(state, beside=beside, order=order)
    buffers = replace(
        rest,
        path=(*state.path[:-1], _BUFFERS),
        tensors={name: found.get(state.prefix + name, one) for name, one in state.tensors.items()},
        beside={name: found.get(name, one) for name, one in beside.items()},
    )
    return [rest, buffers]


def _heads(tensors: Mapping[str, StoredTensor]) -> dict[str, StoredTensor]:
    """The same with a classifier that mmdetection named."""
    return {_MMDETECTION_HEAD.get(name, name): tensor for name, tensor in tensors.items()}


def _write(path: Path, network: Network) -> None:
    state = OrderedDict((_spell(name), one) for name, one in network.state_dict().items())
    network.save(path, {"meta": {"cfg": _config_text(network)}, "state_dict": state})


def _config_text(network: Network) -> str:
    """The model and its pixels, in the Python text of mmengine's configurations."""
    transform, channels = network.transform, network.config.num_channels
    model = _model(network.config, has_classifier=network.has_classifier)
    mean, std = transform.mean or (0.0,) * channels, transform.std or (1.0,) * channels
    pixels = {
        "mean": [round(_LEVELS * value, 6) for value in reversed(mean)],
        "std": [round(_LEVELS * value, 6) for value in reversed(std)],
        "to_rgb": False,
    }
    test = {"dataset": {"type": "CustomDataset", "pipeline": _pipeline(transform)}}
    return f"model = {model!r}\ndata_preprocessor = {pixels!r}\ntest_dataloader = {test!r}\n"


def _model(config: RegNetConfig, *, has_classifier: bool) -> dict[str, Any]:
    """What mmpretrain's registry builds the network from.

    Raises:
        NotRunError: If no linear rule gives its stages.
    """
    rule, stages = rule_behind(config, "mmpretrain"), len(config.depths)
    backbone = {
        "type": "RegNet",
        "arch": rule.spelled("depth", "w0", "wa", "wm", "group_w") | {"bot_mul": 1.0},
        "in_channels": config.num_channels,
        "stem_channels": config.embedding_size,
        "strides": tuple(config.stage_strides),
        "dilations": (1,) * stages,
        "out_indices": (stages - 1,),
    }
    if config.norm_eps != NORM_EPS:
        backbone["norm_cfg"] = {"type": "BN", "requires_grad": True, "eps": config.norm_eps}
    model = {
        "type": "ImageClassifier",
        "backbone": backbone,
        "neck": {"type": "GlobalAveragePooling"},
    }
    if has_classifier:
        model["head"] = {
            "type": "LinearClsHead",
            "num_classes": config.num_labels,
            "in_channels": config.hidden_sizes[-1],
            "loss": {"type": "CrossEntropyLoss", "loss_weight": 1.0},
            "topk": (1, 5) if config.num_labels >= 5 else (1,),  # noqa: PLR2004
        }
    return model


def _pipeline(transform: EvalTransform) -> list[dict[str, Any]]:
    """The steps of the test, resized by Pillow as they are here."""
    how = {"backend": "pillow", "interpolation": transform.filter_name}
    if transform.squash:
        sizes: list[dict[str, Any]] = [
            {"type": "Resize", "scale": (transform.crop, transform.crop), **how}
        ]
    else:
        sizes = [
            {"type": "ResizeEdge", "scale": transform.resize, "edge": "short", **how},
            {"type": "CenterCrop", "crop_size": transform.crop},
        ]
    return [{"type": "LoadImageFromFile"}, *sizes, {"type": "PackInputs"}]


def _build(source: Source, _: Checkpoint) -> RealNetwork:
    """Build mmpretrain's network."""
    import_torchvision()
    with warnings.catch_warnings(action="ignore"):  # of operators that need compiling
        import mmpretrain.models

        config = source.config
        settings = _model(config, has_classifier=source.has_classifier)
        module = mmpretrain.models.MODELS.build(settings)
    last = getattr(module.backbone, f"layer{len(config.depths)}")
    forward = module if source.has_classifier else lambda images: module(images)[-1]
    return RealNetwork(module, last, forward, _spell)


def _spell(name: str) -> str:
    return name if name.startswith(_HEAD) else _BACKBONE + name


FAMILY = Family(
    keymap=OPENMMLAB,
    title="OpenMMLab",
    package="mmpretrain",
    read=_read,
    preprocessing=Preprocessing(DEFAULT, "mmpretrain's configs/regnet", "bgr"),
    build=_build,
    write=_write,
    shortcut_last=True,
    lacks={"y": "mmpretrain has RegNetX only"},
    any_channels=True,
    headless=True,
    stage_counts=range(1, 5),
    says=SAYS,
    wider=FIELDS,
    anynet=FIELDS,
    says_of_images=EvalTransform.fields(),
)
