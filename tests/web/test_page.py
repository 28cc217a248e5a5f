"""The page in a real Chromium: its numbers, its labels, what it says and what it fetches."""

from __future__ import annotations

import base64
import io
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image, ImageFilter

import converters
from converters import predict
from converters.families.source import FILTERS
from converters.folder.folder import ConvertedFolder
from converters.formats.onnx.export import export_onnx
from converters.jobs.predict import open_runtime
from converters.parity.golden import read_golden
from converters.parity.truth import Truth, run
from converters.parity.verdict import Verdict, judge
from regnet import RegNetImageProcessor
from tests.converters.demo import sample_images
from tests.oracles.transformers import trunk
from tests.web.browser import Browser, BrowserError
from tests.web.conftest import PAGE, serving

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray


RNG = np.random.default_rng(0)

BYTES = """
const bytes = (text) => Uint8Array.from(atob(text), (each) => each.charCodeAt());
const text = (array) => {
  const view = new Uint8Array(array.buffer, array.byteOffset, array.byteLength);
  return btoa(Array.from(view, (each) => String.fromCharCode(each)).join(""));
};
const {Classifier} = await import("/regnet.js");
const {resize} = await import("/resize.js");
"""

RUN = """
const wanted = Object.fromEntries(new URLSearchParams(location.search));
window.classifier ??= await Classifier.load("model/", wanted);
const [data, channels, height, width] = args;
const pixels = {data: new Float32Array(bytes(data).buffer), channels, height, width};
return text(Float32Array.from(await window.classifier.logits(pixels)));
"""

RESIZE = """
const [data, width, height, channels, to, filter] = args;
return text(resize({data: bytes(data), width, height, channels}, ...to, filter).data);
"""

PREPROCESS = """
const [file, processor] = args;
const bitmap = await createImageBitmap(new Blob([bytes(file)]), {colorSpaceConversion: "none"});
return text(new Classifier(null, {}, processor).preprocess(bitmap).data);
"""

DROP = """
const transfer = new DataTransfer();
transfer.items.add(new File([bytes(args[0])], args[1]));
document.body.dispatchEvent(new DragEvent("drop", {dataTransfer: transfer, bubbles: true}));
"""


def text(array: NDArray[np.generic]) -> str:
    return base64.b64encode(array.tobytes()).decode()


def floats(answer: str) -> NDArray[np.float32]:
    return np.frombuffer(base64.b64decode(answer), np.float32)


def drop(page: Browser, content: bytes, name: str) -> None:
    page.run(BYTES + DROP, base64.b64encode(content).decode(), name)


class OnThePage:
    """onnxruntime-web as a runtime, one image at a time."""

    name = "onnxruntime-web"
    precision = "float32"

    def __init__(self, page: Browser) -> None:
        self._page = page

    def __call__(self, pixel_values: NDArray[np.float32]) -> dict[str, NDArray[np.floating]]:
        answers = (self._page.run(BYTES + RUN, text(image), *image.shape) for image in pixel_values)
        return {"logits": np.stack([floats(answer) for answer in answers])}


def test_the_logits_on_the_page_pass_as_every_artefact_must(
    page: Browser, demo_folder: Path
) -> None:
    folder = ConvertedFolder(demo_folder)
    truth = Truth(folder, read_golden(folder)[0])
    runtime = OnThePage(page)
    measured = judge(run(runtime, truth.inputs), truth.units(), truth.oracle)
    verdict = Verdict("model.onnx", runtime.name, runtime.precision, measured)
    assert verdict.passed, verdict.reason
    assert len(verdict.measurements) == len(truth.inputs)


def test_weights_that_are_shared_are_handed_over(
    browser: Browser, demo_folder: Path, tmp_path: Path
) -> None:
    shared = shutil.copytree(demo_folder, tmp_path / "shared")
    converters.export(shared, ["onnx"], share_weights=True, verify=False)
    assert (shared / "model.onnx").stat().st_size < 100_000
    pixels = read_golden(ConvertedFolder(demo_folder))[0]["native"]
    with serving(shared) as url:
        browser.open(url)
        browser.wait_for("#message", "Ready")
        found = OnThePage(browser)(pixels)["logits"]
    expected = open_runtime(ConvertedFolder(demo_folder), "onnx")(pixels)["logits"]
    np.testing.assert_allclose(found, expected, atol=1e-4, rtol=1e-5)


