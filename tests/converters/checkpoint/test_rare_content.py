"""What checkpoints hold now and then: read as Python and torch read it, or refused."""

from __future__ import annotations

import json
import pickle
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import pytest
import torch
from safetensors.torch import save as safetensors_bytes

from converters.checkpoint import Opaque, StoredTensor, open_any, open_checkpoint
from converters.checkpoint.legacy_container import MAGIC_NUMBER, PROTOCOL_VERSION
from converters.checkpoint.lists import consolidate
from converters.errors import ConversionError, InputError, StorageError
from tests.converters.checkpoint.compare import LAYOUTS
from tests.converters.checkpoint.files import (
    TREE,
    fail_behind_the_head,
    in_zip,
    refusal,
    saved,
    tensor_pickle,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

# Programs of plain instructions that pickle itself writes never or seldom.
PROGRAMS = {
    "a mark taken off": b"\x80\x02]q\x00(0K\x01\x94\x86.",
    "all above a mark taken off": b"\x80\x02K\x07(K\x01K\x021.",
    "a value twice": b"\x80\x02K\x072\x86.",
    "a list of what is above a mark": b"\x80\x02(K\x01K\x02l.",
    "a dict of what is above a mark": b"\x80\x02(K\x01K\x02d.",
    "text of protocol 0": b"(VA\\u00e9\nS'b'\nI1\nI01\nF1.5\nL2L\nt.",
    "a frozen set": b"\x80\x04(K\x01K\x02\x91.",
    "a byte array": b"\x80\x05\x96\x02\x00\x00\x00\x00\x00\x00\x00ab.",
}


def tree_of(content: bytes, folder: Path) -> Any:
    (folder / "model.pyth").write_bytes(content)
    with open_checkpoint(folder / "model.pyth") as checkpoint:
        return checkpoint.tree


@pytest.mark.parametrize("program", PROGRAMS.values(), ids=PROGRAMS)
def test_a_rare_instruction_means_what_it_means_to_pickle(program: bytes, tmp_path: Path) -> None:
    assert tree_of(in_zip(program), tmp_path) == pickle.loads(program)  # noqa: S301


class WithKeywords:
    """Pickles as a call with named arguments, which protocol 4 has an instruction for."""

    def __new__(cls, **_: int) -> Self:
        return super().__new__(cls)

    def __getnewargs_ex__(self) -> tuple[tuple[()], dict[str, int]]:
        return (), {"width": 3}


class OwnList(list[int]):
    """A list with a class of its own."""


def test_objects_become_notes_of_what_they_were_made_with(tmp_path: Path) -> None:
    tree = tree_of(in_zip(pickle.dumps({"a": WithKeywords(), "b": OwnList([1, 2])}, 4)), tmp_path)
    assert tree["a"].kwargs == {"width": 3}
    assert tree["b"].elements == [1, 2]


def test_a_tensor_with_attributes_is_the_tensor(tmp_path: Path) -> None:
    weight = torch.ones(2)
    weight.note = "of epoch 3"  # type: ignore[attr-defined]
    tree = tree_of(saved({"weight": weight}), tmp_path)
    assert isinstance(tree["weight"], StoredTensor)
    assert tree["weight"].shape == (2,)


@pytest.mark.parametrize("value", [np.datetime64("2020-01-01"), np.str_("x"), np.longdouble(1)])
def test_a_scalar_of_numpy_without_a_number_of_python_s_is_a_note(
    value: Any, tmp_path: Path
) -> None:
    assert isinstance(tree_of(in_zip(pickle.dumps(value, 2)), tmp_path), Opaque)


def call(module: str, name: str, *arguments: bytes) -> bytes:
    """A program that calls a function with what the arguments push."""
    return f"\x80\x02c{module}\n{name}\n(".encode("latin-1") + b"".join(arguments) + b"tR."


def storage(kind: bytes = b"ctorch\nFloatStorage\n", view: bytes = b"") -> bytes:
    """The instructions that refer to the storage of two floats."""
    return b"(U\x07storage" + kind + b"U\x010U\x03cpuK\x02" + view + b"tQ"


WRONG = {
    "a tensor on a number": (
        call("torch._utils", "_rebuild_tensor", *[b"K\x01"] * 4),
        "a tensor without a storage",
    ),
    "a storage of the kind 5": (b"\x80\x02" + storage(b"K\x05") + b".", "without its kind"),
    "a view in a zip archive": (
        b"\x80\x02" + storage(view=b"U\x01vK\x01K\x09\x87") + b".",
        "a view of a storage, which only legacy files have",
    ),
    "an encoding": (call("_codecs", "encode", b"U\x01x", b"U\x04utf7"), "an unknown encoding"),
    "an object of no class": (
        call("copy_reg", "_reconstructor", *[b"K\x01"] * 3),
        "an object without a class",
    ),
    "a list of a number": (call("__builtin__", "list", b"K\x01"), "made from something that is"),
    "a call with a number": (b"\x80\x02ca\nb\nK\x01R.", "arguments are not a tuple"),
    "a number as a name": (b"\x80\x04K\x01K\x02\x93.", "a name that is not text"),
}


@pytest.mark.parametrize(("program", "expected"), WRONG.values(), ids=WRONG)
def test_a_call_with_wrong_arguments_is_refused(
    program: bytes, expected: str, tmp_path: Path
) -> None:
    assert expected in refusal(in_zip(program), tmp_path)


def test_a_tensor_of_an_unknown_type_is_a_note(tmp_path: Path) -> None:
    others = (b"K\x00", b"K\x02\x85", b"K\x01\x85", b"\x89", b"N", b"ctorch\nuint7\n")
    program = call("torch._utils", "_rebuild_tensor_v3", storage(), *others)
    assert repr(tree_of(in_zip(program), tmp_path)) == "<torch._utils._rebuild_tensor_v3>"


class OfDevice:
    """Pickles as a tensor of a TPU does."""

    def __init__(self, data: object, dtype: torch.dtype) -> None:
        self.data, self.dtype = data, dtype

    def __reduce__(self) -> tuple[Any, ...]:
        is_array = isinstance(self.data, np.ndarray)
        rebuild: Any = torch._utils._rebuild_device_tensor_from_cpu_tensor
        if is_array:
            rebuild = torch._utils._rebuild_device_tensor_from_numpy
        return rebuild, (self.data, self.dtype, "xla:0", False)


@pytest.mark.parametrize("protocol", [2, 4, 5])
def test_a_tensor_of_a_tpu_is_the_tensor(protocol: int, tmp_path: Path) -> None:
    numbers = torch.arange(-3.0, 3.0).reshape(2, 3)
    content = saved(
        {
            "array": OfDevice(numbers.numpy(), torch.float32),
            "brain": OfDevice(numbers.numpy(), torch.bfloat16),
            "tensor": OfDevice(numbers.bfloat16(), torch.bfloat16),
            "other": OfDevice(numbers.numpy(), torch.int64),
        },
        protocol=protocol,
    )
    (tmp_path / "model.pyth").write_bytes(content)
    with open_checkpoint(tmp_path / "model.pyth") as checkpoint:
        tree: Any = checkpoint.tree
        for name in ("array", "brain"):
            assert np.array_equal(checkpoint.array(tree[name]), numbers.numpy())
        assert tree["tensor"].dtype == "bfloat16"
        assert isinstance(tree["other"], Opaque)


def legacy(*pickles: object) -> bytes:
    parts = (part if isinstance(part, bytes) else pickle.dumps(part, 2) for part in pickles)
    return b"".join(parts)


LEGACY = {
    "a storage nobody uses": (
        legacy(MAGIC_NUMBER, PROTOCOL_VERSION, {}, {"a": 1}, ["0"]),
        "its list of storages is not the one its tensors use",
    ),
    "a storage before the content": (b"\x80\x02" + storage() + b".", "outside of the content"),
}


@pytest.mark.parametrize(("content", "expected"), LEGACY.values(), ids=LEGACY)
def test_a_legacy_stream_in_another_order_is_refused(
    content: bytes, expected: str, tmp_path: Path
) -> None:
    assert expected in refusal(content, tmp_path)


def test_an_empty_tensor_spans_nothing(tmp_path: Path) -> None:
    tensor = tree_of(in_zip(tensor_pickle(shape=(0, 3), stride=(9, 9))), tmp_path)["t"]
    assert tensor.span == 0


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_device_that_fails_is_an_error_of_the_environment(
    layout: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = saved({"weight": torch.ones(1000)}, layout)
    fail_behind_the_head(monkeypatch)
    assert "Input/output error" in refusal(content, tmp_path, StorageError)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_checksum_is_compared_when_asked_for(layout: str, tmp_path: Path) -> None:
    content = bytearray(saved(TREE, layout))
    content[content.rindex(TREE["weight"].numpy().tobytes())] ^= 1  # type: ignore[attr-defined]
    (tmp_path / "model.pyth").write_bytes(content)
    with open_checkpoint(tmp_path / "model.pyth") as checkpoint:
        tree: Any = checkpoint.tree
        if layout == "legacy":  # which has none
            checkpoint.verify(tree["weight"])
            return
        with pytest.raises(InputError, match="checksum"):
            checkpoint.verify(tree["weight"])


# Folders.


def index_of(folder: Path, **files: str) -> Path:
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": files}))
    return folder


def refused(path: Path) -> str:
    with pytest.raises(ConversionError) as caught, open_any(path):
        pass
    return str(caught.value)


def test_a_folder_without_weights_is_refused(tmp_path: Path) -> None:
    assert "holds none of model.safetensors" in refused(tmp_path)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[]", "is no JSON object"),
        ("{", "cannot be read as JSON"),
        ('{"weight_map": {}}', "has no weight_map"),
        *(
            (json.dumps({"weight_map": {"a": name}}), "names a file outside its folder")
            for name in ("../b", "..\\b", "x\\b", "C:b", "C:\\b", "//server/share/b", "b:stream")
        ),
    ],
)
def test_a_broken_index_is_refused(text: str, expected: str, tmp_path: Path) -> None:
    (tmp_path / "model.safetensors.index.json").write_text(text)
    assert expected in refused(tmp_path)


