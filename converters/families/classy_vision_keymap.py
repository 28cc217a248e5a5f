"""ClassyVision and what grew out of it: SWAG, VISSL.

Source: ClassyVision ``models/anynet.py``, VISSL ``models/trunks/regnet.py``, SWAG
``models/regnet.py``. All name a block's layers alike; they differ in what stands before.
"""

from __future__ import annotations

from converters.families.keymap import Keymap


def _keymap(framework: str, stem: str, block: str, classifier: str) -> Keymap:
    return Keymap(
        framework,
        {
            "stem.conv": f"{stem}.0.weight",
            "stem.norm": f"{stem}.1.{{norm}}",
            "shortcut.conv": f"{block}.proj.weight",
            "shortcut.norm": f"{block}.bn.{{norm}}",
            "reduce.conv": f"{block}.f.a.0.weight",
            "reduce.norm": f"{block}.f.a.1.{{norm}}",
            "grouped.conv": f"{block}.f.b.0.weight",
            "grouped.norm": f"{block}.f.b.1.{{norm}}",
            "squeeze": f"{block}.f.se.excitation.0.{{affine}}",
            "excite": f"{block}.f.se.excitation.2.{{affine}}",
            "expand.conv": f"{block}.f.c.weight",
            "expand.norm": f"{block}.f.final_bn.{{norm}}",
            "classifier": classifier,
        },
    )


_CLASSY_BLOCK = "trunk_output.block{stage+1}.block{stage+1}-{block}"

CLASSY_VISION = _keymap("classy-vision", "stem.stem", _CLASSY_BLOCK, "fc.{affine}")
"""A head is stored apart from the trunk; ``fc`` is its name inside the head."""

SWAG = _keymap("swag", "stem.stem", _CLASSY_BLOCK, "head.fc.{affine}")

VISSL = _keymap(
    "vissl",
    "_feature_blocks.conv1.stem",
    "_feature_blocks.res{stage+2}.block{stage+1}-{block}",
    "0.clf.0.{affine}",
)
"""Names without the ``block{n}-part{p}`` level, which is a training setting; heads stand apart."""
