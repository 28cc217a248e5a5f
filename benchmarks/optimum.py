"""The contender: Hugging Face optimum in an environment of its own.

It cannot live in the project's: optimum-onnx 0.1.0 asks for a transformers before 4.58.
"""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import version
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

PACKAGES = ("optimum-onnx", "transformers", "torch", "onnxruntime")


def optimum_cli(environment: Path) -> Path:
    """Give the program ``optimum-cli``, making its virtual environment on first use.

    Args:
        environment: Of the virtual environment; torch in it is the one that is installed here.

    Raises:
        subprocess.CalledProcessError: If the packages cannot be installed.
    """
    program = environment / "bin" / "optimum-cli"
    if program.is_file():
        return program
    torch = f"torch=={version('torch').partition('+')[0]}"
    wanted = [torch, "transformers<4.58", "optimum-onnx[onnxruntime]"]
    _run(sys.executable, "-m", "venv", str(environment))
    _run(str(environment / "bin" / "python"), "-m", "pip", "install", "--quiet", *wanted)
    return program


def installed_versions(environment: Path, packages: Sequence[str] = PACKAGES) -> dict[str, str]:
    """Versions of packages in a virtual environment."""
    code = "import sys, importlib.metadata as m; print(*map(m.version, sys.argv[1:]))"
    versions = _run(str(environment / "bin" / "python"), "-c", code, *packages).split()
    return dict(zip(packages, versions, strict=True))


def _run(*command: str) -> str:
    return subprocess.run(  # noqa: S603 -- the benchmark's own commands
        command, check=True, stdout=subprocess.PIPE, text=True
    ).stdout
