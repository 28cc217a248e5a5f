"""Fetching published checkpoints into a cache, where a second conversion finds them.

A file is downloaded beside its place under another name, continued where an earlier attempt ended,
and moved into its place when it is whole. ``REGNET_CACHE`` names the cache; ``REGNET_OFFLINE``, or
``HF_HUB_OFFLINE``, forbids the network.
"""

from __future__ import annotations

import os
import time
from contextlib import ExitStack, contextmanager
from functools import partial
from http import HTTPStatus
from http.client import HTTPException, responses
from pathlib import Path
from typing import IO, TYPE_CHECKING
from urllib.error import HTTPError, URLError
from urllib.request import Request

from converters.checkpoint import open_checkpoint
from converters.checkpoint.digests import sha256_of
from converters.errors import DISTRIBUTION, ConversionError, InputError, StorageError, in_words
from converters.published.http import content_length, content_range, opened
from converters.published.unpack import unpack
from converters.staging.staged import require_bytes
from regnet.files import system

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from email.message import Message
    from http.client import HTTPResponse

    from converters.families.manifest import Published
    from converters.progress import Progress

TIMEOUT = 30.0
"""Seconds that a server may be silent."""

PAUSE = 1.0
"""Seconds between attempts."""

_ATTEMPTS = 3
"""In a row that bring next to nothing, before the download is given up."""

_LEAST = 1 << 14
"""Bytes that an attempt, or a server in :data:`TIMEOUT`, must bring."""

_CHUNK = 1 << 20
_SLOW = 4096
"""Bytes a second that must come on average over twenty times :data:`TIMEOUT`."""

_MOST_OF_A_PARAMETER = 64
"""Bytes: float64 with an optimiser's moments, and as much again."""

_MOST_OF_A_SMALL_FILE = 1 << 28
_MOST_OF_ANY = 1 << 40
"""Bytes, where the manifest does not know the network's size."""

_MOST_OF_A_VERSION = 200

_ELSEWHERE = "set REGNET_CACHE to a folder on another disk"

# ValueError is what urllib makes of addresses and headers that are none.
_NETWORK_ERRORS = (URLError, TimeoutError, ConnectionError, HTTPException, ValueError)
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

    Raises:
        InputError: If what arrived is not what the manifest promises; it is deleted.
        StorageError: If it cannot be fetched, or the cache cannot be written.
    """
    folder = cache_folder() / published.publisher / published.name.replace("/", "-")
    if published.url is None:
        from converters.published.fetch_hub import fetch_repository

        repository, weights = published.in_repository
        return fetch_repository(repository, folder, progress, weights, offline=is_offline())
    target = folder / str(published.file_name)
    if target.is_file():
        _require_checkpoint(
            target, f"{target}, in the cache, is no checkpoint", "delete it, and run again"
        )
    else:
        if is_offline():
            raise StorageError(
                f"{published.full_name} is not in the cache and the network is forbidden; unset "
                f"REGNET_OFFLINE and HF_HUB_OFFLINE, or fetch {published.url} elsewhere."
            )
        most = _MOST_OF_ANY
        if published.parameters:
            most = max(_MOST_OF_A_SMALL_FILE, _MOST_OF_A_PARAMETER * published.parameters)
        record = target.with_name(f"{target.name}.sha256")
        unwrap = partial(unpack, name=target.name, most=most, sha1=published.sha1)
        is_wrapped = not published.url.endswith(f"/{target.name}")
        admit = partial(_admit, published.url, record, unwrap if is_wrapped else lambda _: None)
        try:
            download(published.url, target, progress, published.sha256, most=most, admit=admit)
        except OSError as error:
            raise StorageError(
                f"{published.full_name} cannot be kept in the cache ({in_words(error)}); make room "
                "or set REGNET_CACHE to a folder that can be written."
            ) from error
    return target


def download(  # noqa: PLR0913 -- two of them have names
    url: str,
    target: Path,
    progress: Progress,
    sha256: str | None = None,
    *,
    most: int = _MOST_OF_ANY,
    admit: Callable[[Path, str], None] = lambda *_: None,
) -> None:
    """Download a file, continuing an earlier attempt where the server can.

    Args:
        url: Of the file.
        target: Its place; the folder is made.
        progress: Told the bytes.
        sha256: How its digest must begin.
        most: Bytes that it may have.
        admit: Called with what arrived and its digest; what it raises has the file deleted.

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
        longest = file.seek(0, os.SEEK_END)
        while failures < _ATTEMPTS:
            try:
                _receive(url, file, version, progress, most)
                break
            except _NETWORK_ERRORS as error:
                _recover(error, url, file, version)
                held = file.seek(0, os.SEEK_END)
                # Beginning anew is no progress, or two answers could take turns for ever.
                failures = 1 if held - longest >= _LEAST else failures + 1
                longest = max(longest, held)
                reason = in_words(getattr(error, "reason", None) or error)
                time.sleep(PAUSE)
        else:
            raise StorageError(
                f"{url} cannot be fetched ({reason}); run the command again to continue from "
                f"{file.tell()} bytes."
            )
        file.flush()
        system.flush(file.fileno())
        file.close()  # Windows replaces and removes nothing that is open
        version.unlink(missing_ok=True)
        try:
            admit(incomplete, _require_digest(incomplete, sha256, url))
        except ConversionError:
            incomplete.unlink()
            raise
        incomplete.replace(target)


