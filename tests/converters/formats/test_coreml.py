"""Core ML packages: what is written, what it holds, and that nobody is told it was run."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image

from converters.errors import InputError
from converters.folder.record import Record
from converters.formats.coreml import runtime as coreml_runtime
from converters.formats.coreml.formats import MANIFEST, MODEL, WEIGHTS
from converters.formats.coreml.reading import read_package
from converters.formats.coreml.runtime import EvaluatedProgram
from converters.formats.format import ExportOptions
from converters.formats.onnx.form import GraphForm
from converters.formats.registry import FORMATS
from converters.jobs.bench import bench
from converters.jobs.export import export
from converters.jobs.predict import NotRunHereError, predict
from converters.jobs.publish import prepare
from converters.jobs.verify import verify
from converters.parity.contents.tensors import certify
from converters.parity.contents.written import NOT_WRITTEN
from converters.parity.locate.location import locate
from converters.parity.verify import verify_artefacts
from regnet.config import RegNetConfig
from tests.converters.formats.random_folder import random_folder
from tests.converters.formats.test_every_format import slow_unless
from tests.converters.parity.networks import (
    _SMALL,
    IMAGE_SIZE,
    NETWORKS,
    WIDER,
    Network,
    random_network,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from converters.folder.folder import ConvertedFolder
    from converters.parity.verdict import Verdict

COREML = FORMATS["coreml"]
OPEN = ExportOptions(open_sizes=True)
FIXED = ExportOptions(form=GraphForm(batch=1, height=IMAGE_SIZE, width=IMAGE_SIZE))

Package = dict[str, bytes]
"""Files of a package by their place in it."""


@pytest.fixture(scope="module")
def networks(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Network]:
    made: dict[tuple[str, bool], Network] = {}

    def network(name: str, *, classifier: bool = True) -> Network:
        if (name, classifier) not in made:
            path = tmp_path_factory.mktemp("network") / "folder"
            made[name, classifier] = random_network(path, name, classifier=classifier)
        return made[name, classifier]

    return network


@pytest.fixture
def small(networks: Callable[..., Network]) -> Network:
    return networks("Y")


def written(
    network: Network, path: Path, options: ExportOptions = OPEN, kind: str = "coreml"
) -> Path:
    package = path / FORMATS[kind].file_name
    FORMATS[kind].export(network.folder, package, options)
    return package


def judged(network: Network, path: Path, kind: str = "coreml") -> Verdict:
    return verify_artefacts(network.folder, network.truth, {kind: path}).verdicts[-1]


def files_of(path: Path) -> Package:
    files = (file for file in path.rglob("*") if file.is_file())
    return {file.relative_to(path).as_posix(): file.read_bytes() for file in files}


@pytest.mark.parametrize("options", [OPEN, FIXED], ids=["open", "fixed"])
@pytest.mark.parametrize("classifier", [True, False], ids=["classifier", "trunk"])
def test_it_is_right_as_far_as_it_can_be_known_and_was_not_run(
    networks: Callable[..., Network], classifier: bool, options: ExportOptions, tmp_path: Path
) -> None:
    network = networks("Y", classifier=classifier)
    verdict = judged(network, written(network, tmp_path, options))
    assert verdict.wrong is None
    assert verdict.passed
    assert verdict.outcome == "not run"
    assert verdict.ran.startswith("evaluated by torch")
    assert verdict.reason.endswith("; evaluated, not run: Apple's runtime is on macOS alone")
    assert 0 < verdict.worst("rms_ratio") < 1
    assert verdict.precision == "float32"
    assert verdict.tensors
    assert verdict.tensors.graph_compared
    assert verdict.tensors.recomputed == 32


@pytest.mark.parametrize(
    ("name", "classifier"), [("Y", True), ("Y", False), ("Z of EvoNorm", True)]
)
def test_in_float16_every_value_is_rounded_to_it(
    networks: Callable[..., Network], name: str, classifier: bool, tmp_path: Path
) -> None:
    network = networks(name, classifier=classifier)
    path = written(network, tmp_path, kind="coreml-fp16")
    verdict = judged(network, path, "coreml-fp16")
    assert verdict.wrong is None
    assert verdict.outcome == "not run"
    assert verdict.precision == "float16"
    assert 0.1 < verdict.worst("rms_ratio") < 2
    assert verdict.tensors
    assert verdict.tensors.graph_compared
    assert verdict.tensors.identical == 0
    package = read_package(path)
    assert {kind.element for kind in package.inputs.values()} == {"float32"}
    elements = {step.name: step.made.element for step in package.steps if step.reads}
    returned = set(package.outputs)
    assert {element for name, element in elements.items() if name in returned} == {"float32"}
    assert {element for name, element in elements.items() if name not in returned} == {"float16"}
    assert (path / WEIGHTS).stat().st_size < 0.7 * network.folder.weight_files[0].stat().st_size


def test_the_package_in_float16_is_none_in_float32(small: Network, tmp_path: Path) -> None:
    half, whole = (written(small, tmp_path, kind=kind) for kind in ("coreml-fp16", "coreml"))
    assert judged(small, half).precision == "float16"  # it says so itself
    numbers = EvaluatedProgram(half, ("logits",))(small.truth.inputs["native"])["logits"]
    exact = EvaluatedProgram(whole, ("logits",))(small.truth.inputs["native"])["logits"]
    assert 1e-5 < np.abs(numbers - exact).max() < 1e-1


def test_the_package_of_another_network_fails(small: Network, tmp_path: Path) -> None:
    other = random_network(tmp_path / "other", "Y", seed=1)
    verdict = judged(other, written(small, tmp_path))
    assert verdict.outcome == "FAIL"
    assert verdict.tensors
    assert len(verdict.tensors.wrong) == 50
    assert all(measurement.failure for measurement in verdict.measurements)


def test_a_flipped_bit_has_a_name(small: Network, tmp_path: Path) -> None:
    path = written(small, tmp_path)
    content = bytearray((path / WEIGHTS).read_bytes())
    content[128] ^= 1
    (path / WEIGHTS).write_bytes(content)
    (wrong,) = certify(small.folder, "coreml", path).wrong
    assert wrong.startswith("regnet.embedder.embedder.folded_weight differs from the fold")


Change = tuple[str, str, bytes, bytes]
"""A network, how the name of an operation ends, and bytes in it that others replace."""

CHANGES: dict[str, Change] = {
    "another activation": ("Y", "embedder_embedder_activation", b"relu", b"silu"),
    "a sum for a product": ("Y", "layers_0_layer_2_mul", b"\x03mul", b"\x03sub"),
    "another operand": ("Y", "stages_1_layers_1_add", b"layers_1_layer_3", b"layers_0_layer_3"),
    "another bias": ("Y", "1_layer_3_convolution", b"1_layer_3_folded_b", b"1_layer_0_folded_b"),
    "another stride": ("Y", "embedder_convolution_strides", b"\n\x02\x02\x02", b"\n\x02\x01\x01"),
    "an epsilon": ("V", "normalization_epsilon", b"\xac\xc5'7", b"\xac\xc5'8"),
    "floors": ("V, averaged shortcut", "pooler_ceil_mode", b"\x03\n\x01\x01", b"\x03\n\x01\x00"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_changed_operation_is_caught_by_numbers_and_named(
    networks: Callable[..., Network], change: str, tmp_path: Path
) -> None:
    name, ending, before, after = CHANGES[change]
    network = networks(name)
    path = written(network, tmp_path)
    changed = change_step(path, ending, before, after)

    verdict = judged(network, path)

    assert verdict.outcome == "FAIL"
    assert any(measurement.failure for measurement in verdict.measurements)
    assert verdict.tensors
    assert f"the operation {changed} is {NOT_WRITTEN}" in verdict.tensors.wrong


def change_step(path: Path, ending: str, before: bytes, after: bytes) -> str:
    """Replace bytes of the first operation whose name ends so; its name."""
    step = next(step for step in read_package(path).steps if step.name.endswith(ending))
    model = (path / MODEL).read_bytes()
    assert before in step.message
    assert step.message in model
    changed = step.message.replace(before, after)
    (path / MODEL).write_bytes(model.replace(step.message, changed, 1))
    return step.name


def test_what_is_around_the_program_is_compared_too(small: Network, tmp_path: Path) -> None:
    path = written(small, tmp_path, FIXED)
    model = (path / MODEL).read_bytes()
    (path / MODEL).write_bytes(model.replace(b"normalised", b"normalized"))
    assert certify(small.folder, "coreml", path).wrong == (
        f"its description, or the order of its operations, is {NOT_WRITTEN}",
        f"its {MANIFEST} is {NOT_WRITTEN}",
    )


def test_other_classes_than_those_of_the_folder_are_caught(small: Network, tmp_path: Path) -> None:
    path = written(small, tmp_path)
    model = (path / MODEL).read_bytes()
    (path / MODEL).write_bytes(model.replace(b'"LABEL_3"', b'"LABEL_4"'))
    wrong = certify(small.folder, "coreml", path).wrong
    assert "its metadata names other classes than config.json" in wrong


@pytest.mark.parametrize("file", [MODEL, WEIGHTS, MANIFEST])
def test_a_damaged_package_fails_and_is_no_crash(small: Network, tmp_path: Path, file: str) -> None:
    path = written(small, tmp_path)
    content = (path / file).read_bytes()
    draws = np.random.default_rng(0)
    for _ in range(4):
        damaged = bytearray(content[: draws.integers(1, len(content))])
        (path / file).write_bytes(damaged)
        assert certify(small.folder, "coreml", path).wrong
        damaged = bytearray(content)
        damaged[draws.integers(0, len(content))] ^= 1 << draws.integers(0, 8)
        (path / file).write_bytes(damaged)
        certificate = certify(small.folder, "coreml", path)
        assert certificate.wrong or file == WEIGHTS  # between tensors it is all the same


QUICK = ("X, selu", "X, gelu", "Y, gelu_new", "Y, silu", "V, averaged shortcut", "Z of EvoNorm")
"""Networks that have every operation."""


@pytest.mark.parametrize("name", slow_unless({*QUICK, "all at once"}, [*NETWORKS, *WIDER]))
def test_every_operation_is_evaluated_as_the_reference_computes_it(
    name: str, tmp_path: Path
) -> None:
    network = random_network(tmp_path / "folder", name)
    verdict = judged(network, written(network, tmp_path, FIXED))
    assert verdict.wrong is None
    assert verdict.worst("rms_ratio") < 2
    steps = read_package(tmp_path / COREML.file_name).steps
    assert len({step.name for step in steps}) == len(steps)


def test_paddings_that_depend_on_sizes_want_them_fixed(tmp_path: Path) -> None:
    network = random_network(tmp_path / "folder", "same padding")
    with pytest.raises(InputError, match=r"as Keras does.* leave height and width out of --dyn"):
        COREML.export(network.folder, tmp_path / "model.mlpackage", OPEN)


def test_sizes_are_fixed_unless_somebody_asks(small: Network, tmp_path: Path) -> None:
    sizes = {
        name: EvaluatedProgram(written(small, tmp_path / name, options), ("logits",)).sizes
        for name, options in {
            "usual": ExportOptions(),
            "open": OPEN,
            "batch open": ExportOptions(form=GraphForm(height=32, width=40)),
        }.items()
    }
    assert sizes == {
        "usual": (1, 224, 224),
        "open": (None, None, None),
        "batch open": (None, 32, 40),
    }
    fixed = EvaluatedProgram(tmp_path / "batch open" / COREML.file_name, ("logits",))
    with pytest.raises(ValueError, match="pixel_values has the shape"):
        fixed(np.zeros((1, 3, 40, 32), np.float32))


@pytest.fixture
def folder(demo_folder: Path, tmp_path: Path) -> Path:
    """The demo's network with a package that was verified."""
    out = tmp_path / "out"
    shutil.copytree(demo_folder, out)
    report = export(out, ["coreml"])
    assert report
    assert report.not_run == [
        "model.mlpackage was evaluated, not run (Apple's runtime is on macOS alone)"
    ]
    return out


