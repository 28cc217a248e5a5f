"""Names of classes, in the forms in which people have them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
import torch

from converters.cli.options import read_labels
from converters.errors import InputError
from converters.families.labels import imagenet_labels, imagenet_synsets, in_class_order
from tests.converters.families.conversion import source_of
from tests.oracles import timm, torchvision

if TYPE_CHECKING:
    from pathlib import Path

NAMES = ["tench", "crane", "ox", "Crane"]
IN_ORDER = {"tench": 0, "crane": 1, "ox": 2, "Crane": 3}


@pytest.mark.parametrize(
    ("stated", "names"),
    {
        "a list": (NAMES, NAMES),
        "class_to_idx": (IN_ORDER, NAMES),
        "in any order": (dict(reversed(IN_ORDER.items())), NAMES),
        "id2label": ({str(number): name for name, number in IN_ORDER.items()}, NAMES),
        "numbers as text": ({name: str(number) for name, number in IN_ORDER.items()}, NAMES),
        "a class index": (
            {"0": ["n01440764", "tench"], "1": ["n02012849", "crane"]},
            ["tench", "crane"],
        ),
        "a class index with one name twice": (
            {"0": ["n02012849", "crane"], "1": ["n03126707", "crane"], "2": ["n1", "ox"]},
            ["crane (n02012849)", "crane (n03126707)", "ox"],
        ),
        "a configuration": ({"model_type": "regnet", "id2label": {"0": "a", "1": "b"}}, ["a", "b"]),
        "classes that are called by numbers": ({"0": 0, "1": 1, "10": 2}, ["0", "1", "10"]),
    }.values(),
)
def test_labels_are_read_in_every_usual_form(tmp_path: Path, stated: Any, names: list[str]) -> None:
    path = tmp_path / "labels.json"
    path.write_text(json.dumps(stated))

    assert read_labels(path) == names


@pytest.mark.parametrize(
    "stated",
    [
        {"first": "cat"},
        {"0": "cat", "2": "dog"},
        {"1": "cat", "2": "dog"},
        {"cat": 0, "dog": 0},
        {"cat": True, "dog": False},
        {"0": None},
        {"0": ["n1", "cat", "more"]},
        [["n1", 2]],
        [1, 2],
        {"classes": 7},
    ],
)
def test_what_does_not_name_all_classes_in_order_is_refused(tmp_path: Path, stated: Any) -> None:
    path = tmp_path / "labels.json"
    path.write_text(json.dumps(stated))

    with pytest.raises(InputError, match="numbers them all from 0"):
        read_labels(path)


def test_folders_are_named_for_the_synsets_of_a_class_index() -> None:
    pairs = zip(imagenet_synsets(), imagenet_labels(), strict=True)
    index = {
        str(number): [synset, label.split(",")[0]] for number, (synset, label) in enumerate(pairs)
    }

    names = in_class_order(index)

    assert in_class_order(index, synsets=True) == imagenet_synsets()
    assert names is not None
    assert len(set(names)) == 1000  # two cranes and two maillots
    assert names[134] == "crane (n02012849)"


@pytest.mark.parametrize(
    ("beside", "where"),
    [
        ({"class_to_idx": IN_ORDER}, "class_to_idx"),
        ({"classes": NAMES}, "classes"),
        ({"hyper_parameters": {"class_names": NAMES}}, "hyper_parameters.class_names"),
        ({"args": {"idx_to_class": dict(enumerate(NAMES))}}, "args.idx_to_class"),
    ],
)
def test_a_checkpoint_s_own_names_are_taken(tmp_path: Path, beside: Any, where: str) -> None:
    state = timm.build(num_classes=4).state_dict()
    torch.save({"state_dict": state, **beside}, tmp_path / "net.pth")

    source = source_of(tmp_path / "net.pth")

    assert source.labels == tuple(NAMES)
    (decision,) = (d for d in source.decisions if d.topic == "labels")
    assert (decision.value, decision.reason) == ("4 names", f"the file's {where}")


@pytest.mark.parametrize(
    "beside",
    [
        {"class_to_idx": {"a": 0, "b": 1}},
        {"class_to_idx": dict.fromkeys("abcd", 0)},
        {"classes": ["a", "a", "b", "c"]},
        {"classes": 4},
    ],
)
def test_names_of_other_classes_are_not_taken(tmp_path: Path, beside: Any) -> None:
    state = torchvision.build(classes=4).state_dict()
    torch.save({"state_dict": state, **beside}, tmp_path / "net.pth")

    assert source_of(tmp_path / "net.pth").labels is None
