"""A file that is no checkpoint is called what it is, in one sentence."""

from __future__ import annotations

import io
import os
import tarfile
from pathlib import Path

import numpy as np
import pytest

from converters.checkpoint import open_checkpoint
from converters.checkpoint.source_file import SourceFile
from converters.errors import InputError, StorageError
from tests.converters.checkpoint.files import TREE, refusal, saved


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
    "hdf5": (
        b"\x89HDF\r\n\x1a\n" + bytes(range(200)),
        "is truncated or damaged, it cannot be read as HDF5",
    ),
    "onnx": (b"\x08\x0a\x12\x07pytorch\x3a\x80" + bytes(50), "cannot be read as protobuf, it"),
    "text": (b"hello, world\n", "is no checkpoint of a known kind"),
    "noise": (bytes(range(7, 250)), "is no checkpoint of a known kind"),
}


@pytest.mark.parametrize(("content", "expected"), WRONG_FILES.values(), ids=WRONG_FILES)
def test_a_wrong_file_is_called_what_it_is(content: bytes, expected: str, tmp_path: Path) -> None:
    assert refusal(content, tmp_path).startswith(f"model.pyth: {expected}")


def test_real_files_of_other_programs_are_called_what_they_are(tmp_path: Path) -> None:
    import onnx

    model = onnx.ModelProto(ir_version=8, producer_name="test").SerializeToString()
    assert "is a protobuf file, as ONNX and TensorFlow write them" in refusal(model, tmp_path)
    np.save(buffer := io.BytesIO(), np.ones(2))
    assert "is a NumPy array without a name" in refusal(buffer.getvalue(), tmp_path)


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


def test_a_file_that_turns_into_a_pipe_before_it_is_opened_is_not_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "model.pyth").write_bytes(saved(TREE))
    before = (tmp_path / "model.pyth").stat()
    (tmp_path / "model.pyth").unlink()
    os.mkfifo(tmp_path / "model.pyth")
    writer = os.open(tmp_path / "model.pyth", os.O_RDWR)  # without one, opening it would wait
    monkeypatch.setattr(Path, "stat", lambda _: before)
    with pytest.raises(InputError, match=r"^model\.pyth: is not a regular file"):
        SourceFile(tmp_path / "model.pyth")
    os.close(writer)


def test_a_file_that_may_not_be_opened_is_an_error_of_the_environment(tmp_path: Path) -> None:
    (tmp_path / "loop.pth").symlink_to("loop.pth")
    with pytest.raises(StorageError, match=r"^loop\.pth: cannot be opened \(.+\)\.$"):
        open_checkpoint(tmp_path / "loop.pth")
    (tmp_path / "secret.pth").touch(mode=0)
    if os.geteuid() != 0:
        with pytest.raises(StorageError, match="Permission denied"):
            open_checkpoint(tmp_path / "secret.pth")
