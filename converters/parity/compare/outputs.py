"""What two sides compute, judged by an oracle and the unit of error, and told in plain numbers.

A side with weights has the reference model, and so the oracle and the unit of docs/parity.md. Two
artefacts have neither. Then one of them is run in float64 itself: TorchScript by doubling its
module, ONNX in ONNX's own reference evaluator. That is the oracle, and what the same artefact gets
wrong in float32 is the unit: as the noise of one honest computation, which the other must not
exceed by more than the limits. It says nothing of whether that artefact is right.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from converters.errors import InputError
from converters.folder.folder import DEFAULT_IMAGE_SIZE
from converters.folder.inputs import PHOTOGRAPHS, SEED, photographs, verification_inputs
from converters.parity.compare.foreign import TORCHSCRIPT
from converters.parity.compare.sides import WeightsSide
from converters.parity.metrics import Batches, Errors, TopK, best_classes, rms
from converters.parity.truth import Truth, run
from converters.parity.verdict import Verdict, judge
from converters.parity.verify import fresh_inputs
from regnet.config import IMAGENET_MEAN

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from converters.parity.compare.sides import Side
    from converters.parity.metrics import Inputs

_IMAGES = 3
_NATIVE = "native"

_LEAST = 2 * float(np.finfo(np.float32).eps)
"""Relative to the output: two roundings, which no float32 network does better but by luck."""

_BORROWED = 16
"""Values that the unit of a batch borrows from all batches: many where an output has two values,
on which honest runs are now and then right to the last bit by luck, nothing beside a thousand."""

_DOUBT = 2.0
"""How much wider the unit of a single value is: the ratio of two single draws has a long tail. It
falls with the number of values."""


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


def shared_inputs(a: Side, b: Side, images: Sequence[Path]) -> Inputs:
    """The verification inputs, as both sides take them.

    Where an artefact fixes height and width, there is noise of that size instead of other sizes.

    Args:
        a: A side.
        b: The other.
        images: Photographs to run as well.

    Raises:
        InputError: If a photograph cannot be read, or no side says how to prepare it.
    """
    _, channels, height, width = (x or y for x, y in zip(a.layout, b.layout, strict=True))
    channels = channels or len(IMAGENET_MEAN)
    folders = [side.folder for side in (a, b) if isinstance(side, WeightsSide)]
    if height and width:
        random = np.random.default_rng(SEED)
        noise = random.standard_normal((_IMAGES, channels, height, width))
        inputs = {_NATIVE: noise.astype(np.float32)}
    elif folders:
        inputs = dict(fresh_inputs(folders[0]))
    else:
        inputs = verification_inputs(channels, DEFAULT_IMAGE_SIZE)
        if TORCHSCRIPT not in {a.kind, b.kind}:
            del inputs[_NATIVE]  # the reference evaluator takes seconds for an image of that size
    if images:
        if not folders:
            raise InputError(
                f"Neither {a.name} and {b.name} says how pictures are prepared; leave out "
                "--images, or compare with a checkpoint or a converted folder."
            )
        inputs[PHOTOGRAPHS] = photographs(folders[0], images)
    return inputs


def obstacle(a: Side, b: Side) -> str | None:
    """Why no image fits both sides, or None."""
    for axis, x, y in zip(("channels", "rows", "columns"), a.layout[1:], b.layout[1:], strict=True):
        if x and y and x != y:
            return f"A takes {x} {axis} and B {y}"
    return None


def judge_outputs(a: Side, b: Side, inputs: Inputs) -> tuple[str, Verdict, tuple[Distance, ...]]:
    """Run both sides and judge one by the other.

    Returns:
        What the oracle is, in words; the verdict on the other side, whose ``artefact`` is ``A`` or
        ``B``; and how far B's outputs are from A's, in plain numbers.

    Raises:
        InputError: If a side cannot be run.
    """
    # B by A, unless only B has weights, or of two artefacts only B runs quickly in float64.
    swapped = not isinstance(a, WeightsSide) and (
        isinstance(b, WeightsSide) or b.kind == TORCHSCRIPT != a.kind
    )
    (own, other), (letter, judged) = ((b, a), "BA") if swapped else ((a, b), "AB")
    if isinstance(own, WeightsSide):
        truth = Truth(own.folder, inputs)
        precision = other.runtime.precision
        outputs = run(other.runtime, truth.inputs_for(precision))
        units, exact = truth.units(precision), truth.oracle
        honest = truth.eager
        oracle = f"the reference model with {letter}'s weights in float64"
    else:
        artefact = own.runtime
        precision = artefact.noise
        honest = run(artefact, inputs)
        other_order = {batch: artefact.in_another_order(pixels) for batch, pixels in inputs.items()}
        exact = {batch: artefact.in_float64(pixels) for batch, pixels in inputs.items()}
        outputs = run(other.runtime, inputs)
        units = units_of([honest, other_order], exact)
        oracle = (
            f"{letter} itself in float64, by {artefact.evaluator}; the unit is {letter}'s own "
            "float32 error"
        )
    measured = judge(outputs, units, exact, precision)
    verdict = Verdict(judged, other.runtime.name, precision, measured)
    return oracle, verdict, _distances(*((outputs, honest) if swapped else (honest, outputs)))


def _distances(a: Batches, b: Batches) -> tuple[Distance, ...]:
    """Of B's outputs from A's."""
    found = (
        Distance.of(batch, name, array, b[batch][name])
        for batch, outputs in a.items()
        for name, array in outputs.items()
        if name in b.get(batch, {})
    )
    return tuple(distance for distance in found if distance)


def units_of(runs: Sequence[Batches], oracle: Batches) -> dict[str, dict[str, Errors]]:
    """The unit of each output on each batch, where there are no weights to compute it from.

    One run of an artefact is a single draw from a distribution: another order of the same additions
    rounds otherwise. So the unit is the larger error of two, and where an output has few values, it
    is borrowed from the other batches as well.

    Args:
        runs: Outputs of honest runs: batch to output name to array.
        oracle: Likewise, in float64.

    Returns:
        Batch to output name to unit; not finite if an honest run or the oracle is not.
    """
    units: dict[str, dict[str, Errors]] = {batch: {} for batch in oracle}
    with np.errstate(invalid="ignore", over="ignore"):
        for name in dict.fromkeys(name for outputs in oracle.values() for name in outputs):
            truths = {batch: outputs[name].astype(np.float64) for batch, outputs in oracle.items()}
            worst = {batch: _worst(runs, batch, name, truth) for batch, truth in truths.items()}
            scales = _scales(truths)
            pooled = Errors(
                max=_usual(worst[batch].max / scale for batch, scale in scales.items()),
                rms=_usual(worst[batch].rms / scale for batch, scale in scales.items()),
            )
            for batch, truth in truths.items():
                units[batch][name] = _unit(worst[batch], pooled, scales[batch], truth.size)
    return units


def _scales(truths: Mapping[str, NDArray[np.float64]]) -> dict[str, float]:
    """The size of the output on each batch, but not below the usual one.

    A single logit is now and then almost zero, while the sums behind it, and so its error, are not.
    """
    sizes = {batch: rms(truth) for batch, truth in truths.items()}
    usual = _usual(sizes.values())
    return {batch: max(size, usual) or 1.0 for batch, size in sizes.items()}


def _worst(runs: Sequence[Batches], batch: str, name: str, truth: NDArray[np.float64]) -> Errors:
    errors = [Errors.of(run[batch][name], truth) for run in runs]
    return Errors(max(e.max for e in errors), max(e.rms for e in errors))


def _unit(worst: Errors, pooled: Errors, scale: float, size: int) -> Errors:
    doubt = 1 + _DOUBT / size

    def mixed(own: float, borrowed: float) -> float:
        total = size * own**2 + _BORROWED * (borrowed * scale) ** 2
        estimate = np.sqrt(total / (size + _BORROWED)) * doubt
        return float(np.max([own, estimate, _LEAST * scale]))

    return Errors(mixed(worst.max, pooled.max), mixed(worst.rms, pooled.rms))


def _usual(values: Iterable[float]) -> float:
    """The median, which one batch that amplifies rounding does not move."""
    return float(np.median(list(values)))
