"""How much faster `regnet tune` makes ONNX Runtime, and how near that comes to OpenVINO.

``python -m benchmarks.tuned [--networks RegNetX-200MF ...]`` converts each network, tunes it on
this machine, and runs ``model.onnx`` and ``onnx/model_tuned.onnx`` in turn, in one process: on one
thread and on two, which do not spin, one image and eight. The first is opened twice, to show what
equal files differ by. What others do on the machine makes calls slower and never faster, so the
fastest call of each counts; on one thread by its processor time, in which others have no part.
Where tuning leaves a network as it is both files have the same graph, and are not timed. Both int8
files are run beside the float32 one, calibrated on noise, since times depend on no values. It
prints the tables, writes them into ``docs/benchmarks.md``, and draws ``docs/latency.svg``: what one
image takes on one thread, beside optimum's file, OpenVINO, and PyTorch run by timm, torchvision and
transformers.
"""

from __future__ import annotations

import argparse
import itertools
import math
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from pathlib import Path
from statistics import mean
from typing import TYPE_CHECKING

import numpy as np
import torch
from PIL import Image

from benchmarks.make_checkpoint import make_checkpoint
from benchmarks.optimum import optimum_cli
from benchmarks.runtimes import Network, in_onnxruntime, in_openvino
from benchmarks.sizes.plot import Line, Panel, growth_svg
from benchmarks.tables import Target, installed, machine, markdown, replace_measured, targets_table
from converters.formats.onnx.formats import ONNX, ONNX_INT8, ONNX_INT8_TUNED, ONNX_TUNED
from converters.formats.onnx.runtime import OnnxRuntime
from converters.formats.onnx.tuned import stated_tuning
from converters.jobs.convert import convert
from converters.jobs.export import export
from regnet.design_space import NETWORKS, complexity
from regnet.files.system import processor_name

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from numpy.typing import NDArray
    from torch import nn

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

NEAR, MOST = 0.9, 20 / 24
"""Of OpenVINO's speed with the untuned file, and on which share of the networks a tuned one has."""

QUICK = 2.3
"""How many times as fast as float32 int8 should be on every network, in its best way."""

OURS, TUNED, INT8, INT8_TUNED = "model.onnx", "tuned", "int8", "int8 tuned"
OPTIMUM, OPENVINO = "optimum's ONNX", "model.onnx in OpenVINO"
INT8_OPENVINO = "int8 in OpenVINO"
PEERS = ("timm, eager", "torchvision, eager", "transformers, eager")
WAYS = (OURS, TUNED, INT8, INT8_TUNED, INT8_OPENVINO, OPENVINO, OPTIMUM, *PEERS)
"""To run a network, on the same processor. All but int8 give the same numbers."""

CHECKOUT = Path(__file__).resolve().parent.parent
PLOT = CHECKOUT / "docs" / "latency.svg"

_FEWEST_ROUNDS, _CALLS = 4, 2
_PICTURES, _PIXELS = 4, 256


@dataclass(frozen=True, slots=True)
class Measured:
    """One network.

    Attributes:
        tuning: What was chosen in float32, and in int8.
        faster: How many times as fast as untuned, for each of the settings; none if it is.
        noise: How many times as fast the untuned file is as itself, likewise.
        seconds: Of one image on one thread, for each of :data:`WAYS` that there is.
    """

    tuning: tuple[Tuning, Tuning]
    faster: tuple[float, ...]
    noise: tuple[float, ...]
    seconds: Mapping[str, float]


