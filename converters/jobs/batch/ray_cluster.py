"""A batch on a Ray cluster: the one RAY_ADDRESS names, else one of this machine alone."""

from __future__ import annotations

import os
import sys
from contextlib import ExitStack, redirect_stdout
from typing import TYPE_CHECKING, Any

from converters.errors import StorageError, require_extra
from converters.jobs.batch.engine import JOBS_PER_PROCESS, perform

if TYPE_CHECKING:
    from collections.abc import Iterable

    from converters.jobs.batch.job import Job, Outcome


class RayCluster:
    """An engine of Ray's tasks, of one processor core each.

    All machines must have this project installed and see the same files under the same paths.

    Args:
        at_once: How many jobs to run at a time; None for as many as the cluster has cores.

    Raises:
        StorageError: If Ray is not installed, or the cluster cannot be reached.
    """

    def __init__(self, at_once: int | None) -> None:
        require_extra("ray", "ray", "--engine ray runs on it")
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        import ray

        self._ray = ray
        self._leaving = ExitStack()
        self._leaving.enter_context(redirect_stdout(sys.stderr))  # Ray tells of lost workers there
        self._leaving.callback(ray.shutdown)
        try:
            ray.init(include_dashboard=False, log_to_driver=False, logging_level="ERROR")
        except (ConnectionError, RuntimeError, ValueError) as error:
            raise StorageError(
                "The Ray cluster cannot be reached; set RAY_ADDRESS to that of its head, or unset "
                "it to have one on this machine."
            ) from error
        self.at_once = at_once or int(ray.cluster_resources()["CPU"])
        self._perform = ray.remote(num_cpus=1, max_calls=JOBS_PER_PROCESS, max_retries=1)(perform)
        self._running: dict[Any, Job] = {}

    def start(self, job: Job) -> None:
        """Begin a job somewhere in the cluster; where a machine is lost, once more elsewhere."""
        self._running[self._perform.remote(job.anywhere())] = job

    def ended(self) -> Iterable[Outcome]:
        """Wait until at least one job has ended."""
        done, _ = self._ray.wait(list(self._running))
        for task in done:
            job = self._running.pop(task)
            try:
                yield self._ray.get(task)
            except self._ray.exceptions.RayError as error:
                yield job.lost(type(error).__name__)

    def stop(self) -> None:
        """Interrupt what still runs, wait until it has removed what it began, leave the cluster."""
        for task in self._running:
            self._ray.cancel(task)
        if self._running:
            self._ray.wait(list(self._running), num_returns=len(self._running))
        self._leaving.close()
