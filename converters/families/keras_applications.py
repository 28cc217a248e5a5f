"""``keras.applications``: RegNetX and RegNetY as Keras 2 published and trained them, as HDF5.

Source: tf_keras 2.21.0 ``applications/regnet.py`` (names, networks, where files are published).
Its convolutions pad as TensorFlow's ``same``: at stride 2 an image of even sides gets zeros below
and to the right alone. The network divides pixels by 255 and does nothing else to them, and its
outputs are logits, although its documentation says otherwise of both. A layer's name begins with
that of the model, and the classifier's with how many a program had built.
"""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from converters.checkpoint.hdf5_writer import TYPES, write_hdf5
from converters.checkpoint.keras_archive import layers_of
from converters.errors import InputError, printable
from converters.families.family import Family
from converters.families.keras import described, without_seeds
from converters.families.keymap import KERAS, keymap
from converters.families.reading import family_source
from converters.families.source import BILINEAR, EvalTransform, Preprocessing
from converters.families.tensor_layout import CHANNELS_LAST
from regnet.design_space import named_like, size_number

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from converters.checkpoint.array import Array
    from converters.families.family import Found, Network
    from converters.families.keymap import Keymap
    from converters.families.source import Source, StateDict
    from regnet.config import RegNetConfig


def _table(kind: str) -> Keymap:
    """The names of a RegNetX or RegNetY, without the model's in front of them."""
    return keymap(
        "keras-applications",
        f"Stage_{{stage}}_{kind}Block_{{block}}_",
        stem=("stem_conv", "stem_bn"),
        shortcut=("skip_1x1", "skip_bn"),
        reduce=("conv_1x1_1", "conv_1x1_1_bn"),
        grouped=("conv_3x3", "conv_3x3_bn"),
        expand=("conv_1x1_2", "conv_1x1_2_bn"),
        attention=("squeeze_and_excite_squeeze", "squeeze_and_excite_excite"),
        classifier="head_dense",
        leaves=KERAS,
    )


TABLES = {"x": _table("X"), "y": _table("Y")}
"""By layer type."""

_MODEL = re.compile(r"(?P<model>\w+?_)?(?P<rest>(stem|Stage_[0-9]+_[XY]Block_[0-9]+)_\w+\..*)")
"""The name of a layer's tensor, behind that of the model."""

_HEAD = re.compile(r"[0-9]*(?P<rest>head_dense\..*)")
"""That of the classifier's, behind how many classifiers were built."""

_FIRST_HEAD = "1"
_NAMELESS = "regnet"
_KERAS = "2.15.0"
"""The last version that has these networks in it; all of Keras 2 have one layout of files."""

_SIDE, _SHORT_SIDE = 224, 256
_PIXELS = EvalTransform(_SHORT_SIDE, _SIDE, BILINEAR, mean=(0.0,) * 3, std=(1.0,) * 3)
_OWN = (
    "the network in Keras divides by 255 itself, and no more; nothing says how images are resized"
)
_NOT_IN_IT = "nothing says how images are made, which the network in Keras does not divide by 255"

_EPSILON = 1e-5
_ACTIVATIONS = frozenset({"relu", "sigmoid", "linear", None})


def _read(found: Found) -> Source:
    """Read a network of keras.applications.

    Raises:
        InputError: If its description says what such a network has not.
    """
    layers = list(_settings(described(found.checkpoint)))
    for kind, settings in layers:
        _require_own(kind, settings, found.where)
    if layers and all(kind != "Rescaling" for kind, _ in layers):
        found = found.by(preprocessing=Preprocessing(_PIXELS, _NOT_IN_IT))
    skipped: dict[str, str] = {}
    states = [_named(without_seeds(state, skipped)) for state in found.states]
    is_y = any("_YBlock_" in name for name in states[0].tensors)
    found = replace(found, states=states).by(keymap=TABLES["y" if is_y else "x"])
    source = family_source(found)
    return replace(source, skipped={**skipped, **source.skipped})


