"""Recognising and planning a checkpoint, from headers alone."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from converters.checkpoint import open_checkpoint
from converters.plan import make_plan
from converters.sources.pycls import read_pycls
from regnet.design_space import named_like

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from converters.checkpoint import Checkpoint
    from converters.plan import Plan
    from converters.sources.source import Source, SourceOptions


@dataclass(frozen=True)
class Inspection:
    """What is known of a checkpoint before a weight is read.

    Attributes:
        path: The file.
        container: ``zip``, ``legacy`` or ``safetensors``.
        size: Of the file, in bytes.
        source: Framework, architecture, decisions.
        plan: What a conversion would do.
    """

    path: Path
    container: str
    size: int
    source: Source
    plan: Plan

    @property
    def network_name(self) -> str | None:
        """The published network with this architecture, or None."""
        return named_like(self.source.config)


@contextmanager
def inspected(path: Path, options: SourceOptions) -> Iterator[tuple[Checkpoint, Inspection]]:
    """Open, recognise and plan a checkpoint; it stays open inside the block.

    Args:
        path: The file.
        options: What the user decided.

    Raises:
        InputError: If it cannot be used.
        UnsafeInputError: If it would run code.
        StorageError: If it cannot be read.
    """
    with open_checkpoint(path) as checkpoint:
        source = read_pycls(checkpoint, options)
        plan = make_plan(source, path.name)
        yield checkpoint, Inspection(path, checkpoint.container, checkpoint.size, source, plan)
