"""The wheel, alone in an empty environment, does the main job outside the checkout."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
DEMO = ROOT / "checkpoints" / "fashion_mnist"


@pytest.mark.slow
def test_a_wheel_in_an_empty_environment_converts_and_verifies(tmp_path: Path) -> None:
    def run(*command: str | Path) -> None:
        subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)

    run(sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "-w", tmp_path, ROOT)
    run(sys.executable, "-m", "venv", tmp_path / "venv")
    programs = tmp_path / "venv" / "bin"
    wheel = next(tmp_path.glob("*.whl"))
    run(programs / "pip", "install", "--quiet", "-c", ROOT / "constraints.txt", wheel)
    shutil.copy(DEMO / "RegNetY-FashionMNIST.pyth", tmp_path / "model.pyth")

    run(programs / "convert-pycls", "model.pyth", "out")
    run(programs / "regnet", "verify", "out")

    assert json.loads((tmp_path / "out" / "conversion.json").read_text())["verification"]["passed"]
