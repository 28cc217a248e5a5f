"""What fuzzing has found, and reading the code for it: each is refused, soon, in one sentence."""

from __future__ import annotations

import argparse
import io
import json
import pickle
from typing import TYPE_CHECKING, Any

import pytest
import torch
from PIL import Image

from benchmarks.giants.make import Recipe, make
from converters.checkpoint import Opaque, open_any
from converters.checkpoint.legacy_container import MAGIC_NUMBER, PROTOCOL_VERSION
from converters.errors import ConversionError, InputError
from converters.families.options import SourceOptions
from converters.families.pycls_config import PyclsConfig
from converters.families.source import EvalTransform
from converters.weights.inspection import inspected
from fuzz.guard import require_sentence
from fuzz.seeds import NETWORK
from regnet import RegNetConfig, RegNetImageProcessor
from tests.converters.checkpoint.files import in_zip, refusal, tensor_pickle
from tests.oracles.savers import RULE

if TYPE_CHECKING:
    from pathlib import Path

# 2 ** 61 - 1 is what Python takes its hashes of numbers modulo.
COLLIDING = [
    b"\x8a\x0a" + (number * (2**61 - 1)).to_bytes(10, "little") + b"N"
    for number in range(1 << 10, (1 << 10) + 10_001)
]

PICKLES = {
    "a number that takes long to print": (
        b"\x80\x02\x8b" + (2000).to_bytes(4, "little") + b"\x7f" * 2000 + b".",
        "a number of 15999 bits",
    ),
    "keys of one hash": (b"\x80\x02}(" + b"".join(COLLIDING) + b"u.", "more than 10000 keys"),
    "pairs of one hash": (
        b"\x80\x02ccollections\nOrderedDict\n(" + b"\x86".join(COLLIDING) + b"\x86t\x85R.",
        "more than 10000 keys",
    ),
}


@pytest.mark.parametrize(("data", "expected"), PICKLES.values(), ids=PICKLES)
def test_a_pickle_that_would_take_too_long_is_refused(
    data: bytes, expected: str, tmp_path: Path
) -> None:
    assert expected in refusal(in_zip(data), tmp_path)


def test_a_legacy_pickle_of_any_length_is_not_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("converters.checkpoint.pickle_reader.MAX_PICKLE", 100)
    torch.save({"text": "x" * 100}, buffer := io.BytesIO(), _use_new_zipfile_serialization=False)
    assert "more than 100 bytes" in refusal(buffer.getvalue(), tmp_path)


def test_a_legacy_layout_of_another_version_is_refused(tmp_path: Path) -> None:
    header = pickle.dumps(MAGIC_NUMBER, 2) + pickle.dumps([PROTOCOL_VERSION] * 9, 2)
    assert "another version of the layout" in refusal(header, tmp_path)


def test_a_directory_of_any_size_is_not_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("converters.checkpoint.zip_directory.MAX_DIRECTORY", 100)
    assert "table of contents of" in refusal(in_zip(tensor_pickle()), tmp_path)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("model.safetensors", "its header claims 8500000 bytes, more than a network needs"),
        ("config.json", "cannot be read as JSON"),
    ],
)
def test_json_of_any_size_is_not_read(name: str, expected: str, tmp_path: Path) -> None:
    lists = b'{"a": [' + b"[],".ljust(3 * 2_000_000, b" ") + b"[]]}".rjust(8_500_000 - 6_000_007)
    start = len(lists).to_bytes(8, "little") if name.endswith("safetensors") else b""
    (tmp_path / name).write_bytes(start + lists)
    assert expected in refused(tmp_path)


def test_a_note_that_holds_itself_is_shown_by_its_name() -> None:
    note = Opaque("a.B", ())
    note.state = [note, note]
    assert repr(note) == "<a.B>"


def refused(path: Path) -> str:
    """What `regnet inspect` says of a file or folder that it does not take."""
    with pytest.raises(ConversionError) as caught, inspected(path, SourceOptions()):
        pass
    require_sentence(str(caught.value))
    return str(caught.value)


def made(framework: str, path: Path, layout: str = "") -> Path:
    path.parent.mkdir(exist_ok=True)
    make(NETWORK, path, Recipe(framework, layout, classes=3))
    return path


def listing(path: Path, content: dict[str, Any]) -> Path:
    torch.save(content, path)
    return path


def test_a_shard_is_not_opened_again_and_again(tmp_path: Path) -> None:
    made("vissl", tmp_path / "list", "shards")
    names = ["list_shard0"] * 1000
    path = listing(tmp_path / "list", {"type": "shard_list", "shards": names})
    assert "names 'list_shard0' twice" in refused(path)


