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

from converters.checkpoint.hdf5_writer import TYPES, write_hdf5
from converters.checkpoint.keras_archive import layers_of
from converters.errors import InputError, printable
from converters.families.family import Family
from converters.families.keras import described, without_seeds
from converters.families.keymap import KERAS, Leaves, keymap
from converters.families.reading import family_source
from converters.families.source import BICUBIC, Decision, EvalTransform, Preprocessing
from converters.families.tensor_layout import CHANNELS_LAST
from converters.families.timm_dialects import BYOB_ACTS, DEEP_STEM
from converters.families.words import Word

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from converters.checkpoint import StoredTensor
    from converters.checkpoint.array import Array
    from converters.families.family import Found, Network
    from converters.families.source import Source, StateDict
    from regnet.config import RegNetConfig

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
_KERAS = "2.15.0"
"""The last version that kecam was made for; all of Keras 2 have one layout of files."""

_Y, _Z = "RegNetY", "RegNetZ"
_ONE, _SEVERAL = "kernel_3x3", "deep"
_BUILDERS: dict[str, dict[Any, Any]] = {
    "shortcut": {_Y: "conv", _Z: "none"},
    "output_act": {_Y: True, _Z: BYOB_ACTS["output_act"]},
    "hidden_act": {_Y: "relu", _Z: BYOB_ACTS["hidden_act"]},
    "expansion_of": {_Y: "output", _Z: "input"},
    "se_of": {_Y: "input", _Z: "bottleneck"},
    "se_divisor": {_Y: 1, _Z: 8},
}
"""What its two builders, which no file names, make of fields of the configuration."""

_STEMS: dict[str, dict[Any, Any]] = {
    "stem_strides": {_ONE: None, _SEVERAL: DEEP_STEM["stem_strides"]},
    "downsample_in_first_stage": {_ONE: True, _SEVERAL: False},
}
"""Likewise its stems, of a single convolution or of several."""

_NORMS: dict[str, dict[Any, Any]] = {
    "norm": {False: "batch", True: "evonorm-s0a"},
    "norm_eps": {False: _EPSILON["BatchNormalization"], True: _EPSILON["EvoNormalization"]},
}

SAYS = {
    **{name: Word("builder", ours, f"{_Y} or {_Z}") for name, ours in _BUILDERS.items()},
    **{name: Word("stem_type", ours, f"{_ONE} or {_SEVERAL}") for name, ours in _STEMS.items()},
    **{name: Word("use_evo_norm", ours, "False or True") for name, ours in _NORMS.items()},
    "se_act": Word("attn_params.activation", {"relu": BYOB_ACTS["se_act"]}, "relu"),
}
"""The arguments of its builders, of which a file of weights tells by its layers' names."""

_OF_Z_ALONE = ("stem_sizes", "expansion", "norm", "head_size")
"""Fields that shapes or names tell of its RegNetZ."""

_ANYNET = frozenset({*SAYS, *_OF_Z_ALONE}) - {"hidden_act", "downsample_in_first_stage"}
_STAGES = 4
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


def _otherwise(config: RegNetConfig) -> Iterator[str]:
    """What of a network kecam builds in other sizes."""
    stages, is_z = len(config.depths), config.shortcut == "none"
    wider = {} if is_z else config.wider_fields()
    if stages != _STAGES:
        yield f"it has {stages} stages, and kecam builds {_STAGES}"
    for name in (name for name in _OF_Z_ALONE if name in wider):
        yield f"its {name} is {wider[name]}, as of kecam's networks RegNetZ's alone is"
    width = config.embedding_size
    deep = [[width // 2, width // 2, width], [width] * 3, [3 * width // 8, width // 2, width]]
    if config.stem_sizes and (config.stem_strides is None or config.stem_sizes not in deep):
        yield f"its stem_sizes are {config.stem_sizes}, and kecam builds no such stem"
    for stage, outputs in enumerate(config.hidden_sizes):
        for inputs in (width, outputs)[: config.depths[stage]]:
            yield from _other_block(config, stage, inputs)
        width = outputs


def _other_block(config: RegNetConfig, stage: int, inputs: int) -> Iterator[str]:
    """What kecam makes otherwise of a block, with floats as it multiplies them."""
    block, outputs = config.bottleneck_of(stage, inputs), config.hidden_sizes[stage]
    is_z = config.shortcut == "none"
    within = int(outputs * (config.expansion * inputs / outputs)) if is_z else outputs
    if within != block.width:
        yield f"a block of {inputs} channels has {block.width} within, and one of kecam {within}"
    elif config.layer_type == "y":
        squeezed = _squeezed(within / 4, 8) if is_z else _squeezed(outputs * (inputs / 4 / outputs))
        if squeezed != block.squeezed:
            yield (
                f"a block of {inputs} channels squeezes to {block.squeezed}, and one of kecam to "
                f"{squeezed}"
            )


def _squeezed(channels: float, divisor: int = 1) -> int:
    """The multiple of a divisor that kecam takes, which is not more than a tenth smaller."""
    near = max(divisor, int(channels + divisor / 2) // divisor * divisor)
    return near + divisor if near < 0.9 * channels else near


def _write(path: Path, network: Network) -> None:
    """Write the weights as Keras lists a model's: by layers, a shortcut's beside the last ones.

    Raises:
        OSError: If it cannot be written.
    """
    layers: dict[str, dict[str, Array]] = {}
    for name in network.tensors:
        ours, _, leaf = name.rpartition(".")
        array = network.array(name)
        layer = _theirs(ours, array, network.config)
        if layer.endswith(_EVO_NORM.strip(".")):
            array = replace(array, shape=(1, 1, 1, *array.shape))
        layers.setdefault(layer, {})[f"{layer}/{leaf}:0"] = array
    order = list(layers)
    for shortcut in [name for name in layers if "_shortcut_" in name]:
        last = "deep_3_conv" if shortcut.endswith("_conv") else "3_bn"
        order.remove(shortcut)
        order.insert(order.index(f"{shortcut.rpartition('shortcut_')[0]}{last}"), shortcut)
    write_hdf5(path, {name: layers[name] for name in order}, _KERAS)


def _theirs(layer: str, array: Array, config: RegNetConfig) -> str:
    """What kecam calls a layer of :data:`KECAM`, by one of its tensors in Keras' order of axes."""
    if config.stem_sizes:
        layer = layer.replace(f"stem_{len(config.stem_sizes)}_bn", "stem_bn")
    if config.norm != "batch" and layer.endswith("_bn"):
        return f"{layer.removesuffix('_bn')}{_EVO_NORM.strip('.')}"
    is_grouped = layer.endswith("_deep_2_conv") and array.shape[-2] < array.shape[-1]
    return f"{layer.removesuffix('_deep_2_conv')}{_IN_GROUPS.strip('.')}" if is_grouped else layer


FAMILY = Family(
    keymap=KECAM,
    title="kecam (keras_cv_attention_models), in Keras",
    package="keras_cv_attention_models",
    read=_read,
    preprocessing=Preprocessing(
        EvalTransform(224, 224, BICUBIC), "kecam's evaluation unless told otherwise"
    ),
    layout=CHANNELS_LAST,
    write=_write,
    says=SAYS,
    dtypes=TYPES,
    needs=("h5py", "keras"),
    any_channels=True,
    headless=True,
    anynet=_ANYNET,
    otherwise=_otherwise,
)
