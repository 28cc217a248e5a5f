"""What got worse since an earlier report.

On one machine with the same versions an honest artefact gives the same bits, so every change means
something. On another, ratios move within the band of docs/parity.md: there the worst ratios of all
right artefacts lie between the unit and twice it. So a ratio counts as worse only when it has grown
by the factor over the baseline *and* over the unit; 0.1 that became 0.3 is luck that ran out.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from converters.errors import InputError
from converters.reports.findings import SCHEMA
from regnet.files.reading import read_json

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from converters.parity.report import Report

FACTOR = 2.0
"""By which a ratio may grow: above what right artefacts do, half of what a verdict allows."""

_RATIOS = {"rms_ratio": "RMS", "max_ratio": "largest"}
_CLASSES = {"top1": "best class", "top5": "five best classes"}


@dataclass(frozen=True, slots=True)
class Standing:
    """What a report says of one artefact, as far as it can get worse.

    Attributes:
        passed: The verdict.
        was_run: Whether anything ran it.
        precision: What it computed in.
        ratios: ``rms_ratio`` and ``max_ratio``, the largest of all batches; infinite if one that
            belongs there could not be measured.
        proven: ``top1`` and ``top5`` to the images proven, of how many; without those that do not
            apply.
        tensors: How many are ``identical`` to the weights and ``recomputed``, and whether the graph
            was compared with anything; None without a certificate.
    """

    passed: bool
    was_run: bool
    precision: str
    ratios: Mapping[str, float]
    proven: Mapping[str, tuple[int, int]]
    tensors: Mapping[str, int] | None

    @classmethod
    def of(cls, record: Mapping[str, Any]) -> Standing:
        """Read a verdict of a report's JSON.

        Raises:
            KeyError: If something is missing.
            TypeError: If something is of another kind.
        """
        measured = record["measurements"]
        proof = record.get("tensors")
        return cls(
            passed=_typed(record["passed"], bool),
            was_run=bool(measured),
            precision=_typed(record["precision"], str),
            ratios={
                name: max((_ratio(m, name) for m in measured), default=0.0) for name in _RATIOS
            },
            proven={name: counts for name in _CLASSES if (counts := _proven(measured, name))},
            tensors=None if proof is None else _tensors(proof),
        )


def read_baseline(path: Path) -> dict[str, Standing]:
    """Read what an earlier ``regnet verify --json`` printed.

    Returns:
        File name of each artefact to what the report says of it.

    Raises:
        InputError: If the file cannot be read or is no such report.
    """
    try:
        record = read_json(path)
        if record["schema"] != SCHEMA:
            raise InputError(
                f"The baseline {path} is of another schema than {SCHEMA}; write it again with "
                "`regnet verify --json`."
            )
        return _standings(record)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        reason = getattr(error, "strerror", None) or "it is no report"
        raise InputError(
            f"The baseline {path} cannot be used ({reason.lower()}); give what "
            "`regnet verify --json` printed."
        ) from error


def regressions(
    report: Report, baseline: Mapping[str, Standing], factor: float = FACTOR
) -> tuple[str, ...]:
    """Compare a report with an earlier one.

    Args:
        report: The present one.
        baseline: From :func:`read_baseline`. Artefacts that it lacks are new and no regression.
        factor: By which a ratio may grow, at least 1.

    Returns:
        One clause for each thing that got worse.
    """
    present = _standings(report.to_dict())
    return tuple(
        f"{artefact} {clause}"
        for artefact, before in baseline.items()
        for clause in _worse(before, present.get(artefact), factor)
    )


def _worse(before: Standing, now: Standing | None, factor: float) -> Iterator[str]:
    if now is None:
        yield "of the baseline is gone"
        return
    if before.passed and not now.passed:
        yield "passed in the baseline and fails now"
    if before.was_run and not now.was_run:
        yield "was run in the baseline and is not now"
        return
    if before.precision != now.precision:
        yield f"computes in {now.precision} where it computed in {before.precision}"
    yield from _worse_ratios(before, now, factor)
    yield from _worse_classes(before, now)
    yield from _worse_tensors(before, now)


def _worse_ratios(before: Standing, now: Standing, factor: float) -> Iterator[str]:
    for name, words in _RATIOS.items():
        then, ratio = before.ratios[name], now.ratios[name]
        if ratio > factor * max(then, 1.0):
            yield f"has the {words} ratio {ratio:.3g} where it had {then:.3g}"


def _worse_classes(before: Standing, now: Standing) -> Iterator[str]:
    """Of as many images fewer, or of others a smaller part."""
    for name, words in _CLASSES.items():
        then, of_then = before.proven.get(name, (0, 1))
        proven, images = now.proven.get(name, (0, 1))
        if proven * of_then < then * images:
            yield f"proves the {words} for {proven}/{images} images where it was {then}/{of_then}"


def _worse_tensors(before: Standing, now: Standing) -> Iterator[str]:
    then, held = before.tensors, now.tensors
    if then is None:
        return
    if held is None:
        yield "has no proof of its tensors any more"
        return
    if then["graph_compared"] and not held["graph_compared"]:
        yield "has a graph that is compared with nothing any more"
    identical, recomputed = held["identical"], held["recomputed"]
    if identical < then["identical"]:
        yield f"has {identical} tensors identical to the weights where it had {then['identical']}"
    if recomputed > then["recomputed"]:
        yield f"has {recomputed} recomputed tensors where it had {then['recomputed']}"


def _standings(record: Mapping[str, Any]) -> dict[str, Standing]:
    return {
        _typed(verdict["artefact"], str): Standing.of(verdict) for verdict in record["verdicts"]
    }


def _ratio(measurement: Mapping[str, Any], name: str) -> float:
    """Infinite where a failure kept it from being measured, or JSON from being written."""
    ratio = measurement[name]
    if ratio is None:
        return math.inf if measurement["failure"] else 0.0
    return float(_typed(ratio, (int, float)))


def _proven(measurements: list[Mapping[str, Any]], name: str) -> tuple[int, int] | None:
    counts = [m[name] for m in measurements if m[name] is not None]
    if not counts:
        return None
    proven, images = (sum(_typed(c[key], int) for c in counts) for key in ("proven", "images"))
    return proven, images


def _tensors(proof: Mapping[str, Any]) -> dict[str, int]:
    counts = {name: _typed(proof[name], int) for name in ("identical", "recomputed")}
    return {**counts, "graph_compared": bool(proof.get("graph_compared"))}


def _typed(value: Any, kind: type | tuple[type, ...]) -> Any:
    if not isinstance(value, kind):
        raise TypeError
    return value
