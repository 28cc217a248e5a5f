"""21 to 25: safetensors headers that lie, and names that are no names."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from tests.converters.checkpoint.test_safetensors_refusals import (
    HOLE,
    OVERLAP,
    entry,
    safetensors_of,
)

if TYPE_CHECKING:
    from tests.hostile.victim import Victim


def test_21_a_header_of_ten_gigabytes(victim: Victim) -> None:
    victim.put((10 << 30).to_bytes(8, "little") + b"{" + bytes(100))
    victim.refused(2)


def test_22_a_key_that_occurs_twice(victim: Victim) -> None:
    one = b'"t":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}'
    victim.put(safetensors_of(b"{" + one + b"," + one + b"}"))
    victim.refused(3)


def test_23_overlaps_holes_and_bytes_behind_the_end(victim: Victim) -> None:
    for header, behind in ((OVERLAP, b""), (HOLE, b""), (entry(), b"PK")):
        victim.put(safetensors_of(header) + behind)
        victim.refused(2)


def test_24_shapes_that_cannot_be(victim: Victim) -> None:
    for shape in ([2**63, 2**63], [2**31, 2**31, 2**31], [-2], [2.0], [True, 2]):
        victim.put(safetensors_of(entry(shape=shape)))
        victim.refused(2)


def test_25_names_with_control_characters_paths_and_without_end(
    victim: Victim, state: dict[str, torch.Tensor]
) -> None:
    for name in ("\x1b[2J\nall is well", "../../etc/passwd", "a\0b", "long" * 250_000):
        torch.save(state | {name: torch.ones(1)}, "model.pyth")
        assert len(victim.refused(2)) < 500
