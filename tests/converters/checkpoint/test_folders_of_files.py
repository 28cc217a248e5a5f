"""A folder is more than one file: what lies beside weights, and which files are weights."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING, Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import ConvNextImageProcessor, RegNetForImageClassification

from converters.cli.options import read_labels
from converters.errors import InputError
from converters.folder.folder import ConvertedFolder
from regnet import RegNetConfig, RegNetImageProcessor
from regnet import RegNetForImageClassification as OurClassifier
from tests.converters.families.conversion import refusal, source_of
from tests.converters.families.test_transformers import LAYOUTS, as_shards, network

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

NAMES = [f"name {number}" for number in range(10)]
INDEX = "model.safetensors.index.json"


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    """A folder of transformers whose configuration tells what no tensor does."""
    folder = tmp_path / "net"
    theirs: Any = network(
        layer_type="x",
        hidden_act="silu",
        id2label=dict(enumerate(NAMES)),
        label2id={name: number for number, name in enumerate(NAMES)},
    )
    theirs.save_pretrained(folder)
    ConvNextImageProcessor(size={"shortest_edge": 192}, crop_pct=0.8).save_pretrained(folder)
    return folder


@pytest.fixture
def shards(saved: Path) -> Path:
    as_shards(saved, "safetensors")
    return saved


# A file that is named inside its folder.


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_file_of_a_folder_is_what_its_folder_says(saved: Path, layout: str) -> None:
    LAYOUTS[layout](saved)
    whole = source_of(saved)
    others = ("config.json", "preprocessor_config.json")
    files = [path for path in saved.iterdir() if path.name not in others]

    for file in files:
        source = source_of(file)
        assert source.config.to_dict() == whole.config.to_dict()
        assert source.config.hidden_act == "silu"
        assert source.config.id2label[3] == "name 3"
        assert source.preprocessor_fields() == whole.preprocessor_fields()
        assert source.decisions == whole.decisions or layout in {"safetensors", "bin"}
    assert len(files) == (3 if layout.startswith("sharded") else 1)


@pytest.mark.parametrize("name", ["best.safetensors", "model.fp16.safetensors"])
def test_other_names_too_where_no_other_weights_lie_beside(saved: Path, name: str) -> None:
    (saved / "model.safetensors").rename(saved / name)

    assert source_of(saved / name).config.hidden_act == "silu"


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", ["config.json", "preprocessor_config.json"])
def test_a_configuration_that_is_named_stands_for_its_folder(
    saved: Path, layout: str, name: str
) -> None:
    LAYOUTS[layout](saved)
    whole = source_of(saved)

    source = source_of(saved / name)

    assert source.config.to_dict() == whole.config.to_dict()
    assert source.decisions == whole.decisions


def test_a_configuration_without_weights_is_told_what_it_lacks(saved: Path) -> None:
    (saved / "model.safetensors").unlink()

    message = refusal(lambda: source_of(saved / "config.json"), str(saved))

    assert "holds none of model.safetensors" in message


# Variants.


@pytest.mark.parametrize("ending", ["safetensors", "bin"])
@pytest.mark.parametrize("sharded", [False, True])
def test_the_only_variant_is_read_like_the_folder(saved: Path, ending: str, sharded: bool) -> None:
    whole = source_of(saved)
    theirs = RegNetForImageClassification.from_pretrained(saved)
    (saved / "model.safetensors").unlink()
    size = "100kB" if sharded else "1GB"
    if ending == "safetensors":
        theirs.save_pretrained(saved, variant="fp16", max_shard_size=size)
    else:
        as_variant_bin(saved, theirs.state_dict(), sharded=sharded)
    files = [path for path in saved.iterdir() if "fp16" in path.name]

    assert (len(files) > 1) == sharded
    for named in (saved, saved / "config.json", *files):
        source = source_of(named)
        assert source.config.to_dict() == whole.config.to_dict()
        assert source.preprocessor_fields() == whole.preprocessor_fields()
        assert source.tensors.keys() == whole.tensors.keys()


def as_variant_bin(folder: Path, state: dict[str, Any], *, sharded: bool) -> None:
    """Save what transformers 4 saved without safetensors."""
    if not sharded:
        torch.save(state, folder / "pytorch_model.fp16.bin")
        return
    names = [f"pytorch_model.fp16-0000{part}-of-00002.bin" for part in (1, 2)]
    halves = [dict(list(state.items())[part::2]) for part in range(2)]
    for half, name in zip(halves, names, strict=True):
        torch.save(half, folder / name)
    weight_map = {key: name for half, name in zip(halves, names, strict=True) for key in half}
    index = json.dumps({"metadata": {"total_size": 1}, "weight_map": weight_map})
    (folder / "pytorch_model.bin.index.fp16.json").write_text(index)


def test_of_several_variants_one_has_to_be_named(saved: Path) -> None:
    shutil.copy(saved / "model.safetensors", saved / "model.fp16.safetensors")
    assert source_of(saved).config.hidden_act == "silu"
    (saved / "model.safetensors").rename(saved / "model.bf16.safetensors")

    message = refusal(lambda: source_of(saved), str(saved))

    assert "model.bf16.safetensors and model.fp16.safetensors" in message
    assert source_of(saved / "model.fp16.safetensors").config.hidden_act == "silu"


def test_a_folder_of_deepspeed_is_named_so(tmp_path: Path) -> None:
    (tmp_path / "latest").write_text("global_step10")

    assert "zero_to_fp32.py" in refusal(lambda: source_of(tmp_path), str(tmp_path))


def test_a_configuration_beside_several_files_is_not_taken_and_said_so(saved: Path) -> None:
    shutil.copy(saved / "model.safetensors", saved / "other.safetensors")

    source = source_of(saved / "other.safetensors")

    assert source.config.hidden_act == "relu"
    assert "does not say of which" in source.skipped["config.json"]


def test_a_configuration_of_something_else_is_no_ones(saved: Path) -> None:
    (saved / "model.safetensors").rename(saved / "net.safetensors")
    (saved / "config.json").write_text('{"model_type": "bert", "hidden_act": "gelu"}')

    source = source_of(saved / "net.safetensors")

    assert source.config.hidden_act == "relu"
    assert not source.skipped


def test_of_weights_in_two_forms_those_are_read_that_transformers_reads(shards: Path) -> None:
    (shards / "pytorch_model.bin").write_bytes(b"another network's")

    RegNetForImageClassification.from_pretrained(shards)
    assert source_of(shards).config.hidden_act == "silu"


# The image processor's two places.


@pytest.mark.parametrize("others", [True, False])
def test_the_processor_is_found_where_transformers_finds_it(saved: Path, others: bool) -> None:
    stated = json.loads((saved / "preprocessor_config.json").read_text())
    nested = stated | {"size": {"shortest_edge": 288}}
    (saved / "processor_config.json").write_text(json.dumps({"image_processor": nested}))
    if not others:
        (saved / "preprocessor_config.json").unlink()
    theirs = ConvNextImageProcessor.from_pretrained(saved)

    assert dict(theirs.size)["shortest_edge"] == 288
    assert RegNetImageProcessor.from_pretrained(saved).size == {"shortest_edge": 288}
    assert ConvertedFolder(saved).image_size == 288
    source = source_of(saved)
    assert source.preprocessor_fields()["size"] == {"shortest_edge": 288}
    assert any("processor_config.json" in decision.reason for decision in source.decisions)


def test_another_kind_of_processor_beside_it_changes_nothing(saved: Path) -> None:
    (saved / "processor_config.json").write_text('{"processor_class": "Other"}')

    assert RegNetImageProcessor.from_pretrained(saved).size == {"shortest_edge": 192}


# Which files are weights.


def stray(folder: Path) -> Path:
    """A shard of another split, with other weights."""
    path = folder / "model-99999-of-99999.safetensors"
    shard = load_file(folder / "model-00001-of-00002.safetensors")
    save_file({name: tensor + 1 for name, tensor in shard.items()}, path)
    return path


def test_a_shard_that_no_index_names_is_never_read(shards: Path) -> None:
    stray(shards)
    expected = RegNetForImageClassification.from_pretrained(shards).state_dict()

    loaded = OurClassifier.from_pretrained(shards).state_dict()
    source = source_of(shards)

    assert all((loaded[name] == tensor).all() for name, tensor in expected.items())
    assert not any("99999" in str(t.storage.path) for t in source.tensors.values())
    assert "not by the index" in source.skipped["model-99999-of-99999.safetensors"]
    with pytest.raises(InputError, match=r"holds model-99999-of-99999\.safetensors.*move it"):
        ConvertedFolder(shards).tensors  # noqa: B018


def swap(placed: dict[str, str]) -> None:
    first, *_, last = placed
    placed[first], placed[last] = placed[last], placed[first]


CHANGES: dict[str, Callable[[dict[str, str]], Any]] = {
    "two exchanged": swap,
    "one lacking": lambda placed: placed.pop(next(iter(placed))),
    "one invented": lambda placed: placed.update(more=next(iter(placed.values()))),
}


@pytest.mark.parametrize("change", CHANGES)
def test_an_index_that_is_not_its_shards_is_refused_by_all(shards: Path, change: str) -> None:
    index = json.loads((shards / INDEX).read_text())
    placed = dict(sorted(index["weight_map"].items(), key=lambda pair: pair[1]))
    CHANGES[change](placed)
    (shards / INDEX).write_text(json.dumps(index | {"weight_map": placed}))

    assert "not of one download" in refusal(lambda: source_of(shards), INDEX)
    with pytest.raises(InputError, match="not of one download"):
        ConvertedFolder(shards).tensors  # noqa: B018
    with pytest.raises(ValueError, match="not of one download"):
        OurClassifier.from_pretrained(shards)


# Byte order marks.


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
def test_a_byte_order_mark_is_no_part_of_a_text(saved: Path, encoding: str) -> None:
    as_shards(saved, "safetensors")
    for name in ("config.json", "preprocessor_config.json", INDEX):
        (saved / name).write_text((saved / name).read_text("utf-8"), encoding)
    labels = saved / "labels.txt"
    labels.write_text("\r\n".join(NAMES) + "\r\n", encoding)
    listed = saved / "labels.json"
    listed.write_text(json.dumps(NAMES), encoding)

    assert read_labels(labels) == read_labels(listed) == NAMES
    assert RegNetConfig.from_pretrained(saved).hidden_act == "silu"
    assert RegNetImageProcessor.from_pretrained(saved).crop_pct == 0.8
    assert source_of(saved).config.id2label[0] == "name 0"
    assert OurClassifier.from_pretrained(saved).config.num_labels == 10