@pytest.mark.parametrize("way", ["dropped", "chosen"])
def test_a_picture_gets_the_label_that_predict_gives(
    way: str, page: Browser, demo_folder: Path, tmp_path: Path
) -> None:
    samples = sample_images(tmp_path, 8)
    predictions = predict(demo_folder, [path for path, _ in samples])
    right = 0
    for (path, truth), prediction in zip(samples, predictions, strict=True):
        if way == "dropped":
            drop(page, path.read_bytes(), path.name)
        else:
            page.choose("#chooser", path)
        page.wait_for("#message", path.name)
        shown = page.text("#results").split("\n")
        assert shown[::2] == [label for label, _ in prediction.classes]
        assert shown[1::2] == [f"{100 * share:.1f} %" for _, share in prediction.classes]
        assert "ms in the network" in page.text("#times")
        right += shown[0] == truth
    assert right >= 7  # of eight that it was not trained on


@pytest.mark.parametrize("resample", FILTERS.values(), ids=FILTERS)
@pytest.mark.parametrize(
    ("size", "to"), [((61, 47), (24, 31)), ((9, 14), (40, 14)), ((33, 20), (33, 64))], ids=str
)
def test_resizing_is_pillows_to_the_bit(
    size: tuple[int, int], to: tuple[int, int], resample: int, page: Browser
) -> None:
    pixels = RNG.integers(0, 256, (*size[::-1], 3), np.uint8)
    expected = np.moveaxis(np.asarray(Image.fromarray(pixels).resize(to, resample)), -1, 0)
    planes = text(np.moveaxis(pixels, -1, 0))
    answer = page.run(BYTES + RESIZE, planes, *size, 3, list(to), resample)
    assert base64.b64decode(answer) == expected.tobytes()


PLAIN = RegNetImageProcessor(do_resize=False, do_rescale=False, do_normalize=False)
PROCESSORS = {
    "crop": RegNetImageProcessor(  # of 48 x 68 pixels, so that halves are rounded
        size=45, crop_pct=45 / 48, resample=2, resize_mode="shortest_edge_then_crop"
    ),
    "crop of convnext": RegNetImageProcessor(size=45, crop_pct=0.9),
    "squash": RegNetImageProcessor(size=384),
    "no squash": RegNetImageProcessor(size=384, resize_mode="shortest_edge_then_crop"),
    "squash below 384": RegNetImageProcessor(size=64, resize_mode="squash"),
    "grey": RegNetImageProcessor(size=32, image_mean=[0.5], image_std=[0.25]),
    "as it is": PLAIN,
}


@pytest.mark.parametrize("mode", ["RGB", "L", "1", "P"])
@pytest.mark.parametrize("processor", PROCESSORS.values(), ids=PROCESSORS.keys())
def test_a_picture_becomes_what_the_processor_makes_of_it(
    processor: RegNetImageProcessor, mode: str, page: Browser
) -> None:
    pixels = RNG.integers(0, 256, (67, 95, 3), np.uint8)  # 67 and 95 leave odd borders to crop
    assert_preprocessed(page, Image.fromarray(pixels).convert(mode), processor, atol=0)


def test_a_filter_that_is_not_known_is_told_in_a_sentence(page: Browser) -> None:
    with pytest.raises(BrowserError, match="Pillow's filter 6 is not known here"):
        page.run(BYTES + RESIZE, text(np.zeros((1, 2, 2), np.uint8)), 2, 2, 1, [3, 3], 6)


def test_transparency_is_laid_on_white_to_within_one_level(page: Browser) -> None:
    picture = Image.fromarray(RNG.integers(0, 256, (40, 60, 4), np.uint8), "RGBA")
    assert_preprocessed(page, picture, PLAIN, atol=1)


@pytest.mark.parametrize("subsampling", [0, 2], ids=["4:4:4", "4:2:0"])
def test_a_jpeg_is_opened_to_within_two_levels(subsampling: int, page: Browser) -> None:
    noise = Image.fromarray(RNG.integers(0, 256, (67, 95, 3), np.uint8))
    picture = noise.filter(ImageFilter.GaussianBlur(2))
    assert_preprocessed(page, picture, PLAIN, atol=2, format="jpeg", subsampling=subsampling)


def assert_preprocessed(
    page: Browser,
    picture: Image.Image,
    processor: RegNetImageProcessor,
    atol: float,
    **saving: Any,
) -> None:
    """Hold the page to the processor, both given the same file."""
    file = io.BytesIO()
    picture.save(file, **{"format": "png"} | saving)
    (expected,) = processor(Image.open(file))["pixel_values"]
    content = base64.b64encode(file.getvalue()).decode()
    found = floats(page.run(BYTES + PREPROCESS, content, processor.to_dict()))
    np.testing.assert_allclose(found, expected.ravel(), rtol=0, atol=atol)


