"""How far two outputs are apart, in plain numbers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from converters.parity.metrics import Errors, TopK, best_classes, rms

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Distance:
    """Between A's and B's output on one batch.

    Attributes:
        batch: Name of the input.
        output: Name of the output.
        errors: Of B against A, in the output's own unit.
        relative: RMS error relative to the RMS of A's output.
        sqnr_db: Signal to noise of B in decibels, A being the signal; None if they are equal, or
            the signal is zero.
        top1: Images that keep A's best class; None where there are no logits of several classes.
        top5: Likewise of the five best, where there are more.
    """

    batch: str
    output: str
    errors: Errors
    relative: float
    sqnr_db: float | None
    top1: TopK | None
    top5: TopK | None

    @classmethod
    def of(
        cls, batch: str, output: str, a: NDArray[np.floating], b: NDArray[np.floating]
    ) -> Distance | None:
        """Measure; None of outputs that differ in shape or are not finite."""
        if a.shape != b.shape or not (np.isfinite(a).all() and np.isfinite(b).all()):
            return None
        signal = a.astype(np.float64)
        errors = Errors.of(b, signal)
        scale = rms(signal)
        top1, top5 = best_classes(b, signal)
        return cls(
            batch=batch,
            output=output,
            errors=errors,
            relative=errors.rms / scale if scale else float(errors.rms > 0),
            sqnr_db=20 * float(np.log10(scale / errors.rms)) if scale and errors.rms else None,
            top1=top1,
            top5=top5,
        )
