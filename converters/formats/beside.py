"""Work beside other work: on the cores that are there, or one after the other, with equal results.

Every computation here runs on one thread, since the order of additions, and with it the last bits,
depends on their number. But several can run at once, each on a thread of its own: torch, ONNX
Runtime, NumPy and the digests let others go on while they compute.
"""

from __future__ import annotations

import atexit
import sys
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager, nullcontext, suppress
from contextvars import ContextVar
from functools import partial
from importlib import import_module
from threading import Event, Lock, local
from typing import TYPE_CHECKING, Any, Generic, Self, TypeVar

from converters.errors import is_short_of_memory
from converters.formats.torch_process import MEMORY, TORCH_USERS, NotDoneError, TorchProcess
from regnet.files.late import imported
from regnet.files.system import available_memory, is_limited, usable_cores

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from concurrent.futures import Future
    from contextlib import AbstractContextManager

T = TypeVar("T")

_MOST = 8
"""Threads; there is not more to do at once."""

_SWITCH = 0.0005
"""Seconds for which a thread of Python's may keep the others waiting that would go on computing."""

_allowed: ContextVar[bool] = ContextVar("allowed", default=True)
_own = local()

_EXPECTED: list[TorchProcess] = []
"""At most one: begun, and not taken by a job."""


class StoppedError(BaseException):
    """Nobody waits any more for the result of what a thread does."""


class _Told:
    """Whether threads have been told to stop, and what ends that which they wait for."""

    def __init__(self) -> None:
        self._event = Event()
        self._ends: list[Callable[[], object]] = []

    def is_set(self) -> bool:
        return self._event.is_set()

    def set(self) -> None:
        self._event.set()
        for end in self._ends:
            end()

    def ends(self, end: Callable[[], object]) -> None:
        self._ends.append(end)
        if self.is_set():
            end()


def stop_if_told() -> None:
    """End the work of this thread, if nobody waits for it; called wherever that is possible.

    Raises:
        StoppedError: Then.
    """
    told: _Told | None = getattr(_own, "told", None)
    if told is not None and told.is_set():
        raise StoppedError


def ended_when_told(end: Callable[[], object]) -> None:
    """Have what this thread waits for ended, once nobody waits for the thread any more.

    Args:
        end: Ends it, in any thread; a second call does nothing.
    """
    told: _Told | None = getattr(_own, "told", None)
    if told is not None:
        told.ends(end)


class _Switching:
    """Python's interval of switching between threads, short while any work is done beside other."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._count = 0
        self._before = 0.0

    def begin(self) -> None:
        with self._lock:
            if self._count == 0:
                self._before = sys.getswitchinterval()
                sys.setswitchinterval(_SWITCH)
            self._count += 1

    def end(self) -> None:
        with self._lock:
            self._count -= 1
            if self._count == 0:
                sys.setswitchinterval(self._before)


_SWITCHING = _Switching()


class Work(Generic[T]):
    """Something to be done once, by whoever comes to it first; calling it gives the result.

    Args:
        others: What it is begun by.
        do: Does it.
    """

    def __init__(self, others: Beside, do: Callable[[], T]) -> None:
        self._others = others
        self._do = do
        self._lock = Lock()
        self._value: list[T] = []
        self._error: BaseException | None = None

    def begin(self) -> None:
        """Have it done beside other work, if others do any."""
        self._others.take(self._done)

    def __call__(self) -> T:
        """Its result, or what it raised; waits for it, and does it if nobody has begun."""
        self._done()
        if isinstance(self._error, Exception) and _is_for_others(self._error):
            self._others.wait()
            self._error = None
            self._done()  # with all the memory for itself
        if self._error:
            raise self._error
        return self._value[0]

    def _done(self) -> None:
        with self._lock:
            if self._value or self._error:
                return
            try:
                self._value.append(self._do())
            except BaseException as error:  # noqa: BLE001 -- which belongs to who asks for it
                self._error = error


def _is_for_others(error: Exception) -> bool:
    """Whether work may have failed for the memory that other threads had, and not the caller's."""
    return not hasattr(_own, "told") and is_short_of_memory(error)


