"""torch, OpenVINO, ExecuTorch, ncnn, JAX: what is written, what it holds, how it runs."""

from __future__ import annotations

import asyncio
import json
import shutil
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any
from zipfile import ZipFile

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file

from converters.errors import ConversionError, InputError, StorageError, UnsafeInputError
from converters.folder.folder import ConvertedFolder
from converters.formats.format import ExportOptions
from converters.formats.openvino import OpenVinoRuntime
from converters.formats.registry import FORMATS
from converters.parity.artefact import judge_artefact
from converters.parity.contents.tensors import certify
from converters.parity.truth import run
from converters.parity.verdict import judge
from converters.parity.verify import verify_artefacts
from regnet.config import RegNetConfig
from tests.converters.formats.random_folder import random_folder
from tests.converters.parity.networks import Network

if TYPE_CHECKING:
    from collections.abc import Callable

    from converters.parity.verdict import Verdict

HELD = ("pt2", "openvino", "ncnn")
STABLEHLO = pytest.param("stablehlo", marks=pytest.mark.slow)
COREAI = pytest.param("coreai", marks=pytest.mark.slow)
AOTINDUCTOR = pytest.param("aotinductor", marks=pytest.mark.slow)
KINDS = (*HELD, "executorch", AOTINDUCTOR, STABLEHLO, COREAI)


SMALL = RegNetConfig(embedding_size=8, hidden_sizes=[16], depths=[1], groups_width=8, num_labels=10)
"""One block: each operation costs ExecuTorch a second."""


@pytest.fixture(scope="module")
def networks(tmp_path_factory: pytest.TempPathFactory) -> dict[bool, Network]:
    """A classifier and a trunk."""
    root = tmp_path_factory.mktemp("networks")
    return {
        classifier: Network.of(random_folder(root / str(classifier), SMALL, classifier=classifier))
        for classifier in (True, False)
    }


@pytest.fixture(params=[True, False], ids=["classifier", "trunk"])
def network(request: pytest.FixtureRequest, networks: dict[bool, Network]) -> Network:
    return networks[request.param]


@pytest.fixture
def classifier(networks: dict[bool, Network]) -> Network:
    return networks[True]


def written(network: Network, kind: str) -> Path:
    """The artefact in the folder, exported once."""
    if needs := FORMATS[kind].needs:
        pytest.importorskip(needs[0])
    path = network.folder.path / FORMATS[kind].file_name
    if not path.is_file():
        FORMATS[kind].export(network.folder, path, ExportOptions())
    return path


def verdict(network: Network, kind: str, path: Path) -> Verdict:
    return verify_artefacts(network.folder, network.truth, {kind: path}).verdicts[1]


def rewrite(path: Path, name: str, content: bytes) -> None:
    """Put another content into an entry of a zip."""
    with ZipFile(path) as archive:
        entries = {entry.filename: archive.read(entry) for entry in archive.infolist()}
    (found,) = (entry for entry in entries if entry.partition("/")[2] == name)
    with ZipFile(path, "w") as archive:
        for entry, data in (entries | {found: content}).items():
            archive.writestr(entry, data)


@pytest.mark.parametrize("kind", KINDS)
def test_it_passes_and_what_it_computes_in_is_float32(network: Network, kind: str) -> None:
    judged = verdict(network, kind, written(network, kind))
    assert judged.passed, judged.reason
    assert judged.precision == "float32"
    assert (judged.tensors is not None) == (kind in HELD)


@pytest.mark.parametrize(
    "kind",
    [
        *("pt2", "openvino", "ncnn", "litert", "litert-fp16", "coreml", "coreml-fp16"),
        pytest.param("executorch", marks=pytest.mark.slow),
        STABLEHLO,
        COREAI,
    ],
)
def test_the_bytes_are_the_same_each_time_and_name_no_path(
    classifier: Network, kind: str, tmp_path: Path
) -> None:
    first = written(classifier, kind)
    again = tmp_path / "again" / first.name
    again.parent.mkdir()
    FORMATS[kind].export(classifier.folder, again, ExportOptions())
    files = FORMATS[kind].at(first)
    for file in files:
        content = file.read_bytes()
        assert content == (again.parent / file.relative_to(first.parent)).read_bytes()
        assert b"site-packages" not in content
        assert str(classifier.folder.path).encode() not in content
    assert sum(path.is_file() for path in again.parent.rglob("*")) == len(files)


@pytest.mark.parametrize("kind", ["pt2", "openvino", "executorch", "ncnn", STABLEHLO, COREAI])
def test_the_artefact_of_another_network_fails(
    classifier: Network, kind: str, tmp_path: Path
) -> None:
    path = written(classifier, kind)
    other = Network.of(random_folder(tmp_path, SMALL, seed=1))
    assert "times honest float32's own" in (verdict(other, kind, path).failure or "")


