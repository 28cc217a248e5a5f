"""How fast the reference model runs in PyTorch, beside transformers' and timm's.

``python -m benchmarks.eager [--networks RegNetY-4.0GF ...] [--batches 1 64] [--device cuda]``
converts each network, loads it with ours, with ours folded (``from_pretrained(..., fold=True)``),
with transformers and with timm, and runs it as it is, with channels last, compiled, and in
autocast. All take turns in one process, in another order in each round, and ratios are those within
a round. It runs on the GPU where torch sees one, else on the CPU, prints the tables, and writes
them into ``docs/benchmarks.md``: each kind of device has a place of its own there.
"""

from __future__ import annotations

import argparse
import copy
import random
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

import tests.conftest  # noqa: F401 -- declares torchvision's operators, which timm imports
from benchmarks.make_checkpoint import make_checkpoint
from benchmarks.tables import (
    Target,
    in_quartiles,
    installed,
    machine,
    markdown,
    replace_measured,
    targets_table,
)
from converters.errors import in_words
from converters.jobs.convert import convert

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from numpy.typing import NDArray
    from torch import Tensor, nn

    Call = Callable[[], object]
    Way = Callable[[Any, Tensor], Call]

    Contenders = dict[tuple[str, str], Call]
    """Library and way to what runs the network once."""

OURS, FOLDED, TRANSFORMERS, TIMM = "regnet", "regnet, folded", "transformers", "timm"
PLAIN, AGAIN = "as it is", "as it is, once more"

AT_LEAST = 0.97
"""Of their speed, ours counts as as fast: equal models differ by some percent."""

_CLOSE = 1e-3
"""How far logits of one network may lie apart, relative to the largest."""

_PIXELS = 224


def main() -> None:
    """Measure network after network; print, and write the page."""
    arguments = _arguments()
    torch.set_num_threads(arguments.threads)
    conditions = (
        f"{_device_name(arguments)}, float32 unless it says otherwise. {machine()} "
        f"{installed('torch', 'transformers', 'timm')}. {arguments.rounds} rounds in a random "
        f"order; how many times as fast as {OURS} {PLAIN}, median (first to third quartile) of "
        "the ratios within each round."
    )
    parts = [conditions]
    for network in arguments.networks:
        with tempfile.TemporaryDirectory() as scratch:
            models = loaded(network, Path(scratch), arguments.device)
            for batch in arguments.batches:
                pixels = torch.randn(batch, 3, _PIXELS, _PIXELS, device=arguments.device)
                contenders = prepared(models, pixels, arguments.ways)
                seconds = in_turn(contenders, arguments.rounds, arguments.device)
                parts += [f"**{network}**, batch of {batch}", *tables(seconds)]
        text = "\n\n".join(parts)
        replace_measured("eager", text, f", {arguments.device}")  # now, for all of them take long
    sys.stdout.write(f"{text}\n")


def loaded(network: str, scratch: Path, device: str) -> dict[str, nn.Module]:
    """The same weights in every library, in evaluation mode.

    Raises:
        RuntimeError: If the logits differ by more than rounding.
    """
    import timm
    import transformers

    import regnet

    checkpoint, out, for_timm = (scratch / name for name in ("network.pyth", "out", "timm"))
    make_checkpoint(network, checkpoint)
    convert(checkpoint, out, formats=(), verify=False)
    convert(out, for_timm, to=TIMM, verify=False)
    ours = regnet.RegNetForImageClassification
    models: dict[str, nn.Module] = {
        OURS: ours.from_pretrained(out),
        FOLDED: ours.from_pretrained(out, fold=True),
        TRANSFORMERS: transformers.RegNetForImageClassification.from_pretrained(out),
        TIMM: timm.create_model(f"local-dir:{for_timm}", pretrained=True),
    }
    models = {name: copy.deepcopy(model).eval().to(device) for name, model in models.items()}
    pixels = torch.randn(1, 3, _PIXELS, _PIXELS, device=device)
    with torch.inference_mode():
        logits = {name: _logits(model(pixels)) for name, model in models.items()}
    for name, each in logits.items():
        if (each - logits[OURS]).abs().max() > _CLOSE * logits[OURS].abs().max():
            raise RuntimeError(f"{name} computes something else than {OURS}; nothing was measured.")
    return models


def _logits(output: Any) -> Tensor:
    logits: Tensor = getattr(output, "logits", output)
    return logits


def as_it_is(model: Any, pixels: Tensor) -> Call:
    """Call it."""
    return lambda: model(pixels)


def channels_last(model: Any, pixels: Tensor, way: Way = as_it_is) -> Call:
    """Call it with weights and pixels whose channels lie next to each other."""
    last: Any = {"memory_format": torch.channels_last}
    return way(model.to(**last), pixels.to(**last))


def compiled(model: Any, pixels: Tensor) -> Call:
    """Call what torch.compile makes of it for these sizes, in one graph."""
    return as_it_is(torch.compile(model, fullgraph=True, dynamic=False), pixels)