class Beside:
    """Does work on other threads; a context manager, which stops what is not done at its end.

    Args:
        threads: How many; with none, everything is done by who asks for its result.
        torch: A second process, in which to do what torch is needed for. It is left running.

    Attributes:
        torch: As given.
    """

    def __init__(self, threads: int = 0, torch: TorchProcess | None = None) -> None:
        self.torch = torch
        self._told = _Told()
        self._begun: list[Future[None]] = []
        self._pool: ThreadPoolExecutor | None = None
        if threads:
            self._pool = ThreadPoolExecutor(threads, initializer=self._enter)

    def __bool__(self) -> bool:
        """Whether work goes on beside other work."""
        return self._pool is not None

    def __enter__(self) -> Self:
        if self._pool is not None:
            _SWITCHING.begin()
        return self

    def __exit__(self, *_: object) -> None:
        if self._pool is not None:
            self._told.set()
            if self.torch is not None:
                self.torch.close()
            try:
                self._pool.shutdown(cancel_futures=True)
            finally:
                _SWITCHING.end()

    def later(self, do: Callable[..., T], *arguments: Any) -> Work[T]:
        """Work that is not begun yet."""
        return Work(self, partial(do, *arguments))

    def begin(self, do: Callable[..., T], *arguments: Any) -> Work[T]:
        """Work that is begun."""
        work = self.later(do, *arguments)
        work.begin()
        return work

    def with_torch(self, place: str, *arguments: Any) -> Any:
        """What a function gives that needs torch: in the second process, or else in this one.

        Args:
            place: ``module:function``.
            arguments: Which can be pickled, as its result can.
        """
        if self.torch is not None:
            with suppress(NotDoneError):
                return self.torch.call(place, *arguments)
            stop_if_told()
        return imported(place)(*arguments)

    def take(self, do: Callable[[], None]) -> None:
        """Have one of the threads do something, if there are any."""
        if self._pool is not None:
            self._begun.append(self._pool.submit(do))

    def wait(self) -> None:
        """Wait until nothing is done beside the caller's work any more."""
        wait(self._begun)

    def _enter(self) -> None:
        _own.told = self._told


ALONE = Beside()
"""One after the other."""


def torch_beside() -> AbstractContextManager[TorchProcess | None]:
    """A second process that begins to import torch, to be handed to :func:`beside`.

    There is none where this process has torch already, or no core or little memory is left for it.
    """
    if not _EXPECTED:
        expect_torch()
    return _EXPECTED.pop() if _EXPECTED else nullcontext()


def expect_torch() -> None:
    """Begin what :func:`torch_beside` gives to a job later, before the job's modules are loaded."""
    is_python = bool(sys.executable) and not hasattr(sys, "frozen")  # else it is some application
    if is_python and "torch" not in sys.modules and _has_room(MEMORY):
        with suppress(OSError):
            _EXPECTED.append(TorchProcess())
            atexit.register(_forget)


def _forget() -> None:
    while _EXPECTED:
        with _EXPECTED.pop():
            pass  # nobody took it


def beside(needed: int, torch: TorchProcess | None = None) -> Beside:
    """What does work side by side, where there are cores for it, and memory for all of it.

    Args:
        needed: Bytes that all of it takes.
        torch: From :func:`torch_beside`.
    """
    if not _has_room(needed):
        if torch is not None:
            torch.close()
        return Beside()
    if torch is not None:
        return Beside(_MOST, torch)  # most of them wait for it
    others = Beside(min(usable_cores(), _MOST) + 1)  # one may wait for torch to be imported
    others.begin(import_module, TORCH_USERS)
    return others


def another() -> Beside:
    """What does one thing at a time beside the caller's work, where there is a core for it."""
    return Beside(int(_has_room(0)))


def _has_room(needed: int) -> bool:
    may = usable_cores() > 1 and _allowed.get() and not is_limited()
    return may and needed <= available_memory()


@contextmanager
def one_after_the_other() -> Iterator[None]:
    """Let work in the block be done by one core, since others have work of their own."""
    before = _allowed.set(False)
    try:
        yield
    finally:
        _allowed.reset(before)
