"""What torch or safetensors reads otherwise than we would: refused, or read as they read it."""

from __future__ import annotations

import io
import json
import pickle
import pickletools
import struct
import tarfile
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest
import torch
from safetensors.torch import load as load_safetensors

from converters.checkpoint import open_checkpoint, pickle_machine, safetensors_container
from converters.checkpoint.legacy_container import MAGIC_NUMBER
from converters.checkpoint.security import inspect_security
from converters.checkpoint.zip_directory import ZipDirectory
from converters.errors import ConversionError, UnsafeInputError
from converters.parity.contents.pt2 import read_pt2
from converters.parity.contents.torchscript import read_torchscript
from fuzz.differential import archives, ours, seeds
from fuzz.differential.__main__ import running
from fuzz.differential.library import Library
from fuzz.differential.reading import UNREAD, difference, path_of, taken_apart
from tests.converters.checkpoint.files import in_zip, refusal, saved

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

BASE = torch.arange(1.0, 7.0).reshape(2, 3)
NOTHING = torch.empty(0)


@pytest.fixture(scope="module")
def library() -> Iterator[Library]:
    with Library() as process:
        yield process


def global_of(name: str) -> bytes:
    return b"c%s\n%s\n" % tuple(part.encode() for part in name.rsplit(".", 1))


STORAGE = b"(X\x07\0\0\0storage" + b"%s" + b"X\x01\0\0\x000X\x03\0\0\0cpuK\x02tQ"
"""A storage of two elements, of a class."""

TENSOR = (
    global_of("torch._utils._rebuild_tensor_v2") + b"(%sK\0K\x02\x85K\x01\x85\x89}tR"
)  # of a storage


def entry(name: str, value: bytes) -> bytes:
    return b"X" + struct.pack("<I", len(name)) + name.encode() + value + b"s"


def pickled(**entries: bytes) -> bytes:
    return b"\x80\x02}" + b"".join(entry(name, value) for name, value in entries.items()) + b"."


FLOATS = TENSOR % (STORAGE % global_of("torch.FloatStorage"))
INTS = TENSOR % (STORAGE % global_of("torch.IntStorage"))


def framed(missing: int) -> bytes:
    """A pickle of protocol 4 whose frame ends too soon."""
    content = entry("weight", FLOATS) + entry("epoch", b"I1234\n") + b"."
    return b"\x80\x04}\x95" + struct.pack("<Q", len(content) - missing) + content


OTHERWISE = {
    "a plain tensor on a quantised storage": pickled(
        a=TENSOR % (STORAGE % global_of("torch.QInt32Storage"))
    ),
    "a storage of two types": pickled(a=FLOATS, b=INTS),
    "a set made anew": pickled(a=global_of("builtins.set") + b"](K\x01K\x02e\x85\x81"),
    "a list made anew": pickled(a=global_of("builtins.list") + b"](K\x01e\x85\x81"),
    "a Counter of pairs": pickled(
        a=global_of("collections.Counter") + b"](X\x01\0\0\0xK\x01\x86e\x85R"
    ),
    "a number that begins with a zero": pickled(a=b"I010\n"),
    "a size of booleans": pickled(a=global_of("torch.Size") + b"(\x88K\x02t\x85R"),
    "a frame that ends within a number": framed(5),
    "the data of a parameter exchanged": pickled(
        a=global_of("torch._utils._rebuild_parameter_with_state")
        + b"("
        + FLOATS
        + b"\x89}}X\4\0\0\0data"
        + global_of("torch._utils._rebuild_tensor_v2")
        + b"("
        + STORAGE % global_of("torch.FloatStorage")
        + b"K\x01K\x01\x85K\x01\x85\x89}tRstR"
    ),
    "a tensor given another state": pickled(
        a=FLOATS + b"(" + STORAGE % global_of("torch.FloatStorage") + b"K\x01K\x01\x85K\x01\x85tb"
    ),
}
"""Pickles that torch, or any program that trusts them, reads otherwise than one would think."""


@pytest.mark.parametrize("data", OTHERWISE.values(), ids=OTHERWISE)
def test_what_torch_reads_otherwise_is_refused(
    data: bytes, tmp_path: Path, library: Library
) -> None:
    path = tmp_path / "input"
    path.write_bytes(in_zip(data))
    answer = library.read("zip", path)
    assert answer is not None
    assert answer["readings"], answer["refusals"]
    assert "archive/data.pkl" in refusal(in_zip(data), tmp_path)


