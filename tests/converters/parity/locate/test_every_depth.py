"""A fault at every depth of several networks is found where it is, and blamed on nobody else.

Each module is judged given its own input, so a file may hold many faults at once: a few runs with
faults in every third value cover all depths, and show beside the culprit that nobody behind a fault
is blamed. Among the networks are such whose values are saturated, zero and constant.
"""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper
from safetensors.numpy import load_file, save_file

from converters.folder.folder import ConvertedFolder
from converters.formats.format import ExportOptions
from converters.formats.registry import FORMATS
from converters.parity.locate.location import Location, locate
from converters.parity.locate.walk import values_of
from regnet.config import RegNetConfig
from tests.converters.formats.random_folder import random_folder

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    FolderOf = Callable[[str], ConvertedFolder]
    State = dict[str, NDArray[Any]]

STRIDE = 3
COUNTER = "num_batches_tracked"
NETWORKS: dict[str, dict[str, Any]] = {
    "X": {"layer_type": "x", "hidden_sizes": (16, 24), "depths": (1, 3)},
    "Y with saturated gates": {"hidden_sizes": (16, 24), "depths": (1, 3)},
    "Y with dead and constant channels": {"hidden_sizes": (16, 24), "depths": (2, 2)},
    "tiny": {"embedding_size": 4, "hidden_sizes": (4,), "depths": (1,), "num_labels": 2},
}
FORMS = {
    "onnx": ("onnx", ExportOptions()),
    "onnx, sharing": ("onnx", ExportOptions(share_weights=True)),
    "onnx-web": ("onnx-web", ExportOptions()),
    "torchscript": ("torchscript", ExportOptions()),
}
ALL = ["bundled", *NETWORKS]


def _saturate(state: State) -> None:
    """Gates that are 1, 0 and nearly so, for every image."""
    for name in state:
        if name.endswith("attention.2.bias"):
            size = state[name].size
            state[name] = np.resize(np.float32([15, -15, 19, -25, 40, -100]), size)


def _deaden(state: State) -> None:
    """Some channels are a constant, some zero, some of almost no variance."""
    for name in state:
        module, _, leaf = name.rpartition(".")
        if leaf == "running_var":
            state[f"{module}.weight"][::3] = 0
            state[f"{module}.bias"][:1] = -5
            state[name][1::3] = 1e-9


CHANGES: dict[str, Callable[[State], None]] = {
    "Y with saturated gates": _saturate,
    "Y with dead and constant channels": _deaden,
}


