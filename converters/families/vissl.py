"""VISSL and SEER: consolidated, sharded and sliced checkpoints, with heads of several kinds.

Source: VISSL ``models/trunks/regnet.py`` and ``regnet_fsdp.py``, ``models/base_ssl_model.py``
(what is stored where), ``models/heads/``, ``utils/checkpoint.py``. Its published networks take RGB
but for two supervised ones, whose names end in "bgr" and which no tensor tells apart. What is
written back is a consolidated file with a trunk of the first version and an ``mlp`` head; like
VISSL's own it says nothing of the network but names and shapes.
"""

from __future__ import annotations

import re
import warnings
from collections import OrderedDict
from dataclasses import replace
from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from converters.checkpoint.values import StoredTensor
from converters.errors import InputError, printable
from converters.families.classy_vision import anynet, classy_keymap
from converters.families.entries import elsewhere, readable
from converters.families.family import Family
from converters.families.heads import Head, branch, choose_head, last_block
from converters.families.reading import choose_state, source_of
from converters.families.real_network import RealNetwork
from converters.families.source import BICUBIC, BILINEAR, EvalTransform, Preprocessing
from converters.families.torchvision import import_torchvision
from converters.families.words import SHOWN
from regnet.architecture import COUNTER
from regnet.wider import NORM_EPS

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from converters.checkpoint import Checkpoint
    from converters.checkpoint.torch_pickle import Value
    from converters.families.family import Found, Network
    from converters.families.source import Source

VISSL = classy_keymap(
    "vissl",
    "_feature_blocks.res{stage+2}.block{stage+1}-{block}",
    stem=("_feature_blocks.conv1.stem.0", "_feature_blocks.conv1.stem.1"),
    classifier="0.clf.0",
)
"""Names without the ``block{n}-part{p}`` level, which is a training setting; heads stand apart."""

_PART = re.compile(r"(?<=\.)block[0-9]+-part[0-9]+\.")
"""A level that says where training set activation checkpoints, nothing about the network."""

_TRUNK = "_feature_blocks."
_LINEAR = {"clf.0.weight", "clf.0.bias"}
_NORM = "channel_bn."
_NORM_LEAVES = {"weight", "bias", "running_mean", "running_var"}

HeadTensors = dict[str, StoredTensor]


def _read(found: Found) -> Source:
    """Read a VISSL checkpoint."""
    where = found.where
    state, weights, skipped = choose_state(found)
    trunk = _without_parts(state.tensors, where)
    beside = {name.removeprefix("heads."): tensor for name, tensor in state.beside.items()}
    stored = branch(found.tree, *state.path[:-1], "heads") if state.path else None
    heads = _by_index(beside, where) | _by_index(stored, where)
    fit, unfit = _classifiers(heads, last_block(trunk, VISSL)[2])
    head, decision, others = choose_head(found, fit, unfit)
    if head is not None:
        trunk |= head.spelled(VISSL)
        found = found if head.norm else found.by(preprocessing=_FINE_TUNED)
    skipped |= elsewhere(state, but="heads") | others
    source = source_of(found, replace(state, tensors=trunk), weights, skipped).decided(decision)
    return replace(source, classifier_norm=head.norm) if head else source


def _without_parts(tensors: Mapping[str, StoredTensor], where: str) -> HeadTensors:
    trunk: HeadTensors = {}
    for stored, tensor in tensors.items():
        name = _PART.sub("", stored)
        if name in trunk:
            raise InputError(
                f"{where} holds {printable(name)} in two parts of a stage; it mixes two models."
            )
        trunk[name] = tensor
    return trunk


def _by_index(stored: object, where: str) -> dict[str, HeadTensors]:
    """The heads by their number, whichever way they are stored.

    A `ModuleList` puts the number before each name; FSDP's files have a list of state dicts.
    """
    heads: dict[str, HeadTensors] = {}
    if isinstance(stored, list):
        stored = {
            f"{index}.{name}": tensor
            for index, head in enumerate(stored)
            for name, tensor in (head.items() if isinstance(head, dict) else ())
        }
    for name, tensor in readable(stored, where).items():
        index, _, leaf = name.partition(".")
        heads.setdefault(index, {})[leaf] = tensor
    return heads


def _classifiers(
    heads: Mapping[str, HeadTensors], width: int
) -> tuple[dict[str, Head], dict[str, str]]:
    """The heads that are linear classifiers on the pooled output; why the others are not."""
    fit: dict[str, Head] = {}
    unfit: dict[str, str] = {}
    chained = _chained(heads)
    for name, stored in heads.items():
        norm = {leaf[len(_NORM) :]: t for leaf, t in stored.items() if leaf.startswith(_NORM)}
        linear = {leaf: t for leaf, t in stored.items() if not leaf.startswith(_NORM)}
        if norm:  # `eval_mlp` is a batch norm before an `mlp` called "clf"
            linear = {leaf.removeprefix("clf."): t for leaf, t in linear.items()}
            norm.pop(COUNTER, None)
        if any("prototypes" in leaf or "projection_head" in leaf for leaf in stored):
            unfit[name] = "SwAV's, for pre-training; it gives no classes"
        elif _in_pieces(stored):
            unfit[name] = "FSDP cut it into pieces, and its shape is not in the file"
        elif linear.keys() != _LINEAR or norm.keys() not in (set(), _NORM_LEAVES):
            unfit[name] = "it is more than one linear layer"
        elif name in chained:
            unfit[name] = "it is one of several that run one behind another"
        elif any(
            shape != (width,)
            for shape in (linear["clf.0.weight"].shape[1:], *(t.shape for t in norm.values()))
        ):
            unfit[name] = f"it does not read the {width} features in which the network ends"
        else:
            fit[name] = Head(linear["clf.0.weight"], linear["clf.0.bias"], norm)
    return fit, unfit


