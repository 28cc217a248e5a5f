"""A keymap: how one framework spells the parameters of a RegNet.

A keymap is data, which :func:`keymap` takes layer by layer. Each *role* (the weight of the stem's
convolution, say) has one row, a pattern with named fields; two frameworks are connected by their
rows for the same role, so any keymap reads into any other, in both directions.

Fields in braces stand for what varies: ``{stage}`` and ``{block}`` count from zero, ``{stage+1}``
from one; ``{norm}`` is a tensor of a batch norm; ``{affine}`` is ``weight`` or ``bias``; ``{last}``
is the position of a block's last layer in the reference: 3 behind squeeze-and-excitation, else 2.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from regnet.architecture import BATCH_NORM_LEAVES

if TYPE_CHECKING:
    from collections.abc import Mapping

Fields = dict[str, str | int]

_FIELD = re.compile(r"\{(?P<name>[a-z]+)(?:\+(?P<offset>\d+))?\}")
_VALUES = {
    "stage": "0|[1-9][0-9]{0,5}",  # not \d, which takes every script's digits
    "block": "0|[1-9][0-9]{0,5}",
    "norm": "|".join(BATCH_NORM_LEAVES),
    "affine": "weight|bias",
    "last": "2|3",
}


@dataclass(frozen=True)
class Pattern:
    """One spelling with fields, matched whole and rendered back."""

    text: str

    @cached_property
    def _regex(self) -> re.Pattern[str]:
        parts = []
        end = 0
        for match in _FIELD.finditer(self.text):
            parts += [re.escape(self.text[end : match.start()]), f"({_VALUES[match['name']]})"]
            end = match.end()
        return re.compile("".join(parts) + re.escape(self.text[end:]))

    @cached_property
    def _fields(self) -> list[tuple[str, int]]:
        """Name and offset of each field, in order; a field may stand more than once."""
        return [(match["name"], int(match["offset"] or 0)) for match in _FIELD.finditer(self.text)]

    def match(self, name: str) -> Fields | None:
        """The fields of ``name``, counted from zero, or None if it is spelled otherwise."""
        match = self._regex.fullmatch(name)
        if match is None:
            return None
        fields: Fields = {}
        for (key, offset), text in zip(self._fields, match.groups(), strict=True):
            value = int(text) - offset if text.isdecimal() else text
            if fields.setdefault(key, value) != value or (isinstance(value, int) and value < 0):
                return None
        return fields

    def render(self, fields: Mapping[str, str | int]) -> str:
        """The name with these fields."""

        def value(match: re.Match[str]) -> str:
            zero_based = fields[match["name"]]
            if isinstance(zero_based, str):
                return zero_based
            return str(zero_based + int(match["offset"] or 0))

        return _FIELD.sub(value, self.text)


@dataclass(frozen=True)
class Keymap:
    """One framework's table.

    Attributes:
        framework: Its name, as the command line has it.
        rows: Role to pattern.
    """

    framework: str
    rows: Mapping[str, str]

    @cached_property
    def patterns(self) -> dict[str, Pattern]:
        """Role to compiled pattern."""
        return {role: Pattern(text) for role, text in self.rows.items()}

    def parse(self, name: str) -> tuple[str, Fields] | None:
        """Role and fields of a parameter name, or None if this framework has no such parameter."""
        for role, pattern in self.patterns.items():
            fields = pattern.match(name)
            if fields is not None:
                return role, fields
        return None

    def spell(self, role: str, fields: Mapping[str, str | int]) -> str:
        """The name of a parameter in this framework.

        Raises:
            KeyError: If the framework has no such role.
        """
        return self.patterns[role].render(fields)


def keymap(
    framework: str,
    block: str,
    *,
    classifier: str,
    attention: tuple[str, str] | tuple[()] = (),
    **layers: tuple[str, str],
) -> Keymap:
    """The table of a framework that names tensors as torch's layers do.

    Args:
        framework: Its name, as the command line has it.
        block: A block's name, before those of its layers.
        classifier: The linear layer.
        attention: The two layers of squeeze-and-excitation; empty if the framework has none.
        layers: Convolution and batch norm of each: ``stem``, and of a block ``shortcut``,
            ``reduce``, ``grouped`` and ``expand``.
    """
    rows: dict[str, str] = {}
    for layer, (conv, norm) in layers.items():
        place = "" if layer == "stem" else f"{block}."
        rows[f"{layer}.conv"] = f"{place}{conv}.weight"
        rows[f"{layer}.norm"] = f"{place}{norm}.{{norm}}"
    for role, name in zip(("squeeze", "excite"), attention, strict=False):
        rows[role] = f"{block}.{name}.{{affine}}"
    return Keymap(framework, rows | {"classifier": f"{classifier}.{{affine}}"})


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
"""The reference's own names, against which every other table is read.

Source: transformers ``models/regnet/modeling_regnet.py``. Names stand without the ``regnet.``
prefix that everything but the classifier has in `RegNetForImageClassification`.
"""
