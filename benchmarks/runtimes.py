"""How fast our ONNX runs, beside optimum's and timm's own exports of the same weights.

``python -m benchmarks.runtimes [--network RegNetY-4.0GF]`` converts a checkpoint of the real pycls,
has `optimum-cli` export the folder and timm's `onnx_export` the same network as `regnet convert
--to timm` writes it, and runs the three files in turn, in one process: in ONNX Runtime and in
OpenVINO, in float32, on one thread, spinning off. It prints the table and writes it into
``docs/benchmarks.md``.
"""

from __future__ import annotations

import argparse
import os
import random
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from benchmarks.optimum import installed_versions, optimum_cli
from benchmarks.tables import (
    Target,
    in_quartiles,
    installed,
    listed,
    machine,
    markdown,
    replace_measured,
    targets_table,
)
from converters.formats.onnx.runtime import open_session
from converters.formats.runtime import ArtefactRuntime
from converters.jobs.convert import convert
from converters.jobs.timing import Contender, time_in_turn
from converters.jobs.writeback import write_back

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from numpy.typing import NDArray


CHECKOUT = Path(__file__).resolve().parent.parent

OURS, AGAIN, OPTIMUM, TIMM = "regnet", "regnet, once more", "optimum", "timm"
"""Who wrote a file; ours is opened twice, to show what equal files differ by."""

AT_LEAST = 0.97
"""Of their time, ours counts as as fast: equal files differ by some percent."""

_TIMM_EXPORT = """
import sys
import tests.conftest  # torchvision without its compiled operators
import timm
from timm.utils.onnx import onnx_export
model = timm.create_model(f"local-dir:{sys.argv[1]}", pretrained=True, exportable=True)
onnx_export(model, sys.argv[2], batch_size=1, input_size=(3, 224, 224))
"""

Outputs = dict[str, "NDArray[np.floating]"]


class Network(ArtefactRuntime):
    """A file with one input and one output, in one of the two runtimes.

    Args:
        run: Takes pixels and gives logits.
        name: The runtime's.
    """

    def __init__(
        self, run: Callable[[NDArray[np.float32]], NDArray[np.floating]], name: str
    ) -> None:
        self._run = run
        self.name = name

    def __call__(self, pixel_values: NDArray[np.float32]) -> Outputs:
        """The logits, (N, classes), of pixels, (N, C, H, W)."""
        return {"logits": self._run(pixel_values)}


def main() -> None:
    """Prepare, measure, print, and write the page."""
    arguments = _arguments()
    with tempfile.TemporaryDirectory() as scratch:
        files = dict(_exports(arguments.network, Path(scratch), arguments.optimum))
        theirs = listed(installed_versions(arguments.optimum))
        conditions = (
            f"{arguments.network}, batch of 1, one thread, float32. {machine()} "
            f"{installed('onnxruntime', 'openvino', 'timm', 'torch')}; optimum's side: {theirs}. "
            f"{arguments.rounds} rounds in a random order; median (first to third quartile), "
            "ratios within each round."
        )
        _say("measuring")
        text = f"{conditions}\n\n{tables(files, arguments.rounds)}"
    sys.stdout.write(f"{text}\n")
    replace_measured("runtimes", text)


def tables(files: Mapping[str, Path], rounds: int) -> str:
    """Measure every file in every runtime, in turn; the measurements and the targets."""
    pixels = np.random.default_rng(0).standard_normal((1, 3, 224, 224), np.float32)
    networks = {
        Contender(f"{runtime}/{maker}", 1): opened(path)
        for runtime, opened in (("ONNX Runtime", in_onnxruntime), ("OpenVINO", in_openvino))
        for maker, path in files.items()
    }
    seconds = in_pairs(networks, pixels, rounds)
    logits = {each.runtime: network(pixels)["logits"] for each, network in networks.items()}
    rows = [["runtime", "file", "ms", "of our time", "difference of logits from ours"]]
    targets = []
    for key, times in seconds.items():
        runtime, maker = key.split("/")
        ours = f"{runtime}/{OURS}"
        ratios = times / seconds[ours]
        distance = np.abs(logits[key] - logits[ours]).max()
        rows.append(
            [
                runtime,
                maker,
                in_quartiles(1000 * times, 1),
                in_quartiles(ratios, 3),
                f"{distance:.1e}",
            ]
        )
        if maker in {OPTIMUM, TIMM}:
            title = f"{runtime}: our file as fast as {maker}'s (within {1 - AT_LEAST:.0%})"
            ratio = float(np.median(ratios))
            targets.append(Target(title, ratio, AT_LEAST, "times as fast", at_least=True))
    return f"{markdown(rows)}\n\n{targets_table(targets)}"


