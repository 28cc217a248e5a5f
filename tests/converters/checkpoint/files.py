"""Makes the files the tests open, and checks what all refusals have in common."""

from __future__ import annotations

import errno
import io
import os
import pickle
import struct
import zipfile
from typing import TYPE_CHECKING, Any

import pytest
import torch

from converters.checkpoint import open_checkpoint
from converters.checkpoint.sniff import HEAD_SIZE
from converters.errors import ConversionError, InputError
from tests.converters.checkpoint.compare import LAYOUTS

if TYPE_CHECKING:
    from pathlib import Path


TREE = {"weight": torch.arange(6.0).reshape(2, 3), "epoch": 3}


def saved(tree: Any, layout: str = "zip", protocol: int = 2) -> bytes:
    buffer = io.BytesIO()
    torch.save(
        tree, buffer, pickle_protocol=protocol, _use_new_zipfile_serialization=LAYOUTS[layout]
    )
    return buffer.getvalue()


def fail_behind_the_head(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the device fail at every read that goes beyond what a file is recognised by."""
    pread = os.pread

    def fails(descriptor: int, length: int, offset: int) -> bytes:
        if offset + length > HEAD_SIZE:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return pread(descriptor, length, offset)

    monkeypatch.setattr("converters.checkpoint.source_file.os.pread", fails)


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
    assert message.isprintable()
    assert str(folder) not in message
    return message


def in_zip(data: bytes, **entries: bytes) -> bytes:
    """Return a checkpoint whose pickle is ``data``, with one storage of two floats, ``0``."""
    contents = {
        "data.pkl": data,
        "data/0": struct.pack("<2f", 1, 2),
        "byteorder": b"little",
        "version": b"3\n",
    }
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
