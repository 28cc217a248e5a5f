"""How far right artefacts are from the oracle, in the unit of the verdict, over many networks.

``python -m benchmarks.parity_ratios [--seeds 2] [--size 64]`` prints the table of docs/parity.md.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

import torch

from converters.folder.folder import ConvertedFolder
from converters.folder.inputs import verification_inputs
from converters.formats.format import ExportOptions
from converters.formats.onnx.runtime import OnnxRuntime
from converters.formats.registry import FORMATS
from converters.formats.torchscript import TorchScriptRuntime
from converters.parity.contents.tensors import certify
from converters.parity.truth import Truth, run
from converters.parity.verdict import MAX_LIMIT, RMS_LIMIT, Verdict, judge
from regnet import RegNetForImageClassification
from regnet.design_space import NETWORKS
from tests.oracles.statistics import randomise

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from converters.formats.runtime import Runtime

FORMS = {
    "ONNX": ("onnx", ExportOptions()),
    "ONNX, sharing": ("onnx", ExportOptions(share_weights=True)),
    "TorchScript": ("torchscript", ExportOptions()),
}
RUNTIMES: dict[str, Callable[..., Runtime]] = {
    "onnx": OnnxRuntime,
    "torchscript": TorchScriptRuntime,
}
THREADS = (1, 2)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=2, help="draws of weights for each network")
    parser.add_argument("--size", type=int, default=64, help="native image size, in pixels")
    parser.add_argument("--networks", nargs="+", default=list(NETWORKS), help="names, all if none")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    verdicts: dict[str, list[Verdict]] = {}
    for name in arguments.networks:
        for seed in range(arguments.seeds):
            with tempfile.TemporaryDirectory() as folder:
                for form, verdict in judged(Path(folder), name, seed, arguments.size):
                    verdicts.setdefault(form, []).append(verdict)
                    if not verdict.passed:
                        print(f"FALSE ALARM {name}, seed {seed}, {form}: {verdict.failure}")
    count = f"{len(arguments.networks)} networks x {arguments.seeds} seeds, {arguments.size} pixels"
    print(f"{count}; limits {RMS_LIMIT:g} (RMS) and {MAX_LIMIT:g} (largest)\n")
    print("| artefact | RMS ratio: smallest, median, largest | largest error's ratio | passed |")
    print("|---|---|---|---|")
    for form, found in verdicts.items():
        columns = [spread(found, ratio) for ratio in ("rms_ratio", "max_ratio")]
        passed = sum(verdict.passed for verdict in found)
        print(f"| {form} | {' | '.join(columns)} | {passed} of {len(found)} |")


def judged(folder: Path, name: str, seed: int, size: int) -> Iterator[tuple[str, Verdict]]:
    """Save a network with realistic weights, export every form, judge each on 1 and 2 threads."""
    model = RegNetForImageClassification(NETWORKS[name].config())
    randomise(model, seed=seed)
    model.save_pretrained(folder)
    converted = ConvertedFolder(folder)
    truth = Truth(converted, verification_inputs(model.config.num_channels, size))
    for form, (kind, options) in FORMS.items():
        path = folder / FORMATS[kind].file_name
        FORMATS[kind].export(converted, path, options)
        tensors = certify(converted, kind, path)
        for threads in THREADS:
            runtime = RUNTIMES[kind](path, threads=threads)
            measured = judge(run(runtime, truth.inputs), truth.units(), truth.oracle)
            verdict = Verdict(path.name, runtime.name, runtime.precision, measured, tensors)
            yield f"{form}, {threads} thread{'s' * (threads > 1)}", verdict


def spread(verdicts: list[Verdict], ratio: str) -> str:
    """Smallest, median and largest over all batches of all verdicts."""
    values = [getattr(m, ratio) for verdict in verdicts for m in verdict.measurements]
    return f"{min(values):.2f}, {median(values):.2f}, {max(values):.2f}"


if __name__ == "__main__":
    main()
