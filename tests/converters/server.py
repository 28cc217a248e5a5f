"""A web server on this machine that keeps, cuts, renames or refuses what it serves."""

from __future__ import annotations

import hashlib
import re
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping


@dataclass
class Site:
    """One file and the moods of its server.

    Attributes:
        content: The file.
        version: Its ETag; empty sends none.
        takes_ranges: Whether parts may be asked for.
        cuts: How many bytes each of the next answers is cut after.
        statuses: What the next requests are answered with instead of the file.
        silence: Seconds before each answer.
        ranges: The Range header of each request so far.
    """

    content: bytes
    version: str = '"one"'
    takes_ranges: bool = True
    cuts: list[int] = field(default_factory=list)
    statuses: list[int] = field(default_factory=list)
    silence: float = 0.0
    ranges: list[str | None] = field(default_factory=list)
    url: str = ""


@contextmanager
def serving(site: Site) -> Iterator[Site]:
    """Serve a site, at ``site.url``, inside the block."""

    class Handler(_Quiet):
        def do_GET(self) -> None:
            _answer(self, site)

    with _running(Handler) as root:
        site.url = f"{root}/models/net-0123abcd.pth"
        yield site


@contextmanager
def hub_serving(repository: str, files: Mapping[str, bytes]) -> Iterator[str]:
    """Serve a repository as the Hugging Face Hub does, inside the block.

    Args:
        repository: Its id.
        files: Its files.

    Yields:
        What stands in place of the Hub's address.
    """

    class Handler(_Quiet):
        def do_HEAD(self) -> None:
            name = self.path.removeprefix(f"/{repository}/resolve/main/")
            self.send_response(200 if name in files else 404)
            if name in files:
                self.send_header("ETag", f'"{hashlib.sha256(files[name]).hexdigest()}"')
            else:
                self.send_header("X-Error-Code", "EntryNotFound")
            self.send_header("X-Repo-Commit", "5c0ffee" + "0" * 33)
            self.send_header("Content-Length", str(len(files.get(name, b""))))
            self.end_headers()

        def do_GET(self) -> None:
            self.do_HEAD()
            self.wfile.write(files[self.path.rsplit("/", 1)[1]])

    with _running(Handler) as root:
        yield root


class _Quiet(BaseHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        """Say nothing."""


class _Server(ThreadingHTTPServer):
    def handle_error(self, *_: object) -> None:
        """Say nothing of callers that have gone."""


@contextmanager
def _running(handler: type[BaseHTTPRequestHandler]) -> Iterator[str]:
    server = _Server(("127.0.0.1", 0), handler)
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _answer(request: BaseHTTPRequestHandler, site: Site) -> None:
    asked = request.headers.get("Range")
    site.ranges.append(asked)
    time.sleep(site.silence)
    if site.statuses:
        request.send_error(site.statuses.pop(0))
        return
    start = int(re.findall(r"bytes=(\d+)-", asked)[0]) if asked and site.takes_ranges else 0
    if start and request.headers.get("If-Range") != site.version:
        start = 0
    if start and start >= len(site.content):
        request.send_error(416)
        return
    body = site.content[start:]
    request.send_response(206 if start else 200)
    request.send_header("Content-Length", str(len(body)))
    if start:
        whole = len(site.content)
        request.send_header("Content-Range", f"bytes {start}-{whole - 1}/{whole}")
    if site.version:
        request.send_header("ETag", site.version)
    request.end_headers()
    request.wfile.write(body[: site.cuts.pop(0)] if site.cuts else body)