def _receive(url: str, file: IO[bytes], version: Path, progress: Progress, most: int) -> None:
    """Append to a file what is missing of it, or fill it anew if the server has another version.

    ``version`` keeps what the server calls its file (an ETag or a date): continuing a file that was
    replaced meanwhile would join two halves.
    """
    whole: int | None
    held = file.seek(0, os.SEEK_END)
    kept = _kept_version(version) if held else None
    headers = {"User-Agent": DISTRIBUTION, "Accept-Encoding": "identity"}
    if kept:
        headers |= {"Range": f"bytes={held}-", "If-Range": kept}
    with opened(Request(url, headers=headers), TIMEOUT) as response:  # noqa: S310 -- the manifest's
        encoding = response.headers.get("Content-Encoding", "identity")
        if encoding.strip().lower() != "identity":
            raise ValueError(f"the server packs what it sends ({encoding}), unasked")
        length = content_length(response.headers)
        if response.status == HTTPStatus.PARTIAL_CONTENT:
            whole = _whole(response.headers, held, kept, length)
        else:
            held = file.seek(0)
            file.truncate()
            _keep_version(response.headers, version)
            whole = length
        require_bytes(version.parent, (whole or held) - held, "The cache", "fetched", _ELSEWHERE)
        if whole is not None and whole > most:
            raise _too_long(url, most)
        progress.step(f"fetching {version.stem}", whole)
        progress.advance(held)
        for chunk in _chunks(response):
            if file.tell() + len(chunk) > most:
                raise _too_long(url, most)
            file.write(chunk)
            progress.advance(len(chunk))
    if whole is not None and file.tell() != whole:
        raise ConnectionError(f"the connection ended after {file.tell()} of {whole} bytes")


def _whole(headers: Message, held: int, kept: str | None, length: int | None) -> int:
    """How long the file is of which a server sends the rest.

    Raises:
        _OtherFileError: Unless it is the rest of what is held, and of the same file.
    """
    stated = content_range(headers)
    # Of a date, unlike of an ETag, the answer to If-Range need not say it again (RFC 9110, 15.3.7).
    has_date = kept is not None and not kept.startswith('"')
    again = headers.get("Last-Modified", kept) if has_date else headers.get("ETag")
    if kept is None or stated is None or again != kept or stated[0] != held:
        raise _OtherFileError("the server sends a part of another file, or another part")
    begin, end, whole = stated
    if whole != end or length not in {None, end - begin}:
        raise _OtherFileError("the server sends a part that does not end where the file does")
    return end


class _OtherFileError(ConnectionError):
    """A part that does not belong to what is held; the next attempt begins anew."""


def _too_long(url: str, most: int) -> StorageError:
    return StorageError(
        f"{url} sends more than {most} bytes, which no checkpoint of this network has; nothing was "
        "kept, so convert a copy of your own."
    )


