"""The front door: what it names, that it is light, and that its examples do what they say."""

from __future__ import annotations

import doctest
import re
import shutil
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

import converters
import regnet
from converters.errors import DISTRIBUTION
from converters.folder.record import Record
from tests.converters.demo import CHECKPOINT, LABELS, sample_images

ROOT = Path(__file__).parents[2]
JOBS = (
    *("bench", "compare", "convert", "doctor", "evaluate", "export", "inspect", "predict"),
    "verify",
)


@pytest.fixture
def place(demo_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with the bundled checkpoint, what it was converted to, and images."""
    for file in (CHECKPOINT, LABELS):
        shutil.copy(file, tmp_path)
    shutil.copytree(demo_folder, tmp_path / "out")
    for path, label in sample_images(tmp_path, 4):
        target = tmp_path / "val" / re.sub(r"\W", "_", label)
        target.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, target)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.usefixtures("place")
@pytest.mark.parametrize("name", JOBS)
def test_the_example_of_a_job_does_what_it_says(name: str) -> None:
    names = {each: getattr(converters, each) for each in converters.__all__}
    (example,) = doctest.DocTestFinder().find(names[name], name, globs=names)
    assert example.examples
    assert doctest.DocTestRunner().run(example).failed == 0


@pytest.mark.usefixtures("place")
def test_the_page_does_what_it_says() -> None:
    found = doctest.testfile(str(ROOT / "docs" / "api.md"), module_relative=False)
    assert found.failed == 0
    assert found.attempted > 5


def test_the_doors_name_all_that_they_have() -> None:
    for package in (converters, regnet):
        for name in package.__all__:
            assert getattr(package, name) is not None
        assert set(package.__all__) <= set(dir(package))
        with pytest.raises(AttributeError, match="no attribute 'nothing'"):
            package.nothing  # noqa: B018
    assert set(JOBS) <= set(converters.__all__)


def test_a_checkout_that_is_not_installed_knows_its_version(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert metadata.version(DISTRIBUTION) == converters.__version__ == regnet.__version__
    installed = metadata.version

    def version(name: str) -> str:
        if name == DISTRIBUTION:
            raise metadata.PackageNotFoundError(name)
        return installed(name)

    monkeypatch.setattr(metadata, "version", version)
    converters.convert(CHECKPOINT, tmp_path / "out", formats=(), verify=False)
    assert Record.required(tmp_path / "out").fields["versions"][DISTRIBUTION] == "0.1.0"
    code = (
        f"import sys; sys.path.append({str(ROOT)!r}); import converters as c; print(c.__version__)"
    )
    alone = [sys.executable, "-I", "-S", "-c", code]
    run = subprocess.run(alone, capture_output=True, text=True, check=True)
    assert run.stdout == "0.1.0\n"


def test_an_import_of_the_doors_loads_nothing_heavy() -> None:
    code = "import converters, regnet, sys; dir(converters); print(*sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = {name.split(".")[0] for name in run.stdout.split()}
    assert not loaded & {"torch", "onnx", "onnxruntime", "numpy", "PIL", "typer", "rich", "yaml"}


def test_a_size_is_bytes_or_words(place: Path) -> None:
    for size, name in ((1 << 30, "a"), ("1MB", "b")):
        converters.convert(
            place / CHECKPOINT.name, name, formats=(), verify=False, max_shard_size=size
        )
    assert (place / "a" / "model.safetensors").is_file()
    assert len(list((place / "b").glob("model-*.safetensors"))) > 1
    with pytest.raises(converters.InputError, match="'large' is not a size"):
        converters.convert(place / CHECKPOINT.name, "c", max_shard_size="large")


def test_a_comparison_says_all_once_its_sides_are_closed(place: Path) -> None:
    comparison = converters.compare(place / CHECKPOINT.name, place / "out" / "model.onnx")
    assert [comparison.to_dict()[side]["precision"] for side in "ab"] == ["float32"] * 2


def test_a_dry_run_gives_the_plan_and_writes_nothing(place: Path) -> None:
    for to in (None, "timm"):
        planned = converters.convert(place / CHECKPOINT.name, "new", to=to, dry_run=True)
        assert (len(planned.inspection.plan.steps), planned.report) == (208, None)
    assert not (place / "new").exists()


def test_how_a_checkpoint_is_read_needs_the_checkpoint(place: Path) -> None:
    with pytest.raises(converters.InputError, match="name it, or leave them out"):
        converters.verify("out", channel_order="rgb")
    wrong = converters.verify("out", against=place / CHECKPOINT.name, channel_order="rgb")
    assert [failure.split(",")[0] for failure in wrong.failures] == [CHECKPOINT.name]


@pytest.mark.parametrize("package", ["converters", "regnet"])
def test_a_package_is_the_command_line(package: str) -> None:
    run = subprocess.run(
        [sys.executable, "-m", package, "inspect", "--help"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "regnet inspect" in run.stdout
