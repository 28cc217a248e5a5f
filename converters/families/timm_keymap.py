"""timm: its RegNets' names (timm ``models/regnet.py``)."""

from __future__ import annotations

from converters.families.keymap import Keymap

_BLOCK = "s{stage+1}.b{block+1}"

TIMM = Keymap(
    "timm",
    {
        "stem.conv": "stem.conv.weight",
        "stem.norm": "stem.bn.{norm}",
        "shortcut.conv": f"{_BLOCK}.downsample.conv.weight",
        "shortcut.norm": f"{_BLOCK}.downsample.bn.{{norm}}",
        "reduce.conv": f"{_BLOCK}.conv1.conv.weight",
        "reduce.norm": f"{_BLOCK}.conv1.bn.{{norm}}",
        "grouped.conv": f"{_BLOCK}.conv2.conv.weight",
        "grouped.norm": f"{_BLOCK}.conv2.bn.{{norm}}",
        "squeeze": f"{_BLOCK}.se.fc1.{{affine}}",
        "excite": f"{_BLOCK}.se.fc2.{{affine}}",
        "expand.conv": f"{_BLOCK}.conv3.conv.weight",
        "expand.norm": f"{_BLOCK}.conv3.bn.{{norm}}",
        "classifier": "head.fc.{affine}",
    },
)
