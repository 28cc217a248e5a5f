"""A batch on processes of this machine."""

from __future__ import annotations

import multiprocessing
import os
import signal
from contextlib import suppress
from multiprocessing.connection import Connection, wait
from typing import TYPE_CHECKING, Any

from converters.jobs.batch.engine import JOBS_PER_PROCESS, perform
from regnet.files.system import without_ctrl_c

if TYPE_CHECKING:
    from collections.abc import Iterable
    from types import FrameType

    from converters.jobs.batch.job import Job, Outcome

_SPAWN = multiprocessing.get_context("spawn")
"""A fork would copy locks that threads of torch and onnxruntime may hold."""


class Processes:
    """An engine of processes, each with a pipe of its own: when one dies its job is known.

    ``concurrent.futures`` would give up all jobs when a single process dies.

    Args:
        at_once: How many.
    """

    def __init__(self, at_once: int) -> None:
        self.at_once = at_once
        self._idle: list[_Worker] = []
        self._busy: dict[Any, _Worker] = {}

    def start(self, job: Job) -> None:
        """Begin a job, in a process that has nothing to do or in a new one."""
        worker = self._idle.pop() if self._idle else _Worker()
        self._busy[worker.pipe] = worker
        worker.begin(job)

    def ended(self) -> Iterable[Outcome]:
        """Wait until at least one job has ended."""
        ready = wait(list(self._busy))
        for worker in [w for pipe, w in self._busy.items() if pipe in ready]:
            del self._busy[worker.pipe]
            outcome = worker.outcome()
            if worker.is_spent:
                worker.end()
            else:
                self._idle.append(worker)
            yield outcome

    def stop(self) -> None:
        """Interrupt what still runs, wait until it has removed what it began, end all processes.

        Windows can only kill them: the next run takes up what they leave.
        """
        for worker in self._busy.values():
            worker.process.terminate()
        for worker in (*self._busy.values(), *self._idle):
            worker.end()


class _Worker:
    """A process that performs one job after the other until its pipe is closed."""

    def __init__(self) -> None:
        self.pipe, theirs = _SPAWN.Pipe()
        self.process = _SPAWN.Process(target=_serve, args=(theirs,))
        self._jobs: list[Job] = []
        with without_ctrl_c():  # it is up to this one to interrupt each of them, once
            self.process.start()
        theirs.close()  # so that the pipe ends with the process

    @property
    def is_spent(self) -> bool:
        """Whether another process should do the next job."""
        return len(self._jobs) == JOBS_PER_PROCESS or not self.process.is_alive()

    def begin(self, job: Job) -> None:
        self._jobs.append(job)
        with suppress(BrokenPipeError):  # it died in the meantime, as its outcome will say
            self.pipe.send(job)

    def outcome(self) -> Outcome:
        """What the process says of its job; where it has died, what there is to say of that."""
        try:
            outcome: Outcome = self.pipe.recv()
        except (EOFError, ConnectionResetError):
            self.process.join()
            return self._jobs[-1].lost(_ending(self.process.exitcode))
        return outcome

    def end(self) -> None:
        self.pipe.close()
        self.process.join()


def _ending(code: int | None) -> str:
    if code is not None and code < 0:
        return f"killed by {signal.Signals(-code).name}"
    return f"exit status {code}"


def _serve(pipe: Connection) -> None:
    """Perform what comes through a pipe, on one thread, until it is closed; in the new process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # where it could not be held back
    signal.signal(signal.SIGTERM, _interrupt)
    os.environ["OMP_NUM_THREADS"] = "1"
    with suppress(EOFError, OSError, KeyboardInterrupt):
        while True:
            pipe.send(perform(pipe.recv()))


def _interrupt(_signal: int, _frame: FrameType | None) -> None:
    """Let what runs remove what it began, undisturbed by a second signal."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    raise KeyboardInterrupt
