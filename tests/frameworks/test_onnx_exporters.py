"""ONNX files as exporters write them, small and of published size; ``make test-frameworks``."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import numpy as np
import pytest
from safetensors.numpy import load_file

from converters.jobs.convert import convert
from converters.jobs.verify import verify
from converters.parity.verdict import PROVEN
from regnet import RegNetForImageClassification, RegNetModel
from tests.frameworks.onnx_exporters import (
    EXPORTERS,
    NETWORKS,
    OPTIMUM,
    PUBLISHED,
    ROOT,
    SCRIPT,
    images,
)
from tests.frameworks.test_recorded import LIMIT, difference

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.slow

NOT_FOLDED = {"torch-plain"}


def require(exporter: str) -> None:
    needed = {"optimum": OPTIMUM, "torch-older": ROOT, "regnet": ROOT}.get(exporter, SCRIPT)
    if not needed.exists():
        pytest.skip(f"{exporter} has no environment: make test-frameworks")


@pytest.mark.parametrize("network", [*NETWORKS, PUBLISHED])
@pytest.mark.parametrize("exporter", EXPORTERS)
def test_an_export_comes_in_is_proven_and_goes_out_again(
    exporter: str, network: str, tmp_path: Path
) -> None:
    require(exporter)
    command = [sys.executable, "-m", "tests.frameworks.onnx_exporters", exporter, network, tmp_path]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    file, own, back = tmp_path / "model.onnx", tmp_path / "own", tmp_path / "back"
    theirs = np.load(tmp_path / "output.npy")

    # In: the file becomes a folder with every format, which computes what the framework does.
    converted = convert(file, back)
    assert converted.report is not None
    assert converted.report.passed
    assert difference(output_of(back), theirs) < LIMIT

    # The folder of the framework's own weights proves the file, tensor by tensor.
    convert(tmp_path / "source", own, formats=(), verify=False)
    for folder in (own, back):
        verdict = verify(folder, artefacts=file).verdicts[-1]
        assert verdict.passed, verdict.failure
        assert verdict.graph == (None if exporter == "regnet" else PROVEN)
        assert verdict.tensors is not None
        assert (verdict.tensors.recomputed > 0) == (exporter not in NOT_FOLDED)
        assert folder == own or verdict.tensors.ulps == 0

    if exporter in NOT_FOLDED:
        ours, source = (load_file(folder / "model.safetensors") for folder in (back, own))
        assert ours.keys() == source.keys()
        for name in ours:
            if not name.endswith("tracked"):
                assert ours[name].tobytes() == source[name].tobytes(), name


def output_of(folder: Path) -> np.ndarray:
    import torch

    is_trunk = "classifier.1.weight" not in load_file(folder / "model.safetensors")
    with torch.inference_mode():
        if is_trunk:
            pooled = RegNetModel.from_pretrained(folder)(images()).pooler_output
            return np.asarray(pooled.flatten(1).numpy())
        return np.asarray(RegNetForImageClassification.from_pretrained(folder)(images()).logits)
