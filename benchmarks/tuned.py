"""How much faster `regnet tune` makes ONNX Runtime, and how near that comes to OpenVINO.

``python -m benchmarks.tuned [--networks RegNetX-200MF ...]`` converts each network, tunes it on
this machine, and runs ``model.onnx`` and ``onnx/model_tuned.onnx`` in turn, in one process: on one
thread and on two, which do not spin, one image and eight. The first is opened twice, to show what
equal files differ by. What others do on the machine makes calls slower and never faster, so the
fastest call of each counts; on one thread by its processor time, in which others have no part.
Where tuning leaves a network as it is both files have the same graph, and are not timed. Both int8
files are run beside the float32 one, calibrated on noise, since times depend on no values. It
prints the tables and writes them into ``docs/benchmarks.md``.
"""

from __future__ import annotations

import argparse
import itertools
import math
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from benchmarks.make_checkpoint import make_checkpoint
from benchmarks.runtimes import in_openvino
from benchmarks.tables import Target, installed, machine, markdown, replace_measured, targets_table
from converters.formats.onnx.formats import ONNX, ONNX_INT8, ONNX_INT8_TUNED, ONNX_TUNED
from converters.formats.onnx.runtime import OnnxRuntime
from converters.formats.onnx.tuned import processor_name, stated_tuning
from converters.jobs.convert import convert
from converters.jobs.export import export
from regnet.design_space import NETWORKS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from converters.formats.onnx.tuned import Tuning
    from converters.formats.runtime import ArtefactRuntime

    Settings = Sequence[tuple[int, int]]  # threads and images

BATCHES = (1, 8)

LEAST = 0.97
"""Of the untuned file's speed that a tuned one must have at least: equal files differ so far."""

GAIN = 1.15
"""How many times as fast small groups that are no whole blocks should become."""

SMALL, BLOCK = 48, 16
"""Which groups these are."""

_FEWEST_ROUNDS, _CALLS = 4, 2
_PICTURES, _PIXELS = 4, 256


@dataclass(frozen=True, slots=True)
class Measured:
    """One network.

    Attributes:
        tuning: What was chosen in float32, and in int8.
        faster: How many times as fast as untuned, for each of the settings; none if it is.
        noise: How many times as fast the untuned file is as itself, likewise.
        openvino: OpenVINO's time with the untuned file in units of ONNX Runtime's, with the untuned
            file and with the tuned one; one image, one thread.
        int8: How many times as fast as float32 are int8 and int8 tuned, likewise.
    """

    tuning: tuple[Tuning, Tuning]
    faster: tuple[float, ...]
    noise: tuple[float, ...]
    openvino: tuple[float, float]
    int8: tuple[float, float]


