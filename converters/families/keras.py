"""Keras: the RegNets of keras-image-models (kimm), as ``.keras`` archives or HDF5 alone.

Source: kimm 0.2.5 ``models/regnet.py`` (names, networks), ``models/base_model.py`` (what is in
front of a network and at its end), ``blocks/conv2d.py`` (padding, which is torch's). An archive
describes the network by its linear rule and lists no layers, and the weights are called by their
layers' places. So they are placed in kimm's order, which is that of Keras: a layer comes the later
the fewer are behind it, and of those with as many behind them the body's before the shortcut's.
"""

from __future__ import annotations

import json
import re
import shutil
from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING, Any
from zipfile import ZipFile, ZipInfo

from converters.checkpoint.hdf5_container import LAYER_VARIABLES
from converters.checkpoint.hdf5_writer import TYPES, write_places
from converters.checkpoint.sniff import KERAS_CONFIG, KERAS_METADATA, KERAS_WEIGHTS
from converters.errors import InputError, printable
from converters.families.family import Family
from converters.families.keymap import KERAS, keymap
from converters.families.linear_rule import rule_of
from converters.families.reading import family_source
from converters.families.source import BICUBIC, Decision, EvalTransform, Preprocessing
from converters.families.tensor_layout import CHANNELS_LAST
from regnet.config import IMAGENET_STD

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from converters.checkpoint import Checkpoint, StoredTensor
    from converters.checkpoint.array import Array
    from converters.families.family import Found, Network
    from converters.families.keymap import Fields
    from converters.families.source import Source, StateDict

KIMM = keymap(
    "keras",
    "s{stage+1}_b{block+1}_",
    stem=("stem_conv2d", "stem_bn"),
    shortcut=("downsample_conv2d", "downsample_bn"),
    reduce=("conv1_conv2d", "conv1_bn"),
    grouped=("conv2_conv2d", "conv2_bn"),
    expand=("conv3_conv2d", "conv3_bn"),
    attention=("se_conv_reduce", "se_conv_expand"),
    classifier="classifier",
    leaves=KERAS,
)

_SIDE, _SHARE = 224, 0.875
"""Of the images that kimm's networks are built for unless told otherwise, and of timm's that it
ports: the crop's share of the short side."""

_PLACED = re.compile(
    r"layers\.(?P<kind>[a-z0-9]+?(_[a-z]+)*)(_(?P<place>[1-9][0-9]*))?\.(?P<leaf>\w+)"
)
"""A tensor called by its layer's place."""

_SEEDS = "seed_generator"
"""What layers keep that draw numbers at random in training."""


def _read(found: Found) -> Source:
    """Read a network of kimm's.

    Raises:
        InputError: If it is another network of Keras, or is not whole.
    """
    config = described(found.checkpoint)
    skipped: dict[str, str] = {}
    states = [_named(without_seeds(state, skipped), config, found.where) for state in found.states]
    stated = config.get("config") if _is_kimm(config) else None
    stated = stated if isinstance(stated, dict) else {}
    found = replace(found, states=states).by(preprocessing=_preprocessing(stated))
    source = family_source(found)
    end = stated.get("classifier_activation", "softmax")
    if source.has_classifier and end not in {None, "linear"}:
        reason = f"its {printable(str(end))}, with which the network in Keras ends, is left out"
        source = source.decided(Decision("output", "logits", reason))
    if stated:  # which goes before what is known of a published one
        source = replace(source, processor=source.preprocessor_fields())
    return replace(source, skipped={**skipped, **source.skipped})


def described(checkpoint: Checkpoint) -> dict[str, Any]:
    """What a ``.keras`` archive says of its network; empty of what is none."""
    said: object = json.loads(checkpoint.metadata.get(KERAS_CONFIG, "{}"))
    return said if isinstance(said, dict) else {}


def without_seeds(state: StateDict, skipped: dict[str, str]) -> StateDict:
    """A state dict without the random state of layers such as Dropout.

    Args:
        state: Of a network in Keras.
        skipped: Gets the reason for what is left out.
    """

    def kept(named: Mapping[str, StoredTensor]) -> dict[str, StoredTensor]:
        seeds = [name for name in named if _SEEDS in name.split(".")]
        skipped.update(dict.fromkeys(seeds, "what numbers are drawn with in training"))
        return {name: tensor for name, tensor in named.items() if name not in seeds}

    return replace(state, tensors=kept(state.tensors), beside=kept(state.beside))


