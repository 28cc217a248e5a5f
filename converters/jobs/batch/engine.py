"""What runs a batch, and the loop that keeps it busy."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable

    from converters.jobs.batch.job import Job, Outcome

JOBS_PER_PROCESS = 100
"""After how many a worker gives way to a new one, so that nothing that leaks adds up."""


class Engine(Protocol):
    """Runs :func:`converters.jobs.batch.job.perform` somewhere else, on several jobs at once."""

    @property
    def at_once(self) -> int:
        """How many jobs it runs at a time."""

    def start(self, job: Job) -> None:
        """Begin a job; at most ``at_once`` run already, less one."""

    def ended(self) -> Iterable[Outcome]:
        """Wait until at least one job has ended; a job whose process died has ended too."""

    def stop(self) -> None:
        """Interrupt what still runs, wait until it has removed what it began, end the workers."""


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
