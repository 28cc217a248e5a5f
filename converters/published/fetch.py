"""Fetching published checkpoints into a cache, where a second conversion finds them.

A file is downloaded beside its place under another name, continued where an earlier attempt ended,
and moved into its place when it is whole. ``REGNET_CACHE`` names the cache; ``REGNET_OFFLINE``, or
``HF_HUB_OFFLINE``, forbids the network.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import time
from contextlib import contextmanager
from http import HTTPStatus
from http.client import HTTPException, responses
from pathlib import Path
from typing import IO, TYPE_CHECKING
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

from converters.checkpoint.values import printable
from converters.errors import InputError, StorageError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from email.message import Message
    from http.client import HTTPResponse

    from converters.progress import Progress
    from converters.published.manifest import Published

TIMEOUT = 30.0
"""Seconds that a server may be silent."""

PAUSE = 1.0
"""Seconds between attempts."""

_ATTEMPTS = 3
"""In a row that bring next to nothing, before the download is given up."""

_LEAST = 1 << 14
"""Bytes that an attempt, or a server in :data:`TIMEOUT`, must bring."""

_CHUNK = 1 << 20
_NETWORK_ERRORS = (URLError, TimeoutError, ConnectionError, HTTPException)
_WORTH_REPEATING = {HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_MANY_REQUESTS}


def cache_folder() -> Path:
    """Where fetched checkpoints are kept: ``REGNET_CACHE``, else ``~/.cache/regnet``."""
    return Path(os.environ.get("REGNET_CACHE") or Path.home() / ".cache" / "regnet")


def is_offline() -> bool:
    """Whether the environment forbids the network."""
    switches = (os.environ.get(name, "") for name in ("REGNET_OFFLINE", "HF_HUB_OFFLINE"))
    return any(value.upper() in {"1", "ON", "YES", "TRUE"} for value in switches)


def fetch(published: Published, progress: Progress) -> Path:
    """Give a published checkpoint's file or folder in the cache, fetched unless it is there.

    Args:
        published: An entry of the manifest.
        progress: Told the bytes.

    Raises:
        InputError: If what arrived is not what the manifest promises; it is deleted.
        StorageError: If it cannot be fetched, or the cache cannot be written.
    """
    folder = cache_folder() / published.publisher / published.name
    if published.url is None:
        from converters.published.fetch_hub import fetch_repository

        return fetch_repository(published.full_name, folder, progress, offline=is_offline())
    target = folder / published.url.rsplit("/", 1)[1]
    if not target.is_file():
        if is_offline():
            raise StorageError(
                f"{published.full_name} is not in the cache and the network is forbidden; unset "
                f"REGNET_OFFLINE and HF_HUB_OFFLINE, or fetch {published.url} elsewhere."
            )
        with _cache_errors(published.full_name):
            download(published.url, target, progress, published.sha256)
    return target


def download(url: str, target: Path, progress: Progress, sha256: str | None = None) -> None:
    """Download a file, continuing an earlier attempt where the server can.

    Args:
        url: Of the file.
        target: Its place; the folder is made.
        progress: Told the bytes.
        sha256: How its digest must begin.

    Raises:
        InputError: If the digest begins differently; the file is deleted.
        StorageError: If the server cannot be reached, has no such file, or keeps breaking off.
        OSError: If the file cannot be written.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    incomplete = target.with_name(f"{target.name}.incomplete")
    version = target.with_name(f"{target.name}.version")
    with _locked(incomplete) as file:
        failures = 0
        while failures < _ATTEMPTS:
            before = file.seek(0, os.SEEK_END)
            try:
                _receive(url, file, version, progress)
                break
            except _NETWORK_ERRORS as error:
                _recover(error, url, file)
                failures = 1 if file.tell() - before >= _LEAST else failures + 1
                reason = _in_words(error)
                time.sleep(PAUSE)
        else:
            raise StorageError(
                f"{url} cannot be fetched ({reason}); run the command again to continue from "
                f"{file.tell()} bytes."
            )
        file.flush()
        os.fsync(file.fileno())
        version.unlink(missing_ok=True)
        _require_digest(incomplete, sha256, url)
        incomplete.replace(target)