@pytest.fixture(scope="module")
def folder_of(demo_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> FolderOf:
    folders: dict[str, ConvertedFolder] = {}

    def build(name: str) -> ConvertedFolder:
        if name not in folders:
            path = tmp_path_factory.mktemp("network") / "folder"
            if name == "bundled":
                shutil.copytree(demo_folder, path)
            else:
                common = {"embedding_size": 8, "groups_width": 8, "num_labels": 10}
                random_folder(path, RegNetConfig(**common | NETWORKS[name]))
            if name in CHANGES:
                change_weights(path, CHANGES[name])
            folders[name] = ConvertedFolder(path)
        return folders[name]

    return build


def change_weights(folder: Path, change: Callable[[State], None]) -> None:
    state = {name: array.copy() for name, array in load_file(folder / "model.safetensors").items()}
    change(state)
    save_file(state, folder / "model.safetensors")


def export(folder: ConvertedFolder, form: str) -> Path:
    kind, options = FORMS[form]
    path = folder.path / FORMATS[kind].file_name
    path.parent.mkdir(exist_ok=True)
    FORMATS[kind].export(folder, path, options)
    return path


def located(
    folder: ConvertedFolder, form: str, path: Path, size: tuple[int, int] = (33, 40)
) -> Location:
    shape = (2, folder.config.num_channels, *size)
    pixels = np.random.default_rng(11).standard_normal(shape).astype(np.float32)
    return locate(folder, FORMS[form][0], path, pixels)


def at_fault(location: Location) -> list[str]:
    return [module.module for module in location.modules if module.at_fault]


def wrong(array: NDArray[Any]) -> NDArray[Any]:
    """One percent more, and where that is nothing, a hundredth."""
    return (array * np.float32(1.01) + np.float32(0.01)).astype(np.float32)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", ALL)
def test_rounding_is_blamed_on_nobody(name: str, form: str, folder_of: FolderOf) -> None:
    folder = folder_of(name)
    location = located(folder, form, export(folder, form))
    assert (location.culprit, at_fault(location)) == (None, [])
    assert max(module.local or 0 for module in location.modules) < 6, "as BAND has it"


def test_a_long_sum_of_equal_terms_is_blamed_on_nobody(tmp_path: Path) -> None:
    """Whose roundings all go one way, where a runtime adds one after the other."""
    sizes = {"embedding_size": 8, "hidden_sizes": (16,), "depths": (1,), "num_labels": 10}
    config = RegNetConfig(**sizes, groups_width=8, downsample_in_first_stage=False)
    random_folder(tmp_path / "folder", config)
    change_weights(tmp_path / "folder", _deaden)
    folder = ConvertedFolder(tmp_path / "folder")
    location = located(folder, "onnx", export(folder, "onnx"), size=(224, 224))
    means = [m.local for m in location.modules if m.module.endswith("pooler")]
    assert len(means) == 2
    assert max(local or 0 for local in means) < 2


def plant_operations(path: Path, modules: Sequence[str]) -> None:
    """Let every fault be computed by two more nodes, which the module's consumers then read."""
    model = onnx.load(path, load_external_data=False)
    nodes = []
    for node in model.graph.node:
        nodes.append(node)
        if not {node.name, node.name.removesuffix(".convolution")} & set(modules):
            continue
        (value,), name = node.output, node.name
        node.output[0], node.name = f"{value}.right", f"{name}.right"
        nodes += [
            helper.make_node("Mul", [f"{value}.right", "more"], [f"{value}.more"], f"{name}.more"),
            helper.make_node("Add", [f"{value}.more", "offset"], [value], name),
        ]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    constants = {"more": np.float32(1.01), "offset": np.float32(0.01)}
    for name, constant in constants.items():
        model.graph.initializer.append(numpy_helper.from_array(np.array(constant), name))
    onnx.save(model, path)


@pytest.mark.parametrize("first", range(STRIDE))
@pytest.mark.parametrize("form", ["onnx", "onnx, sharing"])
@pytest.mark.parametrize("name", ALL)
def test_a_wrong_operation_is_found_at_every_depth(
    name: str, form: str, first: int, folder_of: FolderOf
) -> None:
    folder = folder_of(name)
    path, folded = export(folder, form), form != "onnx, sharing"
    planted = [value.name for value in values_of(folder, folded=folded)][:-1][first::STRIDE]
    plant_operations(path, planted)
    location = located(folder, form, path)
    assert (location.culprit, at_fault(location)) == (planted[0], planted)


def plant_in_onnx(folder: ConvertedFolder, form: str, first: int) -> tuple[Path, list[str]]:
    path = export(folder, form)
    model = onnx.load(path, load_external_data=False)
    counted = [t for t in model.graph.initializer if not t.name.endswith(COUNTER)]
    tensors = [t for t in counted if t.name.endswith(("weight", "bias", "mean", "var"))]
    for tensor in tensors[first::STRIDE]:
        array = wrong(numpy_helper.to_array(tensor, str(folder.path)))
        tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))
    onnx.save(model, path)
    return path, [tensor.name for tensor in tensors[first::STRIDE]]


def plant_in_torchscript(folder: ConvertedFolder, copy: Path, first: int) -> tuple[Path, list[str]]:
    """Written from a folder of other weights."""
    names = [name for name in folder.tensors if not name.endswith(COUNTER)][first::STRIDE]

    def change(state: State) -> None:
        state.update({name: wrong(state[name]) for name in names})

    shutil.copytree(folder.path, copy)
    change_weights(copy, change)
    return export(ConvertedFolder(copy), "torchscript"), names


@pytest.mark.parametrize("first", range(STRIDE))
@pytest.mark.parametrize("form", ["onnx", "onnx, sharing", "torchscript"])
@pytest.mark.parametrize("name", ALL)
def test_a_wrong_tensor_is_found_at_every_depth(
    name: str, form: str, first: int, folder_of: FolderOf, tmp_path: Path
) -> None:
    folder = folder_of(name)
    if form == "torchscript":
        path, planted = plant_in_torchscript(folder, tmp_path / "wrong", first)
    else:
        path, planted = plant_in_onnx(folder, form, first)
    location = located(folder, form, path)
    modules = [name.rpartition(".")[0] for name in planted]
    order = [m.module for m in location.modules if m.module in set(modules)]
    assert set(order) == set(modules)
    blamed = at_fault(location)
    assert [module for module in order if module in blamed] == blamed, "nobody else"
    assert location.culprit == (blamed or order)[0]
    assert location.tensor in planted
    assert location.tensor.rpartition(".")[0] == location.culprit
