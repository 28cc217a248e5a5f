"""kecam (keras_cv_attention_models): RegNetY and RegNetX as ``.h5``, ``.keras`` or ``.weights.h5``.

Source: keras_cv_attention_models 1.4.3 ``aotnet/aotnet.py`` (names),
``resnet_family/regnet.py`` (networks, which are timm's), ``common_layers.py`` (padding, which is
torch's). Its RegNetZ, by timm's names too, is another network.
"""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from converters.checkpoint.keras_archive import layers_of
from converters.errors import InputError, printable
from converters.families.family import Family
from converters.families.keras import described, without_seeds
from converters.families.keymap import keymap
from converters.families.reading import family_source
from converters.families.source import BICUBIC, EvalTransform, Preprocessing
from converters.families.tensor_layout import TensorLayout
from converters.families.tensorflow import KERAS

if TYPE_CHECKING:
    from collections.abc import Iterable

    from converters.families.family import Found
    from converters.families.source import Source, StateDict

KECAM = keymap(
    "kecam",
    "stack{stage+1}_block{block+1}_",
    stem=("stem_conv", "stem_bn"),
    shortcut=("shortcut_conv", "shortcut_bn"),
    reduce=("deep_1_conv", "deep_1_bn"),
    grouped=("deep_2_conv", "deep_2_bn"),
    expand=("deep_3_conv", "3_bn"),
    attention=("deep_2_se_1_conv", "deep_2_se_2_conv"),
    classifier="predictions",
    leaves=KERAS,
)

_IN_GROUPS = "_deep_2_GC_conv."
"""In the name of a convolution of several groups, which one of a single group does not have."""

_OF_Z = re.compile(r"features_(conv|bn)\..*|stem_[1-3]_conv\..*|.*_evo_norm\..*")
"""What its RegNetZ has: a convolution in front of the classifier, stems of several, EvoNorm."""

_EPSILON = 1e-5
_ACTIVATIONS = {"relu", "sigmoid", "linear", "softmax", None}


def _read(found: Found) -> Source:
    """Read a network of kecam's.

    Raises:
        InputError: If it is a RegNetZ, or its description says what the reference has not.
    """
    names = [name for state in found.states for name in (*state.tensors, *state.beside)]
    if other := next(filter(_OF_Z.fullmatch, names), None):
        raise InputError(
            f"{found.where} is a RegNetZ of kecam (it has {printable(other)}), which the reference "
            "RegNet cannot express; this tool converts RegNetX and RegNetY checkpoints."
        )
    _require_reference(layers_of(described(found.checkpoint)), found.where)
    skipped: dict[str, str] = {}
    states = [_named(without_seeds(state, skipped)) for state in found.states]
    source = family_source(replace(found, states=states))
    return replace(source, skipped={**skipped, **source.skipped})


def _named(state: StateDict) -> StateDict:
    """A state dict whose convolutions are called alike, in however many groups they are."""

    def named(name: str) -> str:
        return name.replace(_IN_GROUPS, "_deep_2_conv.")

    return replace(
        state,
        tensors={named(name): tensor for name, tensor in state.tensors.items()},
        order=tuple(map(named, state.order)),
    )


def _require_reference(layers: Iterable[dict[str, Any]], where: str) -> None:
    """Check what layers say of themselves and no shape shows.

    Raises:
        InputError: Naming the first that is not the reference's.
    """
    for layer in layers:
        stated = layer.get("config")
        config: dict[str, Any] = stated if isinstance(stated, dict) else {}
        wrong = ""
        if config.get("activation") not in _ACTIVATIONS:
            wrong = f"the activation {config['activation']}"
        elif layer.get("class_name") == "BatchNormalization" and config.get("epsilon") != _EPSILON:
            wrong = f"the epsilon {config.get('epsilon')}"
        elif config.get("padding") == "same" and config.get("strides") not in ([1, 1], (1, 1)):
            wrong = f"padding 'same' at strides {config.get('strides')}"
        if wrong:
            raise InputError(
                f"{where}: its layer {printable(str(config.get('name')))} has "
                f"{printable(wrong)}, which the reference RegNet has not."
            )


FAMILY = Family(
    keymap=KECAM,
    title="kecam (keras_cv_attention_models), in Keras",
    package="keras_cv_attention_models",
    read=_read,
    preprocessing=Preprocessing(
        EvalTransform(224, 224, BICUBIC), "kecam's evaluation unless told otherwise"
    ),
    layout=TensorLayout(kernel="HWIO", matrix="IO"),
    headless=True,
)