def _is_kimm(config: Mapping[str, Any]) -> bool:
    """Whether a network is described as one of kimm's RegNets."""
    name = str(config.get("class_name"))
    return name.startswith("RegNet") and str(config.get("module")).split(".")[0] == "kimm"


def _preprocessing(stated: Mapping[str, Any]) -> Preprocessing:
    """How images are made for a network, by what its description says.

    kimm hands deviations to Keras as variances, of which that takes the roots.
    """
    shape = stated.get("input_shape")
    sides = shape[:2] if isinstance(shape, list) else []
    side = max((n for n in sides if type(n) is int and 0 < n <= 1 << 14), default=_SIDE)
    transform = EvalTransform(round(side / _SHARE), side, BICUBIC)
    if stated.get("include_preprocessing", True) is False:
        reason = "nothing says how its images are normalised, so ImageNet's mean and deviation"
        return Preprocessing(transform, reason)
    transform = replace(transform, std=tuple(deviation**0.5 for deviation in IMAGENET_STD))
    reason = "kimm's own normalisation, by the roots of ImageNet's deviations; timm's resizing"
    return Preprocessing(transform, reason)


def _named(state: StateDict, config: Mapping[str, Any], where: str) -> StateDict:
    """A state dict whose tensors are called by their layers' names.

    Raises:
        InputError: If nobody knows in which order the layers are, or they are not kimm's.
    """
    placed = {name: match for name in state.tensors if (match := _PLACED.fullmatch(name))}
    if not placed:
        return state
    if not _is_kimm(config) or state.prefix:
        what = printable(str(config.get("class_name", "")))
        said = f"its {KERAS_CONFIG} says of the class {what} alone" if what else "nothing says"
        raise InputError(
            f"{where} calls its weights by their layers' places, and {said} which layers these "
            "are; give a .keras file of the network alone that kimm saved, or load it in Keras "
            "and save it with a newer one (3.6), which states the layers' names."
        )
    layers: dict[str, dict[int, dict[str, StoredTensor]]] = {}
    for name, match in placed.items():
        kind = layers.setdefault(match["kind"], {})
        kind.setdefault(int(match["place"] or 0), {})[match["leaf"]] = state.tensors[name]
    names = dict(_names(layers.get("conv2d", {}), where))

    def named(name: str) -> str:
        match = placed.get(name)
        layer = names.get((match["kind"], int(match["place"] or 0))) if match else None
        return f"{layer}.{match['leaf']}" if match and layer else name

    return replace(
        state,
        tensors={named(name): tensor for name, tensor in state.tensors.items()},
        order=tuple(map(named, state.order)),
    )


def _names(
    convs: Mapping[int, Mapping[str, StoredTensor]], where: str
) -> Iterator[tuple[tuple[str, int], str]]:
    """The names of kimm's layers, by class and place.

    Args:
        convs: The tensors of convolutions, by place.
        where: What messages call the checkpoint.

    Raises:
        InputError: If there are gaps.
    """
    if sorted(convs) != list(range(len(convs))):
        raise InputError(f"{where} is incomplete: it lacks some of its convolutions.")
    norms = 0
    for place, (role, fields) in enumerate(_roles(convs)):
        if role in {"squeeze", "excite"}:
            conv = KIMM.spell(role, {**fields, "affine": "weight"})
        else:
            conv = KIMM.spell(f"{role}.conv", fields)
            norm = KIMM.spell(f"{role}.norm", {**fields, "norm": "weight"})
            yield ("batch_normalization", norms), norm.rpartition(".")[0]
            norms += 1
        yield ("conv2d", place), conv.rpartition(".")[0]
    yield ("dense", 0), KIMM.spell("classifier", {"affine": "weight"}).rpartition(".")[0]


