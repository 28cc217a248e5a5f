"""Whatever torch.save and safetensors write, our reader reads as they do themselves."""

from __future__ import annotations

import argparse
import pickle
import struct
import sys
from collections import Counter, OrderedDict, defaultdict
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes
from safetensors.torch import save_file
from torch import nn

from converters.checkpoint import Opaque, StoredTensor, open_checkpoint
from regnet.files.dtypes import ELEMENT_TYPES
from tests.converters.checkpoint.compare import LAYOUTS, Settings, assert_same

if TYPE_CHECKING:
    from pathlib import Path


def trained_network() -> dict[str, Any]:
    """A checkpoint as trainers write it: weights, momentum, schedule."""
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(16, 2))
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9)
    network(torch.randn(2, 3, 4, 4)).sum().backward()
    optimizer.step()
    return {
        "epoch": 4,
        "model_state": network.state_dict(),
        "optimizer_state": optimizer.state_dict(),
        "parameters": dict(network.named_parameters()),
        "cfg": "MODEL:\n  TYPE: regnet\n",
    }


def views() -> dict[str, torch.Tensor]:
    base = torch.arange(60, dtype=torch.float32).reshape(3, 4, 5)
    return {
        "base": base,
        "same": base,
        "reshaped": base.view(12, 5),
        "tail": base[1:],
        "column": base[:, 2],
        "strided": base[::2, 1::2, ::3],
        "transposed": base.permute(2, 0, 1),
        "channels_last": torch.randn(2, 3, 4, 5).to(memory_format=torch.channels_last),
        "expanded": base[0, 0].expand(7, 5),
        "single_axis_of_any_stride": base[:1, :, 0],
        "element": base[1, 2, 3],
        "empty": torch.empty(0, 3),
        "empty_slice": base[3:],
        "scalar": torch.tensor(2.5),
    }


def plain_values() -> dict[Any, Any]:
    namespace = argparse.Namespace(lr=0.1, steps=[1, 2], inner=argparse.Namespace(x=None))
    config = Settings(DEPTH=16, NESTED=Settings(WIDTH=2.5))
    config.frozen = True  # type: ignore[attr-defined]
    return {
        "plain": [
            None,
            True,
            False,
            -1,
            2**40,
            -(2**70),
            0.1,
            float("nan"),
            1j,
            "é\n",
            b"\x00\xff",
        ],
        "containers": [(), (1,), (1, 2), (1, 2, 3), (1, 2, 3, 4), [[]], {}, {1}, frozenset({"a"})],
        3: {(1, (2, "x")): "tuple key", None: "none key", 1.5: "float key"},
        "ordered": OrderedDict(b=1, a=2),
        "default": defaultdict(list, {"x": [1]}),
        "counter": Counter("aab"),
        "size": torch.Size([2, 3]),
        "dtype": torch.float16,
        "numpy": [np.float64(0.5), np.float32(2), np.int64(-3), np.uint8(200), np.bool_(1)],
        "namespace": namespace,
        "config": config,
    }


def save(value: object, path: Path, layout: str, protocol: int = 2) -> None:
    torch.save(
        value, path, pickle_protocol=protocol, _use_new_zipfile_serialization=LAYOUTS[layout]
    )


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("make", [trained_network, views, plain_values])
def test_everything_equals_what_torch_loads(
    make: Any, layout: str, protocol: int, tmp_path: Path
) -> None:
    path = tmp_path / "any name.at all"
    save(make(), path, layout, protocol)
    with open_checkpoint(path) as checkpoint:
        assert checkpoint.container == layout
        assert checkpoint.size == path.stat().st_size
        assert_same(checkpoint.tree, torch.load(path, weights_only=False), checkpoint)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", sorted(ELEMENT_TYPES))
def test_every_dtype_keeps_its_bits(dtype: str, layout: str, tmp_path: Path) -> None:
    kind = getattr(torch, dtype)
    bits = torch.randint(0, 2, (4, 32), dtype=torch.uint8)
    tensors = {"t": bits.view(kind) if kind != torch.bool else bits.bool()}
    tensors["transposed"] = tensors["t"].T
    save(tensors, tmp_path / "a.pth", layout)
    with open_checkpoint(tmp_path / "a.pth") as checkpoint:
        assert_same(checkpoint.tree, tensors, checkpoint)


