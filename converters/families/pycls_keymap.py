"""pycls: the names of its 2020 model zoo, unchanged to this day.

Source: pycls ``models/anynet.py`` and ``models/blocks.py``; 0.1.1 and main spell them alike.
"""

from __future__ import annotations

from converters.families.keymap import Keymap

_BLOCK = "s{stage+1}.b{block+1}"

PYCLS = Keymap(
    "pycls",
    {
        "stem.conv": "stem.conv.weight",
        "stem.norm": "stem.bn.{norm}",
        "shortcut.conv": f"{_BLOCK}.proj.weight",
        "shortcut.norm": f"{_BLOCK}.bn.{{norm}}",
        "reduce.conv": f"{_BLOCK}.f.a.weight",
        "reduce.norm": f"{_BLOCK}.f.a_bn.{{norm}}",
        "grouped.conv": f"{_BLOCK}.f.b.weight",
        "grouped.norm": f"{_BLOCK}.f.b_bn.{{norm}}",
        "squeeze": f"{_BLOCK}.f.se.f_ex.0.{{affine}}",
        "excite": f"{_BLOCK}.f.se.f_ex.2.{{affine}}",
        "expand.conv": f"{_BLOCK}.f.c.weight",
        "expand.norm": f"{_BLOCK}.f.c_bn.{{norm}}",
        "classifier": "head.fc.{affine}",
    },
)
