"""Published files that come in a zip: unpacked once, and nothing else than what was published."""

from __future__ import annotations

import hashlib
import io
import zipfile
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
import torch
import torchvision

from converters.errors import InputError
from converters.families.manifest import Published, find
from converters.progress import Silent
from converters.published import fetch
from tests.converters.server import Site, serving

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

NAME = "net-0123abcd.pth"


@pytest.fixture(scope="module")
def checkpoint() -> bytes:
    stream = io.BytesIO()
    torch.save({"w": torch.zeros(1000)}, stream)
    return stream.getvalue()


def zipped(content: bytes, name: str = NAME, kind: int = zipfile.ZIP_DEFLATED) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", kind) as archive:
        archive.writestr(name, content)
    return stream.getvalue()


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Site]:
    monkeypatch.setattr(fetch, "PAUSE", 0.0)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setenv("REGNET_CACHE", str(tmp_path))
    for variable in ("REGNET_OFFLINE", "HF_HUB_OFFLINE"):
        monkeypatch.delenv(variable, raising=False)
    with serving(Site(b"")) as site:
        yield site


def listed(site: Site, **fields: Any) -> Published:
    entry = find("regnetx002")
    assert entry
    return replace(entry, **{"url": f"{site.url}.zip", "sha1": None} | fields)


def left_behind(tmp_path: Path) -> set[str]:
    return {path.name for path in tmp_path.rglob("*") if path.is_file()}


@pytest.mark.parametrize("kind", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_what_is_in_the_zip_lies_in_the_cache(
    kind: int, checkpoint: bytes, site: Site, tmp_path: Path
) -> None:
    site.content = zipped(checkpoint, kind=kind)
    entry = listed(site, sha1=hashlib.sha1(checkpoint, usedforsecurity=False).hexdigest())

    for _ in range(2):
        path = fetch.fetch(entry, Silent())

    assert path == tmp_path / "pytorchcv" / "regnetx002" / NAME
    assert path.read_bytes() == checkpoint
    assert left_behind(tmp_path) == {NAME, f"{NAME}.sha256"}
    assert len(site.ranges) == 1


def encrypted(content: bytes) -> bytes:
    archive = bytearray(zipped(content))
    for signature, offset in ((b"PK\3\4", 6), (b"PK\1\2", 8)):
        archive[archive.index(signature) + offset] |= 1
    return bytes(archive)


def two(content: bytes) -> bytes:
    stream = io.BytesIO(zipped(content))
    with zipfile.ZipFile(stream, "a") as archive:
        archive.writestr("README", "more")
    return stream.getvalue()


def damaged(content: bytes) -> bytes:
    archive = bytearray(zipped(content, kind=zipfile.ZIP_STORED))
    archive[len(archive) // 2] ^= 1
    return bytes(archive)


WRONG = {
    "no zip": (lambda _: b"<html>", "none (File is not a zip file)"),
    "another name": (lambda c: zipped(c, "../evil.pth"), "it holds something else, or more"),
    "two files": (two, "it holds something else, or more"),
    "packed by lzma": (lambda c: zipped(c, kind=zipfile.ZIP_LZMA), "in a way of its own"),
    "encrypted": (encrypted, "encrypted"),
    "damaged": (damaged, "Bad CRC-32"),
    "too large": (lambda _: zipped(bytes(1 << 21)), "unpacks to 2097152 bytes, which no such"),
    "no checkpoint": (lambda _: zipped(b"<html>"), "is a web page"),
}


@pytest.mark.parametrize("what", WRONG)
def test_anything_else_is_refused_and_nothing_kept(
    what: str, checkpoint: bytes, site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fetch, "_MOST_OF_A_SMALL_FILE", 1 << 20)
    monkeypatch.setattr(fetch, "_MOST_OF_A_PARAMETER", 0)
    make, words = WRONG[what]
    site.content = make(checkpoint)

    with pytest.raises(InputError) as caught:
        fetch.fetch(listed(site), Silent())

    assert words in str(caught.value)
    assert str(caught.value).endswith("it was deleted, so run the command again.")
    assert not left_behind(tmp_path)


def test_other_bytes_than_were_published_are_refused(
    checkpoint: bytes, site: Site, tmp_path: Path
) -> None:
    site.content = zipped(checkpoint)

    with pytest.raises(
        InputError, match=rf"^{NAME} has the sha1 .* where {'0' * 40} was published"
    ):
        fetch.fetch(listed(site, sha1="0" * 40), Silent())

    assert not left_behind(tmp_path)


def test_a_file_that_is_published_as_it_is_is_not_unpacked(site: Site) -> None:
    """The container of torch is a zip too."""
    stream = io.BytesIO()
    torch.save(torchvision.models.regnet_x_400mf().state_dict(), stream)
    site.content = stream.getvalue()

    path = fetch.fetch(listed(site, url=site.url), Silent())

    assert path.read_bytes() == site.content
