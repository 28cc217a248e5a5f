"""kecam (keras_cv_attention_models): RegNetX, Y and Z as ``.h5``, ``.keras`` or ``.weights.h5``.

Source: keras_cv_attention_models 1.4.3 ``aotnet/aotnet.py`` (names, stems),
``resnet_family/regnet.py`` (networks, which are timm's), ``common_layers.py`` (padding, which is
torch's; EvoNorm, whose tensors have axes of a batch and of an image). Of its RegNetZ, ByobNet's in
timm, its code alone says activations and strides; it normalises their images by ImageNet's mean and
deviation, whatever timm's training did.
"""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from converters.checkpoint.keras_archive import layers_of
from converters.errors import InputError, printable
from converters.families.family import Family
from converters.families.keras import described, without_seeds
from converters.families.keymap import KERAS, Leaves, keymap
from converters.families.reading import family_source
from converters.families.source import BICUBIC, Decision, EvalTransform, Preprocessing
from converters.families.tensor_layout import CHANNELS_LAST
from converters.families.timm_dialects import BYOB_ACTS, DEEP_STEM

if TYPE_CHECKING:
    from converters.checkpoint import StoredTensor
    from converters.families.family import Found
    from converters.families.source import Source, StateDict

_LEAVES = Leaves(conv=KERAS.conv, norm={**KERAS.norm, "v": "vv"}, affine=KERAS.affine)
"""With the slope of EvoNorm."""

KECAM = keymap(
    "kecam",
    "stack{stage+1}_block{block+1}_",
    stem=("stem_conv", "stem_bn"),
    stems=("stem_{index+1}_conv", "stem_{index+1}_bn"),
    head=("features_conv", "features_bn"),
    shortcut=("shortcut_conv", "shortcut_bn"),
    reduce=("deep_1_conv", "deep_1_bn"),
    grouped=("deep_2_conv", "deep_2_bn"),
    expand=("deep_3_conv", "3_bn"),
    attention=("deep_2_se_1_conv", "deep_2_se_2_conv"),
    classifier="predictions",
    leaves=_LEAVES,
)

_IN_GROUPS = "_deep_2_GC_conv."
"""In the name of a convolution of several groups, which one of a single group does not have."""

_EVO_NORM = "_evo_norm."
"""In the name of a norm, where others have ``_bn.``"""

_PLACES = {
    f"{_EVO_NORM}{place}": f"_bn.{leaf}" for place, leaf in enumerate(("gamma", "beta", "vv"))
}
"""What an archive calls its tensors by, which lists no names of those of other people's layers."""

_OF_Z = re.compile(r"features_(conv|bn)\..*|stem_[1-3]_conv\..*|.*_evo_norm\..*")
"""What its RegNetZ alone has: a convolution before the classifier, stems of several, EvoNorm."""

_SHORTCUT = "_shortcut_conv."
"""In the name of what its RegNetZ has not, in no block."""

_WIDER = frozenset({"expansion", "expansion_of", "se_of", "se_divisor", "shortcut"})
"""In what its RegNetZ differs that shapes show."""

_EPSILON = {"BatchNormalization": 1e-5, "EvoNormalization": 1e-3}
_GROUP_SIZE = 16
_ENDS = frozenset({"linear", "softmax", None})
"""Activations behind blocks and at the end of a network, which is left out."""


def _read(found: Found) -> Source:
    """Read a network of kecam's.

    Raises:
        InputError: If its description says what kecam's builders do not make.
    """
    names = [name for state in found.states for name in (*state.tensors, *state.beside)]
    is_z = not any(_SHORTCUT in name for name in names)
    other = next(filter(_OF_Z.fullmatch, names), None)
    if other and not is_z:
        raise InputError(
            f"{found.where} has {printable(other)}, as kecam's RegNetZ alone has, and shortcuts of "
            "their own, as that has not; it is no RegNet of kecam."
        )
    skipped: dict[str, str] = {}
    _require_own(found, is_z=is_z)
    states = [_named(without_seeds(state, skipped)) for state in found.states]
    found = replace(found, states=states)
    source = family_source(found.by(wider=_WIDER) if is_z else found)
    if is_z:
        source = _of_z(source, evo_norm=any(_EVO_NORM in name for name in names))
    return replace(source, skipped={**skipped, **source.skipped})


