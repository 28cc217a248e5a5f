"""Servers that lie, dawdle or send callers in circles are given up, in one sentence."""

from __future__ import annotations

import re
import time
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from huggingface_hub import constants

from converters.checkpoint.beside import WEIGHTS
from converters.errors import ConversionError, InputError, StorageError
from converters.families.manifest import Published, find
from converters.progress import Silent
from converters.published import fetch, http
from converters.published.fetch import download
from converters.published.fetch_hub import fetch_repository
from regnet.files import system
from tests.converters.demo import CHECKPOINT, snapshot
from tests.converters.server import Site, _Quiet, _running, hub_serving, serving

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

CONTENT = bytes(range(256)) * 100
REPOSITORY = "somebody/net"


@pytest.fixture(autouse=True)
def _hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetch, "PAUSE", 0.0)
    monkeypatch.setattr(fetch, "TIMEOUT", 0.3)
    monkeypatch.setenv("no_proxy", "127.0.0.1")


@contextmanager
def answering(answer: Callable[[_Quiet], None]) -> Iterator[str]:
    """Serve whatever ``answer`` writes; gives the address of a file."""

    class Handler(_Quiet):
        def do_GET(self) -> None:  # noqa: N802 -- http.server calls it
            answer(self)

    with _running(Handler) as root:
        yield f"{root}/net.pth"


def stating(length: str) -> Callable[[_Quiet], None]:
    """A server that is wrong about how long its file is."""

    def answer(request: _Quiet) -> None:
        request.send_response(200)
        request.send_header("Content-Length", length)
        request.end_headers()
        request.wfile.write(CONTENT)

    return answer


@pytest.mark.parametrize(
    ("length", "reason"),
    [
        (str(len(CONTENT) + 1), f"ended after {len(CONTENT)} of {len(CONTENT) + 1} bytes"),
        ("9" * 30, "has room for"),
    ],
)
def test_a_file_that_is_shorter_than_stated_is_not_taken(
    length: str, reason: str, tmp_path: Path
) -> None:
    with answering(stating(length)) as url, pytest.raises(StorageError, match=reason):
        download(url, tmp_path / "net.pth", Silent())
    assert not (tmp_path / "net.pth").exists()


@pytest.mark.parametrize("length", ["many", "-5", "\u0661", ""])
def test_a_length_that_is_no_number_is_ignored(length: str, tmp_path: Path) -> None:
    with answering(stating(length.encode().decode("latin-1"))) as url:
        download(url, tmp_path / "net.pth", Silent())
    assert snapshot(tmp_path) == {"net.pth": CONTENT}


def in_circles(request: _Quiet) -> None:
    request.send_response(302)
    request.send_header("Location", request.path)
    request.end_headers()


def to_a_file(request: _Quiet) -> None:
    request.send_response(302)
    request.send_header("Location", "file:///etc/passwd")
    request.end_headers()


def with_a_phrase_for_the_terminal(request: _Quiet) -> None:
    request.wfile.write(b"HTTP/1.0 403 \x1b[2Jall is well\r\n\r\n")


def with_a_phrase_and_a_failure(request: _Quiet) -> None:
    request.wfile.write(b"HTTP/1.0 500 \x1b[2Jall is well\r\n\r\n")


def with_noise(request: _Quiet) -> None:
    request.wfile.write(b"\x00\xff" * 1000 + b"\r\n\r\n")


@pytest.mark.parametrize(
    "answer",
    [
        in_circles,
        to_a_file,
        with_a_phrase_for_the_terminal,
        with_a_phrase_and_a_failure,
        with_noise,
    ],
)
def test_an_answer_that_is_none_is_one_sentence_and_leaves_nothing(
    answer: Callable[[_Quiet], None], tmp_path: Path
) -> None:
    with answering(answer) as url, pytest.raises(StorageError) as caught:
        download(url, tmp_path / "net.pth", Silent())
    sentence = str(caught.value)
    assert sentence.isprintable()
    assert sentence.endswith(".")
    assert not snapshot(tmp_path)


def drop_by_drop(request: _Quiet) -> None:
    request.send_response(200)
    request.end_headers()
    for _ in range(100):
        request.wfile.write(b"x")
        time.sleep(0.05)


def test_a_server_that_sends_drop_by_drop_is_given_up_in_bounded_time(tmp_path: Path) -> None:
    began = time.monotonic()
    with (
        answering(drop_by_drop) as url,
        pytest.raises(StorageError, match=r"sent only \d bytes in 0\.3 seconds"),
    ):
        download(url, tmp_path / "net.pth", Silent())
    assert time.monotonic() - began < 4


