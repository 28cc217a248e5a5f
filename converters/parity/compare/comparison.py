"""`regnet compare`: whether two networks are the same, whatever each is stored as.

Four questions, in the order of their weight: do both hold the same tensors, do both compute the
same, is each artefact in a folder the network of that folder, do both say the same of themselves.
The first three decide; see docs/compare.md.

A folder is more than its weights. Whoever runs ``model.onnx`` of B runs another network if that
file is broken, so each artefact of a converted folder is judged by the weights beside it, as
`regnet verify` does. What nothing looks at is listed.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from converters.errors import ConversionError, first
from converters.formats.reference import torch_name
from converters.formats.registry import FORMATS, artefacts_in
from converters.parity.compare.fields import FieldDifference, compare_fields
from converters.parity.compare.outputs import Distance, judge_outputs, obstacle, shared_inputs
from converters.parity.compare.sides import ArtefactSide, WeightsSide
from converters.parity.compare.weights import Weights, compare_weights
from converters.parity.truth import Truth
from converters.parity.verify import fresh_inputs, verify_artefacts
from converters.progress import SILENT

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from converters.parity.compare.sides import Side
    from converters.parity.metrics import Inputs
    from converters.parity.verdict import Verdict
    from converters.progress import Progress

SCHEMA = 1
"""Of what `regnet compare --json` prints; it grows when a key changes its meaning."""


_CHECKPOINTS = (".bin", ".json", ".pth", ".pyth", ".safetensors", ".torch")
"""Endings of what the reader of a checkpoint's folder looks at."""

_SHOWN = 8


class DifferentError(ConversionError):
    """The two sides are not the same network."""

    exit_status = 1


@dataclass(frozen=True, slots=True)
class FolderArtefact:
    """An artefact of a folder, judged by the folder's weights.

    Attributes:
        side: ``A`` or ``B``.
        verdict: On it.
    """

    side: str
    verdict: Verdict

    @property
    def difference(self) -> str | None:
        """A clause where it is not the network of its folder, or None."""
        if not self.verdict.wrong:
            return None
        name = f"{self.side}'s {self.verdict.artefact}"
        return f"{name} is not the network of its folder: {self.verdict.wrong}"

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {"side": self.side, **self.verdict.to_dict()}


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
    inputs: Inputs | None = None
    verdict: Verdict | None = None
    distances: tuple[Distance, ...] = ()
    oracle = obstacle(a, b)
    if oracle is None:
        progress.step("running both sides")
        inputs = shared_inputs(a, b, images)
        oracle, verdict, distances = judge_outputs(a, b, inputs)
    sides = {"A": a, "B": b}
    artefacts = tuple(_artefacts(sides, inputs, progress))
    rest = tuple(_not_compared(sides, artefacts))
    return Comparison(a, b, weights, fields, verdict, oracle, distances, artefacts, rest)


def _artefacts(
    sides: Mapping[str, Side], inputs: Inputs | None, progress: Progress
) -> Iterator[FolderArtefact]:
    """Judge every artefact that lies in a converted folder, on the inputs of both sides if any."""
    for letter, side in sides.items():
        if not isinstance(side, WeightsSide) or side.kind != "folder":
            continue
        if present := artefacts_in(side.path):
            progress.step(f"running the artefacts of {letter}")
            truth = Truth(side.folder, fresh_inputs(side.folder) if inputs is None else inputs)
            report = verify_artefacts(side.folder, truth, present, progress, found=True)
            yield from (FolderArtefact(letter, verdict) for verdict in report.verdicts[1:])


def _not_compared(sides: Mapping[str, Side], artefacts: Sequence[FolderArtefact]) -> Iterator[str]:
    """What of either side was compared with nothing, one clause each."""
    for letter, side in sides.items():
        if side.path.is_dir() and (names := _rest(side)):
            yield f"{letter}'s {first(names, most=_SHOWN)}"
    for artefact in artefacts:
        verdict, name = artefact.verdict, f"{artefact.side}'s {artefact.verdict.artefact}"
        if verdict.not_run:
            yield f"{name} was not run: {verdict.not_run}"
        elif verdict.not_compared:
            why = f" ({verdict.graph})" if verdict.graph else ""
            yield f"{verdict.not_compared} of {name}{why}"


def _rest(side: Side) -> list[str]:
    """Names of a folder's files that were not looked at."""
    files = (path for path in side.path.rglob("*") if path.is_file())
    names = sorted(path.relative_to(side.path).as_posix() for path in files)
    shown = [name for name in names if not name.startswith(".")]
    if not isinstance(side, WeightsSide) or side.kind != "folder":
        return [name for name in shown if not name.endswith(_CHECKPOINTS)]
    artefacts = (FORMATS[name].files for name in artefacts_in(side.path))
    seen = set(side.folder.network_files).union(*artefacts)
    return [name for name in shown if name not in seen]


def _side_record(side: Side) -> dict[str, Any]:
    is_artefact = isinstance(side, ArtefactSide)
    return {
        "name": side.name,
        "kind": side.kind,
        "framework": side.framework,
        "runtime": side.runtime.name if is_artefact else torch_name(),
        "precision": side.runtime.precision if is_artefact else "float32",
    }
