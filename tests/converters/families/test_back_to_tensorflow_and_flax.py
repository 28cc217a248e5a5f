"""Back to transformers' files of TensorFlow and Flax: what is written, and what they cannot be."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import h5py
import numpy as np
import pytest
import torch

from converters.checkpoint import msgpack_writer
from converters.errors import InputError, StorageError
from converters.jobs.conversion import ConvertOptions
from converters.jobs.writeback import plan_write_back, write_back
from regnet import RegNetConfig, RegNetForImageClassification, RegNetImageProcessor
from tests.converters.families.conversion import converted, source_of
from tests.converters.families.test_tensorflow_and_flax import (
    EACH,
    FILES,
    NAMES,
    as_trunk,
    folder_of,
)
from tests.frameworks.environments import RECORDED
from tests.frameworks.test_recorded import LIMIT, difference, logits_of, recorded_logits
from tests.oracles.statistics import randomise

if TYPE_CHECKING:
    from regnet.files.dtypes import DType


@pytest.mark.parametrize("network", ["y", "odd"])
def test_flaxs_file_is_written_back_byte_by_byte(network: str, tmp_path: Path) -> None:
    file = RECORDED / "flax" / f"{network}.msgpack"

    write_back(converted(Path(shutil.copy(file, tmp_path))).out, tmp_path / "back", "flax")

    assert (tmp_path / "back" / "flax_model.msgpack").read_bytes() == file.read_bytes()


def test_flaxs_large_arrays_are_cut_as_flax_cuts_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(msgpack_writer, "MAX_CHUNK", 1000)

    write_back(converted(Path(shutil.copy(FILES["flax"], tmp_path))).out, tmp_path / "back", "flax")

    # Of what Flax 0.8.5 makes of the recorded file where its MAX_CHUNK_SIZE is 1000.
    expected = "66b4874e8117c59db67a3da87673351bb48cdc12406389d156d12d0a25624e61"
    back = tmp_path / "back" / "flax_model.msgpack"
    assert hashlib.sha256(back.read_bytes()).hexdigest() == expected
    assert difference(logits_of(converted(back).out), recorded_logits("flax", "y")) < LIMIT


def seen(path: Path) -> tuple[dict[str, list[str]], dict[str, np.ndarray]]:
    """All lists and all tensors of a file of Keras."""
    lists: dict[str, list[str]] = {}
    tensors: dict[str, np.ndarray] = {}

    def visit(name: str, member: h5py.Group | h5py.Dataset) -> None:
        for key, value in member.attrs.items():
            listed = [value] if isinstance(value, str) else value
            lists[f"{name} {key}"] = [n if isinstance(n, str) else n.decode() for n in listed]
        if isinstance(member, h5py.Dataset):
            tensors[name] = member[...]

    with h5py.File(path) as file:
        visit("", file)
        file.visititems(visit)
    return lists, tensors


@pytest.mark.parametrize("network", ["x", "odd"])
def test_tensorflows_file_is_written_back_as_it_was(network: str, tmp_path: Path) -> None:
    file = RECORDED / "tensorflow" / f"{network}.h5"

    write_back(converted(Path(shutil.copy(file, tmp_path))).out, tmp_path / "back", "tensorflow")

    (lists, tensors), (expected, real) = seen(tmp_path / "back" / "tf_model.h5"), seen(file)
    assert lists == expected
    assert [*tensors] == [*real]
    assert all(np.array_equal(tensor, real[name]) for name, tensor in tensors.items())


@EACH
def test_a_folder_is_written_with_what_lies_beside_the_weights(
    framework: str, tmp_path: Path
) -> None:
    done = converted(folder_of(framework, tmp_path / "theirs"))

    settings = json.loads((done.out / "preprocessor_config.json").read_text())
    settings["do_resize"] = False  # which no other file can say
    (done.out / "preprocessor_config.json").write_text(json.dumps(settings))

    written = write_back(done.out, tmp_path / "back", framework)

    names = {"config.json", "preprocessor_config.json", NAMES[framework]}
    assert {path.name for path in written.path.iterdir()} == names
    assert written.unsaid == ""
    assert RegNetConfig.from_pretrained(written.path).to_dict() == done.config.to_dict()
    assert json.loads((written.path / "preprocessor_config.json").read_text()) == settings


@EACH
def test_a_trunk_is_written_as_the_class_without_a_head_calls_it(
    framework: str, tmp_path: Path
) -> None:
    path = folder_of(framework, tmp_path / "theirs") / NAMES[framework]
    as_trunk(framework, path)

    written = write_back(converted(tmp_path / "theirs").out, tmp_path / "back", framework)

    back = written.path / NAMES[framework]
    if framework == "flax":
        assert back.read_bytes() == path.read_bytes()
    else:
        assert seen(back)[0]["regnet weight_names"] == seen(path)[0]["regnet weight_names"]


def small_folder(folder: Path, dtype: DType = "float32", **fields: Any) -> Path:
    """What a conversion would leave, without what is not looked at here."""
    config = RegNetConfig(
        embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], groups_width=8, **fields
    )
    model = randomise(RegNetForImageClassification(config)).to(getattr(torch, dtype))
    model.config.architectures = ["RegNetForImageClassification"]
    model.save_pretrained(folder / "out")
    settings = {} if config.num_channels == 3 else {"do_normalize": False}
    RegNetImageProcessor(**settings).save_pretrained(folder / "out")
    (folder / "out" / "conversion.json").write_text("{}")
    return folder / "out"


WRITTEN: dict[str, tuple[str, DType, dict[str, Any]]] = {
    "another activation": ("flax", "float32", {"hidden_act": "silu"}),
    "the same in Keras": ("tensorflow", "float32", {"hidden_act": "gelu_new"}),
    "four channels": ("tensorflow", "float32", {"num_channels": 4}),
    "bfloat16": ("flax", "bfloat16", {}),
    "float16": ("tensorflow", "float16", {}),
    "float64": ("tensorflow", "float64", {}),
}


@pytest.mark.parametrize("case", WRITTEN)
def test_what_the_frameworks_have_is_written(case: str, tmp_path: Path) -> None:
    """And read back, or nothing would be there; the frameworks computed the same with each."""
    framework, dtype, fields = WRITTEN[case]
    folder = small_folder(tmp_path, dtype, **fields)

    written = write_back(folder, tmp_path / "back", framework)

    source = source_of(written.path)
    assert source.config.hidden_act == fields.get("hidden_act", "relu")
    assert source.tensors["classifier.1.kernel"].dtype == dtype


REFUSED: dict[str, tuple[str, DType, dict[str, Any], str]] = {
    "RegNetX": (
        "flax",
        "float32",
        {"layer_type": "x"},
        (
            "out cannot be written for flax: it is a RegNetX, and transformers' Flax builds none: "
            "the class of its layers lacks an argument; choose another framework with --to."
        ),
    ),
    "four channels": (
        "flax",
        "float32",
        {"num_channels": 4},
        (
            "out cannot be written for flax: it takes 4 channels, and the stem of flax takes "
            "three; choose another framework with --to."
        ),
    ),
    "SELU": (
        "tensorflow",
        "float32",
        {"hidden_act": "selu"},
        (
            "out cannot be written for tensorflow: its activation is selu, which no tensorflow "
            "file can say of it; choose another framework with --to."
        ),
    ),
    "a first stage that does not downsample": (
        "tensorflow",
        "float32",
        {"downsample_in_first_stage": False},
        (
            "out cannot be written for tensorflow: its first stage does not downsample, which no "
            "tensorflow file can say; choose another framework with --to."
        ),
    ),
    "bfloat16": (
        "tensorflow",
        "bfloat16",
        {},
        (
            "out cannot be written for tensorflow in bfloat16, which its file has no type for; add "
            "--dtype float32."
        ),
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_the_frameworks_lack_is_refused(case: str, tmp_path: Path) -> None:
    framework, dtype, fields, expected = REFUSED[case]
    folder = small_folder(tmp_path, dtype, **fields)

    with pytest.raises(InputError) as caught:
        write_back(folder, tmp_path / "back", framework)
    assert str(caught.value) == expected
    assert not (tmp_path / "back").exists()


def test_without_h5py_nothing_is_begun(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = small_folder(tmp_path)
    monkeypatch.setattr("converters.errors.find_spec", lambda _: None)

    with pytest.raises(StorageError, match=r"h5py is not installed, and tensorflow's files are"):
        plan_write_back(folder, tmp_path / "back", "tensorflow", ConvertOptions())
