"""What a file is, told from its first bytes; and where it is no checkpoint, what to do.

People meet these after a download that went wrong. A loader that starts to unpickle them ends in
an error about pickles, which helps nobody.
"""

from __future__ import annotations

import re

from regnet.config import CONFIG_NAME

HEAD_SIZE = 1024
"""How many bytes :func:`describe_wrong_file` wants to see."""

KERAS_METADATA, KERAS_CONFIG, KERAS_WEIGHTS = "metadata.json", CONFIG_NAME, "model.weights.h5"
"""The entries of a ``.keras`` archive: who wrote it, a network's description, its weights."""

_KERAS_ENTRIES = tuple(name.encode() for name in (KERAS_METADATA, KERAS_CONFIG, KERAS_WEIGHTS))
_ZIP_START = b"PK\x03\x04"
_NAME_LENGTH, _NAME = 26, 30  # offsets in the header of a zip archive's first entry

_MSGPACK_MAPS = (*range(0x81, 0x90), 0xDE, 0xDF)
_MSGPACK_TEXTS = (*range(0xA0, 0xC0), 0xD9, 0xDA, 0xDB)
"""How a map of msgpack that is not empty may begin, and a text."""

_MINDSPORE_START = re.compile(rb"\n[\x80-\xff]{0,9}[\x00-\x7f]\n([\x80-\xff]?)([\x01-\x7f])")
"""An entry of MindSpore's that begins with its name: lengths in parts of seven bits, the lowest
first."""

_MINDSPORE_TENSOR = re.compile(rb"\x12[\x80-\xff]{0,9}[\x00-\x7f][\x08\x12]")
"""What follows that name: a tensor, which begins with its axes or its type."""

_UNPACK = "unpack it and name the file inside"
_DOWNLOAD = "the download went wrong, so download the checkpoint again"
_EXPORTED = "name the PyTorch checkpoint it was made from"

# (offset, bytes there, what it is, what to do); the first that fits counts.
_SIGNATURES: tuple[tuple[int, bytes, str, str], ...] = (
    (0, b"version https://git-lfs.github.com", "a git-lfs pointer", "run `git lfs pull`"),
    (0, b"# xet version", "a git-xet pointer", "run `git xet checkout`"),
    (0, b"\x1f\x8b", "compressed with gzip", _UNPACK),
    (0, b"\xfd7zXZ\x00", "compressed with xz", _UNPACK),
    (0, b"BZh", "compressed with bzip2", _UNPACK),
    (0, b"\x28\xb5\x2f\xfd", "compressed with zstd", _UNPACK),
    (0, b"7z\xbc\xaf\x27\x1c", "a 7-Zip archive", _UNPACK),
    (0, b"Rar!", "a RAR archive", _UNPACK),
    (0, b"\x93NUMPY", "a NumPy array without a name", "save the state dict with numpy.savez"),
    (0, b"GGUF", "a GGUF model", _EXPORTED),
    (4, b"TFL3", "a TensorFlow Lite model", _EXPORTED),
    (0, b"\x89PNG", "a PNG image", "name a checkpoint"),
    (0, b"\xff\xd8\xff", "a JPEG image", "name a checkpoint"),
    (0, b"%PDF", "a PDF document", "name a checkpoint"),
)

HDF5_START = b"\x89HDF\r\n\x1a\n"

_TAR = (
    f"is a tar archive; {_UNPACK}, or if PyTorch before 0.2 wrote it, save it again with a "
    "newer one"
)

_HTML_STARTS = (b"<!doctype", b"<html", b"<head", b"<?xml")

_CONTROL = frozenset(range(0x20)) - frozenset(b"\t\n\r")

# A protobuf message begins with its first field. ONNX and TensorFlow write a version there, an
# integer of one byte, then a string or message with one of these tags.
_PROTOBUF_FIRST_TAG = 0x08
_PROTOBUF_SECOND_TAGS = b"\x12\x1a\x22\x3a\x42"