class ForeignNumber:
    """Pickles as the NumPy scalar 0.5 of a big-endian machine."""

    def __reduce__(self) -> tuple[Any, ...]:
        return np._core.multiarray.scalar, (np.dtype(">f8"), struct.pack(">d", 0.5))


def test_numpy_scalars_of_the_other_byte_order_are_read(tmp_path: Path) -> None:
    save(ForeignNumber(), tmp_path / "a.pth", "zip")
    with open_checkpoint(tmp_path / "a.pth") as checkpoint:
        assert checkpoint.tree == 0.5


@pytest.mark.parametrize("layout", LAYOUTS)
def test_views_of_one_storage_share_it(layout: str, tmp_path: Path) -> None:
    save(views(), tmp_path / "a.pth", layout)
    with open_checkpoint(tmp_path / "a.pth") as checkpoint:
        tree: Any = checkpoint.tree
        assert tree["tail"].storage is tree["base"].storage
        assert tree["tail"].storage_offset == 20
        assert tree["scalar"].storage != tree["base"].storage


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_tensor_or_storage_alone_is_a_tree_too(layout: str, tmp_path: Path) -> None:
    for value in (torch.ones(3), torch.full((3,), 2.0).untyped_storage()):
        save(value, tmp_path / "a.pth", layout)
        with open_checkpoint(tmp_path / "a.pth") as checkpoint:
            assert isinstance(checkpoint.tree, StoredTensor)
            assert checkpoint.array(checkpoint.tree).nbytes == 12


@pytest.mark.filterwarnings("ignore:torch.quantize_per_tensor")
@pytest.mark.parametrize("layout", LAYOUTS)
def test_what_has_no_plain_meaning_becomes_a_note(layout: str, tmp_path: Path) -> None:
    attributed = nn.Parameter(torch.ones(2))
    attributed.note = "kept by torch, not by us"  # type: ignore[attr-defined]
    save(
        {
            "module": nn.Linear(2, 2),
            "array": np.array([1, None]),
            "quantised": torch.quantize_per_tensor(torch.ones(2), 1.0, 0, torch.quint8),
            "conjugate": torch.ones(2, dtype=torch.complex64).conj(),
            "sparse": torch.eye(2).to_sparse(),
            "device": torch.device("cpu"),
            "attributed": attributed,
        },
        tmp_path / "a.pth",
        layout,
    )
    with open_checkpoint(tmp_path / "a.pth") as checkpoint:
        tree: Any = checkpoint.tree
        names = {k: v.qualified_name for k, v in tree.items() if isinstance(v, Opaque)}
        assert names == {
            "array": "numpy._core.multiarray._reconstruct",
            "quantised": "torch._utils._rebuild_qtensor",
            "conjugate": "torch._utils._rebuild_tensor_v2",
            "sparse": "torch._utils._rebuild_sparse_tensor",
            "device": "torch.device",
        }
        assert tree["device"].args == ("cpu",)
        assert checkpoint.modules == {"module": "torch.nn.modules.linear.Linear"}
        assert tree["module"]["weight"].shape == (2, 2)
        assert_same(tree["attributed"], attributed, checkpoint)


