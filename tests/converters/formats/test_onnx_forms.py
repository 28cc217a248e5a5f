"""Opsets, fixed sizes, float16 and external data, judged by the checker and by running them."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import numpy_helper

from converters.errors import InputError
from converters.folder.folder import ConvertedFolder
from converters.formats.format import ExportOptions
from converters.formats.onnx.form import (
    NEWEST_OPSET,
    OLDEST_OPSET,
    SIZES_KEY,
    GraphForm,
    stated_sizes,
    with_sizes,
)
from converters.formats.registry import FORMATS
from converters.jobs.export import export
from converters.parity.contents.tensors import certify
from converters.parity.truth import Truth
from converters.parity.verify import fresh_inputs, verify_artefacts
from regnet.config import RegNetConfig
from tests.converters.cli.running import regnet
from tests.converters.formats.onnx_helpers import SMALL, state_dict
from tests.converters.formats.random_folder import random_folder
from tests.other_systems import HIDDEN

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from converters.parity.verdict import Verdict

NETWORKS: dict[str, dict[str, Any]] = {
    "y": {},
    "gelu": {"layer_type": "x", "hidden_act": "gelu"},
    "gelu_new": {"hidden_act": "gelu_new"},
    "silu": {"hidden_act": "silu"},
    "selu": {"hidden_act": "selu"},
    "headless": {},
}
OPSETS = (OLDEST_OPSET, 18, 20, 21, NEWEST_OPSET)

Judged = tuple[ConvertedFolder, Truth]


@pytest.fixture(scope="module")
def judged(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Judged]:
    """A network and its oracle, made once for all forms."""
    made: dict[str, Judged] = {}

    def build(case: str) -> Judged:
        if case not in made:
            config = RegNetConfig(**SMALL | NETWORKS[case])
            path = tmp_path_factory.mktemp("folder")
            folder = random_folder(path, config, classifier=case != "headless")
            made[case] = folder, Truth(folder, small_inputs(folder))
        return made[case]

    return build


def small_inputs(folder: ConvertedFolder) -> dict[str, Any]:
    inputs = fresh_inputs(folder)
    return {"native": inputs["native"][..., :96, :64]} | {n: inputs[n] for n in list(inputs)[1:]}


def write(folder: ConvertedFolder, kind: str, **options: Any) -> Path:
    path = folder.path / FORMATS[kind].file_name
    path.parent.mkdir(exist_ok=True)
    FORMATS[kind].export(folder, path, ExportOptions(**options))
    return path


def verdict_on(subject: Judged, kind: str, path: Path) -> Verdict:
    return verify_artefacts(*subject, {kind: path}).verdicts[-1]


@pytest.mark.parametrize("opset", OPSETS)
@pytest.mark.parametrize("case", NETWORKS)
def test_every_opset_loads_runs_and_passes(
    judged: Callable[[str], Judged], case: str, opset: int
) -> None:
    subject = judged(case)
    path = write(subject[0], "onnx", form=GraphForm(opset))
    onnx.checker.check_model(path, full_check=True)
    assert [entry.version for entry in onnx.load(path).opset_import] == [opset]
    verdict = verdict_on(subject, "onnx", path)
    assert verdict.passed, verdict.reason


def test_the_newest_opset_is_the_newest_that_the_runtime_takes(
    judged: Callable[[str], Judged],
) -> None:
    model = onnx.load(write(judged("y")[0], "onnx", form=GraphForm(NEWEST_OPSET)))
    model.opset_import[0].version = NEWEST_OPSET + 1
    with pytest.raises(onnxruntime.capi.onnxruntime_pybind11_state.Fail, match="opset"):
        onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])


@pytest.mark.parametrize("opset", [OLDEST_OPSET - 1, NEWEST_OPSET + 1])
def test_other_opsets_are_refused(opset: int) -> None:
    with pytest.raises(InputError, match=rf"opset {opset} here; choose one from 17 to \d+ with"):
        GraphForm(opset)


@pytest.mark.parametrize("kind", ["onnx", "onnx-fp16"])
@pytest.mark.parametrize(
    ("form", "shape"),
    [
        (GraphForm(batch=1, height=64, width=48), [1, 3, 64, 48]),
        (GraphForm(batch=3), [3, 3, "height", "width"]),
        (GraphForm(height=51, width=45), ["batch", 3, 51, 45]),
    ],
    ids=["all", "batch", "size"],
)
def test_fixed_sizes_are_judged_on_images_of_their_size(
    judged: Callable[[str], Judged], kind: str, form: GraphForm, shape: list[int | str]
) -> None:
    subject = judged("y")
    path = write(subject[0], kind, form=form)
    graph = onnx.load(path).graph
    assert sizes_of(graph.input[0]) == shape
    assert sizes_of(graph.output[0]) == [shape[0], 10]
    verdict = verdict_on(subject, kind, path)
    assert verdict.passed, verdict.reason
    assert verdict.tensors
    assert not verdict.tensors.wrong


def test_the_feature_map_of_a_fixed_size_has_its_size(judged: Callable[[str], Judged]) -> None:
    folder, _ = judged("headless")
    path = write(folder, "onnx", form=GraphForm(batch=2, height=51, width=45))
    features, pooled = onnx.load(path).graph.output
    assert (sizes_of(features), sizes_of(pooled)) == ([2, 40, 4, 3], [2, 40, 1, 1])
    onnx.checker.check_model(path, full_check=True)
    runtime = FORMATS["onnx"].load(path, folder.output_names)
    found = runtime(np.zeros((2, 3, 51, 45), np.float32))
    assert found["last_hidden_state"].shape == (2, 40, 4, 3)


def sizes_of(value: onnx.ValueInfoProto) -> list[int | str]:
    return [dim.dim_param or dim.dim_value for dim in value.type.tensor_type.shape.dim]


@pytest.mark.parametrize(
    ("dynamic", "shape", "expected"),
    [
        (["batch"], None, (None, 48, 48)),
        (["height", "width"], None, (1, None, None)),
        (None, (2, 3, 64, 96), (2, 64, 96)),
        (["batch"], (2, 3, 64, 96), (None, 64, 96)),
        (None, None, (None, None, None)),
    ],
)
def test_axes_and_shape_together_say_what_is_fixed(
    demo_folder: Path,
    dynamic: list[str] | None,
    shape: tuple[int, ...] | None,
    expected: tuple[int | None, ...],
) -> None:
    form = with_sizes(GraphForm(20), ConvertedFolder(demo_folder), dynamic, shape)
    assert (form.opset, form.batch, form.height, form.width) == (20, *expected)


@pytest.mark.parametrize(
    ("dynamic", "shape", "reason"),
    [
        (["depth"], None, "--dynamic depth is no axis; name some of batch, height, width"),
        (None, (1, 1, 64, 64), "--shape 1,1,64,64 is no input of this network; give batch,3,"),
        (None, (1, 3, 64), "is no input of this network"),
        (None, (1, 3, 0, 64), "--shape has a size below 1"),
    ],
)
def test_sizes_that_no_input_has_are_refused(
    demo_folder: Path, dynamic: list[str] | None, shape: tuple[int, ...] | None, reason: str
) -> None:
    with pytest.raises(InputError, match=reason):
        with_sizes(GraphForm(), ConvertedFolder(demo_folder), dynamic, shape)


@pytest.mark.parametrize("io", [False, True], ids=["float32 edges", "float16 edges"])
@pytest.mark.parametrize("case", NETWORKS)
def test_float16_passes_in_its_own_unit(
    judged: Callable[[str], Judged], case: str, io: bool
) -> None:
    subject = judged(case)
    path = write(subject[0], "onnx-fp16", io_float16=io)
    onnx.checker.check_model(path, full_check=True)
    graph = onnx.load(path).graph
    edge = onnx.TensorProto.FLOAT16 if io else onnx.TensorProto.FLOAT
    assert {v.type.tensor_type.elem_type for v in (*graph.input, *graph.output)} == {edge}
    assert {t.data_type for t in graph.initializer} == {onnx.TensorProto.FLOAT16}
    verdict = verdict_on(subject, "onnx-fp16", path)
    assert verdict.passed, verdict.reason
    assert verdict.precision == "float16"
    assert verdict.tensors
    assert verdict.tensors.recomputed == len(graph.initializer)


def test_a_float16_fold_is_the_float64_fold_rounded_once(
    judged: Callable[[str], Judged],
) -> None:
    folder, _ = judged("y")
    model = onnx.load(write(folder, "onnx-fp16"))
    written = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
    state = {name: array.astype(np.float64) for name, array in state_dict(folder).items()}
    module = "regnet.embedder.embedder"
    deviation = np.sqrt(state[f"{module}.normalization.running_var"] + 1e-5)
    slope = state[f"{module}.normalization.weight"] / deviation
    exact = state[f"{module}.convolution.weight"] * slope.reshape(-1, 1, 1, 1)
    np.testing.assert_array_equal(
        written[f"{module}.folded_weight"].view(np.uint16), exact.astype(np.float16).view(np.uint16)
    )


def _flip_a_bit(model: onnx.ModelProto) -> None:
    data = bytearray(model.graph.initializer[0].raw_data)
    data[0] ^= 1
    model.graph.initializer[0].raw_data = bytes(data)


def _call_float32_float16(model: onnx.ModelProto) -> None:
    model.metadata_props.add(key="precision", value="float16")


def _fix_the_batch_of_the_input_alone(model: onnx.ModelProto) -> None:
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 1


def _drop_the_last_cast(model: onnx.ModelProto) -> None:
    cast = model.graph.node.pop()
    model.graph.node[-1].output[0] = cast.output[0]
    model.graph.output[0].type.tensor_type.elem_type = onnx.TensorProto.FLOAT16


@pytest.mark.parametrize(
    ("kind", "damage", "reason"),
    [
        ("onnx-fp16", _flip_a_bit, r"differs from the fold .* in 1 of"),
        ("onnx", _call_float32_float16, r"is float32 where float16 belongs"),
        ("onnx-web", _fix_the_batch_of_the_input_alone, "list of inputs and outputs is not what"),
        ("onnx-fp16", _drop_the_last_cast, "not what is written for this configuration"),
    ],
)
def test_what_was_changed_afterwards_is_found(
    judged: Callable[[str], Judged],
    tmp_path: Path,
    kind: str,
    damage: Callable[[onnx.ModelProto], None],
    reason: str,
) -> None:
    folder, _ = judged("y")
    right = write(folder, kind)
    assert certify(folder, kind, right).failure is None
    model = onnx.load(right)
    damage(model)
    onnx.save(model, tmp_path / "damaged.onnx")
    certificate = certify(folder, kind, tmp_path / "damaged.onnx")
    assert certificate.failure
    assert re.search(reason, certificate.failure)


def test_a_weight_that_float16_cannot_hold_is_named(tmp_path: Path) -> None:
    folder = random_folder(tmp_path, RegNetConfig(**SMALL))
    bias = folder.tensors["classifier.1.bias"].storage
    data = bytearray(bias.path.read_bytes())
    data[bias.offset : bias.offset + 4] = np.float32(70_000).tobytes()
    bias.path.write_bytes(data)
    with pytest.raises(InputError, match=r"^classifier\.1\.bias holds .*65504.*without fp16"):
        write(ConvertedFolder(tmp_path), "onnx-fp16")


@pytest.mark.parametrize("kind", ["onnx-web", "onnx-fp16"])
def test_external_data_has_the_name_that_readers_expect(folder: Path, kind: str) -> None:
    report = export(folder, [kind], external_data=True)
    assert report
    assert report.passed
    path = folder / FORMATS[kind].file_name
    data = path.with_name(f"{path.name}_data")
    assert path.stat().st_size < 100_000 < data.stat().st_size
    assert recorded(folder) >= {f"onnx/{path.name}", f"onnx/{data.name}"}

    export(folder, [kind], verify=False)
    assert not data.exists()
    assert f"onnx/{data.name}" not in recorded(folder)
    assert not list(folder.rglob(".*"))


def test_damaged_external_data_is_found(folder: Path) -> None:
    export(folder, ["onnx-web"], external_data=True, verify=False)
    data = folder / "onnx" / "model.onnx_data"
    damaged = bytearray(data.read_bytes())
    damaged[1000] ^= 1
    data.write_bytes(damaged)
    path = folder / "onnx" / "model.onnx"
    assert "differs from" in (certify(ConvertedFolder(folder), "onnx-web", path).failure or "")
    data.unlink()
    assert "no such file" in (certify(ConvertedFolder(folder), "onnx-web", path).failure or "")


def recorded(folder: Path) -> set[str]:
    return set(json.loads((folder / "conversion.json").read_text())["files"])


def test_where_files_have_one_name_the_browser_has_a_file_of_its_own(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    HIDDEN["second names"](monkeypatch)
    export(folder, ["onnx-web"], verify=False)
    web, root = folder / "onnx" / "model.onnx", folder / "model.onnx"
    assert not web.samefile(root)
    assert web.read_bytes() == root.read_bytes()
    assert [path.name for path in web.parent.iterdir()] == ["model.onnx"]


def test_the_file_for_the_browser_is_one_with_the_root_s(folder: Path) -> None:
    export(folder, ["onnx-web"], verify=False)
    web, root = folder / "onnx" / "model.onnx", folder / "model.onnx"
    assert web.samefile(root)
    before = web.read_bytes()
    export(folder, ["onnx"], share_weights=True, verify=False)
    assert web.read_bytes() == before != root.read_bytes()


def test_the_command_takes_several_formats_and_a_form(folder: Path) -> None:
    arguments = ("--format", "onnx-web,onnx-fp16", "--shape", "1,3,48,48", "--opset", "20")
    finished = regnet("export", folder, *arguments, "--verify", cwd=folder)
    assert finished.status == 0, finished.err
    for name in ("model", "model_fp16"):
        model = onnx.load(folder / "onnx" / f"{name}.onnx")
        assert sizes_of(model.graph.input[0]) == [1, 3, 48, 48]
        assert model.opset_import[0].version == 20


@pytest.mark.parametrize(
    "text",
    [
        "[]",
        "{",
        "[" * 5000,
        '{"batch": "2"}',
        '{"height": 0}',
        '{"width": true}',
        '{"batch": 1e999}',
        '{"batch": 100000000}',
        '{"height": 65536, "width": 65536}',
    ],
)
def test_sizes_that_no_file_fixes_are_not_believed(text: str) -> None:
    assert stated_sizes({SIZES_KEY: text}) == (None, None, None)
    assert stated_sizes({SIZES_KEY: '{"batch": 256, "width": 384}'}) == (256, None, 384)