def test_what_is_no_picture_is_told_in_a_sentence_and_the_next_picture_is_shown(
    page: Browser, tmp_path: Path
) -> None:
    drop(page, b"a letter", "letter.txt")
    said = page.wait_for("#message", "letter.txt")
    assert said == "letter.txt is no picture that this browser opens; try a PNG or a JPEG."
    assert page.text("#results") == ""
    ((path, truth),) = sample_images(tmp_path, 1)
    drop(page, path.read_bytes(), path.name)
    assert truth in page.wait_for("#message", path.name)


def test_a_folder_without_a_network_is_told_in_a_sentence(browser: Browser, site: str) -> None:
    browser.open(f"{site}?model=elsewhere")
    said = browser.wait_for("#message", "elsewhere")
    assert said.startswith("The folder elsewhere/ has no ")


def test_a_trunk_is_told_in_a_sentence(browser: Browser, tmp_path: Path) -> None:
    trunk().save_pretrained(tmp_path)
    RegNetImageProcessor().save_pretrained(tmp_path)
    export_onnx(ConvertedFolder(tmp_path), tmp_path / "model.onnx")
    with serving(tmp_path) as url:
        browser.open(url)
        said = browser.wait_for("#message", "classifier")
    assert said == "The folder model/ holds no classifier, so there are no classes to show."


def test_the_file_where_transformers_js_looks_is_taken_first(
    browser: Browser, demo_folder: Path, tmp_path: Path
) -> None:
    for path in demo_folder.iterdir():
        (tmp_path / path.name).symlink_to(path)
    (tmp_path / "onnx").mkdir()
    (tmp_path / "model.onnx").rename(tmp_path / "onnx" / "model.onnx")
    with serving(tmp_path) as url:
        browser.open(url)
        browser.wait_for("#message", "Ready")


def test_nothing_is_fetched_from_elsewhere_and_the_browser_would_refuse(
    page: Browser, site: str
) -> None:
    script = "return performance.getEntriesByType('resource').map((each) => each.name)"
    fetched = page.run(script)
    assert any(name.endswith(".wasm") for name in fetched)
    assert all(name.startswith(site) for name in fetched), fetched
    script = "return performance.getEntriesByType('resource').map((each) => each.responseStatus)"
    assert set(page.run(script)) == {200}
    script = "return fetch(args[0]).then(() => 'fetched', (error) => error.message)"
    assert page.run(script, "https://example.org/") == "Failed to fetch"
    listened = "addEventListener('securitypolicyviolation', (event) => done(event.blockedURI))"
    script = f"return new Promise((done) => {{ {listened}; fetch(args[0]).catch(() => 0); }})"
    assert page.run(script, "https://example.org/").startswith("https://example.org")


def test_the_page_may_use_threads(page: Browser) -> None:
    assert page.run("return crossOriginIsolated") is True


def test_a_screen_reader_can_name_what_there_is_to_do(page: Browser) -> None:
    assert page.label("#chooser") == "Drop a picture or choose one"
    assert page.label("#results") == "The most probable classes"


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_can_be_read_in_both_colour_schemes(scheme: str, page: Browser) -> None:
    script = """
    document.documentElement.style.colorScheme = args[0];
    const canvas = new OffscreenCanvas(1, 1).getContext("2d");
    const seen = (colour) => {
      canvas.fillStyle = colour;
      canvas.fillRect(0, 0, 1, 1);
      return [...canvas.getImageData(0, 0, 1, 1).data];
    };
    const paper = getComputedStyle(document.body).backgroundColor;
    const inks = ["h1", "#network", "#message", "footer", ".prompt b"];
    const colour = (ink) => getComputedStyle(document.querySelector(ink)).color;
    return [paper, ...inks.map(colour)].map(seen);
    """
    paper, *inks = (luminance(colour) for colour in page.run(script, scheme))
    assert (paper > 0.5) == (scheme == "light")
    for ink in inks:
        bright, dim = max(ink, paper), min(ink, paper)
        assert (bright + 0.05) / (dim + 0.05) >= 4.5  # WCAG 2.2, 1.4.3


def luminance(colour: list[int]) -> float:
    """WCAG's relative luminance of sRGB bytes."""
    shares = np.array(colour[:3]) / 255
    linear = np.where(shares <= 0.04045, shares / 12.92, ((shares + 0.055) / 1.055) ** 2.4)
    return float(linear @ [0.2126, 0.7152, 0.0722])


def test_the_server_asks_for_a_converted_folder(tmp_path: Path) -> None:
    command = [sys.executable, str(PAGE / "serve.py"), str(tmp_path)]
    finished = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert finished.returncode == 1
    assert "\n" not in finished.stderr.strip()
    assert "make web" in finished.stderr or "regnet convert" in finished.stderr
