"""How far a job is, for whoever wants to know."""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    """Who wants to know how far a job is."""

    def step(self, title: str, total: int | None = None) -> None:
        """Called when a step begins; ``total`` is of how many bytes or items, if it counts them."""

    def advance(self, amount: int) -> None:
        """Called when so many more bytes or items of the current step are done."""


class Silent:
    """Progress that nobody watches."""

    def step(self, title: str, total: int | None = None) -> None:
        """Do nothing."""

    def advance(self, amount: int) -> None:
        """Do nothing."""


SILENT = Silent()
"""What a job tells its progress where nobody asks for it."""
