"""The page's runtimes and backends: ONNX Runtime in WebAssembly and on a GPU, and LiteRT."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import pytest

import converters
from converters.folder.folder import ConvertedFolder
from converters.formats.litert.export import export_litert
from converters.parity.golden import read_golden
from converters.parity.truth import Truth, run
from converters.parity.verdict import Verdict, judge
from tests.converters.demo import sample_images
from tests.web.conftest import serving
from tests.web.test_page import OnThePage, drop

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.web.browser import Browser

WASM = "ONNX Runtime, in WebAssembly"
NO_GPU = "on the GPU (WebGPU) it does not run: this browser offers no GPU"


@pytest.fixture(scope="module")
def folder(demo_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> ConvertedFolder:
    """The bundled network, with LiteRT's file too."""
    place = tmp_path_factory.mktemp("network")
    for path in demo_folder.iterdir():
        (place / path.name).symlink_to(path)
    export_litert(ConvertedFolder(place), place / "model.tflite")
    return ConvertedFolder(place)


@pytest.fixture(scope="module")
def address(folder: ConvertedFolder) -> Iterator[str]:
    with serving(folder.path) as url:
        yield url


def opened(browser: Browser, address: str, wanted: str) -> str:
    """What the page says of where the network runs."""
    browser.open(address + wanted)
    browser.wait_for("#message", "Ready")
    return browser.text("#where")


def assert_passes(
    browser: Browser, folder: ConvertedFolder, name: str, size: int | None = None
) -> None:
    """Hold the page's logits to the verdict of every artefact, on images of any or of one size."""
    truth = Truth(folder, read_golden(folder)[0]).fitted((None, size, size))
    runtime = OnThePage(browser)
    measured = judge(run(runtime, truth.inputs), truth.units(), truth.oracle)
    verdict = Verdict(name, "a browser", "float32", measured)
    assert verdict.passed, verdict.reason
    assert len(verdict.measurements) == len(truth.inputs) > 1


@pytest.mark.parametrize(
    ("wanted", "said"),
    [
        ("", f"{WASM}; {NO_GPU}"),
        ("?backend=webgpu", f"{WASM}; {NO_GPU}"),
        ("?backend=wasm", WASM),
        ("?backend=webnn", f"{WASM}; ONNX Runtime has no backend webnn here; {NO_GPU}"),
        ("?runtime=litert", "LiteRT, in WebAssembly"),
        ("?runtime=litert&backend=webgpu", "LiteRT, in WebAssembly; LiteRT has no backend webgpu"),
    ],
)
def test_the_page_says_what_runs_the_network_and_why(
    wanted: str, said: str, browser: Browser, address: str, tmp_path: Path
) -> None:
    assert opened(browser, address, wanted).startswith(said)
    ((path, truth),) = sample_images(tmp_path, 1)
    drop(browser, path.read_bytes(), path.name)
    assert truth in browser.wait_for("#message", path.name)


def test_a_runtime_that_is_not_there_is_told_in_a_sentence(browser: Browser, address: str) -> None:
    browser.open(f"{address}?runtime=tensorflow")
    said = browser.wait_for("#message", "tensorflow")
    assert said == "There is no runtime tensorflow here."


def test_a_file_that_takes_pixels_or_gives_probabilities_is_refused(
    browser: Browser, demo_folder: Path, tmp_path: Path
) -> None:
    folder = shutil.copytree(demo_folder, tmp_path / "out")
    converters.export(folder, ["onnx"], normalize=255, verify=False)
    with serving(folder) as url:
        browser.open(url)
        said = browser.wait_for("#message", "--normalize")
    assert (
        said == "model.onnx has --normalize or --softmax inside; export it without for this page."
    )


def test_an_emulated_gpu_is_taken_only_if_somebody_asks(gpu_browser: Browser, address: str) -> None:
    said = opened(gpu_browser, address, "")
    assert said == f"{WASM}; on the GPU (WebGPU) it does not run: its GPU is an emulated one"


@pytest.mark.slow  # SwiftShader takes long
def test_logits_of_the_gpu_pass_as_every_artefact_must(
    gpu_browser: Browser, address: str, folder: ConvertedFolder
) -> None:
    said = opened(gpu_browser, address, "?backend=webgpu")
    assert said == "ONNX Runtime, on the GPU (WebGPU)"
    assert_passes(gpu_browser, folder, "model.onnx")


def test_logits_of_litert_pass_as_every_artefact_must(
    browser: Browser, address: str, folder: ConvertedFolder
) -> None:
    assert opened(browser, address, "?runtime=litert") == "LiteRT, in WebAssembly"
    # The file is open to any size; LiteRT for browsers keeps to the one that it begins with.
    assert_passes(browser, folder, "model.tflite", folder.image_size)
