"""Two networks compared, whatever each is stored as; real frameworks made what is compared."""

from __future__ import annotations

import json
import shutil
import warnings
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from PIL import Image
from safetensors.numpy import load_file, save_file
from torch import nn

from converters.errors import InputError
from converters.families.options import SourceOptions
from converters.formats.confined import Allowance
from converters.jobs.convert import convert
from converters.jobs.writeback import write_back
from converters.parity.compare.comparison import Comparison, DifferentError, compare
from converters.parity.compare.sides import opened
from tests.converters.parity.compare.foreign import export_onnx, export_torchscript, network_of
from tests.converters.parity.wrong import STATE_MISTAKES
from tests.oracles.savers import save
from tests.oracles.transformers import classifier, trunk, twin

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

TENSORS = 164
"""Of the network of `tests.oracles.savers`, with squeeze-and-excitation."""

DYNAMIC = {"picture": {0: "n", 2: "h", 3: "w"}, "scores": {0: "n"}}


def compared(a: Path, b: Path, *photographs: Path, **options: Any) -> Comparison:
    with ExitStack() as stack:
        sides = (stack.enter_context(opened(p, SourceOptions(**options))) for p in (a, b))
        comparison = compare(*sides, images=photographs)
        json.dumps(comparison.to_dict(), allow_nan=False)
        return comparison


