"""Artefacts of other tools in a folder or beside it: proven by their graph, or said why not."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import pytest
import torch
from onnx import helper

from converters.errors import InputError, UnsafeInputError
from converters.folder.folder import ConvertedFolder
from converters.formats.format import ExportOptions
from converters.formats.onnx.export import PRODUCER
from converters.formats.registry import FORMATS
from converters.jobs.convert import convert
from converters.jobs.verify import verify
from converters.parity.artefact import format_of, judge_artefact
from converters.parity.contents.found import Proof, prove
from converters.parity.truth import Truth
from converters.parity.verdict import PROVEN
from regnet import RegNetForImageClassification

if TYPE_CHECKING:
    from collections.abc import Callable

    from onnx import ModelProto, NodeProto

    from converters.parity.verdict import Verdict

RECORDED = Path(__file__).parents[2] / "recorded" / "onnx"

SHAPE = (3, 3, 40, 56)
"""Of the images: batch, channels, height, width."""

SOURCES = {"y": "torch-plain-y", "trunk": "torch-plain-odd"}
"""What the folders are made of: files with batch norms, of whose networks there are folded ones."""


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, ConvertedFolder]:
    path: Path = tmp_path_factory.mktemp("foreign")
    for name, source in SOURCES.items():
        convert(RECORDED / f"{source}.onnx", path / name, formats=(), verify=False)
    return {name: ConvertedFolder(path / name) for name in SOURCES}


@pytest.fixture(scope="module")
def truths(folders: dict[str, ConvertedFolder]) -> dict[str, Truth]:
    """On a few small images."""
    pixels = np.random.default_rng(1).standard_normal(SHAPE).astype(np.float32)
    return {name: Truth(folder, {"odd": pixels}) for name, folder in folders.items()}


@pytest.fixture
def judged(folders: dict[str, ConvertedFolder], truths: dict[str, Truth]) -> Callable[..., Verdict]:
    def judge(path: Path, name: str = "y", kind: str = "onnx") -> Verdict:
        return judge_artefact(folders[name], truths[name], kind, path, found=True)

    return judge


def changed(edit: Callable[[ModelProto], Any], folder: Path, name: str = "timm-y.onnx") -> Path:
    model = onnx.load(RECORDED / name)
    edit(model)
    onnx.save(model, folder / "changed.onnx")
    return folder / "changed.onnx"


def node_of(model: ModelProto, op: str, index: int = 0) -> NodeProto:
    found: NodeProto = [node for node in model.graph.node if node.op_type == op][index]
    return found


@pytest.mark.parametrize(
    ("file", "name", "identical", "recomputed"),
    [
        ("torch-plain-y", "y", 122, 0),
        ("timm-y", "y", 22, 40),
        ("torch-plain-odd", "trunk", 120, 0),
        ("timm-odd", "trunk", 20, 40),
    ],
)
def test_a_right_file_of_another_tool_is_proven_and_passes(
    file: str, name: str, identical: int, recomputed: int, judged: Callable[..., Verdict]
) -> None:
    verdict = judged(RECORDED / f"{file}.onnx", name)

    assert verdict.passed, verdict.failure
    assert verdict.graph == PROVEN
    assert verdict.not_compared is None
    assert verdict.tensors is not None
    assert verdict.tensors.graph_compared
    assert (verdict.tensors.identical, verdict.tensors.recomputed) == (identical, recomputed)
    assert verdict.measurements


def test_what_is_proven_runs_in_a_process_of_its_own_all_the_same(
    judged: Callable[..., Verdict], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Our reader and a runtime's may differ on a file that was made for it."""

    def refuse(*_: object) -> None:
        raise InputError("apart")

    monkeypatch.setattr("converters.parity.artefact.ConfinedForeign", refuse)

    assert "it cannot be run (apart)" in (judged(RECORDED / "timm-y.onnx").wrong or "")


# Faults that numbers do not show, or not for sure.


def other_epsilon(model: ModelProto) -> None:
    node = node_of(model, "BatchNormalization", 4)
    next(a for a in node.attribute if a.name == "epsilon").f = 2e-5


def padded_pointwise(model: ModelProto) -> None:
    node = next(
        n
        for n in model.graph.node
        if n.op_type == "Conv" and tuple(attribute(n, "kernel_shape") or ()) == (1, 1)
    )
    kept = [a for a in node.attribute if a.name != "pads"]
    del node.attribute[:]
    node.attribute.extend([*kept, helper.make_attribute("pads", [0, 0, 0, 1])])