def _in_pieces(stored: HeadTensors) -> bool:
    """Whether FSDP wrapped it; VISSL 0.1.6 notes the shapes of the trunk's parameters alone."""
    flat = any(leaf.rpartition(".")[2].startswith("flat_param") for leaf in stored)
    return flat or any(len(t.shape) == 1 for leaf, t in stored.items() if leaf == "clf.0.weight")


def _chained(heads: Mapping[str, HeadTensors]) -> set[str]:
    """Heads of which one takes what the one before it puts out.

    VISSL runs heads in a row where the trunk gives one output; where it gives several, each head
    has its own.
    """
    found: set[str] = set()
    for (name, head), (successor, behind) in pairwise(heads.items()):
        first, second = head.get("clf.0.weight"), behind.get("clf.0.weight")
        if first and second and second.shape[1:] == first.shape[:1]:
            found |= {name, successor}
    return found


def _write(path: Path, network: Network) -> None:
    state = network.state_dict()
    heads = OrderedDict(item for item in state.items() if not item[0].startswith(_TRUNK))
    trunk = OrderedDict(item for item in state.items() if item[0] not in heads)
    base_model: dict[str, Value] = {
        "model": {"trunk": trunk, "heads": heads},
        "meta": {"trunk": {}},  # where FSDP would note the shapes of what it cut
    }
    tree: dict[str, Value] = {
        "classy_state_dict": {"base_model": base_model},
        "type": "consolidated",
    }
    network.save(path, tree)


def _build(source: Source, _: Checkpoint) -> RealNetwork:
    """Build VISSL's trunk and head.

    The trunk is that of a single process: checkpoints of the one that is cut for FSDP hold the same
    tensors under the same names, once the levels of its parts are taken out.
    """
    import_torchvision()
    from torch import nn

    with warnings.catch_warnings(action="ignore"):  # of what Python and torch deprecate
        from vissl.config import AttrDict
        from vissl.models.trunks.regnet import RegNet

    config = source.config
    settings = AttrDict(
        {
            "INPUT_TYPE": "rgb",
            "ACTIVATION_CHECKPOINTING": {
                "USE_ACTIVATION_CHECKPOINTING": False,
                "NUM_ACTIVATION_CHECKPOINTING_SPLITS": 1,
            },
            "TRUNK": {"NAME": "regnet", "REGNET": anynet(config)},
            "HEAD": {
                "BATCHNORM_EPS": NORM_EPS,
                "BATCHNORM_MOMENTUM": 0.1,
                "PARAMS_MULTIPLIER": 1.0,
            },
        }
    )
    trunk = RegNet(settings, "regnet")
    head = _head(settings, source) if source.has_classifier else nn.Identity()
    last = trunk.get_submodule(f"_feature_blocks.res{len(config.depths) + 1}")
    return RealNetwork(
        module=nn.ModuleDict({"trunk": trunk, "head": head}),
        last=last,
        forward=lambda images: head(trunk(images)[0]),
        spell=partial(_spell, classifier="clf.clf." if source.classifier_norm else "clf."),
        norm="head.channel_bn.",
    )


def _head(settings: Any, source: Source) -> Any:
    """Its linear classifier, behind a batch norm where the checkpoint has one."""
    with warnings.catch_warnings(action="ignore"):
        from vissl.models.heads.linear_eval_mlp import LinearEvalMLP
        from vissl.models.heads.mlp import MLP

    width, classes = source.config.hidden_sizes[-1], source.config.num_labels
    if source.classifier_norm:
        return LinearEvalMLP(settings, width, [width, classes])
    return MLP(settings, [width, classes])


def _spell(name: str, classifier: str) -> str:
    stored = VISSL.spell("classifier", {"affine": ""})
    if name.startswith(stored):
        return f"head.{classifier}0.{name.removeprefix(stored)}"
    return f"trunk.{name}"


FAMILY = Family(
    keymap=VISSL,
    title="VISSL",
    package="vissl",
    read=_read,
    preprocessing=Preprocessing(
        EvalTransform(256, 224, BILINEAR), "VISSL's linear evaluation on ImageNet"
    ),
    states_evaluation=False,
    build=_build,
    write=_write,
    headless=True,
    wider=SHOWN,
    anynet=SHOWN,
)

_FINE_TUNED = Preprocessing(EvalTransform(384, 384, BICUBIC), "SEER's fine-tuning on ImageNet")
