"""timm: hub folders, flat files, training checkpoints.

Source: timm ``models/regnet.py``, ``models/_helpers.py`` (which weights a file's loader takes),
``utils/checkpoint_saver.py`` (training), ``models/_hub.py`` (``save_config_for_hf``). What its
words say is in :mod:`converters.families.timm_config`. What is written back is a hub folder, which
``timm.create_model("local-dir:FOLDER", pretrained=True)`` loads.
"""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING, Any

from converters.errors import printable
from converters.families.family import Family
from converters.families.labels import imagenet_labels
from converters.families.manifest import network_like
from converters.families.reading import family_source
from converters.families.real_network import RealNetwork, rule_behind
from converters.families.source import LICENCE, Decision, EvalTransform, Preprocessing
from converters.families.timm_config import DEFAULT, SAYS, SILENT, TimmConfig
from converters.families.timm_dialects import TIMM, WIDER, dialect_of, table_of, unseen
from converters.families.torchvision import import_torchvision
from converters.families.words import mapping_in
from regnet.architecture import Architecture
from regnet.config import CONFIG_NAME, IMAGENET_CLASSES, IMAGENET_MEAN
from regnet.design_space import size_number
from regnet.files.json_file import write_json
from regnet.files.safetensors_file import WEIGHTS_NAME

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from converters.checkpoint import Checkpoint
    from converters.families.family import Found, Network
    from converters.families.source import Source
    from regnet.config import RegNetConfig

_STEM_WIDTH = 32
_NAME = re.compile(r"RegNet[XY]-(?P<size>[0-9.]+(MF|GF))(-(?P<variant>tv)|-SEER)?")
"""A published network's name, if timm has it: the largest, RegNetY-10B, it has not."""


def _read(found: Found) -> Source:
    """Read a timm checkpoint."""
    state = found.states[0]
    config = TimmConfig.of(found.checkpoint)
    # Before shapes are read: pooling that doubles the features is no fault of the classifier.
    config.require_expressible(has_classifier=False)
    table, shown = dialect_of({*state.tensors, *state.beside})
    source = family_source(found.by(keymap=table, preprocessing=config.preprocessing))
    config.require_expressible(has_classifier=source.has_classifier)
    source = _of_kind(source.configured(**shown), config)
    source = source.decided(*config.not_understood)
    return with_folder(source, config.folder)


def with_folder(source: Source, config: Mapping[str, Any]) -> Source:
    """The source with the names of classes and the licence that a folder's ``config.json`` says."""
    return _with_licence(_with_labels(source, config), config)


def _of_kind(source: Source, stated: TimmConfig) -> Source:
    """The source with what neither names nor shapes show: as arguments say, else as timm has it.

    timm's ``models/regnet.py`` has the network's activation in squeeze-and-excitation, too, and
    without a last convolution an activation behind blocks that end in none.
    """
    kind = unseen(source.config, source.keymap)
    fields, act, output_act = dict(kind), stated.stated("hidden_act"), stated.stated("output_act")
    own_act = fields.get("se_act", "relu") == fields.get("hidden_act", "relu")
    if act is not None:
        fields |= {"hidden_act": act} | ({"se_act": act} if own_act else {})
    if output_act is not None:
        ends_bare = source.config.preactivation or not output_act
        no_head = not source.config.head_size
        fields |= {"output_act": output_act, "final_act": ends_bare and no_head}
    if source.config.layer_type == "x":
        fields.pop("se_act", None)
    source = source.configured(**fields)
    if not kind:
        return source
    config = source.config
    acts = [f"{config.hidden_act}, {config.se_act} in squeeze-and-excitation"]
    acts += ["none behind blocks"] if not config.output_act else []
    acts += ["one behind the last"] if config.final_act else []
    reason = "as the arguments say, else as timm builds this kind of network"
    return source.decided(Decision("activations", ", ".join(acts), reason))


def _with_labels(source: Source, config: Mapping[str, Any]) -> Source:
    """The source with a folder's ``label_names``, or ImageNet's where its tag ends in ``in1k``.

    Left out unless they name every class: timm allows gaps, a configuration does not.
    """
    stated = config.get("pretrained_cfg") or {}
    names = config.get("label_names") or stated.get("label_names")
    classes = source.config.num_labels if source.has_classifier else 0
    reason = "the folder's label_names"
    if not names and str(stated.get("tag")).endswith("in1k") and classes == IMAGENET_CLASSES:
        names, reason = list(imagenet_labels()), f"the folder's tag is {stated['tag']}"
    return source.labelled(names, reason)


