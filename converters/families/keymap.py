"""A keymap: how one framework spells the parameters of a RegNet.

A keymap is data, which :func:`keymap` takes layer by layer. Each *role* (the weight of the stem's
convolution, say) has one row, a pattern with named fields; two frameworks are connected by their
rows for the same role, so any keymap reads into any other, in both directions.

Fields in braces stand for what varies: ``{stage}`` and ``{block}`` count from zero, ``{stage+1}``
from one; ``{norm}`` is a tensor of a batch norm; ``{affine}`` is ``weight`` or ``bias``; ``{last}``
is the position of a block's last layer in the reference: 3 behind squeeze-and-excitation, else 2;
``{index}`` counts the convolutions of a stem that has several.
Fields have the reference's values, whatever a framework calls a layer's tensors (:class:`Leaves`).
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

from regnet.architecture import BATCH_NORM_LEAVES, COUNTER

if TYPE_CHECKING:
    from collections.abc import Mapping

Fields = dict[str, str | int]

_FIELD = re.compile(r"\{(?P<name>[a-z]+)(?:\+(?P<offset>\d+))?\}")
_VALUES = {
    "stage": "0|[1-9][0-9]{0,5}",  # not \d, which takes every script's digits
    "block": "0|[1-9][0-9]{0,5}",
    "index": "0|[1-9][0-9]{0,5}",
    "last": "2|3",
}


@dataclass(frozen=True, kw_only=True)
class Leaves:
    """What a framework calls the tensors of a layer, torch's names by default.

    Attributes:
        conv: The weight of a convolution.
        norm: Of a batch norm: the reference's name to the framework's, without those it lacks.
        affine: Of a layer with a weight and a bias, likewise.
    """

    conv: str = "weight"
    norm: Mapping[str, str] = field(default_factory=lambda: {n: n for n in BATCH_NORM_LEAVES})
    affine: Mapping[str, str] = field(default_factory=lambda: {n: n for n in ("weight", "bias")})

    @property
    def count_batches(self) -> bool:
        """Whether its batch norms hold how many batches they have seen."""
        return COUNTER in self.norm

    def spelled(self, key: str) -> Mapping[str, str]:
        """The values of a field, the reference's to the framework's; empty if they are the same."""
        return {"norm": self.norm, "affine": self.affine}.get(key, {})


TORCH = Leaves()
"""The leaves of torch's layers."""

KERAS = Leaves(
    conv="kernel",
    norm={
        "weight": "gamma",
        "bias": "beta",
        "running_mean": "moving_mean",
        "running_var": "moving_variance",
    },
    affine={"weight": "kernel", "bias": "bias"},
)
"""Those of Keras' layers; MindSpore's norms have the same."""


@dataclass(frozen=True)
class Pattern:
    """One spelling with fields, matched whole and rendered back.

    Attributes:
        text: What a name looks like.
        leaves: What stands in it for a layer's tensors.
    """

    text: str
    leaves: Leaves = TORCH

    @cached_property
    def _regex(self) -> re.Pattern[str]:
        parts = []
        end = 0
        for match in _FIELD.finditer(self.text):
            key = match["name"]
            values = _VALUES.get(key) or "|".join(map(re.escape, self.leaves.spelled(key).values()))
            parts += [re.escape(self.text[end : match.start()]), f"({values})"]
            end = match.end()
        return re.compile("".join(parts) + re.escape(self.text[end:]))

    @cached_property
    def _fields(self) -> list[tuple[str, int]]:
        """Name and offset of each field, in order; a field may stand more than once."""
        return [(match["name"], int(match["offset"] or 0)) for match in _FIELD.finditer(self.text)]

    @cached_property
    def _ours(self) -> dict[tuple[str, str], str]:
        """The reference's value of a field, by its name and the framework's value."""
        return {
            (key, theirs): ours
            for key, _ in self._fields
            for ours, theirs in self.leaves.spelled(key).items()
        }

    def match(self, name: str) -> Fields | None:
        """The fields of ``name``, as the reference has them; None if it is spelled otherwise."""
        match = self._regex.fullmatch(name)
        if match is None:
            return None
        fields: Fields = {}
        for (key, offset), text in zip(self._fields, match.groups(), strict=True):
            known = self._ours.get((key, text), text)
            value = int(known) - offset if known.isdecimal() else known
            if fields.setdefault(key, value) != value or (isinstance(value, int) and value < 0):
                return None
        return fields

    def render(self, fields: Mapping[str, str | int]) -> str:
        """The name with these fields; a tensor that the framework lacks keeps torch's leaf."""

        def value(match: re.Match[str]) -> str:
            ours = fields[match["name"]]
            if isinstance(ours, str):
                return self.leaves.spelled(match["name"]).get(ours, ours)
            return str(ours + int(match["offset"] or 0))

        return _FIELD.sub(value, self.text)


