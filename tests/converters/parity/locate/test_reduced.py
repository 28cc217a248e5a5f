"""Faults in float16 and int8 are found where they are; rounding is blamed on nobody."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from benchmarks.mutation import coreml, graphs, int8, litert
from converters.folder.folder import ConvertedFolder
from converters.folder.inputs import verification_inputs
from converters.formats.format import ExportOptions
from converters.formats.onnx.calibration import CALIBRATION_FOLDER
from converters.formats.registry import FORMATS
from converters.parity.locate.intermediates_openvino import run_openvino
from converters.parity.locate.location import Location, locate
from converters.parity.locate.module_errors import measure
from converters.parity.locate.walk import values_of
from regnet import RegNetImageProcessor
from regnet.config import RegNetConfig
from tests.converters.demo import sample_images
from tests.converters.formats.random_folder import random_folder
from tests.converters.parity.contents.test_litert import Opened
from tests.converters.parity.networks import _SMALL, NETWORKS, OPENS_COREML, WIDER

if TYPE_CHECKING:
    from collections.abc import Callable

    Plant = Callable[[ConvertedFolder, Path], None]

SIZE = 48
KINDS = ("onnx-fp16", "litert-fp16", "coreml-fp16", "onnx-int8", "litert-int8")
BLOCK = "regnet.encoder.stages.1.layers.1"
KERNEL = f"{BLOCK}.layer.1.folded_weight"
OTHERS = [name for name in (*NETWORKS, *WIDER) if name not in {"Y", "grey", "same padding"}]


def made(path: Path, name: str, *, classifier: bool = True) -> ConvertedFolder:
    config = RegNetConfig(**_SMALL | {**NETWORKS, **WIDER}[name])
    random_folder(path, config, classifier=classifier)
    RegNetImageProcessor(size={"shortest_edge": SIZE}).save_pretrained(path)
    sample_images(path / CALIBRATION_FOLDER, 8)
    return ConvertedFolder(path)


def exported(folder: ConvertedFolder, kind: str) -> Path:
    path = folder.path / Path(FORMATS[kind].file_name).name
    options = ExportOptions(largest_loss=1.0 if kind.endswith("int8") else None)
    FORMATS[kind].export(folder, path, options)
    return path


def located(folder: ConvertedFolder, kind: str, path: Path, batch: str = "native") -> Location:
    return locate(folder, kind, path, verification_inputs(3, SIZE)[batch])


def at_fault(location: Location) -> list[str]:
    return [module.module for module in location.modules if module.at_fault]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> ConvertedFolder:
    return made(tmp_path_factory.mktemp("reduced"), "Y")


def assert_nothing_is_found(folder: ConvertedFolder, kind: str) -> None:
    path = exported(folder, kind)
    for batch in ("native", "odd"):
        location = located(folder, kind, path, batch)
        assert (location.culprit, at_fault(location)) == (None, []), location.why
        known = [module.local for module in location.modules if module.local is not None]
        assert max(known) < 4
        assert len(known) > len(location.modules) / 2


@pytest.mark.parametrize("kind", KINDS)
def test_rounding_is_blamed_on_nobody(kind: str, folder: ConvertedFolder) -> None:
    assert_nothing_is_found(folder, kind)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("classifier", [True, False], ids=["classifier", "trunk"])
@pytest.mark.parametrize("name", OTHERS)
def test_nor_in_any_other_network(name: str, classifier: bool, kind: str, tmp_path: Path) -> None:
    assert_nothing_is_found(made(tmp_path, name, classifier=classifier), kind)


def _larger_channel(array: np.ndarray) -> np.ndarray:
    changed = array.copy()
    changed[5] = 1.5 * changed[5] + 0.1
    return changed


def _onnx(_: ConvertedFolder, path: Path, where: str, fault: graphs.NodeFault) -> None:
    model = onnx.load(path)
    (node,) = (node for node in model.graph.node if node.name == where)
    fault(model, node)
    onnx.save(model, path)


def _onnx_kernel(_: ConvertedFolder, path: Path) -> None:
    model = onnx.load(path)
    tensor = next(each for each in model.graph.initializer if each.name == KERNEL)
    changed = _larger_channel(numpy_helper.to_array(tensor))
    tensor.CopyFrom(numpy_helper.from_array(changed, KERNEL))
    onnx.save(model, path)


def _litert_kernel(_: ConvertedFolder, path: Path) -> None:
    file = Opened(path)
    elements = file.data(KERNEL, "<f2").reshape(24, -1)
    elements[5] = elements[5] * 1.5 + 0.1
    file.saved(path)


def _coreml(folder: ConvertedFolder, path: Path, kind: str, where: str) -> None:
    artefact = coreml.CoreMlArtefact(path, folder)
    coreml.OPERATION_FAULTS[kind][1](artefact, artefact.operation(where.replace(".", "_")))
    artefact.save(path)


def _litert(folder: ConvertedFolder, path: Path, kind: str, where: str) -> None:
    artefact = litert.LiteRtArtefact(path, folder)
    operators = [each for each in artefact.graph.operators if artefact.name(each) == where]
    litert.OPERATOR_FAULTS[kind][2](artefact, operators[0])
    artefact.save(path)


def _in_integers(folder: ConvertedFolder, path: Path, kind: str) -> None:
    artefact: Any = int8.OPENED[kind](path, folder)
    artefact.replace(KERNEL, _larger_channel(artefact.array(KERNEL)))
    artefact.save(path)


MUL, POOLER = f"{BLOCK}.layer.2.mul", f"{BLOCK}.layer.2.pooler"
_GATE_ADDED = graphs.NODE_FAULTS["gate added"][1]
_LARGEST = graphs.NODE_FAULTS["largest value squeezed"][1]

FAULTS: dict[tuple[str, str], tuple[Plant, str, int | None]] = {
    ("onnx-fp16", "kernel"): (_onnx_kernel, f"{BLOCK}.layer.1", 5),
    ("onnx-fp16", "gate"): (partial(_onnx, where=MUL, fault=_GATE_ADDED), MUL, None),
    ("litert-fp16", "kernel"): (_litert_kernel, f"{BLOCK}.layer.1", 5),
    ("coreml-fp16", "gate"): (partial(_coreml, kind="gate added", where=MUL), MUL, None),
    ("onnx-int8", "kernel"): (partial(_in_integers, kind="onnx-int8"), f"{BLOCK}.layer.1", 5),
    ("onnx-int8", "mean"): (partial(_onnx, where=POOLER, fault=_LARGEST), POOLER, None),
    ("litert-int8", "kernel"): (partial(_in_integers, kind="litert-int8"), f"{BLOCK}.layer.1", 5),
    ("litert-int8", "gate"): (
        partial(_litert, kind="gate added", where=f"{MUL}.int8"),
        MUL,
        None,
    ),
}
"""By format and fault: what plants it, the module, and the channel where it is one."""


@pytest.mark.parametrize(
    ("kind", "fault"),
    [
        pytest.param(*each, marks=OPENS_COREML if each[0] == "coreml-fp16" else ())
        for each in FAULTS
    ],
)
def test_the_first_wrong_operation_is_named(kind: str, fault: str, folder: ConvertedFolder) -> None:
    plant, module, channel = FAULTS[kind, fault]
    path = exported(folder, kind)
    plant(folder, path)
    location = located(folder, kind, path)
    assert location.culprit == module, location.why
    assert module in at_fault(location)
    if channel is not None:
        assert (location.tensor, location.channel) == (KERNEL, channel)


def test_a_grid_that_is_too_narrow_is_named(folder: ConvertedFolder) -> None:
    path = exported(folder, "onnx-int8")
    artefact: Any = int8.OPENED["onnx-int8"](path, folder)
    value = f"{BLOCK}.layer.0.activation"
    scale, zero = artefact.grid(value)
    int8._fitted(artefact, value, -zero * scale / 2, (255 - zero) * scale / 2)
    artefact.save(path)
    location = located(folder, "onnx-int8", path)
    assert location.culprit == value
    assert "it is cut to 0 to" in location.why
    assert at_fault(location) == [value]


def test_openvino_shows_every_value(folder: ConvertedFolder) -> None:
    pytest.importorskip("openvino")
    path, pixels = exported(folder, "openvino"), verification_inputs(3, SIZE)["native"]
    operations = values_of(folder, folded=True)
    modules = [
        module
        for module, _ in measure(folder, operations, pixels, run_openvino(folder, path, pixels))
    ]
    assert len(modules) == len(operations)
    assert max(np.inf if module.local is None else module.local for module in modules) < 8


@pytest.mark.slow  # its graph is not compared, so it runs in a process of its own
def test_a_wrong_operation_of_openvino_is_named(folder: ConvertedFolder) -> None:
    pytest.importorskip("openvino")
    path, gate = exported(folder, "openvino"), f"{BLOCK}.layer.2.attention.3"
    text = path.read_text()
    path.write_text(text.replace(f'name="{gate}" type="Sigmoid"', f'name="{gate}" type="Tanh"'))
    location = located(folder, "openvino", path)
    assert (location.culprit, at_fault(location)) == (gate, [gate])
