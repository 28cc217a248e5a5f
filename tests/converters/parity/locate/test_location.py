"""Every planted fault is found in its module, and nothing is found where there is none."""

from __future__ import annotations

import json
import re
import shutil
import xml.etree.ElementTree as ET
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import pytest
import torch
from onnx import helper, numpy_helper
from rich.console import Console
from safetensors.numpy import load_file, save_file

from converters.cli.verify import location_table
from converters.errors import InputError
from converters.folder.folder import ConvertedFolder
from converters.formats import torchscript
from converters.formats.format import ExportOptions
from converters.formats.reference import ReferenceRuntime
from converters.formats.registry import FORMATS
from converters.parity.locate.location import Location, locate
from converters.parity.locate.module_errors import BAND, compute
from converters.parity.locate.walk import values_of
from converters.reports.error_plot import error_by_depth_svg
from regnet.architecture import PIXELS
from regnet.config import RegNetConfig
from tests.converters.formats.random_folder import random_folder
from tests.converters.parity.faults import OPERATIONS, change_tensor, changed_channel

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from numpy.typing import NDArray
    from onnx import ModelProto

    FolderOf = Callable[[str], ConvertedFolder]

SMALL: dict[str, Any] = {
    "embedding_size": 8,
    "hidden_sizes": (16, 24),
    "depths": (1, 3),
    "groups_width": 8,
    "num_labels": 10,
}
NETWORKS: dict[str, dict[str, Any]] = {
    "X": {"layer_type": "x"},
    "Y": {"layer_type": "y"},
    "gelu": {"hidden_act": "gelu"},
    "gelu_new": {"hidden_act": "gelu_new"},
    "silu": {"hidden_act": "silu"},
    "selu": {"hidden_act": "selu"},
    "no labels": {"num_labels": 0},
    "a thousand classes": {"num_labels": 1000},
    "deep": {"hidden_sizes": (16, 32, 48), "depths": (2, 6, 10)},
}
FORMS = {
    "self-contained": ("onnx", ExportOptions()),
    "sharing": ("onnx", ExportOptions(share_weights=True)),
    "torchscript": ("torchscript", ExportOptions()),
}
ONNX_FORMS = ("self-contained", "sharing")

NORM = ("weight", "bias", "running_mean", "running_var")
CONVOLUTIONS = {
    "stem": r"embedder\.embedder",
    "1x1": r"layers\.\d\.layer\.[03]",
    "grouped": r"layer\.1",
    "shortcut": r"shortcut",
}
SEPARATE = {
    f"{role} {leaf}": rf"{place}\.{leaf}"
    for role, place in CONVOLUTIONS.items()
    for leaf in (r"convolution\.weight", *(rf"normalization\.{leaf}" for leaf in NORM))
}
FOLDED = {
    f"{role} {leaf}": rf"{place}\.{leaf}"
    for role, place in CONVOLUTIONS.items()
    for leaf in ("folded_weight", "folded_bias")
}
ATTENTION = {
    f"{role} {leaf}": rf"attention\.{index}\.{leaf}"
    for role, index in (("squeeze", 0), ("excite", 2))
    for leaf in ("weight", "bias")
}
CLASSIFIER = {f"classifier {leaf}": rf"classifier\.1\.{leaf}" for leaf in ("weight", "bias")}
TENSORS = [
    pytest.param(network, form, pattern, id=f"{network}, {form}, {role}")
    for network in ("X", "Y")
    for form in FORMS
    for role, pattern in (
        (FOLDED if form == "self-contained" else SEPARATE)
        | (ATTENTION if network == "Y" else {})
        | CLASSIFIER
    ).items()
]

WRONG_OPERATIONS = [
    pytest.param(network, form, fault, id=f"{network}, {form}, {fault}")
    for network in ("X", "Y", "deep")
    for form in ONNX_FORMS
    for fault, operation in OPERATIONS.items()
    if not (operation.only_y and network == "X")
    if not (operation.only_sharing and form != "sharing")
]


@pytest.fixture(scope="module")
def folder_of(tmp_path_factory: pytest.TempPathFactory) -> FolderOf:
    folders: dict[str, ConvertedFolder] = {}

    def build(name: str) -> ConvertedFolder:
        if name not in folders:
            config = RegNetConfig(**SMALL | NETWORKS[name])
            folders[name] = random_folder(tmp_path_factory.mktemp("network") / "folder", config)
        return folders[name]

    return build


