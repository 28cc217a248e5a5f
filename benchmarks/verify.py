"""How long verifying a folder takes, in units of the forward passes that it needs.

``python -m benchmarks.verify [--network RegNetY-4.0GF]`` builds the network, converts it with every
artefact that holds and computes float32 and needs no compiler, and measures in turn, in one
process: `verify_folder` on the folder, and nothing but the passes through its networks (the oracle,
the draws of the unit, float32 PyTorch, each artefact). Of these, what the unit costs is compared
with two runs in float32, as written and with norms folded, from which a unit could be sampled
instead. It prints the tables and writes them into ``docs/benchmarks.md``.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from benchmarks.make_checkpoint import make_checkpoint
from benchmarks.measure import Spread
from benchmarks.tables import (
    Target,
    in_words,
    installed,
    machine,
    markdown,
    replace_measured,
    targets_table,
)
from converters.folder.folder import ConvertedFolder
from converters.formats.lockstep import EAGER, Arithmetic, run_in_lockstep
from converters.formats.registry import FORMATS
from converters.jobs.convert import convert
from converters.parity.computed import drawn_in_float32
from converters.parity.golden import read_golden
from converters.parity.truth import Truth, run
from converters.parity.units import float32_units
from converters.parity.verdict import judge
from converters.parity.verify import verify_folder

if TYPE_CHECKING:
    from collections.abc import Callable

    from converters.parity.metrics import Inputs

FOLDED = Arithmetic(torch.float32, folded=True)

ARTEFACTS = ("onnx", "torchscript", "openvino")

LIMIT = 1.0
"""Checksums, certificates and loading may cost as much as is won where there are two cores."""

UNIT_LIMIT = 1.0
"""To compute the unit may cost no more than to sample it from two runs."""


def main() -> None:
    """Prepare, measure, print, and write the page."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--network", default="RegNetY-4.0GF")
    parser.add_argument("--runs", type=int, default=5, help="rounds that count, after a warm-up")
    arguments = parser.parse_args()
    conditions = (
        f"{arguments.network}. {machine()} "
        f"{installed('torch', 'onnxruntime')}. {arguments.runs} rounds in "
        "turn after a warm-up; median (smallest to largest)."
    )
    with tempfile.TemporaryDirectory() as work:
        source, out = Path(work) / f"{arguments.network}.pyth", Path(work) / "out"
        make_checkpoint(arguments.network, source)
        convert(source, out, formats=ARTEFACTS)
        text = f"{conditions}\n\n{tables(measured(ConvertedFolder(out), arguments.runs))}"
    sys.stdout.write(f"{text}\n")
    replace_measured("verify", text)


@dataclass(frozen=True, slots=True)
class Measured:
    """Seconds.

    Attributes:
        alone: Of the passes alone.
        verifying: Of a verification.
        unit: Of the draws of the unit, which are among the passes.
        sampled: Of the two runs from which it could be sampled.
    """

    alone: Spread
    verifying: Spread
    unit: Spread
    sampled: Spread


def measured(folder: ConvertedFolder, runs: int) -> Measured:
    """Time all in turn; the first round warms the file cache."""
    inputs, _ = read_golden(folder)
    oracle = Truth(folder, inputs).oracle
    passes = Passes(folder)
    steps: dict[str, Callable[[], object]] = {
        "alone": lambda: passes.run(inputs),
        "verifying": lambda: verify_folder(ConvertedFolder(folder.path)).require_pass(
            "The benchmark means nothing"
        ),
        "unit": lambda: float32_units(drawn_in_float32(folder, inputs), oracle),
        "sampled": lambda: [run_in_lockstep(folder, inputs, way) for way in (EAGER, FOLDED)],
    }
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(runs + 1):
        for name, step in steps.items():
            begin = time.perf_counter()
            step()
            seconds[name].append(time.perf_counter() - begin)
    return Measured(**{name: Spread.of(values[1:]) for name, values in seconds.items()})


def tables(seconds: Measured) -> str:
    """All, and what the project promises of them."""
    titles = ", ".join(FORMATS[name].title for name in ARTEFACTS)
    rows = [
        [f"all of {titles}", "seconds"],
        ["the forward passes alone", in_words(seconds.alone)],
        ["`verify_folder`", in_words(seconds.verifying)],
        ["of the passes, the unit's draws", in_words(seconds.unit)],
        ["two runs to sample a unit from", in_words(seconds.sampled)],
    ]
    targets = [
        Target(
            f"verifying in at most {LIMIT:g} times the time of its passes, one after the other",
            seconds.verifying.median / seconds.alone.median,
            LIMIT,
            "times",
            at_least=False,
        ),
        Target(
            "the unit in no more time than two runs to sample it from",
            seconds.unit.median / seconds.sampled.median,
            UNIT_LIMIT,
            "times",
            at_least=False,
        ),
    ]
    return f"{markdown(rows)}\n\n{targets_table(targets)}"


class Passes:
    """Every network that a verification runs; the artefacts are open."""

    def __init__(self, folder: ConvertedFolder) -> None:
        self._folder = folder
        self._artefacts = [
            FORMATS[name].load(folder.path / FORMATS[name].file_name, folder.output_names)
            for name in ARTEFACTS
        ]

    def run(self, inputs: Inputs) -> None:
        """All batches through all networks."""
        truth = Truth(self._folder, inputs)
        judge(truth.eager, truth.units(), truth.oracle)
        for artefact in self._artefacts:
            run(artefact, inputs)


if __name__ == "__main__":
    main()