def _chunks(response: HTTPResponse) -> Iterator[bytes]:
    """What a server sends, unless it takes forever over it.

    Raises:
        TimeoutError: If next to nothing comes in :data:`TIMEOUT`.
    """
    began, received = time.monotonic(), 0
    first, total = began, 0
    while chunk := response.read1(_CHUNK):
        yield chunk
        received += len(chunk)
        total += len(chunk)
        taken = time.monotonic() - first
        if taken > 20 * TIMEOUT and total < _SLOW * taken:
            raise TimeoutError(f"the server sent only {total} bytes in {taken:.0f} seconds")
        if time.monotonic() - began > TIMEOUT:
            if received < _LEAST:
                raise TimeoutError(f"the server sent only {received} bytes in {TIMEOUT:g} seconds")
            began, received = time.monotonic(), 0


def _keep_version(headers: Message, version: Path) -> None:
    """Remember which version is being fetched, unless by a weak ETag (RFC 9110, 13.1.5)."""
    etag = headers.get("ETag", "W/")
    strong = headers.get("Last-Modified") if etag.startswith("W/") else etag
    if strong and _is_version(strong):
        version.write_text(strong, encoding="utf-8", newline="\n")
    else:
        version.unlink(missing_ok=True)


def _kept_version(version: Path) -> str | None:
    """What was remembered; None if nothing was, or the file is damaged."""
    try:
        kept = version.read_text(encoding="ascii") if version.is_file() else ""
    except ValueError:
        return None
    return kept if _is_version(kept) else None


def _is_version(text: str) -> bool:
    return 0 < len(text) <= _MOST_OF_A_VERSION and text.isascii() and text.isprintable()


def _recover(error: Exception, url: str, file: IO[bytes], version: Path) -> None:
    """Make the next attempt possible, or raise if it would be answered the same."""
    if isinstance(error, _OtherFileError):
        file.truncate(0)
        version.unlink(missing_ok=True)
    if not isinstance(error, HTTPError):
        return
    error.close()
    status = error.code
    if status == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
        file.truncate(0)
        version.unlink(missing_ok=True)
    elif status < HTTPStatus.INTERNAL_SERVER_ERROR and status not in _WORTH_REPEATING:
        in_words = responses.get(status, "which has no meaning")
        raise StorageError(
            f"{url} cannot be fetched: the server answers {status} ({in_words}); if that "
            "persists, the checkpoint was moved or withdrawn, so convert a copy of your own."
        ) from error


def _require_digest(path: Path, beginning: str | None, url: str) -> str:
    """The digest of what arrived, which must begin as the manifest says."""
    digest = sha256_of(path)
    if beginning and not digest.startswith(beginning):
        raise InputError(
            f"{url} has the sha256 {digest[:16]}... where {beginning[:16]} was published; it was "
            "deleted, so run the command again, and distrust the network if that repeats."
        )
    return digest


def _admit(url: str, record: Path, unwrap: Callable[[Path], None], path: Path, digest: str) -> None:
    """Let a checkpoint into the cache, and nothing else than the first time.

    ``record`` keeps the digest that came the first time; it stays when the checkpoint is deleted.
    What is around the checkpoint is taken off by ``unwrap``.
    """
    first = record.read_bytes().strip() if record.is_file() else b""
    # A record that was not written to its end is none.
    if len(first) == len(digest) and first != digest.encode():
        raise InputError(
            f"{url} has the sha256 {digest[:16]}..., which is not what it had the first time "
            f"({record}); it was deleted, so distrust the network, or if it was published anew, "
            "move that record away."
        )
    unwrap(path)
    _require_checkpoint(
        path, f"What {url} sent is none", "it was deleted, so run the command again"
    )
    record.write_text(f"{digest}\n", encoding="ascii", newline="\n")


def _require_checkpoint(path: Path, what: str, advice: str) -> None:
    """Refuse what cannot be opened: an error page, half of a file, nothing."""
    try:
        open_checkpoint(path).close()
    except StorageError:
        raise
    except ConversionError as error:
        raise type(error)(f"{what} ({str(error).rstrip('.')}); {advice}.") from error


@contextmanager
def _locked(path: Path) -> Iterator[IO[bytes]]:
    """Open a file for appending that no other process is filling."""
    with ExitStack() as stack:
        try:
            held = stack.enter_context(system.locked(path, is_folder=False))
        except BlockingIOError as error:
            raise StorageError(
                f"Another command is fetching {path.stem} at this moment; run this one again when "
                "it is done."
            ) from error
        try:
            with path.open("ab+") as file:
                yield file
        finally:
            if held.is_at(path) and not path.stat().st_size:
                path.unlink()
