"""One verdict in words: what every table of verdicts, for people or programs, lays out."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

from converters.errors import escaped

if TYPE_CHECKING:
    from converters.parity.metrics import TopK
    from converters.parity.verdict import Verdict

COLUMNS = (
    *("file", "runtime", "verdict", "RMS ratio", "largest ratio"),
    *("classes kept", "classes proven", "tensors", "decided by"),
)
"""What the fields of a row are called."""


class Row(NamedTuple):
    """A verdict under :data:`COLUMNS`, each cell one line; ``-`` where there is nothing.

    Attributes:
        artefact: File name.
        runtime: What ran it and in which precision.
        outcome: ``pass``, ``FAIL`` or ``not run``.
        rms_ratio: The largest of all batches and outputs, likewise ``max_ratio``.
        kept: To how many images it gives the oracle's classes: ``top-1 4/4, top-5 3/4``.
        proven: Of how many no error of the measured size could have changed them.
        tensors: Its certificate in a few words, and what of the artefact was not compared.
        reason: The number that decided.
    """

    artefact: str
    runtime: str
    outcome: str
    rms_ratio: str
    max_ratio: str
    kept: str
    proven: str
    tensors: str
    reason: str

    @classmethod
    def of(cls, verdict: Verdict) -> Row:
        """Put a verdict into words."""
        row = (
            verdict.artefact,
            verdict.ran,
            verdict.outcome,
            number(verdict.worst("rms_ratio")),
            number(verdict.worst("max_ratio")),
            _classes(verdict, "agree"),
            _classes(verdict, "proven"),
            _tensors(verdict),
            verdict.reason,
        )
        return cls(*map(escaped, row))


def number(value: float | None) -> str:
    """Three digits; ``-`` for what could not be measured."""
    return "-" if value is None or not math.isfinite(value) else f"{value:.3g}"


def decided_by(verdict: Verdict) -> str:
    """The number that decided, and what spoke for nothing: for a table that shows no tensors."""
    left_out = _left_out(verdict)
    return f"{verdict.reason}; {left_out}" if left_out else verdict.reason


def best_class(verdict: Verdict, what: str) -> str:
    """How many images keep their best class (``agree``) or have it ``proven``, such as ``4/4``."""
    found = [m.top1 for m in verdict.measurements if m.top1]
    return _sum(found, what) if found else "-"


def _classes(verdict: Verdict, what: str) -> str:
    counts = [
        [found for m in verdict.measurements if (found := getattr(m, name))]
        for name in ("top1", "top5")
    ]
    return ", ".join(f"top-{kind[0].k} {_sum(kind, what)}" for kind in counts if kind) or "-"


def _sum(counts: list[TopK], what: str) -> str:
    return f"{sum(getattr(top, what) for top in counts)}/{sum(top.images for top in counts)}"


def _tensors(verdict: Verdict) -> str:
    proof = verdict.tensors
    if proof is None:
        return _left_out(verdict) or "-"
    within = f" within {proof.ulps} ulp" if proof.ulps else ""
    parts = [
        f"{proof.identical} identical" if proof.identical else "",
        f"{proof.recomputed} recomputed{within}" if proof.recomputed else "",
        f"{len(proof.wrong)} wrong" if proof.wrong else "",
    ]
    return ", ".join(filter(None, [", ".join(filter(None, parts)) or "none", _left_out(verdict)]))


def _left_out(verdict: Verdict) -> str:
    return f"{verdict.not_compared} not compared" if verdict.not_compared else ""
