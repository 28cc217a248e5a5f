"""What a verification found in a folder, before it is given a form.

Every form is a pure function of `Findings`: the same findings give the same bytes, and nothing in
them depends on time, place or machine.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

    from converters.parity.report import Report
    from converters.parity.verdict import Verdict
    from converters.signing import Signature

SCHEMA = 1
"""Of what `regnet verify --json` prints; it grows when a key changes its meaning."""

COLUMNS = (
    *("file", "runtime", "verdict", "RMS ratio", "largest ratio"),
    *("classes kept", "classes proven", "tensors", "decided by"),
)
"""What every table of verdicts shows."""


@dataclass(frozen=True)
class Findings:
    """A report, and what belongs beside it.

    Attributes:
        folder: Name of the folder, without the path to it.
        report: The verdicts.
        regressions: What got worse since the baseline, one clause each; None without a baseline.
        locations: Plots of error by depth, each one ``<svg>`` element.
        signature: What the folder's signature is worth; None if no key was given.
    """

    folder: str
    report: Report
    regressions: tuple[str, ...] | None = None
    locations: Sequence[str] = ()
    signature: Signature | None = None

    @property
    def passed(self) -> bool:
        """Whether every verdict is pass, nothing got worse, and signature and files hold."""
        return self.report.passed and not self.regressions and not self.unsigned

    @property
    def failures(self) -> tuple[str, ...]:
        """One clause for each thing that is wrong."""
        return (*self.unsigned, *self.report.failures, *(self.regressions or ()))

    @property
    def unsigned(self) -> tuple[str, ...]:
        """What is wrong with the signature, one clause each."""
        return () if self.signature is None else self.signature.problems

    @property
    def headline(self) -> str:
        """The outcome in a line, for example ``FAIL: 1 of 4 verdicts, 1 file changed``."""
        verdicts, changed = self.report.verdicts, len(self.report.changed_files)
        failed = sum(not verdict.passed for verdict in verdicts)
        if self.passed:
            signed = "" if self.signature is None else ", signed"
            return f"pass: {len(verdicts)} of {len(verdicts)} verdicts{signed}"
        counts = [
            "the signature" if self.unsigned else "",
            f"{failed} of {len(verdicts)} verdicts" if failed else "",
            f"{changed} {'file' if changed == 1 else 'files'} changed" if changed else "",
            f"worse than the baseline in {len(self.regressions)}" if self.regressions else "",
        ]
        return f"FAIL: {', '.join(filter(None, counts))}"

    def require_pass(self, outcome: str) -> None:
        """Do nothing if the findings are a pass.

        Args:
            outcome: What the message says of the folder.

        Raises:
            VerificationError: If they are not.
        """
        from converters.parity.report import VerificationError

        if not self.passed:
            reasons = "; ".join(self.failures)
            raise VerificationError(f"{outcome}, for verification failed: {reasons}.", self.report)

    def to_dict(self) -> dict[str, Any]:
        """What ``--json`` prints, as ``report.schema.json`` describes it.

        Plain values only, in which numbers that are not finite, which JSON lacks, are None.
        """
        record: dict[str, Any] = _plain(self.report.to_dict())
        regressions = None if self.regressions is None else list(self.regressions)
        return {
            "schema": SCHEMA,
            "folder": self.folder,
            **record,
            "passed": self.passed,
            "failures": list(self.failures),
            "regressions": regressions,
            "signature": None if self.signature is None else self.signature.to_dict(),
        }


def one_line(text: str) -> str:
    """Make control characters, line ends and lone surrogates visible: they may stand in any name.

    What is left is legal in XML 1.0, where a NUL cannot stand even as an entity.
    """
    return "".join(
        mark if mark.isprintable() else mark.encode("unicode_escape").decode("ascii")
        for mark in text
    )


def cells(verdict: Verdict) -> tuple[str, ...]:
    """A verdict as a row under `COLUMNS`, each cell one line; ``-`` where there is nothing."""
    row = (
        verdict.artefact,
        f"{verdict.runtime}, {verdict.precision}",
        verdict.outcome,
        number(verdict.worst("rms_ratio")),
        number(verdict.worst("max_ratio")),
        classes(verdict, "agree"),
        classes(verdict, "proven"),
        tensors(verdict),
        verdict.reason,
    )
    return tuple(map(one_line, row))


def number(value: float | None) -> str:
    """Three digits; ``-`` for what could not be measured."""
    return "-" if value is None or not math.isfinite(value) else f"{value:.3g}"


def classes(verdict: Verdict, what: str) -> str:
    """How many images agree or are proven (``what``), for example ``top-1 4/4, top-5 3/4``."""
    counts = {
        name: [found for m in verdict.measurements if (found := getattr(m, name))]
        for name in ("top1", "top5")
    }
    shown = (
        f"top-{kind[0].k} {sum(getattr(top, what) for top in kind)}/"
        f"{sum(top.images for top in kind)}"
        for kind in counts.values()
        if kind
    )
    return ", ".join(shown) or "-"


def tensors(verdict: Verdict) -> str:
    """A tensor certificate in a few words."""
    proof = verdict.tensors
    if proof is None:
        return "-"
    parts = [
        f"{proof.identical} identical" if proof.identical else "",
        f"{proof.recomputed} recomputed within {proof.ulps} ulp" if proof.recomputed else "",
        f"{len(proof.wrong)} wrong" if proof.wrong else "",
    ]
    return ", ".join(filter(None, parts)) or "none"


def _plain(value: Any) -> Any:
    match value:
        case dict():
            return {key: _plain(item) for key, item in value.items()}
        case list() | tuple():
            return [_plain(item) for item in value]
        case float() if not math.isfinite(value):
            return None
    return value
