"""Folders that the real transformers saves, in the layouts of versions 4 and 5."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from tests.converters.families.conversion import (
    LIMIT,
    converted,
    difference,
    noise,
    picture,
    refusal,
    source_of,
    theirs,
)
from tests.oracles.transformers import classifier, trunk, twin

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

LABELS = {index: f"class {index}" for index in range(10)}
OLD_PROCESSOR = {
    "crop_pct": 0.95,
    "do_normalize": True,
    "do_resize": True,
    "feature_extractor_type": "ConvNextFeatureExtractor",
    "image_mean": [0.5, 0.4, 0.3],
    "image_std": [0.2, 0.2, 0.2],
    "resample": 2,
    "size": 192,
}
"""As the files of 2022 are: a number as size, the extractor's name."""


def network(*, headless: bool = False, **fields: Any) -> Any:
    """A small network of the real transformers with weights like a trained one's."""
    return twin(trunk(**fields) if headless else classifier(**{"num_labels": 10} | fields))


def as_bin(folder: Path) -> None:
    """Turn ``model.safetensors`` into the layout of version 4."""
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()


def as_shards(folder: Path, ending: str) -> None:
    """Turn ``model.safetensors`` into two shards and their index."""
    tensors = load_file(folder / "model.safetensors")
    stem = {"safetensors": "model", "bin": "pytorch_model"}[ending]
    halves = [dict(list(tensors.items())[part::2]) for part in range(2)]
    names = [f"{stem}-0000{part + 1}-of-00002.{ending}" for part in range(2)]
    for half, name in zip(halves, names, strict=True):
        if ending == "bin":
            torch.save(half, folder / name)
        else:
            save_file(half, folder / name)
    weight_map = {key: name for half, name in zip(halves, names, strict=True) for key in half}
    index = {"metadata": {"total_size": 1}, "weight_map": weight_map}
    (folder / f"{stem}.{ending}.index.json").write_text(json.dumps(index))
    (folder / "model.safetensors").unlink()


LAYOUTS: dict[str, Callable[[Path], None]] = {
    "safetensors": lambda _: None,
    "bin": as_bin,
    "sharded safetensors": lambda folder: as_shards(folder, "safetensors"),
    "sharded bin": lambda folder: as_shards(folder, "bin"),
}


@pytest.mark.parametrize("layer_type", ["x", "y"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_folder_computes_what_transformers_computes(
    tmp_path: Path, layout: str, layer_type: str
) -> None:
    model = network(layer_type=layer_type)
    model.save_pretrained(tmp_path / "net")
    LAYOUTS[layout](tmp_path / "net")

    ours = converted(tmp_path / "net")

    assert ours.framework == "transformers"
    assert ours.decision("evaluation transform")[0] == "short side to 256, centre crop 224, bicubic"
    assert ours.decision("weights") == (
        "raw",
        "the file holds one set of weights, at the top, with names that begin with regnet.",
    )
    assert ours.decision("channel order")[1] == "transformers' own"
    assert difference(ours.logits(noise()), theirs(model, noise())) < LIMIT


def test_what_transformers_itself_shards_is_read(tmp_path: Path) -> None:
    model = network()
    model.save_pretrained(tmp_path / "net", max_shard_size="20KB")
    assert len(list((tmp_path / "net").glob("model-*.safetensors"))) > 1

    ours = converted(tmp_path / "net")

    assert difference(ours.logits(noise()), theirs(model, noise())) < LIMIT


def write(folder: Path, name: str, keys: dict[str, Any]) -> None:
    (folder / name).write_text(json.dumps(keys))


def edit_config(folder: Path, **changes: Any) -> None:
    path = folder / "config.json"
    write(folder, "config.json", {**json.loads(path.read_text()), **changes})


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        (OLD_PROCESSOR, "short side to 202, centre crop 192, bilinear"),
        (OLD_PROCESSOR | {"size": 384}, "squashed to 384 x 384, bilinear"),
        (
            {
                "image_processor_type": "ConvNextImageProcessor",
                "size": {"shortest_edge": 224},
                "crop_pct": 0.875,
                "resample": 3,
                "image_mean": [0.5, 0.5, 0.5],
                "image_std": [0.25, 0.25, 0.25],
                "do_rescale": True,
                "rescale_factor": 1 / 255,
            },
            "short side to 256, centre crop 224, bicubic",
        ),
    ],
    ids=["2022", "2022 at 384", "today"],
)
def test_the_folders_own_processor_is_taken_over(
    tmp_path: Path, keys: dict[str, Any], words: str
) -> None:
    model = network()
    model.save_pretrained(tmp_path / "net")
    write(tmp_path / "net", "preprocessor_config.json", keys)
    processor = transformers.ConvNextImageProcessorPil.from_pretrained(tmp_path / "net")
    odd = picture(600, 500)  # transformers crops it one pixel before torchvision does
    pixels = processor(odd, return_tensors="pt")["pixel_values"]

    ours = converted(tmp_path / "net")

    assert ours.decision("evaluation transform") == (words, "the folder's preprocessor_config.json")
    assert difference(ours.logits_of_picture(odd), theirs(model, pixels)) < LIMIT


