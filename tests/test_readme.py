"""What the README shows is what happens."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
from PIL import Image

ROOT = Path(__file__).parent.parent
DEMO = ROOT / "checkpoints" / "fashion_mnist"


def test_the_python_example_runs_as_written(tmp_path: Path) -> None:
    code = re.search(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)[1]
    checkpoint = (DEMO / "RegNetY-FashionMNIST.pyth").read_bytes()
    (tmp_path / "RegNetY-4.0GF.pyth").write_bytes(checkpoint)
    with np.load(DEMO / "samples.npz") as samples:
        Image.fromarray(samples["images"][0]).save(tmp_path / "cat.jpg")
    run = subprocess.run(
        [sys.executable, "-c", code + "\nprint(logits.shape)"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    assert "torch.Size([1, 10])" in run.stdout


def test_every_command_and_option_named_in_the_readme_exists() -> None:
    text = (ROOT / "README.md").read_text()
    commands = set(re.findall(r"^regnet (\w+)", text, re.MULTILINE))
    expected = (
        "convert list inspect export tune verify compare predict evaluate bench sign push doctor"
    )
    assert commands == set(expected.split())
    program = Path(sys.executable).parent / "regnet"
    pages = "".join(
        subprocess.run(
            [program, *command, "--help"], capture_output=True, text=True, check=True
        ).stdout
        for command in [[], *([name] for name in sorted(commands))]
    )
    for option in set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", text)):
        assert option in pages, f"the README names {option}, which no command has"
