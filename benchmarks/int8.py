"""How much faster int8 is than float32 in ONNX Runtime, and what it costs in accuracy.

``python -m benchmarks.int8 [--networks RegNetY-4.0GF ...]`` converts each network, exports it in
int8, and times both files in turn, in one process, on one thread that does not spin. Then it counts
both on the 10,000 test images of Fashion-MNIST with the bundled checkpoint, calibrated on training
images. It prints the tables and writes them into ``docs/benchmarks.md``.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from PIL import Image

from benchmarks.make_checkpoint import make_checkpoint
from benchmarks.tables import Target, installed, machine, markdown, replace_measured, targets_table
from checkpoints.fashion_mnist.train import CHECKPOINT, DATASET, Split, load_split
from converters.folder.folder import ConvertedFolder
from converters.jobs.convert import convert
from converters.jobs.export import export
from converters.jobs.predict import open_runtime
from converters.jobs.timing import Contender, Timing, time_in_turn

if TYPE_CHECKING:
    from converters.formats.runtime import ArtefactRuntime

NETWORKS = ("RegNetX-400MF", "RegNetY-800MF", "RegNetX-4.0GF", "RegNetY-4.0GF")
FORMATS = ("onnx", "onnx-int8")

PROMISED = "4.0GF"
"""Networks of which :data:`SPEED` is promised; smaller ones have too few channels in a group."""

SPEED = 2.3
"""How many times faster int8 should be."""

LOSS = 0.5
"""How many points of accuracy it may cost."""

_CALIBRATION = 100
_BATCH = 50


@dataclass(frozen=True, slots=True)
class Measured:
    """One network: milliseconds in float32 and in int8, bytes, and layers left in float."""

    timings: tuple[Timing, Timing]
    sizes: tuple[int, int]
    float_layers: int

    @property
    def faster(self) -> float:
        """How many times."""
        return self.timings[0].median / self.timings[1].median


def main() -> None:
    """Prepare, measure, print, and write the page."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--networks", nargs="+", default=NETWORKS)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--dataset", type=Path, default=DATASET)
    options = parser.parse_args()
    torch.set_num_threads(1)
    conditions = f"{machine()} {installed('onnxruntime')}. {options.rounds} rounds in turn."
    with tempfile.TemporaryDirectory() as scratch:
        work = Path(scratch)
        pictures = save(load_split(options.dataset, "train"), work / "pictures")
        speed = {name: timed(name, work, pictures, options.rounds) for name in options.networks}
        accuracy = counted(work, pictures, load_split(options.dataset, "t10k"))
    text = "\n\n".join([conditions, *tables(speed, accuracy)])
    sys.stdout.write(f"{text}\n")
    replace_measured("int8", text)


def save(split: Split, folder: Path) -> Path:
    """Write the first images as PNG, to calibrate on."""
    folder.mkdir()
    for index, image in enumerate(split.images[:_CALIBRATION]):
        Image.fromarray(image).save(folder / f"{index:03}.png")
    return folder


def timed(network: str, work: Path, pictures: Path, rounds: int) -> Measured:
    """Export a network with weights like trained ones', and time it on one image of 224 pixels."""
    out = work / network
    make_checkpoint(network, work / f"{network}.pyth")
    convert(work / f"{network}.pyth", out, verify=False)
    folder, runtimes = quantised(out, pictures, largest_loss=1.0)  # it has learnt no classes
    pixels = np.random.default_rng(0).standard_normal((1, 3, 224, 224), np.float32)
    contenders = {Contender(name, 1): runtime for name, runtime in runtimes.items()}
    timings = [own[0] for own in time_in_turn(contenders, [pixels], rounds).values()]
    slow, fast = (timing for timing in timings if isinstance(timing, Timing))
    files = (folder.path / "model.onnx", folder.path / "onnx/model_quantized.onnx")
    sizes = tuple(file.stat().st_size for file in files)
    record = json.loads((out / "conversion.json").read_text(encoding="utf-8"))["files"]
    left = record["onnx/model_quantized.onnx"]["quantisation"]["float_layers"]
    return Measured((slow, fast), (sizes[0], sizes[1]), len(left))


def quantised(
    out: Path, pictures: Path, largest_loss: float | None = None
) -> tuple[ConvertedFolder, dict[str, ArtefactRuntime]]:
    """Write the int8 artefact into a converted folder; open both."""
    export(out, FORMATS[1:], calibration_images=pictures, largest_loss=largest_loss, verify=False)
    folder = ConvertedFolder(out)
    return folder, {name: open_runtime(folder, name) for name in FORMATS}


def counted(work: Path, pictures: Path, test: Split) -> tuple[float, float, float]:
    """Percent of the test images that are right in float32, in int8, and the same in both."""
    convert(CHECKPOINT, work / "fashion", verify=False)
    folder, runtimes = quantised(work / "fashion", pictures)
    processor = folder.processor
    best: dict[str, list[int]] = {name: [] for name in FORMATS}
    for start in range(0, len(test.images), _BATCH):
        images = [Image.fromarray(image) for image in test.images[start : start + _BATCH]]
        pixels = np.concatenate([processor(image)["pixel_values"] for image in images])
        for name, runtime in runtimes.items():
            best[name] += runtime(pixels)["logits"].argmax(axis=1).tolist()
    slow, fast = (np.array(best[name]) for name in FORMATS)
    shares = (slow == test.labels, fast == test.labels, slow == fast)
    right, quantised_right, same = (100 * float(share.mean()) for share in shares)
    return right, quantised_right, same


def tables(speed: dict[str, Measured], accuracy: tuple[float, float, float]) -> list[str]:
    """Times, accuracy, and what is promised of both."""
    rows = [["network", "float32, ms", "int8, ms", "faster", "size", "layers in float32"]]
    for network, measured in speed.items():
        slow, fast = (in_milliseconds(timing) for timing in measured.timings)
        size = f"{measured.sizes[1] / measured.sizes[0]:.0%}"
        faster = f"{measured.faster:.2f} x"
        rows.append([network, slow, fast, faster, size, str(measured.float_layers)])
    right, quantised_right, same = (f"{share:.2f} %" for share in accuracy)
    counts = [
        ["Fashion-MNIST, 10,000 test images", "float32", "int8"],
        ["top-1", right, quantised_right],
        ["the same best class", "", same],
    ]
    targets = [
        Target(
            f"{name}: int8 at least {SPEED} times as fast",
            own.faster,
            SPEED,
            "times",
            at_least=True,
        )
        for name, own in speed.items()
        if name.endswith(PROMISED)
    ]
    loss = accuracy[0] - accuracy[1]
    targets.append(Target(f"at most {LOSS} points of top-1", loss, LOSS, "points", at_least=False))
    return [markdown(rows), markdown(counts), targets_table(targets)]


def in_milliseconds(timing: Timing) -> str:
    """Median (first to third quartile)."""
    numbers = (1e3 * seconds for seconds in (timing.median, timing.lower, timing.upper))
    median, lower, upper = (f"{number:.1f}" for number in numbers)
    return f"{median} ({lower} to {upper})"


if __name__ == "__main__":
    main()
