"""The names of ImageNet's 1000 classes, in the order that every framework trains them in."""

from __future__ import annotations

from functools import cache
from importlib.resources import files


@cache
def imagenet_labels() -> tuple[str, ...]:
    """WordNet's names of the synsets of ILSVRC 2012, sorted by synset: ``"tench, Tinca tinca"``."""
    return _lines_of("imagenet_labels.txt")


@cache
def imagenet_synsets() -> tuple[str, ...]:
    """WordNet 3.0's numbers of the same synsets, after which ImageNet's folders are named."""
    return _lines_of("imagenet_synsets.txt")


def _lines_of(name: str) -> tuple[str, ...]:
    text = files(__package__).joinpath(name).read_text(encoding="utf-8")
    return tuple(text.splitlines())