def test_a_name_in_two_shards_is_refused(tmp_path: Path) -> None:
    for name in ("1", "2"):
        (tmp_path / name).write_bytes(safetensors_bytes({"a": torch.ones(1)}))
    assert "2: repeats a of another shard" in refused(index_of(tmp_path, a="1", b="2"))
    torch.save([1], tmp_path / "2")
    assert "2: holds no tensors by name" in refused(index_of(tmp_path, a="1", b="2"))


def test_more_shards_than_may_be_open_are_opened_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("converters.checkpoint.reader._MAX_OPEN", 1)
    for number in (1, 2):
        tensors = {str(number): torch.full((2,), float(number))}
        (tmp_path / f"{number}.st").write_bytes(safetensors_bytes(tensors))
    with open_any(index_of(tmp_path, **{"1": "1.st", "2": "2.st"})) as checkpoint:
        tree: Any = checkpoint.tree
        for name in ("1", "2", "1"):
            checkpoint.verify(tree[name])
            assert checkpoint.array(tree[name]).tolist() == [float(name)] * 2
        (tmp_path / "2.st").write_bytes(safetensors_bytes({"2": torch.zeros(3)}))
        with pytest.raises(StorageError, match=r"2\.st: changed while it was being read"):
            checkpoint.array(tree["2"])


