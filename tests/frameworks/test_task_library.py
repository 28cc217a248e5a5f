"""Whether phones' own libraries make of a ``.tflite`` file what the folder's network makes."""

from __future__ import annotations

import json
import subprocess
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch

from converters.folder.interface import NETWORK, Interface
from converters.formats.format import ExportOptions
from converters.formats.registry import FORMATS
from regnet import RegNetConfig, RegNetForImageClassification, RegNetImageProcessor
from tests.converters.formats.random_folder import random_folder
from tests.frameworks.environments import ROOT
from tests.frameworks.task_library import READERS

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.slow

PYTHON = ROOT / ".venv-tasks" / "bin" / "python"
SIDE = 64
INTERFACES = {
    "tflite-support": (NETWORK, Interface(1), Interface(255, softmax=True)),
    "mediapipe": (Interface(1), Interface(255), Interface(255, softmax=True)),
}
"""MediaPipe takes one mean for all channels, so that ours have to be inside."""
LABELS = ["tench, Tinca tinca", "été", *(f"class {index}" for index in range(8))]


@pytest.mark.parametrize("kind", ["litert", "litert-fp16"])
@pytest.mark.parametrize(
    ("reader", "interface"), [(name, each) for name in READERS for each in INTERFACES[name]]
)
def test_it_classifies_bytes_as_the_reference_does(
    reader: str, interface: Interface, kind: str, tmp_path: Path
) -> None:
    if not PYTHON.exists():
        pytest.skip("there is no .venv-tasks: make test-frameworks")
    config = RegNetConfig(
        embedding_size=8,
        hidden_sizes=[16, 24],
        depths=[1, 2],
        groups_width=8,
        id2label=dict(enumerate(LABELS)),
    )
    folder = random_folder(tmp_path / "folder", config)
    processor = RegNetImageProcessor(size=SIDE)
    processor.save_pretrained(folder.path)
    file, image = tmp_path / "model.tflite", tmp_path / "image.npy"
    FORMATS[kind].export(folder.offering(interface), file, ExportOptions())
    pixels = np.random.default_rng(0).integers(0, 256, (SIDE, SIDE, 3), np.uint8)
    np.save(image, pixels)

    script = ROOT / "tests" / "frameworks" / "task_library.py"
    command = [str(PYTHON), str(script), reader, str(file), str(image)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)

    prepared = processor(pixels, do_resize=False, return_tensors="pt").pixel_values
    with torch.inference_mode():
        logits = RegNetForImageClassification.from_pretrained(folder.path)(prepared).logits[0]
    scores = logits.softmax(0) if interface.softmax else logits
    exact = 1e-4 if kind == "litert" else 2e-2
    assert found == pytest.approx(dict(zip(LABELS, scores.tolist(), strict=True)), abs=exact)