def autocast(dtype: torch.dtype, model: Any, pixels: Tensor) -> Call:
    """Call it where convolutions and products compute in another type."""

    def call() -> object:
        with torch.autocast(pixels.device.type, dtype=dtype):
            return model(pixels)

    return call


WAYS: Mapping[str, Way] = {
    PLAIN: as_it_is,
    "channels last": channels_last,
    "compiled": compiled,
    "bfloat16 autocast": partial(autocast, torch.bfloat16),
    "bfloat16, channels last": partial(channels_last, way=partial(autocast, torch.bfloat16)),
    "float16 autocast": partial(autocast, torch.float16),
}


def prepared(models: Mapping[str, nn.Module], pixels: Tensor, ways: Sequence[str]) -> Contenders:
    """Each library in each way, and ours once more, to show what equal models differ by."""
    torch.compiler.reset()
    contenders = {
        (library, title): way(copy.deepcopy(model), pixels)
        for title, way in WAYS.items()
        if title in {PLAIN, *ways}
        for library, model in models.items()
    }
    contenders[OURS, AGAIN] = as_it_is(copy.deepcopy(models[OURS]), pixels)
    return contenders


@torch.inference_mode()
def in_turn(
    contenders: Contenders, rounds: int, device: str
) -> dict[tuple[str, str], NDArray[np.float64] | str]:
    """Seconds of each contender in each round, or in words why it cannot be run.

    A first call, which may compile, does not count; nor does the first of each turn, since whoever
    ran before has left the caches to himself.
    """
    wait: Callable[[], object] = torch.cuda.synchronize if device == "cuda" else lambda: None
    failures: dict[tuple[str, str], str] = {}
    for key, call in contenders.items():
        sys.stderr.write(f"{', '.join(key)}\n")
        try:
            call()
        except Exception as error:  # noqa: BLE001 -- compilers raise their own classes
            failures[key] = in_words(error)
    order = [key for key in contenders if key not in failures]
    seconds: dict[tuple[str, str], list[float]] = {key: [] for key in order}
    shuffle = random.Random(0).shuffle  # noqa: S311 -- an order, not a secret
    for _ in range(rounds):
        shuffle(order)
        for key in order:
            contenders[key]()
            wait()
            begin = time.perf_counter()
            contenders[key]()
            wait()
            seconds[key].append(time.perf_counter() - begin)
    return failures | {key: np.array(times) for key, times in seconds.items()}


def tables(seconds: Mapping[tuple[str, str], NDArray[np.float64] | str]) -> Iterator[str]:
    """A row for each way with a column for each library; what is promised; what failed."""
    ours = seconds[OURS, PLAIN]
    if isinstance(ours, str):
        raise RuntimeError(f"{OURS} cannot be run ({ours}).")
    speeds = {key: ours / each for key, each in seconds.items() if not isinstance(each, str)}
    libraries = (OURS, FOLDED, TRANSFORMERS, TIMM)
    yield f"{OURS} {PLAIN}: {in_quartiles(1000 * ours, 1)} ms."
    yield markdown(
        [
            ["", *libraries],
            *(
                [way, *(_speed(speeds.get((library, way))) for library in libraries)]
                for way in dict.fromkeys((PLAIN, AGAIN, *(way for _, way in speeds)))
            ),
        ]
    )
    pairs = [
        (f"{OURS} as fast as {TRANSFORMERS} (within {1 - AT_LEAST:.0%})", (TRANSFORMERS, PLAIN)),
        (f"{FOLDED} as fast as {TRANSFORMERS}", (TRANSFORMERS, PLAIN)),
        (f"{FOLDED} as fast as {TIMM}", (TIMM, PLAIN)),
    ]
    yield targets_table(
        [
            Target(
                title, _median(speeds[own, PLAIN] / speeds[other]), limit, "times", at_least=True
            )
            for (title, other), own, limit in zip(
                pairs, (OURS, FOLDED, FOLDED), (AT_LEAST, 1.0, 1.0), strict=True
            )
        ]
    )
    failures = {key: each for key, each in seconds.items() if isinstance(each, str)}
    yield from (f"Not run: {', '.join(key)}: {why}" for key, why in failures.items())


def _speed(ratios: NDArray[np.float64] | None) -> str:
    return "" if ratios is None else in_quartiles(ratios, 2)


def _median(ratios: NDArray[np.float64]) -> float:
    return float(np.median(ratios))


def _device_name(arguments: argparse.Namespace) -> str:
    if arguments.device == "cuda":
        return torch.cuda.get_device_name()
    threads = arguments.threads
    return f"The CPU, {threads} thread{'s' * (threads > 1)}"


def _arguments() -> argparse.Namespace:
    found = "cuda" if torch.cuda.is_available() else "cpu"
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--networks", nargs="+", default=["RegNetX-200MF", "RegNetY-4.0GF"])
    parser.add_argument(
        "--batches",
        nargs="+",
        type=int,
        default=[1, 64] if found == "cuda" else [1],
        help="images at once",
    )
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS))
    parser.add_argument("--threads", type=int, default=1, help="on the CPU")
    parser.add_argument("--device", choices=("cpu", "cuda"), default=found)
    return parser.parse_args()


if __name__ == "__main__":
    main()
