"""Accuracy and agreement, and which class a folder of images belongs to."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from PIL import Image
from timm.data import ImageNetInfo

from converters.errors import InputError
from converters.families.labels import imagenet_labels, imagenet_synsets
from converters.folder.folder import ConvertedFolder
from converters.folder.images import UnreadableImagesError
from converters.jobs.evaluate import Evaluation, count, evaluate
from converters.jobs.evaluate_classes import labelled_images
from converters.jobs.predict import open_runtime
from tests.converters.demo import labels, sample_images
from tests.converters.told import Told

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

PLACEHOLDERS = {number: f"LABEL_{number}" for number in range(3)}
ANIMALS = {0: "tench, Tinca tinca", 1: "crane", 2: "crane", 3: "sea lion"}
IMAGENET = dict(enumerate(imagenet_labels()))


def class_folders(root: Path, names: Sequence[str], images: int = 1) -> Path:
    for name in names:
        (root / name).mkdir(parents=True)
        for index in range(images):
            Image.new("RGB", (32, 32)).save(root / name / f"{index}.png")
    return root


def matched(root: Path, id2label: dict[int, str], names: list[str] | None = None) -> dict[str, int]:
    found = labelled_images(root, id2label, names).classes
    return {path.parent.name: number for path, number in found.items()}


class Fixed:
    """A runtime whose logits are the pixels."""

    name, precision = "fixed", "float32"

    def __init__(self, change: float = 0) -> None:
        self._change = change

    def __call__(self, pixels: NDArray[np.float32]) -> dict[str, NDArray[np.floating]]:
        return {"logits": pixels.reshape(len(pixels), -1) + np.float32(self._change)}


def test_accuracy_is_that_of_torch_topk() -> None:
    rng = np.random.default_rng(0)
    logits = rng.standard_normal((500, 1, 1, 20), np.float32)
    truth = rng.integers(0, 20, 500)
    batches = [(logits[:300], truth[:300]), (logits[300:], truth[300:])]
    score = count({"a": Fixed()}, batches).scores["a"]
    best = torch.from_numpy(logits).flatten(1).topk(5).indices == torch.from_numpy(truth)[:, None]
    assert (score.images, score.top1, score.top5) == (500, best[:, 0].sum(), best.sum())


def test_agreement_says_how_often_and_by_how_much_logits_differ() -> None:
    evaluation = Evaluation.of(["a", "b"])
    first = np.array([[1.0, 2, 3], [3, 2, 1]], np.float32)
    second = np.array([[1.0, 2, 3], [3, 2, 4]], np.float32)
    evaluation.add({"a": first, "b": second}, np.array([2, 0]))
    agreement = evaluation.between("b", "a")
    assert (agreement.same, agreement.images, agreement.largest) == (1, 2, 3.0)
    assert agreement.mean == pytest.approx(0.5)
    assert evaluation.to_dict()["agreement"][0]["top1_agreement"] == 0.5
    assert [evaluation.scores[name].top1 for name in "ab"] == [2, 1]
    assert evaluation.scores["a"].top5 is None  # three classes


def test_logits_that_are_not_finite_are_wrong_and_say_so() -> None:
    batch = np.zeros((2, 1, 1, 6), np.float32)
    runtimes = {"good": Fixed(), "bad": Fixed(np.nan)}
    evaluation = count(runtimes, [(batch, np.array([0, 0])), (batch, np.array([0, 0]))])
    record = json.loads(json.dumps(evaluation.to_dict(), allow_nan=False))
    assert record["runtimes"]["good"]["top1"] == 1
    assert record["runtimes"]["bad"] == {"images": 4, "top1": 0, "top5": 0}
    assert record["agreement"][0]["largest_difference"] is None


def test_the_synsets_are_imagenets_in_the_order_of_the_labels() -> None:
    info = ImageNetInfo()
    assert list(imagenet_synsets()) == info.label_names()
    for synset, label in zip(imagenet_synsets(), imagenet_labels(), strict=True):
        assert info.label_name_to_description(synset, detailed=False) == label


@pytest.mark.parametrize(
    ("names", "id2label", "expected", "way"),
    [
        (["n01440764", "n15075141"], IMAGENET, [0, 999], "ImageNet's synsets"),
        (["tench", "Great_White_Shark", "toilet tissue"], IMAGENET, [0, 2, 999], "label"),
        (["Tinca tinca", "sea-lion"], ANIMALS, [0, 3], "label"),
        (["0", "2"], ANIMALS, [0, 2], "number"),
        (["0001", "00002", "3"], ANIMALS, [1, 2, 3], "number"),
        (["ant", "bee", "cow"], PLACEHOLDERS, [0, 1, 2], "order, for the network's classes"),
        (["LABEL_2"], PLACEHOLDERS, [2], "label"),
    ],
)
def test_class_folders_are_matched_by_what_fits_all_of_them(
    names: list[str], id2label: dict[int, str], expected: list[int], way: str, tmp_path: Path
) -> None:
    root = class_folders(tmp_path, names)
    assert matched(root, id2label) == dict(zip(names, expected, strict=True))
    assert labelled_images(root, id2label).matched_by.startswith(way)


def test_given_names_decide_alone(tmp_path: Path) -> None:
    root = class_folders(tmp_path, ["0", "2"])
    assert matched(root, PLACEHOLDERS, ["2", "1", "0"]) == {"0": 2, "2": 0}


@pytest.mark.parametrize(
    ("found", "id2label", "names", "reason"),
    [
        (["sea lion", "unicorn"], ANIMALS, None, "folder unicorn in .* --labels FILE"),
        (["crane"], ANIMALS, None, "folder crane"),
        (["3"], PLACEHOLDERS, None, "folder 3"),
        (["ant", "bee"], PLACEHOLDERS, None, "folder ant"),
        (["n01440764"], ANIMALS, None, "folder n01440764"),
        (["n01440764", "tench"], IMAGENET, None, "folder n01440764"),
        (["ant"], PLACEHOLDERS, ["bee", "cow", "dog"], "folder ant .* is not in --labels"),
        (["ant"], PLACEHOLDERS, ["ant", "bee"], "names 2 different folders for .* 3 classes"),
        (["ant"], PLACEHOLDERS, ["ant", "ant", "bee"], "names 2 different folders"),
        ([], PLACEHOLDERS, None, "holds no class folders"),
    ],
)
def test_a_folder_of_no_class_is_named_and_nothing_is_guessed(
    found: list[str], id2label: dict[int, str], names: list[str] | None, reason: str, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=reason) as caught:
        labelled_images(class_folders(tmp_path, found), id2label, names)
    assert str(caught.value).endswith(".")


def test_class_folders_without_images_are_told(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="hold no images"):
        labelled_images(class_folders(tmp_path, ["0"], images=0), PLACEHOLDERS)


def test_a_limit_takes_from_every_class(tmp_path: Path) -> None:
    everything = labelled_images(class_folders(tmp_path, ["0", "1", "2"], 10), PLACEHOLDERS)
    some = everything.limited(6)
    assert sorted(some.classes.values()) == [0, 0, 1, 1, 2, 2]
    assert everything.limited(99) is everything


def by_class(root: Path, count: int) -> Path:
    for path, label in sample_images(root / "flat", count):
        target = root / "val" / re.sub(r"\W", "_", label)
        target.mkdir(parents=True, exist_ok=True)
        path.rename(target / path.name)
    return root / "val"


def test_a_folder_is_evaluated_with_every_runtime_it_has(demo_folder: Path, tmp_path: Path) -> None:
    val = by_class(tmp_path, 30)
    told = Told()
    result = evaluate(demo_folder, val, batch_size=7, progress=told)
    assert set(result.evaluation.scores) == {"torch", "onnx", "torchscript"}
    for score in result.evaluation.scores.values():
        assert score.images == 30
        assert score.top1 >= 25
        assert score.top5 is not None
        assert score.top5 >= score.top1
    for agreement in result.evaluation.agreements.values():
        assert agreement.same == 30
        assert agreement.largest < 1e-3
    assert (told.totals, sum(told.amounts)) == ([30], 30)
    assert result.matched_by == "label"


def test_wrong_names_cost_the_accuracy(demo_folder: Path, tmp_path: Path) -> None:
    val = by_class(tmp_path, 30)
    names = [re.sub(r"\W", "_", label) for label in labels()]
    wrong = names[1:] + names[:1]
    result = evaluate(demo_folder, val, runtimes=("onnx",), labels=wrong)
    assert result.evaluation.scores["onnx"].top1 <= 5


def test_unreadable_images_are_left_out_and_told(demo_folder: Path, tmp_path: Path) -> None:
    val = by_class(tmp_path, 3)
    first = next(val.rglob("*.png"))
    first.write_text("no image")
    result = evaluate(demo_folder, val, runtimes=("onnx",))
    assert result.evaluation.images == 2
    (sentence,) = result.unreadable
    assert sentence.startswith(f"{first} is not an image of a known format (")
    for path in val.rglob("*.png"):
        path.write_text("no image")
    with pytest.raises(UnreadableImagesError):
        evaluate(demo_folder, val, runtimes=("onnx",))


def test_a_batch_that_cannot_be_run_is_told(demo_folder: Path) -> None:
    from converters.jobs.predict import scores_of

    network = open_runtime(ConvertedFolder(demo_folder), "onnx")
    with pytest.raises(InputError, match=r"cannot run a batch of 2 x 5 x 48 x 48 .* --batch-size"):
        scores_of(network, np.zeros((2, 5, 48, 48), np.float32))


def test_thousands_of_threads_are_refused(demo_folder: Path) -> None:
    with pytest.raises(InputError, match="5000 threads cannot compute at once; give at most"):
        open_runtime(ConvertedFolder(demo_folder), "onnx", threads=5000)