def test_a_processor_of_another_kind_is_refused_with_a_way_out(tmp_path: Path) -> None:
    network().save_pretrained(tmp_path / "net")
    keys = {"image_processor_type": "ViTImageProcessor", "size": 224}
    write(tmp_path / "net", "preprocessor_config.json", keys)

    message = refusal(lambda: source_of(tmp_path / "net"), "net")

    assert "ViTImageProcessor is not the processor of a RegNet" in message
    assert "ConvNextImageProcessor" in message


def test_labels_and_unknown_fields_are_kept_and_where_it_lay_is_not(tmp_path: Path) -> None:
    network(id2label=LABELS, num_labels=None).save_pretrained(tmp_path / "net")
    edit_config(
        tmp_path / "net",
        trained_by="somebody",
        _name_or_path="/secret",
        torch_dtype="float16",
    )

    ours = converted(tmp_path / "net")

    written = json.loads((ours.out / "config.json").read_text())
    assert ours.config.id2label == LABELS
    assert written["trained_by"] == "somebody"
    assert written["dtype"] == "float32"
    assert not {"_name_or_path", "torch_dtype"} & set(written)


def test_a_headless_folder_is_a_trunk_without_labels(tmp_path: Path) -> None:
    model = network(headless=True)
    model.save_pretrained(tmp_path / "net")
    edit_config(tmp_path / "net", id2label=LABELS, label2id={v: k for k, v in LABELS.items()})

    ours = converted(tmp_path / "net")

    assert ours.config.architectures == ["RegNetModel"]  # type: ignore[attr-defined]
    assert ours.config.id2label == {0: "LABEL_0", 1: "LABEL_1"}
    with torch.inference_mode():
        expected = model(noise()).pooler_output
        assert difference(ours.trunk(noise()).pooler_output, expected) < LIMIT


def test_a_first_stage_without_stride_is_kept_and_said(tmp_path: Path) -> None:
    model = network(downsample_in_first_stage=False)
    model.save_pretrained(tmp_path / "net")

    ours = converted(tmp_path / "net")

    value, reason = ours.decision("stride of the first stage")
    assert value == "1"
    assert "4.x computed with stride 2" in reason
    assert ours.config.downsample_in_first_stage is False
    assert difference(ours.logits(noise()), theirs(model, noise())) < LIMIT


def test_a_bare_file_whose_first_block_has_no_projection_is_of_stride_1(tmp_path: Path) -> None:
    sizes = {"embedding_size": 16, "hidden_sizes": [16, 24], "depths": [2, 1], "groups_width": 8}
    model = network(downsample_in_first_stage=False, **sizes)
    torch.save(model.state_dict(), tmp_path / "net.bin")

    ours = converted(tmp_path / "net.bin")

    assert ours.decision("first stage")[0] == "stride 1"
    assert ours.config.downsample_in_first_stage is False
    assert difference(ours.logits(noise()), theirs(model, noise())) < LIMIT


def test_a_group_width_wider_than_every_stage_is_kept(tmp_path: Path) -> None:
    model = network(groups_width=640)
    model.save_pretrained(tmp_path / "net")

    ours = converted(tmp_path / "net")

    assert ours.config.groups_width == 640
    assert difference(ours.logits(noise()), theirs(model, noise())) < LIMIT


@pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin"])
def test_the_weights_file_alone_says_all_but_the_labels(tmp_path: Path, name: str) -> None:
    model = network()
    model.save_pretrained(tmp_path / "net")
    if name.endswith("bin"):
        as_bin(tmp_path / "net")

    ours = converted((tmp_path / "net" / name).rename(tmp_path / "weights"))

    assert ours.framework == "transformers"
    assert difference(ours.logits(noise()), theirs(model, noise())) < LIMIT


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"depths": [1, 1, 1, 1]}, "says depths [1, 1, 1, 1] where the weights have [1, 2, 1, 1]"),
        ({"layer_type": "x"}, "says layer_type x where the weights have y"),
        ({"groups_width": 4}, "says groups_width 4 where the weights have 8"),
        ({"num_channels": 4}, "says num_channels 4 where the weights have 3"),
        ({"id2label": {"0": "one"}}, "says num_labels 1 where the weights have 10"),
        ({"model_type": "resnet"}, "is that of a resnet"),
        ({"depths": "many"}, "cannot be used: depths='many'"),
        ({"hidden_act": "nope"}, "cannot be used: hidden_act='nope'"),
    ],
)
def test_a_configuration_of_another_network_is_refused(
    tmp_path: Path, changes: dict[str, Any], words: str
) -> None:
    network().save_pretrained(tmp_path / "net")
    edit_config(tmp_path / "net", **changes)

    message = refusal(lambda: source_of(tmp_path / "net"), "net")

    assert words in message
