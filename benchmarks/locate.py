"""How fast every value inside an artefact is compared, beside torch.onnx's own way, in one run.

``python -m benchmarks.locate`` exports RegNetX-200MF with both, compares all values at 64x64,
prints the tables and writes them into ``docs/benchmarks.md``. With ``--calibrate 8`` it prints
instead how far the modules of right artefacts are from the reference given their own input, over
the published networks up to 8 GFLOPs: what the band was set from. torch.onnx wants onnxscript,
which the extra ``benchmarks`` installs.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import sys
import tempfile
import time
import warnings
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from benchmarks.measure import Spread
from benchmarks.parity_ratios import FORMS
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
from converters.parity.locate.location import locate
from converters.parity.locate.module_errors import BAND
from regnet import RegNetForImageClassification
from regnet.design_space import NETWORKS, complexity
from tests.oracles.statistics import randomise

if TYPE_CHECKING:
    from collections.abc import Callable, Sized

    from numpy.typing import NDArray

NETWORK = "RegNetX-200MF"
SIZE = 64
TARGET = 20.0
"""How many times faster than torch.onnx the comparison is meant to be."""


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=5, help="of ours; torch.onnx runs once")
    parser.add_argument("--calibrate", type=float, metavar="GFLOPS", help="print the band instead")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if arguments.calibrate:
        calibrate(arguments.calibrate)
    else:
        compare(arguments.runs)


def compare(runs: int) -> None:
    """Measure both, print, and write the page."""
    conditions = (
        f"{NETWORK}, {SIZE} pixels, one thread. {machine()} "
        f"{installed('torch', 'onnx', 'onnxscript', 'onnxruntime')}. "
        f"{runs} runs of `locate`, one of torch.onnx; median (smallest to largest)."
    )
    rows = [["comparison of every value inside", "values", "seconds"]]
    slowest, pixels = 0.0, noise(0)
    with tempfile.TemporaryDirectory() as path:
        model, folder = saved(Path(path), NETWORK)
        for form, (kind, options) in FORMS.items():
            file = folder.path / FORMATS[kind].file_name
            FORMATS[kind].export(folder, file, options)
            values, seconds = timed(partial(_modules, folder, kind, file, pixels), runs)
            rows.append([f"`locate`, {form}", str(values), in_words(Spread.of(seconds))])
            slowest = max(slowest, *seconds)
        values, theirs = torch_onnx(model, pixels)
    title = "`verify_onnx_program(compare_intermediates=True)`"
    rows.append([title, str(values), f"{theirs:.2f}"])
    promise = f"at its slowest at least {TARGET:g} times as fast as torch.onnx"
    target = Target(promise, theirs / slowest, TARGET, "times as fast", at_least=True)
    text = f"{conditions}\n\n{markdown(rows)}\n\n{targets_table([target])}"
    sys.stdout.write(f"{text}\n")
    replace_measured("locate", text)


def _modules(folder: ConvertedFolder, kind: str, file: Path, pixels: NDArray[np.float32]) -> Sized:
    return locate(folder, kind, file, pixels).modules


def torch_onnx(
    model: RegNetForImageClassification, pixels: NDArray[np.float32]
) -> tuple[int, float]:
    """How many values torch.onnx compares, and in how many seconds; its export does not count."""
    from torch.onnx import verification

    images = torch.from_numpy(pixels)
    model.config.return_dict = False  # torch.export takes tuples
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        program = torch.onnx.export(model.eval(), (images,), dynamo=True, verbose=False)
        if program is None:
            raise RuntimeError("torch.onnx.export gave no program; install onnxscript.")
        verify = partial(verification.verify_onnx_program, program, compare_intermediates=True)
        values, (seconds,) = timed(verify, 1)
    return values, seconds


def calibrate(most: float) -> None:
    """Print the largest local error of right artefacts by network and form."""
    print(f"band {BAND:g}; {SIZE} pixels\n\n| network | {' | '.join(FORMS)} |")
    print("|---|" + "---|" * len(FORMS))
    for name, network in NETWORKS.items():
        if complexity(network.config(), 224).flops > most * 1e9:
            continue
        with tempfile.TemporaryDirectory() as path:
            _, folder = saved(Path(path), name)
            columns = []
            for kind, options in FORMS.values():
                file = folder.path / FORMATS[kind].file_name
                FORMATS[kind].export(folder, file, options)
                location = locate(folder, kind, file, noise(1))
                worst = max(location.modules, key=lambda module: module.local or 0)
                columns.append(f"{worst.local or 0:.2f}")
        print(f"| {name} | {' | '.join(columns)} |", flush=True)


def saved(path: Path, name: str) -> tuple[RegNetForImageClassification, ConvertedFolder]:
    """A network with weights like trained ones, and its folder."""
    model = RegNetForImageClassification(NETWORKS[name].config())
    randomise(model)
    model.save_pretrained(path)
    return model, ConvertedFolder(path)


def noise(seed: int) -> NDArray[np.float32]:
    """One image."""
    pixels = np.random.default_rng(seed).standard_normal((1, 3, SIZE, SIZE))
    return pixels.astype(np.float32)


def timed(compared: Callable[[], Sized], runs: int) -> tuple[int, list[float]]:
    """How many values were compared, and the seconds of each run."""
    seconds, count = [], 0
    for _ in range(runs):
        begin = time.perf_counter()
        count = len(compared())
        seconds.append(time.perf_counter() - begin)
    return count, seconds


if __name__ == "__main__":
    main()
