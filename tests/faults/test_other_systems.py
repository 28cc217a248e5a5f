"""The whole job, and what can go wrong in it, where what Linux has is missing."""

from __future__ import annotations

import errno
import os
import shutil
import sys
from typing import TYPE_CHECKING, Any

import pytest

from converters.errors import InputError, StorageError
from converters.jobs.convert import convert
from converters.jobs.export import export
from converters.progress import Silent
from converters.published.fetch import download
from converters.staging.staged import staged_folder
from converters.staging.unfinished import partial_name
from converters.testing import assert_parity
from converters.weights import weights_file
from regnet.config import RegNetConfig
from regnet.files import system
from regnet.model import RegNetForImageClassification
from tests.converters.demo import snapshot
from tests.converters.formats.random_folder import random_folder
from tests.converters.server import Site, serving
from tests.other_systems import HIDDEN, windows

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="hides what Linux has")

SYSTEMS = {"all at once": windows} | HIDDEN
WEIGHTS = "model.safetensors"


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What is converted: a small network, in transformers' form."""
    config = RegNetConfig(
        embedding_size=8, hidden_sizes=(16, 24), depths=(1, 2), groups_width=8, num_labels=10
    )
    folder = tmp_path_factory.mktemp("source") / "net"
    random_folder(folder, config)
    return folder


@pytest.fixture(scope="module")
def expected(source: Path) -> dict[str, bytes | None]:
    """What becomes of it on Linux, unproven."""
    convert(source, source.with_name("expected"), verify=False)
    return snapshot(source.with_name("expected"))


@pytest.fixture(scope="module")
def proven(source: Path) -> dict[str, bytes | None]:
    """What becomes of it on Linux."""
    convert(source, source.with_name("proven"))
    return snapshot(source.with_name("proven"))


