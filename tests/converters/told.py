"""A progress that keeps what it was told."""

from __future__ import annotations


class Told:
    """The titles and totals of steps, and the amounts that were done, in their order."""

    def __init__(self) -> None:
        self.titles: list[str] = []
        self.totals: list[int | None] = []
        self.amounts: list[int] = []

    def step(self, title: str, total: int | None = None) -> None:
        self.titles.append(title)
        self.totals.append(total)

    def advance(self, amount: int) -> None:
        self.amounts.append(amount)