def attribute(node: NodeProto, name: str) -> Any:
    return next((helper.get_attribute_value(a) for a in node.attribute if a.name == name), None)


def scaled_classifier(model: ModelProto) -> None:
    next(a for a in node_of(model, "Gemm").attribute if a.name == "alpha").f = 1.00001


@pytest.mark.parametrize(
    ("edit", "clause"),
    [
        (other_epsilon, "has epsilon 2e-05 where 1e-05 belongs"),
        (padded_pointwise, "has pads 0, 0, 0, 1 where 0, 0, 0, 0 belongs"),
        (scaled_classifier, "has alpha 1.00001 where 1 belongs"),
    ],
)
def test_one_other_attribute_fails(
    edit: Callable[[ModelProto], None],
    clause: str,
    folders: dict[str, ConvertedFolder],
    tmp_path: Path,
) -> None:
    proof = prove(folders["y"], "onnx", changed(edit, tmp_path, "torch-plain-y.onnx"))

    assert proof.tensors is not None
    (wrong,) = proof.tensors.wrong
    assert wrong.startswith("its node ")
    assert wrong.endswith(clause)
    assert proof.graph is None


def test_a_file_with_another_epsilon_fails_as_a_whole(
    judged: Callable[..., Verdict], tmp_path: Path
) -> None:
    verdict = judged(changed(other_epsilon, tmp_path, "torch-plain-y.onnx"))

    assert verdict.outcome == "FAIL"
    assert "has epsilon 2e-05 where 1e-05 belongs" in (verdict.tensors.wrong[0])  # type: ignore[union-attr]


def dead_branch(model: ModelProto) -> None:
    """An activation that nothing reads."""
    value = node_of(model, "Relu", 3).input[0]
    model.graph.node.append(helper.make_node("Sigmoid", [value], ["unread"], name="unread"))
    model.graph.node.append(
        helper.make_node("GlobalAveragePool", ["unread"], ["dead"], name="dead")
    )


def leaky(model: ModelProto) -> None:
    """The same by an operator that is not known."""
    node = node_of(model, "Relu")
    node.op_type = "LeakyRelu"
    node.attribute.append(helper.make_attribute("alpha", 0.0))


@pytest.mark.parametrize(
    ("edit", "why"),
    [
        (dead_branch, "graph not proven: its node"),
        (leaky, "graph not proven: its node LeakyRelu '"),
    ],
)
def test_a_graph_that_is_not_understood_is_judged_by_numbers_and_said_so(
    edit: Callable[[ModelProto], None], why: str, judged: Callable[..., Verdict], tmp_path: Path
) -> None:
    verdict = judged(changed(edit, tmp_path))

    assert verdict.passed, verdict.failure
    assert (verdict.graph or "").startswith(why)
    assert verdict.not_compared == "tensors and graph"
    assert verdict.tensors is None


def test_a_graph_that_is_not_understood_still_has_to_compute_the_same(
    judged: Callable[..., Verdict], tmp_path: Path
) -> None:
    def leak(model: ModelProto) -> None:
        leaky(model)
        node_of(model, "LeakyRelu").attribute[-1].f = 1e-3

    assert judged(changed(leak, tmp_path)).outcome == "FAIL"


@pytest.mark.parametrize(
    ("other", "fault"),
    [
        ("timm-x", "its graph has layer_type x where the folder has y"),
        ("timm-odd", "its graph is a trunk alone"),
        ("torchvision-y", "differs from"),
    ],
)
def test_another_network_is_no_proven_graph(
    other: str, fault: str, folders: dict[str, ConvertedFolder]
) -> None:
    proof = prove(folders["y"], "onnx", RECORDED / f"{other}.onnx")

    assert proof.tensors is not None
    assert any(fault in clause for clause in proof.tensors.wrong)
    assert (proof.graph is None) == fault.startswith("its graph")


# Files under our mark are held to our names as before, whatever their graph is.


def mark(model: ModelProto) -> None:
    model.producer_name = PRODUCER


def test_a_forged_mark_excuses_nothing(folders: dict[str, ConvertedFolder], tmp_path: Path) -> None:
    proof = prove(folders["y"], "onnx", changed(mark, tmp_path))

    assert proof.is_ours
    assert proof.tensors is not None
    assert any("is no tensor that belongs there" in clause for clause in proof.tensors.wrong)


