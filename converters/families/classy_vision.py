"""ClassyVision's full nest, a bare trunk, a model with attached heads; SWAG's flat files.

Source: ClassyVision ``models/classy_model.py`` (what is stored where), ``models/anynet.py``,
``heads/fully_connected_head.py``, ``hooks/exponential_moving_average_model_hook.py``; SWAG
``models/regnet.py``. What a training's own configuration says is in
:mod:`converters.families.classy_vision_config`. What is written back is a file as the checkpoint
hook saves it, trunk and head apart; ``input_args`` hold what ``build_model`` takes.
"""

from __future__ import annotations

import warnings
from collections import OrderedDict
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from converters.errors import InputError
from converters.families.classy_vision_config import (
    FIELDS,
    OF_ATTENTION,
    OF_NETWORK,
    SAYS,
    ClassyVisionConfig,
    require_expressible,
    said,
)
from converters.families.entries import elsewhere, readable
from converters.families.family import EMA_KEYS, Family
from converters.families.heads import Head, branch, choose_head, last_block
from converters.families.keymap import keymap
from converters.families.linear_rule import group_widths
from converters.families.reading import as_regnetz, choose_state, source_of
from converters.families.real_network import RealNetwork
from converters.families.source import BICUBIC, BILINEAR, EvalTransform, Preprocessing
from converters.families.words import spoken
from regnet.wider import NORM_EPS

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from converters.checkpoint import Checkpoint, StoredTensor
    from converters.checkpoint.torch_pickle import Value
    from converters.families.family import Found, Network
    from converters.families.source import Source, StateDict
    from regnet.config import RegNetConfig


classy_keymap = partial(
    keymap,
    shortcut=("proj", "bn"),
    reduce=("f.a.0", "f.a.1"),
    grouped=("f.b.0", "f.b.1"),
    expand=("f.c", "f.final_bn"),
    attention=("f.se.excitation.0", "f.se.excitation.2"),
)
"""Of what grew out of ClassyVision: SWAG and VISSL name a block's layers as it does."""

_BLOCK = "trunk_output.block{stage+1}.block{stage+1}-{block}"
_STEM = ("stem.stem.0", "stem.stem.1")

CLASSY_VISION = classy_keymap(
    "classy-vision", _BLOCK, stem=_STEM, head=("conv", "bn"), classifier="fc"
)
"""A head is stored apart from the trunk; these are the names inside the head."""

SWAG = classy_keymap("swag", _BLOCK, stem=_STEM, classifier="head.fc")

_CURRENT_WEIGHTS = "model_state"
"""A second copy of the raw weights, which the hook that averages them keeps beside its own."""

_SWAG_HEAD = "head"

_OF_HEAD = ("conv.", "bn.", "fc.")
_FORK_BLOCK = "trunk_output"
_HEAD_ID = "default_head"

_BN = "bn."
_HEAD_ACT = "activation"
_NORMALISES = "it normalises features to length one"

_IN_NETWORK, _IN_HEAD = "network.", "head."


@dataclass(frozen=True)
class _StoredHead:
    """A head: the block it reads, and its tensors by name."""

    block: str
    tensors: dict[str, StoredTensor] = field(default_factory=dict)


def _read(found: Found) -> Source:
    """Read a ClassyVision or SWAG checkpoint."""
    where = found.where
    copies = [state for state in found.states if state.path[-1:] == (_CURRENT_WEIGHTS,)]
    found = replace(found, states=[state for state in found.states if state not in copies])
    state, weights, skipped = choose_state(found)
    skipped |= {copy.place: "the raw weights once more, kept by the hook" for copy in copies}
    trunk, heads = _trunk_and_heads(state)
    heads |= _detached_heads(branch(found.tree, *state.path[:-1], "heads"), where)
    stated = ClassyVisionConfig.of(found.tree)
    config = stated.network
    require_expressible(config, where)
    unlike = _unlike(config) | _normalising(config)
    fit, unfit = _classifiers(heads, last_block(trunk, CLASSY_VISION), unlike)
    head, decision, others = choose_head(found, fit, unfit)
    skipped |= elsewhere(state, but="heads") | others
    if _SWAG_HEAD in heads:
        found = found.by(keymap=SWAG, preprocessing=_SWAG_PREPROCESSING)
    family = found.family
    if head is not None:
        trunk |= head.spelled(family.keymap)
    found = found.by(preprocessing=stated.preprocessing(family.preprocessing))
    source = source_of(found, replace(state, tensors=trunk), weights, skipped)
    return _as_configured(source.decided(decision, *stated.not_understood), config, where)


