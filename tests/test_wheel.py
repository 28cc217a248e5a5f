"""Wheel and sdist: what the package index takes, and what does the main job where it is alone.

All of it is slow. torch is installed as `constraints.txt` says for the Python that runs the tests;
of others this project's index may have none without CUDA, so there everything runs that needs no
torch.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from email import message_from_bytes
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from converters.errors import DISTRIBUTION
from regnet import __version__

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parent.parent
CHECKPOINT = ROOT / "checkpoints" / "fashion_mnist" / "RegNetY-FashionMNIST.pyth"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
RELEASING = Path(f"{sys.prefix}-release") / "bin" / "python"
"""An environment of its own, with build and twine; `make test-all` installs it."""

PYTHONS = sorted(re.findall(r"Python :: (3\.\d+)", "\n".join(PROJECT["classifiers"])))
OWN = f"{sys.version_info.major}.{sys.version_info.minor}"

HEAVY = {
    "executorch": "it asks for scikit-learn and Core ML as well, 400 MB",
    "ray": "100 MB",
    "coreai": "200 MB",
    "jax": "150 MB",
    "test": "`make test` installs it",
    "lint": "`make lint` installs it",
}
"""Extras that are only resolved, not installed, with the reason."""


def run(*command: str | Path, cwd: Path, status: int = 0, **variables: str) -> str:
    """Run a program as somebody who has no checkout; give its stdout."""
    own = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    finished = subprocess.run(
        command,
        cwd=cwd,
        env=own | {"OMP_NUM_THREADS": "1"} | variables,
        capture_output=True,
        text=True,
        check=False,
    )
    assert finished.returncode == status, finished.stderr
    return finished.stdout


def install(environment: Path, *what: str | Path) -> None:
    pip = (environment / "bin" / "python", "-m", "pip", "install", "-qqq")
    run(*pip, "-c", ROOT / "constraints.txt", *what, cwd=environment)


def python_called(version: str) -> Path | None:
    """An interpreter of a version, on the path or where pyenv puts them."""
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    found = [*pyenv.glob(f"{version}.*/bin/python"), shutil.which(f"python{version}")]
    for path in filter(None, found):
        says = [path, "-c", "import sys; print('%d.%d' % sys.version_info[:2])"]
        if subprocess.run(says, capture_output=True, text=True, check=False).stdout.split() == [
            version
        ]:
            return Path(path)
    return None


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with both, the wheel made of the sdist."""
    if not RELEASING.is_file():
        pytest.skip("`make test-all` installs what builds into a place of its own")
    out = tmp_path_factory.mktemp("built")
    run(RELEASING, "-m", "build", "--outdir", out, ROOT, cwd=out)
    return out


@pytest.fixture(scope="module")
def wheel(built: Path) -> Path:
    (path,) = built.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """An environment with the wheel and what it asks for, and nothing else."""
    path = tmp_path_factory.mktemp("installed") / "environment"
    run(sys.executable, "-m", "venv", path, cwd=path.parent)
    install(path, wheel)
    yield path
    shutil.rmtree(path)  # a gigabyte, which pytest would keep for three runs


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Path]:
    """An empty folder, gone with the test."""
    yield tmp_path
    shutil.rmtree(tmp_path)


def test_the_index_would_take_both(built: Path) -> None:
    run(RELEASING, "-m", "twine", "check", "--strict", *built.iterdir(), cwd=built)
    assert len([*built.iterdir()]) == 2


