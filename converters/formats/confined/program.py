"""A stranger's program in a process of its own, seen from the command that runs it."""

from __future__ import annotations

import subprocess
import sys
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from tempfile import TemporaryDirectory
from threading import Timer
from typing import TYPE_CHECKING, Any
from weakref import finalize

from converters import errors
from converters.formats.beside import ended_when_told
from converters.formats.confined.wire import MalformedMessageError, receive, send
from converters.formats.memory import MemoryShortError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

_START = (
    "import sys; sys.path[:] = {path!r}; "
    "from converters.formats.confined.child import serve; serve()"
)
"""What the child runs: with the paths of its parent, so that no other code of these names is
found."""

_LONGEST_WORDS = 2000
_RAISED: dict[str, type[Exception]] = {
    "MemoryShortError": MemoryShortError,
    **{
        name: kind
        for name, kind in vars(errors).items()
        if isinstance(kind, type) and issubclass(kind, errors.ConversionError)
    },
}
"""Errors of the child that are raised again as what they are."""


class ProgramError(RuntimeError):
    """What went wrong inside a confined program, in one line."""


@dataclass(frozen=True, slots=True)
class Allowance:
    """What a program may take.

    Attributes:
        start: Seconds to be opened in.
        rate: Seconds for each element that it is given, beside `start`.
        memory: Bytes.
    """

    start: float
    rate: float
    memory: int

    @classmethod
    def of(cls, files: Sequence[Path]) -> Allowance:
        """What any RegNet in these files needs, and several times that.

        A network reuses each weight at every place of its feature maps: RegNets do 100
        multiply-adds for a byte of theirs at 224 x 224 at the most, and runtimes at least 200
        million in a second on one core. Opening packs and copies the weights a few times.
        """
        size = sum(file.stat().st_size for file in files)
        return cls(
            start=60 + size / 5e6,
            rate=size * 100 / 224**2 / 2e8,
            memory=4 * 10**9 + 8 * size,
        )


class ConfinedProgram:
    """Opens a program in a process of its own and calls it there.

    Args:
        build: ``module:callable`` that opens it; called in the child.
        arguments: What that is called with: text, numbers and lists of them.
        attributes: Those of what it returns that are wanted here.
        allowance: How much time and memory it may take.

    Attributes:
        attributes: Their values, of those that it has.
        confined: Whether the kernel keeps it from writing files.

    Raises:
        ConversionError: If the child raises one.
        MemoryShortError: Likewise.
        ProgramError: If it cannot be opened, for any other reason.
    """

    def __init__(
        self,
        build: str,
        arguments: Sequence[Any],
        attributes: Sequence[str],
        allowance: Allowance,
    ) -> None:
        self._allowance = allowance
        scratch = TemporaryDirectory(prefix="regnet-")
        self._process = subprocess.Popen(  # noqa: S603 -- nothing of it comes from outside
            [sys.executable, "-P", "-c", _START.format(path=sys.path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        self.close = finalize(self, _end, self._process, scratch)
        ended_when_told(self._process.kill)
        task = {
            "build": build,
            "arguments": list(arguments),
            "attributes": list(attributes),
            "memory": allowance.memory,
            "scratch": scratch.name,
        }
        try:
            head, _ = self._ask(task, {}, allowance.start)
        except BaseException:
            self.close()
            raise
        self.attributes: Mapping[str, Any] = head["attributes"]
        self.confined = bool(head["confined"])

    def call(
        self, method: str, *arrays: NDArray[Any], repetitions: int | None = None
    ) -> dict[str, Any]:
        """Call a method that takes arrays and returns arrays and plain values by name.

        What it returns otherwise is called ``value``.

        Args:
            method: Its name; ``__call__`` for the object itself.
            arrays: Of images, by whose elements its time is counted.
            repetitions: Handed to it after them, if it takes such a number; gives it the time of so
                many calls more.

        Raises:
            ConversionError: If the child raises one.
            ProgramError: If it fails in any other way, ends, or takes too long.
        """
        elements = sum(array.size for array in arrays)
        seconds = self._allowance.start + self._allowance.rate * elements * (1 + (repetitions or 0))
        request = {"method": method, "more": [] if repetitions is None else [repetitions]}
        named = {str(index): array for index, array in enumerate(arrays)}
        head, results = self._ask(request, named, seconds)
        return {**head["plain"], **results}

    def _ask(
        self, request: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]], seconds: float
    ) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
        requests, replies = self._process.stdin, self._process.stdout
        assert requests and replies  # noqa: S101, PT018 -- both are pipes
        with self._within(seconds) as late:
            try:
                send(requests, request, arrays)
                head, results = receive(replies, self._allowance.memory)
            except (MalformedMessageError, OSError) as error:
                self._process.kill()
                status = self._process.wait()
                raise ProgramError(
                    f"it was not done within {seconds:.0f} seconds"
                    if late
                    else f"its process ended {_how(status)}"
                ) from error
        if "error" in head:
            words = errors.escaped(" ".join(str(head.get("words")).split()))[:_LONGEST_WORDS]
            words = words or "it takes more memory than a network of its size needs"
            kind: type[Exception] = _RAISED.get(str(head["error"]), ProgramError)
            raise kind(words)
        return head, results

    @contextmanager
    def _within(self, seconds: float) -> Iterator[list[bool]]:
        """End the process after so long; what is yielded is then no longer empty."""
        late: list[bool] = []

        def end() -> None:
            late.append(True)
            self._process.kill()

        timer = Timer(seconds, end)
        timer.daemon = True
        timer.start()
        try:
            yield late
        finally:
            timer.cancel()


def _end(process: subprocess.Popen[bytes], scratch: TemporaryDirectory[str]) -> None:
    process.kill()
    process.wait()
    for pipe in filter(None, (process.stdin, process.stdout)):
        with suppress(OSError):  # what was left to be written has no reader
            pipe.close()
    scratch.cleanup()


def _how(status: int) -> str:
    return f"by signal {-status}" if status < 0 else f"with status {status}"