def main() -> None:
    """Prepare, measure, print, and write the page."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--networks", nargs="+", default=list(NETWORKS))
    parser.add_argument("--threads", nargs="+", type=int, default=(1, 2))
    parser.add_argument("--seconds", type=float, default=5.0, help="of each setting, at least")
    options = parser.parse_args()
    conditions = f"{processor_name()}. {machine()} {installed('onnxruntime', 'openvino')}."
    measured, settings = {}, tuple(itertools.product(options.threads, BATCHES))
    for name in options.networks:
        with tempfile.TemporaryDirectory() as scratch:
            measured[name] = measure(name, Path(scratch), settings, options.seconds)
        sys.stderr.write(f"{name} {measured[name]}\n")
        text = "\n\n".join([conditions, *tables(measured, settings)])
        replace_measured("tuned", text)  # now, for all of them take long
    sys.stdout.write(f"{text}\n")


def measure(network: str, work: Path, settings: Settings, seconds: float) -> Measured:
    """Convert, tune and time a network."""
    checkpoint, out = work / "network.pyth", work / "out"
    make_checkpoint(network, checkpoint)
    convert(checkpoint, out, formats=(ONNX.name, ONNX_TUNED.name), verify=False)
    formats = (ONNX_INT8.name, ONNX_INT8_TUNED.name)
    pictures = _noise(work / "pictures")  # no class is learnt, so none can be lost
    export(out, formats, calibration_images=pictures, largest_loss=1.0, verify=False)
    plain, tuned, int8, int8_tuned = (
        out / kind.file_name for kind in (ONNX, ONNX_TUNED, ONNX_INT8, ONNX_INT8_TUNED)
    )
    tunings = stated_tuning(tuned), stated_tuning(int8_tuned)
    faster, noise = [], []
    for threads, batch in settings if tunings[0].changes else ():
        files = {"plain": plain, "tuned": tuned, "again": plain}
        contenders = {name: OnnxRuntime(path, threads=threads) for name, path in files.items()}
        least = fastest(contenders, batch, threads, seconds)
        faster.append(least["plain"] / least["tuned"])
        noise.append(least["plain"] / least["again"])
    files = {"plain": plain, "tuned": tuned, "int8": int8, "int8 tuned": int8_tuned}
    runtimes = {name: OnnxRuntime(path) for name, path in files.items()}
    least = fastest(runtimes | {"OpenVINO": in_openvino(plain)}, 1, 1, seconds)
    return Measured(
        tunings,
        tuple(faster),
        tuple(noise),
        (least["OpenVINO"] / least["plain"], least["OpenVINO"] / least["tuned"]),
        (least["plain"] / least["int8"], least["plain"] / least["int8 tuned"]),
    )


def _noise(folder: Path) -> Path:
    folder.mkdir()
    random = np.random.default_rng(0)
    for index in range(_PICTURES):
        pixels = random.integers(0, 256, (_PIXELS, _PIXELS, 3), np.uint8)
        Image.fromarray(pixels).save(folder / f"{index}.png")
    return folder


def fastest(
    contenders: Mapping[str, ArtefactRuntime], batch: int, threads: int, seconds: float
) -> dict[str, float]:
    """Run contenders in turn for a while, and at least some rounds; the fastest call of each."""
    clock = time.process_time if threads == 1 else time.perf_counter
    pixels = np.random.default_rng(0).standard_normal((batch, 3, 224, 224), np.float32)
    least = dict.fromkeys(contenders, math.inf)
    begin, rounds = clock(), 0
    while rounds < _FEWEST_ROUNDS or clock() - begin < seconds:
        rounds += 1
        for name, network in contenders.items():
            for _ in range(_CALLS):
                start = clock()
                network(pixels)
                least[name] = min(least[name], clock() - start)
    return least


def tables(measured: Mapping[str, Measured], settings: Settings) -> list[str]:
    """The ratios of float32, those beside other things, and what is promised."""
    titles = [f"{_counted(t, 'thread')}, {_counted(b, 'image')}" for t, b in settings]
    rows = [["network", "groups, stage by stage", *titles, "A/A"]]
    others = [["network", "untuned", "tuned", "int8", "int8 tuned", "groups in int8"]]
    for name, each in measured.items():
        groups, in_int8 = map(_groups, each.tuning)
        ratios = [f"{ratio:.2f}" for ratio in each.faster] or ["as it is"] * len(settings)
        spread = f"{min(each.noise):.2f} to {max(each.noise):.2f}" if each.noise else ""
        rows.append([name, groups, *ratios, spread])
        beside = [f"{ratio:.2f}" for ratio in (*each.openvino, *each.int8)]
        others.append([name, *beside, in_int8])
    tuned = {name: each for name, each in measured.items() if each.faster}
    targets = [
        Target(f"{name}: at least as fast", min(each.faster), LEAST, "times", at_least=True)
        for name, each in tuned.items()
    ]
    targets += [
        Target(f"{name}: {GAIN} times as fast", each.faster[0], GAIN, "times", at_least=True)
        for name, each in tuned.items()
        if any(own % BLOCK and own < SMALL for own, _ in each.tuning[0].groups)
    ]
    return [markdown(rows), markdown(others), targets_table(targets)]


def _groups(tuning: Tuning) -> str:
    """How wide they are and become, where all stages say the same once."""
    said = [str(own) if own == laid else f"{own} in {laid}" for own, laid in tuning.groups]
    return said[0] if len(set(said)) == 1 else ", ".join(said)


def _counted(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


if __name__ == "__main__":
    main()
