"""Every format of the bundled checkpoint on the 10,000 test images of Fashion-MNIST.

Usage: python -m benchmarks.fashion_mnist

Needs Debian's package dataset-fashion-mnist, or its four files in a folder named with --dataset.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path

import torch

from benchmarks.int8 import save
from benchmarks.tables import installed, machine, markdown, replace_measured
from checkpoints.fashion_mnist.demo import COLUMNS, format_rows
from checkpoints.fashion_mnist.train import CHECKPOINT, DATASET, Split, load_split
from converters.errors import ConversionError
from converters.folder.folder import ConvertedFolder
from converters.formats.onnx.calibration import CALIBRATION_FOLDER
from converters.formats.registry import FORMATS
from converters.jobs.convert import convert
from converters.jobs.export import export


def main() -> None:
    """Convert, export every format that can be, measure, and put the table into the docs."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dataset", type=Path, default=DATASET)
    parser.add_argument("--formats", nargs="*", default=list(FORMATS), choices=list(FORMATS))
    options = parser.parse_args()
    torch.set_num_threads(1)
    conditions = machine()
    test = load_split(options.dataset, "t10k")
    with tempfile.TemporaryDirectory() as scratch:
        out = Path(scratch) / "out"
        labels = json.loads((CHECKPOINT.parent / "labels.json").read_text(encoding="utf-8"))
        convert(CHECKPOINT, out, labels=labels)
        save(load_split(options.dataset, "train"), out / CALIBRATION_FOLDER)
        missing = [sentence for name in options.formats if (sentence := _export(out, name))]
        text = _measured(out, test)
    replace_measured("fashion_mnist", "\n\n".join([text, *missing, conditions + _versions()]))


def _export(out: Path, name: str) -> str | None:
    """Write one artefact, verified; why not, where it cannot be."""
    if (out / FORMATS[name].file_name).is_file():
        return None
    try:
        export(out, [name])
    except ConversionError as error:
        sys.stderr.write(f"{name}: {error}\n")
        return f"{FORMATS[name].title}: {error}"
    return None


def _measured(out: Path, test: Split) -> str:
    rows = format_rows(ConvertedFolder(out), test.images, test.labels)
    return markdown([COLUMNS, *rows])


def _versions() -> str:
    extras = [package for package in ("openvino", "executorch", "ncnn") if find_spec(package)]
    return f" {installed('torch', 'onnxruntime', *extras)}."


if __name__ == "__main__":
    main()
