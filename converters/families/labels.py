"""Names of classes: ImageNet's, in the order that every framework trains them in, and people's own.

People keep theirs as a list, as torchvision's ``ImageFolder`` has them (``class_to_idx``), as
transformers' ``id2label``, or as Keras' ``imagenet_class_index.json``.
"""

from __future__ import annotations

from collections import Counter
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING

from converters.families.words import mapping_in

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_KEYS = (
    *("class_to_idx", "class_to_index", "label2id", "label_to_idx"),
    *("idx_to_class", "index_to_class", "id2label", "idx2label"),
    *("classes", "class_names", "classnames", "label_names"),
)
"""What trainers call the names of their classes in a checkpoint, the surest first."""

_SECTIONS = ("hyper_parameters", "args", "config", "cfg", "meta", "hparams", "opt")
"""Where else than at the top they lie."""

_PAIR = 2


def in_class_order(stated: object, *, synsets: bool = False) -> tuple[str, ...] | None:
    """The names of all classes, however they are written down; None if it is none of these forms.

    Args:
        stated: A list of names; a mapping from number to name, or from name to number; either with
            a synset and a name for each class; or a mapping with one of these under a known key.
        synsets: Whether of a synset and a name the synset is wanted, after which folders are named.
    """
    fields = stated if isinstance(stated, dict) else {}
    nested = next((fields[key] for key in _KEYS if key in fields), None)
    return _in_order(nested if isinstance(nested, dict | list) else stated, synsets=synsets)


def _in_order(stated: object, *, synsets: bool = False) -> tuple[str, ...] | None:
    if isinstance(stated, dict):
        stated = _listed(stated)
    if not isinstance(stated, list | tuple):
        return None
    if all(isinstance(name, str) for name in stated):
        return tuple(stated)
    return _of_pairs(stated, synsets=synsets)


def _listed(stated: Mapping[object, object]) -> list[object] | None:
    """A mapping from number to name or back as a list; None unless it numbers all from zero."""
    numbered = {_number(key): value for key, value in stated.items()}
    # Classes may be called by numbers: {"0": 0, "1": 1, "10": 2}.
    if None in numbered or all(isinstance(value, int) for value in stated.values()):
        numbered = {_number(value): key for key, value in stated.items()}
    if len(numbered) != len(stated) or numbered.keys() != set(range(len(stated))):
        return None
    return [numbered[number] for number in range(len(stated))]


def _number(value: object) -> int | None:
    if isinstance(value, str) and value.isascii() and value.isdecimal():
        return int(value[:10])
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _of_pairs(
    stated: list[object] | tuple[object, ...], *, synsets: bool
) -> tuple[str, ...] | None:
    """Of pairs of a synset and a name one; a name that two classes have, with its synset."""
    pairs = [pair for pair in stated if isinstance(pair, list | tuple) and len(pair) == _PAIR]
    if len(pairs) != len(stated) or not all(isinstance(t, str) for pair in pairs for t in pair):
        return None
    if synsets:
        return tuple(str(synset) for synset, _ in pairs)
    names = Counter(name for _, name in pairs)
    return tuple(name if names[name] == 1 else f"{name} ({synset})" for synset, name in pairs)


def names_in(tree: object, classes: int) -> tuple[tuple[str, ...], str] | None:
    """The names of a checkpoint's classes, where it says them all, and the key that has them.

    Args:
        tree: What the checkpoint holds.
        classes: How many classes there are.
    """
    for place, stated in _stated(tree):
        names = _in_order(stated)
        if names is not None and len(names) == len(set(names)) == classes:
            return names, place
    return None


def _stated(tree: object) -> Iterator[tuple[str, object]]:
    """What may be names of classes, with the keys that lead to it."""
    if not isinstance(tree, dict):
        return
    for section in ("", *_SECTIONS):
        fields = mapping_in(tree, section) if section else tree
        for key in _KEYS:
            if key in fields:
                yield f"{section}.{key}" if section else key, fields[key]


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