def _enlarge_a_kernel(folder: ConvertedFolder) -> None:
    """By one in a hundred: that of the block's last convolution."""
    weights = folder.path / "model.safetensors"
    state = {name: array.copy() for name, array in load_file(weights).items()}
    (name,) = (name for name in state if name.endswith("layer.3.convolution.weight"))
    state[name] *= np.float32(1.01)
    save_file(state, weights)


def _configure(folder: ConvertedFolder, **fields: Any) -> None:
    RegNetConfig.from_dict(folder.config.to_dict() | fields).save_pretrained(folder.path)


ALTERED: dict[str, Callable[[ConvertedFolder], None]] = {
    "a kernel": _enlarge_a_kernel,
    "a stride": partial(_configure, downsample_in_first_stage=False),
    "an activation": partial(_configure, hidden_act="silu"),
}


@pytest.mark.slow
@pytest.mark.parametrize("alteration", ALTERED)
@pytest.mark.parametrize("kind", ["executorch", "aotinductor", "stablehlo", "coreai"])
def test_what_its_exporter_makes_of_an_altered_network_fails(
    classifier: Network, kind: str, alteration: str, tmp_path: Path
) -> None:
    if needs := FORMATS[kind].needs:
        pytest.importorskip(needs[0])
    shutil.copytree(classifier.folder.path, tmp_path / "altered")
    ALTERED[alteration](ConvertedFolder(tmp_path / "altered"))
    path = tmp_path / FORMATS[kind].file_name
    FORMATS[kind].export(ConvertedFolder(tmp_path / "altered"), path, ExportOptions())
    assert "times honest float32's own" in (verdict(classifier, kind, path).failure or "")


@pytest.mark.slow
def test_a_damaged_program_of_core_ai_is_a_clause(classifier: Network, tmp_path: Path) -> None:
    path = shutil.copytree(written(classifier, "coreai"), tmp_path / "model.aimodel")
    program = path / "main.mlirb"
    program.write_bytes(program.read_bytes()[:-100])

    def failure() -> str:
        folder, truth = classifier.folder, classifier.truth
        return judge_artefact(folder, truth, "coreai", path, found=True).failure or ""

    assert "cannot be run (main.mlirb is not the program that main.hash is of)" in failure()
    (path / "main.hash").write_bytes(sha256(program.read_bytes()).digest())
    assert "cannot be run (its process ended by signal" in failure()


@pytest.mark.slow
def test_core_ai_reads_what_an_asset_states(classifier: Network) -> None:
    path = written(classifier, "coreai")
    from coreai.authoring import AIModelAsset  # there, or the test is skipped

    about = AIModelAsset.load(path).metadata
    assert about.creation_date is None
    assert json.loads(about.creator_defined_metadata["id2label"])["9"] == "LABEL_9"


@pytest.mark.slow
def test_core_ai_is_judged_in_notebooks_and_leaves_the_process_as_it_was(
    classifier: Network, capfd: pytest.CaptureFixture[str]
) -> None:
    path = written(classifier, "coreai")

    async def in_a_notebook() -> Verdict:
        return verdict(classifier, "coreai", path)

    assert asyncio.run(in_a_notebook()).passed
    assert capfd.readouterr() == ("", "")


def test_torch_loads_it_with_the_names_and_bytes_of_the_weights(classifier: Network) -> None:
    path = written(classifier, "pt2")
    program = torch.export.load(path)
    assert set(program.state_dict) == set(classifier.folder.tensors)
    for name, tensor in program.state_dict.items():
        assert tensor.numpy().tobytes() == classifier.folder.array(name).tobytes()
    logits = program.module()(torch.zeros(1, 3, 33, 1))
    assert isinstance(logits, torch.Tensor)
    assert logits.shape == (1, 10)


def test_a_flipped_bit_in_a_pt2_has_a_name(classifier: Network, tmp_path: Path) -> None:
    path = Path(shutil.copy(written(classifier, "pt2"), tmp_path))
    table = "data/weights/model_weights_config.json"
    with ZipFile(path) as archive:
        tables = json.loads(archive.read(f"archive/{table}"))["config"]
        entry = tables["classifier.1.weight"]["path_name"]
        content = bytearray(archive.read(f"archive/data/weights/{entry}"))
    content[0] ^= 1
    rewrite(path, f"data/weights/{entry}", bytes(content))
    (wrong,) = certify(classifier.folder, "pt2", path).wrong
    assert wrong.startswith("classifier.1.weight differs from the weights")