# VISSL's lists.


@pytest.mark.parametrize("kind", ["shard", "slice"])
def test_one_of_the_files_of_a_list_is_not_the_list(kind: str, tmp_path: Path) -> None:
    torch.save({"type": kind}, tmp_path / "model.torch")
    assert f"is one {kind} of a network" in refused(tmp_path / "model.torch")


LISTS: dict[str, tuple[dict[str, Any], str]] = {
    "no shards": ({"type": "shard_list"}, "names no shards"),
    "no shard": ({"type": "shard_list", "shards": ["other"]}, "holds no classy_state_dict"),
    "a shard elsewhere": ({"type": "shard_list", "shards": ["x/.."]}, "is not beside it"),
    "a part of a file": ({"type": "shard_list", "shards": ["other:1"]}, "is not beside it"),
    "no slice": ({"type": "slice_list", "trunk": {"a": ["other"]}}, "holds no weight"),
}


@pytest.mark.parametrize(("content", "expected"), LISTS.values(), ids=LISTS)
def test_a_list_of_other_files_is_refused(
    content: dict[str, Any], expected: str, tmp_path: Path
) -> None:
    torch.save(content, tmp_path / "list")
    for name in ("other", "other:1"):
        torch.save({"a": 1}, tmp_path / name)
    assert expected in refused(tmp_path / "list")


def shards(folder: Path, *pieces: torch.Tensor) -> list[dict[str, StoredTensor]]:
    """What FSDP's processes saved of the flat parameter ``flat``."""
    trees = [tree_of(saved({"flat": piece}), folder) for piece in pieces]
    return [dict(tree) for tree in trees]


def metadata(*shapes: tuple[int, ...], padding: int = 0) -> dict[str, Any]:
    stated = {"names": list("abc")[: len(shapes)], "shapes": list(shapes), "padding": padding}
    wrapped = {"fsdp_path": "", "no_broadcast_optim_state": False, "shared_param_info": []}
    return {"param_metadata": [wrapped | {"params": {"flat": stated}}], "buffer_names": []}


def test_parameters_without_elements_have_their_place(tmp_path: Path) -> None:
    stated = metadata((2,), (0, 3), (1, 2))
    found = consolidate(shards(tmp_path, torch.ones(2), torch.ones(2)), [stated] * 2, "x")
    assert {name: tensor.shape for name, tensor in found.items()} == {
        "a": (2,), "b": (0, 3), "c": (1, 2),
    }  # fmt: skip


PIECES: dict[str, tuple[Callable[[Path], list[dict[str, Any]]], dict[str, Any], str]] = {
    "too few elements": (lambda f: shards(f, torch.ones(2)), metadata((3,)), "have 2 elements"),
    "gaps": (lambda f: shards(f, torch.ones(4)[::2]), metadata((2,)), "has gaps"),
    "no tensor": (lambda _: [{"flat": 1}], metadata((2,)), "int where a tensor is expected"),
}


@pytest.mark.parametrize(("make", "stated", "expected"), PIECES.values(), ids=PIECES)
def test_pieces_that_do_not_fit_are_refused(
    make: Callable[[Path], list[dict[str, Any]]],
    stated: dict[str, Any],
    expected: str,
    tmp_path: Path,
) -> None:
    with pytest.raises(InputError, match=expected):
        consolidate(make(tmp_path), [stated], "model.torch")
