"""The other end: opens a stranger's program, and answers what is asked of it until told to end."""

from __future__ import annotations

import gc
import os
import sys
from pathlib import Path
from typing import IO, Any

import numpy as np

from converters.errors import said
from converters.formats.confined.wire import MalformedMessageError, receive, send
from regnet.files.late import imported
from regnet.files.system import give_up_rights

_FOLDERS = ("TMPDIR", "TORCHINDUCTOR_CACHE_DIR")
"""Where programs write for themselves. A torch that has compiled once hands the second one down."""


def serve() -> None:
    """Give up every right that is not needed, build what the first message names, and answer."""
    gc.disable()  # it lives as long as one program, and importing torch is half as long again
    requests, replies = _pipes()
    task, _ = receive(requests, 0)
    for name in _FOLDERS:
        os.environ[name] = task["scratch"]
    confined = give_up_rights(Path(task["scratch"]), task["memory"])
    try:
        program = imported(task["build"])(*task["arguments"])
    except BaseException as error:  # noqa: BLE001 -- whatever it is, who asked must hear of it
        send(replies, _described(error), {})
        return
    stated = {name: getattr(program, name) for name in task["attributes"]}
    send(replies, {"attributes": stated, "confined": confined}, {})
    while True:
        try:
            request, arrays = receive(requests, sys.maxsize)
        except MalformedMessageError:
            return  # nobody asks any more
        try:
            results = getattr(program, request["method"])(*arrays.values(), *request["more"])
            results = results if isinstance(results, dict) else {"value": results}
            found = {name: value for name, value in results.items() if hasattr(value, "__array__")}
            plain = {name: value for name, value in results.items() if name not in found}
            send(replies, {"plain": plain}, {name: np.asarray(a) for name, a in found.items()})
        except BrokenPipeError:
            return
        except BaseException as error:  # noqa: BLE001 -- likewise
            send(replies, _described(error), {})


def _pipes() -> tuple[IO[bytes], IO[bytes]]:
    """Requests and replies; what the program itself prints goes where errors go."""
    requests, replies = os.dup(0), os.dup(1)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.dup2(2, 1)
    return os.fdopen(requests, "rb"), os.fdopen(replies, "wb")


def _described(error: BaseException) -> dict[str, Any]:
    return {"error": type(error).__name__, "words": said(error)}
