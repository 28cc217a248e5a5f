"""The model card's lines load what lies in the folder, and do what they say."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from PIL import Image

import converters
from converters.errors import is_installed
from converters.folder.folder import ConvertedFolder
from converters.folder.record import Record
from converters.formats.reference import ReferenceRuntime
from converters.formats.registry import FORMATS
from converters.reports.card import usage_section

if TYPE_CHECKING:
    from pathlib import Path

RUN_HERE = ["onnx", "onnx-fp16", "torchscript", "pt2", "openvino", "ncnn", "litert"]
COMPILED = ["aotinductor", "executorch", "litert-fp16", "stablehlo", "coreai"]
IN_HALF = ("fp16", "ncnn")
"""In the names of files that their lines run in half the bytes."""


def export(folder: Path, *formats: str) -> None:
    converters.export(folder, formats, verify=False)


def blocks(text: str) -> dict[str, str]:
    """File to the code that loads it."""
    found = re.findall(
        r"^\*\*[^\n]*, `([^\n]*)`\*\*\n\n```\w+\n(.*?)```$", text, re.DOTALL | re.MULTILINE
    )
    return dict(found)


def first_output(outputs: Any) -> np.ndarray[Any, np.dtype[np.floating]]:
    """Whatever a runtime calls its outputs."""
    if hasattr(outputs, "logits"):
        return outputs.logits.detach().numpy()  # type: ignore[no-any-return]
    if isinstance(outputs, dict):
        (output,) = outputs.values()
        return np.asarray(output.numpy() if hasattr(output, "numpy") else output)
    return np.asarray(outputs.detach() if isinstance(outputs, torch.Tensor) else outputs[0])


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("kinds", [RUN_HERE, pytest.param(COMPILED, marks=pytest.mark.slow)])
def test_the_lines_of_each_artefact_run_and_give_the_logits(
    kinds: list[str], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kinds = [kind for kind in kinds if not (need := FORMATS[kind].needs) or is_installed(need[0])]
    export(folder, *kinds)
    monkeypatch.chdir(folder)
    code = blocks((folder / "README.md").read_text())
    files = [FORMATS[kind].file_name for kind in kinds]
    code = {name: lines for name, lines in code.items() if name in {"model.safetensors", *files}}
    assert list(code) == ["model.safetensors", *files]
    names: dict[str, Any] = {"image": Image.effect_noise((40, 30), 60).convert("RGB")}
    exec(code.pop("model.safetensors"), names)  # noqa: S102
    converted = ConvertedFolder(folder)
    logits = ReferenceRuntime(converted)(names["pixels"].numpy())["logits"]
    np.testing.assert_allclose(first_output(names["outputs"]), logits, rtol=1e-5)
    for name, lines in code.items():
        assert len(lines.splitlines()) == 3
        exec(lines, names)  # noqa: S102
        loose = 0.05 if any(word in name for word in IN_HALF) else 1e-4
        found = np.atleast_2d(first_output(names["outputs"]))  # ncnn's is of one image
        np.testing.assert_allclose(found, logits, atol=loose, rtol=1e-4)


def test_a_new_artefact_enters_the_card_and_what_a_person_wrote_stays(folder: Path) -> None:
    card = folder / "README.md"
    before = card.read_text()
    assert "pt2" not in before
    own = before.replace("| decision |", "Mine, above.\n\n| decision |")
    own = own.replace("\n## Use", "\n## Data\n\nMine, between.\n\n## Use")
    card.write_text(own + "\n## Notes\n\nMine, below.\n")
    export(folder, "pt2")
    after = card.read_text()
    assert 'torch.export.load("model.pt2")' in after
    assert 'tags: ["regnet", "onnx", "torchscript", "pt2", "pycls"]' in after
    assert "Not verified: `model.pt2`." in after
    assert after.endswith("\n## Notes\n\nMine, below.\n")
    assert after.count("Mine, ") == 3
    assert Record.required(folder).changed_files(folder)[0] == ()
    (folder / "model.pt2").unlink()
    converters.export(folder, ["onnx"])
    all_verified = "`regnet verify` repeats this from the folder alone."
    own = own.replace(
        all_verified, "Not verified: `model.pt2`. Run `regnet verify` on this folder."
    )
    assert card.read_text() == own + "\n## Notes\n\nMine, below.\n"


def test_a_folder_without_our_card_gets_none(folder: Path) -> None:
    (folder / "README.md").write_text("Mine.\n")
    export(folder, "onnx")
    assert (folder / "README.md").read_text() == "Mine.\n"


@pytest.mark.parametrize("kind", FORMATS)
def test_every_format_has_its_lines(folder: Path, kind: str) -> None:
    path = folder / FORMATS[kind].files[0]
    path.parent.mkdir(exist_ok=True)
    path.touch()
    lines = blocks(usage_section(ConvertedFolder(folder)))[FORMATS[kind].file_name].splitlines()
    assert len(lines) == 3
    assert FORMATS[kind].file_name in lines[1]
