"""Small networks of timm of each kind that transformers does not have."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from timm.layers import EvoNorm2dS0a, GroupNormAct
from timm.models.byobnet import ByobNet, model_cfgs
from timm.models.regnet import RegNet, RegNetCfg

from tests.oracles.statistics import randomise

if TYPE_CHECKING:
    from torch import nn

_SHAPE = {"depth": 5, "w0": 16, "wa": 12.0, "wm": 1.6, "se_ratio": 0.25, "act_layer": "silu"}
_GROUPS = 16
_Z = {"bottle_ratio": 2.0, "downsample": None, "linear_out": True, "num_features": 40}

CONFIGURATIONS = {
    "V": RegNetCfg(**_SHAPE, group_size=8, preact=True),
    "V, averaged shortcut": RegNetCfg(**_SHAPE, group_size=8, preact=True, downsample="avg"),
    "Z": RegNetCfg(**_SHAPE, group_size=8, **_Z),
    "Y of group norm": RegNetCfg(
        **{**_SHAPE, "w0": 32, "wa": 20.0},
        group_size=16,
        norm_layer=partial(GroupNormAct, group_size=_GROUPS),
    ),
}


def build(kind: str, classes: int = 5) -> nn.Module:
    """A network, with statistics as if it had been trained, in inference.

    Args:
        kind: One of :data:`CONFIGURATIONS`, or ``"Z of EvoNorm"``.
        classes: How many it tells apart.
    """
    if kind != "Z of EvoNorm":
        shape = replace(CONFIGURATIONS[kind], stem_width=16)
        return randomise(RegNet(shape, num_classes=classes)).eval()
    published = model_cfgs["regnetz_d8_evos"]
    stages = zip(published.blocks, (16, 32, 48, 64), (1, 2, 1, 1), strict=True)
    shape = replace(
        published,
        blocks=tuple(
            replace(stage, c=width, d=depth, gs=8, br=2) for stage, width, depth in stages
        ),
        stem_chs=16,
        num_features=48,
        norm_layer=partial(EvoNorm2dS0a, group_size=_GROUPS),
    )
    return randomise(ByobNet(shape, num_classes=classes)).eval()


KINDS = (*CONFIGURATIONS, "Z of EvoNorm")
