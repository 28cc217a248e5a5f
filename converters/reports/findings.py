"""What a verification found in a folder, before it is given a form.

Every form is a pure function of `Findings`: the same findings give the same bytes, and no time,
path or host is in them.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from converters.folder.signature import Signature
    from converters.parity.report import Report

SCHEMA = 1
"""Of what `regnet verify --json` prints; it grows when a key changes its meaning."""


@dataclass(frozen=True)
class Findings:
    """A report, and what belongs beside it.

    Attributes:
        folder: Name of the folder, without the path to it.
        report: The verdicts.
        regressions: What got worse since the baseline, one clause each; None without a baseline.
        locations: Plots of error by depth, each one ``<svg>`` element.
        signature: What the folder's signature is worth; None if no key was given.
        about: What the folder holds and what judged it, topic to words.
        network: A plot of the network, one ``<svg>`` element; empty without one.
    """

    folder: str
    report: Report
    regressions: tuple[str, ...] | None = None
    locations: Sequence[str] = ()
    signature: Signature | None = None
    about: Mapping[str, str] = field(default_factory=dict)
    network: str = ""

    @property
    def passed(self) -> bool:
        """Whether every verdict is pass, nothing got worse, and signature and files hold."""
        return self.report.passed and not self.regressions and not self.unsigned

    @property
    def is_wrong(self) -> bool:
        """Whether something is wrong; else what is no pass could not be judged on this machine."""
        return self.report.is_wrong or bool(self.regressions) or bool(self.unsigned)

    @property
    def failures(self) -> tuple[str, ...]:
        """One clause for each thing that is wrong or could not be judged."""
        return (*self.unsigned, *self.report.failures, *(self.regressions or ()))

    @property
    def remarks(self) -> tuple[str, ...]:
        """One clause for each thing that could not be checked, none of which is wrong."""
        return tuple(f"not checked: {clause}" for clause in self.report.unchecked)

    def wrong_with(self, place: str) -> str:
        """How a sentence begins on what is wrong: ``out is``, or ``other.onnx is``.

        Args:
            place: Where the folder is; named unless all that is wrong lies elsewhere.
        """
        names = [] if self.regressions else self.report.failed_elsewhere
        return f"{' and '.join(names or [place])} {'are' if len(names) > 1 else 'is'}"

    @property
    def unsigned(self) -> tuple[str, ...]:
        """What is wrong with the signature, one clause each."""
        return () if self.signature is None else self.signature.problems

    @property
    def outcome(self) -> str:
        """``pass``, ``FAIL``, or ``not verified``, where what is not wrong could not be judged."""
        return "pass" if self.passed else "FAIL" if self.is_wrong else "not verified"

    @property
    def tally(self) -> str:
        """How many of what, for example ``3 of 4 pass, 1 fails, 1 file changed``."""
        clauses = [
            "the signature does not hold" if self.unsigned else "",
            self.report.tally,
            f"{len(self.regressions)} worse than in the baseline" if self.regressions else "",
            "signed" if self.signature is not None and not self.unsigned else "",
        ]
        return ", ".join(filter(None, clauses))

    @property
    def headline(self) -> str:
        """Both in a line: ``3 of 3 pass``, or ``FAIL: 3 of 4 pass, 1 fails``."""
        return self.tally if self.passed else f"{self.outcome}: {self.tally}"

    def require_pass(self, outcome: str) -> None:
        """Do nothing if the findings are a pass.

        Args:
            outcome: What the message says of the folder.

        Raises:
            VerificationError: If they are not; its exit status says whether something is wrong.
        """
        from converters.parity.report import VerificationError

        if not self.passed:
            raise VerificationError(outcome, self.failures, self.report, is_wrong=self.is_wrong)

    def to_dict(self) -> dict[str, Any]:
        """What ``--json`` prints, as ``report.schema.json`` describes it.

        Plain values only, in which numbers that are not finite, which JSON lacks, are None.
        """
        text = json.dumps(self.report.to_dict())
        record: dict[str, Any] = json.loads(text, parse_constant=lambda _: None)
        regressions = None if self.regressions is None else list(self.regressions)
        return {
            "schema": SCHEMA,
            "folder": self.folder,
            "about": dict(self.about),
            **record,
            "passed": self.passed,
            "failures": list(self.failures),
            "regressions": regressions,
            "signature": None if self.signature is None else self.signature.to_dict(),
        }
