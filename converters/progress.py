"""How far a job is, for whoever wants to know."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from converters.weights.inspection import Inspection


class Progress(Protocol):
    """Who wants to know how far a job is."""

    def planned(self, inspection: Inspection) -> None:
        """Called once a checkpoint is recognised and planned, before anything is written."""

    def step(self, title: str, nbytes: int | None = None) -> None:
        """Called when a step begins; ``nbytes`` if it will report its bytes."""

    def advance(self, nbytes: int) -> None:
        """Called when bytes of the current step are done."""


class Silent:
    """Progress that nobody watches."""

    def planned(self, inspection: Inspection) -> None:
        """Do nothing."""

    def step(self, title: str, nbytes: int | None = None) -> None:
        """Do nothing."""

    def advance(self, nbytes: int) -> None:
        """Do nothing."""
