"""Notebooks and the page on fine-tuning: committed without outputs, and run from end to end."""

from __future__ import annotations

import ast
import os
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image

import converters
from docs import hooks
from tests.cells import ROOT, cells, notebook
from tests.converters.demo import CHECKPOINT, DEMO, labels

if TYPE_CHECKING:
    from pathlib import Path

EXAMPLES = ROOT / "examples"
PAGE = ROOT / "docs" / "fine-tune.md"

SHOWS = {
    "convert_and_compare": ["pycls legacy", "model.onnx             pass", "torchvision.pth True"],
    "deploy": ["model_quantized.onnx    pass", "for latency: ", "torch.Size([1, 10])"],
    "fine_tune": ["(90, 54, torch.Size([90, 3, 48, 48]))", "model.onnx             pass"],
    "where_an_export_goes_wrong": ["goes wrong at regnet.encoder.stages.2.layers.1.layer.3"],
}
"""What each notebook prints, among other things."""

EACH = pytest.mark.parametrize("name", SHOWS)


def run(path: Path, folder: Path) -> str:
    """What running a file's cells prints."""
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    environment |= {"TMPDIR": str(folder), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        [sys.executable, "-m", "tests.cells", path],
        cwd=EXAMPLES if path.suffix == ".ipynb" else folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_every_notebook_is_tested() -> None:
    assert {path.stem for path in EXAMPLES.glob("*.ipynb")} == SHOWS.keys()


@EACH
def test_a_notebook_is_as_its_format_says_and_has_no_outputs(name: str) -> None:
    content = notebook(EXAMPLES / f"{name}.ipynb")
    assert (content["nbformat"], content["nbformat_minor"]) == (4, 5)
    assert content["metadata"]["kernelspec"]["name"] == "python3"
    found = content["cells"]
    assert len({cell["id"] for cell in found}) == len(found)
    assert found[0]["cell_type"] == "markdown"
    assert found[0]["source"][0].startswith("# ")
    for cell in found:
        rest = {"outputs": [], "execution_count": None} if cell["cell_type"] == "code" else {}
        kept = {key: cell[key] for key in cell.keys() - {"cell_type", "id", "source"}}
        assert kept == {"metadata": {}} | rest


@EACH
def test_a_notebook_is_plain_python(name: str) -> None:
    for _, code in cells(EXAMPLES / f"{name}.ipynb"):
        ast.parse(code)


@EACH
def test_the_links_of_a_notebook_lead_somewhere(name: str) -> None:
    for cell in notebook(EXAMPLES / f"{name}.ipynb")["cells"]:
        for link, _ in hooks.links("".join(cell["source"])):
            assert cell["cell_type"] == "code" or (EXAMPLES / link).exists(), link


@EACH
@pytest.mark.slow
def test_a_notebook_runs_from_beginning_to_end(name: str, tmp_path: Path) -> None:
    printed = run(EXAMPLES / f"{name}.ipynb", tmp_path)
    for words in SHOWS[name]:
        assert words in printed, printed


@pytest.mark.slow
def test_the_page_on_fine_tuning_does_what_it_says(tmp_path: Path) -> None:
    shutil.copy(CHECKPOINT, tmp_path)
    converters.convert(CHECKPOINT, tmp_path / "out", labels=labels(), verify=False)
    with np.load(DEMO / "samples.npz") as samples:
        for index in range(0, 100, 5):
            kind = "shoe" if samples["labels"][index] > 6 else "cloth"
            folder = tmp_path / ("train" if index % 10 else "test") / kind
            folder.mkdir(parents=True, exist_ok=True)
            Image.fromarray(samples["images"][index]).save(folder / f"{index}.png")

    run(PAGE, tmp_path)

    tuned = ("tuned", "tuned-by-trainer", "tuned-by-transformers", "tuned-in-timm", "tuned.pyth")
    for name in tuned:
        assert converters.inspect(tmp_path / name).source.config.num_labels == 2
    new = converters.ConvertedFolder(tmp_path / "new")
    assert new.config.id2label == {0: "cloth", 1: "shoe"}
    assert new.processor.size == converters.ConvertedFolder(tmp_path / "out").processor.size
