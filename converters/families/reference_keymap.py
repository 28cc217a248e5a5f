"""The reference's own names: the table every other keymap is read against.

Source: transformers ``models/regnet/modeling_regnet.py``. Names stand without the ``regnet.``
prefix that everything but the classifier has in `RegNetForImageClassification`.
"""

from __future__ import annotations

from converters.families.keymap import Keymap

_BLOCK = "encoder.stages.{stage}.layers.{block}"

REFERENCE = Keymap(
    "transformers",
    {
        "stem.conv": "embedder.embedder.convolution.weight",
        "stem.norm": "embedder.embedder.normalization.{norm}",
        "shortcut.conv": f"{_BLOCK}.shortcut.convolution.weight",
        "shortcut.norm": f"{_BLOCK}.shortcut.normalization.{{norm}}",
        "reduce.conv": f"{_BLOCK}.layer.0.convolution.weight",
        "reduce.norm": f"{_BLOCK}.layer.0.normalization.{{norm}}",
        "grouped.conv": f"{_BLOCK}.layer.1.convolution.weight",
        "grouped.norm": f"{_BLOCK}.layer.1.normalization.{{norm}}",
        "squeeze": f"{_BLOCK}.layer.2.attention.0.{{affine}}",
        "excite": f"{_BLOCK}.layer.2.attention.2.{{affine}}",
        "expand.conv": f"{_BLOCK}.layer.{{last}}.convolution.weight",
        "expand.norm": f"{_BLOCK}.layer.{{last}}.normalization.{{norm}}",
        "classifier": "classifier.1.{affine}",
    },
)
