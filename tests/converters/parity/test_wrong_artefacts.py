"""Every mistake that a converter makes is caught, in every kind of artefact."""

from __future__ import annotations

import re
import shutil
from typing import TYPE_CHECKING, Any

import onnx
import pytest
from safetensors.numpy import load_file, save_file

from converters.folder.folder import ConvertedFolder
from converters.jobs.convert import convert
from tests.converters.parity.networks import Network, export, random_network
from tests.converters.parity.wrong import GRAPH_MISTAKES, STATE_MISTAKES, set_epsilon
from tests.oracles import pycls

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from converters.parity.report import Report

    NetworkOf = Callable[[str], Network]

NETWORKS = pytest.mark.parametrize("name", ["X", "Y", "pycls"])
ONNX_FORMS = pytest.mark.parametrize("form", ["self-contained", "sharing"])
STATE_FORMS = pytest.mark.parametrize("form", ["self-contained", "torchscript"])

FAILURE = re.compile(
    r"^(?P<file>\S+), (native|odd|checkerboards|impulses|constant|extremes|denormals): ("
    r"(RMS|largest) error of logits is (?P<ratio>\S+) times honest float32's own, limit [46]"
    r"|\d+ of \d+ values of logits are NaN or infinite)$"
)


@pytest.fixture(scope="module")
def network_of(tmp_path_factory: pytest.TempPathFactory) -> NetworkOf:
    networks: dict[str, Network] = {}

    def build(name: str) -> Network:
        if name not in networks:
            path = tmp_path_factory.mktemp("network")
            networks[name] = (
                _converted(path) if name == "pycls" else random_network(path / "folder", name)
            )
        return networks[name]

    return build


def _converted(path: Path) -> Network:
    network = pycls.build(pycls.TINY, classes=10)
    source = pycls.save(path / "tiny.pyth", network, pycls.TINY, classes=10)
    convert(source, path / "folder", formats=())
    return Network.of(ConvertedFolder(path / "folder"))


def assert_fails(report: Report, file_name: str) -> None:
    """Nothing but the artefact fails, for a number that is said."""
    assert not report.passed
    assert [verdict.passed for verdict in report.verdicts] == [True, False]
    (failure,) = report.failures
    found = FAILURE.match(failure)
    assert found, failure
    assert found["file"] == file_name
    assert found["ratio"] is None or float(found["ratio"]) > 4


@NETWORKS
@ONNX_FORMS
@pytest.mark.parametrize("mistake", GRAPH_MISTAKES)
def test_a_mistake_in_an_onnx_file_is_caught(
    name: str, form: str, mistake: str, network_of: NetworkOf
) -> None:
    network = network_of(name)
    path = export(network.folder, form)
    model = onnx.load(path, load_external_data=False)
    GRAPH_MISTAKES[mistake](model, path.parent)
    onnx.save(model, path)
    assert_fails(network.report(form, path), "model.onnx")


@NETWORKS
@pytest.mark.parametrize(
    ("epsilon", "which"),
    [(1e-3, slice(None)), (1e-3, slice(-1, None)), (1e-3, slice(1)), (2e-5, slice(None))],
    ids=["1e-3 everywhere", "1e-3 in the last", "1e-3 in the first", "2e-5 everywhere"],
)
def test_another_epsilon_in_a_sharing_file_is_caught(
    name: str, epsilon: float, which: slice, network_of: NetworkOf
) -> None:
    network = network_of(name)
    path = export(network.folder, "sharing")
    model = onnx.load(path, load_external_data=False)
    set_epsilon(model, epsilon, which)
    onnx.save(model, path)
    assert_fails(network.report("sharing", path), "model.onnx")