def test_a_server_that_sends_a_byte_for_each_request_is_given_up(tmp_path: Path) -> None:
    with serving(Site(CONTENT, cuts=[1] * 1000)) as site, pytest.raises(StorageError):
        download(site.url, tmp_path / "net.pth", Silent())
    assert len(site.ranges) == 3


@contextmanager
def hub_at(root: str, cache: Path) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        pattern = constants.HUGGINGFACE_CO_URL_TEMPLATE.replace(constants.ENDPOINT, root)
        patch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", pattern)
        patch.setattr(constants, "HF_HUB_CACHE", str(cache))
        yield


INDEX = "pytorch_model.bin.index.json"


@pytest.mark.parametrize(
    "index",
    [
        b"<html>",
        b"[]",
        b'{"weight_map": ["a"]}',
        b'{"weight_map": {"a": "../../../outside.bin", "b": "x/y.bin", "c": ".."}}',
        b"[" * 100_000,
    ],
)
def test_an_index_that_is_none_fetches_nothing_else(index: bytes, tmp_path: Path) -> None:
    files: Mapping[str, bytes] = {"config.json": b"{}", INDEX: index}
    folder = tmp_path / "cache" / "net"
    with hub_serving(REPOSITORY, files) as root, hub_at(root, tmp_path / "hub"):
        fetch_repository(REPOSITORY, folder, Silent(), offline=False)
    assert sorted(path.name for path in folder.iterdir()) == ["config.json", INDEX]
    assert [path.name for path in folder.parent.iterdir()] == ["net"]


@pytest.mark.parametrize("weights", WEIGHTS)
def test_a_repository_that_has_not_changed_is_not_linked_again(
    weights: str, tmp_path: Path
) -> None:
    folder = tmp_path / "cache" / "net"
    with (
        hub_serving(REPOSITORY, {weights: CONTENT}) as root,
        hub_at(root, tmp_path / "hub"),
    ):
        fetch_repository(REPOSITORY, folder, Silent(), offline=False)
        inode = folder.stat().st_ino
        fetch_repository(REPOSITORY, folder, Silent(), offline=False)
    assert folder.stat().st_ino == inode
    assert snapshot(folder) == {weights: CONTENT}


def test_a_hub_that_hangs_up_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(time, "sleep", lambda _: None)

    class Handler(_Quiet):
        def do_HEAD(self) -> None:  # noqa: N802
            self.close_connection = True

    with (
        _running(Handler) as root,
        hub_at(root, tmp_path / "hub"),
        pytest.raises(StorageError, match=f"^{REPOSITORY} cannot be fetched") as caught,
    ):
        fetch_repository(REPOSITORY, tmp_path / "net", Silent(), offline=False)
    assert str(caught.value).isprintable()
    assert not (tmp_path / "net").exists()


def _published(url: str) -> Published:
    known = find("RegNetX-200MF")
    assert known is not None
    return replace(known, url=url, sha256=None)


