"""A headless Chromium, driven through chromedriver with the W3C's WebDriver protocol."""

from __future__ import annotations

import json
import shutil
import subprocess
import time
import urllib.error
import urllib.request
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
DRIVER = shutil.which("chromedriver")

_ELEMENT = "element-6066-11e4-a52e-4f735466cecf"
"""The key of an element's id, from the standard."""

_FLAGS = (
    *("--headless", "--no-sandbox", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
    *("--disable-dev-shm-usage", "--window-size=800,1000"),
)
"""The switches on networking keep Chromium from calling home."""

WITHOUT_GPU = ("--disable-gpu",)
EMULATED_GPU = ("--enable-unsafe-webgpu", "--use-webgpu-adapter=swiftshader")
"""What Chromium offers pages as a GPU: none, or SwiftShader, which computes on the processor."""

_PATIENCE = 60.0
"""Seconds for anything; a busy machine takes many."""


class BrowserError(Exception):
    """The browser could not do what was asked; the message is its own."""


@dataclass(frozen=True)
class Browser:
    """One window.

    Attributes:
        session: The address of its WebDriver session.
    """

    session: str

    def open(self, url: str) -> None:
        _asked("POST", f"{self.session}/url", {"url": url})

    def run(self, script: str, *arguments: Any) -> Any:
        """Run the body of an async function in the page; return what it returns."""
        wrapped = (
            "const done = arguments[arguments.length - 1];"
            f"(async (...args) => {{ {script} }})(...arguments).then("
            "value => done({value}), error => done({error: String(error)}));"
        )
        body = {"script": wrapped, "args": list(arguments)}
        answer = _asked("POST", f"{self.session}/execute/async", body)
        if "error" in answer:
            raise BrowserError(answer["error"])
        return answer.get("value")

    def text(self, selector: str) -> str:
        return str(_asked("GET", f"{self._element(selector)}/text"))

    def label(self, selector: str) -> str:
        """What a screen reader calls an element."""
        return str(_asked("GET", f"{self._element(selector)}/computedlabel"))

    def choose(self, selector: str, file: Path) -> None:
        """Choose a file in a file input."""
        _asked("POST", f"{self._element(selector)}/value", {"text": str(file)})

    def wait_for(self, selector: str, part: str) -> str:
        """Wait until an element's text has a part; return the text."""
        end = time.monotonic() + _PATIENCE
        while part not in (text := self.text(selector)):
            if time.monotonic() > end:
                raise BrowserError(f"{selector} says {text!r}, not {part!r}.")
            time.sleep(0.02)
        return text

    def _element(self, selector: str) -> str:
        using = {"using": "css selector", "value": selector}
        found = _asked("POST", f"{self.session}/element", using)
        return f"{self.session}/element/{found[_ELEMENT]}"


@contextmanager
def chromium(profile: Path, gpu: tuple[str, ...] = WITHOUT_GPU) -> Iterator[Browser]:
    """A browser inside the block.

    Args:
        profile: An empty folder for what it keeps.
        gpu: The switches that say which GPU it offers.
    """
    assert DRIVER
    options = {"binary": CHROMIUM, "args": [*_FLAGS, *gpu, f"--user-data-dir={profile}"]}
    wanted = {
        "goog:chromeOptions": options,
        "timeouts": {"script": _PATIENCE * 1000},
    }
    with _driver() as address:
        body = {"capabilities": {"alwaysMatch": wanted}}
        session = f"{address}/session/{_asked('POST', f'{address}/session', body)['sessionId']}"
        try:
            yield Browser(session)
        finally:
            _asked("DELETE", session)


@contextmanager
def _driver() -> Iterator[str]:
    """A chromedriver on a free port, which it tells on stdout; its address."""
    command = [str(DRIVER), "--port=0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        try:
            started = next(line for line in process.stdout if "started successfully" in line)
            yield f"http://127.0.0.1:{started.split()[-1].rstrip('.')}"
        finally:
            process.terminate()


def _asked(method: str, url: str, body: dict[str, Any] | None = None) -> Any:
    """One command of the protocol."""
    data = None if body is None else json.dumps(body).encode()
    headers = {"Content-Type": "application/json"}
    request = urllib.request.Request(url, data, headers, method=method)  # noqa: S310 -- our driver
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(request, timeout=2 * _PATIENCE) as response:
            return json.load(response)["value"]
    except urllib.error.HTTPError as error:
        with error:
            raise BrowserError(json.load(error)["value"]["message"]) from None
