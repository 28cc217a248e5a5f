"""Whether wider groups of channels, by which `regnet tune` makes ONNX faster, help other runtimes.

``python -m benchmarks.regrouped`` builds networks with the groups that they were published with,
and with groups twice as wide: the convolutions that merging neighbours leads to, whose zeros cost
what other weights do. It runs both in turn, in one process: ONNX Runtime, LiteRT, ncnn, and PyTorch
as it is; one image, one thread, by processor time. The fastest call of each counts. It prints the
table and writes it into ``docs/benchmarks.md``.
"""

from __future__ import annotations

import argparse
import math
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from benchmarks.tables import installed, machine, markdown, replace_measured
from benchmarks.tuned import fastest
from converters.folder.folder import ConvertedFolder
from converters.formats.registry import FORMATS
from converters.jobs.export import export
from converters.jobs.predict import EAGER, open_runtime
from regnet import RegNetForImageClassification
from regnet.design_space import NETWORKS

if TYPE_CHECKING:
    from regnet.config import RegNetConfig

SUBJECTS = ("RegNetX-200MF", "RegNetX-600MF", "RegNetY-1.6GF", "RegNetX-4.0GF")
"""Groups of 8, 24, 24, 40 channels."""

WRITTEN = ("onnx", "litert", "ncnn")


def main() -> None:
    """Build, measure, print, and write the page."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--networks", nargs="+", default=SUBJECTS)
    parser.add_argument("--seconds", type=float, default=5.0, help="of each network, at least")
    options = parser.parse_args()
    torch.set_num_threads(1)
    titles = ["PyTorch", *(FORMATS[name].title for name in WRITTEN)]
    rows = [["network", "groups", *titles]]
    for name in options.networks:
        ratios = [f"{ratio:.2f}" for ratio in gains(name, options.seconds)]
        width = NETWORKS[name].group_width
        rows.append([name, f"{width} as {2 * width}", *ratios])
    conditions = f"{machine()} {installed('torch', 'onnxruntime', 'ai-edge-litert', 'ncnn')}."
    text = f"{conditions}\n\n{markdown(rows)}"
    sys.stdout.write(f"{text}\n")
    replace_measured("regrouped", text)


def gains(name: str, seconds: float) -> list[float]:
    """How many times as fast wider groups are, in PyTorch and in each of :data:`WRITTEN`."""
    with tempfile.TemporaryDirectory() as scratch:
        contenders = {}
        for factor in (1, 2):
            folder = ConvertedFolder(Path(scratch) / str(factor))
            RegNetForImageClassification(regrouped(name, factor)).save_pretrained(folder.path)
            export(folder.path, WRITTEN, verify=False)
            contenders[f"{EAGER} {factor}"] = open_runtime(folder, EAGER)
            for key in WRITTEN:
                path = folder.path / FORMATS[key].file_name
                contenders[f"{key} {factor}"] = FORMATS[key].load(path, folder.output_names)
        least = fastest(contenders, 1, 1, seconds)
    return [least[f"{key} 1"] / least[f"{key} 2"] for key in (EAGER, *WRITTEN)]


def regrouped(name: str, factor: int) -> RegNetConfig:
    """A published network with groups so many times as wide, and room for whole ones."""
    network = NETWORKS[name]
    width = factor * network.group_width
    widths = [math.ceil(own / width) * width for own in network.config().hidden_sizes]
    return network.config(groups_width=width, hidden_sizes=widths)


if __name__ == "__main__":
    main()
