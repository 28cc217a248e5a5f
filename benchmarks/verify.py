"""How long verifying a folder takes, in units of the forward passes that it needs.

``python -m benchmarks.verify [--network RegNetY-4.0GF]`` builds the network, converts it with every
artefact that holds and computes float32 and needs no compiler, and measures in turn, in one
process: `verify_folder` on the folder, and nothing but the passes through its networks (the oracle,
the draws of the unit, float32 PyTorch, each artefact). It prints the tables and writes them into
``docs/benchmarks.md``.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

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
from converters.formats.registry import FORMATS
from converters.jobs.convert import ConvertOptions, convert
from converters.parity.truth import Truth, run
from converters.parity.verdict import judge
from converters.parity.verify import recorded_inputs, verify_folder

if TYPE_CHECKING:
    from converters.parity.truth import Inputs

ARTEFACTS = ("onnx", "torchscript", "openvino")

LIMIT = 2.0
"""Checksums, certificates and loading may cost as much as the passes themselves."""


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
        convert(source, out, ConvertOptions(formats=ARTEFACTS))
        text = f"{conditions}\n\n{tables(measured(ConvertedFolder(out), arguments.runs))}"
    sys.stdout.write(f"{text}\n")
    replace_measured("verify", text)


def measured(folder: ConvertedFolder, runs: int) -> tuple[Spread, Spread]:
    """Time both in turn.

    Returns:
        Seconds of the passes alone, and of a verification.
    """
    inputs, _ = recorded_inputs(folder)
    passes = Passes(folder)
    alone, verifying = [], []
    for _ in range(runs + 1):
        begin = time.perf_counter()
        passes.run(inputs)
        middle = time.perf_counter()
        verify_folder(ConvertedFolder(folder.path)).require_pass("The benchmark means nothing")
        end = time.perf_counter()
        alone.append(middle - begin)
        verifying.append(end - middle)
    return Spread.of(alone[1:]), Spread.of(verifying[1:])  # the first warms the file cache


def tables(spreads: tuple[Spread, Spread]) -> str:
    """Both, and what the project promises of them."""
    alone, verifying = spreads
    titles = ", ".join(FORMATS[name].title for name in ARTEFACTS)
    rows = [
        [f"all of {titles}", "seconds"],
        ["the forward passes alone", in_words(alone)],
        ["`verify_folder`", in_words(verifying)],
    ]
    ratio = verifying.median / alone.median
    title = f"verifying in at most {LIMIT:g} times the time of its forward passes"
    target = Target(title, ratio, LIMIT, "times", at_least=False)
    return f"{markdown(rows)}\n\n{targets_table([target])}"


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
