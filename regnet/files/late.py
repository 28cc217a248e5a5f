"""Functions and classes by the place where they are defined, imported when they are first needed.

What a table names need not be installed, or cost a second to import, unless it is used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable


def imported(place: str) -> Any:
    """Import what a place holds.

    Args:
        place: ``module:name``.

    Raises:
        ImportError: If there is no such module.
        AttributeError: If it has nothing of this name.
    """
    module, _, name = place.partition(":")
    return getattr(import_module(module), name)


def lazily(place: str) -> Callable[..., Any]:
    """A function or class as one that is imported when it is first called; see :func:`imported`."""

    def call(*arguments: Any, **named: Any) -> Any:
        return imported(place)(*arguments, **named)

    return call