def describe_wrong_file(head: bytes) -> str | None:
    """Say what a file is that is no checkpoint, and what to do about it.

    Args:
        head: The first :data:`HEAD_SIZE` bytes, or all of a smaller file.

    Returns:
        The end of a sentence, ``"is compressed with gzip; unpack it and name the file inside"``,
        or ``None`` when nothing speaks against the file.
    """
    if not head.strip(b"\0"):
        return f"{'begins with nothing but zeros' if head else 'is empty'}; {_DOWNLOAD}"
    for offset, signature, what, advice in _SIGNATURES:
        if head.startswith(signature, offset):
            return f"is {what}; {advice}"
    if is_tar(head):
        return _TAR
    if is_protobuf(head):
        return f"is a protobuf file, as ONNX and TensorFlow write them; {_EXPORTED}"
    return _wrong_text(head)


def _wrong_text(head: bytes) -> str | None:
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    if text.startswith(_HTML_STARTS):
        return f"is a web page; {_DOWNLOAD}"
    if text.startswith((b"{", b"[")) and not _CONTROL.intersection(text):
        return (
            "is JSON text and no weights; if it belongs to a folder, name the folder, and if a "
            "server sent it instead of a file, download the checkpoint again"
        )
    return None


def is_protobuf(head: bytes) -> bool:
    """Return whether a file begins as messages of protobuf do that state their version first."""
    return (
        head[:1] == bytes([_PROTOBUF_FIRST_TAG])
        and bool(head[2:3])
        and head[2] in _PROTOBUF_SECOND_TAGS
    )


def is_tar(head: bytes) -> bool:
    """Return whether a file begins as a tar archive does, whose header has a checksum of itself.

    torch looks for one in any file that is no zip archive, pickles included, by tarfile.
    """
    from tarfile import BLOCKSIZE, HeaderError, TarInfo

    try:
        TarInfo.frombuf(head[:BLOCKSIZE], "utf-8", "surrogateescape")
    except HeaderError:
        return False
    return True


def looks_like_safetensors(head: bytes) -> bool:
    """Return whether a file begins as safetensors do: an eight-byte length, then ``{``.

    The two highest bytes of any real length are zero, which no text has.
    """
    return head[6:9] == b"\x00\x00{"


def looks_like_keras(head: bytes) -> bool:
    """Return whether a file begins as a ``.keras`` archive: with one of its entries, in no folder.

    All that torch writes is in one.
    """
    return head.startswith(_ZIP_START) and _first_entry(head) in _KERAS_ENTRIES


def looks_like_npz(head: bytes) -> bool:
    """Return whether a file begins as a zip archive whose first entry is an array."""
    return head.startswith(_ZIP_START) and _first_entry(head).endswith(b".npy")


def _first_entry(head: bytes) -> bytes:
    """The name of a zip archive's first entry."""
    length = int.from_bytes(head[_NAME_LENGTH : _NAME_LENGTH + 2], "little")
    return head[_NAME : _NAME + length]


def looks_like_msgpack(head: bytes) -> bool:
    """Return whether a file begins as Flax's do: a map that is not empty, and a text as its key."""
    if not head or head[0] not in _MSGPACK_MAPS:
        return False
    key = head[{0xDE: 3, 0xDF: 5}.get(head[0], 1) :]
    return bool(key) and key[0] in _MSGPACK_TEXTS


def looks_like_mindspore(head: bytes) -> bool:
    """Return whether a file begins as MindSpore's checkpoints do: a name, then a tensor.

    TensorFlow's frozen graphs begin with a name, too, and go on with a text.
    """
    start = _MINDSPORE_START.match(head)
    if start is None:
        return False
    low, high = start.groups()
    length = low[0] - 0x80 + (high[0] << 7) if low else high[0]
    return _MINDSPORE_TENSOR.match(head, start.end() + length) is not None
