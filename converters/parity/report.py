"""All verdicts on a folder, and the error that says they failed."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from converters.errors import ConversionError, StorageError
from converters.folder.folder import GOLDEN_NAME

if TYPE_CHECKING:
    from collections.abc import Iterable

    from converters.parity.verdict import Verdict


@dataclass(frozen=True)
class Report:
    """All verdicts on a folder.

    Attributes:
        verdicts: One for the golden vectors, one for the weights, one for each artefact.
        changed_files: Files whose sha256 is not the one recorded when they were written.
        not_checked: What of the folder could not be checked, one clause each; none of it is wrong.
        elsewhere: Artefacts among the verdicts' that lie elsewhere, and were judged by the folder.
    """

    verdicts: tuple[Verdict, ...]
    changed_files: tuple[str, ...] = ()
    not_checked: tuple[str, ...] = ()
    elsewhere: tuple[str, ...] = ()

    @property
    def unchecked(self) -> tuple[str, ...]:
        """What could not be checked, that graphs of other tools could not be proven among it."""
        unproven = (f"{v.artefact}, {v.graph}" for v in self.verdicts if v.unproven_graph)
        return (*self.not_checked, *unproven)

    @property
    def passed(self) -> bool:
        """Whether there are verdicts, all of them let it pass, and no file was changed."""
        passed = [verdict.passed for verdict in self.verdicts]
        return bool(passed) and all(passed) and not self.changed_files

    @property
    def is_wrong(self) -> bool:
        """Whether something was found wrong; else what does not pass could not be judged here."""
        return bool(self.changed_files) or any(
            verdict.outcome == "FAIL" for verdict in self.verdicts
        )

    @property
    def not_run(self) -> list[str]:
        """One clause for each verdict on what was not run, and let the folder pass all the same."""
        return [
            f"{verdict.artefact} was {'evaluated, ' if verdict.measurements else ''}not run "
            f"({verdict.not_run})"
            for verdict in self.verdicts
            if verdict.passed and verdict.not_run is not None
        ]

    @property
    def changes(self) -> list[str]:
        """One clause for each changed file."""
        return [f"{name} was changed after it was written" for name in self.changed_files]

    @property
    def failures(self) -> list[str]:
        """One clause for each thing that is wrong, naming all files it is wrong with."""
        files: dict[str | None, list[str]] = {}
        for verdict in self.verdicts:
            if not verdict.passed:
                files.setdefault(verdict.failure, []).append(verdict.artefact)
        of_files = [f"{' and '.join(names)}, {reason}" for reason, names in files.items()]
        return [*self.changes, *of_files]

    @property
    def failed_elsewhere(self) -> list[str]:
        """Artefacts that lie elsewhere and do not pass, where all of the folder does; else none."""
        failed = [verdict.artefact for verdict in self.verdicts if not verdict.passed]
        return [] if self.changed_files or not set(failed) <= set(self.elsewhere) else failed

    @property
    def tally(self) -> str:
        """How many verdicts are what: ``3 of 3 pass``, or ``2 of 3 pass, 1 fails``."""
        counts = Counter((verdict.outcome, verdict.passed) for verdict in self.verdicts)
        failed, changed = counts["FAIL", False], len(self.changed_files)
        unproven, not_run = counts["not run", False], counts["not run", True]
        clauses = [
            f"{counts['pass', True]} of {len(self.verdicts)} pass" if self.verdicts else "",
            f"{failed} {'fails' if failed == 1 else 'fail'}" if failed else "",
            f"{unproven} could not be judged here" if unproven else "",
            f"{not_run} not run" if not_run else "",
            f"{changed} {'file' if changed == 1 else 'files'} changed" if changed else "",
        ]
        return ", ".join(filter(None, clauses))

    def require_pass(self, outcome: str) -> None:
        """Do nothing if every verdict is pass.

        Args:
            outcome: What the message says happened instead.

        Raises:
            VerificationError: If one is not; with exit status 4 where nothing is wrong, but
                something can be judged on another machine only.
        """
        if not self.passed:
            raise VerificationError(outcome, self.failures, self, is_wrong=self.is_wrong)

    @property
    def way_out(self) -> str:
        """What to do where the network itself was changed, or int8 is right and not good enough."""
        if any(
            v.wrong and v.precision == "int8" and v.tensors and not v.tensors.failure
            for v in self.verdicts
        ):
            return (
                "; calibrate int8 on more images that the network knows (--calibration-images), or "
                "export another format"
            )
        another = any(
            name.endswith((".safetensors", ".index.json")) and name != GOLDEN_NAME
            for name in self.changed_files
        )
        if self.verdicts or not another:
            return ""
        return (
            "; if you saved another network there yourself, `regnet convert FOLDER NEW` makes a "
            "proven folder of it"
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            "passed": self.passed,
            "changed_files": list(self.changed_files),
            "not_checked": list(self.not_checked),
            "verdicts": [verdict.to_dict() for verdict in self.verdicts],
        }


class VerificationError(ConversionError):
    """The work is done and its verdict is no pass; nothing was published.

    Args:
        outcome: What the message says happened instead.
        failures: One clause for each reason.
        report: The verdicts.
        is_wrong: Whether something is wrong; else something could not be judged here.

    Attributes:
        exit_status: 1; but 4, the machine's, where nothing is wrong and something could not be
            judged here.
    """

    exit_status = 1

    def __init__(
        self, outcome: str, failures: Iterable[str], report: Report, *, is_wrong: bool = True
    ) -> None:
        reasons = "; ".join(failures)
        if is_wrong:
            super().__init__(f"{outcome}, for verification failed: {reasons}{report.way_out}.")
        else:
            self.exit_status = StorageError.exit_status
            super().__init__(
                f"{outcome}, for it could not be verified here: {reasons}; free memory, take a "
                "larger machine, or leave that format out."
            )
        self.report = report