@pytest.fixture(
    params=[
        pytest.param(name, marks=[] if name == "all at once" else pytest.mark.slow)
        for name in SYSTEMS
    ]
)
def elsewhere(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """A system that lacks something."""
    SYSTEMS[request.param](monkeypatch)
    return str(request.param)


class _Interrupting(Silent):
    """Ctrl-C is pressed in the middle of the weights."""

    def advance(self, amount: int) -> None:
        if amount:
            raise KeyboardInterrupt


@pytest.mark.usefixtures("elsewhere")
def test_a_job_is_done_and_proven_and_replaced(
    source: Path, proven: dict[str, bytes | None], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "old").write_text("old")
    convert(source, out, force=True)
    assert_parity(out)
    assert snapshot(out) == proven
    export(out, ["onnx-fp16"])
    assert_parity(out)
    assert snapshot(out).keys() == proven.keys() | {"onnx", "onnx/model_fp16.onnx"}
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


LIBRARIES = {
    "openvino": "openvino",
    "litert": "ai_edge_litert",
    "ncnn": "ncnn",
    "pt2": "torch",
    "stablehlo": "jax",
    "executorch": "executorch",
}
"""Formats whose library might keep a file open, or mapped, that is to be replaced or removed."""


@pytest.mark.slow
@pytest.mark.parametrize("form", LIBRARIES)
def test_no_library_keeps_what_it_was_given(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: str
) -> None:
    pytest.importorskip(LIBRARIES[form])
    windows(monkeypatch)
    convert(source, tmp_path / "out", formats=[form])
    export(tmp_path / "out", [form])
    assert_parity(tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


@pytest.mark.usefixtures("elsewhere")
def test_a_checkpoint_is_fetched_and_continued(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    target, content = tmp_path / "net.pth", bytes(range(256)) * 500
    with serving(Site(content)) as site:
        (tmp_path / "net.pth.incomplete").write_bytes(content[:100])
        with (
            system.locked(tmp_path / "net.pth.incomplete", is_folder=False),
            pytest.raises(StorageError, match="Another command is fetching"),
        ):
            download(site.url, target, Silent())
        download(site.url, target, Silent())
        with pytest.raises(InputError, match="it was deleted"):
            download(site.url, tmp_path / "other.pth", Silent(), "0" * 64)
    assert snapshot(tmp_path) == {"net.pth": content}


@pytest.mark.usefixtures("elsewhere")
def test_a_model_is_saved_where_it_came_from(source: Path, tmp_path: Path) -> None:
    shutil.copytree(source, tmp_path / "net")
    before = snapshot(source)
    model = RegNetForImageClassification.from_pretrained(tmp_path / "net")
    model.save_pretrained(tmp_path / "net")
    assert snapshot(tmp_path / "net") == before


@pytest.mark.usefixtures("elsewhere")
def test_what_is_interrupted_leaves_the_old_folder_and_nothing_else(
    source: Path, expected: dict[str, bytes | None], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    shutil.copytree(source.with_name("expected"), out)
    with pytest.raises(KeyboardInterrupt):
        convert(source, out, dtype="float16", verify=False, force=True, progress=_Interrupting())
    assert snapshot(out) == expected
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


@pytest.mark.usefixtures("elsewhere")
def test_what_a_killed_process_leaves_is_taken_up(
    source: Path, expected: dict[str, bytes | None], tmp_path: Path
) -> None:
    out, staging = tmp_path / "out", tmp_path / partial_name("out")
    staging.mkdir()
    weights = expected[WEIGHTS] or b""
    (staging / WEIGHTS).write_bytes(weights[: len(weights) // 2] + b"torn")
    if system._fcntl is None:
        staging.with_name(f"{staging.name}.regnet-lock").touch()
    aside = staging.with_name(f"{staging.name}-old")
    shutil.copytree(source.with_name("expected"), aside)  # killed between two renames

    convert(source, out, verify=False, force=True)

    assert snapshot(out) == expected
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def _fails(name: str, number: int, after: int) -> Callable[[pytest.MonkeyPatch], None]:
    """Let a call fail the n-th time, and from then on."""

    def patch(monkeypatch: pytest.MonkeyPatch) -> None:
        module: Any = weights_file if name in {"write_at", "read_at"} else os
        right, calls = getattr(module, name), []

        def call(*arguments: Any, **named: Any) -> Any:
            calls.append(arguments)
            if len(calls) > after:
                raise OSError(number, os.strerror(number))
            return right(*arguments, **named)

        monkeypatch.setattr(module, name, call)

    return patch


FAULTS = {
    "a full disk": _fails("write_at", errno.ENOSPC, 1),
    "a device that fails": _fails("read_at", errno.EIO, 2),
    "a disk that cannot be synced": _fails("fsync", errno.EIO, 3),
    "a folder that cannot be renamed": _fails("rename", errno.EBUSY, 0),
}


@pytest.mark.usefixtures("elsewhere")
@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_leaves_the_old_folder_or_the_new_one_and_a_sentence(
    source: Path,
    expected: dict[str, bytes | None],
    tmp_path: Path,
    fault: str,
) -> None:
    out, old = tmp_path / "out", {"config.json": b"old"}
    out.mkdir()
    (out / "config.json").write_bytes(b"old")
    with pytest.MonkeyPatch.context() as patch:
        FAULTS[fault](patch)
        said = ""
        try:
            convert(source, out, verify=False, force=True)
        except StorageError as error:
            said = str(error)
    assert snapshot(out) == (old if said else expected)
    assert not said or said.startswith(f"Writing {out} failed")
    convert(source, out, verify=False, force=True)
    assert snapshot(out) == expected
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


@pytest.mark.usefixtures("elsewhere")
def test_of_two_that_make_the_same_the_second_is_refused(source: Path, tmp_path: Path) -> None:
    with staged_folder(tmp_path / "out") as staging:
        (staging / "mine").touch()
        with pytest.raises(StorageError, match="is being made by another process"):
            convert(source, tmp_path / "out", verify=False)
    assert snapshot(tmp_path / "out") == {"mine": b""}
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