def _trunk_and_heads(state: StateDict) -> tuple[dict[str, StoredTensor], dict[str, _StoredHead]]:
    """Take apart a model with attached heads, by the heads' unique ids.

    Attaching a head to a block inserts the level ``_module`` into the names below that block.
    """
    trunk: dict[str, StoredTensor] = {}
    heads: dict[str, _StoredHead] = {}
    for stored, tensor in (*state.tensors.items(), *state.beside.items()):
        # The averaging hook spells a buffer "stem.stem.1_buffer_running_mean".
        name = stored.replace("._module.", ".").replace("_buffer_", ".")
        match name.split(".", 3):
            case ["_heads", block, head, leaf]:
                heads.setdefault(head, _StoredHead(block)).tensors[leaf] = tensor
            case ["head", *leaf]:
                swag = heads.setdefault(_SWAG_HEAD, _StoredHead("trunk_output"))
                swag.tensors[".".join(leaf)] = tensor
            case _:
                trunk[name] = tensor
    return trunk, heads


def _detached_heads(stored: object, where: str) -> dict[str, _StoredHead]:
    """The heads that are stored beside the trunk: block to id to tensors."""
    heads: dict[str, _StoredHead] = {}
    for block, by_id in stored.items() if isinstance(stored, dict) else ():
        for head, tensors in by_id.items() if isinstance(by_id, dict) else ():
            if kept := readable(tensors, where):
                heads[str(head)] = _StoredHead(str(block), kept)
    return heads


def _classifiers(
    heads: Mapping[str, _StoredHead], last: tuple[int, int, int], unlike: Mapping[str, str]
) -> tuple[dict[str, Head], dict[str, str]]:
    """The heads that are linear classifiers on the pooled output; why the others are not."""
    stage, block, width = last[0] + 1, last[1], last[2]
    ends = {"trunk_output", f"block{stage}", f"block{stage}-{block}"}
    fit: dict[str, Head] = {}
    unfit: dict[str, str] = {}
    for name, head in heads.items():
        rest = dict(head.tensors)
        weight, bias = rest.pop("fc.weight", None), rest.pop("fc.bias", None)
        conv = rest.pop("conv.weight", None)
        norm = {leaf[len(_BN) :]: rest.pop(leaf) for leaf in list(rest) if leaf.startswith(_BN)}
        if head.block not in ends:
            unfit[name] = f"it reads {head.block}, not the end of the network"
        elif weight is None or bias is None or rest or bool(norm) != (conv is not None):
            unfit[name] = "it is more than one linear layer"
        elif (conv or weight).shape[1:2] != (width,):
            unfit[name] = f"it does not read the {width} features in which the network ends"
        elif name in unlike and (conv is not None or unlike[name] == _NORMALISES):
            unfit[name] = unlike[name]
        else:
            fit[name] = Head(weight, bias, conv=conv, conv_norm=norm)
    return fit, unfit


def _normalising(config: object) -> dict[str, str]:
    """The heads that the configuration sets to normalise their input, which no tensor shows."""
    return {
        str(head.get("unique_id")): _NORMALISES
        for head in _heads(config)
        if head.get("normalize_inputs")
    }


def _unlike(config: Mapping[str, Any]) -> dict[str, str]:
    """The heads whose convolution would have another activation or epsilon than the network."""
    act, eps = (said(config, SAYS[name]) for name in ("hidden_act", "norm_eps"))
    unlike: dict[str, str] = {}
    for head in _heads(config):
        own = str(head.get(_HEAD_ACT, SAYS["hidden_act"].default)).lower()
        name = str(head.get("unique_id"))
        if own != act:
            unlike[name] = f"its convolution has {own} where the network has {act}"
        elif eps != NORM_EPS:
            unlike[name] = f"its batch norm has the epsilon {NORM_EPS} where the network has {eps}"
    return unlike


def _heads(config: object) -> list[dict[str, Any]]:
    heads = branch(config, "heads")
    return [h for h in (heads if isinstance(heads, list) else ()) if isinstance(h, dict)]


def _as_configured(source: Source, config: Mapping[str, Any], where: str) -> Source:
    """Take from the training run's own configuration what tensors cannot tell."""
    if not config:
        return as_regnetz(source, "the file has no configuration that says otherwise")
    fields: dict[str, Any] = {}
    for name, word in SAYS.items():
        if name == "head_size" or (source.config.layer_type == "x" and name in OF_ATTENTION):
            continue
        if name in {"expansion", "se_ratio", "strides"} and not config.get(word.key):
            continue  # shapes show them, and the reading of strides its own rule
        value = said(config, word)
        several = isinstance(value, list | tuple)
        fields[name] = [word.meant(one) for one in value] if several else word.meant(value)
    if "strides" in fields:
        reason = "the checkpoint's own configuration"
        source = source.strided(reason, downsamples=fields["strides"][0] != 1)
    return source.described(fields, f"{where}: its configuration")


