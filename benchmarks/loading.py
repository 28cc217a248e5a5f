"""How long `from_pretrained` takes, beside transformers and timm.

``python -m benchmarks.loading [--network RegNetY-4.0GF]`` saves the network in transformers' files
and in timm's, then loads it with each library in turn, in a process of its own for every
measurement. Imports are done before the clock starts. What counts is the first load, which is the
one a user waits for; a first forward pass is timed too, since mapped weights are read there. It
prints the tables and writes them into ``docs/benchmarks.md``.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

import tests.conftest  # noqa: F401 -- declares torchvision's operators, which timm imports
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

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

LIMIT = 5.0
"""How many times faster than each of the others loading should be."""

_MILLISECOND = 1e-3

_TIMM_NAMES = {"RegNetX-200MF": "regnetx_002", "RegNetY-4.0GF": "regnety_040"}

_CLOCK = """
import sys, time, torch
import tests.conftest  # declares torchvision's operators, which the others import
{imports}
torch.set_num_threads(1)
pixels = torch.zeros(1, 3, 224, 224)
begin = time.perf_counter()
{load}
loaded = time.perf_counter()
with torch.inference_mode():
    model(pixels)
print(loaded - begin, time.perf_counter() - loaded)
"""

_LIBRARIES = {
    "regnet": (
        "from regnet import RegNetForImageClassification",
        "model = RegNetForImageClassification.from_pretrained(sys.argv[1])",
    ),
    "transformers": (
        "from transformers import RegNetForImageClassification",
        "model = RegNetForImageClassification.from_pretrained(sys.argv[1])",
    ),
    "timm": (
        "import timm",
        "model = timm.create_model(sys.argv[2], checkpoint_path=sys.argv[3]).eval()",
    ),
}


def main() -> None:
    """Prepare, measure, print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--network", default="RegNetY-4.0GF", choices=_TIMM_NAMES)
    parser.add_argument("--runs", type=int, default=7, help="rounds that count, after a warm-up")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as work:
        folder, name = Path(work), _TIMM_NAMES[arguments.network]
        for_timm = folder / "timm.safetensors"
        save(arguments.network, folder, name, for_timm)
        seconds = measured([str(folder), name, str(for_timm)], arguments.runs)
    text = (
        f"{arguments.network}, one thread. {machine()} "
        f"{installed('torch', 'transformers', 'timm')}. {arguments.runs} rounds in turn after a "
        "warm-up, each load in a process of its own; median (smallest to largest)."
        f"\n\n{tables(seconds)}"
    )
    sys.stdout.write(f"{text}\n")
    replace_measured("loading", text)


def save(network: str, folder: Path, timm_name: str, for_timm: Path) -> None:
    """Save a network with fresh weights for every library.

    Args:
        network: A published name.
        folder: Gets ``config.json`` and ``model.safetensors``.
        timm_name: Of the same network.
        for_timm: A safetensors file under timm's names.
    """
    import timm
    from safetensors.torch import save_file

    from regnet import RegNetForImageClassification
    from regnet.design_space import NETWORKS

    RegNetForImageClassification(NETWORKS[network].config()).save_pretrained(folder)
    save_file(timm.create_model(timm_name).state_dict(), for_timm)


def measured(operands: Sequence[str], runs: int) -> dict[str, list[tuple[float, float]]]:
    """Load with each library in turn.

    Returns:
        Library to the seconds of loading and of the first image, of every round that counts.
    """
    seconds: dict[str, list[tuple[float, float]]] = {library: [] for library in _LIBRARIES}
    for _ in range(runs + 1):
        for library, (imports, load) in _LIBRARIES.items():
            program = _CLOCK.format(imports=imports, load=load)
            command = [sys.executable, "-c", program, *operands]
            output = subprocess.run(  # noqa: S603 -- the benchmark's own programs
                command, check=True, capture_output=True, text=True
            ).stdout
            loading, image = map(float, output.split())
            seconds[library].append((loading, image))
    return {library: rounds[1:] for library, rounds in seconds.items()}  # the first fills caches


def tables(seconds: Mapping[str, Sequence[tuple[float, float]]]) -> str:
    """Medians, spread and ratios, and what the project promises of them."""
    loads = {library: [load for load, _ in rounds] for library, rounds in seconds.items()}
    ours = median(loads["regnet"])
    rows = [["library", "loading, ms", "first image, ms", "of our time"]]
    for library, rounds in seconds.items():
        spread = in_words(Spread.of(loads[library]), _MILLISECOND, ".0f")
        image = median(image for _, image in rounds) / _MILLISECOND
        rows.append([library, spread, f"{image:.0f}", f"{median(loads[library]) / ours:.1f}"])
    targets = [
        Target(
            f"at least {LIMIT:g} times as fast as {library}", ratio, LIMIT, "times", at_least=True
        )
        for library in loads
        if library != "regnet"
        for ratio in [median(loads[library]) / ours]
    ]
    return f"{markdown(rows)}\n\n{targets_table(targets)}"


if __name__ == "__main__":
    main()
