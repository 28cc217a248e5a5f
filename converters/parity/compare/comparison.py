"""`regnet compare`: whether two networks are the same, whatever each is stored as.

Four questions, in the order of their weight: do both hold the same tensors, do both compute the
same, is each artefact in a folder the network of that folder, do both say the same of themselves.
The first three decide; see docs/compare.md.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from converters.errors import ConversionError
from converters.parity.compare.artefacts import FolderArtefact, judge_artefacts, not_compared
from converters.parity.compare.fields import FieldDifference, compare_fields
from converters.parity.compare.outputs import (
    Distance,
    Judged,
    judge_outputs,
    obstacle,
    shared_inputs,
)
from converters.parity.compare.weights import Weights, compare_weights
from converters.progress import SILENT

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from converters.parity.compare.sides import Side
    from converters.parity.verdict import Verdict
    from converters.progress import Progress

SCHEMA = 1
"""Of what `regnet compare --json` prints; it grows when a key changes its meaning."""


class DifferentError(ConversionError):
    """The two sides are not the same network."""

    exit_status = 1


@dataclass(frozen=True)
class Comparison:
    """What was found out about two sides.

    Attributes:
        a: The first.
        b: The second.
        weights: How their tensors compare.
        fields: What they state differently; None if there is nothing that both state.
        verdict: On the outputs of one side, by an oracle; None if no image fits both.
        oracle: What that is, or why there is none.
        distances: Between the outputs, in plain numbers.
        artefacts: Of converted folders, each judged by the weights beside it.
        not_compared: What was compared with nothing, one clause each.
    """

    a: Side
    b: Side
    weights: Weights
    fields: tuple[FieldDifference, ...] | None
    verdict: Verdict | None
    oracle: str
    distances: tuple[Distance, ...]
    artefacts: tuple[FolderArtefact, ...] = ()
    not_compared: tuple[str, ...] = ()

    @property
    def differences(self) -> tuple[str, ...]:
        """One clause for each reason why the sides are not the same network."""
        found = []
        weights = self.weights
        if weights.decides and weights.differences:
            more = len(weights.differences) - 1
            found.append(weights.differences[0] + (f" (and {more} tensors more)" if more else ""))
        if self.verdict is None:
            found.append(self.oracle)
        elif self.verdict.failure:
            found.append(f"{self.verdict.artefact}, {self.verdict.failure}")
        found.extend(filter(None, (artefact.difference for artefact in self.artefacts)))
        return tuple(found)

    @property
    def same(self) -> bool:
        """Whether all that was compared is one network within the rule of docs/parity.md."""
        return not self.differences

    def require_same(self) -> None:
        """Do nothing if both sides are the same network.

        Raises:
            DifferentError: If they are not.
        """
        if not self.same:
            reasons = "; ".join(self.differences)
            raise DifferentError(f"A ({self.a.name}) and B ({self.b.name}) differ: {reasons}.")

    def to_dict(self) -> dict[str, Any]:
        """What ``--json`` prints: plain values, numbers that are not finite being None."""
        record = {
            "schema": SCHEMA,
            "a": _side_record(self.a),
            "b": _side_record(self.b),
            "same": self.same,
            "differences": self.differences,
            "weights": asdict(self.weights),
            "oracle": self.oracle,
            "verdict": self.verdict.to_dict() if self.verdict else None,
            "artefacts": [artefact.to_dict() for artefact in self.artefacts],
            "not_compared": self.not_compared,
            "distances": [asdict(distance) for distance in self.distances],
            "fields": None if self.fields is None else [asdict(field) for field in self.fields],
        }
        plain: dict[str, Any] = json.loads(json.dumps(record), parse_constant=lambda _: None)
        return plain


def compare(
    a: Side,
    b: Side,
    images: Sequence[Path] = (),
    progress: Progress = SILENT,
) -> Comparison:
    """Compare two opened sides.

    Args:
        a: From :func:`converters.parity.compare.sides.opened`.
        b: Likewise.
        images: Photographs to run beside the verification inputs.
        progress: Who wants to know how far it is.

    Raises:
        InputError: If a side or a photograph cannot be used.
    """
    progress.step("comparing tensors")
    weights, fields = compare_weights(a, b), compare_fields(a, b)
    if mismatch := obstacle(a, b):
        inputs, judged = None, Judged(mismatch)
    else:
        progress.step("running both sides")
        inputs = shared_inputs(a, b, images)
        judged = judge_outputs(a, b, inputs)
    sides = {"A": a, "B": b}
    artefacts = judge_artefacts(sides, inputs, progress)
    rest = not_compared(sides, artefacts)
    return Comparison(
        a, b, weights, fields, judged.verdict, judged.oracle, judged.distances, artefacts, rest
    )


def _side_record(side: Side) -> dict[str, Any]:
    runtime = side.runtime
    return {
        "name": side.name,
        "kind": side.kind,
        "framework": side.framework,
        "runtime": runtime.name,
        "precision": runtime.precision,
    }
