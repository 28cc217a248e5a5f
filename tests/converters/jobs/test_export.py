"""Artefacts written into a folder that exists already."""

from __future__ import annotations

import dataclasses
import json
from typing import TYPE_CHECKING

import onnx
import pytest
import torch
from safetensors.torch import load_file
from transformers import ConvNextImageProcessor
from transformers import RegNetConfig as TheirConfig
from transformers import RegNetForImageClassification as TheirClassifier

from converters.checkpoint.digests import sha256_of
from converters.errors import InputError, StorageError
from converters.folder.folder import ConvertedFolder
from converters.formats.registry import FORMATS
from converters.jobs.convert import convert
from converters.jobs.export import export
from converters.parity.report import VerificationError
from converters.parity.verify import verify_folder
from regnet import RegNetForImageClassification
from tests.converters.demo import snapshot
from tests.converters.parity.wrong import GRAPH_MISTAKES
from tests.oracles.statistics import randomise

if TYPE_CHECKING:
    from pathlib import Path

    from converters.formats.format import ExportOptions


def plant_a_mistake(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the ONNX exporter forget a bias."""
    right = FORMATS["onnx"]

    def wrong(folder: ConvertedFolder, path: Path, options: ExportOptions) -> None:
        right.export(folder, path, options)
        model = onnx.load(path, load_external_data=False)
        GRAPH_MISTAKES["a bias dropped"](model, folder.path)
        onnx.save(model, path)

    monkeypatch.setitem(FORMATS, "onnx", dataclasses.replace(right, export=wrong))


def test_exporting_again_gives_the_same_bytes(folder: Path) -> None:
    before = snapshot(folder)
    report = export(folder)
    assert report
    assert report.passed
    assert snapshot(folder) == before


def test_a_sharing_file_replaces_the_self_contained_one(folder: Path) -> None:
    before = snapshot(folder)
    report = export(folder, ["onnx"], share_weights=True)
    assert report
    assert report.passed
    after = snapshot(folder)
    changed = {name for name in after if after[name] != before.get(name)}
    assert changed == {"model.onnx", "conversion.json", "README.md"}  # whose ratio is another
    assert (folder / "model.onnx").stat().st_size < 100_000
    assert verify_folder(ConvertedFolder(folder)).passed


@pytest.mark.parametrize("recorded", [True, False])
def test_a_sharing_file_names_the_weights_it_belongs_to(folder: Path, *, recorded: bool) -> None:
    weights = folder / "model.safetensors"
    if not recorded:
        (folder / "conversion.json").unlink()
    export(folder, ["onnx"], share_weights=True, verify=False)
    model = onnx.load(folder / "model.onnx", load_external_data=False)
    metadata = {entry.key: entry.value for entry in model.metadata_props}
    assert json.loads(metadata["weights_sha256"]) == {weights.name: sha256_of(weights)}


def test_without_verify_nothing_is_run(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("converters.parity.computed.run_in_lockstep", None)
    assert export(folder, ["onnx"], share_weights=True, verify=False) is None


def test_a_wrong_artefact_replaces_nothing(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plant_a_mistake(monkeypatch)
    before = snapshot(folder)
    with pytest.raises(VerificationError, match=r"^Nothing in .* was replaced.*model\.onnx, .*\.$"):
        export(folder)
    assert snapshot(folder) == before


def test_another_network_in_the_folder_is_told_and_can_be_converted(
    folder: Path, tmp_path: Path
) -> None:
    model = RegNetForImageClassification.from_pretrained(folder)
    with torch.no_grad():
        model.classifier[1].weight.mul_(-1)
    model.save_pretrained(folder)
    said = (
        r"model\.safetensors was changed.*; if you saved another network there yourself, `regnet "
    )
    with pytest.raises(VerificationError, match=f"^Nothing in .* was replaced.*{said}"):
        export(folder, ["onnx"])
    with pytest.raises(VerificationError, match=said):
        verify_folder(ConvertedFolder(folder)).require_pass("It is not to be trusted")

    convert(folder, tmp_path / "new", formats=("onnx",))
    assert verify_folder(ConvertedFolder(tmp_path / "new")).passed
    written = load_file(tmp_path / "new" / "model.safetensors")["classifier.1.weight"]
    torch.testing.assert_close(written, model.classifier[1].weight.detach())


def test_an_artefact_that_cannot_be_written_replaces_nothing(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    failing = dataclasses.replace(FORMATS["torchscript"], export=fail)
    monkeypatch.setitem(FORMATS, "torchscript", failing)
    before = snapshot(folder)
    with pytest.raises(StorageError, match="no space left on device"):
        export(folder, share_weights=True)
    assert snapshot(folder) == before


def test_a_folder_of_transformers_is_exported_and_verified(tmp_path: Path) -> None:
    fields = {"embedding_size": 8, "hidden_sizes": [16, 32], "depths": [1, 1], "groups_width": 8}
    theirs = randomise(TheirClassifier(TheirConfig(**fields, num_labels=5)))
    theirs.save_pretrained(tmp_path)  # type: ignore[operator]
    ConvNextImageProcessor(size={"shortest_edge": 64}).save_pretrained(tmp_path)
    for share_weights in (False, True):
        report = export(tmp_path, share_weights=share_weights)
        assert report
        assert report.passed, report.failures
    assert not (tmp_path / "conversion.json").exists()
    assert verify_folder(ConvertedFolder(tmp_path)).passed
    pixels = torch.randn(2, 3, 48, 40)
    found = FORMATS["onnx"].load(tmp_path / "model.onnx", ("logits",))(pixels.numpy())["logits"]
    with torch.inference_mode():
        expected = theirs(pixels).logits
    torch.testing.assert_close(torch.from_numpy(found), expected)


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("config.json", None, "config.json does not exist"),
        ("config.json", "{", "config.json is not valid JSON"),
        ("config.json", '{"model_type": "resnet"}', "does not describe a RegNet"),
        ("model.safetensors", None, "has neither model.safetensors nor"),
        ("model.safetensors", "", "model.safetensors"),
        ("conversion.json", "{", r"conversion.json is damaged .*convert the checkpoint again"),
    ],
)
def test_a_folder_that_cannot_be_used_is_refused(
    name: str, content: str | None, reason: str, folder: Path
) -> None:
    if content is None:
        (folder / name).unlink()
    else:
        (folder / name).write_text(content)
    before = snapshot(folder)
    with pytest.raises(InputError, match=rf"{reason}.*\.$"):
        export(folder, ["onnx"], share_weights=True, verify=False)
    assert snapshot(folder) == before


def test_weights_that_do_not_fit_the_configuration_are_refused(folder: Path) -> None:
    path = folder / "config.json"
    config = json.loads(path.read_text())
    path.write_text(json.dumps(config | {"depths": [1, 1, 3, 4]}))
    with pytest.raises(InputError, match=r"does not fit its config\.json: \d+ tensors are missing"):
        export(folder, ["onnx"], verify=False)


@pytest.mark.parametrize("name", ["missing", "model.onnx"])
def test_what_is_no_folder_is_refused(name: str, folder: Path) -> None:
    why = r"is not a folder; convert a checkpoint|does not exist; give a folder"
    with pytest.raises(InputError, match=why):
        export(folder / name)


def test_a_single_format_is_to_be_a_list_of_one(tmp_path: Path, demo_folder: Path) -> None:
    said = r'^formats is a list of names; write formats=\["onnx-fp16"\]\.$'
    with pytest.raises(InputError, match=said):
        export(demo_folder, "onnx-fp16")
    with pytest.raises(InputError, match=said):
        convert(demo_folder, tmp_path / "new", formats="onnx-fp16")
