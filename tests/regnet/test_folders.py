"""Folders: what we write transformers loads, what it writes we load, bit for bit."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
import torch
import transformers

from regnet import RegNetConfig, RegNetForImageClassification, RegNetModel
from regnet.architecture import Architecture
from regnet.files.safetensors_file import INDEX_NAME, WEIGHTS_NAME, TensorSpec, write_file
from tests.oracles.transformers import classifier, identical, images, tiny, trunk, twin

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

BUILDERS = pytest.mark.parametrize("build", [trunk, classifier])
SIZES = pytest.mark.parametrize("size", [None, "40KB", "10KB", "5KB", "1KB"])
"""One file, two, several, tensors larger than a file, and nearly a file per tensor."""


def sharding(size: str | None) -> dict[str, str]:
    return {} if size is None else {"max_shard_size": size}


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def assert_nothing_amiss(info: dict[str, Any]) -> None:
    assert info
    assert not any(info.values()), info


@SIZES
@BUILDERS
def test_transformers_loads_our_folder_without_remark_and_computes_the_same(
    build: Callable[..., Any], size: str | None, tmp_path: Path
) -> None:
    ours = build(id2label={0: "Katze", 1: "犬", 2: "père"})
    ours.save_pretrained(tmp_path, **sharding(size))
    kind = getattr(transformers, type(ours).__name__)
    theirs, info = kind.from_pretrained(tmp_path, output_loading_info=True)
    assert_nothing_amiss(info)
    assert theirs.config.id2label == ours.config.id2label
    assert identical(theirs.state_dict(), ours.state_dict())
    # Both mapped: torch rounds differently for weights that are not aligned to 16 bytes.
    assert identical(type(ours).from_pretrained(tmp_path)(images()), theirs(images()))


@SIZES
@BUILDERS
def test_a_folder_of_transformers_loads_and_computes_the_same(
    build: Callable[..., Any], size: str | None, tmp_path: Path
) -> None:
    model = build()
    theirs = twin(model)
    theirs.save_pretrained(tmp_path, **sharding(size))
    ours = type(model).from_pretrained(tmp_path)
    assert not ours.training
    assert identical(ours.state_dict(), theirs.state_dict())
    assert identical(ours(images()), type(theirs).from_pretrained(tmp_path)(images()))


@SIZES
@BUILDERS
def test_our_files_equal_those_of_transformers(
    build: Callable[..., Any], size: str | None, tmp_path: Path
) -> None:
    ours = build()
    ours.save_pretrained(tmp_path / "ours", **sharding(size))
    twin(ours).save_pretrained(tmp_path / "theirs", **sharding(size))
    mine, other = contents(tmp_path / "ours"), contents(tmp_path / "theirs")
    assert list(mine) == list(other)
    assert (INDEX_NAME in mine) == (size is not None)
    for name in mine:
        if name.endswith(".json"):
            written, expected = json.loads(mine[name]), json.loads(other[name])
            expected.pop("transformers_version", None)
            assert json.dumps(written) == json.dumps(expected)
        else:
            assert mine[name] == other[name]


@SIZES
def test_two_saves_give_the_same_bytes(size: str | None, tmp_path: Path) -> None:
    model = classifier()
    for name in ("first", "second"):
        model.save_pretrained(tmp_path / name, **sharding(size))
    assert contents(tmp_path / "first") == contents(tmp_path / "second")


@SIZES
def test_a_save_replaces_the_weights_of_an_earlier_one_and_nothing_else(
    size: str | None, tmp_path: Path
) -> None:
    model = classifier()
    model.save_pretrained(tmp_path / "expected", **sharding(size))
    folder = tmp_path / "reused"
    folder.mkdir()
    kept = {"README.md": b"mine", "model_ema.safetensors": b"mine too"}
    for name, content in kept.items():
        (folder / name).write_bytes(content)
    for earlier in (None, "20KB", "3KB"):
        classifier(seed=1).save_pretrained(folder, **sharding(earlier))
        model.save_pretrained(folder, **sharding(size))
        assert contents(folder) == contents(tmp_path / "expected") | kept


def test_a_mapped_model_can_be_saved_over_its_own_files(tmp_path: Path) -> None:
    model = classifier()
    model.save_pretrained(tmp_path)
    before = contents(tmp_path)
    mapped = RegNetForImageClassification.from_pretrained(tmp_path)
    mapped.save_pretrained(tmp_path)
    assert contents(tmp_path) == before
    assert identical(mapped.state_dict(), model.state_dict())


def test_a_save_that_fails_leaves_the_folder_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    classifier().save_pretrained(tmp_path)
    before = contents(tmp_path)

    def full_disk(*_: Any) -> str:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("regnet.hub.write_file", full_disk)
    with pytest.raises(OSError, match="No space left"):
        classifier(seed=1).save_pretrained(tmp_path)
    assert contents(tmp_path) == before


def test_training_a_mapped_model_leaves_its_file_alone(tmp_path: Path) -> None:
    classifier().save_pretrained(tmp_path)
    before = contents(tmp_path)
    model = RegNetForImageClassification.from_pretrained(tmp_path).train()
    model(images(4), labels=torch.tensor([0, 1, 0, 1])).loss.backward()
    torch.optim.SGD(model.parameters(), lr=0.1).step()
    assert not identical(model.state_dict(), classifier().state_dict())
    assert contents(tmp_path) == before


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such modes")
@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o027, 0o640), (0o077, 0o600)])
def test_the_mode_of_every_file_follows_the_umask(umask: int, mode: int, tmp_path: Path) -> None:
    before = os.umask(umask)
    try:
        classifier().save_pretrained(tmp_path, max_shard_size="20KB")
    finally:
        os.umask(before)
    assert {path.stat().st_mode & 0o777 for path in tmp_path.iterdir()} == {mode}


@pytest.mark.parametrize("stored_by", ["us", "transformers"])
def test_a_trunk_loads_from_the_folder_of_a_classifier(stored_by: str, tmp_path: Path) -> None:
    model = classifier()
    (model if stored_by == "us" else twin(model)).save_pretrained(tmp_path)
    loaded = RegNetModel.from_pretrained(tmp_path)
    assert identical(loaded.state_dict(), model.regnet.state_dict())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_a_classifier_loads_from_the_folder_of_a_trunk_with_a_fresh_head(
    dtype: torch.dtype, tmp_path: Path
) -> None:
    model = trunk().to(dtype)
    model.save_pretrained(tmp_path)
    with pytest.warns(UserWarning, match=r"2 tensors \(classifier.*newly initialised"):
        loaded = RegNetForImageClassification.from_pretrained(tmp_path, num_labels=7)
    assert identical(loaded.regnet.state_dict(), model.state_dict())
    head = loaded.get_parameter("classifier.1.weight").detach()
    assert (head.shape, head.dtype) == ((7, 48), dtype)
    assert 0 < float(head.abs().max()) < 0.06  # standard deviation 0.01
    assert not loaded.training


def test_tensors_without_a_place_are_named_and_left_out(tmp_path: Path) -> None:
    classifier(depths=[1, 2, 2, 1]).save_pretrained(tmp_path)
    with pytest.warns(UserWarning, match=r"stages\.2\.layers\.1.*left out"):
        loaded = RegNetForImageClassification.from_pretrained(tmp_path, config=tiny())
    assert list(loaded.state_dict()) == list(classifier().state_dict())


def test_another_shape_is_refused_unless_mismatches_are_ignored(tmp_path: Path) -> None:
    model = classifier()
    model.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"classifier\.1\..*\(2,.*\(5,.*2 tensors"):
        RegNetForImageClassification.from_pretrained(tmp_path, num_labels=5)
    with pytest.warns(UserWarning, match="2 tensors"):
        loaded = RegNetForImageClassification.from_pretrained(
            tmp_path, num_labels=5, ignore_mismatched_sizes=True
        )
    assert loaded(images()).logits.shape == (2, 5)
    assert identical(loaded.regnet.state_dict(), model.regnet.state_dict())


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_weights_are_converted_to_a_given_dtype_and_counters_are_not(
    dtype: torch.dtype, tmp_path: Path
) -> None:
    model = classifier()
    model.save_pretrained(tmp_path)
    loaded = RegNetForImageClassification.from_pretrained(tmp_path, dtype=dtype)
    assert identical(loaded.state_dict(), model.to(dtype).state_dict())
    assert {tensor.dtype for tensor in loaded.buffers()} == {dtype, torch.int64}


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_weights_stay_as_stored_by_default(dtype: torch.dtype, tmp_path: Path) -> None:
    model = classifier().to(dtype)
    model.save_pretrained(tmp_path)
    loaded = RegNetForImageClassification.from_pretrained(tmp_path)
    assert identical(loaded.state_dict(), model.state_dict())
    theirs, info = transformers.RegNetForImageClassification.from_pretrained(
        tmp_path, output_loading_info=True
    )
    assert_nothing_amiss(info)
    assert identical(theirs.state_dict(), model.state_dict())


def save_in_three(folder: Path) -> None:
    classifier().save_pretrained(folder, max_shard_size="40KB")
    assert (folder / SHARD).exists()


def remove(path: Path) -> None:
    path.unlink()


def empty(path: Path) -> None:
    path.write_bytes(b"")


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-4])


def overwrite(path: Path) -> None:
    path.write_text("<!DOCTYPE html>")


def misname(path: Path) -> None:
    path.write_text(json.dumps({"weight_map": {"x": "../model.safetensors"}}))


SHARD = "model-00002-of-00003.safetensors"
DAMAGES = [
    ("config.json", remove, FileNotFoundError),
    ("config.json", overwrite, ValueError),
    (INDEX_NAME, remove, FileNotFoundError),
    (INDEX_NAME, overwrite, ValueError),
    (INDEX_NAME, empty, ValueError),
    (INDEX_NAME, misname, ValueError),
    (SHARD, remove, FileNotFoundError),
    (SHARD, empty, ValueError),
    (SHARD, cut, ValueError),
    (SHARD, overwrite, ValueError),
]


@pytest.mark.parametrize(
    ("name", "damage", "error"),
    DAMAGES,
    ids=[f"{damage.__name__} {name}" for name, damage, _ in DAMAGES],
)
def test_a_missing_or_damaged_file_is_named(
    name: str, damage: Callable[[Path], None], error: type[Exception], tmp_path: Path
) -> None:
    save_in_three(tmp_path)
    damage(tmp_path / name)
    with pytest.raises(error, match=name):
        RegNetForImageClassification.from_pretrained(tmp_path)


@pytest.mark.parametrize("value", [[], {}, {"weight_map": None}, {"weight_map": {"a": 1}}])
def test_an_index_of_another_structure_is_named(value: Any, tmp_path: Path) -> None:
    save_in_three(tmp_path)
    (tmp_path / INDEX_NAME).write_text(json.dumps(value))
    with pytest.raises(ValueError, match=INDEX_NAME):
        RegNetForImageClassification.from_pretrained(tmp_path)


def test_a_folder_without_weights_names_both_files(tmp_path: Path) -> None:
    tiny().save_pretrained(tmp_path)
    with pytest.raises(FileNotFoundError, match=rf"{WEIGHTS_NAME} nor {INDEX_NAME}"):
        RegNetModel.from_pretrained(tmp_path)


LOADING = """
import sys, torch
real = []
for name in ("kaiming_normal_", "kaiming_uniform_", "normal_", "uniform_"):
    def counted(tensor, *args, _name=name, _draw=getattr(torch.nn.init, name), **kwargs):
        real.extend([_name] * (tensor.device.type != "meta"))
        return _draw(tensor, *args, **kwargs)
    setattr(torch.nn.init, name, counted)
