"""What runs a batch: one job of it, several at once, and the loop that keeps them busy."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from converters.errors import ConversionError, StorageError

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable

    from converters.jobs.batch.job import Job, Outcome

JOBS_PER_PROCESS = 100
"""After how many a worker gives way to a new one, so that nothing that leaks adds up."""


class Engine(Protocol):
    """Runs :func:`perform` somewhere else, on several jobs at once."""

    @property
    def at_once(self) -> int:
        """How many jobs it runs at a time."""

    def start(self, job: Job) -> None:
        """Begin a job; at most ``at_once`` run already, less one."""

    def ended(self) -> Iterable[Outcome]:
        """Wait until at least one job has ended; a job whose process died has ended too."""

    def stop(self) -> None:
        """Interrupt what still runs, wait until it has removed what it began, end the workers."""


def perform(job: Job) -> Outcome:
    """Convert one checkpoint, unless that is done; whatever is wrong with it is in the outcome."""
    from converters.formats.beside import one_after_the_other
    from converters.jobs.batch.done import is_done
    from converters.jobs.conversion import run_conversion

    try:
        if is_done(job):
            return job.ended("already converted")
        with one_after_the_other():
            conversion = run_conversion(job.path, job.out, job.options)
    except ConversionError as error:
        return job.failed(error.exit_status, str(error))
    except OSError as error:  # in looking at what is there; conversion has sentences of its own
        return job.failed(
            StorageError.exit_status,
            f"{job.path.name}: it or {job.out} cannot be read ({error.strerror or error}); see to "
            "their permissions and run the command again.",
        )
    except MemoryError:
        return job.lost("not enough memory")
    except Exception as error:  # noqa: BLE001 -- a bug, which must not stop the other jobs
        return job.failed(
            StorageError.exit_status,
            f"{job.path.name}: internal error: {type(error).__name__}: {error}; please report it "
            "with the output of `regnet convert --debug` for this file.",
        )
    some_not_run = conversion.report is not None and conversion.report.not_run
    return job.ended("converted, not all run" if some_not_run else "converted")


def run_batch(jobs: Iterable[Job], engine: Engine) -> Generator[Outcome]:
    """Run jobs; each is taken from ``jobs`` when there is room for it.

    Args:
        jobs: What is to be done.
        engine: What does it; it is stopped in the end, also if the generator is closed before.

    Yields:
        What became of each, in the order in which they end.
    """
    running = 0
    try:
        for job in jobs:
            engine.start(job)
            running += 1
            if running == engine.at_once:
                for outcome in engine.ended():
                    running -= 1
                    yield outcome
        while running:
            for outcome in engine.ended():
                running -= 1
                yield outcome
    finally:
        engine.stop()