def _roles(convs: Mapping[int, Mapping[str, StoredTensor]]) -> Iterator[tuple[str, Fields]]:
    """What each convolution is, by the shapes of those around it.

    A stage's first block alone has a shortcut of its own, which no 3x3 convolution follows.
    """

    def is_grouped(place: int) -> bool:
        kernel = convs.get(place, {}).get("kernel")
        return kernel is not None and kernel.shape[:2] == (3, 3)

    yield "stem", {}
    at, stage, block = 1, -1, 0
    while at < len(convs):
        roles = ["reduce", "grouped", "expand"]
        if "bias" in convs.get(at + 2, {}):
            roles[2:2] = ["squeeze", "excite"]
        after = at + len(roles)
        if after in convs and not is_grouped(after + 1):
            roles.append("shortcut")
            stage, block = stage + 1, 0
        for role in roles:
            yield role, {"stage": stage, "block": block}
        at, block = at + len(roles), block + 1


def _write(path: Path, network: Network) -> None:
    """Write an archive of kimm's class for any linear rule, which gives logits; without a date.

    Raises:
        InputError: If no linear rule gives its stages.
        OSError: If it cannot be written.
    """
    rule = rule_of(network.config)
    if rule is None:
        raise InputError(f"{network.where} has stages that no linear rule gives.")
    config = {
        "module": "kimm._src.models.regnet",
        "class_name": "RegNet",
        "config": {
            "name": "reg_net",
            "trainable": True,
            "input_shape": [None, None, network.config.num_channels],
            "include_preprocessing": False,
            "include_top": network.has_classifier,
            "pooling": None,
            "dropout_rate": 0.0,
            "classes": network.config.num_labels,
            "classifier_activation": "linear",
            "feature_extractor": False,
            "feature_keys": None,
            "weights": None,
            **rule.spelled("depth", "w0", "wa", "wm", "group_size"),
            "se_ratio": 0.25 if network.config.layer_type == "y" else 0.0,
        },
        "registered_name": "kimm>RegNet",
    }
    # Keras asks for both, and reads neither.
    metadata = {"keras_version": "3.0.0", "date_saved": "1980-01-01@00:00:00"}
    weights = path.with_name(f"{path.name}.h5")
    try:
        _write_weights(weights, network)
        with ZipFile(path, "w") as archive:
            for name, said in ((KERAS_METADATA, metadata), (KERAS_CONFIG, config)):
                archive.writestr(ZipInfo(name), json.dumps(said))
            entry = ZipInfo(KERAS_WEIGHTS)
            entry.file_size = weights.stat().st_size
            with weights.open("rb") as source, archive.open(entry, "w") as out:
                shutil.copyfileobj(source, out)
    finally:
        weights.unlink(missing_ok=True)


def _write_weights(path: Path, network: Network) -> None:
    """Write the HDF5 file of an archive."""
    groups: dict[str, str] = {}
    arrays: dict[str, Array] = {}
    seen: Counter[str] = Counter()
    for name in network.tensors:
        layer, _, leaf = name.rpartition(".")
        kind = _kind(layer, leaf)
        if layer not in groups:
            place = f"{kind}_{seen[kind]}" if seen[kind] else kind
            groups[layer] = f"layers/{place}/vars"
            seen[kind] += 1
        place = f"{groups[layer]}/{LAYER_VARIABLES[kind].index(leaf)}"
        arrays[place] = network.array(name)
    write_places(path, arrays, {group: layer for layer, group in groups.items()}, "vars")


def _kind(layer: str, leaf: str) -> str:
    """A layer's class in small letters, by its name and that of one of its tensors."""
    if layer == KIMM.rows["classifier"].partition(".")[0]:
        return "dense"
    return "batch_normalization" if leaf in KERAS.norm.values() else "conv2d"


FAMILY = Family(
    keymap=KIMM,
    title="keras-image-models (kimm), in Keras",
    package="kimm",
    read=_read,
    preprocessing=_preprocessing({}),
    layout=CHANNELS_LAST,
    write=_write,
    shortcut_last=True,
    dtypes=TYPES,
    needs=("h5py", "keras"),
    squeeze=lambda width: round(width / 4),
    stem_width=32,
    any_channels=True,
    headless=True,
    stage_counts=range(1, 9),
)