@pytest.mark.parametrize("package", ["gone_package", "code.models"])
def test_a_class_that_is_not_installed_is_no_obstacle(
    package: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = ModuleType(package)
    module.Config = type("Config", (), {"__module__": package})  # type: ignore[attr-defined]
    config = module.Config()
    config.depth = 3
    with monkeypatch.context() as installed:
        installed.setitem(sys.modules, package, module)
        torch.save({"cfg": config, "weight": torch.ones(1)}, tmp_path / "a.pth")
    with open_checkpoint(tmp_path / "a.pth") as checkpoint:
        tree: Any = checkpoint.tree
        assert isinstance(tree["cfg"], Opaque)
        assert tree["cfg"].qualified_name == f"{package}.Config"
        assert tree["cfg"].fields == {"depth": 3}


def test_storage_views_of_torch_before_0_4_are_read(tmp_path: Path) -> None:
    # torch/serialization.py, `_legacy_load`: (view key, offset, size) ends the persistent id.
    path = tmp_path / "old.pth"
    payload = torch.arange(10, dtype=torch.float32)

    class View:
        """Stands for a storage that is part of another."""

    class Pickler(pickle.Pickler):
        def persistent_id(self, obj: object) -> object:
            if isinstance(obj, View):
                return ("storage", torch.FloatStorage, "94", "cpu", 10, ("95", 4, 6))
            return None

    class Tensor:
        def __reduce__(self) -> tuple[Any, ...]:
            return torch._utils._rebuild_tensor, (View(), 1, (2, 2), (2, 1))

    with path.open("wb") as file:
        for header in (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True}):
            pickle.dump(header, file, protocol=2)
        Pickler(file, protocol=2).dump({"t": Tensor()})
        pickle.dump(["94"], file, protocol=2)
        file.write((10).to_bytes(8, "little") + payload.numpy().tobytes())
    with open_checkpoint(path) as checkpoint:
        tree: Any = checkpoint.tree
        assert checkpoint.array(tree["t"]).tolist() == [[5.0, 6.0], [7.0, 8.0]]
        assert_same(tree, torch.load(path, weights_only=False), checkpoint)


SAFETENSORS_DTYPES = sorted(set(ELEMENT_TYPES) - {"complex128"})


def test_safetensors_of_every_dtype_equal_what_the_library_saved(tmp_path: Path) -> None:
    bits = torch.randint(0, 2, (4, 32), dtype=torch.uint8)
    tensors = {
        name: bits.bool() if name == "bool" else bits.view(getattr(torch, name)).clone()
        for name in SAFETENSORS_DTYPES
    }
    tensors |= {"scalar": torch.tensor(1.5), "empty": torch.empty(0, 3), "": torch.ones(1)}
    path = tmp_path / "model.safetensors"
    save_file(tensors, path, metadata={"format": "pt", "note": "é"})
    with open_checkpoint(path) as checkpoint:
        tree: Any = checkpoint.tree
        assert checkpoint.container == "safetensors"
        assert checkpoint.metadata == {"format": "pt", "note": "é"}
        assert sorted(tree) == sorted(tensors)
        assert_same(tree, {name: tensors[name] for name in tree}, checkpoint)


def test_safetensors_may_be_empty_and_without_metadata(tmp_path: Path) -> None:
    save_file({}, tmp_path / "a.safetensors")
    with open_checkpoint(tmp_path / "a.safetensors") as checkpoint:
        assert (checkpoint.tree, checkpoint.metadata) == ({}, {})


DTYPES = [torch.float32, torch.float16, torch.bfloat16, torch.float64, torch.int64, torch.bool]
TENSORS = st.builds(
    lambda shape, dtype, transposed: (
        torch.zeros(shape).T if transposed and len(shape) == 2 else torch.randn(shape)
    ).to(dtype),
    array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4) | st.just(()),
    st.sampled_from(DTYPES),
    st.booleans(),
)
KEYS = st.text(max_size=5) | st.integers() | st.tuples(st.integers(), st.text(max_size=3))
LEAVES = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(st.characters(codec="utf-8"), max_size=20)
    | st.binary(max_size=300)
    | TENSORS
)
TREES = st.recursive(
    LEAVES,
    lambda trees: (
        st.lists(trees, max_size=4)
        | st.tuples(trees, trees)
        | st.dictionaries(KEYS, trees, max_size=4)
        | st.dictionaries(KEYS, trees, max_size=4).map(OrderedDict)
    ),
    max_leaves=12,
)


@pytest.mark.parametrize("layout", LAYOUTS)
@given(tree=TREES, protocol=st.integers(2, 5))
@settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
def test_random_trees_survive_the_round_trip(
    tree: Any, protocol: int, layout: str, tmp_path: Path
) -> None:
    path = tmp_path / "a.pth"
    save(tree, path, layout, protocol)
    with open_checkpoint(path) as checkpoint:
        assert_same(checkpoint.tree, tree, checkpoint)
