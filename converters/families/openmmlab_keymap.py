"""OpenMMLab: RegNetX as mmpretrain names it (``models/backbones/regnet.py``).

mmcls and mmdetection name it alike; names stand without the ``backbone.`` that mmpretrain puts
before all but the head.
"""

from __future__ import annotations

from converters.families.keymap import Keymap

_BLOCK = "layer{stage+1}.{block}"

OPENMMLAB = Keymap(
    "mmpretrain",
    {
        "stem.conv": "conv1.weight",
        "stem.norm": "bn1.{norm}",
        "shortcut.conv": f"{_BLOCK}.downsample.0.weight",
        "shortcut.norm": f"{_BLOCK}.downsample.1.{{norm}}",
        "reduce.conv": f"{_BLOCK}.conv1.weight",
        "reduce.norm": f"{_BLOCK}.bn1.{{norm}}",
        "grouped.conv": f"{_BLOCK}.conv2.weight",
        "grouped.norm": f"{_BLOCK}.bn2.{{norm}}",
        "expand.conv": f"{_BLOCK}.conv3.weight",
        "expand.norm": f"{_BLOCK}.bn3.{{norm}}",
        "classifier": "head.fc.{affine}",
    },
)