def _of_z(source: Source, *, evo_norm: bool) -> Source:
    """A RegNetZ with what kecam's code alone says of it."""
    fields: dict[str, Any] = {"shortcut": "none", **BYOB_ACTS}
    fields |= DEEP_STEM if source.config.stem_sizes else {}
    if evo_norm:
        epsilon = _EPSILON["EvoNormalization"]
        fields |= {"norm": "evonorm-s0a", "norm_group_size": _GROUP_SIZE, "norm_eps": epsilon}
    acts = "silu, relu in squeeze-and-excitation, none behind blocks"
    reason = "as kecam builds every RegNetZ"
    return source.configured(**fields).decided(Decision("activations", acts, reason))


def _named(state: StateDict) -> StateDict:
    """A state dict whose layers are called alike, in however many groups and of whatever norm.

    A stem of several convolutions calls its last norm as a stem of one does.
    """
    last = max((n for n in (1, 2, 3) if f"stem_{n}_conv.kernel" in state.tensors), default=0)

    def named(name: str) -> str:
        name = name.replace(_IN_GROUPS, "_deep_2_conv.")
        for theirs, ours in (*_PLACES.items(), (_EVO_NORM, "_bn.")):
            name = name.replace(theirs, ours)
        return name.replace("stem_bn.", f"stem_{last}_bn.") if last else name

    def flat(name: str, tensor: StoredTensor) -> StoredTensor:
        is_flat = _EVO_NORM in name and tensor.shape[:-1] == (1, 1, 1)
        return (
            replace(tensor, shape=tensor.shape[-1:], stride=tensor.stride[-1:])
            if is_flat
            else tensor
        )

    return replace(
        state,
        tensors={named(name): flat(name, tensor) for name, tensor in state.tensors.items()},
        order=tuple(map(named, state.order)),
    )


def _require_own(found: Found, *, is_z: bool) -> None:
    """Check what layers say of themselves and no shape shows.

    Raises:
        InputError: Naming the first that is not as kecam's builders make it.
    """
    tensors = {name: tensor for state in found.states for name, tensor in state.tensors.items()}
    for layer in layers_of(described(found.checkpoint)):
        stated = layer.get("config")
        config: dict[str, Any] = stated if isinstance(stated, dict) else {}
        kind, name = str(layer.get("class_name")).rpartition(">")[2], str(config.get("name"))
        acts = {"relu", "sigmoid"} if "_se_" in name else {"swish", "silu"} if is_z else {"relu"}
        wrong = ""
        if config.get("activation") not in acts | _ENDS:
            wrong = f"the activation {config['activation']}"
        elif kind in _EPSILON and config.get("epsilon") != _EPSILON[kind]:
            wrong = f"the epsilon {config.get('epsilon')}"
        elif kind == "EvoNormalization":
            gamma = tensors.get(f"{name}.0")
            if gamma and config.get("num_groups") != gamma.shape[-1] // _GROUP_SIZE:
                wrong = f"the number of groups {config.get('num_groups')}"
        elif config.get("padding") == "same" and config.get("strides") not in ([1, 1], (1, 1)):
            wrong = f"padding 'same' at strides {config.get('strides')}"
        if wrong:
            raise InputError(
                f"{found.where}: its layer {printable(name)} has {printable(wrong)}, which no "
                "RegNet of kecam has."
            )


FAMILY = Family(
    keymap=KECAM,
    title="kecam (keras_cv_attention_models), in Keras",
    package="keras_cv_attention_models",
    read=_read,
    preprocessing=Preprocessing(
        EvalTransform(224, 224, BICUBIC), "kecam's evaluation unless told otherwise"
    ),
    layout=CHANNELS_LAST,
    headless=True,
)
