"""The process in which other people's libraries read: watched, bounded, started again when it dies.

Run by :class:`Library` as ``python -m fuzz.differential.library``; each line on its input is a kind
and a path, each line of its output the answer of :func:`fuzz.differential.theirs.read` as JSON.
"""

from __future__ import annotations

import json
import os
import resource
import select
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from types import TracebackType

SECONDS = 30.0
"""Of processor time, for one file; then the process is killed. Torch's imports are among them."""

WAIT = 900.0
"""Seconds of the clock, likewise: a process may wait for ever and use no processor."""

_TICK = 2.0
_STAT = "/proc/{}/stat"

MEMORY = 2 << 30
"""Bytes of private memory; torch itself takes some 200 MB."""

ROOT = Path(__file__).parents[2]


class Library:
    """A process that reads files with their own libraries; a context manager that ends it.

    Attributes:
        seconds: Processor time that it has taken, in the processes that died too.
        deaths: How often it crashed, hung or ran out of memory, by what ended it.
    """

    def __init__(self) -> None:
        self.deaths: Counter[str] = Counter()
        self._before = 0.0
        self._now = 0.0
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def seconds(self) -> float:
        """Processor time of all processes so far."""
        return self._before + self._now

    def read(self, kind: str, path: Path) -> dict[str, Any] | None:
        """Have a file read; see :func:`fuzz.differential.theirs.read`.

        Returns:
            The answer, or None if two processes died of the file: of one, a busy machine may be
            the cause.
        """
        for _ in range(2):
            line = self._asked(f"{kind} {path}\n".encode())
            if line.endswith(b"\n"):
                answer: dict[str, Any] = json.loads(line)
                self._now = answer.pop("seconds")
                return answer
            self.deaths[self._cause()] += 1
            self.close()
        return None

    def _cause(self) -> str:
        """What ended the process, or will."""
        assert self._process  # noqa: S101
        try:
            status = self._process.wait(5 * _TICK)
        except subprocess.TimeoutExpired:
            return "hangs"
        return signal.Signals(-status).name if status < 0 else f"exits with {status}"

    def _asked(self, question: bytes) -> bytes:
        """The line that answers; less where the process ends, or its time is over."""
        process = self._process or self._start()
        assert process.stdin  # noqa: S101
        assert process.stdout  # noqa: S101
        try:
            process.stdin.write(question)
            process.stdin.flush()
        except BrokenPipeError:
            return b""
        return _line(process.stdout, process.pid)

    def _start(self) -> subprocess.Popen[bytes]:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "fuzz.differential.library"],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
        )
        return self._process

    def close(self) -> None:
        """End the process."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            for stream in (self._process.stdin, self._process.stdout):
                if stream:
                    stream.close()
            self._process = None
        self._before, self._now = self.seconds, 0.0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, _: type[BaseException] | None, __: BaseException | None, ___: TracebackType | None
    ) -> None:
        self.close()


def _line(stream: IO[bytes], pid: int) -> bytes:
    """Read up to a newline; what there is when the process ends or its time is over."""
    data = bytearray()
    used, end = _used(pid), time.monotonic() + WAIT
    while not data.endswith(b"\n") and time.monotonic() < end and _used(pid) - used < SECONDS:
        if not select.select([stream], [], [], _TICK)[0]:
            continue
        piece = os.read(stream.fileno(), 1 << 20)
        if not piece:
            break
        data += piece
    return bytes(data)


def _used(pid: int) -> float:
    """Processor time of a process, in seconds; of one that has ended, and but on Linux, none."""
    try:
        fields = Path(_STAT.format(pid)).read_text("ascii").rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def main() -> None:
    """Answer line by line until there are no more."""
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what libraries print is no answer
    os.chdir(os.environ.get("TMPDIR", "/tmp"))  # noqa: S108 -- torch may leave a patch there
    import torch

    from fuzz.differential.theirs import read

    torch.set_num_threads(1)
    resource.setrlimit(resource.RLIMIT_DATA, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    for line in sys.stdin:
        kind, path = line.rstrip("\n").split(" ", 1)
        answer = read(kind, Path(path)) | {"seconds": time.process_time()}
        answers.write(json.dumps(answer).encode() + b"\n")
        answers.flush()


if __name__ == "__main__":
    main()