def test_a_mark_is_seen_where_the_reader_of_a_kind_gives_up(
    folders: dict[str, ConvertedFolder], tmp_path: Path
) -> None:
    """That of int8 does, where a file does not state how it was quantised."""
    forged = prove(folders["y"], "onnx-int8", changed(mark, tmp_path))
    another = prove(folders["y"], "onnx-int8", RECORDED / "timm-y.onnx")

    assert forged.tensors is not None
    assert "its tensors cannot be read" in forged.tensors.wrong[0]
    assert another.tensors is not None
    assert another.tensors.wrong == ()


def ours(folder: ConvertedFolder, path: Path, edit: Callable[[ModelProto], None]) -> Proof:
    FORMATS["onnx"].export(folder, path, ExportOptions())
    model = onnx.load(path)
    edit(model)
    onnx.save(model, path)
    return prove(folder, "onnx", path)


def test_a_file_of_an_earlier_revision_is_proven_by_its_graph_and_held_to_its_names(
    folders: dict[str, ConvertedFolder], tmp_path: Path
) -> None:
    def date_back(model: ModelProto) -> None:
        model.producer_version = "0"

    def rename(model: ModelProto) -> None:
        date_back(model)
        tensor = model.graph.initializer[0]
        for node in model.graph.node:
            node.input[:] = ["other" if name == tensor.name else name for name in node.input]
        tensor.name = "other"

    right = ours(folders["y"], tmp_path / "right.onnx", date_back)
    assert (right.graph, right.is_ours) == (PROVEN, True)
    assert right.tensors is not None
    assert right.tensors.wrong == ()
    wrong = ours(folders["y"], tmp_path / "wrong.onnx", rename)
    assert wrong.tensors is not None
    assert "other is no tensor that belongs there" in wrong.tensors.wrong


@pytest.mark.parametrize(
    ("key", "value", "fault"),
    [
        ("id2label", '{"0": "other"}', "its metadata names other classes than config.json"),
        ("preprocessing", "{}", "its metadata states another preprocessing than"),
    ],
)
def test_what_a_file_states_of_classes_and_images_is_held_to_the_folder(
    key: str, value: str, fault: str, folders: dict[str, ConvertedFolder], tmp_path: Path
) -> None:
    def restate(model: ModelProto) -> None:
        model.producer_name = "another"
        kept = [entry for entry in model.metadata_props if entry.key != key]
        del model.metadata_props[:]
        model.metadata_props.extend([*kept, onnx.StringStringEntryProto(key=key, value=value)])

    proof = ours(folders["y"], tmp_path / "restated.onnx", restate)

    assert proof.tensors is not None
    (wrong,) = proof.tensors.wrong
    assert wrong.startswith(fault)


def test_weights_elsewhere_are_unsafe_as_before(
    judged: Callable[..., Verdict], tmp_path: Path
) -> None:
    def point_away(model: ModelProto) -> None:
        tensor = model.graph.initializer[0]
        tensor.ClearField("raw_data")
        tensor.data_location = onnx.TensorProto.EXTERNAL
        tensor.external_data.append(onnx.StringStringEntryProto(key="location", value="../weights"))

    with pytest.raises(UnsafeInputError, match="outside of its"):
        judged(changed(point_away, tmp_path))


# Programs of torch.


class Wrapped(torch.nn.Module):
    """A network whose tensors have other names than ours."""

    def __init__(self, network: torch.nn.Module) -> None:
        super().__init__()
        self.inside = network

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.inside(pixels).logits
        return logits


@pytest.mark.parametrize("frozen", [False, True], ids=["traced", "frozen"])
@pytest.mark.filterwarnings("ignore")
def test_a_torchscript_file_is_proven_by_its_graph(
    frozen: bool,
    judged: Callable[..., Verdict],
    folders: dict[str, ConvertedFolder],
    tmp_path: Path,
) -> None:
    """Of a frozen one the batch norms are in their convolutions."""
    network = RegNetForImageClassification.from_pretrained(folders["y"].path).eval()
    path = tmp_path / "any.pt"

    def save() -> None:
        traced: Any = torch.jit.trace(Wrapped(network), torch.zeros(2, 3, 64, 64))  # type: ignore[no-untyped-call]
        torch.jit.save(torch.jit.freeze(traced.eval()) if frozen else traced, path)

    save()
    verdict = judged(path, kind=format_of(path))

    assert (verdict.outcome, verdict.graph, verdict.not_compared) == ("pass", PROVEN, None)
    assert verdict.tensors is not None
    counts = (verdict.tensors.identical, verdict.tensors.recomputed)
    assert counts == ((22, 40) if frozen else (122, 0))
    norm = network.regnet.encoder.stages[1].layers[0].layer[0].normalization
    norm.eps = 2e-5
    save()
    wrong = judged(path, kind="torchscript")
    assert wrong.outcome == "FAIL"
    assert wrong.tensors is not None
    expected = "folded_weight differs from" if frozen else "has epsilon 2e-05 where 1e-05 belongs"
    assert expected in wrong.tensors.wrong[0]


