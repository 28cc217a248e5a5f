"""The network computed with torch as verdicts need it, in whichever process has it.

:class:`converters.parity.truth.Truth` calls these through
:meth:`converters.formats.beside.Beside.with_torch`; what they take and give can be pickled.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from converters.formats.lockstep import EAGER, ORACLE, run_in_lockstep
from converters.parity.injection import Injected, Injection
from converters.parity.metrics import Batches, Errors, Inputs, rms
from converters.parity.rounding import rounded, rounding_of
from converters.parity.units import FEWEST, Drawn, groups_of, root_mean_square, widening

if TYPE_CHECKING:
    from converters.folder.folder import ConvertedFolder


def oracle(folder: ConvertedFolder, inputs: Inputs) -> Batches:
    """Outputs in float64: batch to output name to array."""
    return run_in_lockstep(folder, inputs, ORACLE)


def eager(folder: ConvertedFolder, inputs: Inputs) -> Batches:
    """Outputs of float32 PyTorch: batch to output name to array."""
    return run_in_lockstep(folder, inputs, EAGER)


def drawn_in_float32(folder: ConvertedFolder, inputs: Inputs) -> Drawn:
    """Run the network as :func:`float32_units` needs it, for which no oracle is asked.

    Args:
        folder: Whose network it is.
        inputs: Batch to pixels, (N, num_channels, H, W), normalised.
    """
    groups = groups_of(folder, inputs)
    injections = [Injection(group.draws, seed) for seed, group in enumerate(groups)]
    pixels = {
        str(seed): np.concatenate([inputs[batch] for batch in group.images] * group.draws)
        for seed, group in enumerate(groups)
    }
    return Drawn(groups, [*run_in_lockstep(folder, pixels, Injected(injections)).values()])


def reduced_units(
    folder: ConvertedFolder, inputs: Inputs, oracle: Batches, precision: str
) -> dict[str, dict[str, Errors]]:
    """The unit of float16, bfloat16 or int8 for each output on each batch.

    The first draw rounds to nearest, as artefacts do; in the others a value between two steps goes
    to either. A unit is no smaller than what rounding the outputs makes.

    Args:
        folder: Whose network it is.
        inputs: Batch to pixels, (N, num_channels, H, W), normalised.
        oracle: Batch to output name to array, in float64.
        precision: Of :data:`converters.parity.rounding.PRECISIONS`.

    Returns:
        As :func:`float32_units`.

    Raises:
        InputError: If the precision is another.
    """
    draws = max(FEWEST, min(group.draws for group in groups_of(folder, inputs)))
    repeated = {batch: np.concatenate([pixels] * draws) for batch, pixels in inputs.items()}
    drawn = run_in_lockstep(folder, repeated, rounded(precision, draws))
    units: dict[str, dict[str, Errors]] = {batch: {} for batch in inputs}
    for batch, outputs in drawn.items():
        for name, output in outputs.items():
            truth = oracle[batch][name]
            each = output.reshape(draws, -1, *output.shape[1:])
            nearest = root_mean_square(each[:1], truth)
            unit = root_mean_square(each, truth).times(widening(each, truth))
            last = rounding_of(truth, precision)
            least = Errors(float(last.max(initial=0)), rms(last))
            units[batch][name] = unit.at_least(nearest).at_least(least)
    return units
