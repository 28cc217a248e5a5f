"""The reference's own names: the table every other keymap is read against.

Source: transformers ``models/regnet/modeling_regnet.py``. Names stand without the ``regnet.``
prefix that everything but the classifier has in `RegNetForImageClassification`.
"""

from __future__ import annotations

from converters.families.keymap import keymap

REFERENCE = keymap(
    "transformers",
    "encoder.stages.{stage}.layers.{block}",
    stem=("embedder.embedder.convolution", "embedder.embedder.normalization"),
    shortcut=("shortcut.convolution", "shortcut.normalization"),
    reduce=("layer.0.convolution", "layer.0.normalization"),
    grouped=("layer.1.convolution", "layer.1.normalization"),
    expand=("layer.{last}.convolution", "layer.{last}.normalization"),
    attention=("layer.2.attention.0", "layer.2.attention.2"),
    classifier="classifier.1",
)