def pixels_for(folder: ConvertedFolder) -> NDArray[np.float32]:
    shape = (2, folder.config.num_channels, 64, 51)
    return np.random.default_rng(7).standard_normal(shape).astype(np.float32)


def export(folder: ConvertedFolder, form: str) -> Path:
    kind, options = FORMS[form]
    path = folder.path / FORMATS[kind].file_name
    FORMATS[kind].export(folder, path, options)
    return path


def located(folder: ConvertedFolder, form: str, path: Path) -> Location:
    return locate(folder, FORMS[form][0], path, pixels_for(folder))


def chance_of(*case: str) -> np.random.Generator:
    """The same draws for a case in every run, others for the next case."""
    return np.random.default_rng(zlib.crc32(" ".join(case).encode()))


def at_fault(location: Location) -> list[str]:
    return [module.module for module in location.modules if module.at_fault]


def drawn(location: Location) -> ET.Element:
    return ET.fromstring(error_by_depth_svg(location))  # noqa: S314 -- our own


@dataclass(frozen=True)
class Draft:
    """An ONNX file that is about to be changed."""

    folder: ConvertedFolder
    form: str
    path: Path
    model: ModelProto

    @classmethod
    def of(cls, folder: ConvertedFolder, form: str) -> Draft:
        path = export(folder, form)
        return cls(folder, form, path, onnx.load(path, load_external_data=False))

    def locate(self) -> Location:
        onnx.save(self.model, self.path)
        return located(self.folder, self.form, self.path)

    def module(self, node: str) -> str:
        return node.removesuffix(".convolution") if self.form == "self-contained" else node


def wrong_copy(
    folder: ConvertedFolder, path: Path, change: Callable[[dict[str, NDArray[Any]]], None]
) -> ConvertedFolder:
    """The folder with other weights."""
    wrong = ConvertedFolder(shutil.copytree(folder.path, path))
    weights = wrong.path / "model.safetensors"
    state = {name: array.copy() for name, array in load_file(weights).items()}
    change(state)
    save_file(state, weights)
    return wrong


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("form", FORMS)
def test_nothing_is_found_in_a_right_artefact(name: str, form: str, folder_of: FolderOf) -> None:
    folder = folder_of(name)
    location = located(folder, form, export(folder, form))
    assert location.culprit is None
    assert location.why == "every module is right, given its own input"
    assert all(module.local is not None for module in location.modules)
    assert location.modules[-1].module == "logits"


@pytest.mark.parametrize("form", FORMS)
def test_nothing_is_found_in_a_right_trunk(form: str, tmp_path: Path) -> None:
    config = RegNetConfig(**SMALL)
    folder = random_folder(tmp_path, config, classifier=False)
    location = located(folder, form, export(folder, form))
    assert (location.culprit, at_fault(location)) == (None, [])
    outputs = [module.module for module in location.modules[-2:]]
    assert outputs == ["last_hidden_state", "pooler_output"]


@pytest.mark.parametrize(("name", "form", "pattern"), TENSORS)
def test_a_wrong_tensor_is_found_with_its_channel(
    name: str, form: str, pattern: str, folder_of: FolderOf, tmp_path: Path
) -> None:
    folder = folder_of(name)
    chance = chance_of(name, form, pattern)
    channel = int(chance.integers(2))  # the narrowest tensor, a squeeze, has two channels
    if form == "torchscript":
        tensor = str(chance.choice([n for n in folder.tensors if re.search(f"{pattern}$", n)]))

        def change(state: dict[str, NDArray[Any]]) -> None:
            state[tensor] = changed_channel(state[tensor], channel)

        wrong = wrong_copy(folder, tmp_path / "wrong", change)
        location = located(folder, form, export(wrong, form))
    else:
        draft = Draft.of(folder, form)
        names = [tensor.name for tensor in draft.model.graph.initializer]
        tensor = str(chance.choice([n for n in names if re.search(f"{pattern}$", n)]))
        change_tensor(draft.model, folder.path, tensor, channel)
        location = draft.locate()
    module = tensor.rpartition(".")[0]
    assert (location.culprit, location.tensor, location.channel) == (module, tensor, channel)
    assert at_fault(location) == [module], "no module behind is blamed"
    assert location.why.startswith(f"its {tensor} differs from ")