from regnet import RegNetForImageClassification

def resident():
    lines = open("/proc/self/status").read().splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith("VmRSS"))) * 1024

RegNetForImageClassification.from_pretrained(sys.argv[1])
assert not real, real
before = resident()
model = RegNetForImageClassification.from_pretrained(sys.argv[2])
print(resident() - before)
assert not real, real
RegNetForImageClassification(model.regnet.config.from_pretrained(sys.argv[1]))
assert real, "the counter does not count"
"""


@pytest.mark.skipif(not os.path.exists("/proc/self/status"), reason="reads Linux' /proc")  # noqa: PTH110
def test_weights_are_mapped_not_read_and_nothing_is_drawn(tmp_path: Path) -> None:
    classifier().save_pretrained(tmp_path / "tiny")
    config = tiny(layer_type="x", hidden_sizes=[2048, 4096], depths=[1, 1])
    specs = [
        TensorSpec(name, "int64" if name.endswith("num_batches_tracked") else "float32", shape)
        for name, shape in Architecture.of(config).shapes.items()
    ]
    folder = tmp_path / "large"
    config.save_pretrained(folder)
    write_file(folder / WEIGHTS_NAME, specs, lambda spec: [bytes(spec.nbytes)])
    size = (folder / WEIGHTS_NAME).stat().st_size
    command = [sys.executable, "-c", LOADING, str(tmp_path / "tiny"), str(folder)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    shutil.rmtree(folder)
    assert result.returncode == 0, result.stderr
    assert size > 150e6
    assert int(result.stdout) < size / 20


def test_a_path_may_be_text_and_a_configuration_may_be_given(tmp_path: Path) -> None:
    model = classifier()
    model.save_pretrained(str(tmp_path / "new" / "folder"))
    config = RegNetConfig.from_pretrained(tmp_path / "new" / "folder", output_hidden_states=True)
    loaded = RegNetForImageClassification.from_pretrained(str(tmp_path / "new" / "folder"), config)
    assert loaded.config is config
    assert len(loaded(images()).hidden_states) == 5


def test_a_size_that_is_none_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="is not a size"):
        trunk().save_pretrained(tmp_path / "new", max_shard_size="five")
    assert not (tmp_path / "new").exists()
