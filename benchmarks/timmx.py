"""The contender timmx, which exports timm's networks and checks them.

It has a virtual environment of its own, since nothing else asks for it.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

PACKAGES = ("timmx", "timm", "torch", "onnxruntime")

_CHECKOUT = Path(__file__).resolve().parent.parent

_START = (
    "import sys; sys.path.insert(0, {checkout!r}); import benchmarks.torchvision_operators; "
    "del sys.path[0]; sys.argv[0] = 'timmx'; from timmx.cli import main; main()"
)
"""The program ``timmx``, and first what torchvision needs beside a CPU build of torch."""


def timmx(environment: Path) -> list[str]:
    """Give what ``timmx`` is begun with, making its virtual environment on first use.

    Args:
        environment: Of the virtual environment.

    Raises:
        subprocess.CalledProcessError: If the packages cannot be installed.
    """
    python = environment / "bin" / "python"
    if not (environment / "bin" / "timmx").is_file():
        constraints = str(_CHECKOUT / "constraints.txt")
        pip = (str(python), "-m", "pip", "install", "--quiet", "-c", constraints)
        _run(sys.executable, "-m", "venv", str(environment))
        _run(*pip, "torch", "torchvision", "timm", "timmx[onnx]")
    return [str(python), "-c", _START.format(checkout=str(_CHECKOUT))]


def _run(*command: str) -> None:
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)  # noqa: S603 -- the benchmark's own
