"""The page, served with the bundled network, in a real browser."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.converters.conftest import demo_folder
from tests.web.browser import CHROMIUM, DRIVER, EMULATED_GPU, Browser, chromium

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["demo_folder"]

PAGE = Path(__file__).parents[2] / "examples" / "web"


@contextmanager
def serving(folder: Path) -> Iterator[str]:
    """Serve the page as its documentation says; the address."""
    command = [sys.executable, str(PAGE / "serve.py"), str(folder), "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        try:
            yield process.stdout.readline().strip()
        finally:
            process.terminate()


def require_browser() -> None:
    """Skip without a browser, or fail where CI says that there must be one."""
    missing = [
        reason
        for present, reason in (
            (CHROMIUM, "no chromium on this machine"),
            (DRIVER, "no chromedriver on this machine"),
            ((PAGE / "litert").is_dir(), "no onnxruntime-web and LiteRT: run `make web`"),
        )
        if not present
    ]
    if missing:
        (pytest.fail if os.environ.get("REGNET_NEEDS_BROWSER") else pytest.skip)(missing[0])


@pytest.fixture(scope="session")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """A headless Chromium without a GPU."""
    require_browser()
    with chromium(tmp_path_factory.mktemp("chromium")) as window:
        yield window


@pytest.fixture(scope="module")
def gpu_browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """One that emulates a GPU."""
    require_browser()
    with chromium(tmp_path_factory.mktemp("chromium"), EMULATED_GPU) as window:
        yield window


@pytest.fixture(scope="session")
def site(demo_folder: Path) -> Iterator[str]:
    """The address of the page, with the bundled network."""
    with serving(demo_folder) as url:
        yield url


@pytest.fixture
def page(browser: Browser, site: str) -> Browser:
    """The page, opened and ready."""
    browser.open(site)
    browser.wait_for("#message", "Ready")
    return browser
