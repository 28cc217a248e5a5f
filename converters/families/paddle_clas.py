"""PaddleClas: a state dict of NumPy arrays in a pickle, ``.pdparams``.

Source: paddleclas 2.6.0 ``ppcls/arch/backbone/model_zoo/regnet.py`` (names, networks; all padding
is torch's) and that file of 2021 (biased convolutions) and of 2026 (RegNetY's names);
``ppcls/data/preprocess/ops/operators.py`` (RGB, OpenCV's bilinear);
paddle 3.3 ``python/paddle/framework/io.py`` (what is saved).

A linear layer's inputs come first. Batch norms count no batches. The network of 2021 gives every
convolution a bias although a batch norm follows it, whose mean takes it up.
"""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING

from converters.errors import InputError
from converters.families.family import Family
from converters.families.keymap import Leaves, keymap
from converters.families.reading import family_source
from converters.families.reparametrised import without_bias
from converters.families.source import BILINEAR, EvalTransform, Preprocessing
from converters.families.tensor_layout import TensorLayout

if TYPE_CHECKING:
    from converters.families.family import Found
    from converters.families.source import Source, StateDict

PADDLECLAS = keymap(
    "paddleclas",
    "s{stage+1}_b{block+1}",
    stem=("conv._conv", "conv._batch_norm"),
    shortcut=("short._conv", "short._batch_norm"),
    reduce=("conv0._conv", "conv0._batch_norm"),
    grouped=("conv1._conv", "conv1._batch_norm"),
    expand=("conv2._conv", "conv2._batch_norm"),
    attention=("se_block.conv_reduce", "se_block.conv_expand"),
    classifier="out",
    leaves=Leaves(
        norm={
            "weight": "weight",
            "bias": "bias",
            "running_mean": "_mean",
            "running_var": "_variance",
        }
    ),
)

_BIAS = re.compile(r"(?P<layer>(?:s\d+_b\d+\.(?:conv[0-2]|short)|conv))\._conv\.bias")

_OLD_ATTENTION = re.compile(r"s\d+_b\d+\.se_block\.squeeze\.weight")


def _read(found: Found) -> Source:
    for state in found.states:
        if any(map(_OLD_ATTENTION.fullmatch, state.tensors)):
            raise InputError(
                f"{found.where} has the squeeze-and-excitation that PaddleClas had before 2026, "
                "of other widths than any RegNetY's; convert the same network of another "
                "framework (`regnet list`)."
            )
    return family_source(replace(found, states=list(map(_without_biases, found.states))))


def _without_biases(state: StateDict) -> StateDict:
    """A state dict whose batch norms have taken up the biases of the convolutions before them."""
    tensors = dict(state.tensors)
    for name, bias in state.tensors.items():
        match = _BIAS.fullmatch(name)
        mean_name = f"{match['layer']}._batch_norm._mean" if match else ""
        mean = without_bias(tensors[mean_name], bias) if mean_name in tensors else None
        if mean is not None:
            tensors[mean_name] = mean
            del tensors[name]
    return replace(state, tensors=tensors)


FAMILY = Family(
    keymap=PADDLECLAS,
    title="PaddleClas",
    package="paddleclas",
    read=_read,
    layout=TensorLayout(matrix="IO"),
    preprocessing=Preprocessing(
        EvalTransform(256, 256, BILINEAR), "PaddleClas' configuration of every RegNet"
    ),
)
