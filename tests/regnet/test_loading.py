"""Keywords of `from_pretrained` and `save_pretrained`: honoured as in transformers, or refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch
import transformers

import regnet
from regnet import RegNetConfig, RegNetForImageClassification, RegNetImageProcessor, RegNetModel
from regnet.files.loading import WITHOUT_EFFECT
from regnet.files.safetensors_file import INDEX_NAME, SHARD_PATTERN, WEIGHTS_NAME
from tests.oracles.transformers import classifier, identical, images, tiny, trunk

if TYPE_CHECKING:
    from collections.abc import Callable

HALVES = ["float16", "torch.float16", torch.float16]
SECRET = "hf_of_nobody"  # noqa: S105 -- no password
LOADERS = [RegNetForImageClassification, RegNetModel, RegNetConfig, RegNetImageProcessor]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    classifier().save_pretrained(tmp_path / "a")
    RegNetImageProcessor(size=64).save_pretrained(tmp_path / "a")
    return tmp_path / "a"


@pytest.mark.parametrize("name", ["dtype", "torch_dtype"])
@pytest.mark.parametrize("dtype", HALVES, ids=str)
def test_a_dtype_is_taken_by_either_name_and_saved_again(
    name: str, dtype: object, folder: Path, tmp_path: Path
) -> None:
    model: Any = RegNetForImageClassification.from_pretrained(folder, **{name: dtype})
    assert identical(model.state_dict(), classifier().half().state_dict())
    model.save_pretrained(tmp_path / "b")
    assert json.loads((tmp_path / "b" / "config.json").read_text())["dtype"] == "float16"


def test_auto_is_what_the_configuration_states_and_else_what_is_stored(folder: Path) -> None:
    fields = json.loads((folder / "config.json").read_text())
    for stated, expected in (
        ({"dtype": "float16"}, torch.float16),
        ({"torch_dtype": "bfloat16"}, torch.bfloat16),
        ({}, torch.float32),
    ):
        rest = {key: value for key, value in fields.items() if key != "dtype"}
        (folder / "config.json").write_text(json.dumps(rest | stated))
        for loader in (RegNetForImageClassification, transformers.RegNetForImageClassification):
            model: Any = loader.from_pretrained(folder, dtype="auto")
            assert next(model.parameters()).dtype == expected


@pytest.mark.parametrize("dtype", ["float17", "int8", torch.int64, 16])
def test_what_is_no_dtype_of_weights_is_refused(dtype: Any, folder: Path) -> None:
    with pytest.raises(
        ValueError, match=r"^dtype=.* is not \"auto\" or one of float32, float16, bf"
    ):
        RegNetForImageClassification.from_pretrained(folder, dtype=dtype)


@pytest.mark.parametrize("loader", LOADERS)
def test_a_subfolder_is_looked_into(loader: Any, folder: Path) -> None:
    loader.from_pretrained(folder.parent, subfolder="a")
    with pytest.raises(FileNotFoundError):
        loader.from_pretrained(folder.parent, subfolder="b")


def test_loading_info_is_transformers(folder: Path) -> None:
    wide = {"num_labels": 5, "ignore_mismatched_sizes": True, "output_loading_info": True}
    for keywords in ({"output_loading_info": True}, wide):
        kinds: tuple[Any, Any] = (
            RegNetForImageClassification,
            transformers.RegNetForImageClassification,
        )
        if "num_labels" in keywords:
            with pytest.warns(UserWarning, match="2 tensors"):
                _, ours = kinds[0].from_pretrained(folder, **keywords)
        else:
            _, ours = kinds[0].from_pretrained(folder, **keywords)
        _, theirs = kinds[1].from_pretrained(folder, **keywords)
        assert ours.keys() == theirs.keys()
        for key in ("missing_keys", "unexpected_keys"):
            assert set(ours[key]) == set(theirs[key])
        shapes = {(n, tuple(a), tuple(b)) for n, a, b in theirs["mismatched_keys"]}
        assert ours["mismatched_keys"] == shapes
        assert len(shapes) == (2 if "num_labels" in keywords else 0)


def test_missing_and_unexpected_names_are_in_the_loading_info(tmp_path: Path) -> None:
    trunk().save_pretrained(tmp_path / "trunk")
    with pytest.warns(UserWarning, match="newly initialised"):
        _, info = RegNetForImageClassification.from_pretrained(
            tmp_path / "trunk", output_loading_info=True
        )
    assert info["missing_keys"] == {"classifier.1.weight", "classifier.1.bias"}
    classifier().save_pretrained(tmp_path / "whole")
    _, info = RegNetModel.from_pretrained(tmp_path / "whole", output_loading_info=True)
    assert info["unexpected_keys"] == {"classifier.1.weight", "classifier.1.bias"}


@pytest.mark.parametrize("name", sorted(WITHOUT_EFFECT))
@pytest.mark.parametrize("loader", LOADERS)
def test_keywords_of_fetching_change_nothing_and_are_not_saved(
    loader: Any, name: str, folder: Path, tmp_path: Path
) -> None:
    plain = loader.from_pretrained(folder)
    loaded = loader.from_pretrained(folder, **{name: SECRET})
    for saved, path in ((plain, tmp_path / "plain"), (loaded, tmp_path / "b")):
        saved.save_pretrained(path)
    files = {path.name: path.read_bytes() for path in (tmp_path / "b").iterdir()}
    assert files == {path.name: path.read_bytes() for path in (tmp_path / "plain").iterdir()}
    assert not any(SECRET.encode() in content for content in files.values())
    assert not hasattr(getattr(loaded, "config", loaded), name)


@pytest.mark.parametrize(
    "keyword",
    [
        {"device_map": "cuda"},
        {"attn_implementation": "sdpa"},
        {"use_safetensors": False},
        {"variant": "fp16"},
        {"quantization_config": {"load_in_8bit": True}},
        {"state_dict": {}},
        {"return_unused_kwargs": True},
    ],
    ids=str,
)
@pytest.mark.parametrize("loader", LOADERS)
def test_what_cannot_be_honoured_is_refused_by_name(
    loader: Any, keyword: dict[str, Any], folder: Path
) -> None:
    (name,) = keyword
    with pytest.raises(TypeError, match=rf"^{name}=.* cannot be honoured here; .*\.$"):
        loader.from_pretrained(folder, **keyword)
    harmless = {"use_safetensors": True, "device_map": "cpu", "attn_implementation": "eager"}
    loader.from_pretrained(folder, **{name: harmless.get(name)})


@pytest.mark.parametrize(("name", "meant"), [("num_label", "num_labels"), ("tokn", "token")])
def test_a_typo_is_refused_and_what_may_be_meant_is_named(
    name: str, meant: str, folder: Path
) -> None:
    for loader in (RegNetForImageClassification, RegNetConfig):
        with pytest.raises(TypeError, match=rf"^{name} is no keyword .*; {meant} may be meant\.$"):
            loader.from_pretrained(folder, **{name: 5})
    with pytest.raises(TypeError, match=r"^crop_pc is no keyword"):
        RegNetImageProcessor.from_pretrained(folder, crop_pc=1.0)


def test_a_field_that_the_file_has_can_be_overridden(folder: Path) -> None:
    fields = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(fields | {"project": "x"}))
    assert vars(RegNetConfig.from_pretrained(folder, project="y"))["project"] == "y"


def test_a_configuration_and_its_fields_are_refused_together(folder: Path) -> None:
    with pytest.raises(TypeError, match=r"^num_labels cannot be given beside a configuration"):
        RegNetForImageClassification.from_pretrained(folder, tiny(), num_labels=7)
    loaded = RegNetForImageClassification.from_pretrained(folder, folder / "config.json")
    assert identical(loaded.state_dict(), classifier().state_dict())


def test_the_image_processor_is_carried_along_and_never_replaced(
    folder: Path, tmp_path: Path
) -> None:
    model = RegNetForImageClassification.from_pretrained(folder)
    model.save_pretrained(tmp_path / "b")
    assert RegNetImageProcessor.from_pretrained(tmp_path / "b").size == {"shortest_edge": 64}
    RegNetImageProcessor(size=96).save_pretrained(tmp_path / "c")
    model.save_pretrained(tmp_path / "c")
    assert RegNetImageProcessor.from_pretrained(tmp_path / "c").size == {"shortest_edge": 96}


def test_saves_return_what_transformers_returns(folder: Path, tmp_path: Path) -> None:
    pairs: list[tuple[Any, Any]] = [
        (RegNetConfig, transformers.RegNetConfig),
        (RegNetForImageClassification, transformers.RegNetForImageClassification),
    ]
    for ours, theirs in pairs:
        expected = theirs.from_pretrained(folder).save_pretrained(tmp_path / "theirs")
        assert ours.from_pretrained(folder).save_pretrained(tmp_path / "ours") == expected
    written = RegNetImageProcessor().save_pretrained(tmp_path)
    assert written == [str(tmp_path / "preprocessor_config.json")]


def test_keywords_of_saving_are_honoured_or_refused(tmp_path: Path) -> None:
    model = classifier()
    model.save_pretrained(tmp_path / "nothing", is_main_process=False)
    assert not (tmp_path / "nothing").exists()
    for keyword in ({"safe_serialization": False}, {"push_to_hub": True}, {"variant": "fp16"}):
        with pytest.raises(TypeError, match="cannot be honoured here"):
            model.save_pretrained(tmp_path / "nothing", **keyword)
    assert not (tmp_path / "nothing").exists()
    other = classifier(seed=1).state_dict()
    model.save_pretrained(tmp_path / "b", state_dict=other, token=SECRET, safe_serialization=True)
    loaded = RegNetForImageClassification.from_pretrained(tmp_path / "b")
    assert identical(loaded.state_dict(), other)
    with pytest.raises(ValueError, match=r"^state_dict is not of this network: "):
        model.save_pretrained(tmp_path / "b", state_dict={"a": torch.zeros(1)})


SIZES = [(None, None), ("40KB", "40KB"), (None, "40KB"), ("40KB", None), ("20KB", "40KB")]


@pytest.mark.parametrize("before", [True, False], ids=["before it is done", "after"])
@pytest.mark.parametrize("sizes", SIZES, ids=str)
def test_ctrl_c_between_the_files_of_a_save_loses_neither_network(
    sizes: tuple[str | None, str | None],
    before: bool,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for stopped_at in range(20):
        folder = tmp_path / str(stopped_at)
        classifier().save_pretrained(folder, max_shard_size=sizes[0])
        new, calls = classifier(seed=1), [0]
        with monkeypatch.context() as patch:
            for name in ("replace", "unlink"):
                patch.setattr(
                    Path, name, interrupted(getattr(Path, name), calls, stopped_at, before)
                )
            try:
                new.save_pretrained(folder, max_shard_size=sizes[1])
            except KeyboardInterrupt:
                pass
            else:
                assert stopped_at > 1
                break
        loaded = RegNetForImageClassification.from_pretrained(folder)
        assert identical(loaded.state_dict(), new.state_dict())
        names = {path.name for path in folder.iterdir()} - {"config.json"}
        shards = {path.name for path in folder.glob(SHARD_PATTERN)}
        assert names == ({WEIGHTS_NAME} if sizes[1] is None else {INDEX_NAME, *shards})
    else:
        pytest.fail("the save never came to its end")


def interrupted(
    done: Callable[..., Any], calls: list[int], stopped_at: int, before: bool
) -> Callable[..., Any]:
    """The call, with Ctrl-C at one of its turns."""

    def call(*arguments: Any, **keywords: Any) -> Any:
        turn, calls[0] = calls[0], calls[0] + 1
        if turn == stopped_at and before:
            raise KeyboardInterrupt
        result = done(*arguments, **keywords)
        if turn == stopped_at:
            raise KeyboardInterrupt
        return result

    return call


def test_an_output_and_the_package_behave_like_what_they_are() -> None:
    output = classifier()(images())
    assert "logits" in output
    assert 99 not in output
    assert "loss" not in output
    assert set(regnet.__all__) <= set(dir(regnet))


def test_the_entry_points_of_torch_hub_hand_keywords_over(folder: Path) -> None:
    here = str(Path(regnet.__file__).parents[1])

    def load(entry: str, **keywords: Any) -> Any:
        return torch.hub.load(here, entry, str(folder), source="local", **keywords)

    for entry in ("regnet", "trunk"):
        assert next(load(entry, dtype="float16").parameters()).dtype == torch.float16
    assert load("processor", size=96).size == {"shortest_edge": 96}
    for entry in ("regnet", "trunk", "processor"):
        with pytest.raises(TypeError, match="typo is no keyword"):
            load(entry, typo=1)
