"""All batches in lockstep: the bits of each batch alone, in the memory of one module."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn.utils.fusion import fuse_conv_bn_eval

from converters.folder.folder import ConvertedFolder
from converters.folder.inputs import EXTREMES, verification_inputs
from converters.formats.lockstep import EAGER, ORACLE, Arithmetic, run_in_lockstep
from converters.formats.reference import ReferenceRuntime, reference_model
from converters.parity.rounding import rounded
from regnet.architecture import Architecture
from regnet.config import RegNetConfig
from regnet.files.safetensors_file import WEIGHTS_NAME, TensorSpec, header_bytes, in_file_order
from regnet.model import RegNetConvLayer
from tests.converters.formats.random_folder import random_folder
from tests.converters.parity.networks import NETWORKS, random_network

CHECKOUT = Path(__file__).parents[3]
INPUTS = verification_inputs(3, 48)
FOLDED = Arithmetic(torch.float32, folded=True)

linux = pytest.mark.skipif(sys.platform != "linux", reason="reads Linux' /proc")


def assert_same_bits(one: np.ndarray, other: np.ndarray) -> None:
    assert one.dtype == other.dtype
    assert one.shape == other.shape
    assert one.tobytes() == other.tobytes()


@pytest.mark.parametrize("arithmetic", [EAGER, Arithmetic(torch.float64)], ids=["32", "64"])
@pytest.mark.parametrize("classifier", [True, False])
@pytest.mark.parametrize("name", NETWORKS)
def test_each_batch_gets_the_bits_that_the_whole_model_gives_it_alone(
    name: str, classifier: bool, arithmetic: Arithmetic, tmp_path: Path
) -> None:
    folder = random_network(tmp_path, name, classifier=classifier).folder
    inputs = verification_inputs(folder.config.num_channels, 48)
    whole = ReferenceRuntime(folder, str(arithmetic.dtype).removeprefix("torch."))  # type: ignore[arg-type]
    results = run_in_lockstep(folder, inputs, arithmetic)
    assert list(results) == list(inputs)
    for batch, pixels in inputs.items():
        for output, expected in whole(pixels).items():
            assert_same_bits(results[batch][output], expected)


@pytest.mark.parametrize("name", NETWORKS)
def test_the_oracle_is_the_whole_model_in_float64_but_for_its_rounding(
    name: str, tmp_path: Path
) -> None:
    folder = random_network(tmp_path, name).folder
    inputs = verification_inputs(folder.config.num_channels, 48)
    whole = ReferenceRuntime(folder, "float64")
    for batch, outputs in run_in_lockstep(folder, inputs, ORACLE).items():
        expected = whole(inputs[batch])["logits"]
        assert outputs["logits"].shape == expected.shape
        assert np.abs(outputs["logits"] - expected).max() < 1e-13 * np.abs(expected).max()


def small(path: Path, dtype: torch.dtype = torch.float32) -> ConvertedFolder:
    config = RegNetConfig(
        embedding_size=8, hidden_sizes=(16, 24), depths=(1, 2), groups_width=8, num_labels=10
    )
    folder = random_folder(path, config)
    reference_model(folder, dtype).save_pretrained(path)
    return ConvertedFolder(path)


@pytest.mark.parametrize("stored", [torch.float16, torch.bfloat16, torch.float64])
def test_weights_stored_in_another_type_are_cast(stored: torch.dtype, tmp_path: Path) -> None:
    folder = small(tmp_path, stored)
    results = run_in_lockstep(folder, INPUTS, EAGER)
    for batch, pixels in INPUTS.items():
        assert_same_bits(
            results[batch]["logits"], ReferenceRuntime(folder, "float32")(pixels)["logits"]
        )


def test_folded_norms_give_the_bits_of_torchs_own_fold(tmp_path: Path) -> None:
    folder = small(tmp_path)
    model = reference_model(folder, torch.float32)
    for module in model.modules():
        if isinstance(module, RegNetConvLayer):
            module.convolution = fuse_conv_bn_eval(module.convolution, module.normalization)
            module.normalization = torch.nn.Identity()
    results = run_in_lockstep(folder, INPUTS, FOLDED)
    for batch, pixels in INPUTS.items():
        with torch.inference_mode():
            expected = model(torch.from_numpy(pixels)).logits.numpy()
        assert_same_bits(results[batch]["logits"], expected)


@pytest.mark.parametrize("precision", ["float16", "bfloat16", "int8"])
def test_rounding_changes_every_batch_a_little(precision: str, tmp_path: Path) -> None:
    folder = small(tmp_path)
    inputs = {name: pixels for name, pixels in INPUTS.items() if name != EXTREMES}
    exact = run_in_lockstep(folder, inputs, ORACLE)
    for batch, outputs in run_in_lockstep(folder, inputs, rounded(precision)).items():
        truth = exact[batch]["logits"]
        error = np.abs(outputs["logits"] - truth).max() / np.abs(truth).max()
        assert 1e-6 < error < 0.5, (batch, error)


def sparse_folder(path: Path) -> Path:
    """A gigabyte of weights, zeros but for the norms; three quarters in three tensors."""
    config = RegNetConfig(
        depths=(1, 2), hidden_sizes=(256, 8192), groups_width=64, layer_type="x", num_labels=10
    )
    config.save_pretrained(path)
    specs = in_file_order(
        TensorSpec(name, "int64" if name.endswith("num_batches_tracked") else "float32", shape)
        for name, shape in Architecture.of(config).shapes.items()
    )
    header = header_bytes(specs)
    with (path / WEIGHTS_NAME).open("wb") as file:
        file.write(header)
        file.truncate(len(header) + sum(spec.nbytes for spec in specs))
    return path


MEASURED = """
import resource, sys
from pathlib import Path
import numpy as np
import torch
from converters.folder.folder import ConvertedFolder
from converters.parity.truth import Truth

torch.set_num_threads(1)
folder = ConvertedFolder(Path(sys.argv[1]))
inputs = {"one": np.ones((1, 3, 32, 32), "f"), "two": np.ones((2, 3, 40, 40), "f")}
status = open("/proc/self/status").read().split()
data = int(status[status.index("VmData:") + 1]) << 10
limit = data + int(sys.argv[2])
resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
truth = Truth(folder, inputs)
truth.eager, truth.units()
"""


@linux
def test_a_gigabyte_runs_in_float64_in_the_memory_of_its_largest_module(tmp_path: Path) -> None:
    folder = sparse_folder(tmp_path)
    size = (folder / WEIGHTS_NAME).stat().st_size
    largest = 8192 * 8192 * 4
    assert size > 0.8e9
    # Linux counts the private mapping too, though none of it is ever copied.
    limit = size + 4 * largest
    assert limit < 2.5 * size  # mapping and float64 copy would be 3
    command = [sys.executable, "-c", MEASURED, str(folder), str(limit)]
    run = subprocess.run(command, capture_output=True, text=True, check=False, cwd=CHECKOUT)
    (folder / WEIGHTS_NAME).unlink()
    assert run.returncode == 0, run.stderr