def _with_licence(source: Source, config: Mapping[str, Any]) -> Source:
    """The source with the licence of its weights, which is the author's word and not ours."""
    licence = (config.get("pretrained_cfg") or {}).get("license")
    if not isinstance(licence, str):
        return source
    return source.decided(Decision(LICENCE, printable(licence), "the folder's pretrained_cfg"))


def _write(path: Path, network: Network) -> None:
    path.mkdir(exist_ok=True)
    write_json(path / CONFIG_NAME, _config(network))
    network.save_safetensors(path / WEIGHTS_NAME)


def _config(network: Network) -> dict[str, Any]:
    config = network.config
    classes = config.num_labels if network.has_classifier else 0
    architecture, arguments = _made_with(config)
    return {
        "architecture": architecture,
        "num_classes": classes,
        "num_features": config.feature_size,
        "global_pool": "avg",
        **({"model_args": arguments} if arguments else {}),
        "pretrained_cfg": _pretrained_cfg(config, network.transform, classes),
    }


def _made_with(config: RegNetConfig) -> tuple[str, dict[str, Any]]:
    """An entrypoint of timm and the arguments that make it this network.

    Raises:
        NotRunError: If none do.
    """
    arguments: dict[str, Any] = {}
    if config.num_channels != len(IMAGENET_MEAN):
        arguments["in_chans"] = config.num_channels
    name = entrypoint(config)
    if name and config.wider_fields():
        return name, arguments
    if config.embedding_size != _STEM_WIDTH:
        arguments["stem_width"] = config.embedding_size
    if config.hidden_act != "relu":
        word = SAYS["hidden_act"]
        arguments[word.key] = word.spelled(config.hidden_act)
    if name:
        return name, arguments
    rule = rule_behind(config, "timm").spelled("depth", "w0", "wa", "wm", "group_size")
    return f"regnet{config.layer_type}_002", arguments | rule


def entrypoint(config: RegNetConfig) -> str | None:
    """Give timm's name of a network with this architecture, or None if it has none."""
    name = network_like(config) or ""
    published = _NAME.fullmatch(name)
    if published is None:
        return name if name.startswith("regnet") else None  # those of timm alone have its names
    variant = f"_{published['variant']}" if published["variant"] else ""
    return f"regnet{config.layer_type}_{size_number(published['size'])}{variant}"


def _pretrained_cfg(config: RegNetConfig, transform: EvalTransform, classes: int) -> dict[str, Any]:
    """How it was evaluated; ``first_conv`` only where timm may adapt it to other channels."""
    from regnet.image_processor import crop_pct_for

    channels = config.num_channels
    strides = (*(stride for _, stride in config.stem_convolutions), *config.stage_strides)
    side = -(-transform.crop // math.prod(strides))
    first = Architecture.of(config).slots[0]
    stem = table_of(config).spell(first.role, first.fields).removesuffix(".weight")
    return {
        "tag": "",
        "custom_load": False,
        "input_size": [channels, transform.crop, transform.crop],
        "fixed_input_size": False,
        "interpolation": transform.filter_name,
        "crop_pct": crop_pct_for(transform.resize, transform.crop),
        "crop_mode": "squash" if transform.squash else "center",
        "mean": list(transform.mean or [0.0] * channels),
        "std": list(transform.std or [1.0] * channels),
        "num_classes": classes,
        "pool_size": [side, side],
        "first_conv": stem if channels == len(IMAGENET_MEAN) else None,
        "classifier": "head.fc",
    }


def _build(source: Source, checkpoint: Checkpoint) -> RealNetwork:
    """Build timm's network."""
    import_torchvision()  # which timm builds on
    import timm

    config = source.config
    stated = TimmConfig.of(checkpoint)
    options: dict[str, Any] = {
        "num_classes": config.num_labels if source.has_classifier else 0,
        "in_chans": config.num_channels,
        "global_pool": stated.pooling or "avg",  # a trunk that pools nothing is pooled for us
    }
    if isinstance(stated.folder.get("architecture"), str):
        name, arguments = stated.folder["architecture"], mapping_in(stated.folder, "model_args")
    else:
        name, arguments = _made_with(config)
    module = timm.create_model(name, **arguments | options)
    last = "final_conv" if config.wider_fields() else f"s{len(config.depths)}"
    return RealNetwork(module, module.get_submodule(last), module)


FAMILY = Family(
    keymap=TIMM,
    title="timm",
    package="timm",
    read=_read,
    preprocessing=Preprocessing(DEFAULT, SILENT),
    prefers_ema=True,
    build=_build,
    write=_write,
    loads_folder=True,
    shortcut_last=True,
    any_channels=True,
    headless=True,
    says=SAYS,
    says_of_images=EvalTransform.fields(),
    stage_counts=range(4, 5),
    wider=WIDER,
    dialect=table_of,
    knows=entrypoint,
)