def _write(path: Path, network: Network) -> None:
    state = network.state_dict()
    config = network.config
    if config.head_size and config.norm_eps != NORM_EPS:
        raise InputError(
            f"{network.where} cannot be written for classy-vision: its norm_eps is "
            f"{config.norm_eps}, and the head of ClassyVision has {NORM_EPS}; choose another "
            "framework with --to."
        )
    head = OrderedDict(item for item in state.items() if item[0].startswith(_OF_HEAD))
    trunk = OrderedDict(item for item in state.items() if item[0] not in head)
    heads: dict[str, Value] = {_FORK_BLOCK: {_HEAD_ID: head}} if head else {}
    model = anynet(config) | ({"heads": [_head(config)]} if head else {})
    tree: dict[str, Value] = {
        "input_args": {
            "config": {
                "model": model,
                "dataset": {"test": {"name": "image_path", "transforms": _test(network.transform)}},
            }
        },
        "classy_state_dict": {"base_model": {"model": {"trunk": trunk, "heads": heads}}},
    }
    network.save(path, tree)


def _test(transform: EvalTransform) -> list[Value]:
    """The steps of the test, in torchvision's names."""
    crop = transform.crop
    size: Value = [crop, crop] if transform.squash else transform.resize
    steps: list[Value] = [{"name": "Resize", "size": size, "interpolation": transform.resample}]
    if not transform.squash:
        steps.append({"name": "CenterCrop", "size": crop})
    steps.append({"name": "ToTensor"})
    if transform.mean:
        numbers = {"mean": list(transform.mean), "std": list(transform.std)}
        steps.append({"name": "Normalize", **numbers})
    return [{"name": "apply_transform_to_key", "key": "input", "transforms": steps}]


def _build(source: Source, _: Checkpoint) -> RealNetwork:
    """Build ClassyVision's trunk and head.

    SWAG's own code is a script of the Hub; its trunk is the same class under the same names.
    """
    from torch import nn

    with warnings.catch_warnings(action="ignore"):  # of what Python and torch deprecate
        from classy_vision.heads import build_head
        from classy_vision.models import build_model

    config = source.config
    network = build_model(anynet(config))
    head = build_head(_head(config) | ({} if source.has_classifier else {"num_classes": None}))
    module = nn.ModuleDict({"network": network, "head": head})
    return RealNetwork(module, network.trunk_output, lambda x: head(network(x)), _spell)


def anynet(config: RegNetConfig) -> dict[str, Value]:
    """What ClassyVision's registry takes of a trunk, and VISSL passes on to it."""
    stages: dict[str, Value] = {
        "name": "anynet",
        "depths": config.depths,
        "widths": config.hidden_sizes,
        "group_widths": group_widths(config),
        "bottleneck_multipliers": [config.expansion if config.expansion != 1 else 1]
        * len(config.depths),
        "strides": config.stage_strides,
        "stem_width": config.embedding_size,
        "use_se": config.layer_type == "y",
    }
    words, _ = spoken(SAYS, config, OF_NETWORK)
    usual = {word.key: word.default for word in SAYS.values()}
    return stages | {key: value for key, value in words.items() if value != usual[key]}


def _head(config: RegNetConfig) -> dict[str, Value]:
    """What its registry takes of a head."""
    return {
        "name": "fully_connected",
        "unique_id": _HEAD_ID,
        "num_classes": config.num_labels,
        "fork_block": _FORK_BLOCK,
        "in_plane": config.hidden_sizes[-1],
        **_before_pooling(config),
    }


def _before_pooling(config: RegNetConfig) -> dict[str, Value]:
    """What the registry takes of a convolution in a head."""
    if not config.head_size:
        return {}
    word = SAYS["hidden_act"]
    return {SAYS["head_size"].key: config.head_size, _HEAD_ACT: word.spelled(config.hidden_act)}


def _spell(name: str) -> str:
    classifier = name.removeprefix(_IN_HEAD)  # SWAG writes "head.fc", ClassyVision "fc"
    return (_IN_HEAD if classifier.startswith(_OF_HEAD) else _IN_NETWORK) + classifier


FAMILY = Family(
    keymap=CLASSY_VISION,
    title="ClassyVision or SWAG",
    package="classy_vision",
    read=_read,
    preprocessing=Preprocessing(
        EvalTransform(256, 224, BILINEAR),
        "ClassyVision's ImageNet presets; SWAG's trunks were trained at 224 as well",
    ),
    ema_keys=EMA_KEYS | {"ema_model_state"},
    build=_build,
    write=_write,
    headless=True,
    says=SAYS,
    says_of_images=EvalTransform.fields(),
    wider=FIELDS,
    anynet=FIELDS,
)

_SWAG_PREPROCESSING = Preprocessing(EvalTransform(384, 384, BICUBIC), "SWAG's ImageNet fine-tuning")
