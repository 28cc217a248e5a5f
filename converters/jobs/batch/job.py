"""One checkpoint of a batch, and what became of it."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

from converters.errors import StorageError

if TYPE_CHECKING:
    from pathlib import Path

    from converters.jobs.conversion import ConvertOptions

Result = Literal["converted", "converted, not all run", "already converted", "failed"]


@dataclass(frozen=True, slots=True)
class Job:
    """What one worker is to do at a time.

    Attributes:
        name: Of the checkpoint, as the user gave it.
        path: Where it lies.
        out: The folder to be made.
        options: How.
    """

    name: str
    path: Path
    out: Path
    options: ConvertOptions

    def anywhere(self) -> Job:
        """The same job for a worker with another working directory."""
        images = [image.absolute() for image in self.options.calibration_images]
        options = replace(self.options, calibration_images=images)
        return replace(self, path=self.path.absolute(), out=self.out.absolute(), options=options)

    def ended(self, result: Result) -> Outcome:
        """The outcome of a job that did what it should."""
        return Outcome(self.name, self.out.name, result)

    def failed(self, status: int, error: str) -> Outcome:
        """The outcome of a job that failed, with what `regnet convert` would have ended on."""
        return Outcome(self.name, self.out.name, "failed", status, error)

    def lost(self, reason: str) -> Outcome:
        """The outcome of a job whose worker was lost, for a reason in a few words."""
        return self.failed(
            StorageError.exit_status,
            f"{self.path.name}: the process that converted it was lost ({reason}), often for want "
            "of memory; run the command again, with fewer --jobs.",
        )


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a checkpoint.

    Attributes:
        checkpoint: As the user gave it.
        folder: Name of the folder that was to be made.
        result: In words.
        status: Exit status that `regnet convert` would have had.
        error: The sentence it would have ended on; None if nothing failed.
    """

    checkpoint: str
    folder: str
    result: Result
    status: int = 0
    error: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)