def test_the_version_is_that_of_the_code(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (each for each in archive.namelist() if each.endswith(".dist-info/METADATA"))
        metadata = message_from_bytes(archive.read(name))
    assert (metadata["Name"], metadata["Version"]) == (DISTRIBUTION, __version__)
    assert set(metadata.get_all("Provides-Extra", ())) == PROJECT["optional-dependencies"].keys()


def test_a_wheel_of_the_sdist_holds_all_of_both_packages(built: Path, wheel: Path) -> None:
    command = ["git", "ls-files", "regnet", "converters"]
    tracked = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    with zipfile.ZipFile(wheel) as archive:
        found = {name for name in archive.namelist() if ".dist-info/" not in name}
    assert found == set(tracked.split())
    (sdist,) = built.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    for needed in (
        "Makefile",
        "constraints.txt",
        "CITATION.cff",
        "action.yml",
        "tests/conftest.py",
    ):
        assert needed in names
    assert CHECKPOINT.relative_to(ROOT).as_posix() in names


def test_alone_it_converts_verifies_and_says_what_it_is(installed: Path, tmp_path: Path) -> None:
    programs = installed / "bin"
    assert run(programs / "regnet", "--version", cwd=tmp_path).split()[-1] == __version__
    assert "convert" in run(programs / "regnet", "--help", cwd=tmp_path)
    run(programs / "regnet", "doctor", cwd=tmp_path)
    run(programs / "convert-pycls", CHECKPOINT, "out", cwd=tmp_path)
    run(programs / "python", "-m", "regnet", "verify", "out", cwd=tmp_path)
    assert json.loads((tmp_path / "out" / "conversion.json").read_text())["verification"]["passed"]

    install(installed, "pytest")
    command = (programs / "python", "-m", "pytest", "-W", "error", "-p", "no:cacheprovider")
    assert "5 passed" in run(*command, "--regnet-folder", "out", cwd=tmp_path)


@pytest.mark.parametrize("version", [each for each in PYTHONS if each != OWN])
def test_another_python_converts_to_the_same_bytes(
    version: str, installed: Path, wheel: Path, place: Path
) -> None:
    """What needs no torch: help, doctor, and a conversion without its proof."""
    python = python_called(version)
    if python is None:
        pytest.skip(f"this machine has no Python {version}")
    programs = place / "environment" / "bin"
    run(python, "-m", "venv", programs.parent, cwd=place)
    others = [text for text in PROJECT["dependencies"] if not text.startswith("torch")]
    install(programs.parent, *others)
    install(programs.parent, "--no-deps", wheel)

    assert "convert" in run(programs / "regnet", "--help", cwd=place)
    assert "torch is not installed" in run(programs / "regnet", "doctor", cwd=place, status=4)
    for origin, out in ((programs, "new"), (installed / "bin", "known")):
        convert = (origin / "convert-pycls", CHECKPOINT, out, "--no-verify", "-q")
        run(*convert, cwd=place)
    for file in (place / "known").iterdir():
        if file.name != "conversion.json":  # which names the versions of packages
            assert (place / "new" / file.name).read_bytes() == file.read_bytes(), file.name


def resolved(environment: Path, wheel: Path, extra: str) -> list[dict[str, Any]]:
    """What pip would install for an extra beside what is there."""
    report = environment / f"{extra}.json"
    install(environment, "--dry-run", "--report", report, f"{wheel}[{extra}]")
    return [entry["metadata"] for entry in json.loads(report.read_text())["install"]]


@pytest.mark.parametrize("extra", PROJECT["optional-dependencies"])
def test_an_extra_installs_alone(extra: str, installed: Path, wheel: Path, place: Path) -> None:
    """Each beside the bare project, in a layer of its own, so that none leans on another.

    pip resolves it with `constraints.txt` without touching what is installed. What it names is then
    installed for real, but for `HEAVY`, and `regnet doctor` must find the extra.
    """
    names = {
        entry["name"].lower(): entry["version"]
        for entry in resolved(installed, wheel, extra)
        if entry["name"] != DISTRIBUTION
    }
    listed = run(installed / "bin" / "python", "-m", "pip", "list", "--format=json", cwd=place)
    there = {entry["name"].lower() for entry in json.loads(listed)}
    assert not names.keys() & there  # nothing would be replaced
    for requirement in PROJECT["optional-dependencies"][extra]:
        assert re.split("[<>=]", requirement)[0].lower() in names.keys() | there
    if extra in HEAVY:
        return
    layer = place / "layer"
    pins = [f"{name}=={version}" for name, version in names.items()]
    install(installed, "--no-deps", "--target", layer, *pins)
    found = run(installed / "bin" / "regnet", "doctor", "--json", cwd=place, PYTHONPATH=str(layer))
    (part,) = (each for each in json.loads(found)["extras"] if each["name"] == extra)
    assert part["lacks"] is None