@pytest.mark.parametrize("what", ["a page", "half of it", "packed", "nothing"])
def test_what_is_no_checkpoint_is_never_kept(
    what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REGNET_CACHE", str(tmp_path))
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    whole = CHECKPOINT.read_bytes()
    bodies = {"a page": b"<html>", "half of it": whole[:-70_000], "packed": whole, "nothing": b""}
    lies = [True]

    def answer(request: _Quiet) -> None:
        request.send_response(200)
        if what == "packed" and lies[0]:
            request.send_header("Content-Encoding", "gzip")
        request.end_headers()  # and no length
        request.wfile.write(bodies[what] if lies[0] else whole)

    with answering(answer) as url:
        with pytest.raises(ConversionError):
            fetch.fetch(_published(url), Silent())
        assert not list(tmp_path.rglob("net.pth*"))
        lies[0] = False
        kept = fetch.fetch(_published(url), Silent())
        assert kept.read_bytes() == whole
        kept.unlink()  # what comes later must be what came first
        bodies[what], lies[0] = whole + b"\0", True
        with pytest.raises(ConversionError, match=r"packs|\.sha256"):
            fetch.fetch(_published(url), Silent())
        assert not kept.exists()


def test_a_cached_file_that_is_none_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REGNET_CACHE", str(tmp_path))
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    entry = _published("http://127.0.0.1:9/net.pth")
    place = tmp_path / entry.publisher / entry.name / "net.pth"
    place.parent.mkdir(parents=True)
    place.write_bytes(b"<html>")
    with pytest.raises(InputError, match=re.escape(f"{place}, in the cache, is no checkpoint")):
        fetch.fetch(entry, Silent())


def part(request: _Quiet, begin: int, content: bytes, version: str) -> None:
    request.send_response(206)
    request.send_header("ETag", version)
    request.send_header("Content-Range", f"bytes {begin}-{len(content) - 1}/{len(content)}")
    request.send_header("Content-Length", str(len(content) - begin))
    request.end_headers()
    request.wfile.write(content[begin:])


@pytest.mark.parametrize("lie", ["another file", "another part", "a shorter part", "no range"])
def test_a_part_that_does_not_belong_to_what_is_held_begins_anew(lie: str, tmp_path: Path) -> None:
    other = bytes(reversed(CONTENT))
    asked: list[str | None] = []

    def answer(request: _Quiet) -> None:
        asked.append(request.headers.get("Range"))
        if len(asked) == 1:
            request.send_response(200)
            request.send_header("ETag", '"A"')
            request.send_header("Content-Length", str(len(CONTENT)))
            request.end_headers()
            request.wfile.write(CONTENT[:20_000])
        elif asked[-1] is None:
            request.send_response(200)
            request.end_headers()
            request.wfile.write(other)
        elif lie == "another file":
            part(request, 20_000, other, '"B"')
        elif lie == "another part":
            part(request, 19_999, CONTENT, '"A"')
        elif lie == "a shorter part":
            request.send_response(206)
            request.send_header("ETag", '"A"')
            request.send_header("Content-Range", f"bytes 20000-21999/{len(CONTENT)}")
            request.end_headers()
            request.wfile.write(CONTENT[20_000:22_000])
        else:
            request.send_response(206)
            request.send_header("ETag", '"A"')
            request.end_headers()
            request.wfile.write(CONTENT[20_000:])

    with answering(answer) as url:
        download(url, tmp_path / "net.pth", Silent())
    assert asked == [None, "bytes=20000-", None]
    assert snapshot(tmp_path) == {"net.pth": other}


def unasked_part(request: _Quiet) -> None:
    part(request, 0, CONTENT, '"A"')


def in_turns(request: _Quiet) -> None:
    if request.headers.get("Range"):
        request.send_error(416)
        return
    request.send_response(200)
    request.send_header("ETag", '"A"')
    request.send_header("Content-Length", str(len(CONTENT)))
    request.end_headers()
    request.wfile.write(CONTENT[:20_000])


def to_ftp(request: _Quiet) -> None:
    request.send_response(302)
    request.send_header("Location", "ftp://127.0.0.1/net.pth")
    request.end_headers()


def to_no_address(request: _Quiet) -> None:
    request.send_response(302)
    request.send_header("Location", "http://[::bad")
    request.end_headers()


def endless(request: _Quiet) -> None:
    request.send_response(200)
    request.end_headers()
    with suppress(OSError):
        while True:
            request.wfile.write(bytes(10_000))


def dripping(request: _Quiet) -> None:
    request.wfile.write(b"HTTP/1.0 200 fine\r\n")
    with suppress(OSError):
        for number in range(90):
            request.wfile.write(f"X-{number}: 1\r\n".encode())
            time.sleep(0.1)


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (unasked_part, "another part"),
        (in_turns, "ended after 20000"),
        (to_ftp, "from http to ftp"),
        (to_no_address, "cannot be fetched"),
        (endless, "more than 1000000 bytes"),
        (dripping, "cannot be fetched"),
        (stating("9" * 5000), "has room for"),
    ],
    ids=range(7),
)
def test_what_never_ends_ends_in_a_sentence(
    answer: Callable[[_Quiet], None],
    reason: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(http, "HEADERS_TIME", 0.3)
    began = time.monotonic()
    with answering(answer) as url, pytest.raises(StorageError, match=reason):
        download(url, tmp_path / "net.pth", Silent(), most=1_000_000)
    assert time.monotonic() - began < 20
    assert not (tmp_path / "net.pth").exists()


def test_a_file_that_another_process_has_finished_is_not_written_into(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target, right = tmp_path / "net.pth", system._fcntl.flock
    incomplete = tmp_path / "net.pth.incomplete"

    def finish_first(file: Any, operation: int) -> None:
        if not target.exists():
            incomplete.write_bytes(b"theirs")
            incomplete.rename(target)
        right(file, operation)

    monkeypatch.setattr(system._fcntl, "flock", finish_first)
    with fetch._locked(incomplete) as file:
        file.write(b"ours")
        file.flush()
        assert target.read_bytes() == b"theirs"
        assert incomplete.read_bytes() == b"ours"
