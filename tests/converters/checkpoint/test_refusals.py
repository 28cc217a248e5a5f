"""What is no checkpoint, or a broken or hostile one, ends in one sentence of the right kind."""

from __future__ import annotations

import io
import json
import os
import pickle
import re
import struct
import tarfile
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save as safetensors_bytes

from converters.checkpoint import StoredTensor, open_checkpoint
from converters.errors import ConversionError, InputError, StorageError, UnsafeInputError
from tests.converters.checkpoint.compare import LAYOUTS

if TYPE_CHECKING:
    from collections.abc import Callable

TREE = {"weight": torch.arange(6.0).reshape(2, 3), "epoch": 3}


def saved(tree: Any, layout: str = "zip", protocol: int = 2) -> bytes:
    buffer = io.BytesIO()
    torch.save(
        tree, buffer, pickle_protocol=protocol, _use_new_zipfile_serialization=LAYOUTS[layout]
    )
    return buffer.getvalue()


def refusal(content: bytes, folder: Path, kind: type[ConversionError] = InputError) -> str:
    """Return the message with which a file is refused; check what all messages have in common."""
    path = folder / "model.pyth"
    path.write_bytes(content)
    with pytest.raises(ConversionError) as caught:
        open_checkpoint(path).close()
    message = str(caught.value)
    assert type(caught.value) is kind, message
    assert message.startswith("model.pyth")
    assert message.endswith(".")
    assert "\n" not in message
    assert str(folder) not in message
    return message


def tar_bytes() -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("storages"))
    return buffer.getvalue()


WRONG_FILES = {
    "empty": (b"", "is empty; the download went wrong"),
    "zeros": (bytes(5000), "begins with nothing but zeros"),
    "web page": (b"\n<!DOCTYPE html><html><body>404</body></html>", "is a web page"),
    "xml": (b"<?xml version='1.0'?><Error><Code>AccessDenied</Code></Error>", "is a web page"),
    "json": (b'{"error": "Invalid credentials"}', "is JSON text"),
    "git-lfs": (
        b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n",
        "is a git-lfs pointer; run `git lfs pull`",
    ),
    "gzip": (b"\x1f\x8b\x08" + bytes(range(200)), "is compressed with gzip; unpack it"),
    "xz": (b"\xfd7zXZ\x00" + bytes(range(200)), "is compressed with xz"),
    "bzip2": (b"BZh91AY&SY" + bytes(range(200)), "is compressed with bzip2"),
    "zstd": (b"\x28\xb5\x2f\xfd" + bytes(range(200)), "is compressed with zstd"),
    "tar": (tar_bytes(), "is a tar archive; unpack it"),
    "hdf5": (b"\x89HDF\r\n\x1a\n" + bytes(range(200)), "is an HDF5 file"),
    "onnx": (b"\x08\x0a\x12\x07pytorch\x3a\x80" + bytes(50), "is a protobuf file, as ONNX"),
    "text": (b"hello, world\n", "is no checkpoint of a known kind"),
    "noise": (bytes(range(7, 250)), "is no checkpoint of a known kind"),
}


@pytest.mark.parametrize(("content", "expected"), WRONG_FILES.values(), ids=WRONG_FILES)
def test_a_wrong_file_is_called_what_it_is(content: bytes, expected: str, tmp_path: Path) -> None:
    assert refusal(content, tmp_path).startswith(f"model.pyth: {expected}")


def test_real_files_of_other_programs_are_called_what_they_are(tmp_path: Path) -> None:
    import onnx

    graph = onnx.helper.make_graph([], "g", [], [])
    model = onnx.helper.make_model(graph, producer_name="test").SerializeToString()
    assert "protobuf file, as ONNX" in refusal(model, tmp_path)
    buffer = io.BytesIO()
    np.savez(buffer, a=np.ones(2), b=np.ones(3))
    assert "is a zip archive but no checkpoint" in refusal(buffer.getvalue(), tmp_path)
    np.save(buffer := io.BytesIO(), np.ones(2))
    assert "is a NumPy array" in refusal(buffer.getvalue(), tmp_path)


