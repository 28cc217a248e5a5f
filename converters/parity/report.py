"""All verdicts on a folder, and the error that says they failed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from converters.errors import ConversionError

if TYPE_CHECKING:
    from converters.parity.verdict import Verdict


@dataclass(frozen=True)
class Report:
    """All verdicts on a folder.

    Attributes:
        verdicts: One for the golden vectors, one for the weights, one for each artefact.
        changed_files: Files whose sha256 is not the one recorded when they were written.
    """

    verdicts: tuple[Verdict, ...]
    changed_files: tuple[str, ...] = ()

    @property
    def passed(self) -> bool:
        """Whether every verdict is pass and no file was changed."""
        return not self.changed_files and all(verdict.passed for verdict in self.verdicts)

    @property
    def failures(self) -> list[str]:
        """One clause for each thing that is wrong, naming all files it is wrong with."""
        changed = [f"{name} was changed after it was written" for name in self.changed_files]
        files: dict[str | None, list[str]] = {}
        for verdict in self.verdicts:
            if not verdict.passed:
                files.setdefault(verdict.failure, []).append(verdict.artefact)
        return changed + [f"{' and '.join(names)}, {reason}" for reason, names in files.items()]

    def require_pass(self, outcome: str) -> None:
        """Do nothing if every verdict is pass.

        Args:
            outcome: What the message says happened instead.

        Raises:
            VerificationError: If one is fail.
        """
        if not self.passed:
            reasons = "; ".join(self.failures)
            raise VerificationError(f"{outcome}, for verification failed: {reasons}.", self)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            "passed": self.passed,
            "changed_files": list(self.changed_files),
            "verdicts": [verdict.to_dict() for verdict in self.verdicts],
        }


class VerificationError(ConversionError):
    """The conversion finished but its verdict is fail; nothing was published.

    Args:
        message: The sentence.
        report: The verdicts.
    """

    exit_status = 1

    def __init__(self, message: str, report: Report) -> None:
        super().__init__(message)
        self.report = report
