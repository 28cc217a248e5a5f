"""The code in README and docs runs as it is written, and computes what the network does."""

from __future__ import annotations

import re
import shutil
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from PIL import Image

import converters
from converters.cli.app import app
from converters.cli.endings import run_app
from regnet import RegNetForImageClassification, RegNetImageProcessor
from tests.converters.demo import CHECKPOINT, LABELS, labels, sample_images
from tests.test_docs import ROOT, Block, blocks, lines

if TYPE_CHECKING:
    from pathlib import Path

RUN_ELSEWHERE = {"docs/api.md": "test_api.py", "docs/fine-tune.md": "test_notebooks.py"}
"""Pages whose code other tests run."""

CODE = [block for block in blocks("python", "py") if block.page not in RUN_ELSEWHERE]

NOT_HERE = {
    "aoti_load_package": "a C++ compiler takes a minute to make the file",
    "coreai": "an asset may end the process; `tests/converters/formats/test_programs.py` runs one",
    "coremltools": "Apple's runtime is on macOS alone",
    "executorch": "the file takes minutes to export",
    "jax.export": "JAX is none of the packages of `make test`",
}
"""By what is in it: code that cannot be run here, and why."""

ELSEWHERE = {'"cuda"': '"cpu"', '"path/to/checkout"': repr(str(ROOT)), "limit=1000": "limit=4"}
"""What is said otherwise to run it here."""

WRITTEN = ("ncnn", "litert", "onnx-preprocessing", "openvino")
"""Formats that the code opens, beside those of every folder."""

NOT_CALLED = {
    "*.pyth": "a shell makes names of it; `tests/converters/jobs/batch` converts many",
    "--install-completion": "it writes into the files of the user's shell",
    "--public-key": "it takes a key, as in `tests/converters/folder/test_signing.py`",
    "--private-key": "likewise",
    "--rounds": "thirty rounds take a minute",
    "--security": "`tests/converters/checkpoint/test_security.py` runs it",
    "last-week.onnx": "there is no earlier one",
    "push": "there is no Hub here; `tests/converters/jobs/test_publish.py` has one",
    "regnety_040/": "the line before it makes it in another page",
    "tract,mnn,opencv,ort": "OpenCV is none of the packages of `make test`",
}
"""Words of commands that are not called here, and why; all are parsed by `tests/test_docs.py`."""

QUICK = ("docs/index.md", "docs/install.md", "docs/large.md")
"""Pages whose commands are called in the ordinary tests."""

OF_FORMATS = ("docs/export.md", "docs/runtimes.md")
"""Pages whose code opens what :data:`WRITTEN` says, and takes pixels and modules as given."""


@pytest.fixture(scope="module")
def exported(demo_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The converted folder with all that the pages of formats open."""
    folder = shutil.copytree(demo_folder, tmp_path_factory.mktemp("exported") / "out")
    converters.export(folder, WRITTEN, verify=False)
    return folder


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with what pages name, but for the converted folder."""
    shutil.copy(CHECKPOINT, tmp_path / "RegNetY-4.0GF.pyth")
    for path, label in sample_images(tmp_path / "photos", 4):
        folder = tmp_path / "val" / str(labels().index(label))
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, folder)
    with Image.open(tmp_path / "photos" / "0.png") as image:
        image.convert("RGB").save(tmp_path / "cat.jpg")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def logits_of(pixels: torch.Tensor) -> np.ndarray[Any, Any]:
    model = RegNetForImageClassification.from_pretrained("out")
    with torch.inference_mode():
        return model(pixels).logits.numpy()


