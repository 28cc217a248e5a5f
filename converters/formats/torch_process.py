"""A second process of this program, which imports torch while the first reads and writes.

Importing torch takes a second in which Python lets no other thread of its process interpret
anything. Both processes run the same functions on the same files, each computation on one thread,
so results are equal to the last bit wherever they come from. Whatever the second process cannot do,
for whatever reason, the first does itself: only there does anything go wrong. The other end is
:mod:`converters.formats.torch_served`.
"""

from __future__ import annotations

import pickle
import subprocess
import sys
from concurrent.futures import Future
from contextlib import suppress
from itertools import count
from threading import Lock, Thread
from typing import IO, Any, Self

from regnet.files.system import without_ctrl_c

MEMORY = 400 << 20
"""Bytes that a process with torch takes before it computes."""

_START = (
    "import sys; sys.path[:] = {path!r}; from converters.formats.torch_served import serve; serve()"
)
"""What the second runs: with the paths of the first, so that no other code of these names is found.
"""

TORCH_USERS = "converters.parity.computed"
"""What imports torch, and all of this program that a verdict takes."""


class NotDoneError(Exception):
    """The second process did not do it."""


class TorchProcess:
    """Calls functions in a process of its own, several at once; a context manager that ends it.

    Raises:
        OSError: If it cannot be begun.
    """

    def __init__(self) -> None:
        with without_ctrl_c():
            self._process = subprocess.Popen(  # noqa: S603 -- nothing of it comes from outside
                [sys.executable, "-P", "-c", _START.format(path=sys.path)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
            )
        assert self._process.stdin and self._process.stdout  # noqa: S101, PT018 -- both are pipes
        self._requests, self._replies = self._process.stdin, self._process.stdout
        self._lock = Lock()
        self._numbers = count()
        self._asked: dict[int, Future[Any]] = {}
        self._ended = False
        self._listener = Thread(target=self._listen, daemon=True)
        self._listener.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """End the process, and wait for its end."""
        self.close()
        self._listener.join()

    def call(self, place: str, *arguments: Any) -> Any:
        """What a function gives there; waits for it.

        Args:
            place: ``module:function``.
            arguments: Which can be pickled, as its result can.

        Raises:
            NotDoneError: If it raised anything, or the process ended.
        """
        answer: Future[Any] = Future()
        number = next(self._numbers)
        with self._lock:
            if self._ended:
                raise NotDoneError
            self._asked[number] = answer
            try:
                send(self._requests, (number, place, arguments))
            except Exception as error:
                del self._asked[number]
                raise NotDoneError from error
        return answer.result()

    def close(self) -> None:
        """End the process, whatever it does; who waits for it hears of it."""
        self._process.kill()

    def _listen(self) -> None:
        while True:
            try:
                number, is_done, result = receive(self._replies)
            except Exception:  # noqa: BLE001 -- of whatever kind: its end, no memory for a result
                break
            answer = self._asked.pop(number)
            if is_done:
                answer.set_result(result)
            else:
                answer.set_exception(NotDoneError())
        with self._lock:
            self._ended = True
        for answer in self._asked.values():
            answer.set_exception(NotDoneError())
        self._process.wait()
        for pipe in (self._replies, self._requests):
            with suppress(OSError):  # what was left to be written has no reader
                pipe.close()


def send(pipe: IO[bytes], message: object) -> None:
    """Write a message, which can be pickled."""
    pipe.write(pickle.dumps(message, protocol=5))
    pipe.flush()


def receive(pipe: IO[bytes]) -> Any:
    """Read the next message."""
    return pickle.load(pipe)  # noqa: S301 -- of this program's own other process