REFUSED = {
    "attributes without names": pickled(
        a=global_of("torch._utils._rebuild_parameter_with_state")
        + b"("
        + FLOATS
        + b"\x89}}C\4noteK\1stR"
    ),
    "a type that is none": pickled(
        a=global_of("torch._utils._rebuild_tensor_v3")
        + b"("
        + (STORAGE % global_of("torch.storage.UntypedStorage")).replace(b"K\2t", b"K\x08t")
        + b"K\0K\x02\x85K\x01\x85\x89}K\1tR"
    ),
    "a gradient of whole numbers": pickled(a=INTS.replace(b"\x89}t", b"\x88}t")),
    "a view in a zip archive": pickled(a=FLOATS.replace(b"cpuK\x02t", b"cpuK\x02Nt")),
    "a type of another module": pickled(
        a=global_of("torch._utils._rebuild_tensor_v3")
        + b"("
        + (STORAGE % global_of("torch.storage.UntypedStorage")).replace(b"K\2t", b"K\x08t")
        + b"K\0K\x02\x85K\x01\x85\x89}"
        + global_of("TORCH.float32")
        + b"tR"
    ),
    "a call of a kind of storage": pickled(a=FLOATS, b=global_of("torch.FloatStorage") + b")R"),
    "a call of a dtype": pickled(a=FLOATS, b=global_of("torch.float32") + b")R"),
}
"""Pickles that torch refuses."""


@pytest.mark.parametrize("data", REFUSED.values(), ids=REFUSED)
def test_what_torch_refuses_is_refused(data: bytes, tmp_path: Path, library: Library) -> None:
    (tmp_path / "input").write_bytes(in_zip(data))
    answer = library.read("zip", tmp_path / "input")
    assert answer is not None
    assert not answer["readings"]
    assert "archive/data.pkl" in refusal(in_zip(data), tmp_path)


def test_a_name_that_no_program_has_is_not_called_harmless(tmp_path: Path) -> None:
    content = saved({"a": BASE, "b": Counter("a")}, "legacy")
    content = content.replace(b"collections\nCounter", b"collections\nCoun\1er")
    (tmp_path / "input").write_bytes(content)
    assert not inspect_security(tmp_path / "input").harmless
    assert "no program has" in refusal(content, tmp_path)


def test_a_memo_as_large_as_memory_is_refused(tmp_path: Path) -> None:
    assert "kept as number" in refusal(in_zip(b"\x80\x02Nr\xff\xff\xff\xff."), tmp_path)


def test_a_value_that_is_left_over_at_the_end_is_refused(tmp_path: Path) -> None:
    assert "left over" in refusal(in_zip(b"\x80\x02K\1" + pickled(a=FLOATS)[2:]), tmp_path)


VIEW = b"(X\1\0\0\0%sK%cK%ct"
"""Of a storage: its own name, where it begins, how many elements it has."""


@pytest.mark.parametrize(
    ("one", "other"),
    [((b"v", 0, 1), (b"v", 1, 1)), ((b"0", 0, 1), (b"0", 0, 1)), ((b"v", 1, 9), (b"v", 1, 9))],
)
def test_views_that_torch_takes_for_others_are_refused(
    one: tuple[bytes, int, int], other: tuple[bytes, int, int], tmp_path: Path, library: Library
) -> None:
    storage = (STORAGE % global_of("torch.FloatStorage")).removesuffix(b"tQ")
    first, second = (storage + VIEW % view + b"tQ" for view in (one, other))
    data = pickled(a=first, b=second)
    magic, version, facts = (pickle.dumps(part, 2) for part in (MAGIC_NUMBER, 1001, {}))
    stored = (2).to_bytes(8, "little") + struct.pack("<2f", 1, 2)
    content = magic + version + facts + data + pickle.dumps(["0"], 2) + stored
    (tmp_path / "input").write_bytes(content)
    answer = library.read("torch", tmp_path / "input")
    assert answer is not None
    assert answer["readings"], answer["refusals"]
    assert "a view" in refusal(content, tmp_path)


SAME: dict[str, Callable[[], bytes]] = {
    "plain": lambda: in_zip(pickled(a=FLOATS)),
    "text of Python 2 in UTF-8": lambda: in_zip(pickled(a=b"U\x02\xc3\xa9", b=FLOATS)),
    "a Counter": lambda: saved({"a": Counter("abca"), "b": BASE}),
    "an empty set": lambda: in_zip(pickled(a=global_of("builtins.set") + b")\x81")),
    "a parameter with attributes": lambda: saved({"a": with_attribute()}, protocol=4),
    "two types of nothing": lambda: saved({"a": NOTHING, "b": NOTHING.view(torch.int32)}),
    "frames": lambda: saved({"a": "x" * 100_000, "b": BASE, "c": "y" * 70_000}, protocol=4),
    "legacy": lambda: saved({"a": BASE, "b": BASE.t(), "c": [1, {2.5}]}, "legacy"),
}