@NETWORKS
@STATE_FORMS
@pytest.mark.parametrize("mistake", STATE_MISTAKES)
def test_an_artefact_of_mistaken_weights_is_caught(
    name: str, form: str, mistake: str, network_of: NetworkOf, tmp_path: Path
) -> None:
    network = network_of(name)
    wrong = ConvertedFolder(shutil.copytree(network.folder.path, tmp_path / "wrong"))
    weights = wrong.path / "model.safetensors"
    state = {name: array.copy() for name, array in load_file(weights).items()}
    STATE_MISTAKES[mistake](state)
    save_file(state, weights)
    path = export(wrong, form)
    assert_fails(network.report(form, path), path.name)


@STATE_FORMS
@pytest.mark.parametrize(
    "fields", [{"hidden_act": "gelu"}, {"downsample_in_first_stage": False}], ids=str
)
def test_an_artefact_of_another_configuration_is_caught(
    form: str, fields: dict[str, Any], network_of: NetworkOf, tmp_path: Path
) -> None:
    network = network_of("Y")
    wrong = ConvertedFolder(shutil.copytree(network.folder.path, tmp_path / "wrong"))
    for key, value in fields.items():
        setattr(wrong.config, key, value)
    wrong.config.save_pretrained(wrong.path)
    path = export(wrong, form)
    assert_fails(network.report(form, path), path.name)


@pytest.mark.parametrize("form", ["self-contained", "sharing", "torchscript"])
def test_the_artefact_of_another_network_is_caught(form: str, network_of: NetworkOf) -> None:
    other, network = network_of("X"), network_of("Y")
    path = export(other.folder, form)
    assert_fails(network.report(form, path), path.name)


def test_a_fixed_batch_or_size_is_caught(network_of: NetworkOf) -> None:
    network = network_of("X")
    path = export(network.folder, "self-contained")
    model = onnx.load(path)
    for dimension, size in zip(
        model.graph.input[0].type.tensor_type.shape.dim, (1, 3, 48, 48), strict=True
    ):
        dimension.dim_value = size
    onnx.save(model, path)
    (failure,) = network.report("self-contained", path).failures
    assert re.match(r"model\.onnx, all: it cannot be run \(.*[Gg]ot: 7 [Ee]xpected: 1", failure)


@pytest.mark.parametrize("form", ["self-contained", "torchscript"])
def test_what_no_runtime_opens_fails_in_the_runtimes_own_words(
    form: str, network_of: NetworkOf, tmp_path: Path
) -> None:
    network = network_of("X")
    whole = export(network.folder, form)
    path = tmp_path / whole.name
    path.write_bytes(whole.read_bytes()[:2000])
    (failure,) = network.report(form, path).failures
    assert re.match(rf"{re.escape(path.name)}, all: it cannot be run \(.+\)$", failure)


def test_a_missing_output_is_caught(tmp_path: Path) -> None:
    network = random_network(tmp_path, "Y", classifier=False)
    path = export(network.folder, "self-contained")
    model = onnx.load(path)
    del model.graph.output[1]
    onnx.save(model, path)
    (failure,) = network.report("self-contained", path).failures
    assert failure == "model.onnx, native: there is no output pooler_output"


@pytest.mark.parametrize(
    ("end", "value", "reason"),
    [
        ("running_var", -1.0, "native: the oracle's own logits is not finite, so the weights"),
        ("convolution.weight", float("nan"), "native: the oracle's own logits is not finite, so"),
        ("classifier.1.weight", 0.0, "odd: logits is the same for every image, so agreement"),
    ],
    ids=["a negative variance", "a NaN", "the same logits for every image"],
)
def test_a_network_that_cannot_work_is_told_so(
    end: str, value: float, reason: str, network_of: NetworkOf, tmp_path: Path
) -> None:
    folder = ConvertedFolder(shutil.copytree(network_of("Y").folder.path, tmp_path / "wrong"))
    weights = folder.path / "model.safetensors"
    state = {name: array.copy() for name, array in load_file(weights).items()}
    state[next(name for name in state if name.endswith(end))][:] = value
    save_file(state, weights)
    for form in ("self-contained", "torchscript"):
        path = export(folder, form)
        (failure,) = Network.of(folder).report(form, path).failures
        assert failure.startswith(f"model.safetensors and {path.name}, {reason}")
