"""How long `from_pretrained` takes, beside transformers and timm.

``python -m benchmarks.loading [--network RegNetY-4.0GF]`` saves the network in transformers' files
and in timm's, then loads it with each library in turn, in a process of its own for every
measurement. Imports are done before the clock starts. What counts is the first load, which is the
one a user waits for; a first forward pass is timed too, since mapped weights are read there.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median

import tests.conftest  # noqa: F401 -- declares torchvision's operators, which timm imports

LIMIT = 5.0
"""How many times faster than each of the others loading should be."""

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
        operands = [str(folder), name, str(for_timm)]
        report({library: [] for library in _LIBRARIES}, operands, arguments.runs)


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


def report(seconds: dict[str, list[list[float]]], operands: list[str], runs: int) -> None:
    """Measure in turn and print medians, spread and ratios."""
    for _ in range(runs + 1):
        for library, (imports, load) in _LIBRARIES.items():
            program = _CLOCK.format(imports=imports, load=load)
            command = [sys.executable, "-c", program, *operands]
            output = subprocess.run(  # noqa: S603 -- the benchmark's own programs
                command, check=True, capture_output=True, text=True
            ).stdout
            seconds[library].append([float(number) for number in output.split()])
    print("| library | loading: median, smallest, largest in ms | first image in ms | times ours |")
    print("|---|---|---|---|")
    ours = median(load for load, _ in seconds["regnet"][1:])
    for library, rounds in seconds.items():
        loads, images = (
            [1000 * value for value in column] for column in zip(*rounds[1:], strict=True)
        )
        spread = f"{median(loads):.0f}, {min(loads):.0f}, {max(loads):.0f}"
        ratio = median(loads) / 1000 / ours
        print(f"| {library} | {spread} | {median(images):.0f} | {ratio:.1f} |")
    print(f"\ntarget: {LIMIT:g} times at least")


if __name__ == "__main__":
    main()