def test_a_flipped_bit_for_openvino_has_a_name(classifier: Network, tmp_path: Path) -> None:
    source = written(classifier, "openvino")
    for name in (source.name, "openvino_model.bin"):
        shutil.copy(source.with_name(name), tmp_path)
    weights = tmp_path / "openvino_model.bin"
    content = bytearray(weights.read_bytes())
    content[0] ^= 1
    weights.write_bytes(content)
    (wrong,) = certify(classifier.folder, "openvino", tmp_path / source.name).wrong
    assert wrong.startswith("regnet.embedder.embedder.folded_weight differs from the fold")


def test_weights_that_openvino_rounded_to_float16_fail(classifier: Network, tmp_path: Path) -> None:
    openvino = pytest.importorskip("openvino")
    path = tmp_path / "openvino_model.xml"
    openvino.save_model(openvino.Core().read_model(written(classifier, "openvino")), path)
    judged = verdict(classifier, "openvino", path)
    assert not judged.passed
    assert "folded_weight_compressed is no tensor that belongs there" in (judged.failure or "")


def test_what_openvino_really_computes_in_is_told_and_judged(classifier: Network) -> None:
    openvino = pytest.importorskip("openvino")
    path = written(classifier, "openvino")
    default = OpenVinoRuntime(path, precision=None)
    able = "BF16" in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    assert default.precision == ("bfloat16" if able else "float32")
    assert OpenVinoRuntime(path).name.endswith("(by default bfloat16 on this processor)") == able
    truth = classifier.truth
    inputs = truth.inputs_for(default.precision)
    outputs = run(default, inputs)
    measured = judge(outputs, truth.units(default.precision), truth.oracle, default.precision)
    assert not [m.failure for m in measured if m.failure]
    as_float32 = judge(outputs, truth.units(), truth.oracle)
    assert any(m.failure for m in as_float32) == able


@pytest.mark.parametrize("what", ["weights", "inputs"])
def test_a_pt2_with_a_pickle_is_refused_and_not_loaded(
    classifier: Network, tmp_path: Path, what: str
) -> None:
    path = Path(shutil.copy(written(classifier, "pt2"), tmp_path))
    table = "data/weights/model_weights_config.json"
    with ZipFile(path) as archive:
        text = archive.read(f"archive/{table}").replace(
            b'"use_pickle": false', b'"use_pickle": true'
        )
    if what == "weights":
        rewrite(path, table, text)
    else:
        rewrite(path, "data/sample_inputs/model.pt", b"cos\nsystem\n(S'true'\ntR.")
    assert any("pickle" in clause for clause in certify(classifier.folder, "pt2", path).wrong)
    with pytest.raises(UnsafeInputError, match=r"holds a pickle \(data/.*\), which can run any"):
        FORMATS["pt2"].load(path, ("logits",))


def test_larger_batches_go_through_executorch_in_pieces(classifier: Network) -> None:
    runtime = FORMATS["executorch"].load(written(classifier, "executorch"), ("logits",))
    pixels = np.random.default_rng(0).standard_normal((19, 3, 32, 40)).astype(np.float32)
    logits = runtime(pixels)["logits"]
    assert logits.shape == (19, 10)
    assert np.array_equal(logits[16:], runtime(pixels[16:])["logits"])
    assert not np.array_equal(logits[:3], logits[16:])


@pytest.mark.parametrize("kind", [name for name, kind in FORMATS.items() if kind.extra])
def test_a_missing_extra_is_named_in_one_sentence(
    classifier: Network, kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("converters.errors.find_spec", lambda _: None)
    path = tmp_path / "model"
    command = rf'pip install "regnet-converters\[{FORMATS[kind].extra}\]"`\.$'
    uses: list[Callable[[], object]] = [lambda: FORMATS[kind].load(path, ("logits",))]
    if kind.partition("-")[0] not in {"ncnn", "litert"}:  # which are written without it
        uses.append(lambda: FORMATS[kind].export(classifier.folder, path, ExportOptions()))
    for use in uses:
        with pytest.raises(ConversionError, match=command):
            use()
    assert StorageError.exit_status == 4


def test_without_a_compiler_aotinductor_says_so(
    classifier: Network, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch._inductor.config.cpp.cxx", ("no-such-compiler",))
    with pytest.raises(
        StorageError, match=r"^AOTInductor needs a C\+\+ compiler and there is none"
    ):
        FORMATS["aotinductor"].export(classifier.folder, tmp_path / "model", ExportOptions())


@pytest.mark.slow
def test_stablehlo_refuses_what_a_file_cannot_hold(
    classifier: Network, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("jax")
    monkeypatch.setattr("converters.formats.stablehlo.LARGEST", 1000)
    with pytest.raises(InputError, match="larger than the 2 GB of a StableHLO file"):
        FORMATS["stablehlo"].export(classifier.folder, tmp_path / "file", ExportOptions())
    assert not list(tmp_path.iterdir())
