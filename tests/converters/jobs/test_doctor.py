"""What a machine has, and how to install the rest: from the tables, without importing a package."""

from __future__ import annotations

import json
import subprocess
import sys
import tomllib
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from converters.cli.app import app
from converters.cli.endings import run_app
from converters.errors import DISTRIBUTION, StorageError, require_extra
from converters.families.known import FAMILIES, written_back
from converters.formats.registry import FORMATS, OTHER_RUNTIMES
from converters.jobs.doctor import Diagnosis, Part, doctor

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

PROJECT = tomllib.loads((Path(__file__).parents[3] / "pyproject.toml").read_text())["project"]


@pytest.fixture
def hide(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Lets packages be missing, as they are imported and as pip calls them."""

    def hidden(*packages: str) -> None:
        version = metadata.version

        def versions(name: str) -> str:
            if name.lower() in map(str.lower, packages):
                raise metadata.PackageNotFoundError(name)
            return version(name)

        def spec(name: str) -> object:
            return None if name in packages else find_spec(name)

        monkeypatch.setattr("converters.errors.find_spec", spec)
        monkeypatch.setattr(metadata, "version", versions)

    return hidden


def lacking(parts: Iterable[Part]) -> dict[str, Part]:
    return {part.name: part for part in parts if part.lacks}


def test_it_knows_what_the_tables_know() -> None:
    found = doctor()
    assert [part.name for part in found.reads] == list(FAMILIES)
    assert [part.name for part in found.writes] == list(written_back())
    assert [part.name for part in found.formats] == list(FORMATS)
    assert [part.name for part in found.runtimes] == list(OTHER_RUNTIMES)
    assert {part.name for part in found.extras} <= set(PROJECT["optional-dependencies"])
    assert len(found.packages) == len(PROJECT["dependencies"])
    assert not lacking(found.packages)


def test_a_checkout_that_is_not_installed_knows_its_extras(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> list[str]:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "requires", missing)
    found = doctor()
    assert {part.name for part in found.extras} == set(PROJECT["optional-dependencies"])
    assert {part.name for part in found.packages} == {
        text.partition(">=")[0] for text in PROJECT["dependencies"]
    }


def test_what_is_missing_is_said_with_the_line_that_brings_it(hide: Callable[..., None]) -> None:
    hide("ncnn", "h5py", "MNN", "timm", "ray")
    found = doctor()
    ncnn = lacking(found.formats)["ncnn"]
    assert ncnn.install == f'pip install "{DISTRIBUTION}[ncnn]"'
    with pytest.raises(StorageError, match="ncnn is not installed") as refused:
        require_extra("ncnn", "ncnn")
    assert f"`{ncnn.install}`" in str(refused.value)
    assert lacking(found.reads).keys() == {"tensorflow", "keras", "keras-applications", "kecam"}
    assert lacking(found.writes).keys() == lacking(found.reads).keys()
    assert lacking(found.runtimes).keys() >= {"mnn", "ncnn-default"}
    assert lacking(found.frameworks)["timm"].install == "pip install timm"
    assert {"ncnn", "keras", "mnn", "ray"} <= lacking(found.extras).keys()
    wanted = found.install or ""
    assert all(name in wanted for name in ("keras", "mnn", "ncnn"))
    assert "ray" not in wanted  # which neither reads, writes nor runs


def test_a_format_may_lack_more_than_a_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    monkeypatch.setattr("platform.system", lambda: "Linux")
    found = lacking(doctor().formats)
    assert found["aotinductor"].lacks == "there is no C++ compiler (no-such-compiler)"
    assert "on macOS alone" in (found["coreml"].lacks or "")
    assert found["coreml"].install is None


def test_it_ends_with_4_where_nothing_works(
    hide: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    hide("torch")
    assert run_app(app, "regnet", ["doctor"]) == 4
    said = capsys.readouterr()
    assert "torch: torch is not installed" in said.out
    assert said.err == (
        f"torch is not installed; install what is needed with `pip install {DISTRIBUTION}`.\n"
    )


def test_a_package_that_is_too_old_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    version = metadata.version
    old = {"torch": "2.9.1+cpu", "numpy": "2.0"}
    monkeypatch.setattr(metadata, "version", lambda name: old.get(name) or version(name))
    assert {part.lacks for part in lacking(doctor().packages).values()} == {
        "torch 2.9.1+cpu is older than 2.10"
    }


def test_it_prints_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_app(app, "regnet", ["doctor", "--json"]) == 0
    record = json.loads(capsys.readouterr().out)
    assert record.keys() == {"schema", "install", *Diagnosis.__dataclass_fields__}
    assert [part["name"] for part in record["formats"]] == list(FORMATS)


@pytest.mark.parametrize(
    ("script", "gpus"),
    [
        ("echo NVIDIA H200, 580.1", ("NVIDIA H200, 580.1",)),
        ("echo NVIDIA-SMI has failed; exit 9", ()),
        (None, ()),
    ],
    ids=["one", "a driver that fails", "none"],
)
def test_gpus_are_those_that_the_driver_names(
    script: str | None, gpus: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if script is not None:
        program = tmp_path / "nvidia-smi"
        program.write_text(f"#!/bin/sh\n{script}\n")
        program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert doctor().gpus == gpus


def test_it_imports_nothing_that_it_speaks_of() -> None:
    code = (
        "import sys, converters; found = converters.doctor();"
        "parts = [*found.packages, *found.formats, *found.runtimes, *found.frameworks];"
        "names = {(part.found or '').partition(' ')[0] for part in parts} - {'numpy', ''};"
        "print(sorted(names & sys.modules.keys()))"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout == "[]\n"