@pytest.fixture(scope="module")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One network: as pycls saved it, converted, and as other frameworks and tools have it."""
    shelf = tmp_path_factory.mktemp("shelf")
    save("pycls", shelf, "y", 10)
    convert(shelf / "pycls.pyth", shelf / "out")
    for framework in ("timm", "torchvision", "classy-vision"):
        write_back(shelf / "out", shelf / framework, framework)
    network = network_of(shelf / "timm")
    export_onnx(network, shelf / "fixed.onnx")
    export_onnx(network, shelf / "pairs.onnx", batch=2)
    export_onnx(network, shelf / "any size.onnx", dynamic_axes=DYNAMIC)
    export_torchscript(network, shelf / "traced.pt")
    convert(
        shelf / "pycls.pyth",
        shelf / "sharing",
        formats=["onnx"],
        share_weights=True,
    )
    return shelf


@pytest.fixture
def changed(shelf: Path, tmp_path: Path) -> Callable[[Callable[[dict[str, Any]], None]], Path]:
    """Makes a converted folder with other weights."""

    def change(mistake: Callable[[dict[str, Any]], None]) -> Path:
        folder = shutil.copytree(shelf / "out", tmp_path / "changed")
        state = load_file(folder / "model.safetensors")
        mistake(state)
        save_file(state, folder / "model.safetensors")
        return folder

    return change


@pytest.mark.parametrize("other", ["timm", "torchvision", "classy-vision", "out"])
def test_checkpoints_of_two_frameworks_hold_one_network_bit_by_bit(shelf: Path, other: str) -> None:
    comparison = compared(shelf / "pycls.pyth", shelf / other)

    assert comparison.same
    assert comparison.weights.identical == TENSORS
    assert not comparison.weights.differences
    assert comparison.verdict is not None
    assert comparison.verdict.artefact == "B"
    assert all(distance.sqnr_db is None for distance in comparison.distances)


def test_what_mmpretrain_takes_in_bgr_is_the_same_network(tmp_path: Path) -> None:
    pytest.importorskip("mmpretrain")
    _, ours = save("mmpretrain", tmp_path, "x", 10)
    write_back(ours, tmp_path / "torchvision", "torchvision")

    assert compared(ours, tmp_path / "torchvision").weights.identical == 140
    assert not compared(ours, tmp_path / "torchvision", channel_order="rgb").same


@pytest.mark.parametrize(
    ("artefact", "identical", "recomputed"),
    [
        ("out/model.onnx", 26, 46),
        ("out/model.torchscript.pt", TENSORS, 0),
        ("sharing/model.onnx", TENSORS, 0),
    ],
)
def test_an_artefact_holds_and_computes_what_the_checkpoint_does(
    shelf: Path, artefact: str, identical: int, recomputed: int
) -> None:
    comparison = compared(shelf / artefact, shelf / "pycls.pyth")

    assert comparison.same
    assert comparison.oracle == "the reference model with B's weights in float64"
    assert comparison.verdict is not None
    assert comparison.verdict.artefact == "A"
    weights = comparison.weights
    assert (weights.identical, weights.recomputed) == (identical, recomputed)
    assert comparison.fields == ()


@pytest.mark.parametrize("other", ["fixed.onnx", "pairs.onnx", "any size.onnx", "traced.pt"])
def test_another_tools_artefact_is_judged_by_the_checkpoint(shelf: Path, other: str) -> None:
    comparison = compared(shelf / "pycls.pyth", shelf / other)

    assert comparison.same
    assert comparison.weights.note == "graph proven"
    assert comparison.weights.identical + comparison.weights.recomputed > 50
    assert len(comparison.distances) == (1 if other in {"fixed.onnx", "pairs.onnx"} else 7)
    for distance in comparison.distances:
        assert distance.sqnr_db is None or distance.sqnr_db > 100
        assert distance.top1 is not None
        assert distance.top1.agree == distance.top1.images


def test_another_tools_program_differs_by_its_tensors(shelf: Path, tmp_path: Path) -> None:
    loading: Any = torch.jit.load
    with warnings.catch_warnings(action="ignore"):
        program = loading(shelf / "traced.pt")
        with torch.no_grad():
            program.head.fc.bias[3] += 1
        program.save(tmp_path / "other.pt")

    comparison = compared(shelf / "pycls.pyth", tmp_path / "other.pt")

    assert not comparison.same
    assert comparison.weights.note == "graph proven"
    (difference,) = comparison.weights.differences
    assert difference.startswith("classifier.1.bias differs from the weights in 1 of 10 values")


def test_what_another_tool_made_of_our_artefact_is_judged_by_its_outputs(
    shelf: Path, tmp_path: Path
) -> None:
    model = onnx.load(shelf / "out" / "model.onnx")
    model.producer_name = "optimiser"
    kernel = next(t for t in model.graph.initializer if t.name.endswith("folded_weight"))
    rounded = numpy_helper.to_array(kernel) * np.float32(1 + 2e-7)
    kernel.CopyFrom(numpy_helper.from_array(rounded, kernel.name))
    onnx.save(model, tmp_path / "optimised.onnx", save_as_external_data=True, size_threshold=0)

    comparison = compared(shelf / "out", tmp_path / "optimised.onnx")

    assert comparison.same
    assert not comparison.weights.differences
    original = compared(shelf / "out" / "model.onnx", tmp_path / "optimised.onnx")
    assert original.same
    assert len(original.weights.differences) == 1


PAIRS = {
    ("fixed.onnx", "traced.pt"): "B itself in float64, by torch",
    ("out/model.torchscript.pt", "traced.pt"): "A itself in float64, by torch",
    ("out/model.onnx", "any size.onnx"): "A itself in float64, by ONNX's reference evaluator",
    ("fixed.onnx", "sharing/model.onnx"): "A itself in float64, by ONNX's reference evaluator",
}


@pytest.mark.parametrize("pair", PAIRS, ids=" and ".join)
def test_two_artefacts_are_judged_by_the_noise_of_one(shelf: Path, pair: tuple[str, str]) -> None:
    comparison = compared(*(shelf / name for name in pair))

    assert comparison.same
    assert comparison.oracle.startswith(PAIRS[pair])
    assert comparison.verdict is not None
    assert 0 < comparison.verdict.worst("rms_ratio") < 4


@pytest.mark.parametrize("mistake", [name for name in STATE_MISTAKES if name != "a NaN"])
def test_a_wrong_artefact_differs_from_another_tools(
    shelf: Path, tmp_path: Path, mistake: str
) -> None:
    if "epsilon of 2e-5" in mistake:
        pytest.skip("lost in the rounding of so small a network")
    state = load_file(shelf / "out" / "model.safetensors")
    STATE_MISTAKES[mistake](state)
    model = classifier(layer_type="y")
    convert(shelf / "out", tmp_path / "right", formats=(), verify=False)
    save_file(state, tmp_path / "right" / "model.safetensors")
    wrong = type(model).from_pretrained(tmp_path / "right").eval()
    path = export_onnx(_Logits(wrong), tmp_path / "wrong.onnx")

    assert not compared(shelf / "fixed.onnx", path).same
    assert not compared(path, shelf / "out" / "model.torchscript.pt").same
    assert not compared(path, shelf / "out").same


class _Logits(nn.Module):
    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.network(pixels).logits
        return logits


WORDS = {
    "two tensors of equal shape swapped": "holds what A calls ",
    "a bias dropped": "differs in 32 of 32 values, first at [0], by at most ",
    "classes reversed": "classifier.1.bias differs in 10 of 10 values",
    "the BGR flip forgotten": "has its input channels reversed (BGR against RGB)",
    "a NaN": "and not all are finite",
    "an epsilon of 2e-5": "running_var differs in",
}


@pytest.mark.parametrize("mistake", WORDS)
def test_a_difference_of_weights_is_named(
    shelf: Path, changed: Callable[..., Path], mistake: str
) -> None:
    comparison = compared(shelf / "out", changed(STATE_MISTAKES[mistake]))

    assert any(WORDS[mistake] in clause for clause in comparison.weights.differences)
    assert not comparison.same
    with pytest.raises(DifferentError, match=r"^A \(out\) and B \(changed\) differ: [^.].*\.$"):
        comparison.require_same()


def test_an_artefact_of_other_weights_differs_by_its_tensors(
    shelf: Path, changed: Callable[..., Path]
) -> None:
    folder = changed(STATE_MISTAKES["an epsilon of 2e-5"])

    comparison = compared(folder, shelf / "out" / "model.onnx")

    assert not comparison.same
    assert "folded_weight differs from the fold recomputed" in comparison.differences[0]


def test_counters_of_batches_do_not_decide(shelf: Path, changed: Callable[..., Path]) -> None:
    def forget(state: dict[str, Any]) -> None:
        counters = [name for name in state if name.endswith("num_batches_tracked")]
        state.update({name: np.zeros_like(state[name]) for name in counters})

    folder = changed(forget)
    (folder / "model.torchscript.pt").unlink()  # which has counters too, the old ones
    comparison = compared(shelf / "out", folder)

    assert comparison.same
    assert comparison.weights.counters == 23


def test_weights_rounded_to_another_type_are_said_to_be_that(shelf: Path, tmp_path: Path) -> None:
    convert(shelf / "pycls.pyth", tmp_path / "half", dtype="float16", formats=(), verify=False)

    comparison = compared(shelf / "out", tmp_path / "half")

    assert not comparison.same
    clause = comparison.weights.differences[0]
    assert clause.endswith("is float16 where A has float32, the same numbers rounded")
    assert "dtype" in {field.field for field in comparison.fields or ()}


def test_what_is_stated_differently_is_listed_and_does_not_decide(shelf: Path) -> None:
    comparison = compared(shelf / "out", shelf / "torchvision")

    assert comparison.same
    stated = {field.field: (field.a, field.b) for field in comparison.fields or ()}
    assert stated["size"] == ('{"shortest_edge": 64}', '{"shortest_edge": 224}')


@pytest.mark.parametrize(
    ("ours", "theirs"), [("model.onnx", "fixed.onnx"), ("model.torchscript.pt", "traced.pt")]
)
def test_what_an_artefact_states_is_compared_with_what_a_checkpoint_says(
    ours: str, theirs: str, shelf: Path
) -> None:
    comparison = compared(shelf / "torchvision", shelf / "out" / ours)

    assert comparison.same
    assert comparison.fields is not None
    assert {field.field for field in comparison.fields} == {"crop_pct", "size"}
    assert compared(shelf / "out", shelf / theirs).fields is None


@pytest.mark.parametrize(
    ("ours", "theirs", "words"),
    [
        ({"num_labels": 4}, {"num_labels": 5}, "classifier.1.bias has shape [5] where A has [4]"),
        ({"layer_type": "x"}, {"layer_type": "y"}, "is in B alone"),
        ({"hidden_act": "relu"}, {"hidden_act": "silu"}, "RMS error of logits is"),
        ({"num_channels": 3}, {"num_channels": 1}, "A takes 3 channels and B 1"),
    ],
)
def test_other_architectures_differ(
    tmp_path: Path, ours: dict[str, Any], theirs: dict[str, Any], words: str
) -> None:
    for name, fields in (("a", ours), ("b", theirs)):
        _save(classifier(**fields), tmp_path / name)

    comparison = compared(tmp_path / "a", tmp_path / "b")

    assert not comparison.same
    found = [*comparison.differences, *comparison.weights.differences]
    assert any(words in clause for clause in found)


def test_a_trunk_is_not_the_classifier_it_was_cut_from(tmp_path: Path) -> None:
    whole = classifier()
    _save(whole, tmp_path / "whole")
    _save(whole.regnet, tmp_path / "trunk")

    comparison = compared(tmp_path / "whole", tmp_path / "trunk")

    assert set(comparison.weights.differences) == {
        "classifier.1.weight is in A alone",
        "classifier.1.bias is in A alone",
    }
    assert "there is no output logits" in comparison.differences[1]


def test_a_trunk_is_compared_with_transformers_export_of_it(tmp_path: Path) -> None:
    network = trunk()
    _save(network, tmp_path / "trunk")
    names = ["last_hidden_state", "pooler_output"]
    path = export_onnx(_Pair(twin(network)), tmp_path / "trunk.onnx", output_names=names)

    comparison = compared(path, tmp_path / "trunk")

    assert comparison.same
    assert {distance.output for distance in comparison.distances} == set(names)


class _Pair(nn.Module):
    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, pixels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        output = self.network(pixels)
        return output.last_hidden_state, output.pooler_output


def test_photographs_are_run_where_a_side_says_how_to_prepare_them(
    shelf: Path, tmp_path: Path
) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (90, 120, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")

    comparison = compared(shelf / "out", shelf / "torchvision", tmp_path / "a.png")

    assert "photographs" in {distance.batch for distance in comparison.distances}
    with pytest.raises(InputError, match=r"says how pictures are prepared; leave out"):
        compared(shelf / "fixed.onnx", shelf / "traced.pt", tmp_path / "a.png")


def test_a_side_is_opened_by_its_content_whatever_its_name(shelf: Path, tmp_path: Path) -> None:
    shutil.copy(shelf / "fixed.onnx", tmp_path / "a.pth")
    shutil.copy(shelf / "traced.pt", tmp_path / "b.safetensors")
    shutil.copy(shelf / "pycls.pyth", tmp_path / "c.onnx")

    assert compared(tmp_path / "a.pth", tmp_path / "b.safetensors").same
    assert compared(tmp_path / "b.safetensors", tmp_path / "c.onnx").same


def _graph(inputs: list[Any], shape: tuple[int | str, ...]) -> bytes:
    output = helper.make_tensor_value_info("y", TensorProto.FLOAT, shape)
    node = helper.make_node("Identity", ["x"], ["y"])
    graph = helper.make_graph([node], "g", inputs, [output])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    content: bytes = model.SerializeToString()
    return content


def _image(name: str, *shape: int | str) -> Any:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)


BAD = {
    "text": (b"hello", "is no checkpoint of a known kind"),
    "the start of a protobuf": (b"\x08\x08\x12\x07pytorch", "cannot be loaded by ONNX Runtime"),
    "a zip of nothing": (b"PK\x03\x04 and so on", "is truncated or damaged"),
    "two inputs": (
        _graph([_image("x", 1, 3, 8, 8), _image("z", 1, 3, 8, 8)], (1, 3, 8, 8)),
        "where one batch of images (N, C, H, W) is needed",
    ),
    "sentences": (_graph([_image("x", "n", 128)], ("n", 128)), "where one batch of images"),
    "pixels out": (
        _graph([_image("x", "n", 3, 8, 8)], ("n", 3, 8, 8)),
        "returns y [3, 3, 8, 8], among which there is not one (N, classes)",
    ),
}


@pytest.mark.parametrize("kind", BAD)
def test_what_cannot_be_compared_is_refused_in_a_sentence(
    shelf: Path, tmp_path: Path, kind: str
) -> None:
    content, words = BAD[kind]
    path = tmp_path / "bad"
    path.write_bytes(content)

    for pair in ((path, shelf / "out"), (shelf / "out", path)):
        with pytest.raises(InputError) as caught:
            compared(*pair)

        message = str(caught.value)
        assert message.startswith("bad")
        assert words in message
        assert message.endswith(".")
        assert str(tmp_path) not in message


def test_an_onnx_file_in_float16_is_judged_by_float16s_own_error(
    shelf: Path, tmp_path: Path
) -> None:
    model = onnx.load(shelf / "any size.onnx")
    for tensor in model.graph.initializer:
        if tensor.data_type == TensorProto.FLOAT:
            half = numpy_helper.to_array(tensor).astype(np.float16)
            tensor.CopyFrom(numpy_helper.from_array(half, tensor.name))
    for value in [*model.graph.input, *model.graph.output]:
        value.type.tensor_type.elem_type = TensorProto.FLOAT16
    onnx.save(model, tmp_path / "half.onnx")

    comparison = compared(shelf / "out", tmp_path / "half.onnx")

    assert comparison.verdict is not None
    assert comparison.verdict.precision == "float16"
    assert comparison.same
    assert not compared(shelf / "fixed.onnx", tmp_path / "half.onnx").same


def _save(network: Any, folder: Path) -> None:
    """As the real transformers saves it."""
    twin(network).save_pretrained(folder)


class Written(nn.Module):
    """Computes a network's logits, and tries to leave a file behind."""

    def __init__(self, inside: nn.Module) -> None:
        super().__init__()
        self.inside = inside

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        torch.save(pixels, "written")
        return self.inside(pixels)


def test_a_program_that_writes_is_compared_and_writes_nothing(
    shelf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with warnings.catch_warnings(action="ignore"):
        inside: Any = torch.jit.load(shelf / "traced.pt")
        torch.jit.script(Written(inside)).save(tmp_path / "writes.pt")
    monkeypatch.chdir(tmp_path)
    compared(tmp_path / "writes.pt", shelf / "out")
    assert [file.name for file in tmp_path.iterdir()] == ["writes.pt"]


def test_a_program_that_does_not_end_is_ended(
    shelf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loop = tmp_path / "loop.pt"
    with warnings.catch_warnings(action="ignore"):
        torch.jit.script(Endless()).save(loop)
    monkeypatch.setattr(
        Allowance, "of", classmethod(lambda cls, _: cls(start=6, rate=0, memory=4 * 10**9))
    )
    with pytest.raises(InputError, match=r"loop\.pt cannot be run \(it was not done within"):
        compared(loop, shelf / "out")


class Endless(nn.Module):
    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        while bool((pixels > -1e9).all()):
            pixels = pixels + 1
        return pixels.mean((2, 3))