def test_paths_that_are_no_file_are_input_errors(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for name, expected in (
        ("absent.pth", "absent.pth: there is no such file"),
        ("pipe/below.pth", "below.pth: there is no such file"),
        (".", f"{tmp_path.name}: is a folder; name the checkpoint file inside it"),
        ("pipe", "pipe: is not a regular file"),
    ):
        with pytest.raises(InputError, match=f"^{expected}"):
            open_checkpoint(tmp_path / name)


def test_a_file_that_may_not_be_opened_is_an_error_of_the_environment(tmp_path: Path) -> None:
    (tmp_path / "loop.pth").symlink_to("loop.pth")
    with pytest.raises(StorageError, match=r"^loop\.pth: cannot be opened \(.+\)\.$"):
        open_checkpoint(tmp_path / "loop.pth")
    (tmp_path / "secret.pth").touch(mode=0)
    if os.geteuid() != 0:
        with pytest.raises(StorageError, match="Permission denied"):
            open_checkpoint(tmp_path / "secret.pth")


# Code in pickles.


class Call:
    """Pickles as a call of ``function``."""

    def __init__(self, function: Callable[..., object], *args: object) -> None:
        self.call = function, args

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return self.call


def attacks(target: str) -> dict[str, Call]:
    """Calls that create the file ``target`` when they are made, by the name they are known by."""
    import builtins
    import importlib
    import operator
    import runpy
    import subprocess

    from torch.utils import collect_env

    return {
        "posix.system": Call(os.system, f"touch {target}"),
        "subprocess.Popen": Call(subprocess.Popen, ["touch", target]),
        "builtins.eval": Call(builtins.eval, f"open({target!r}, 'w')"),
        "builtins.exec": Call(builtins.exec, f"open({target!r}, 'w')"),
        "open": Call(open, target, "w"),
        "builtins.getattr": Call(getattr, Call(importlib.import_module, "os"), "system"),
        "operator.methodcaller": Call(operator.methodcaller, "touch", target),
        "runpy.run_path": Call(runpy.run_path, target),
        "torch.utils.collect_env.run": Call(collect_env.run, f"touch {target}"),
        "torch.serialization.load": Call(torch.load, target),
        "pickle.loads": Call(pickle.loads, pickle.dumps(Call(os.system, f"touch {target}"))),
        "torch.storage._load_from_bytes": Call(torch.storage._load_from_bytes, b""),
    }


def bare_pickle(protocol: int) -> Callable[[object], bytes]:
    return lambda tree: pickle.dumps(tree, protocol)


WRITERS: dict[str, Callable[[object], bytes]] = {
    "zip": saved,
    "zip, protocol 4": lambda tree: saved(tree, "zip", 4),
    "legacy": lambda tree: saved(tree, "legacy"),
    "pickle 0": bare_pickle(0),
    "pickle 1": bare_pickle(1),
    "pickle 2": bare_pickle(2),
    "pickle 4": bare_pickle(4),
}


@pytest.mark.parametrize("writer", WRITERS)
@pytest.mark.parametrize("name", attacks(""))
def test_a_pickle_that_would_run_code_is_refused_and_runs_nothing(
    name: str, writer: str, tmp_path: Path
) -> None:
    target = tmp_path / "created"
    tree = {"weight": torch.ones(2) if writer == "zip" else 0, "x": [attacks(str(target))[name]]}
    message = refusal(WRITERS[writer](tree), tmp_path, UnsafeInputError)
    assert name.rpartition(".")[2] in message
    assert "at byte " in message
    assert "nothing was run" in message
    assert not target.exists()


SPELLINGS = {
    "posix.system": b"cposix\nsystem\n(S'touch x'\ntR.",
    "os.popen": b"(S'touch x'\nios\npopen\n.",
    "__builtin__.execfile": b"(c__builtin__\nexecfile\nS'x'\no.",
    "commands.getoutput": b"\x80\x02ccommands\ngetoutput\nU\x01x\x85R.",
    "numpy.linalg.os.system": b"\x80\x04\x8c\x0cnumpy.linalg\x8c\x09os.system\x93\x8c\x01x\x85R.",
    "a.b.__class__.x": b"\x80\x04\x8c\x01a\x8c\x0db.__class__.x\x93.",
    "some.where.from_pretrained": b"\x80\x02csome.where\nfrom_pretrained\nU\x01x\x85R.",
    "what collections.abc.f returns": b"\x80\x02ccollections.abc\nf\n)R)R.",
    # The call comes before the pickle breaks off, where loaders have made it already.
    "nt.system": b"\x80\x02cnt\nsystem\nU\x01x\x85R\x80\x02U\xff",
}


@pytest.mark.parametrize(("name", "content"), SPELLINGS.items(), ids=SPELLINGS)
def test_every_spelling_of_a_call_is_refused(name: str, content: bytes, tmp_path: Path) -> None:
    assert name in refusal(content, tmp_path, UnsafeInputError)


def test_the_message_says_at_which_byte_the_code_is_named(tmp_path: Path) -> None:
    content = pickle.dumps([1, 2, Call(os.system, "true")], protocol=2)
    message = refusal(content, tmp_path, UnsafeInputError)
    assert f"at byte {content.index(b'cposix')} it names posix.system" in message


# Pickles that are broken or built to exhaust a reader.


def in_zip(data: bytes, **entries: bytes) -> bytes:
    """Return a checkpoint whose pickle is ``data``, with one storage of two floats, ``0``."""
    contents = {"data.pkl": data, "data/0": struct.pack("<2f", 1, 2), "byteorder": b"little"}
    return zip_of({f"archive/{name}": body for name, body in (contents | entries).items()})


def zip_of(entries: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as archive:
        for name, body in entries.items():
            archive.writestr(name, body)
    return buffer.getvalue()


def tensor_pickle(
    shape: object = (2,),
    stride: object = (1,),
    offset: object = 0,
    numel: object = 2,
    key: str = "0",
) -> bytes:
    """Return the pickle of ``{"t": tensor}`` as torch writes it, with any numbers in it."""

    class Pickler(pickle.Pickler):
        def persistent_id(self, obj: object) -> object:
            if obj is Ellipsis:
                return ("storage", torch.FloatStorage, key, "cpu", numel)
            return None

    class Tensor:
        def __reduce__(self) -> tuple[Any, ...]:
            return torch._utils._rebuild_tensor_v2, (..., offset, shape, stride, False, {})

    Pickler(buffer := io.BytesIO(), protocol=2).dump({"t": Tensor()})
    return buffer.getvalue()


def test_the_pickles_made_here_are_right_when_nothing_is_wrong_with_them(tmp_path: Path) -> None:
    (tmp_path / "a.pth").write_bytes(in_zip(tensor_pickle()))
    with open_checkpoint(tmp_path / "a.pth") as checkpoint:
        tree: Any = checkpoint.tree
        assert checkpoint.array(tree["t"]).tolist() == [1.0, 2.0]


WRONG_TENSORS: dict[str, tuple[dict[str, Any], str]] = {
    "beyond": ({"shape": (3,)}, r"needs 3 elements of archive/data/0, which has 2"),
    "offset": ({"offset": 1}, r"needs 3 elements of archive/data/0, which has 2"),
    "stride": ({"stride": (2,)}, "needs 3 elements"),
    "huge": ({"shape": (2**40, 2**40), "stride": (1, 1)}, "needs .* elements"),
    "negative size": ({"shape": (-1,)}, "negative"),
    "negative stride": ({"stride": (-1,)}, "negative"),
    "negative offset": ({"offset": -1}, "negative"),
    "fraction": ({"shape": (1.5,)}, "not whole numbers"),
    "boolean": ({"shape": (True,)}, "not whole numbers"),
    "axes": ({"stride": (1, 1)}, "1 sizes but 2 strides"),
    "storage size": ({"numel": 3}, r"archive/data/0: has 8 bytes where data.pkl says 3 elements"),
    "storage missing": ({"key": "1"}, r"archive/data/1: is missing"),
    "storage outside": ({"key": "../byteorder"}, r"is missing"),
    "negative storage": ({"numel": -2}, "a storage of -2 elements"),
}


@pytest.mark.parametrize(("changes", "expected"), WRONG_TENSORS.values(), ids=WRONG_TENSORS)
def test_a_tensor_that_cannot_be_is_refused(
    changes: dict[str, Any], expected: str, tmp_path: Path
) -> None:
    message = refusal(in_zip(tensor_pickle(**changes)), tmp_path)
    assert re.search(expected, message), message


def test_an_expanded_tensor_cannot_fill_the_memory(tmp_path: Path) -> None:
    (tmp_path / "a.pth").write_bytes(in_zip(tensor_pickle(shape=(2**40,), stride=(0,))))
    with open_checkpoint(tmp_path / "a.pth") as checkpoint:
        tree: Any = checkpoint.tree
        with pytest.raises(InputError, match="expands to 4398046511104 bytes from 8"):
            checkpoint.array(tree["t"])


BROKEN_PICKLES = {
    "item of a list": (b"\x80\x02]K\x01K\x01s.", "sets items of a value of type list"),
    "append to a dict": (b"\x80\x02}K\x01a.", "appends to a value of type dict"),
    "member of a list": (b"\x80\x04](K\x01\x90.", "adds members to a value of type list"),
    "state of a list": (b"\x80\x02]}b.", "sets the state of a value of type list"),
    "state of a class": (b"\x80\x02ca\nb\n}b.", "sets the state of a.b"),
    "unhashable key": (b"\x80\x02}]K\x01s.", "a list as a key"),
    "empty stack": (b"\x80\x02R.", "takes what is not there"),
    "no memo": (b"\x80\x02h\x07.", "takes what is not there"),
    "no mark": (b"\x80\x02K\x01t.", "takes what is not there"),
    "call of a number": (b"\x80\x02K\x01)R.", "calls a value of type int"),
    "odd items": (b"\x80\x02}(K\x01u.", "a key without a value"),
    "protocol 9": (b"\x80\x09}.", "pickle protocol 9"),
    "extension": (b"\x80\x02\x82\x01.", "EXT1 has no place in a checkpoint"),
    "persistent text": (b"\x80\x02Pabc\n.", "PERSID has no place in a checkpoint"),
    "other reference": (b"\x80\x02K\x01\x85Q.", "neither a storage nor a module"),
    "other storage": (
        b"\x80\x02(U\x07storageca\nb\nU\x010U\x03cpuK\x02tQ.",
        "unknown kind of storage a.b",
    ),
    "unknown opcode": (b"\x80\x02\xff.", "instruction at byte 0 is wrong"),
    "cut": (b"\x80\x02}U\xffabc", "is truncated, it ends at byte 8"),
    "huge string": (b"\x80\x04\x8d\x00\x00\x00\x00\x01\x00\x00\x00.", "a string of 4294967296"),
    "list in itself": (b"\x80\x02]q\x00h\x00a.", "nested more than 200 deep"),
    "deep": (b"\x80\x02" + b"]" * 1000 + b"a" * 999 + b".", "nested more than 200 deep"),
    "doubling": (b"\x80\x02)" + b"2\x86" * 60 + b".", "nested without end"),
    "copies": (
        b"\x80\x02c__builtin__\nlist\nq\x00](" + b"N" * 100_000 + b"eq\x010"
        b"(" + b"h\x00h\x01\x85R" * 300 + b"l.",
        "copied again and again",
    ),
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(("data", "expected"), BROKEN_PICKLES.values(), ids=BROKEN_PICKLES)
def test_a_broken_pickle_is_refused_within_bounds(
    data: bytes, expected: str, layout: str, tmp_path: Path
) -> None:
    if layout == "zip":
        message = refusal(in_zip(data), tmp_path)
        assert expected in message
        assert message.startswith("model.pyth, archive/data.pkl: ")
    else:
        refusal(data, tmp_path)


# Zip archives.


def encrypted(content: bytes) -> bytes:
    """Set the flag of encryption on every entry in the central directory."""
    central = content.replace(b"PK\x01\x02\x14\x03\x14\x00\x00", b"PK\x01\x02\x14\x03\x14\x00\x01")
    assert central != content
    return central


GOOD = tensor_pickle()
ZIPS: dict[str, tuple[bytes, type[ConversionError], str]] = {
    "compressed": (
        zip_of({"archive/data.pkl": GOOD}, zipfile.ZIP_DEFLATED),
        InputError,
        "archive/data.pkl: is compressed",
    ),
    "encrypted": (encrypted(in_zip(GOOD)), InputError, "is encrypted"),
    "big-endian": (in_zip(GOOD, byteorder=b"big"), InputError, "archive/byteorder: is 'big'"),
    "no pickle": (zip_of({"archive/data/0": b""}), InputError, "it has no data.pkl"),
    "two folders": (
        zip_of({"a/data.pkl": GOOD, "b/data.pkl": GOOD}),
        UnsafeInputError,
        "has 2 folders, 'a' and 'b'",
    ),
    "outside": (in_zip(GOOD, **{"../../x": b""}), UnsafeInputError, "leads out of it"),
    "absolute": (zip_of({"/data.pkl": GOOD}), UnsafeInputError, "leads out of it"),
    "other local name": (
        in_zip(GOOD).replace(b"archive/data/0", b"archive/data/1", 1),
        UnsafeInputError,
        "calls the entry 'archive/data/0' differently in two places",
    ),
    "no local header": (
        in_zip(GOOD).replace(b"PK\x03\x04", b"PK\x05\x04").replace(b"PK\x05\x04", b"PK\x03\x04", 1),
        InputError,
        "its header is missing",
    ),
}


@pytest.mark.parametrize(("content", "kind", "expected"), ZIPS.values(), ids=ZIPS)
def test_a_zip_torch_would_not_write_is_refused(
    content: bytes, kind: type[ConversionError], expected: str, tmp_path: Path
) -> None:
    assert expected in refusal(content, tmp_path, kind)


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_two_entries_of_one_name_are_unsafe(tmp_path: Path) -> None:
    buffer = io.BytesIO(in_zip(GOOD))
    with zipfile.ZipFile(buffer, "a") as archive:
        archive.writestr("archive/data.pkl", GOOD)
    message = refusal(buffer.getvalue(), tmp_path, UnsafeInputError)
    assert "has two entries called 'archive/data.pkl'" in message


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
@pytest.mark.parametrize("program", ["TorchScript", ".pt2", "torch.package"])
def test_archives_that_are_programs_are_called_that(program: str, tmp_path: Path) -> None:
    network = torch.nn.Linear(2, 2).eval()
    path = tmp_path / "program.pt2"
    if program == "TorchScript":
        torch.jit.trace(network, torch.ones(1, 2)).save(path)
    elif program == ".pt2":
        torch.export.save(torch.export.export(network, (torch.ones(1, 2),)), path)
    else:
        with torch.package.PackageExporter(path) as exporter:
            exporter.save_pickle("weights", "data.pkl", {"a": 1})
    assert program in refusal(path.read_bytes(), tmp_path)


# Truncated, damaged, mutated.


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_truncation_is_refused(layout: str, tmp_path: Path) -> None:
    content = saved(TREE, layout)
    for size in range(1, len(content), 3):
        message = refusal(content[:size], tmp_path)
        assert "truncated" in message or size < len("PK\x03\x04")


def test_a_truncated_legacy_file_says_how_much_is_missing(tmp_path: Path) -> None:
    content = saved(TREE, "legacy")
    message = refusal(content[:-10], tmp_path)
    assert f"it has {len(content) - 10} bytes and should have {len(content)}" in message
    message = refusal(content + b"x", tmp_path)
    assert f"goes on behind its end, it has {len(content) + 1} bytes" in message


def test_a_legacy_storage_of_another_size_is_refused(tmp_path: Path) -> None:
    content = saved({"t": torch.zeros(6)}, "legacy")
    message = refusal(content[:-32] + (5).to_bytes(8, "little") + bytes(24), tmp_path)
    assert "has 5 elements where its tensors say 6" in message


def content_of(path: Path) -> tuple[object, bytes]:
    """Return all that a reader takes from a file: its values, and the bytes of its tensor."""
    with open_checkpoint(path) as checkpoint:
        tree: Any = checkpoint.tree
        tensor = tree["weight"]
        assert isinstance(tensor, StoredTensor)
        about = tensor.dtype, tensor.shape, tensor.stride
        return (list(tree), tree["epoch"], about), b"".join(checkpoint.chunks(tensor))


def test_no_flipped_bit_of_a_zip_goes_unnoticed(tmp_path: Path) -> None:
    content = saved(TREE)
    path = tmp_path / "a.pth"
    path.write_bytes(content)
    expected = content_of(path)
    refused = 0
    for position in range(len(content)):
        changed = bytearray(content)
        changed[position] ^= 1 << position % 8
        path.write_bytes(changed)
        try:
            assert content_of(path) == expected
        except ConversionError:
            refused += 1
    # The rest is padding, times, and entries that say nothing about the content.
    assert refused > len(content) // 4


@pytest.mark.parametrize("layout", [*LAYOUTS, "safetensors"])
@given(data=st.data())
@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_a_mutated_file_opens_or_is_refused_but_never_breaks_the_reader(
    data: st.DataObject, layout: str, tmp_path: Path
) -> None:
    weight = {"weight": TREE["weight"]}
    content = bytearray(
        safetensors_bytes(weight) if layout == "safetensors" else saved(TREE, layout)
    )
    for _ in range(data.draw(st.integers(1, 4))):
        position = data.draw(st.integers(0, len(content) - 1))
        content[position : position + data.draw(st.integers(0, 8))] = data.draw(
            st.binary(max_size=8)
        )
    path = tmp_path / "a.pth"
    path.write_bytes(content)
    try:
        with open_checkpoint(path) as checkpoint:
            tree = checkpoint.tree
            for value in tree.values() if isinstance(tree, dict) else []:
                if isinstance(value, StoredTensor) and value.nbytes < 1 << 20:
                    checkpoint.array(value)
    except ConversionError:
        pass


# safetensors.


def safetensors_of(header: object, data: bytes = bytes(8)) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data


def entry(**changes: object) -> dict[str, object]:
    return {"t": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]} | changes}


TWICE = b'{"t": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}, "t": 0}'
TWO = {
    "a": {"dtype": "U8", "shape": [5], "data_offsets": [0, 5]},
    "b": {"dtype": "U8", "shape": [3], "data_offsets": [5, 8]},
}
OVERLAP = TWO | {"b": {"dtype": "U8", "shape": [4], "data_offsets": [4, 8]}}
HOLE = TWO | {"b": {"dtype": "U8", "shape": [2], "data_offsets": [6, 8]}}
SAFETENSORS: dict[str, tuple[bytes, type[ConversionError], str]] = {
    "key twice": (safetensors_of(TWICE), UnsafeInputError, "has the key 't' twice"),
    "field twice": (
        safetensors_of(b'{"t": {"dtype": "F32", "dtype": "I32"}}'),
        UnsafeInputError,
        "has the key 'dtype' twice",
    ),
    "huge header": (b"\x00\x00\x00\x00\x00\x01\x00\x00{" + bytes(90), InputError, "header claims"),
    "cut header": (safetensors_of(entry())[:30], InputError, "is truncated, it has 30 bytes"),
    "cut data": (safetensors_of(entry())[:-1], InputError, "is truncated"),
    "trailing": (safetensors_of(entry()) + b"PK", InputError, "goes on behind its last tensor"),
    "no JSON": (safetensors_of(b"{nonsense"), InputError, "its header is not JSON"),
    "NaN": (safetensors_of(b'{"t": NaN}'), InputError, "its header is not JSON"),
    "nested": (safetensors_of(b'{"t":' + b"[" * 100_000), InputError, "its header is not JSON"),
    "overlap": (safetensors_of(OVERLAP), InputError, "'b' does not begin where the one before"),
    "hole": (safetensors_of(HOLE), InputError, "'b' does not begin where the one before ends"),
    "late start": (
        safetensors_of(entry(data_offsets=[4, 12]), bytes(12)),
        InputError,
        "does not begin",
    ),
    "other span": (safetensors_of(entry(shape=[3])), InputError, "'t' has other bytes than"),
    "negative": (safetensors_of(entry(shape=[-2])), InputError, "sizes or offsets that cannot be"),
    "boolean": (safetensors_of(entry(shape=[True, 2])), InputError, "cannot be"),
    "fraction": (safetensors_of(entry(shape=[2.0])), InputError, "cannot be"),
    "overflow": (safetensors_of(entry(shape=[2**63, 2**63])), InputError, "cannot be"),
    "offsets": (safetensors_of(entry(data_offsets=[8])), InputError, "lacks dtype, shape or"),
    "type": (safetensors_of(entry(dtype="F4")), InputError, "has the unsupported type 'F4'"),
    "metadata": (
        safetensors_of({"__metadata__": {"a": 1}}, b""),
        InputError,
        "its metadata is not text",
    ),
}


@pytest.mark.parametrize(("content", "kind", "expected"), SAFETENSORS.values(), ids=SAFETENSORS)
def test_a_safetensors_file_that_breaks_the_format_is_refused(
    content: bytes, kind: type[ConversionError], expected: str, tmp_path: Path
) -> None:
    assert expected in refusal(content, tmp_path, kind)