def _named(state: StateDict) -> StateDict:
    """A state dict without what models are called, in the order that it had."""

    def named(name: str) -> str:
        match = _MODEL.fullmatch(name) or _HEAD.fullmatch(name)
        return match["rest"] if match else name

    tensors = {named(name): tensor for name, tensor in state.tensors.items()}
    if len(tensors) < len(state.tensors):
        return state  # of several models, whose names tell them apart
    beside = {named(name): tensor for name, tensor in state.beside.items()}
    return replace(state, tensors=tensors, beside=beside, order=tuple(map(named, state.order)))


def _settings(network: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """What a description says of each layer, in networks too: its class, and its settings."""
    for layer in layers_of(network):
        stated = layer.get("config")
        yield str(layer.get("class_name")), stated if isinstance(stated, dict) else {}
        yield from _settings(layer)


def _require_own(kind: str, settings: Mapping[str, Any], where: str) -> None:
    """Check what a layer says of itself and no shape shows.

    Raises:
        InputError: Naming the layer that is not as keras.applications makes it.
    """
    wrong = ""
    if settings.get("activation") not in _ACTIVATIONS:
        wrong = f"the activation {settings['activation']}"
    elif kind == "BatchNormalization" and settings.get("epsilon") != _EPSILON:
        wrong = f"the epsilon {settings.get('epsilon')}"
    elif kind == "Conv2D" and settings.get("kernel_size") in ([3, 3], (3, 3)):
        if settings.get("padding") != "same":
            wrong = f"padding '{settings.get('padding')}'"
    elif kind == "ReLU" and any(settings.get(k) for k in ("max_value", "negative_slope")):
        wrong = "a ReLU with a limit or a slope"
    elif kind == "Rescaling" and (settings.get("scale"), settings.get("offset")) != (1 / 255, 0):
        wrong = f"the scale {settings.get('scale')} and the offset {settings.get('offset')}"
    if wrong:
        raise InputError(
            f"{where}: its layer {printable(str(settings.get('name')))} has {printable(wrong)}, "
            "which no RegNet of keras.applications has."
        )


def _write(path: Path, network: Network) -> None:
    """Write the weights as Keras lists a model's: by layers, the last behind the shortcut's.

    Raises:
        OSError: If it cannot be written.
    """
    model, classifier = _model_name(network.config), network.keymap.rows["classifier"]
    layers: dict[str, dict[str, Array]] = {}
    for name in network.tensors:
        layer, _, leaf = name.rpartition(".")
        is_head = layer == classifier.partition(".")[0]
        layer = f"{_FIRST_HEAD}{layer}" if is_head else f"{model}_{layer}"
        weights = layers.setdefault(layer, {})
        weights[f"{layer}/{leaf}:0"] = network.array(name)
    order = list(layers)
    for skip in [name for name in layers if name.endswith("_skip_1x1")]:
        norm = f"{skip.removesuffix('_skip_1x1')}_conv_1x1_2_bn"
        order.remove(skip)
        order.insert(order.index(norm), skip)
    write_hdf5(path, {name: layers[name] for name in order}, _KERAS)


def _model_name(config: RegNetConfig) -> str:
    """Keras' name of a network, such as ``regnetx002``; ``regnet`` if it has none."""
    name = named_like(config)
    if name is None:
        return _NAMELESS
    return f"{_NAMELESS}{config.layer_type}{size_number(name.partition('-')[2])}"


FAMILY = Family(
    keymap=TABLES["x"],
    title="keras.applications",
    package="tf_keras",
    read=_read,
    preprocessing=Preprocessing(_PIXELS, _OWN),
    layout=CHANNELS_LAST,
    write=_write,
    shortcut_last=True,
    dtypes=TYPES,
    needs=("h5py", "keras"),
    squeeze=lambda width: width // 4,
    stem_width=32,
    any_channels=True,
    headless=True,
    stage_counts=range(4, 5),
    padding="same",
    dialect=lambda config: TABLES[config.layer_type],
    knows=_model_name,
)