@pytest.mark.parametrize("name", ["x" * 300, "a\x00b", "\ud800"])
def test_a_name_that_no_file_can_have_is_that_of_a_missing_one(name: str, tmp_path: Path) -> None:
    path = listing(tmp_path / "list", {"type": "shard_list", "shards": [name]})
    assert "is not beside it" in refused(path)
    index = {"weight_map": {"a": name}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    said = {"\ud800": "cannot be read as JSON", "a\x00b": "names a file outside its folder"}
    assert said.get(name, "1 of 1 shards are missing") in refused(tmp_path)


def test_a_shape_without_end_is_no_metadata_of_fsdp(tmp_path: Path) -> None:
    path = made("vissl", tmp_path / "list", "shards")
    shard = tmp_path / "list_shard0"
    stored = torch.load(shard, weights_only=False)
    meta = stored["classy_state_dict"]["base_model"]["meta"]["trunk"]
    shapes = next(iter(meta["param_metadata"][0]["params"].values()))
    shapes["shapes"] = [(float("inf"),)]
    torch.save(stored, shard)
    with pytest.raises(InputError, match="is not FSDP's"), open_any(path):
        pass


def test_networks_without_end_in_one_file_are_refused(tmp_path: Path) -> None:
    tree = {f"a{number}.s1.b1.f.a.weight": torch.zeros(1) for number in range(1000)}
    torch.save(tree, tmp_path / "model.pyth")
    assert "more than 16 networks" in refused(tmp_path / "model.pyth")


def doubling(start: str, step: str) -> str:
    """A YAML text in which each of nine lines holds the one before nine times."""
    lines = [f"a: &a {start}"]
    for before, name in zip("abcdefgh", "bcdefghi", strict=True):
        lines.append(f"{name}: &{name} {step % ', '.join([f'*{before}'] * 9)}")
    return "\n".join(lines) + "\nBN: {EPS: *i}\n"


CFGS = {
    "aliases": doubling("[x, x]", "[%s]"),
    "merge keys": doubling("{x: 1}", "{<<: [%s]}"),
    "a list in itself": "BN: &a [*a]",
    "depth": "BN: " + "[" * 10_000,
    "length": "BN: " + "x" * 100_000,
    "no truth": "BN: !!bool x",
    "no time": "BN: !!timestamp x",
    "no day": "BN: 2001-99-99",
}


@pytest.mark.parametrize("text", CFGS.values(), ids=CFGS)
def test_a_cfg_that_pycls_does_not_write_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="not the YAML text that pycls writes"):
        PyclsConfig.parse(text, "model.pyth")


FIELDS = {
    "self": 1, "to_dict": 1, "_validate": None, "__class__": "x", "__dict__": {},
    "label2id": [[1]], "id2label": {"0": [], "1": "b"}, "num_channels": 10**400,
}  # fmt: skip


@pytest.mark.parametrize("field", FIELDS)
def test_a_field_of_a_configuration_cannot_break_it(field: str, tmp_path: Path) -> None:
    folder = made("transformers", tmp_path / "folder", "folder")
    content = json.loads((folder / "config.json").read_text()) | {field: FIELDS[field]}
    (folder / "config.json").write_text(json.dumps(content))
    if field == "self":  # which is a name like any other
        assert RegNetConfig.from_pretrained(folder).to_dict()["self"] == 1
        return
    assert "its config.json cannot be used" in refused(folder)
    with pytest.raises(ValueError, match=r"config\.json"):
        RegNetConfig.from_pretrained(folder)


BESIDE: dict[str, dict[str, Any]] = {
    "timm, a size that is text": {"input_size": "5", "crop_pct": 1.0},
    "timm, an image larger than any": {"img_size": 10**30},
    "timm, a mean that is text": {"mean": ["a", "b", "c"]},
}


@pytest.mark.parametrize("arguments", BESIDE.values(), ids=BESIDE)
def test_settings_of_another_type_than_the_framework_s_are_refused(
    arguments: dict[str, Any], tmp_path: Path
) -> None:
    import timm

    network = timm.create_model("regnetx_002", group_size=8, **RULE)
    tree = {"state_dict": network.state_dict(), "args": argparse.Namespace(**arguments)}
    torch.save(tree, tmp_path / "model.pth")
    assert refused(tmp_path / "model.pth").startswith("model.pth")


def test_a_cfg_with_values_of_other_types_is_refused(tmp_path: Path) -> None:
    path = made("pycls", tmp_path / "model.pyth")
    tree = torch.load(path, weights_only=True) | {"cfg": "REGNET: {STRIDE: {}}"}
    torch.save(tree, path)
    assert "its cfg sets REGNET.STRIDE to {}" in refused(path)


@pytest.mark.parametrize(
    "changes", [{"crop": 0}, {"resize": 1 << 40}, {"mean": (float("nan"),) * 3}, {"std": (0.0,)}]
)
def test_no_image_is_evaluated_as_none_can_be(changes: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="images are"):
        EvalTransform(**({"resize": 256, "crop": 224, "resample": 2} | changes))


def test_a_message_is_one_line_of_bounded_length() -> None:
    message = str(InputError("It says \x1b[2J\nall is well, é\\n " + "x" * 10_000 + " end."))
    assert message.startswith("It says \\x1b[2J\\nall is well, é\\n xxx")
    assert message.endswith("xxx end.")
    assert len(message) < 2100


@pytest.mark.parametrize("resample", list(Image.Resampling))
def test_every_filter_of_pillow_has_a_name(resample: int, tmp_path: Path) -> None:
    make(NETWORK, tmp_path / "net", Recipe("transformers", "folder", classes=3))
    RegNetImageProcessor(resample=resample).save_pretrained(tmp_path / "net")
    with inspected(tmp_path / "net", SourceOptions()) as (_, inspection):
        transform = inspection.source.transform
    assert transform
    assert transform.in_words.endswith(Image.Resampling(resample).name.lower())
