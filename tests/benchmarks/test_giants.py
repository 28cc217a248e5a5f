"""Giants, in small: real readers read them, and every number is the one that was made."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from importlib.util import find_spec
from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.giants.containers import CONTAINERS
from benchmarks.giants.content import Content, Part
from benchmarks.giants.layouts import LAYOUTS
from benchmarks.giants.make import Recipe, make
from benchmarks.giants.networks import STAGE_PARTS, config_of, published_names
from benchmarks.giants.sparse import PAGE, SparseFile, zero_between
from benchmarks.giants.vissl import in_part
from converters.checkpoint import open_any
from converters.checkpoint.values import StoredTensor
from converters.errors import InputError
from converters.families.family import tensor_chunks
from converters.families.options import SourceOptions
from converters.weights.inspection import inspected
from regnet import RegNetConfig, RegNetForImageClassification
from tests.converters.stored import stored
from tests.oracles.loaders import load, torchvision_network

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from torch import nn

NESTED = {"trainer", "consolidated", "shards", "slices"}
COMBINATIONS = [
    (framework, layout, container)
    for framework, layouts in LAYOUTS.items()
    for layout, container in product(layouts, CONTAINERS)
    if not (layout in NESTED and container == "safetensors")
]
ONE_FILE = [
    (framework, layout, container)
    for framework, layout, container in COMBINATIONS
    if layout not in {"shards", "slices", "folder"} and container != "safetensors"
]

RULED: dict[str, Any] = {
    "embedding_size": 32,
    "hidden_sizes": [16, 24, 40, 64],
    "depths": [1, 1, 1, 3],
    "groups_width": 8,
    "num_labels": 5,
}
"""A network that follows the linear rule, so that every framework has it."""

WIDE = RegNetConfig(hidden_sizes=[64, 1152], depths=[1, 1], groups_width=64, num_labels=1000)
"""A small network with filters of more than a page."""


def small(framework: str) -> RegNetConfig:
    return RegNetConfig(
        num_channels=3, layer_type="x" if framework == "mmpretrain" else "y", **RULED
    )


def made(path: Path, framework: str, **fields: Any) -> Path:
    make(small(framework), path, Recipe(framework, classes=RULED["num_labels"], **fields))
    return path


def numbers(content: Content, name: str, tensor: StoredTensor) -> bytes:
    part = Part("", name, stored(tensor.shape, tensor.dtype), tensor.dtype, source=name)
    return b"".join(content.chunks(part, 0))


def leaves(tree: Any) -> Iterator[Any]:
    if isinstance(tree, (torch.Tensor, StoredTensor)):
        yield tree
    for value in tree.values() if isinstance(tree, dict) else ():
        yield from leaves(value)


def kernel(path: Path) -> tuple[int, np.ndarray]:
    """Where the last block's last kernel of torchvision's :data:`WIDE` begins; its elements."""
    with open_any(path) as checkpoint:
        tree: Any = checkpoint.tree
        tensor = tree["trunk_output.block2.block2-0.f.c.0.weight"]
        return tensor.storage.offset, checkpoint.array(tensor).reshape(-1)


def bits(tensor: torch.Tensor) -> bytes:
    return tensor.detach().reshape(-1).view(torch.uint8).numpy().tobytes()


@pytest.mark.parametrize(("framework", "layout", "container"), COMBINATIONS)
def test_a_giant_is_recognised_and_holds_the_same_numbers_everywhere(
    tmp_path: Path, framework: str, layout: str, container: str
) -> None:
    path = made(tmp_path / "giant", framework, layout=layout, container=container, ranks=3)
    content = Content(small(framework), "float32")

    with inspected(path, SourceOptions()) as (checkpoint, inspection):
        config, steps = inspection.source.config, inspection.plan.steps
        assert (config.hidden_sizes, config.depths) == (RULED["hidden_sizes"], RULED["depths"])
        assert config.num_labels == RULED["num_labels"]
        for step in steps:
            assert step.tensor is not None
            read = b"".join(tensor_chunks(checkpoint, step.tensor, flip=step.flip))
            assert read == numbers(content, step.target.name, step.tensor), step.target.name


@pytest.mark.parametrize(("framework", "layout", "container"), ONE_FILE)
def test_torch_loads_what_was_made(
    tmp_path: Path, framework: str, layout: str, container: str
) -> None:
    path = made(tmp_path / "giant", framework, layout=layout, container=container)

    tree = torch.load(path, weights_only=True, mmap=True if container == "zip" else None)

    with open_any(path) as checkpoint:
        ours = [b"".join(checkpoint.chunks(tensor)) for tensor in leaves(checkpoint.tree)]
    assert [bits(tensor) for tensor in leaves(tree)] == ours


@pytest.mark.parametrize("framework", ["timm", "torchvision"])
def test_the_real_networks_load_a_flat_giant_strictly(tmp_path: Path, framework: str) -> None:
    path = tmp_path / "giant.pth"
    make("RegNetY-400MF", path, Recipe(framework, classes=7))
    with torch.device("meta"):
        network = _unfilled(framework)

    network.load_state_dict(torch.load(path, weights_only=True), strict=True, assign=True)

    assert not any(tensor.is_meta for tensor in network.state_dict().values())


def _unfilled(framework: str) -> nn.Module:
    if framework == "torchvision":
        return torchvision_network(config_of("RegNetY-400MF", 7))
    import timm

    network: nn.Module = timm.create_model("regnety_004", num_classes=7)
    return network


@pytest.mark.parametrize(
    ("framework", "package"),
    [("pycls", "pycls"), ("classy-vision", "classy_vision"), ("mmpretrain", "mmpretrain")],
)
def test_the_real_trainers_load_their_giant(tmp_path: Path, framework: str, package: str) -> None:
    if find_spec(package) is None:
        pytest.skip(f"{framework} is not installed")
    path = made(tmp_path / "giant.pyth", framework)

    network = load(framework, path, small(framework))

    with torch.inference_mode():
        assert network(torch.randn(2, 3, 64, 64)).shape[-1] in {5, 64}


@pytest.mark.parametrize("dtype", ["float64", "float16", "bfloat16"])
def test_a_giant_has_the_dtype_asked_for(tmp_path: Path, dtype: str) -> None:
    state = torch.load(made(tmp_path / "giant", "timm", dtype=dtype), weights_only=True)

    exact = torch.load(made(tmp_path / "exact", "timm"), weights_only=True)
    kernel = exact["s4.b3.conv1.conv.weight"].to(getattr(torch, dtype))
    assert torch.equal(state["s4.b3.conv1.conv.weight"], kernel)
    assert state["stem.bn.num_batches_tracked"].dtype == torch.int64


def test_numbers_depend_on_the_seed_alone(tmp_path: Path) -> None:
    first, again, other = (
        made(tmp_path / f"{number}", "pycls", seed=seed).read_bytes()
        for number, seed in enumerate((3, 3, 4))
    )

    assert first == again != other


def test_holes_are_pages_of_the_file_and_all_else_is_doubled(tmp_path: Path) -> None:
    for density in (1.0, 0.25):
        recipe = Recipe("torchvision", density=density)
        make(WIDE, tmp_path / f"{density}.pth", recipe)

    place, left = kernel(tmp_path / "0.25.pth")
    _, whole = kernel(tmp_path / "1.0.pth")
    pages = (place + 4 * np.arange(left.size)) // PAGE
    assert np.array_equal(left, np.where(pages % 4 == 0, 2 * whole, 0))


def test_holes_take_no_disk_and_checksums_are_right(tmp_path: Path) -> None:
    path = tmp_path / "giant.torch"
    make(WIDE, path, Recipe("vissl", density=0.125))

    status = path.stat()
    assert status.st_blocks * 512 < 0.4 * status.st_size
    assert zipfile.ZipFile(path).testzip() is None


@pytest.mark.parametrize("container", CONTAINERS)
def test_a_sparse_giant_is_read_from_any_container(tmp_path: Path, container: str) -> None:
    path = tmp_path / "giant"
    make(WIDE, path, Recipe("torchvision", container=container, density=0.25))

    _, elements = kernel(path)
    assert np.count_nonzero(elements) / elements.size == pytest.approx(0.25, abs=0.01)


@pytest.mark.parametrize("name", ["RegNetY-200MF", "RegNetX-800MF"])
def test_a_giant_is_alive(tmp_path: Path, name: str) -> None:
    make(name, tmp_path / "out", Recipe("transformers", "folder", "safetensors"))
    network = RegNetForImageClassification.from_pretrained(tmp_path / "out").eval()
    images = torch.randn(4, 3, 96, 96, generator=torch.Generator().manual_seed(0))
    images[:2] = torch.nn.functional.interpolate(images[:2, :, :6, :6], (96, 96))

    with torch.inference_mode():
        logits = network(images).logits

    assert 0.5 < logits.std() < 10
    assert (logits - logits.mean(0)).std() > 0.03 * logits.std()


def test_a_large_giant_is_made_in_little_memory(tmp_path: Path) -> None:
    path = tmp_path / "giant.torch"
    limited = (
        "import resource, runpy; "
        "resource.setrlimit(resource.RLIMIT_DATA, (128 << 20, 128 << 20)); "
        "runpy.run_module('benchmarks.giants', run_name='__main__')"
    )
    arguments = ["RegNetY-32GF", str(path), "--framework", "vissl", "--density", "0.1"]

    subprocess.run(
        [sys.executable, "-c", limited, *arguments],
        check=True,
        env={"OPENBLAS_NUM_THREADS": "1"},  # each thread of which reserves memory
    )

    assert path.stat().st_size > 580_000_000
    with inspected(path, SourceOptions()) as (_, inspection):
        assert inspection.network_name == "RegNetY-32GF"


def test_every_published_network_has_a_configuration() -> None:
    assert len(published_names()) > 24
    for name in published_names():
        assert config_of(name, 0).num_labels == 0
    assert config_of("RegNetY-10B", 1000).hidden_sizes == [2020, 4040, 11110, 28280]


def test_parts_of_stages_are_named_as_seer_has_them() -> None:
    name = "_feature_blocks.res4.block3-{}.f.a.0.weight"
    named = [in_part(name.format(block), STAGE_PARTS["RegNetY-10B"]) for block in (8, 9, 16)]

    part = "_feature_blocks.res4.block3-part{}.block3-{}.f.a.0.weight"
    assert named == [part.format(0, 8), part.format(1, 9), part.format(1, 16)]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"framework": "timm", "layout": "slices"}, "timm has no layout slices"),
        ({"framework": "pycls", "container": "safetensors"}, "a flat state dict alone"),
        ({"framework": "timm", "density": 0.0}, "must be above 0"),
    ],
)
def test_what_cannot_be_made_is_said(tmp_path: Path, fields: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make("RegNetY-200MF", tmp_path / "giant", Recipe(**fields))


def test_a_network_that_a_framework_lacks_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="RegNetX only"):
        make("RegNetY-200MF", tmp_path / "giant", Recipe("mmpretrain"))
    with pytest.raises(ValueError, match="RegNetY-9 is not among"):
        make("RegNetY-9", tmp_path / "giant", Recipe("timm"))


@settings(deadline=None, max_examples=60)
@given(
    runs=st.lists(st.tuples(st.booleans(), st.integers(0, 3 * PAGE)), max_size=8),
    split=st.integers(1, 5 * PAGE),
)
def test_a_file_with_holes_reads_as_what_was_written(
    tmp_path_factory: pytest.TempPathFactory, runs: list[tuple[bool, int]], split: int
) -> None:
    data = b"".join(bytes([filled]) * size for filled, size in runs)
    path = tmp_path_factory.mktemp("sparse") / "file"

    with SparseFile(path) as file:
        for start in range(0, len(data), split):
            assert file.write(data[start : start + split]) == len(data[start : start + split])

    assert path.read_bytes() == data


@given(position=st.integers(0, 5 * PAGE), size=st.integers(0, 9 * PAGE), step=st.integers(2, 5))
def test_pages_between_are_zeroed(position: int, size: int, step: int) -> None:
    data = np.ones(size, np.uint8)

    zero_between(data, position, step)

    pages = (position + np.arange(size)) // PAGE
    assert np.array_equal(data, pages % step == 0)
