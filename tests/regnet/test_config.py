"""The configuration: its fields and files are transformers', its refusals come before the model."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

import pytest
import transformers

from regnet import RegNetConfig
from tests.oracles.transformers import TINY, tiny

if TYPE_CHECKING:
    from pathlib import Path

DOCUMENTED = [
    pytest.param({}, id="defaults"),
    pytest.param(TINY, id="another network"),
    pytest.param({"layer_type": "x", "hidden_act": "gelu_new"}, id="layer type and activation"),
    pytest.param({"downsample_in_first_stage": False, "num_channels": 1}, id="first stage"),
    pytest.param({"num_labels": 0}, id="no labels"),
    pytest.param({"num_labels": 1}, id="one label"),
    pytest.param({"num_labels": 2}, id="two labels"),
    pytest.param({"id2label": {0: "Katze", 1: "père", 2: "犬"}}, id="named labels"),
    pytest.param({"problem_type": "regression"}, id="problem type"),
    pytest.param({"output_hidden_states": True, "return_dict": False}, id="output switches"),
    pytest.param(
        {"architectures": ["RegNetModel"], "custom": [1, {"a": None}], "_origin": "x"},
        id="unknown keys",
    ),
]


def differing_fields(ours: RegNetConfig, theirs: Any) -> list[str]:
    """Names of our fields that transformers holds with another value, or not at all."""
    expected = theirs.to_dict()
    # Given labels, transformers leaves label2id null until it is asked for.
    if expected["label2id"] is None:
        expected["label2id"] = {name: index for index, name in theirs.id2label.items()}
    assert ours.num_labels == theirs.num_labels
    return [name for name, value in ours.to_dict().items() if expected.get(name, ...) != value]


@pytest.mark.parametrize("fields", DOCUMENTED)
def test_fields_equal_those_of_transformers(fields: dict[str, Any]) -> None:
    assert not differing_fields(RegNetConfig(**fields), transformers.RegNetConfig(**fields))


@pytest.mark.parametrize("fields", DOCUMENTED)
def test_transformers_reads_our_file_to_the_same_fields(
    fields: dict[str, Any], tmp_path: Path
) -> None:
    ours = RegNetConfig(**fields)
    ours.save_pretrained(tmp_path)
    assert not differing_fields(ours, transformers.RegNetConfig.from_pretrained(tmp_path))


@pytest.mark.parametrize("fields", DOCUMENTED)
def test_we_read_the_file_of_transformers_to_the_same_fields(
    fields: dict[str, Any], tmp_path: Path
) -> None:
    theirs = transformers.RegNetConfig(**fields)
    theirs.save_pretrained(tmp_path)
    assert not differing_fields(RegNetConfig.from_pretrained(tmp_path), theirs)


@pytest.mark.parametrize("fields", DOCUMENTED)
def test_our_file_has_the_keys_and_order_of_transformers(
    fields: dict[str, Any], tmp_path: Path
) -> None:
    RegNetConfig(**fields).save_pretrained(tmp_path / "ours")
    ours = (tmp_path / "ours" / "config.json").read_text("utf-8")
    transformers.RegNetConfig(**fields).save_pretrained(tmp_path / "theirs")
    theirs = json.loads((tmp_path / "theirs" / "config.json").read_text("utf-8"))
    del theirs["transformers_version"]
    if theirs.get("label2id", ...) is None:
        theirs["label2id"] = json.loads(ours)["label2id"]
    assert ours == json.dumps(theirs, indent=2, sort_keys=True, ensure_ascii=False) + "\n"


@pytest.mark.parametrize("fields", DOCUMENTED)
def test_a_file_reads_back_equal_and_is_written_the_same_again(
    fields: dict[str, Any], tmp_path: Path
) -> None:
    config = RegNetConfig(**fields)
    config.save_pretrained(tmp_path / "new" / "folder")
    path = tmp_path / "new" / "folder" / "config.json"
    written = path.read_bytes()
    again = RegNetConfig.from_pretrained(path.parent)
    assert again == config
    assert RegNetConfig.from_pretrained(path) == config
    again.save_pretrained(tmp_path)
    assert (tmp_path / "config.json").read_bytes() == written


@pytest.mark.parametrize("fields", [{"padding": "same"}, {"groups_width": [8, 4, 40, 48]}])
def test_a_file_that_transformers_must_not_take_states_every_stage_s_group_width(
    fields: dict[str, Any], tmp_path: Path
) -> None:
    """Which it takes for a number, whatever the model type says."""
    config = tiny(**fields)
    config.save_pretrained(tmp_path)
    stated = json.loads((tmp_path / "config.json").read_text("utf-8"))

    assert stated["groups_width"] == fields.get("groups_width", [TINY["groups_width"]] * 4)
    assert stated["model_type"] == "anynet"
    assert RegNetConfig.from_pretrained(tmp_path) == config


def test_a_file_of_2022_with_integer_keys_as_text_and_an_older_dtype_key_is_read() -> None:
    config = RegNetConfig.from_dict(
        {
            "model_type": "regnet",
            "torch_dtype": "float32",
            "transformers_version": "4.18.0.dev0",
            "id2label": {"1": "dog", "0": "cat"},
            "label2id": {"cat": 0, "dog": 1},
        }
    )
    assert config.id2label == {0: "cat", 1: "dog"}
    assert config.to_dict()["torch_dtype"] == "float32"


def test_overrides_win_over_the_file_and_a_number_of_labels_replaces_their_names(
    tmp_path: Path,
) -> None:
    tiny(id2label={0: "cat", 1: "dog"}).save_pretrained(tmp_path)
    config = RegNetConfig.from_pretrained(tmp_path, num_labels=5, output_hidden_states=True)
    assert config.num_labels == 5
    assert config.id2label[4] == "LABEL_4"
    assert config.label2id["LABEL_4"] == 4
    assert config.output_hidden_states
    assert config.hidden_sizes == TINY["hidden_sizes"]


def test_labels_follow_the_number_of_labels() -> None:
    config = tiny(id2label={0: "cat", 1: "dog"})
    assert config.label2id == {"cat": 0, "dog": 1}
    config.num_labels = 3
    assert config.id2label == {0: "LABEL_0", 1: "LABEL_1", 2: "LABEL_2"}
    assert config.label2id == {"LABEL_0": 0, "LABEL_1": 1, "LABEL_2": 2}


def test_a_number_of_labels_that_agrees_with_their_names_is_accepted() -> None:
    assert tiny(num_labels=1, id2label={0: "cat"}).num_labels == 1


UNBUILDABLE = [
    pytest.param({"depths": [1, 2, 1]}, "3 stages", id="fewer depths than widths"),
    pytest.param({"depths": [1, 2, 1, 1, 1]}, "5 stages", id="more depths than widths"),
    pytest.param({"depths": [], "hidden_sizes": []}, "per stage", id="no stages"),
    pytest.param({"depths": [1, 0, 1, 1]}, "depths", id="a stage without blocks"),
    pytest.param({"depths": [1, -2, 1, 1]}, "depths", id="negative depth"),
    pytest.param({"depths": [1, True, 1, 1]}, "depths", id="boolean depth"),
    pytest.param({"depths": [1, 2.0, 1, 1]}, "depths", id="float depth"),
    pytest.param({"depths": "1211"}, "depths", id="depths as text"),
    pytest.param({"depths": 4}, "depths", id="depths as a number"),
    pytest.param({"depths": None}, "depths", id="depths null"),
    pytest.param({"hidden_sizes": [16, 24, 0, 48]}, "hidden_sizes", id="zero width"),
    pytest.param({"hidden_sizes": [16, 24, "40", 48]}, "hidden_sizes", id="width as text"),
    *(
        pytest.param({name: value}, name, id=f"{name} {value!r}")
        for name in ("num_channels", "embedding_size", "groups_width")
        for value in (0, -8, True, 8.0, "8", None)
    ),
    pytest.param({"num_labels": -1}, "num_labels", id="negative labels"),
    pytest.param({"num_labels": True}, "num_labels", id="boolean labels"),
    pytest.param({"num_labels": 2.0}, "num_labels", id="float labels"),
    pytest.param({"layer_type": "z"}, "layer_type", id="unknown layer type"),
    pytest.param({"layer_type": None}, "layer_type", id="layer type null"),
    pytest.param({"hidden_act": "tanh"}, "hidden_act", id="unknown activation"),
    pytest.param({"hidden_act": "ReLU"}, "hidden_act", id="activation in capitals"),
    *(
        pytest.param({name: value}, name, id=f"{name} {value!r}")
        for name in ("downsample_in_first_stage", "output_hidden_states", "return_dict")
        for value in (1, "true", None)
    ),
    pytest.param({"problem_type": "detection"}, "problem_type", id="unknown problem type"),
    pytest.param({"groups_width": 12}, "groups_width=12", id="groups that do not divide"),
    pytest.param({"embedding_size": 2}, "squeeze", id="stem that squeezes to none"),
    pytest.param(
        {"hidden_sizes": [2, 8, 8, 8], "groups_width": 2}, "squeeze", id="stage squeezes to none"
    ),
    pytest.param({"id2label": {0: "a", 2: "c"}}, "gaps", id="labels with a gap"),
    pytest.param({"id2label": {1: "a", 2: "b"}}, "gaps", id="labels from one"),
    pytest.param({"id2label": {0: "a"}, "num_labels": 3}, "contradicts", id="contradiction"),
    pytest.param({"id2label": ["a", "b"]}, "id2label", id="labels as a list"),
    pytest.param({"id2label": {"cat": 0}}, "id2label", id="labels the wrong way round"),
]


@pytest.mark.parametrize(("fields", "message"), UNBUILDABLE)
def test_what_cannot_be_built_is_refused_when_the_configuration_is_made(
    fields: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        tiny(**fields)


def test_a_width_whose_squeeze_rounds_up_from_one_half_channel_is_accepted() -> None:
    assert tiny(embedding_size=3, hidden_sizes=[3, 8, 8, 8], groups_width=3, layer_type="x")
    assert tiny(embedding_size=3)


def test_a_narrow_x_network_needs_no_squeeze() -> None:
    assert tiny(embedding_size=1, layer_type="x").embedding_size == 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        pytest.param("{", "not valid JSON", id="truncated"),
        pytest.param("[]", "is not a JSON object", id="a list"),
        pytest.param('{"model_type": "resnet"}', "does not describe a RegNet", id="a ResNet"),
        pytest.param('{"depths": [1]}', "1 stages", id="unbuildable"),
        pytest.param("\udcff", "is no UTF-8 text", id="not UTF-8"),
    ],
)
def test_a_file_that_is_no_configuration_is_refused_by_name(
    text: str, message: str, tmp_path: Path
) -> None:
    path = tmp_path / "config.json"
    path.write_text(text, encoding="utf-8", errors="surrogateescape")
    with pytest.raises(ValueError, match=message) as error:
        RegNetConfig.from_pretrained(tmp_path)
    assert str(path) in str(error.value)


def test_a_missing_file_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"config\.json"):
        RegNetConfig.from_pretrained(tmp_path)


def test_configurations_are_equal_by_their_fields() -> None:
    assert tiny() == tiny()
    assert tiny() != tiny(layer_type="x")
    assert tiny() != TINY