@pytest.mark.parametrize(("name", "form", "fault"), WRONG_OPERATIONS)
def test_a_wrong_operation_is_found(name: str, form: str, fault: str, folder_of: FolderOf) -> None:
    operation = OPERATIONS[fault]
    draft = Draft.of(folder_of(name), form)
    nodes = list(operation.nodes(draft.model))
    node = nodes[chance_of(name, form, fault).integers(len(nodes))]
    operation.plant(node)
    location = draft.locate()
    assert (location.culprit, location.tensor) == (draft.module(node.name), None)
    blamed = at_fault(location)
    assert blamed == [location.culprit] or (not operation.shows and not blamed)
    assert re.match(r"its? (\w+ is .* where .* belongs|reads|has an epsilon of)", location.why)


def _without_activation(monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setitem(torchscript.ACTIVATIONS, "relu", "hidden")
    return "regnet.embedder.embedder.activation"


def _replaced(kind: str, old: str, new: str, module: str) -> Callable[[pytest.MonkeyPatch], str]:
    def plant(monkeypatch: pytest.MonkeyPatch) -> str:
        body = torchscript._BODIES[kind]
        assert old in body
        monkeypatch.setitem(torchscript._BODIES, kind, body.replace(old, new))
        return module

    return plant


FIRST = "regnet.encoder.stages.0.layers.0"
CODE_FAULTS = {
    "no activation": _without_activation,
    "another epsilon": _replaced(
        "BatchNorm2d", "{eps}", "0.001", "regnet.embedder.embedder.normalization"
    ),
    "a forgotten bias": _replaced(
        "PointwiseConv2d", "self.bias", "None", f"{FIRST}.layer.2.attention.0"
    ),
    "a hard sigmoid": _replaced(
        "Attention", "torch.sigmoid", "torch.hardsigmoid", f"{FIRST}.layer.2.attention.3"
    ),
    "a squeeze without ReLU": _replaced(
        "Attention", "torch.{act}", "torch.silu", f"{FIRST}.layer.2.attention.1"
    ),
    "another gate": _replaced(
        "RegNetSELayer", "hidden * gate", "hidden + gate", f"{FIRST}.layer.2.mul"
    ),
    "a difference for a sum": _replaced("RegNetProjectionBlock", " + ", " - ", f"{FIRST}.add"),
}


@pytest.mark.parametrize("fault", CODE_FAULTS)
def test_a_wrong_operation_in_torchscript_is_found_where_it_is_used_first(
    fault: str, folder_of: FolderOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = folder_of("Y")
    module = CODE_FAULTS[fault](monkeypatch)
    location = located(folder, "torchscript", export(folder, "torchscript"))
    assert (location.culprit, location.tensor) == (module, None)
    assert location.why


def test_a_tensor_that_is_proven_wrong_goes_before_what_numbers_suggest(
    folder_of: FolderOf, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = folder_of("Y")
    earlier = CODE_FAULTS["a hard sigmoid"](monkeypatch)
    tensor = "regnet.encoder.stages.1.layers.2.layer.0.convolution.weight"

    def change(state: dict[str, NDArray[Any]]) -> None:
        state[tensor] = changed_channel(state[tensor], 1)

    wrong = wrong_copy(folder, tmp_path / "wrong", change)
    location = located(folder, "torchscript", export(wrong, "torchscript"))
    assert (location.culprit, location.tensor) == (tensor.rpartition(".")[0], tensor)
    assert earlier in at_fault(location)
    assert location.why.endswith(f"; {earlier} errs as well, given its own input")


def test_a_fault_that_rounding_hides_in_the_output_is_found(folder_of: FolderOf) -> None:
    draft = Draft.of(folder_of("deep"), "sharing")
    norms = [node for node in draft.model.graph.node if node.op_type == "BatchNormalization"]
    next(a for a in norms[-1].attribute if a.name == "epsilon").f = 1.5e-5
    location = draft.locate()
    assert location.modules[-1].ratio < 4, "a verdict would not see it"
    assert (location.culprit, at_fault(location)) == (norms[-1].name, [norms[-1].name])


def test_weights_that_no_value_shows_are_found(tmp_path: Path) -> None:
    folder = random_folder(tmp_path / "a", RegNetConfig(**SMALL))

    def silence(state: dict[str, NDArray[Any]]) -> None:
        state["regnet.embedder.embedder.normalization.bias"][3] = -1000  # for the ReLU behind

    silent = wrong_copy(folder, tmp_path / "b", silence)
    draft = Draft.of(silent, "self-contained")
    name = f"{FIRST}.layer.0.folded_weight"
    tensor = next(t for t in draft.model.graph.initializer if t.name == name)
    array = numpy_helper.to_array(tensor).copy()
    array[5, 3] += 1
    tensor.CopyFrom(numpy_helper.from_array(array, name))
    location = draft.locate()
    assert (location.culprit, location.tensor) == (f"{FIRST}.layer.0", name)
    assert at_fault(location) == []
    assert location.why.endswith("though no value shows it on this image")


def test_a_node_that_reads_another_value_is_found(folder_of: FolderOf) -> None:
    draft = Draft.of(folder_of("X"), "sharing")
    nodes = {node.name: node for node in draft.model.graph.node}
    block = "regnet.encoder.stages.1.layers.2"
    nodes[f"{block}.add"].input[1] = "regnet.encoder.stages.1.layers.0.activation"
    location = draft.locate()
    assert (location.culprit, at_fault(location)) == (f"{block}.add", [f"{block}.add"])
    assert location.why.startswith("it reads regnet.encoder.stages.1.layers.2.layer.2")


def test_a_node_behind_the_last_is_found(folder_of: FolderOf) -> None:
    draft = Draft.of(folder_of("X"), "self-contained")
    draft.model.graph.node[-1].output[0] = "raw"
    draft.model.graph.node.append(helper.make_node("Softmax", ["raw"], ["logits"], "softmax"))
    assert draft.locate().culprit == "logits"


def test_of_two_swapped_tensors_the_first_to_be_used_is_named(folder_of: FolderOf) -> None:
    draft = Draft.of(folder_of("Y"), "self-contained")
    tensors = {tensor.name: tensor for tensor in draft.model.graph.initializer}
    block = "regnet.encoder.stages.1.layers"
    first, second = f"{block}.1.layer.0.folded_weight", f"{block}.2.layer.0.folded_weight"
    tensors[first].name, tensors[second].name = second, first
    location = draft.locate()
    assert location.tensor == first
    assert at_fault(location) == [f"{block}.1.layer.0", f"{block}.2.layer.0"]


@pytest.mark.parametrize("form", ONNX_FORMS)
def test_a_nan_is_found_where_it_begins(form: str, folder_of: FolderOf) -> None:
    draft = Draft.of(folder_of("Y"), form)
    name = "regnet.encoder.stages.1.layers.1.layer.2.attention.2.bias"
    tensor = next(t for t in draft.model.graph.initializer if t.name == name)
    array = numpy_helper.to_array(tensor, str(draft.path.parent)).copy()
    array[4] = np.nan
    tensor.CopyFrom(numpy_helper.from_array(array, name))
    location = draft.locate()
    assert (location.tensor, location.channel) == (name, 4)
    assert at_fault(location) == [location.culprit]
    json.dumps(location.to_dict(), allow_nan=False)
    drawn(location)


def test_damaged_weights_are_not_blamed_on_the_artefact(
    folder_of: FolderOf, tmp_path: Path
) -> None:
    def damage(state: dict[str, NDArray[Any]]) -> None:
        state[f"{FIRST}.layer.0.normalization.bias"][0] = np.inf

    folder = wrong_copy(folder_of("X"), tmp_path / "wrong", damage)
    location = located(folder, "torchscript", export(folder, "torchscript"))
    assert location.culprit is None
    assert location.why.startswith(f"the reference itself is not finite at {FIRST}.layer.0.norm")


def test_what_cannot_be_run_is_found_by_its_looks(folder_of: FolderOf) -> None:
    draft = Draft.of(folder_of("X"), "self-contained")
    name = "regnet.encoder.stages.1.layers.1.layer.1.convolution"
    node = next(node for node in draft.model.graph.node if node.name == name)
    next(a for a in node.attribute if a.name == "strides").ints[:] = [2, 2]
    location = draft.locate()
    assert location.culprit == name.removesuffix(".convolution")
    assert location.why.startswith("its strides is [2, 2] where [1, 1] belongs, and the file cann")
    assert location.modules == ()
    drawn(location)


def test_what_cannot_be_run_and_looks_right_is_refused_in_a_sentence(
    folder_of: FolderOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    body = torchscript._CONVOLUTION
    fault = body.replace("[{padding}, {padding}]", "[{padding}, 0]")
    assert fault != body
    monkeypatch.setattr(torchscript, "_CONVOLUTION", fault)
    folder = folder_of("X")
    words = (
        r"^model\.torchscript\.pt cannot be run \(RuntimeError: The size .*\), though .* again\.$"
    )
    with pytest.raises(InputError, match=words):
        located(folder, "torchscript", export(folder, "torchscript"))


def test_a_file_of_another_exporter_is_refused_in_a_sentence(folder_of: FolderOf) -> None:
    draft = Draft.of(folder_of("X"), "self-contained")
    for number, node in enumerate(draft.model.graph.node):
        node.name = f"node_{number}"
    with pytest.raises(InputError, match=r"^model\.onnx calls its nodes otherwise .*`\.$"):
        draft.locate()


@pytest.mark.parametrize("form", ["self-contained", "torchscript"])
def test_a_damaged_file_is_refused_in_a_sentence(
    form: str, folder_of: FolderOf, tmp_path: Path
) -> None:
    path = tmp_path / "damaged"
    path.write_bytes(b"\xff" * 100)
    with pytest.raises(InputError, match=r"^damaged cannot be opened as .* export it again\.$"):
        located(folder_of("X"), form, path)


@pytest.mark.parametrize(("folded", "least"), [(False, 50), (True, 20)])
def test_the_walk_is_the_reference_model(folded: bool, least: int, folder_of: FolderOf) -> None:
    """Against hooks in the model's own run, to the last bit."""
    folder = folder_of("Y")
    runtime = ReferenceRuntime(folder, "float64")
    seen: dict[str, torch.Tensor] = {}
    for name, module in runtime.model.named_modules():
        module.register_forward_hook(lambda _m, _i, out, name=name: seen.update({name: out}))
    pixels = pixels_for(folder)
    logits = runtime(pixels)["logits"]
    values = {PIXELS: torch.tensor(pixels, dtype=torch.float64)}
    with torch.inference_mode():
        for operation in values_of(folder, folded=folded):
            read = [values[name] for name in operation.inputs]
            values[operation.name] = compute(operation, read, runtime.model.state_dict())
    assert np.array_equal(values["logits"].numpy(), logits)
    norm = ".normalization"  # where a convolution has taken it in, the value behind both
    seen |= {name.removesuffix(norm): seen[name] for name in seen if folded and name.endswith(norm)}
    hooked = [name for name in values if isinstance(seen.get(name), torch.Tensor)]
    assert len(hooked) > least
    assert all(torch.equal(values[name], seen[name]) for name in hooked)
    blocks = [name for name in seen if re.fullmatch(r".*layers\.\d", name)]
    assert all(torch.equal(values[f"{name}.activation"], seen[name]) for name in blocks)


@pytest.fixture(scope="module")
def location(folder_of: FolderOf) -> Location:
    draft = Draft.of(folder_of("Y"), "sharing")
    change_tensor(draft.model, draft.path.parent, f"{FIRST}.layer.1.convolution.weight", 3)
    return draft.locate()


def test_the_plot_marks_the_culprit_and_every_module(location: Location) -> None:
    drawing = drawn(location)
    titles = [title.text or "" for title in drawing.iter("{http://www.w3.org/2000/svg}title")]
    assert f"{FIRST}.layer.1.convolution, its {FIRST}.layer.1.convolution.weight" in titles[0]
    assert all(any(f": {m.module}, " in title for title in titles) for m in location.modules)
    markup = ET.tostring(drawing, encoding="unicode")
    assert markup.count("#d62728") == 2, "in the legend and at the culprit"
    assert "nan" not in markup
    assert "inf" not in markup
    heights = [float(y) for y in re.findall(r'\bcy="([^"]+)"', markup)]
    assert all(0 < y < 280 for y in heights), "no dot lies below the axis"


def test_the_table_shows_the_culprit_and_where_the_error_goes(location: Location) -> None:
    console = Console(width=140)
    with console.capture() as capture:
        console.print(location_table(location))
    printed = capture.get()
    assert f"model.onnx goes wrong at {FIRST}.layer.1.convolution, most in channel 3" in printed
    rows = [line for line in printed.splitlines() if re.search(r"\d+ │ \S", line)]
    assert any(f" {FIRST}.layer.1.convolution " in row for row in rows)
    assert " logits " in rows[-1]
    assert len(rows) < 15


def test_a_location_is_plain_values(location: Location) -> None:
    plain = json.loads(json.dumps(location.to_dict(), allow_nan=False))
    assert plain["culprit"] == f"{FIRST}.layer.1.convolution"
    assert plain["channel"] == 3
    (module,) = [m for m in plain["modules"] if m["local"] > BAND]
    assert module.keys() == {"module", "depth", "errors", "ratio", "local"}