def with_attribute() -> torch.nn.Parameter:
    parameter = torch.nn.Parameter(BASE)
    parameter.sharded = True  # type: ignore[attr-defined]
    return parameter


@pytest.mark.parametrize("make", SAME.values(), ids=SAME)
def test_what_torch_writes_is_read_as_torch_reads_it(
    make: Callable[[], bytes], tmp_path: Path, library: Library
) -> None:
    (tmp_path / "input").write_bytes(make())
    answer = library.read("zip" if make()[:2] == b"PK" else "torch", tmp_path / "input")
    assert answer is not None
    assert answer["readings"]
    reading = ours.checkpoint(tmp_path / "input")
    for theirs in answer["readings"].values():
        assert difference(reading, theirs) is None


def two_formats() -> dict[str, bytes]:
    """Files in two formats at once: to us the one, to `torch.load` the other."""
    tar = io.BytesIO()
    with tarfile.open(fileobj=tar, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        archive.addfile(tarfile.TarInfo("x"))
    block = bytearray(tar.getvalue()[:512])
    block[257:263] = bytes(6)  # an older form, which has no signature
    legacy = saved({"a": BASE}, "legacy")
    block[:8] = b"\x80\x02X" + struct.pack("<I", 512 - 8 + 1) + b"x"
    total = sum(block[:148]) + sum(block[156:]) + 8 * 0x20
    block[148:156] = b"%06o\0 " % total
    magic = b"0\x8a\x0a" + MAGIC_NUMBER.to_bytes(10, "little") + b"."
    as_tar = bytes(block) + b"x" + magic + legacy[legacy.index(b".", 10) + 1 :]

    # The length of the header begins, to a pickle, a line of text that ends behind the header.
    data = b"\n" + magic
    fields = {"dtype": "U8", "shape": [len(data)], "data_offsets": [0, len(data)]}
    text = json.dumps({"a": fields}).encode().ljust(ord("V") + 256)
    as_safetensors = len(text).to_bytes(8, "little") + text + data
    return {"tar": as_tar, "safetensors": as_safetensors}


@pytest.mark.parametrize("what", ["tar", "safetensors"])
def test_a_file_in_two_formats_is_refused(what: str, tmp_path: Path) -> None:
    (tmp_path / "input").write_bytes(two_formats()[what])
    if what == "tar":
        with tarfile.open(tmp_path / "input", "r:") as archive:
            assert archive.getmembers()
    else:
        assert pickle.loads((tmp_path / "input").read_bytes()) == MAGIC_NUMBER  # noqa: S301
        assert load_safetensors((tmp_path / "input").read_bytes())
    with pytest.raises(ConversionError, match=r"tar archive|and a pickle in one"):
        open_checkpoint(tmp_path / "input").close()


@pytest.mark.parametrize("first", [b"N.", b"I1", b"V\1", b"J\1", b"\x82\1", b"\x83\1", b"\x84\1"])
def test_a_header_whose_length_begins_some_pickle_is_read(first: bytes, tmp_path: Path) -> None:
    length = int.from_bytes(first, "little")
    fields = {"dtype": "U8", "shape": [1 << 20], "data_offsets": [0, 1 << 20]}
    text = json.dumps({"a": fields}).encode().ljust(length)
    content = length.to_bytes(8, "little") + text + bytes((1 << 20) - 4) + b"\n0N."
    assert load_safetensors(content)
    (tmp_path / "input").write_bytes(content)
    open_checkpoint(tmp_path / "input").close()


def test_a_header_whose_length_begins_a_call_of_an_extension_is_refused(tmp_path: Path) -> None:
    """To a pickle: extension 1, a line of text to be popped, no arguments, a call of it."""
    length, data = int.from_bytes(b"\x82\1V", "little"), b"\n0)R."
    fields = {"dtype": "U8", "shape": [len(data)], "data_offsets": [0, len(data)]}
    text = json.dumps({"a": fields}).encode().ljust(length)
    content = length.to_bytes(8, "little") + text + data
    assert load_safetensors(content)
    assert [opcode.name for opcode, _, _ in pickletools.genops(content)][-3:] == [
        *("EMPTY_TUPLE", "REDUCE", "STOP")
    ]
    (tmp_path / "input").write_bytes(content)
    with pytest.raises(UnsafeInputError, match="names extension 1 of the program"):
        open_checkpoint(tmp_path / "input").close()


@pytest.mark.parametrize(("name", "size"), [(b"\\ud800", b"0"), (b"a", b"-0")])
def test_what_is_no_text_or_size_to_safetensors_is_refused(
    name: bytes, size: bytes, tmp_path: Path, library: Library
) -> None:
    header = b'{"%s":{"dtype":"F32","shape":[%s],"data_offsets":[0,0]}}' % (name, size)
    content = len(header).to_bytes(8, "little") + header
    (tmp_path / "input").write_bytes(content)
    answer = library.read("safetensors", tmp_path / "input")
    assert answer is not None
    assert not answer["readings"]
    assert "not JSON" in refusal(content, tmp_path)


def reading(tree: Any) -> dict[str, Any]:
    return taken_apart(tree, lambda value: UNREAD if value is Ellipsis else None)


def test_readings_differ_by_names_values_and_kinds() -> None:
    one = reading({"a": [1, "x"], "b": {2}})
    assert difference(one, reading({"b": {2}, "a": [1, "x"]})) is None
    for other in ({"a": [1, "x"]}, {"a": [True, "x"], "b": {2}}, {"a": (1, "x"), "b": {2}}):
        assert difference(one, reading(other)) is not None
    assert difference(reading({"a": ...}), reading({"a": [1]})) is None
    assert path_of("a/b") in reading({"a/b": 1})


def test_a_library_that_dies_is_started_again(library: Library, tmp_path: Path) -> None:
    (tmp_path / "input").write_bytes(saved({"a": BASE}))
    before = library.deaths.copy()
    assert library.read("no such kind", tmp_path / "input") is None
    assert library.deaths - before == {"exits with 1": 2}
    answer = library.read("zip", tmp_path / "input")
    assert answer is not None
    assert answer["readings"].keys() == {"weights_only", "trusting", "mapped"}


def test_weights_without_bytes_kill_no_library(library: Library, tmp_path: Path) -> None:
    """`torch.jit.load` takes them, and whoever reads them crashes; we refuse the file before."""
    (folder,) = seeds.folders(tmp_path, "torchscript", seeds.KINDS[:1])
    path = folder.path / "model.torchscript.pt"
    archive = archives.parsed(path.read_bytes())
    weights = (part for part in archive if isinstance(part, archives.Local))
    next(part for part in weights if part.name.endswith(b"normalization.bias")).content = b""
    path.write_bytes(archives.written(archive))

    before = library.deaths.copy()
    answer = library.read("torchscript", path)
    assert answer is not None
    assert answer["readings"] == {}
    assert library.deaths == before
    with pytest.raises(ValueError, match="it ends at byte 0, where 16 are needed"):
        read_torchscript(folder, path)


QUICK = {
    "zip": 300,
    "pickle": 300,
    "legacy": 300,
    "safetensors": 2000,
    "torchscript": 50,
    "torchscript-source": 60,
    "onnx-source": 200,
    "hdf5": 200,
    "keras": 200,
    "numpy": 600,
    "distributed": 200,
    "msgpack": 500,
    "mindspore": 1000,
}
"""Cases of each target; all together take some ten seconds."""


@pytest.mark.parametrize("name", QUICK)
def test_nobody_reads_a_changed_file_otherwise(name: str, tmp_path: Path, library: Library) -> None:
    with running([name], 0, tmp_path, library) as run:
        for number in range(QUICK[name]):
            run.case(name, number)
    count = run.counts[name]
    assert not count.findings, [path.read_text() for path in tmp_path.glob("*.txt")]
    assert count.both > QUICK[name] // 20


CHECKS = {
    "zip": (ZipDirectory, "require_one_reading"),
    "pickle": (pickle_machine, "made_anew"),
    "safetensors": (safetensors_container, "_require_full_cover"),
}


@pytest.mark.parametrize("name", CHECKS)
def test_a_check_that_is_left_out_is_found(
    name: str, tmp_path: Path, library: Library, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(*CHECKS[name], lambda *_: None)
    with running([name], 0, tmp_path, library) as run:
        for number in range(3000):
            run.case(name, number)
            if run.counts[name].findings:
                return
    pytest.fail("not found")


def test_bytes_behind_a_tensor_of_a_pt2_are_no_tensor(tmp_path: Path) -> None:
    (folder,) = seeds.folders(tmp_path, "pt2", seeds.KINDS[:1])
    path = folder.path / "model.pt2"
    archive = archives.parsed(path.read_bytes())
    assert not any(held.fault for held in read_pt2(folder, path).tensors)
    (entry,) = (
        part
        for part in archive
        if isinstance(part, archives.Local) and part.name.endswith(b"/weight_1")
    )
    entry.content += bytes(8)
    path.write_bytes(archives.written(archive))
    faults = [held.fault for held in read_pt2(folder, path).tensors if held.fault]
    assert faults == ["has 24 bytes where its shape needs 16"]