def prepared(folder: Path) -> dict[str, Any]:
    """What a page that shows one format takes as given."""
    processor = RegNetImageProcessor.from_pretrained(folder)
    with Image.open("cat.jpg") as image:
        pixels = processor(image, return_tensors="pt")["pixel_values"]
    modules = ("ai_edge_litert.interpreter", "json", "ncnn", "openvino", "torch")
    imported = {name.partition(".")[0]: __import__(name) for name in modules}
    return {"pixels": pixels, "image": pixels[0].numpy(), **imported}


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize(
    "block",
    [
        pytest.param(b, id=str(b), marks=pytest.mark.slow if ".pt2" in b.text else ())
        for b in CODE
        if not any(word in b.text for word in NOT_HERE)
    ],
)
def test_the_code_runs_and_gives_the_logits(
    block: Block, place: Path, demo_folder: Path, request: pytest.FixtureRequest
) -> None:
    code = block.text
    for there, here in ELSEWHERE.items():
        code = code.replace(there, here)
    names: dict[str, Any] = {}
    if block.page in OF_FORMATS:
        shutil.copytree(request.getfixturevalue("exported"), place / "out")
        names = prepared(place / "out")
        if ".pt2" in code:
            converters.export("out", ["pt2"], verify=False)
    elif "convert(" not in code:
        shutil.copytree(demo_folder, place / "out")
    exec(code, names)  # noqa: S102 -- our own page
    if "logits" in names and "torch.rand" not in code:
        given = names["logits"]
        found = np.atleast_2d(given.detach() if isinstance(given, torch.Tensor) else given)
        loose = 0.05 if "ncnn" in code else 1e-4  # which computes in half of the digits
        pixels = prepared(place / "out")["pixels"]
        np.testing.assert_allclose(found, logits_of(pixels), atol=loose, rtol=1e-4)


@pytest.mark.parametrize(
    "block",
    [
        pytest.param(b, id=str(b), marks=() if b.page in QUICK else pytest.mark.slow)
        for b in blocks("sh", "console")
        if any(words[0] == "regnet" for words in lines(b))
    ],
)
def test_the_commands_do_what_they_say(
    block: Block, place: Path, demo_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(demo_folder, "out")
    for name in ("exported.onnx", "model.onnx", "theirs.onnx", "today.onnx"):
        shutil.copy("out/model.onnx", name)
    shutil.copytree("photos", "more/a")
    shutil.copytree("photos", "out/calibration")
    shutil.copy(CHECKPOINT, "seer.torch")
    for program, *words in lines(block):
        left_out = [word for word in words if word in NOT_CALLED]
        if program != "regnet" or left_out:
            continue
        if words[0] == "convert":
            shutil.rmtree(words[2], ignore_errors=True)
        called, target = (words, None) if ">" not in words else (words[:-2], words[-1])
        capsys.readouterr()
        assert run_app(app, "regnet", called) == 0, words
        if target:
            (place / target).write_text(capsys.readouterr().out)


TRANSCRIPTS = {
    "README.md": f"convert {CHECKPOINT} build/demo --labels {LABELS}",
    "docs/compare.md": f"compare {CHECKPOINT} out/model.onnx",
}
"""What the first block of a page without a language shows; its end may be `...`."""


@pytest.mark.usefixtures("place")
@pytest.mark.parametrize("page", TRANSCRIPTS)
def test_a_transcript_is_what_is_printed(
    page: str,
    demo_folder: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """But for numbers, and which of them decides: these depend on the processor and on versions."""
    for name in ("COLUMNS", "FORCE_COLOR"):
        monkeypatch.delenv(name, raising=False)
    shutil.copytree(demo_folder, "out")
    assert run_app(app, "regnet", TRANSCRIPTS[page].split()) == 0
    shown = next(b.text for b in blocks("") if b.page == page)
    beginning = shown.removesuffix("...\n")
    said = capsys.readouterr().out
    assert masked(said).startswith(masked(beginning))
    assert beginning != shown or len(masked(said)) == len(masked(shown))


def masked(text: str) -> str:
    """A transcript without numbers and names of batches."""
    which = re.sub(r"(?<=[ ,])\w+: (RMS|largest) error", "batch: error", text)
    return re.sub(r"[\d.]+(e[-+]\d+)?", "0", which)


def test_what_is_not_run_is_still_there() -> None:
    called = {word for b in blocks("sh", "console") for line in lines(b) for word in line}
    assert NOT_CALLED.keys() <= called
    assert all(any(word in block.text for block in CODE) for word in NOT_HERE)
    assert all(any(word in block.text for block in CODE) for word in ELSEWHERE)
