"""How long verifying a folder takes, in units of the forward passes that it needs.

``python -m benchmarks.verify [--network RegNetY-4.0GF]`` builds the network, converts it with all
artefacts, and measures in turn, in one process: `verify_folder` on the folder, and nothing but the
passes through the open networks (the oracle, two honest float32 runs, each artefact).
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

from benchmarks.make_checkpoint import make_checkpoint
from converters.artefacts import FORMATS
from converters.convert import convert
from converters.folder import ConvertedFolder
from converters.parity.truth import run
from converters.parity.verify import recorded_inputs, verify_folder
from converters.runtimes.reference import ReferenceRuntime

if TYPE_CHECKING:
    from converters.parity.truth import Inputs

LIMIT = 2.0
"""Checksums, certificates and loading may cost as much as the passes themselves."""


def main() -> None:
    """Prepare, measure, print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--network", default="RegNetY-4.0GF")
    parser.add_argument("--runs", type=int, default=5, help="rounds that count, after a warm-up")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as work:
        source, out = Path(work) / f"{arguments.network}.pyth", Path(work) / "out"
        make_checkpoint(arguments.network, source)
        convert(source, out)
        measure(ConvertedFolder(out), arguments.runs)


def measure(folder: ConvertedFolder, runs: int) -> None:
    """Time both in turn and print medians, spread and ratio."""
    inputs, _ = recorded_inputs(folder)
    passes = Passes(folder)
    seconds: dict[str, list[float]] = {"forward passes": [], "verify": []}
    for _ in range(runs + 1):
        begin = time.perf_counter()
        passes.run(inputs)
        middle = time.perf_counter()
        verify_folder(ConvertedFolder(folder.path)).require_pass("The benchmark means nothing")
        end = time.perf_counter()
        seconds["forward passes"].append(middle - begin)
        seconds["verify"].append(end - middle)
    print("| what | median, smallest, largest in seconds |")
    print("|---|---|")
    for name, values in seconds.items():
        counted = values[1:]  # the first warms the file cache
        print(f"| {name} | {median(counted):.2f}, {min(counted):.2f}, {max(counted):.2f} |")
    ratio = median(seconds["verify"][1:]) / median(seconds["forward passes"][1:])
    print(f"\nratio {ratio:.2f}; target: at most {LIMIT:g}")


class Passes:
    """Every network that a verification runs, open."""

    def __init__(self, folder: ConvertedFolder) -> None:
        self._oracle = ReferenceRuntime(folder, "float64")
        self._eager = ReferenceRuntime(folder)
        self._folded = ReferenceRuntime(folder)
        self._folded.fold_norms()
        self._artefacts = [
            form.load(folder.path / form.file_name, folder.output_names)
            for form in FORMATS.values()
        ]

    def run(self, inputs: Inputs) -> None:
        """All batches through all networks."""
        for network in (self._oracle, self._eager, *self._artefacts):
            run(network, inputs)
        for pixels in inputs.values():
            self._folded(pixels, channels_last=True)


if __name__ == "__main__":
    main()
