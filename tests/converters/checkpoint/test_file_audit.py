"""Whatever would run code is called that, by every command, in whatever it hides."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import pickle
import struct
import tarfile
import zipfile
import zlib
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from converters.checkpoint import file_audit as auditing
from converters.checkpoint import open_any, open_checkpoint
from converters.checkpoint.security import inspect_security
from converters.errors import UnsafeInputError
from converters.families.options import SourceOptions
from converters.weights.inspection import inspected
from tests.converters.checkpoint.files import in_zip, refusal, saved, zip_of
from tests.converters.checkpoint.test_code_in_pickles import Call
from tests.converters.cli.running import regnet

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

GONE = "touch ran"
EVIL = b"\x80\x02cposix\nsystem\nX\x09\x00\x00\x00touch ran\x85R."
PLAIN = pickle.dumps({"a": [1, 2.5, "three", b"4", None]}, 2)
RAN = "posix.system"
NAMED = (RAN, "extension 1 of", "of what a.b returns")
"""What is named, where something that stands before the call is as bad."""


def array(dtype: object = float) -> bytes:
    np.save(buffer := io.BytesIO(), np.array([1, 2], dtype), allow_pickle=True)
    return buffer.getvalue()


def objects() -> bytes:
    np.save(buffer := io.BytesIO(), np.array([Call(os.system, GONE)], object), allow_pickle=True)
    return buffer.getvalue()


def objects_by_name() -> bytes:
    """An array of objects whose header does not say ``O``."""
    content = objects()
    start = 10 + int.from_bytes(content[8:10], "little")
    header = b"{'descr': 'object', 'fortran_order': False, 'shape': (1,), }".ljust(117) + b"\n"
    return content[:8] + struct.pack("<H", len(header)) + header + content[start:]


def arrays(**members: Any) -> bytes:
    np.savez(buffer := io.BytesIO(), **members)
    return buffer.getvalue()


def tar(**members: bytes) -> bytes:
    with tarfile.open(fileobj=(buffer := io.BytesIO()), mode="w") as archive:
        for name, content in members.items():
            (info := tarfile.TarInfo(name)).size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def old_tar(**members: bytes) -> bytes:
    """As it was before POSIX gave headers a magic number, which tarfile still reads."""
    content = bytearray(tar(**members))
    content[257:265] = bytes(8)
    content[148:156] = b" " * 8  # which the checksum is taken over
    content[148:156] = b"%06o\0 " % sum(content[: tarfile.BLOCKSIZE])
    return bytes(content)


def zipped(**entries: bytes) -> bytes:
    return zip_of({name.replace("__", "/"): content for name, content in entries.items()})


def legacy() -> bytes:
    return saved({"w": torch.ones(1)}, "legacy")


def behind_a_name(*parts: bytes) -> bytes:
    return b"\x80\x02" + b"".join(parts) + EVIL[2:]


ATTACKS: dict[str, bytes] = {
    **{
        f"protocol {protocol}": pickle.dumps([1, Call(os.system, GONE)], protocol)
        for protocol in range(pickle.HIGHEST_PROTOCOL + 1)
    },
    "INST": b"(S'touch ran'\niposix\nsystem\n.",
    "OBJ": b"(cposix\nsystem\nS'touch ran'\no.",
    "NEWOBJ": b"\x80\x02cposix\nsystem\nU\x09touch ran\x85\x81.",
    "NEWOBJ_EX": b"\x80\x04cposix\nsystem\nU\x09touch ran\x85}\x92.",
    "names from the memo": b"\x80\x04\x8c\x05posix\x94\x8c\x06system\x94h\0h\1\x93)R.",
    # It has run when the rest turns out to be broken.
    "broken behind": EVIL[:-1] + b"\xff\xff",
    "cut off behind": EVIL[:-1],
    "a stack that is empty behind": EVIL[:-1] + b"0R.",
    "another opcode behind": EVIL[:-1] + b"0\x98.",
    # What the reader has no use for does not hide it.
    "behind an extension": behind_a_name(b"\x82\x010"),
    "behind a persistent name": b"Pkey\n0" + EVIL[2:],
    "behind a persistent tuple": behind_a_name(b"U\x01x\x85Q0"),
    "in a persistent tuple": b"\x80\x02cposix\nsystem\n\x85Q.",
    "behind a buffer": b"\x80\x05\x97\x98" + b"0" + EVIL[2:],
    "behind a long number": behind_a_name(b"\x8b" + (1 << 10).to_bytes(4, "little") + b"\1" * 1024),
    "behind a state of a list": behind_a_name(b"]}b0"),
    "behind a second call": behind_a_name(b"ca\nb\n)R)R0"),
    "the second of two": PLAIN + EVIL,
    "in an object array": objects(),
    "in an object array of another spelling": objects_by_name(),
    "in an array in an archive": arrays(a=np.ones(2), b=np.array([Call(os.system, GONE)], object)),
    "in an archive": zipped(data__x=EVIL),
    "in an archive, named otherwise": zipped(weights__bin=EVIL, readme=b"words"),
    "in an archive, protocol 0": zipped(weights__bin=b"cposix\nsystem\n(S'touch ran'\ntR."),
    "in an archive in an archive": zipped(model__pt=in_zip(EVIL)),
    "compressed in an archive": zip_of({"x/y.bin": EVIL + bytes(70_000)}, zipfile.ZIP_DEFLATED),
    "beside a checkpoint": in_zip(PLAIN, **{"extra/more.pkl": EVIL}),
    "beside a checkpoint, named otherwise": in_zip(PLAIN, more=EVIL),
    "beside a checkpoint, in an archive": in_zip(PLAIN, more=in_zip(EVIL)),
    "with a wrong checksum": in_zip(EVIL, byteorder=b"big"),
    "in TorchScript": in_zip(EVIL, **{"constants.pkl": PLAIN, "code/x.py": b""}),
    "gzip": gzip.compress(EVIL),
    "gzip, cut off": gzip.compress(EVIL + os.urandom(1000))[:200],
    "bzip2": bz2.compress(EVIL),
    "xz": lzma.compress(EVIL),
    "lzma": lzma.compress(EVIL, lzma.FORMAT_ALONE),
    "zlib": zlib.compress(EVIL),
    "a checkpoint in gzip": gzip.compress(in_zip(EVIL)),
    "tar": tar(sys_info=PLAIN, pickle=EVIL),
    "tar without a magic number": old_tar(pickle=EVIL),
    "tar in gzip": gzip.compress(tar(x=EVIL)),
    "a tar that begins as a pickle": EVIL.ljust(257, b"\0") + b"ustar" + bytes(250),
    "cut off in torch's old form": saved({"x": Call(os.system, GONE)}, "legacy")[:-9],
}  # fmt: skip


@pytest.mark.parametrize("content", ATTACKS.values(), ids=ATTACKS)
def test_an_attack_is_unsafe_to_every_command_in_whatever_it_hides(
    content: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    message = refusal(content, tmp_path, UnsafeInputError)
    assert any(name in message for name in NAMED)
    assert "load it" not in message
    with pytest.raises(UnsafeInputError) as caught:
        inspect_security(tmp_path / "model.pyth").require_harmless()
    assert any(name in str(caught.value) for name in NAMED)
    assert not (tmp_path / "ran").exists()


def foreign() -> bytes:
    return pickle.dumps(Looks(), 2)


class Looks:
    """A class of a package that nobody knows."""


FOREIGN = f"{__name__}.Looks"


@pytest.mark.parametrize("wrap", [bytes, gzip.compress, lambda pickled: zipped(a__b=pickled)])
def test_a_pickle_of_an_unknown_class_is_unsafe_where_it_is_no_file_of_torch_s(
    wrap: Callable[[bytes], bytes], tmp_path: Path
) -> None:
    assert FOREIGN in refusal(wrap(foreign()), tmp_path, UnsafeInputError)


def test_a_checkpoint_that_is_damaged_is_not_an_attack_for_its_trainer_s_classes(
    tmp_path: Path,
) -> None:
    tree = {"w": torch.ones(9), "config": Looks()}
    assert "is truncated" in refusal(saved(tree, "legacy")[:-9], tmp_path)
    assert "is truncated" in refusal(saved(tree)[:-9], tmp_path)
    big_endian = in_zip(foreign(), byteorder=b"big")
    assert "only 'little' is read" in refusal(big_endian, tmp_path)


HARMLESS: dict[str, bytes] = {
    "an array": array(),
    "an array of objects that are plain": array(object),
    "an archive of arrays, one of them of objects": arrays(a=np.ones(2), b=np.array([1, None])),
    "a plain pickle": PLAIN,
    "a plain pickle of an array of objects": pickle.dumps({"w": np.array([1, None])}, 4),
    "words": b"cat\ndog\nbird\n",
    "a text": b"copyright nobody\nin no year\n",
    "Python": b"class Net(Module):\n    pass\n",
    "gzip": gzip.compress(PLAIN),
    "gzip of a checkpoint": gzip.compress(saved({"w": torch.ones(1)})),
    "tar": tar(x=PLAIN),
    "a zip of texts": zipped(a__txt=b"cat\ndog\n", a__py=b"class Net:\n    x = 1\n"),
    "a web page": b"<!doctype html><html></html>",
    "numbers": np.random.default_rng(0).standard_normal(20_000).astype("<f4").tobytes(),
}


def test_tensors_that_begin_as_instructions_are_no_pickles(tmp_path: Path) -> None:
    draws = np.random.default_rng(0).integers(0, 256, (300, 400), np.uint8)
    draws[:, 0] = list(b"\x82\x83\x84\x93cN}(KJ" * 30)
    content = zip_of({f"a/weights/{n}": row.tobytes() for n, row in enumerate(draws)})
    assert "is a zip archive but no checkpoint" in refusal(content, tmp_path)


@pytest.mark.parametrize("content", HARMLESS.values(), ids=HARMLESS)
def test_what_is_no_checkpoint_but_harmless_is_not_unsafe(content: bytes, tmp_path: Path) -> None:
    message = refusal(content, tmp_path)
    assert "load it" not in message
    assert "program that made it" not in message
    report = inspect_security(tmp_path / "model.pyth")
    assert not report.running
    assert report.harmless == (report.kind == "numpy")
    assert report.harmless or str(report.refusal) == message


@pytest.mark.parametrize("layout", ["zip", "legacy"])
def test_a_checkpoint_is_read_as_before(layout: str, tmp_path: Path) -> None:
    tree = {"w": torch.ones(2), "config": Looks(), "array": np.ones(2)}
    (tmp_path / "model.pyth").write_bytes(saved(tree, layout))
    open_checkpoint(tmp_path / "model.pyth").close()


def test_a_folder_s_files_are_looked_at_too(tmp_path: Path) -> None:
    (tmp_path / "pytorch_model.bin").write_bytes(gzip.compress(EVIL))
    with pytest.raises(UnsafeInputError, match=RAN):
        open_any(tmp_path)
    with pytest.raises(UnsafeInputError, match=RAN), inspected(tmp_path, SourceOptions()):
        pass


@pytest.mark.parametrize("command", [("inspect",), ("inspect", "--security"), ("convert", "-q")])
def test_the_commands_end_with_3_and_name_what_would_run(
    command: tuple[str, ...], tmp_path: Path
) -> None:
    (tmp_path / "model.pkl").write_bytes(behind_a_name(b"\x82\x010"))
    output = ("out",) if command[0] == "convert" else ()
    finished = regnet(*command, "model.pkl", *output, cwd=tmp_path)
    assert finished.status == 3
    assert f"{RAN} at byte 5 and 1 more" in finished.err or "names extension 1 of" in finished.err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model.pkl"]


def test_files_in_files_are_looked_at_within_bounds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nested = EVIL
    for _ in range(5):
        nested = gzip.compress(nested)
    assert "gzip" in refusal(nested, tmp_path)
    monkeypatch.setattr(auditing, "_MAX_LOOKED_AT", 1 << 20)
    many = {f"a/{number}": pickle.dumps("x" * (1 << 17), 2) for number in range(10)}
    refusal(zip_of(many), tmp_path)
    report = inspect_security(tmp_path / "model.pyth")
    assert report.pickles[-1].lost == "the first 1048576 bytes in it"
    monkeypatch.setattr(auditing, "_MAX_INSTRUCTIONS", 10_000)
    refusal(zip_of({f"a/{number}": b"N" * 9_000 for number in range(9)}), tmp_path)
    report = inspect_security(tmp_path / "model.pyth")
    assert report.pickles[-1].lost == "the first 1048576 bytes in it"
    bomb = io.BytesIO()
    with zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a/x", b"\x1f\x8b" + bytes(1 << 22))
    monkeypatch.setattr(auditing, "_MAX_UNPACKED", 1 << 18)
    assert "is a zip archive but no checkpoint" in refusal(bomb.getvalue(), tmp_path)