def test_a_program_is_proven_and_run_unless_loading_it_would_unpickle(
    judged: Callable[..., Verdict], folders: dict[str, ConvertedFolder], tmp_path: Path
) -> None:
    """As what torch keeps of example inputs does."""
    network = RegNetForImageClassification.from_pretrained(folders["y"].path).eval()
    path = tmp_path / "any.pt2"
    exported = torch.export.export(Wrapped(network), (torch.zeros(SHAPE),))
    torch.export.save(exported, path)

    pickled = judged(path, kind="pt2")

    assert (pickled.outcome, pickled.passed, pickled.graph) == ("not run", True, PROVEN)
    assert "which can run any code when it is loaded" in (pickled.not_run or "")
    assert pickled.tensors is not None
    assert (pickled.tensors.identical, pickled.tensors.recomputed) == (122, 0)
    exported.example_inputs = None
    torch.export.save(exported, path)
    plain = judged(path, kind="pt2")
    assert (plain.outcome, plain.graph, plain.not_compared) == ("pass", PROVEN, None)
    with torch.no_grad():
        network.classifier[1].bias[0] += 1e-6
    torch.export.save(exported, path)
    (wrong,) = (judged(path, kind="pt2").tensors or pickled.tensors).wrong
    assert wrong.startswith("classifier.1.bias differs from the weights in 1 of 5 values")


# Files that lie elsewhere.


def test_a_file_that_lies_elsewhere_is_judged_by_the_folder(
    folders: dict[str, ConvertedFolder], tmp_path: Path
) -> None:
    path = shutil.copy(RECORDED / "timm-y.onnx", tmp_path / "model.onnx")

    report = verify(folders["y"].path, artefacts=[path, RECORDED / "timm-x.onnx"])

    assert [v.artefact for v in report.verdicts[-2:]] == ["model.onnx", "timm-x.onnx"]
    assert [v.outcome for v in report.verdicts[-2:]] == ["pass", "FAIL"]
    assert report.verdicts[-2].graph == PROVEN
    assert report.elsewhere == ("model.onnx", "timm-x.onnx")
    assert report.failed_elsewhere == ["timm-x.onnx"]


@pytest.mark.parametrize(("source", "right"), [("torch-plain-y", True), ("timm-x", False)])
def test_a_file_that_shares_the_weights_of_another_folder_is_held_to_them(
    source: str, right: bool, folders: dict[str, ConvertedFolder], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    convert(RECORDED / f"{source}.onnx", out, formats=["onnx"], share_weights=True, verify=False)

    proof = prove(folders["y"], "onnx", out / "model.onnx")

    assert proof.tensors is not None
    assert (proof.tensors.wrong == ()) == right
    assert proof.graph == (PROVEN if right else None)


@pytest.mark.parametrize("name", ["absent.onnx", "network.txt"])
def test_what_is_no_artefact_is_refused_before_anything_is_computed(
    name: str, folders: dict[str, ConvertedFolder], tmp_path: Path
) -> None:
    (tmp_path / "network.txt").write_text("a network")

    with pytest.raises(InputError, match=r"(is no file; name|is no ONNX, TorchScript or \.pt2)"):
        verify(folders["y"].path, artefacts=tmp_path / name)


def test_a_file_is_judged_as_the_kind_that_its_name_says(tmp_path: Path) -> None:
    for name, kind in {
        "any.onnx": "onnx",
        "model_fp16.onnx": "onnx-fp16",
        "model_quantized.onnx": "onnx-int8",
    }.items():
        assert format_of(shutil.copy(RECORDED / "timm-x.onnx", tmp_path / name)) == kind