def main() -> None:
    """Prepare, measure, print, and write the page."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--networks", nargs="+", default=list(NETWORKS))
    parser.add_argument("--threads", nargs="+", type=int, default=(1, 2))
    parser.add_argument(
        "--optimum",
        type=Path,
        default=CHECKOUT / ".venv-optimum",
        help="optimum's virtual environment, made if it is missing",
    )
    parser.add_argument("--seconds", type=float, default=5.0, help="of each setting, at least")
    options = parser.parse_args()
    torch.set_num_threads(1)
    program = optimum_cli(options.optimum)
    packages = ("onnxruntime", "openvino", "torch", "timm", "torchvision", "transformers")
    conditions = f"{processor_name()}. {machine()} {installed(*packages)}."
    measured, settings = {}, tuple(itertools.product(options.threads, BATCHES))
    for name in options.networks:
        with tempfile.TemporaryDirectory() as scratch:
            work = Path(scratch)
            measured[name] = measure(name, work, settings, options.seconds, program)
        sys.stderr.write(f"{name} {measured[name]}\n")
        parts = [conditions, *tables(measured, settings)]
        if len({key[: len("RegNetX")] for key in measured}) > 1:  # a panel needs points
            PLOT.write_text(plotted(measured), encoding="utf-8")
            parts.append("![One image on one thread](latency.svg)")
        text = "\n\n".join(parts)
        replace_measured("tuned", text)  # now, for all of them take long
    sys.stdout.write(f"{text}\n")


def measure(
    network: str, work: Path, settings: Settings, seconds: float, optimum: Path
) -> Measured:
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
    theirs = work / "optimum"
    task = ("--task", "image-classification")
    command = [str(optimum), "export", "onnx", "-m", str(out), *task, str(theirs)]
    subprocess.run(command, check=True, capture_output=True)  # noqa: S603 -- our own
    files = {OURS: plain, TUNED: tuned, INT8: int8, INT8_TUNED: int8_tuned}
    files[OPTIMUM] = theirs / "model.onnx"
    ways = {name: in_onnxruntime(path) for name, path in files.items()}
    ways |= {OPENVINO: in_openvino(plain), INT8_OPENVINO: in_openvino(int8)}
    ways |= dict(_eager(network, out))
    return Measured(tunings, tuple(faster), tuple(noise), fastest(ways, 1, 1, seconds))


def _eager(name: str, folder: Path) -> Iterator[tuple[str, Network]]:
    """The network in the frameworks that have it, run by PyTorch as they are."""
    import_module("tests.conftest")  # torchvision without its compiled operators
    import timm
    from torchvision.models import get_model, list_models
    from transformers import RegNetForImageClassification

    size = name.partition("-")[2].removesuffix("F")  # 200M or 1.6G
    layer = name[len("RegNet")].lower()
    hundreds = float(size[:-1]) / (100 if size.endswith("M") else 0.1)
    networks = [timm.create_model(f"regnet{layer}_{hundreds:03.0f}"), None, None]
    of_torchvision = f"regnet_{layer}_{size.lower().replace('.0', '').replace('.', '_')}f"
    if of_torchvision in list_models():
        networks[1] = get_model(of_torchvision)
    networks[2] = RegNetForImageClassification.from_pretrained(folder)
    for peer, network in zip(PEERS, networks, strict=True):
        if network is not None:
            yield peer, Network(partial(_run_eagerly, network.eval()), peer)


@torch.inference_mode()
def _run_eagerly(network: nn.Module, pixels: NDArray[np.float32]) -> NDArray[np.float32]:
    outputs = network(torch.from_numpy(pixels))
    logits: torch.Tensor = getattr(outputs, "logits", outputs)
    return logits.numpy()


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
    others = [["network", *WAYS, "groups in int8"]]
    for name, each in measured.items():
        groups, in_int8 = map(_groups, each.tuning)
        ratios = [f"{ratio:.2f}" for ratio in each.faster] or ["as it is"] * len(settings)
        spread = f"{min(each.noise):.2f} to {max(each.noise):.2f}" if each.noise else ""
        rows.append([name, groups, *ratios, spread])
        own = each.seconds[OURS]
        beside = (
            f"{own / each.seconds[way]:.2f}" if way in each.seconds else "" for way in WAYS[1:]
        )
        others.append([name, f"{1000 * own:.1f} ms", *beside, in_int8])
    tuned = {name: each for name, each in measured.items() if each.faster}
    targets = [
        Target(f"{name}: at least as fast", min(each.faster), LEAST, "times", at_least=True)
        for name, each in tuned.items()
    ]
    targets += [
        Target(f"{name}: {GAIN} times as fast", each.faster[0], GAIN, "times", at_least=True)
        for name, each in tuned.items()
        if any(own % BLOCK and 1 < own < SMALL for own, _ in each.tuning[0].groups)
    ]
    near, quick = zip(*map(_beside_openvino_and_int8, measured.values()), strict=True)
    targets += [
        Target(f"networks with {NEAR} of OpenVINO's speed", mean(near), MOST, "", at_least=True),
        Target(
            f"networks whose int8 is {QUICK} times as fast", mean(quick), 1.0, "", at_least=True
        ),
    ]
    return [markdown(rows), markdown(others), targets_table(targets)]


def _beside_openvino_and_int8(each: Measured) -> tuple[bool, bool]:
    """Whether the tuned file is near OpenVINO with the untuned one, and whether int8 is quick."""
    int8 = min(each.seconds[way] for way in (INT8, INT8_TUNED, INT8_OPENVINO))
    near = each.seconds[OPENVINO] / each.seconds[TUNED] >= NEAR
    return near, each.seconds[OURS] / int8 >= QUICK


def plotted(measured: Mapping[str, Measured]) -> str:
    """What one image takes on one thread, RegNetX on the left and RegNetY on the right, as SVG."""
    left, right = (
        Panel(
            f"RegNet{layer}: ms for an image, one thread",
            [Line(way, _points(measured, layer, way)) for way in WAYS],
        )
        for layer in "XY"
    )
    return growth_svg(left, right, "GFLOPs")


def _points(measured: Mapping[str, Measured], layer: str, way: str) -> list[tuple[float, float]]:
    return [
        (complexity(NETWORKS[name].config()).flops / 1e9, 1000 * each.seconds[way])
        for name, each in measured.items()
        if way in each.seconds and name.startswith(f"RegNet{layer}")
    ]


def _groups(tuning: Tuning) -> str:
    """How wide they are and become, where all stages say the same once."""
    said = [str(own) if own == laid else f"{own} in {laid}" for own, laid in tuning.groups]
    return said[0] if len(set(said)) == 1 else ", ".join(said)


def _counted(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


if __name__ == "__main__":
    main()
