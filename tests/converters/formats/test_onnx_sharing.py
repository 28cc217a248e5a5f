"""Sharing ONNX files, which point into the folder's weights; and what a whole export takes."""

from __future__ import annotations

import hashlib
import itertools
import json
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, cast

import onnx
import pytest
import torch

from converters.errors import InputError
from converters.folder.folder import ConvertedFolder
from converters.formats.format import ExportOptions
from converters.formats.onnx import export as exporter
from converters.formats.onnx.export import export_onnx
from converters.formats.onnx.runtime import OnnxRuntime
from regnet.config import RegNetConfig
from regnet.design_space import NETWORKS
from tests.converters.formats.onnx_helpers import (
    ALLOWED_RATIO,
    SMALL,
    error_ratio,
    exported,
    initializers,
    openvino_runtime,
    recast,
    reference,
    state_dict,
)
from tests.converters.formats.random_folder import random_folder

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.converters.formats.onnx_helpers import Runtime

CHECKOUT = Path(__file__).parents[3]
WEIGHTS = "model.safetensors"
DTYPES = {
    torch.float16: onnx.TensorProto.FLOAT16,
    torch.bfloat16: onnx.TensorProto.BFLOAT16,
    torch.float64: onnx.TensorProto.DOUBLE,
}

EXPORT_AND_MEASURE = """
import sys
from pathlib import Path
from converters.formats.onnx.export import export_onnx
from converters.folder.folder import ConvertedFolder
from converters.formats.format import ExportOptions
folder = Path(sys.argv[1])
options = ExportOptions(share_weights=sys.argv[2] == "True")
export_onnx(ConvertedFolder(folder), folder / "measured.onnx", options)
assert "torch" not in sys.modules
status = Path("/proc/self/status").read_text()
print(next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM")))
"""


@pytest.fixture(scope="module")
def large_folder(tmp_path_factory: pytest.TempPathFactory) -> ConvertedFolder:
    config = NETWORKS["RegNetY-4.0GF"].config()
    return random_folder(tmp_path_factory.mktemp("large"), config)


@pytest.fixture
def folder(tmp_path: Path) -> ConvertedFolder:
    return random_folder(tmp_path / "small", RegNetConfig(**SMALL))


def external_data(path: Path) -> Iterator[dict[str, str]]:
    for tensor in onnx.load(path, load_external_data=False).graph.initializer:
        yield {entry.key: entry.value for entry in tensor.external_data}


def sha256_in(path: Path) -> dict[str, str]:
    model = onnx.load(path, load_external_data=False)
    metadata = {entry.key: entry.value for entry in model.metadata_props}
    return cast("dict[str, str]", json.loads(metadata["weights_sha256"]))


def test_initialisers_are_the_state_dict(folder: ConvertedFolder) -> None:
    state = {n: a for n, a in state_dict(folder).items() if "num_batches_tracked" not in n}
    written = initializers(exported(folder, share=True))
    assert list(written) == list(state)
    for name, array in written.items():
        assert array.tobytes() == state[name].tobytes()


def test_the_file_of_a_large_network_is_small_and_points_inside_its_weights(
    large_folder: ConvertedFolder,
) -> None:
    path = exported(large_folder, share=True)
    assert path.stat().st_size < 300_000
    weights_size = (large_folder.path / WEIGHTS).stat().st_size
    spans = []
    for entry in external_data(path):
        assert entry["location"] == WEIGHTS
        spans.append((int(entry["offset"]), int(entry["offset"]) + int(entry["length"])))
    spans.sort()
    assert all(end <= start for (_, end), (start, _) in itertools.pairwise(spans))
    assert spans[-1][1] <= weights_size
    assert sum(end - start for start, end in spans) > 0.99 * weights_size


