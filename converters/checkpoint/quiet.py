"""Warnings that mean nothing here, ignored by one thread at a time.

Python keeps its filters for the whole process: of two threads that change them, the first to end
would take away the other's, and the last would leave its own behind.
"""

from __future__ import annotations

import warnings
from contextlib import contextmanager
from threading import RLock
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

_LOCK = RLock()


@contextmanager
def ignoring(*categories: type[Warning], message: str = "") -> Iterator[None]:
    """Ignore warnings of some categories, or of all, whose text a pattern matches."""
    with _LOCK, warnings.catch_warnings():
        for category in categories or (Warning,):
            warnings.filterwarnings("ignore", message, category)
        yield
