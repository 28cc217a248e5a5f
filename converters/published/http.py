"""Asking a server for a file: plain HTTP, on one scheme, with bounds on what it may take."""

from __future__ import annotations

import re
import socket
import threading
from contextlib import suppress
from http.client import HTTPConnection, HTTPResponse, HTTPSConnection
from typing import IO, TYPE_CHECKING, Any
from urllib.parse import urlsplit
from urllib.request import (
    HTTPDefaultErrorHandler,
    HTTPErrorProcessor,
    HTTPHandler,
    HTTPRedirectHandler,
    HTTPSHandler,
    OpenerDirector,
    ProxyHandler,
    Request,
)

if TYPE_CHECKING:
    from email.message import Message

HEADERS_TIME = 60.0
"""Seconds that all headers of an answer may take, however they drip."""

_RANGE = re.compile(r"bytes (\d{1,18})-(\d{1,18})/(\d{1,18}|\*)", re.ASCII)
_MOST_DIGITS = 18


def opened(request: Request, timeout: float) -> HTTPResponse:
    """Send a request and read the headers of the answer.

    Raises:
        URLError: Or another of urllib's errors, if there is no answer, or it leads to a scheme that
            is neither https nor the one that the request began with.
        ValueError: If an address that it leads to is none.
    """
    opener = OpenerDirector()  # `urlopen` would follow to ftp as well
    for kind in (ProxyHandler, _Connects, HTTPDefaultErrorHandler, _Redirects, HTTPErrorProcessor):
        opener.add_handler(kind())
    response: HTTPResponse = opener.open(request, timeout=timeout)
    return response


def content_length(headers: Message) -> int | None:
    """What the server says that it sends, in bytes; None if it does not say, or no number.

    A number of more than 18 digits is taken for one of 18: no disk has room for either.

    Raises:
        ValueError: If it states two.
    """
    stated = {text.strip() for text in headers.get_all("Content-Length", [])}
    if len(stated) > 1:
        raise ValueError("the server states two lengths")
    text = next(iter(stated), "")
    if not (text.isdecimal() and text.isascii()):
        return None
    return int(text) if len(text) <= _MOST_DIGITS else 10**_MOST_DIGITS


def content_range(headers: Message) -> tuple[int, int, int | None] | None:
    """Begin, end and length of the whole, in bytes, of a part; None if it does not say."""
    match = _RANGE.fullmatch(headers.get("Content-Range", "").strip())
    if not match or headers.get_content_type() == "multipart/byteranges":
        return None
    begin, last, whole = match.groups()
    return int(begin), int(last) + 1, None if whole == "*" else int(whole)


class _Redirects(HTTPRedirectHandler):
    """Follows to https, and to the scheme that it comes from."""

    def redirect_request(  # noqa: PLR0913, PLR0917 -- urllib's
        self, req: Request, fp: IO[bytes], code: int, msg: str, headers: Any, newurl: str
    ) -> Request | None:
        scheme = urlsplit(newurl).scheme.lower()
        if scheme not in {"https", req.type}:
            raise ValueError(f"the server leads from {req.type} to {scheme}, which is not followed")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


class _Patient:
    """A connection that gives up on headers that never end."""

    sock: socket.socket | None

    def getresponse(self) -> HTTPResponse:
        """Read the headers.

        Raises:
            TimeoutError: If they take longer than :data:`HEADERS_TIME`.
        """
        late = threading.Event()

        def give_up() -> None:
            late.set()
            if self.sock is not None:
                with suppress(OSError):
                    self.sock.shutdown(socket.SHUT_RDWR)

        timer = threading.Timer(HEADERS_TIME, give_up)
        timer.daemon = True
        timer.start()
        try:
            response: HTTPResponse = super().getresponse()  # type: ignore[misc]
        finally:
            timer.cancel()
        if late.is_set():  # an end of what is read looks like an end of the headers
            raise TimeoutError(f"the server took more than {HEADERS_TIME:g} seconds to answer")
        return response


class _Connection(_Patient, HTTPConnection):
    pass


class _SecureConnection(_Patient, HTTPSConnection):
    pass


class _Connects(HTTPHandler, HTTPSHandler):
    def http_open(self, req: Request) -> HTTPResponse:
        return self.do_open(_Connection, req)

    def https_open(self, req: Request) -> HTTPResponse:
        return self.do_open(_SecureConnection, req)
