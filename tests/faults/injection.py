"""One fault in one operation, in a forked process; and what must hold afterwards."""

from __future__ import annotations

import os
import shutil
import signal
import sys
import time
import traceback
from contextlib import suppress
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING

from tests.converters.demo import snapshot
from tests.faults import shim
from tests.faults.shim import Action

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.faults.operations import Operation, State
    from tests.faults.shim import Fault

SECONDS = 60
"""After which a process hangs."""

_MISSED = 99
"""How a process ends in which the fault did not come to pass."""

_CRASHED = 70
_STATUSES = {0, 1, 2, 4, 130}
"""Done, cannot be read back, bad input (when it changes), environment, interrupted."""

_MARKS = (".regnet-", ".incomplete", ".version")
"""One of them is in the name of everything unfinished that may be left."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a fault did.

    Attributes:
        operation: Name.
        fault: Name.
        nth: Which of the calls it came to pass in.
        status: Exit status of the process; negative for a signal.
        said: What it wrote to stderr.
        state: ``old``, ``new`` or ``torn``.
        leftovers: What lay beside the result.
        wrong: Everything that does not hold.
    """

    operation: str
    fault: str
    nth: int
    status: int
    said: str
    state: str
    leftovers: list[str]
    wrong: list[str]


class Bench:
    """An operation with its old and its new state, ready for faults.

    Args:
        operation: Which.
        folder: Where it works; everything in it is removed time and again.

    Attributes:
        source: What it reads, and what shrinks or changes.
        log: Its system calls in their order, each with its kind and the file that it is about.
    """

    def __init__(self, operation: Operation, folder: Path) -> None:
        self.operation = operation
        self._work, self._said, self._modules = (folder / n for n in ("work", "said", "modules"))
        self.source = self._work / (operation.source or "nothing")
        log = folder / "log"
        for path in (log, self._modules):
            path.unlink(missing_ok=True)
        self._renew()
        self._old = operation.state(self._work)
        self._require(self._fork(lambda: None))
        self._learn_imports()
        self._renew()
        self._require(self._fork(lambda: shim.listen(self._work, log)))
        self._new = operation.state(self._work)
        lines = [line.partition("\t") for line in log.read_text().splitlines()]
        self.log = [(kind, place) for kind, _, place in lines]

    def inject(self, fault: Fault, nth: int) -> Outcome | None:
        """Let a fault happen; None if the process did not come so far."""
        before = self._renew()
        status = self._fork(lambda: shim.arm(fault, nth, self._root(fault), self.source))
        if status == _MISSED:
            return None
        said = self._said.read_text()
        found = self.operation.state(self._work)
        state = "new" if found == self._new else "old" if found == self._old else "torn"
        if state == "torn" and fault.action == Action.CHANGE and self._follows(found):
            state = "new"
        left = self.operation.leftovers(self._work, before)
        wrong = [*self._complaints(fault, status, said, state), *_strangers(left)]
        if left and not wrong:
            wrong = [*self._repeat(before)]
        return Outcome(self.operation.name, fault.name, nth, status, said, state, left, wrong)

    def calls(self, fault: Fault) -> list[str]:
        """The kinds of those calls that a fault can happen to, in their order."""
        root = str(self._root(fault))
        return [
            kind
            for kind, place in self.log
            if kind in fault.calls and place.startswith((root, "socket:"))
        ]

    def _root(self, fault: Fault) -> Path:
        return self.source if fault.action in {Action.SHRINK, Action.CHANGE} else self._work

    def unsynced(self) -> set[str]:
        """What is given its name before its bytes are on the disk, where a power cut loses them."""
        dirty: set[str] = set()
        found: set[str] = set()
        for kind, place in self.log:
            if kind in {"write", "copy", "truncate"}:
                dirty.add(place)
            elif kind == "fsync":
                dirty.discard(place)
            elif kind in {"rename", "exchange"}:
                found |= {p for p in dirty if f"{p}/".startswith(f"{place}/")}
        cache = str(self._work / self.operation.caches)
        return {place for place in found if not place.startswith(cache)}

    def _follows(self, found: State) -> bool:
        """Whether a result is that of the changed input alone, which had changed soon enough."""
        return self._fork(lambda: None) == 0 and self.operation.state(self._work) == found

    def _repeat(self, before: State) -> Iterator[str]:
        """Do the operation once more with nothing in its way: whatever is left is taken up."""
        status = self._fork(lambda: None)
        found = self.operation.state(self._work)
        if status == 2 and found == self._new:
            return  # it was done already, and says that something is there
        if status or found != self._new:
            yield f"the next run ends with {status}: {self._said.read_text()}"
        if left := self.operation.leftovers(self._work, before):
            yield f"the next run leaves {left}"

    def _complaints(self, fault: Fault, status: int, said: str, state: str) -> Iterator[str]:
        if state == "torn":
            yield "torn"
        if status == 0 and state != "new":
            yield "it says that it is done"
        if fault.action == Action.RAISE and status == -fault.value:
            return
        if status not in _STATUSES:
            yield f"it ends with {status}"
        if status and (said.count("\n") != 1 or "Internal error" in said):
            yield f"it says {said!r}"

    def _renew(self) -> State:
        shutil.rmtree(self._work, ignore_errors=True)
        self._work.mkdir()
        self.operation.prepare(self._work)
        self.operation.reset()
        return snapshot(self._work)

    def _learn_imports(self) -> None:
        """Import what the operation needs, lest every process does."""
        for name in self._modules.read_text().splitlines():
            if name not in sys.modules and not name.startswith("__"):
                with suppress(ImportError):
                    import_module(name)

    def _require(self, status: int) -> None:
        if status:
            raise RuntimeError(
                f"{self.operation.name} ends with {status}: {self._said.read_text()}"
            )

    def _fork(self, arm: Callable[[], None]) -> int:
        """Run the operation in a process of its own; return how that ends."""
        child = os.fork()
        if child == 0:
            os._exit(self._child(arm))
        _, status = os.waitpid(child, 0)
        return os.waitstatus_to_exitcode(status)

    def _child(self, arm: Callable[[], None]) -> int:
        os.chdir(self._work)
        descriptor = os.open(self._said, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(descriptor, 2)
        time.sleep = lambda _: None  # a library's pauses between attempts
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.alarm(SECONDS)
        try:
            arm()
            self.operation.run()
        except SystemExit as ended:
            status = ended.code if isinstance(ended.code, int) else 0
        except KeyboardInterrupt:
            sys.stderr.write("Interrupted.\n")
            status = 130
        except BaseException:  # noqa: BLE001 -- which the outcome reports
            traceback.print_exc()
            status = _CRASHED
        else:
            status = 0
        has_come = shim.disarm()
        if not self._modules.exists():
            self._modules.write_text("\n".join(sys.modules))
        sys.stderr.flush()
        return status if has_come else _MISSED


def _strangers(leftovers: list[str]) -> Iterator[str]:
    strangers = [name for name in leftovers if not any(mark in name for mark in _MARKS)]
    if strangers:
        yield f"it leaves {strangers}, which nobody recognises"
