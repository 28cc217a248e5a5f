"""Processes of their own that need not import anything first.

They are forks of a server, which has torch and the project in memory and computes nothing itself;
what they do afterwards to themselves (rights given up, limits, streams) is theirs alone.
"""

from __future__ import annotations

import multiprocessing
import os
import sys
from contextlib import chdir
from functools import cache
from multiprocessing import forkserver
from pathlib import Path
from typing import TYPE_CHECKING, Any

from converters.formats.confined.child import serve

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from multiprocessing.connection import Connection
    from multiprocessing.process import BaseProcess

CHECKOUT = Path(__file__).parents[2]

_SERVER = multiprocessing.get_context("forkserver")
_SERVER.set_forkserver_preload(["tests.converters.forks_imports"])


@cache
def begin() -> None:
    """Have the server there, which a session does before threads go by the working folder."""
    with chdir(CHECKOUT):  # where the server finds what it imports
        forkserver.ensure_running()


def fork(target: Callable[..., object], *arguments: Any, daemon: bool = False) -> BaseProcess:
    """Call a function in a process of its own, whose arguments can be pickled."""
    begin()
    process = _SERVER.Process(target=target, args=arguments, daemon=daemon)
    process.start()
    return process


class ForkedProgram:
    """The process of a `ConfinedProgram`, in the place of a `subprocess.Popen`.

    Args:
        arguments: What would be started, which is known.
        streams: Likewise.

    Attributes:
        stdin: Of the process.
        stdout: Likewise.
    """

    def __init__(self, arguments: Sequence[str], **streams: int) -> None:
        assert arguments[-1].endswith("import serve; serve()")
        assert streams.keys() == {"stdin", "stdout", "stderr"}
        theirs, requests = multiprocessing.Pipe(duplex=False)
        replies, answers = multiprocessing.Pipe(duplex=False)
        self._process = fork(_serve, theirs, answers, daemon=True)
        self.stdin = os.fdopen(os.dup(requests.fileno()), "wb")
        self.stdout = os.fdopen(os.dup(replies.fileno()), "rb")
        for end in (theirs, requests, replies, answers):
            end.close()

    def kill(self) -> None:
        self._process.kill()

    def wait(self) -> int:
        self._process.join()
        assert self._process.exitcode is not None
        return self._process.exitcode


def _serve(requests: Connection, replies: Connection) -> None:
    nothing = os.open(os.devnull, os.O_RDWR)
    for number, descriptor in enumerate((requests.fileno(), replies.fileno(), nothing)):
        os.dup2(descriptor, number)
    for each in (requests, replies):
        each.close()
    sys.stderr.flush()
    serve()
