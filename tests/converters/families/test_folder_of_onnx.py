"""Folders of an ONNX file and what says what it is, as optimum and transformers.js have them."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING, Any

import pytest

from converters.errors import InputError, UnsafeInputError
from converters.jobs.convert import convert
from tests.converters.families.conversion import source_of
from tests.converters.families.test_tensorflow_and_flax import PROCESSOR
from tests.frameworks.environments import RECORDED

if TYPE_CHECKING:
    from pathlib import Path

FILE = RECORDED / "onnx" / "optimum-y.onnx"
TIMM = RECORDED / "onnx" / "timm-y.onnx"


@pytest.fixture(scope="module")
def stated() -> dict[str, Any]:
    """What transformers says of the recorded network."""
    fields: dict[str, Any] = source_of(FILE).config.to_dict()
    labels = {str(index): f"class {index}" for index in range(len(fields["id2label"]))}
    return fields | {
        "id2label": labels,
        "label2id": {name: int(index) for index, name in labels.items()},
        "transformers_version": "4.57.3",
    }


def folder_of(config: dict[str, Any], folder: Path, name: str = "model.onnx") -> Path:
    """What optimum leaves."""
    (folder / name).parent.mkdir(parents=True)
    shutil.copy(FILE, folder / name)
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "preprocessor_config.json").write_text(json.dumps(PROCESSOR))
    return folder


@pytest.mark.parametrize(
    ("name", "named"),
    [
        ("model.onnx", ""),
        ("model.onnx", "model.onnx"),
        ("model.onnx", "config.json"),
        ("onnx/model.onnx", ""),
        ("net.onnx", ""),
    ],
)
def test_what_lies_beside_a_graph_is_read(
    name: str, named: str, stated: dict[str, Any], tmp_path: Path
) -> None:
    source = source_of(folder_of(stated, tmp_path / "theirs", name) / named)

    assert source.framework == "onnx"
    assert source.config.id2label[3] == "class 3"
    assert source.processor["size"] == {"shortest_edge": 192}
    assert source.transform.mean == (0.5, 0.4, 0.3)
    assert {"graph", "configuration"} <= {decision.topic for decision in source.decisions}


def test_a_folder_converts_to_what_its_graph_does(stated: dict[str, Any], tmp_path: Path) -> None:
    convert(folder_of(stated, tmp_path / "theirs"), tmp_path / "out", formats=(), verify=False)
    convert(FILE, tmp_path / "bare", formats=(), verify=False)

    ours, bare = ((tmp_path / name / "model.safetensors").read_bytes() for name in ("out", "bare"))
    assert ours == bare
    assert json.loads((tmp_path / "out" / "config.json").read_text())["label2id"]["class 3"] == 3


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"depths": [9, 9, 9, 9]}, r"its config\.json says depths"),
        (
            {"hidden_act": "silu"},
            r"its config\.json says hidden_act silu where the graph computes with relu; the folder",
        ),
        (
            {"downsample_in_first_stage": False},
            r"says downsample_in_first_stage False where the graph computes with True",
        ),
        ({"model_type": "resnet"}, r"its config\.json is that of a resnet"),
    ],
)
def test_a_configuration_of_another_network_is_refused(
    changes: dict[str, Any], expected: str, stated: dict[str, Any], tmp_path: Path
) -> None:
    folder = folder_of(stated, tmp_path / "theirs")
    depths = {"depths": [*stated["depths"][:-1], stated["depths"][-1] + 1]}
    changes = changes | depths if "depths" in changes else changes
    (folder / "config.json").write_text(json.dumps(stated | changes))

    with pytest.raises(InputError, match=expected):
        source_of(folder)


def test_a_configuration_that_names_code_is_refused(stated: dict[str, Any], tmp_path: Path) -> None:
    folder = folder_of(stated | {"auto_map": {"AutoModel": "net.Net"}}, tmp_path / "theirs")

    with pytest.raises(UnsafeInputError, match="asks programs to run code"):
        source_of(folder)


@pytest.mark.parametrize("wrapped", [False, True])
def test_what_timm_says_beside_a_graph_is_read(wrapped: bool, tmp_path: Path) -> None:
    """As on the Hub, or as optimum writes it of transformers' wrapper."""
    classes = source_of(TIMM).config.num_labels
    (tmp_path / "theirs").mkdir()
    shutil.copy(TIMM, tmp_path / "theirs" / "model.onnx")
    config: dict[str, Any] = {
        "architecture": "regnety_002",
        "num_classes": classes,
        "label_names": [f"class {index}" for index in range(classes)],
        "pretrained_cfg": {
            "input_size": [3, 192, 192],
            "interpolation": "bicubic",
            "crop_pct": 0.96,
            "crop_mode": "center",
            "mean": [0.5, 0.5, 0.5],
            "std": [0.5, 0.5, 0.5],
            "license": "mit",
        },
    }
    if wrapped:
        config |= {
            "model_type": "timm_wrapper",
            "architectures": ["TimmWrapperForImageClassification"],
        }
    (tmp_path / "theirs" / "config.json").write_text(json.dumps(config))

    source = source_of(tmp_path / "theirs")

    assert source.framework == "onnx"
    assert (source.transform.resize, source.transform.crop) == (200, 192)
    assert source.transform.mean == (0.5, 0.5, 0.5)
    assert source.labels
    assert source.labels[3] == "class 3"
    assert source.licence == "mit"


def test_of_several_graphs_one_has_to_be_named(tmp_path: Path) -> None:
    for name in ("a.onnx", "b.onnx"):
        shutil.copy(FILE, tmp_path / name)

    with pytest.raises(InputError, match=r"several ONNX files, a\.onnx and b\.onnx; name one"):
        source_of(tmp_path)


def test_weights_go_before_a_graph(stated: dict[str, Any], tmp_path: Path) -> None:
    """A folder with both is the folder that it was."""
    folder = folder_of(stated, tmp_path / "theirs")
    convert(FILE, tmp_path / "bare", formats=(), verify=False)
    shutil.copy(tmp_path / "bare" / "model.safetensors", folder)

    assert source_of(folder).framework == "transformers"
