"""A folder verifies itself, anywhere, and notices every change."""

from __future__ import annotations

import json
import re
import shutil
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file

from converters.checkpoint.digests import sha256_of
from converters.errors import InputError
from converters.folder.folder import ConvertedFolder
from converters.formats.lockstep import Arithmetic, run_in_lockstep
from converters.jobs.convert import convert
from converters.parity import verify
from converters.parity.golden import read_golden, write_golden
from converters.parity.metrics import rms
from converters.parity.truth import Truth
from converters.parity.verify import fresh_inputs, verify_folder
from regnet import RegNetForImageClassification
from regnet.config import RegNetConfig
from regnet.design_space import complexity
from tests.converters.demo import FILES
from tests.converters.formats.random_folder import random_folder
from tests.converters.parity.networks import random_network
from tests.converters.parity.wrong import STATE_MISTAKES
from tests.converters.told import Told

if TYPE_CHECKING:
    from pathlib import Path

WEIGHTS = "model.safetensors"
SMALL: dict[str, Any] = {"hidden_sizes": (16, 24), "depths": (1, 1), "groups_width": 8}


def change_a_byte(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def record_again(folder: Path, name: str) -> None:
    """Make ``conversion.json`` agree with a changed file."""
    path = folder / "conversion.json"
    record = json.loads(path.read_text())
    record["files"][name]["sha256"] = sha256_of(folder / name)
    path.write_text(json.dumps(record))


def test_a_moved_folder_passes(folder: Path) -> None:
    told = Told()
    report = verify_folder(ConvertedFolder(folder), told)
    assert report.passed
    assert [verdict.artefact for verdict in report.verdicts] == [
        "golden.safetensors",
        WEIGHTS,
        "model.onnx",
        "model.torchscript.pt",
    ]
    assert told.titles[-1] == "verifying TorchScript"
    assert json.loads(json.dumps(report.to_dict(), allow_nan=False))["passed"]


@pytest.mark.parametrize(
    ("processor", "size"),
    [
        (None, 224),
        ({}, 224),
        ({"size": 64}, 64),
        ({"size": {"shortest_edge": 64}}, 64),
        ({"size": {"height": 64, "width": 64}}, 64),
    ],
)
def test_a_folder_of_any_origin_is_verified_at_its_own_size(
    processor: dict[str, Any] | None, size: int, tmp_path: Path
) -> None:
    folder = random_folder(tmp_path, RegNetConfig(**SMALL))
    if processor is not None:
        (tmp_path / "preprocessor_config.json").write_text(json.dumps(processor))
    assert fresh_inputs(folder)["native"].shape == (1, 3, size, size)
    assert verify_folder(folder).passed


@pytest.mark.parametrize("name", ["X", "Y, silu", "one class"])
def test_float64_in_another_order_is_within_its_own_error(name: str, tmp_path: Path) -> None:
    network = random_network(tmp_path, name)
    truth = network.truth
    other = run_in_lockstep(network.folder, truth.inputs, Arithmetic(torch.float64))
    for batch, named in other.items():
        error = rms(named["logits"] - truth.oracle[batch]["logits"])
        assert error < truth.units()[batch]["logits"].rms * 2.0**-29


def test_a_costly_network_is_verified_on_smaller_images(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = random_folder(tmp_path, RegNetConfig(**SMALL))
    monkeypatch.setattr(verify, "_COSTLY", complexity(folder.config, 224).flops // 4)

    assert fresh_inputs(folder)["native"].shape == (1, 3, 111, 111)


def test_a_conversion_writes_what_it_promises_and_records_it(demo_folder: Path) -> None:
    assert sorted(path.name for path in demo_folder.iterdir()) == sorted(FILES)
    record = json.loads((demo_folder / "conversion.json").read_text())
    assert sorted(record["files"]) == sorted(set(FILES) - {"conversion.json"})
    assert record["verification"]["passed"]


@pytest.mark.parametrize("name", [name for name in FILES if name != "conversion.json"])
def test_a_changed_byte_fails_naming_the_file(name: str, folder: Path) -> None:
    change_a_byte(folder / name)
    report = verify_folder(ConvertedFolder(folder))
    assert not report.passed
    assert report.failures[0] == f"{name} was changed after it was written"


def test_a_network_that_was_trained_further_in_its_folder_has_the_way_out_that_is_named(
    folder: Path, tmp_path: Path
) -> None:
    model = RegNetForImageClassification.from_pretrained(folder)
    with torch.no_grad():
        model.get_parameter("classifier.1.bias").add_(1)
    model.save_pretrained(folder)
    assert "`regnet convert FOLDER NEW`" in verify_folder(ConvertedFolder(folder)).way_out
    convert(folder, tmp_path / "new")
    again = RegNetForImageClassification.from_pretrained(tmp_path / "new")
    name = "classifier.1.bias"
    assert torch.equal(again.get_parameter(name), model.get_parameter(name))
    assert (tmp_path / "new" / "preprocessor_config.json").read_bytes() == (
        folder / "preprocessor_config.json"
    ).read_bytes()
    assert verify_folder(ConvertedFolder(tmp_path / "new")).passed


@pytest.mark.parametrize("name", [name for name in FILES if name != "conversion.json"])
def test_a_removed_file_fails_naming_the_file(name: str, folder: Path) -> None:
    (folder / name).unlink()
    report = verify_folder(ConvertedFolder(folder))
    assert not report.passed
    assert name in report.failures[0]


def test_artefacts_are_judged_on_inputs_that_no_folder_chooses(folder: Path) -> None:
    converted = ConvertedFolder(folder)
    few = {"constant": np.zeros((1, converted.config.num_channels, 32, 32), np.float32)}
    write_golden(folder, few, Truth(converted, few).oracle)
    record_again(folder, "golden.safetensors")
    golden, _, *artefacts = verify_folder(converted).verdicts
    assert [m.batch for m in golden.measurements] == ["constant"]
    assert golden.passed
    for verdict in artefacts:
        assert [m.batch for m in verdict.measurements] == list(fresh_inputs(converted))


@pytest.mark.parametrize("mistake", STATE_MISTAKES)
def test_other_weights_fail_even_with_fresh_checksums(mistake: str, folder: Path) -> None:
    state = {name: array.copy() for name, array in load_file(folder / WEIGHTS).items()}
    STATE_MISTAKES[mistake](state)
    save_file(state, folder / WEIGHTS)
    record_again(folder, WEIGHTS)
    report = verify_folder(ConvertedFolder(folder))
    assert not report.passed
    assert not report.changed_files
    assert re.match(
        r"golden\.safetensors, native: the weights no longer give what they gave when they "
        r"were converted \(they differ by \S+ times float64's own error, limit 16\)$",
        report.failures[0],
    )


@pytest.mark.parametrize("end", ["embedder.convolution.weight", "classifier.1.weight"])
def test_one_lowest_bit_of_one_weight_fails_even_with_fresh_checksums(
    end: str, folder: Path
) -> None:
    state = {name: array.copy() for name, array in load_file(folder / WEIGHTS).items()}
    name = next(name for name in state if name.endswith(end))
    largest = np.abs(state[name]).argmax()
    state[name].reshape(-1).view(np.uint32)[largest] ^= 1
    save_file(state, folder / WEIGHTS)
    record_again(folder, WEIGHTS)
    report = verify_folder(ConvertedFolder(folder))
    assert report.failures[0].startswith("golden.safetensors, native: the weights no longer give")


def test_a_folder_without_golden_vectors_or_record_is_verified_on_fresh_inputs(
    folder: Path,
) -> None:
    (folder / "golden.safetensors").unlink()
    (folder / "conversion.json").unlink()
    report = verify_folder(ConvertedFolder(folder))
    assert report.passed
    assert report.verdicts[0].artefact == WEIGHTS
    assert report.not_checked == (
        "there is no conversion.json, so no checksum was compared",
        "there is no golden.safetensors, so the weights were not compared with what was converted",
    )


def test_a_folder_of_shards_passes(folder: Path) -> None:
    from regnet.model import RegNetForImageClassification

    model = RegNetForImageClassification.from_pretrained(folder)
    shards = folder.parent / "shards"
    model.save_pretrained(shards, max_shard_size="500KB")
    for name in ("preprocessor_config.json", "golden.safetensors", "model.onnx"):
        shutil.copy(folder / name, shards)
    report = verify_folder(ConvertedFolder(shards))
    assert report.passed
    assert report.verdicts[1].artefact.count("model-0000") > 1


def test_golden_vectors_come_back_as_they_were_written(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    inputs = {
        "native": random.standard_normal((1, 3, 4, 4)).astype(np.float32),
        "mixed": random.standard_normal((3, 3, 5, 2)).astype(np.float32),
    }
    oracle: dict[str, dict[str, Any]] = {
        batch: {"logits": random.standard_normal((len(pixels), 7))}
        for batch, pixels in inputs.items()
    }
    folder = random_folder(tmp_path, RegNetConfig(**SMALL))
    write_golden(tmp_path, inputs, oracle)
    inputs_again, oracle_again = read_golden(folder)
    assert list(inputs_again) == list(inputs)
    for batch, pixels in inputs.items():
        assert inputs_again[batch].tobytes() == pixels.tobytes()
        assert oracle_again[batch]["logits"].tobytes() == oracle[batch]["logits"].tobytes()
        assert oracle_again[batch]["logits"].dtype == np.float64


@pytest.mark.parametrize(
    ("names", "reason"),
    [
        ({"native.pixel_values": (1, 3, 4, 4)}, r"lacks native\.logits; it belongs to another"),
        ({"other": (2,)}, "holds no inputs; convert the checkpoint again"),
    ],
)
def test_golden_vectors_of_another_network_are_refused(
    names: dict[str, tuple[int, ...]], reason: str, tmp_path: Path
) -> None:
    folder = random_folder(tmp_path, RegNetConfig(**SMALL))
    arrays = {name: np.zeros(shape, np.float32) for name, shape in names.items()}
    save_file(arrays, tmp_path / "golden.safetensors")
    with pytest.raises(InputError, match=rf"golden\.safetensors {reason}.*\.$"):
        read_golden(folder)


@pytest.mark.parametrize("shape", [(1, 1, 48, 48), (1, 3, 48), (0, 3, 48, 48)])
def test_golden_vectors_whose_images_the_network_cannot_take_are_refused_in_a_sentence(
    shape: tuple[int, ...], folder: Path
) -> None:
    (folder / "conversion.json").unlink()  # whose checksum would say that they were changed
    arrays = load_file(folder / "golden.safetensors")
    arrays["native.pixel_values"] = np.zeros(shape, np.float32)
    save_file(arrays, folder / "golden.safetensors")

    with pytest.raises(InputError) as caught:
        verify_folder(ConvertedFolder(folder))

    assert caught.value.exit_status == 2
    assert str(caught.value) == (
        f"{folder / 'golden.safetensors'} holds native.pixel_values of shape {list(shape)}, where "
        "the network takes (N, 3, H, W); it belongs to another folder, convert again."
    )
