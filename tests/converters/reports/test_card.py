"""The model card is one to the Hub, and whose pixels it names are those of the evaluation."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from huggingface_hub import ModelCard
from PIL import Image

import converters
from converters.errors import InputError
from converters.folder.folder import ConvertedFolder
from converters.folder.record import Record
from converters.reports.card import usage_section
from regnet.config import RegNetConfig
from regnet.image_processor import RegNetImageProcessor, ResizeMode
from tests.converters.demo import sample_images

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def labelled(tmp_path: Path) -> Path:
    """A few held-out images, in a folder for each class."""
    for path, label in sample_images(tmp_path / "images", 6):
        place = tmp_path / "labelled" / label.replace("/", "_")
        place.mkdir(parents=True, exist_ok=True)
        shutil.move(path, place)
    return tmp_path / "labelled"


def card_of(folder: Path) -> Any:
    """What huggingface_hub reads, which raises for front matter that is none."""
    return ModelCard.load(folder / "README.md").data


def measured(folder: Path) -> dict[tuple[str, str], float]:
    """Data set and metric to its value."""
    results = card_of(folder).eval_results or []
    return {(each.dataset_name, each.metric_name): each.metric_value for each in results}


def test_measured_accuracies_enter_the_card_as_the_hub_reads_them(
    folder: Path, labelled: Path
) -> None:
    before = card_of(folder)
    assert before.eval_results is None
    assert (before.library_name, before.pipeline_tag) == ("transformers", "image-classification")

    for data_set in ("somebody/fashion", "others"):
        scores = converters.evaluate(
            folder, labelled, runtimes=["torch", "onnx"], card=data_set
        ).evaluation.scores
    found = measured(folder)
    assert len(found) == 8
    for name, file in {"torch": "model.safetensors", "onnx": "model.onnx"}.items():
        for data_set in ("somebody/fashion", "others"):
            assert found[data_set, f"top-1 accuracy of {file}"] == scores[name].top1 / 6
            assert found[data_set, f"top-5 accuracy of {file}"] == scores[name].top5 / 6
    (result, *_) = card_of(folder).eval_results
    assert (result.task_type, result.dataset_args) == ("image-classification", {"images": 6})
    assert Record.required(folder).changed_files(folder)[0] == ()

    converters.evaluate(folder, labelled, runtimes=["torch"], card="others")  # in the place of four
    assert len(measured(folder)) == 6
    converters.export(folder, ["onnx"], verify=False)  # another file, of which nothing is known
    assert set(measured(folder)) == {
        (data_set, f"top-{k} accuracy of model.safetensors")
        for data_set in ("somebody/fashion", "others")
        for k in (1, 5)
    }


@pytest.mark.parametrize(
    "index",
    ["model-index:\n- name: mine\n", 'model-index: [{"name": "mine", "results": [{}]}]\n', None],
    ids=["YAML", "JSON of another form", "no card of ours"],
)
def test_what_a_person_has_written_there_is_not_touched(
    folder: Path, labelled: Path, index: str | None
) -> None:
    card = folder / "README.md"
    text = card.read_text()
    card.write_text(text.replace("\n---\n", f"\n{index}---\n", 1) if index else "# Mine\n")
    kept = card.read_text()
    with pytest.raises(InputError, match=r"README\.md"):
        converters.evaluate(folder, labelled, runtimes=["torch"], card="others")
    assert card.read_text() == kept
    if index:
        converters.export(folder, ["onnx"], verify=False)
        assert index in card.read_text()


def pixels_by_the_card(folder: Path, image: Image.Image, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Run the first lines that a card shows, but those that load the network."""
    code = usage_section(ConvertedFolder(folder)).split("```python\n")[1].splitlines()[:2]
    monkeypatch.chdir(folder)
    names: dict[str, Any] = {"image": image}
    exec("\n".join(code), names)  # noqa: S102 -- our own card
    return names["pixels"].numpy()


@pytest.mark.parametrize(
    ("mode", "size", "package"),
    [
        ("convnext", 224, "transformers"),
        ("convnext", 384, "transformers"),
        ("shortest_edge_then_crop", 224, "transformers"),
        ("shortest_edge_then_crop", 384, "regnet"),
        ("squash", 224, "regnet"),
    ],
)
def test_the_pixels_of_the_card_are_those_of_the_evaluation(
    mode: ResizeMode, size: int, package: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    RegNetConfig(depths=[1, 1, 1, 1]).save_pretrained(tmp_path)
    (tmp_path / "model.safetensors").write_bytes((2).to_bytes(8, "little") + b"{}")
    processor = RegNetImageProcessor(size=size, resize_mode=mode)
    processor.save_pretrained(tmp_path)
    assert f"from {package} import" in usage_section(ConvertedFolder(tmp_path))
    image = Image.effect_noise((500, 420), 60).convert("RGB")
    found = pixels_by_the_card(tmp_path, image, monkeypatch)
    np.testing.assert_array_equal(found, processor(image, "np").pixel_values)


def test_a_network_that_transformers_does_not_have_is_loaded_from_here(tmp_path: Path) -> None:
    RegNetConfig(groups_width=[8, 16, 16, 16], depths=[1, 1, 1, 1]).save_pretrained(tmp_path)
    (tmp_path / "model.safetensors").write_bytes((2).to_bytes(8, "little") + b"{}")
    RegNetImageProcessor().save_pretrained(tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["model_type"] == "anynet"
    text = usage_section(ConvertedFolder(tmp_path))
    assert "transformers does not have this network." in text
    assert "from transformers" not in text
