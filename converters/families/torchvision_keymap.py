"""torchvision: its RegNets' names (torchvision ``models/regnet.py``)."""

from __future__ import annotations

from converters.families.keymap import Keymap

_BLOCK = "trunk_output.block{stage+1}.block{stage+1}-{block}"

TORCHVISION = Keymap(
    "torchvision",
    {
        "stem.conv": "stem.0.weight",
        "stem.norm": "stem.1.{norm}",
        "shortcut.conv": f"{_BLOCK}.proj.0.weight",
        "shortcut.norm": f"{_BLOCK}.proj.1.{{norm}}",
        "reduce.conv": f"{_BLOCK}.f.a.0.weight",
        "reduce.norm": f"{_BLOCK}.f.a.1.{{norm}}",
        "grouped.conv": f"{_BLOCK}.f.b.0.weight",
        "grouped.norm": f"{_BLOCK}.f.b.1.{{norm}}",
        "squeeze": f"{_BLOCK}.f.se.fc1.{{affine}}",
        "excite": f"{_BLOCK}.f.se.fc2.{{affine}}",
        "expand.conv": f"{_BLOCK}.f.c.0.weight",
        "expand.norm": f"{_BLOCK}.f.c.1.{{norm}}",
        "classifier": "fc.{affine}",
    },
)
