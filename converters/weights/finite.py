"""Numbers that no trained network has: NaN, infinity, a negative variance.

They come of a training that diverged, and a network with one of them answers the same to every
image. They are looked for by the thread that takes a file's sha256, in bytes it has read already.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from converters.errors import InputError, first
from regnet.files.dtypes import ELEMENT_TYPES, widened

if TYPE_CHECKING:
    from collections.abc import Callable

    from converters.weights.plan import Step

_VARIANCE = "running_var"


class FiniteCheck:
    """Collects the tensors that hold a number which cannot be right."""

    def __init__(self) -> None:
        self._found: dict[str, str] = {}

    def of(self, step: Step) -> Callable[[bytes], None] | None:
        """What to call with the bytes of a step's target, some whole numbers at a time.

        Returns:
            None for counters and for what is made of zeros.
        """
        dtype = step.target.dtype
        if step.source_name is None or "float" not in dtype:
            return None
        return partial(self._look, step.source_name, dtype)

    def require(self, where: str) -> None:
        """Refuse what was found.

        Args:
            where: What the message calls the checkpoint.

        Raises:
            InputError: If a tensor holds NaN, infinity or a negative variance.
        """
        if not self._found:
            return
        named = [f"{name} {what}" for name, what in self._found.items()]
        raise InputError(
            f"{where} holds numbers that no trained network has ({first(named)}); "
            "convert an earlier checkpoint, or this one as it is with --allow-nonfinite."
        )

    def _look(self, name: str, dtype: str, data: bytes) -> None:
        import numpy as np

        numbers = widened(np.frombuffer(data, ELEMENT_TYPES[dtype].numpy), dtype)
        if not np.isfinite(numbers).all():
            self._found.setdefault(name, "is not finite")
        elif name.endswith(_VARIANCE) and (numbers < 0).any():
            self._found.setdefault(name, "is negative")