@dataclass(frozen=True)
class Keymap:
    """One framework's table.

    Attributes:
        framework: Its name, as the command line has it.
        rows: Role to pattern.
        leaves: What it calls the tensors of a layer.
    """

    framework: str
    rows: Mapping[str, str]
    leaves: Leaves = TORCH

    @cached_property
    def patterns(self) -> dict[str, Pattern]:
        """Role to compiled pattern."""
        return {role: Pattern(text, self.leaves) for role, text in self.rows.items()}

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
    leaves: Leaves = TORCH,
    **layers: tuple[str, str],
) -> Keymap:
    """The table of a framework, layer by layer.

    Args:
        framework: Its name, as the command line has it.
        block: A block's name, before those of its layers; a dot stands between, unless this ends
            in an underscore.
        classifier: The linear layer.
        attention: The two layers of squeeze-and-excitation; empty if the framework has none.
        leaves: What it calls the tensors of a layer.
        layers: Convolution and norm of each, empty where it has none: ``stem``, or ``stems`` of
            several; of a block ``shortcut``, ``reduce``, ``grouped`` and ``expand``, and ``preact``
            for a norm in front of all these; ``head`` behind the last stage.
    """
    rows: dict[str, str] = {}
    within = block if block.endswith("_") else f"{block}."
    for layer, (conv, norm) in layers.items():
        place = "" if layer in {"stem", "stems", "head"} else within
        if conv:
            rows[f"{layer}.conv"] = f"{place}{conv}.{leaves.conv}"
        if norm:
            rows[f"{layer}.norm"] = f"{place}{norm}.{{norm}}"
    for role, name in zip(("squeeze", "excite"), attention, strict=False):
        rows[role] = f"{within}{name}.{{affine}}"
    return Keymap(framework, rows | {"classifier": f"{classifier}.{{affine}}"}, leaves)


def of_transformers(framework: str, leaves: Leaves = TORCH) -> Keymap:
    """The table of transformers, which calls layers alike whatever they are written in."""
    return keymap(
        framework,
        "encoder.stages.{stage}.layers.{block}",
        stem=("embedder.embedder.convolution", "embedder.embedder.normalization"),
        shortcut=("shortcut.convolution", "shortcut.normalization"),
        reduce=("layer.0.convolution", "layer.0.normalization"),
        grouped=("layer.1.convolution", "layer.1.normalization"),
        expand=("layer.{last}.convolution", "layer.{last}.normalization"),
        preact=("", "normalization"),
        head=("head.convolution", "head.normalization"),
        stems=("embedder.embedder.{index}.convolution", "embedder.embedder.{index}.normalization"),
        attention=("layer.2.attention.0", "layer.2.attention.2"),
        classifier="classifier.1",
        leaves=leaves,
    )


REFERENCE = of_transformers("transformers")
"""The reference's own names, against which every other table is read.

Source: transformers ``models/regnet/modeling_regnet.py``. Names stand without the ``regnet.``
prefix that everything but the classifier has in `RegNetForImageClassification`.
"""
