"""The entry points of ``regnet`` and ``convert-pycls`` and its sisters.

Whatever takes time is imported once Ctrl-C is listened to.

Exit status: 0 done and verified; 1 verification failed, nothing published; 2 bad input or usage;
3 refused as unsafe; 4 environment or I/O; 130 interrupted.
"""

from __future__ import annotations

import gc
import os
import sys
from io import TextIOWrapper
from typing import TYPE_CHECKING, NoReturn

from converters.cli import interrupts

if TYPE_CHECKING:
    from collections.abc import Callable

_ENVIRONMENT = 4

_COLLECTIONS = (100_000, 50, 100)
"""How seldom Python looks for objects that hold each other. By its own 700, 10, 10 importing torch
takes half as long again: of its million objects, which stay, all are gone through every time."""


def run() -> NoReturn:
    """Entry point of ``regnet``."""
    _end(_regnet)


def run_convert() -> NoReturn:
    """Entry point of ``convert-pycls``, ``convert-timm`` and so on: the name fixes the source."""
    _end(_convert)


def _regnet() -> int:
    from converters.cli import front
    from converters.cli.endings import run_app

    if front.is_asked_for():
        return run_app(lambda *_, **__: front.show(), "regnet")

    from converters.cli.app import app

    return run_app(app, "regnet")


def _convert() -> int:
    from converters.cli.app import alone
    from converters.cli.endings import run_app

    name = os.path.splitext(os.path.basename(sys.argv[0]))[0]  # noqa: PTH119, PTH122 -- no pathlib yet
    source = ["--from", name.removeprefix("convert-")]
    return run_app(alone("convert"), name, [*source, *sys.argv[1:]])


def _end(command: Callable[[], int]) -> NoReturn:
    gc.set_threshold(*_COLLECTIONS)
    interrupts.listen()
    if isinstance(sys.stdout, TextIOWrapper):  # a pipe of Windows has no UTF-8
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        status = _status(command)
        interrupts.ignore()
    except KeyboardInterrupt:
        interrupts.ignore()
        status = _say(interrupts.SENTENCE, interrupts.STATUS)
    if status == _ENVIRONMENT:  # without memory, libraries print further errors while they end
        sys.excepthook = lambda *_: None
        sys.unraisablehook = lambda _: None
    gc.freeze()  # what is left need not be gone through once more
    sys.exit(status)


def _status(command: Callable[[], int]) -> int:
    """What a command ends with; only what goes wrong while its modules are loaded arrives here."""
    try:
        return command()
    except Exception as error:
        if interrupts.happened():
            return _say(interrupts.SENTENCE, interrupts.STATUS)
        from converters.errors import is_short_of_memory, short_of_memory

        if is_short_of_memory(error):
            return _say(short_of_memory(), _ENVIRONMENT)
        raise


def _say(sentence: str, status: int) -> int:
    sys.stderr.write(f"{sentence}\n")
    return status