def in_pairs(
    networks: Mapping[Contender, Network], pixels: NDArray[np.float32], rounds: int
) -> dict[str, NDArray[np.float64]]:
    """Seconds of each contender in each round, so that a round's can be held against each other.

    Whoever runs after whom is drawn anew in each round: a cold cache or a slow minute then falls on
    all alike.
    """
    order = list(networks)
    seconds: dict[str, list[float]] = {contender.runtime: [] for contender in order}
    shuffle = random.Random(0).shuffle  # noqa: S311 -- an order, not a secret
    for _ in range(rounds):
        shuffle(order)
        timings = time_in_turn({each: networks[each] for each in order}, [pixels], 1)
        for contender, (timing,) in timings.items():
            if isinstance(timing, str):
                raise RuntimeError(f"{contender.runtime} cannot be run ({timing}).")
            seconds[contender.runtime].append(timing.median)
    return {key: np.array(times) for key, times in seconds.items()}


def in_onnxruntime(path: Path) -> Network:
    """Open a file in ONNX Runtime as `regnet bench` does: one thread that does not spin."""
    session = open_session(path)
    name = session.get_inputs()[0].name
    return Network(lambda pixels: session.run(None, {name: pixels})[0], "ONNX Runtime")


def in_openvino(path: Path) -> Network:
    """Open a file in OpenVINO, on one thread, in float32 whatever the processor prefers."""
    import openvino

    settings = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1}
    network = openvino.Core().compile_model(path, "CPU", settings)
    return Network(lambda pixels: network(pixels)[0], "OpenVINO")


def _exports(network: str, scratch: Path, environment: Path) -> Iterator[tuple[str, Path]]:
    """Who writes ONNX, and the file."""
    checkpoint, out = scratch / f"{network}.pyth", scratch / "out"
    _say("our export")
    _run("-m", "benchmarks.make_checkpoint", network, str(checkpoint))
    convert(checkpoint, out)
    yield OURS, out / "model.onnx"
    yield AGAIN, out / "model.onnx"
    _say("optimum's")
    optimum, task = scratch / "optimum", ("--task", "image-classification")
    program = optimum_cli(environment.absolute())
    command = [str(program), "export", "onnx", "-m", str(out), *task, str(optimum)]
    subprocess.run(command, check=True, stdout=sys.stderr)  # noqa: S603 -- the contender
    yield OPTIMUM, optimum / "model.onnx"
    _say("timm's")
    write_back(out, scratch / "timm", TIMM)
    _run("-c", _TIMM_EXPORT, str(scratch / "timm"), str(scratch / "timm.onnx"))
    yield TIMM, scratch / "timm.onnx"


def _run(*arguments: str) -> None:
    """Run Python on this checkout, apart, so that its memory is not the measuring process's."""
    environment = os.environ | {"PYTHONPATH": str(CHECKOUT)}
    command = [sys.executable, *arguments]
    subprocess.run(command, env=environment, check=True, stdout=sys.stderr)  # noqa: S603 -- our own


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--network", default="RegNetY-4.0GF")
    parser.add_argument("--rounds", type=int, default=30, help="of two timed calls each")
    parser.add_argument(
        "--optimum",
        type=Path,
        default=CHECKOUT / ".venv-optimum",
        help="optimum's virtual environment, made if it is missing",
    )
    return parser.parse_args()


def _say(text: str) -> None:
    sys.stderr.write(f"{text}\n")


if __name__ == "__main__":
    main()
