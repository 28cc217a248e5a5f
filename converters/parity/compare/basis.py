"""What the outputs of two sides are judged by: an oracle, and the unit of error.

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

from converters.folder.folder import DEFAULT_IMAGE_SIZE
from converters.folder.inputs import PHOTOGRAPHS, SEED, photographs, verification_inputs
from converters.parity.compare.confined import TORCHSCRIPT
from converters.parity.compare.sampled import units_of
from converters.parity.compare.sides import WeightsSide, folder_of
from converters.parity.truth import Truth, run
from converters.parity.verdict import Verdict, judge
from converters.parity.verify import fresh_inputs
from regnet.config import IMAGENET_MEAN

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from converters.parity.compare.sides import ArtefactSide, Side
    from converters.parity.metrics import Batches, Inputs


_IMAGES = 3
_NATIVE = "native"


@dataclass(frozen=True)
class Judged:
    """The outputs of both sides, and the verdict on one of them.

    Attributes:
        oracle: What the oracle is, in words.
        verdict: On the other side; its ``artefact`` is ``A`` or ``B``.
        a: A's outputs: batch to name to array.
        b: B's.
    """

    oracle: str
    verdict: Verdict
    a: Batches
    b: Batches


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
    if height and width:
        random = np.random.default_rng(SEED)
        noise = random.standard_normal((_IMAGES, channels, height, width))
        inputs = {_NATIVE: noise.astype(np.float32)}
    else:
        folders = [side.folder for side in (a, b) if isinstance(side, WeightsSide)]
        inputs = (
            dict(fresh_inputs(folders[0]))
            if folders
            else verification_inputs(channels, DEFAULT_IMAGE_SIZE)
        )
        if not folders and TORCHSCRIPT not in {a.kind, b.kind}:
            del inputs[_NATIVE]  # the reference evaluator takes seconds for an image of that size
    if images:
        inputs[PHOTOGRAPHS] = photographs(folder_of(a, b), images)
    return inputs


def obstacle(a: Side, b: Side) -> str | None:
    """Why no image fits both sides, or None."""
    for axis, x, y in zip(
        ("images", "channels", "rows", "columns"), a.layout, b.layout, strict=True
    ):
        if x and y and x != y and axis != "images":
            return f"A takes {x} {axis} and B {y}"
    return None


def judge_outputs(a: Side, b: Side, inputs: Inputs) -> Judged:
    """Run both sides and judge one by the other.

    Raises:
        InputError: If a side cannot be run.
    """
    if isinstance(a, WeightsSide):
        return _by_weights(a, b, inputs, ("A", "B"))
    if isinstance(b, WeightsSide):
        return _by_weights(b, a, inputs, ("B", "A"))
    # B by A, or A by B where B alone runs quickly in float64.
    if b.kind == TORCHSCRIPT != a.kind:
        return _by_artefact(b, a, inputs, ("B", "A"))
    return _by_artefact(a, b, inputs, ("A", "B"))


def _by_weights(side: WeightsSide, other: Side, inputs: Inputs, letters: tuple[str, str]) -> Judged:
    """Judge the other side by the reference model with the weights of this one."""
    truth = Truth(side.folder, inputs)
    precision = other.runtime.precision
    outputs = run(other.runtime, truth.inputs_for(precision))
    measured = judge(outputs, truth.units(precision), truth.oracle, precision)
    verdict = Verdict(letters[1], other.runtime.name, precision, measured)
    oracle = f"the reference model with {letters[0]}'s weights in float64"
    return Judged(oracle, verdict, *_in_order(letters, truth.eager, outputs))


def _by_artefact(
    side: ArtefactSide, other: ArtefactSide, inputs: Inputs, letters: tuple[str, str]
) -> Judged:
    """Judge the other artefact by this one."""
    artefact = side.runtime
    noisy = run(artefact, inputs)
    other_order = {batch: artefact.in_another_order(pixels) for batch, pixels in inputs.items()}
    exact = {batch: artefact.in_float64(pixels) for batch, pixels in inputs.items()}
    outputs = run(other.runtime, inputs)
    measured = judge(outputs, units_of([noisy, other_order], exact), exact, artefact.noise)
    verdict = Verdict(letters[1], other.runtime.name, artefact.noise, measured)
    oracle = (
        f"{letters[0]} itself in float64, by {artefact.evaluator}; the unit is {letters[0]}'s own "
        "float32 error"
    )
    return Judged(oracle, verdict, *_in_order(letters, noisy, outputs))


def _in_order(letters: tuple[str, str], x: Batches, y: Batches) -> tuple[Batches, Batches]:
    """A's results and B's, of those of the sides so called."""
    return (x, y) if letters == ("A", "B") else (y, x)
