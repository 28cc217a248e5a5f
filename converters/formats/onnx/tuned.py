"""ONNX whose groups of channels lie in the blocks that ONNX Runtime computes in: the same, faster.

:mod:`converters.formats.blocks` says what is the same, :mod:`converters.formats.onnx.tuning` how
they should lie.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from converters.checkpoint.onnx_places import open_onnx
from converters.formats.onnx.export import self_contained, write_alone
from converters.formats.onnx.int8 import details as int8_details
from converters.formats.onnx.int8 import export_int8
from converters.formats.onnx.quantised import details_in_words as int8_in_words
from converters.formats.onnx.runtime import NAME
from converters.formats.onnx.tuning import Choice, Int8Choice
from regnet.files.reading import parse_json
from regnet.files.system import processor_name

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from converters.folder.folder import ConvertedFolder
    from converters.formats.blocks import Stages
    from converters.formats.format import ExportOptions

TUNING_KEY = "tuning"
"""Metadata key of tuned files: JSON, the fields of :class:`Tuning`."""


@dataclass(frozen=True, slots=True)
class Tuning:
    """How a network was tuned, as the file states.

    Attributes:
        runtime: For which; with its version where it was timed.
        groups: For each stage the channels in a group: the network's, and the file's.
        block: Whole multiples of which they should be; None where timing decided.
        processor: On which it was timed; None where it was not.
        speedup: How many times as fast as the untuned file there, on one thread; None likewise.
        batch: Number of images in this timing.
    """

    runtime: str
    groups: tuple[tuple[int, int], ...]
    block: int | None = None
    processor: str | None = None
    speedup: float | None = None
    batch: int | None = None

    @classmethod
    def of(cls, fields: Mapping[str, Any]) -> Tuning:
        """Read it from values of JSON.

        Raises:
            TypeError: If they are none of these fields.
        """
        groups = tuple((own, laid) for own, laid in fields["groups"])
        return cls(**{**fields, "groups": groups})

    @property
    def text(self) -> str:
        """As files state it: JSON."""
        return json.dumps(asdict(self))

    @property
    def changes(self) -> bool:
        """Whether any group lies otherwise than in the network."""
        return any(own != laid for own, laid in self.groups)

    def in_words(self) -> str:
        """For people, on a line of its own."""
        found: dict[tuple[int, int], list[str]] = {}
        for stage, pair in enumerate(self.groups):
            found.setdefault(pair, []).append(str(stage))
        changed = [
            f"those of {own} lie in {laid} in stage {', '.join(stages)}"
            for (own, laid), stages in found.items()
            if own != laid
        ]
        how = f"of the groups of channels {'; '.join(changed)}" if changed else "it stays as it was"
        if self.speedup is None:
            return f"\nTuned for {self.runtime} in blocks of {self.block}, not timed; {how}."
        return (
            f"\nTuned for {self.runtime} on {self.processor}: {self.speedup:.2f} times as fast as "
            f"untuned, batch of {self.batch}, one thread; {how}."
        )


def export_tuned(folder: ConvertedFolder, path: Path, options: ExportOptions) -> None:
    """Write the folder's network as ONNX in blocks, as timing or ``block`` decides.

    Input and outputs are those of every ONNX file in float32, and so are the sizes that may be
    fixed. With ``block`` two exports give the same bytes. Stages whose norms see several channels
    at once stay as they are.

    Raises:
        InputError: Also if no runtime has such blocks.
    """
    stages, tuning = _tuned(Choice(folder, options.form), path, options.block)
    form = replace(options.form, stages=stages)
    file = self_contained(folder, form, {TUNING_KEY: tuning.text})
    write_alone(file, path, external_data=options.external_data)


def export_tuned_int8(folder: ConvertedFolder, path: Path, options: ExportOptions) -> None:
    """Write the folder's network as ONNX in int8, with groups merged where that is faster.

    See :func:`export_tuned` and :func:`converters.formats.onnx.int8.export_int8`.
    """
    stages, tuning = _tuned(Int8Choice(folder, options.form), path, options.block)
    form = replace(options.form, stages=stages)
    export_int8(folder, path, replace(options, form=form), {TUNING_KEY: tuning.text})


def _tuned(choice: Choice, path: Path, block: int | None) -> tuple[Stages, Tuning]:
    if block is not None:
        stages = choice.reckoned(block)
        return stages, Tuning(NAME.partition(" ")[0], choice.groups(stages), block)
    stages, speedup = choice.timed(path.parent)
    groups, processor = choice.groups(stages), processor_name()
    return stages, Tuning(NAME, groups, None, processor, speedup, choice.batch)


def stated_tuning(path: Path) -> Tuning:
    """Read from a file how it was tuned.

    Raises:
        ValueError: If it says nothing of it.
    """
    stated = {entry.key: entry.value for entry in open_onnx(path).metadata_props}
    try:
        return Tuning.of(parse_json(stated[TUNING_KEY]))
    except (KeyError, TypeError) as error:
        raise ValueError(f"it does not state how it was tuned ({error})") from error


def details(path: Path) -> dict[str, Any]:
    """What is recorded of a tuned file beside its digest: what it states, as values for JSON."""
    return {TUNING_KEY: parse_json(stated_tuning(path).text)}


def details_in_words(details: Mapping[str, Any]) -> str:
    """What is recorded of a tuned file, for people, on a line of its own."""
    return Tuning.of(details[TUNING_KEY]).in_words()


def details_of_int8(path: Path) -> dict[str, Any]:
    """The same of one in int8, with how it was quantised."""
    return int8_details(path) | details(path)


def details_of_int8_in_words(details: Mapping[str, Any]) -> str:
    """The same for people, two lines."""
    return int8_in_words(details) + details_in_words(details)