@pytest.mark.skipif(sys.platform != "linux", reason="reads the peak that Linux records")
@pytest.mark.parametrize(("share", "megabytes"), [(True, 90), (False, 120)])
def test_a_whole_process_stays_small_and_needs_no_torch(
    large_folder: ConvertedFolder, share: bool, megabytes: int
) -> None:
    """The weights are 83 MB; importing onnx takes 40."""
    command = [sys.executable, "-c", EXPORT_AND_MEASURE, str(large_folder.path), str(share)]
    kibibytes = subprocess.run(command, cwd=CHECKOUT, check=True, capture_output=True).stdout
    assert int(kibibytes) * 1024 < megabytes * 10**6


def test_what_protobuf_cannot_carry_is_shared(
    folder: ConvertedFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    size = exported(folder, share=False).stat().st_size
    monkeypatch.setattr(exporter, "SELF_CONTAINED_LIMIT", size)
    assert exported(folder, share=False).stat().st_size == size
    monkeypatch.setattr(exporter, "SELF_CONTAINED_LIMIT", size - 1)
    automatic = exported(folder, share=False)
    assert automatic.read_bytes() == exported(folder, share=True).read_bytes()


def test_shards_are_shared_each_with_its_own_digest(folder: ConvertedFolder) -> None:
    shards = folder.path / "shards"
    reference(folder).save_pretrained(shards, max_shard_size="20KB")  # type: ignore[operator]
    sharded = ConvertedFolder(shards)
    path = exported(sharded, share=True)
    locations = {entry["location"] for entry in external_data(path)}
    assert len(locations) > 2
    assert sha256_in(path) == {
        name: hashlib.sha256((shards / name).read_bytes()).hexdigest() for name in locations
    }
    assert error_ratio(sharded, OnnxRuntime(path)) <= ALLOWED_RATIO


def test_a_known_digest_is_not_computed_again(folder: ConvertedFolder) -> None:
    path = folder.path / "model.onnx"
    export_onnx(folder, path, ExportOptions(share_weights=True, weights_sha256={WEIGHTS: "0" * 64}))
    assert sha256_in(path) == {WEIGHTS: "0" * 64}


@pytest.mark.parametrize("runtime", [OnnxRuntime, openvino_runtime])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_other_floats_are_shared_as_they_are_and_cast_once(
    folder: ConvertedFolder, tmp_path: Path, dtype: torch.dtype, runtime: Callable[[Path], Runtime]
) -> None:
    stored = recast(folder, tmp_path, dtype)
    path = exported(stored, share=True)

    onnx.checker.check_model(path, full_check=True)
    model = onnx.load(path, load_external_data=False)
    initialisers = {tensor.name: tensor.data_type for tensor in model.graph.initializer}
    casts = {node.input[0]: node for node in model.graph.node if node.op_type == "Cast"}
    readers = [name for node in model.graph.node for name in node.input]
    assert set(initialisers.values()) == {DTYPES[dtype]}
    assert casts.keys() == initialisers.keys()
    assert all(readers.count(name) == 1 for name in casts)
    assert all(node.name == node.output[0] == f"{n}.float32" for n, node in casts.items())
    weights = (tmp_path / WEIGHTS).read_bytes()
    for (name, tensor), place in zip(state(stored).items(), external_data(path), strict=True):
        begin, length = int(place["offset"]), int(place["length"])
        assert weights[begin : begin + length] == tensor.view(torch.uint8).numpy().tobytes(), name
    assert error_ratio(stored, runtime(path)) <= ALLOWED_RATIO


def state(folder: ConvertedFolder) -> dict[str, torch.Tensor]:
    """The state dict without its counters."""
    tensors = reference(folder).state_dict()
    return {name: tensor for name, tensor in tensors.items() if "num_batches" not in name}


def test_a_file_elsewhere_is_refused(folder: ConvertedFolder, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    with pytest.raises(InputError, match=r"model\.onnx can share weights only .*\.$"):
        export_onnx(folder, path, ExportOptions(share_weights=True))
    assert not path.exists()
