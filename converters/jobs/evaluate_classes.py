"""Which class a folder of images belongs to, by the folder's name."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from converters.errors import InputError
from converters.families.labels import imagenet_synsets
from converters.folder.images import images_below
from regnet.config import IMAGENET_CLASSES

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

_PUNCTUATION = re.compile(r"[\W_]+")
_PLACEHOLDER = re.compile(r"LABEL_\d+")
"""How transformers names classes that nobody has named."""


@dataclass(frozen=True, slots=True)
class LabelledImages:
    """Images with their true classes.

    Attributes:
        classes: File to class, in an order that leaves nothing to chance.
        matched_by: How class folders were matched to classes, in words.
    """

    classes: Mapping[Path, int]
    matched_by: str

    def limited(self, limit: int | None) -> LabelledImages:
        """At most so many, spread evenly over all, so that every class keeps its share."""
        files = list(self.classes)
        if limit is None or limit >= len(files):
            return self
        chosen = (files[index * len(files) // limit] for index in range(limit))
        return LabelledImages({file: self.classes[file] for file in chosen}, self.matched_by)


def labelled_images(
    folder: Path, id2label: Mapping[int, str], names: Sequence[str] | None = None
) -> LabelledImages:
    """List a folder of class folders, as ImageNet is laid out.

    Class folders are matched by the first of these that fits all of them: the names given;
    ImageNet's synsets, such as ``n01440764``, for a network of 1000 classes; the labels, whole or
    one of those that commas divide, without regard to case and punctuation; numbers from 0;
    and, for a network whose labels are placeholders, their sorted order.

    Args:
        folder: One folder for each class; not every class needs one.
        id2label: Class to label.
        names: Names of class folders in class order, which decide alone if they are given.

    Raises:
        InputError: If there are no class folders or images in them, or a folder fits no class.
    """
    found = (
        sorted(path for path in folder.iterdir() if path.is_dir() and path.name[0] != ".")
        if folder.is_dir()
        else []
    )
    if not found:
        raise InputError(
            f"{folder} holds no class folders; put the images of each class into a folder of its "
            "own, as ImageNet has them."
        )
    numbers, matched_by = _match([path.name for path in found], id2label, names, folder)
    classes = {
        image: number
        for path, number in zip(found, numbers, strict=True)
        for image in images_below(path)
    }
    if not classes:
        raise InputError(f"The class folders of {folder} hold no images that can be read.")
    return LabelledImages(classes, matched_by)


def _match(
    found: Sequence[str], id2label: Mapping[int, str], names: Sequence[str] | None, folder: Path
) -> tuple[list[int], str]:
    """The class of each folder, and by what it was matched."""
    if names is not None:
        return _by_given_names(found, id2label, names, folder), "--labels"
    synsets = imagenet_synsets() if len(id2label) == IMAGENET_CLASSES else ()
    ways = {
        "ImageNet's synsets": {synset: number for number, synset in enumerate(synsets)},
        "label": _labels(id2label),
        "number": {str(number): number for number in id2label},
    }
    for way, table in ways.items():
        numbers = [table.get(_plain(name)) for name in found]
        matched = [number for number in numbers if number is not None]
        if len(matched) == len(found):
            return matched, way
    if all(map(_PLACEHOLDER.fullmatch, id2label.values())) and len(found) == len(id2label):
        return list(range(len(found))), "order, for the network's classes have no names"
    known = ways["label"] | ways["number"] | ways["ImageNet's synsets"]
    strange = next((name for name in found if _plain(name) not in known), found[0])
    raise InputError(
        f"The folder {strange} in {folder} is named for no class of the network; "
        "list the names of the folders in class order with --labels FILE."
    )


def _by_given_names(
    found: Sequence[str], id2label: Mapping[int, str], names: Sequence[str], folder: Path
) -> list[int]:
    if len(names) != len(id2label) or len(set(names)) != len(names):
        raise InputError(
            f"--labels names {len(set(names))} different folders for a network of "
            f"{len(id2label)} classes; name one for each."
        )
    table = {name: number for number, name in enumerate(names)}
    strange = next((name for name in found if name not in table), None)
    if strange is not None:
        raise InputError(f"The folder {strange} in {folder} is not in --labels; add or remove it.")
    return [table[name] for name in found]


def _labels(id2label: Mapping[int, str]) -> dict[str, int]:
    """Labels and their parts to classes, but for those that name several: ImageNet has two cranes.

    A whole label counts more than a part of another.
    """
    whole = [(_plain(label), number) for number, label in id2label.items()]
    parts = [
        (_plain(part), number) for number, label in id2label.items() for part in label.split(",")
    ]
    return _unambiguous(parts) | _unambiguous(whole)


def _unambiguous(pairs: Sequence[tuple[str, int]]) -> dict[str, int]:
    numbers: dict[str, set[int]] = {}
    for name, number in pairs:
        numbers.setdefault(name, set()).add(number)
    return {name: next(iter(found)) for name, found in numbers.items() if len(found) == 1}


def _plain(name: str) -> str:
    """A name without what people and file systems change: case, punctuation, leading zeros."""
    words = _PUNCTUATION.sub(" ", name).strip().casefold()
    return str(int(words)) if words.isdecimal() else words
