"""The names of ImageNet's 1000 classes, in the order that every framework trains them in."""

from __future__ import annotations

from functools import cache
from importlib.resources import files

IMAGENET_CLASSES = 1000


@cache
def imagenet_labels() -> tuple[str, ...]:
    """WordNet's names of the synsets of ILSVRC 2012, sorted by synset: ``"tench, Tinca tinca"``."""
    text = files("converters").joinpath("imagenet_labels.txt").read_text(encoding="utf-8")
    return tuple(text.splitlines())
