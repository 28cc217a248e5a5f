"""Faults are found where they are in networks that transformers does not have, too."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx
import pytest

from converters.parity.locate.location import Location, locate
from converters.parity.locate.walk import values_of
from tests.converters.parity.faults import becomes, sets
from tests.converters.parity.locate.test_every_depth import STRIDE, plant_operations
from tests.converters.parity.networks import FORMS, export, random_network
from tests.converters.parity.networks import WIDER as ALL

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from onnx import NodeProto

    from converters.folder.folder import ConvertedFolder

    FolderOf = Callable[[str], ConvertedFolder]

QUICK = ("V, averaged shortcut", "Z of EvoNorm", "all at once")


@pytest.fixture(scope="module")
def folder_of(tmp_path_factory: pytest.TempPathFactory) -> FolderOf:
    folders: dict[str, ConvertedFolder] = {}

    def build(name: str) -> ConvertedFolder:
        if name not in folders:
            folders[name] = random_network(tmp_path_factory.mktemp("net") / "folder", name).folder
        return folders[name]

    return build


def located(folder: ConvertedFolder, form: str, path: Path) -> Location:
    pixels = np.random.default_rng(11).standard_normal((2, 3, 33, 40)).astype(np.float32)
    return locate(folder, FORMS[form][0], path, pixels)


def at_fault(location: Location) -> list[str]:
    return [module.module for module in location.modules if module.at_fault]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=[pytest.mark.slow] * (n not in QUICK)) for n in ALL]
)
def test_rounding_is_blamed_on_nobody(name: str, form: str, folder_of: FolderOf) -> None:
    folder = folder_of(name)
    location = located(folder, form, export(folder, form))
    assert (location.culprit, at_fault(location)) == (None, [])
    assert all(module.local is not None for module in location.modules)
    assert max(module.local or 0 for module in location.modules) < 6, "as BAND has it"


@pytest.mark.parametrize("first", range(STRIDE))
@pytest.mark.parametrize("form", ["self-contained", "sharing"])
@pytest.mark.parametrize("name", QUICK)
def test_a_wrong_operation_is_found_at_every_depth(
    name: str, form: str, first: int, folder_of: FolderOf
) -> None:
    folder = folder_of(name)
    path, folded = export(folder, form), form == "self-contained"
    planted = [value.name for value in values_of(folder, folded=folded)][:-1][first::STRIDE]
    plant_operations(path, planted)
    location = located(folder, form, path)
    assert (location.culprit, at_fault(location)) == (planted[0], planted)


FAULTS: dict[str, tuple[str, str, str, Callable[[NodeProto], None]]] = {
    "epsilon": ("V", "layer.3.normalization", "", sets(epsilon=1e-2)),
    "no mean": ("all at once", "layer.1.normalization", ".centred", becomes("Identity")),
    "no root": ("Z of EvoNorm", "layer.1.normalization", ".deviation", becomes("Identity")),
    "no v": ("Z of EvoNorm", "layer.0.normalization", ".sloped", becomes("Identity")),
    "ceiling": ("V, averaged shortcut", "shortcut.pooler", "", sets(ceil_mode=0)),
    "padding": ("same padding", "layer.1.convolution", "", sets(auto_pad="SAME_LOWER")),
}
"""The network, the module, the node of it, and what becomes of that."""


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_in_a_new_operation_is_found_in_its_module(fault: str, folder_of: FolderOf) -> None:
    name, place, part, plant = FAULTS[fault]
    folder = folder_of(name)
    path = export(folder, "sharing")
    model = onnx.load(path, load_external_data=False)
    node = next(node for node in model.graph.node if node.name.endswith(place + part))
    plant(node)
    onnx.save(model, path)

    location = located(folder, "sharing", path)

    assert location.culprit == node.name.removesuffix(part)