def _receive(url: str, file: IO[bytes], version: Path, progress: Progress) -> None:
    """Append to a file what is missing of it, or fill it anew if the server has another version.

    ``version`` keeps what the server calls its file (an ETag or a date): continuing a file that was
    replaced meanwhile would join two halves.
    """
    held = file.seek(0, os.SEEK_END)
    request = Request(url, headers={"User-Agent": "regnet-converters"})  # noqa: S310 -- the manifest's
    if held and version.is_file():
        request.add_header("Range", f"bytes={held}-")
        request.add_header("If-Range", version.read_text(encoding="utf-8"))
    with urlopen(request, timeout=TIMEOUT) as response:  # noqa: S310
        if response.status != HTTPStatus.PARTIAL_CONTENT:
            held = file.seek(0)
            file.truncate()
            _keep_version(response.headers, version)
        length = _length(response.headers)
        _require_space(version.parent, length)
        progress.step(f"fetching {version.stem}", held + length or None)
        progress.advance(held)
        for chunk in _chunks(response):
            file.write(chunk)
            progress.advance(len(chunk))
    if length and file.tell() != held + length:
        raise ConnectionError(f"the connection ended after {file.tell()} of {held + length} bytes")


def _length(headers: Message) -> int:
    """What the server says that it sends, in bytes; 0 if it does not say."""
    stated = headers.get("Content-Length", "")
    return int(stated) if stated.isdecimal() and stated.isascii() else 0


def _chunks(response: HTTPResponse) -> Iterator[bytes]:
    """What a server sends, unless it takes forever over it.

    Raises:
        TimeoutError: If next to nothing comes in :data:`TIMEOUT`.
    """
    began, received = time.monotonic(), 0
    while chunk := response.read1(_CHUNK):
        yield chunk
        received += len(chunk)
        if time.monotonic() - began > TIMEOUT:
            if received < _LEAST:
                raise TimeoutError(f"the server sent only {received} bytes in {TIMEOUT:g} seconds")
            began, received = time.monotonic(), 0


def _keep_version(headers: Message, version: Path) -> None:
    """Remember which version is being fetched, unless by a weak ETag (RFC 9110, 13.1.5)."""
    etag = headers.get("ETag", "W/")
    strong = headers.get("Last-Modified") if etag.startswith("W/") else etag
    if strong:
        version.write_text(strong, encoding="utf-8")
    else:
        version.unlink(missing_ok=True)


def _in_words(error: Exception) -> str:
    cause = getattr(error, "reason", None) or error
    words = getattr(cause, "strerror", None) or str(cause) or type(cause).__name__
    return printable(" ".join(words.split()))


def _recover(error: Exception, url: str, file: IO[bytes]) -> None:
    """Make the next attempt possible, or raise if it would be answered the same."""
    if not isinstance(error, HTTPError):
        return
    error.close()
    status = error.code
    if status == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
        file.truncate(0)
    elif status < HTTPStatus.INTERNAL_SERVER_ERROR and status not in _WORTH_REPEATING:
        in_words = responses.get(status, "which has no meaning")
        raise StorageError(
            f"{url} cannot be fetched: the server answers {status} ({in_words}); if that "
            "persists, the checkpoint was moved or withdrawn, so convert a copy of your own."
        ) from error


def _require_space(folder: Path, nbytes: int) -> None:
    free = shutil.disk_usage(folder).free
    if free < nbytes:
        raise StorageError(
            f"The cache has room for {free} bytes where {nbytes} are to be fetched; make room or "
            "set REGNET_CACHE to a folder on another disk."
        )


def _require_digest(path: Path, beginning: str | None, url: str) -> None:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if beginning and not digest.startswith(beginning):
        path.unlink()
        raise InputError(
            f"{url} has the sha256 {digest[:16]}... where its name promises {beginning}; it was "
            "deleted, so run the command again, and distrust the network if that repeats."
        )


@contextmanager
def _locked(path: Path) -> Iterator[IO[bytes]]:
    """Open a file for appending that no other process is filling."""
    with path.open("ab+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise StorageError(
                f"Another command is fetching {path.stem} at this moment; run this one again when "
                "it is done."
            ) from error
        try:
            yield file
        finally:
            if not file.seek(0, os.SEEK_END):
                path.unlink(missing_ok=True)


@contextmanager
def _cache_errors(name: str) -> Iterator[None]:
    """Turn the operating system's errors into one sentence."""
    try:
        yield
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise StorageError(
            f"{name} cannot be kept in the cache ({reason}); make room or set REGNET_CACHE to a "
            "folder that can be written."
        ) from error