def test_a_package_lies_in_a_folder_as_every_artefact_does(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = Record.required(folder)
    assert set(COREML.files) <= record.files.keys()
    assert record.outcomes["model.mlpackage"] == "not run"
    assert record.verification["passed"] is True
    assert not record.changed_files(folder)[0]
    card = (folder / "README.md").read_text()
    assert 'MLModel("model.mlpackage")' in card
    assert "| model.mlpackage | evaluated by torch" in card
    assert set(COREML.files) <= prepare(folder, "a/b", has_right=True).files.keys()
    report = verify(folder)
    assert report.passed
    assert len(report.not_run) == 1
    assert report.not_checked == ()

    weights = folder / "model.mlpackage" / WEIGHTS
    weights.write_bytes(weights.read_bytes() + b"\0")
    assert record.changed_files(folder)[0] == (f"model.mlpackage/{WEIGHTS}",)
    with monkeypatch.context() as patch:
        patch.chdir(folder)  # where files are replaced one by one
        export(folder, ["coreml"], shape=(1, 3, 32, 32), verify=False)
    assert not Record.required(folder).changed_files(folder)[0]
    assert EvaluatedProgram(folder / "model.mlpackage", ("logits",)).sizes == (1, 32, 32)
    shutil.rmtree(folder / "model.mlpackage")
    export(folder, ["coreml"], dynamic=["batch", "height", "width"], verify=False)
    assert EvaluatedProgram(folder / "model.mlpackage", ("logits",)).sizes == (None,) * 3
    assert Record.required(folder).verification["passed"] is None


def test_nobody_predicts_or_times_what_is_only_evaluated(folder: Path, tmp_path: Path) -> None:
    Image.new("RGB", (48, 48)).save(tmp_path / "black.png")
    with pytest.raises(NotRunHereError, match=r"^model.mlpackage cannot be run here \(Apple's"):
        predict(folder, tmp_path / "black.png", runtime="coreml")
    timed = bench(folder, rounds=1, batch_sizes=[1])
    assert "coreml" not in timed.runtimes
    assert timed.absent["coreml"].endswith(
        "(Apple's runtime is on macOS alone); take another --runtime."
    )


def test_somebody_elses_package_is_evaluated_in_a_process_of_its_own(folder: Path) -> None:
    change_step(folder / "model.mlpackage", "embedder_activation", b"relu", b"silu")
    record = Record.required(folder)
    (entry,) = (name for name in record.files if name.endswith("model.mlmodel"))
    fields = json.loads((folder / "conversion.json").read_text())
    fields["files"].pop(entry)
    (folder / "conversion.json").write_text(json.dumps(fields))
    verdict = verify(folder).verdicts[-1]
    assert verdict.artefact == "model.mlpackage"
    assert verdict.outcome == "FAIL"
    assert any(measurement.failure for measurement in verdict.measurements)


def test_faults_are_located(small: Network, tmp_path: Path) -> None:
    pixels = small.truth.inputs["native"]
    path = written(small, tmp_path, FIXED)
    assert locate(small.folder, "coreml", path, pixels).culprit is None
    module = "regnet.encoder.stages.1.layers.1"
    change_step(path, "stages_1_layers_1_layer_1_activation", b"relu", b"silu")
    found = locate(small.folder, "coreml", path, pixels)
    assert found.culprit == f"{module}.layer.1.activation"
    assert found.why.startswith("its operation is silu where relu belongs")

    path = written(small, tmp_path, FIXED)
    content = bytearray((path / WEIGHTS).read_bytes())
    (step,) = (
        s for s in read_package(path).steps if s.name.endswith("1_layers_1_layer_3_folded_bias")
    )
    begin = step.constant.offset + 64  # type: ignore[union-attr]
    content[begin : begin + 4] = np.float32(7).tobytes()
    (path / WEIGHTS).write_bytes(content)
    found = locate(small.folder, "coreml", path, pixels)
    assert (found.culprit, found.channel) == (f"{module}.layer.3", 0)
    assert found.tensor == f"{module}.layer.3.folded_bias"


class _Model:
    """Apple's, as far as it is used: what it predicts is evaluated."""

    def __init__(self, path: str, compute_units: str) -> None:
        assert compute_units == "CPU_ONLY"
        self._program = EvaluatedProgram(Path(path), ("logits",))

    def predict(self, inputs: dict[str, Any]) -> dict[str, Any]:
        return self._program(inputs["pixel_values"])


def test_on_macos_apples_runtime_runs_it(
    small: Network, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As far as that can be tried elsewhere: with a stand-in for its library."""
    path = written(small, tmp_path)
    monkeypatch.setattr(coreml_runtime.platform, "system", lambda: "Darwin")
    monkeypatch.setattr("converters.errors.find_spec", lambda _: None)
    assert judged(small, path).not_run == "coremltools is not installed"

    library = SimpleNamespace(
        models=SimpleNamespace(MLModel=_Model), ComputeUnit=SimpleNamespace(CPU_ONLY="CPU_ONLY")
    )
    monkeypatch.setitem(sys.modules, "coremltools", library)
    monkeypatch.setattr("converters.errors.find_spec", lambda _: True)
    monkeypatch.setattr(coreml_runtime, "require_extra", lambda *_: "9.0")
    monkeypatch.setattr(coreml_runtime.platform, "mac_ver", lambda: ("26.1", (), "arm64"))
    verdict = judged(small, path)
    assert verdict.outcome == "pass"
    assert verdict.ran == "Core ML of macOS 26.1, coremltools 9.0, float32"


LOAD = """
import json, sys, warnings, coremltools
from coremltools.converters.mil.frontend.milproto.load import load
from coremltools.proto import Model_pb2
found = {}
for path in sys.argv[1:]:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model = coremltools.models.MLModel(path, skip_model_load=True)
        spec = coremltools.utils.load_spec(path)
    weights = path + "/Data/com.apple.CoreML/weights"
    program = load(spec, spec.specificationVersion, weights)
    (function,) = program.functions.values()
    raw = open(path + "/Data/com.apple.CoreML/model.mlmodel", "rb").read()
    again = Model_pb2.Model.FromString(raw).SerializeToString(deterministic=True)
    array = spec.description.input[0].type.multiArrayType
    held = {
        operation.outputs[0].name: operation.outputs[0].val.tobytes().hex()
        for operation in function.operations
        if operation.op_type == "const" and "bias" in operation.outputs[0].name
    }
    found[path] = {
        "lengths": [len(raw), len(again)],
        "kinds": sorted({operation.op_type for operation in function.operations}),
        "shapes": [[str(size) for size in output.shape] for output in function.outputs],
        "input": list(array.shape),
        "bounds": [[one.lowerBound, one.upperBound] for one in array.shapeRange.sizeRanges],
        "held": held,
    }
print(json.dumps(found))
"""


@pytest.mark.slow
def test_coremltools_loads_type_checks_and_reads_every_package(tmp_path: Path) -> None:
    """Apple's own reader, on Linux: without a warning, and with the shapes that are stated.

    ``milproto`` infers the type of each operation anew, and refuses what does not fit.
    """
    pytest.importorskip("coremltools")
    packages: dict[str, ConvertedFolder] = {}
    for name in (*NETWORKS, *WIDER):
        made = random_folder(tmp_path / name, RegNetConfig(**_SMALL | {**NETWORKS, **WIDER}[name]))
        for kind, options in {"open": OPEN, "fixed": FIXED, "half, fixed": FIXED}.items():
            if kind == "open" and made.config.padding == "same":
                continue
            path = made.path / f"{kind}.mlpackage"
            FORMATS["coreml-fp16" if "half" in kind else "coreml"].export(made, path, options)
            packages[str(path)] = made
    command = [sys.executable, "-c", LOAD, *packages]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert not done.returncode, done.stderr[-2000:]
    for path, found in json.loads(done.stdout.splitlines()[-1]).items():
        folder = packages[path]
        labels, channels = folder.config.num_labels, folder.config.num_channels
        assert found["lengths"][0] == found["lengths"][1]  # nothing is unknown, or said twice
        assert "conv" in found["kinds"]
        (shape,) = found["shapes"]
        assert shape[1] == str(labels)
        if path.endswith("open.mlpackage"):
            assert found["input"] == [1, channels, 224, 224]
            assert found["bounds"] == [[1, 64], [channels] * 2, [1, 2048], [1, 2048]]
        else:
            assert shape[0] == "1"
            assert found["input"] == [1, channels, IMAGE_SIZE, IMAGE_SIZE]
            assert found["bounds"] == []
        element = "float16" if "half" in path else "float32"
        bias = folder.array("classifier.1.bias").astype(element)
        assert found["held"]["classifier_1_bias"] == bias.tobytes().hex()
