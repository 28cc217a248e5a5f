"""Judge right artefacts of random networks: each that is refused is a false alarm.

``python -m benchmarks.false_alarms [--networks 2000]`` draws networks of all frameworks
(:mod:`benchmarks.false_alarms.networks`), exports each in several formats and judges every artefact
as `regnet convert` does. What is judged is appended to a file, so that an interrupted run goes on
where it was, and several processes share a run (``--part 1/2``). It ends with status 1 if one is
refused that should not be.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from benchmarks.false_alarms.networks import draw
from benchmarks.false_alarms.summary import summary
from converters.folder.inputs import verification_inputs
from converters.formats.format import ExportOptions
from converters.formats.onnx.form import NEWEST_OPSET, OLDEST_OPSET, GraphForm
from converters.formats.registry import FORMATS
from converters.parity.truth import Truth
from converters.parity.verify import verify_artefacts

if TYPE_CHECKING:
    from benchmarks.false_alarms.networks import Drawn
    from converters.parity.verdict import Verdict

SHARES = {
    "onnx": 1.0,
    "onnx, sharing": 0.5,
    "onnx-fp16": 1.0,
    "torchscript": 0.5,
    "openvino": 1.0,
    "pt2": 0.03,
    "executorch": 0.006,
    "aotinductor": 0.002,
}
"""Formats, and in how many networks each is judged: some take seconds to write."""

_FIXED = 0.2
"""Part of the ONNX graphs that fix their sizes."""


def main() -> None:
    """Draw, judge and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--networks", type=int, default=2000, help="how many")
    parser.add_argument("--first", type=int, default=0, help="index of the first")
    parser.add_argument("--part", default="1/1", metavar="I/N", help="only every N-th network")
    parser.add_argument("--out", type=Path, default=Path("build/false-alarms.jsonl"))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    part, parts = (int(number) for number in arguments.part.split("/"))
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    done = {entry["network"] for entry in _entries(arguments.out)}
    for index in range(arguments.first + part - 1, arguments.first + arguments.networks, parts):
        if index in done:
            continue
        with tempfile.TemporaryDirectory() as folder:
            entry = judged(index, Path(folder))
        with arguments.out.open("a", encoding="utf-8") as file:
            file.write(json.dumps(entry) + "\n")
        for artefact in entry["artefacts"]:
            if artefact["failure"]:
                print(f"{index}: {entry['words']}: {artefact['format']}: {artefact['failure']}")
                sys.stdout.flush()
    text, alarms = summary(_entries(arguments.out))
    print(text)
    sys.exit(alarms > 0)


def judged(index: int, path: Path) -> dict[str, Any]:
    """Everything about one network, as plain values."""
    begin = time.process_time()
    drawn = draw(index, path)
    random = np.random.default_rng([2021, index])
    folder = drawn.folder
    truth = Truth(folder, verification_inputs(folder.config.num_channels, drawn.size))
    units = truth.units()
    seconds = {"unit": time.process_time() - begin}
    artefacts: list[dict[str, Any]] = []
    weights = verify_artefacts(folder, truth, {}).verdicts[0]
    artefacts.append(_plain("weights", weights))
    for name, share in SHARES.items():
        if random.random() < share:
            begin = time.process_time()
            artefacts.append(_plain(name, _verdict(drawn, truth, name, random)))
            seconds[name] = time.process_time() - begin
    usable = all(np.isfinite(u.rms) for named in units.values() for u in named.values())
    return {
        "network": index,
        "words": drawn.words,
        "size": drawn.size,
        "usable": bool(usable),
        "seconds": {name: round(value, 2) for name, value in seconds.items()},
        "artefacts": artefacts,
    }


def _verdict(drawn: Drawn, truth: Truth, name: str, random: np.random.Generator) -> Verdict:
    kind = name.partition(",")[0]
    form = GraphForm(opset=int(random.integers(OLDEST_OPSET, NEWEST_OPSET + 1)))
    if kind.startswith("onnx") and random.random() < _FIXED:
        batch, width = int(random.integers(1, 4)), drawn.size + 3
        form = replace(form, batch=batch, height=drawn.size, width=width)
    options = ExportOptions(share_weights=name.endswith("sharing"), form=form)
    path = drawn.folder.path / FORMATS[kind].file_name
    path.parent.mkdir(exist_ok=True)
    FORMATS[kind].export(drawn.folder, path, options)
    return verify_artefacts(drawn.folder, truth, {kind: path}).verdicts[-1]


def _plain(name: str, verdict: Verdict) -> dict[str, Any]:
    measured = [m for m in verdict.measurements if m.rms_ratio is not None]
    return {
        "format": name,
        "failure": verdict.failure,
        "ratios": {
            f"{m.batch} {m.output}": [
                float(f"{m.rms_ratio:.4g}"),
                float(f"{m.max_ratio:.4g}"),
                int(np.prod(m.shape)),
            ]
            for m in measured
        },
    }


def _entries(path: Path) -> list[dict[str, Any]]:
    if not path.is_file():
        return []
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


if __name__ == "__main__":
    main()
