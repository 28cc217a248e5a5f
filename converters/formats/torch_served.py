"""The second process of a :class:`converters.formats.torch_process.TorchProcess`."""

from __future__ import annotations

import gc
import os
from contextlib import suppress
from functools import partial
from importlib import import_module
from threading import Lock
from typing import IO, Any

from converters.formats.beside import Beside
from converters.formats.torch_process import TORCH_USERS, receive, send
from regnet.files.late import imported
from regnet.files.system import usable_cores


def serve() -> None:
    """The second process: import torch, and do what is asked until the first has gone."""
    gc.disable()  # importing torch would take half as long again: none of its objects goes
    requests, replies = _pipes()
    with suppress(Exception):  # who needs it raises that again
        import_module(TORCH_USERS)
    gc.freeze()
    gc.enable()
    lock = Lock()

    def do(number: int, place: str, arguments: tuple[Any, ...]) -> None:
        answer: tuple[int, bool, Any]
        try:
            answer = number, True, imported(place)(*arguments)
        except BaseException:  # noqa: BLE001 -- who asks does it again, and raises it
            answer = number, False, None
        with lock:
            try:
                send(replies, answer)
            except Exception:  # noqa: BLE001 -- what it gives cannot be sent, or nobody is there
                os._exit(1)

    with Beside(usable_cores() + 1) as others:
        with suppress(Exception):
            while True:
                others.take(partial(do, *receive(requests)))
        os._exit(0)  # nobody waits for what is being done


def _pipes() -> tuple[IO[bytes], IO[bytes]]:
    """Requests and replies; what libraries print goes where errors go."""
    requests, replies = os.dup(0), os.dup(1)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.dup2(2, 1)
    return os.fdopen(requests, "rb"), os.fdopen(replies, "wb")
