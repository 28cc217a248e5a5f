"""What torch is not given to open: archives read in two ways, or that inflate, or hold code."""

from __future__ import annotations

import json
import zipfile
from typing import TYPE_CHECKING, Any

import pytest
import torch

from converters.checkpoint.torch_archive import MAX_INFLATED, loadable
from converters.errors import UnsafeInputError
from converters.formats.registry import FORMATS
from converters.formats.torchscript import export_torchscript
from converters.parity.compare.foreign_torchscript import ForeignTorchScript
from converters.parity.contents.pt2 import read_pt2
from regnet.config import RegNetConfig
from tests.converters.formats.random_folder import random_folder

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from converters.folder.folder import ConvertedFolder

    Entries = dict[str, bytes]

CONFIG = RegNetConfig(embedding_size=8, hidden_sizes=[8], depths=[1], groups_width=8, num_labels=2)
TABLE = "e/data/weights/model_weights_config.json"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> ConvertedFolder:
    return random_folder(tmp_path_factory.mktemp("folder") / "out", CONFIG, classifier=True)


@pytest.fixture(scope="module")
def files(folder: ConvertedFolder, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A TorchScript file of ours, and a `.pt2` of a single layer."""
    place = tmp_path_factory.mktemp("files")
    export_torchscript(folder, place / "t.pt")
    program = torch.export.export(torch.nn.Linear(2, 2).eval(), (torch.ones(1, 2),))
    program.example_inputs = None
    torch.export.save(program, place / "e.pt2")
    return {"torchscript": place / "t.pt", "pt2": place / "e.pt2", "aotinductor": place / "e.pt2"}


@pytest.fixture
def untouched(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let torch's loaders fail the test."""

    def loads(*_: object, **__: object) -> None:
        pytest.fail("torch was given the file")

    monkeypatch.setattr(torch.jit, "load", loads)
    monkeypatch.setattr(torch.export, "load", loads)
    monkeypatch.setattr("torch._inductor.aoti_load_package", loads)


def changed(source: Path, path: Path, change: Callable[[Entries], None], **how: Any) -> Path:
    with zipfile.ZipFile(source) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    change(entries)
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in entries.items():
            archive.writestr(name, data, **how)
    return path


def twin(entries: Entries) -> None:
    """Put another entry before the first one, whose name differs in case alone."""
    rest = dict(entries)
    first = next(iter(rest))
    root, _, inside = first.partition("/")
    entries.clear()
    entries |= {f"{root}/{inside.upper()}": b"other"} | rest


def second_folder(entries: Entries) -> None:
    entries["other/x"] = b""


def outside(entries: Entries) -> None:
    entries["e/../../x"] = b""


@pytest.mark.parametrize("kind", ["torchscript", "pt2", "aotinductor"])
@pytest.mark.parametrize("change", [twin, second_folder, outside])
@pytest.mark.usefixtures("untouched")
def test_what_programs_may_read_differently_is_not_loaded(
    kind: str, change: Callable[[Entries], None], files: dict[str, Path], tmp_path: Path
) -> None:
    path = changed(files[kind], tmp_path / files[kind].name, change)
    with pytest.raises(UnsafeInputError, match="programs may disagree on its content"):
        FORMATS[kind].load(path, ("logits",))


@pytest.mark.usefixtures("untouched")
def test_compare_does_not_load_it_either(files: dict[str, Path], tmp_path: Path) -> None:
    path = changed(files["torchscript"], tmp_path / "t.pt", twin)
    with pytest.raises(UnsafeInputError, match="programs may disagree on its content"):
        ForeignTorchScript(path)


@pytest.mark.parametrize("kind", ["torchscript", "pt2", "aotinductor"])
@pytest.mark.usefixtures("untouched")
def test_what_is_compressed_is_not_loaded(
    kind: str, files: dict[str, Path], tmp_path: Path
) -> None:
    path = changed(files[kind], tmp_path / "x", lambda _: None, compress_type=zipfile.ZIP_DEFLATED)
    with pytest.raises(UnsafeInputError, match=r"is compressed, \d+ bytes to \d+, as torch writes"):
        FORMATS[kind].load(path, ("logits",))


@pytest.mark.usefixtures("untouched")
def test_code_that_inflates_is_not_loaded(files: dict[str, Path], tmp_path: Path) -> None:
    path = changed(files["torchscript"], tmp_path / "t.pt", lambda _: None)
    with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as archive:
        for part in range(2):
            archive.writestr(f"regnet/code/x{part}.py", b" " * (MAX_INFLATED // 2 + 1))
    assert path.stat().st_size < MAX_INFLATED // 20
    with pytest.raises(UnsafeInputError, match=r"code/x1\.py: is compressed"):
        FORMATS["torchscript"].load(path, ("logits",))


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_code_that_torch_compressed_is_loaded(tmp_path: Path) -> None:
    network = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.ReLU()).eval()
    trace: Any = torch.jit.trace
    trace(network, torch.ones(1, 3, 8, 8)).save(tmp_path / "t.pt")
    with loadable(tmp_path / "t.pt") as directory:
        assert any(entry.method for entry in directory.entries)
    FORMATS["torchscript"].load(tmp_path / "t.pt", ("logits",))


def damaged(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-30])


def test_what_is_damaged_fails_as_it_does_in_torch(files: dict[str, Path], tmp_path: Path) -> None:
    path = changed(files["torchscript"], tmp_path / "t.pt", lambda _: None)
    damaged(path)
    with pytest.raises(RuntimeError, match="is truncated or damaged"):
        FORMATS["torchscript"].load(path, ("logits",))


def opaque(entries: Entries) -> None:
    """A constant that torch.export.load unpickles whatever its table says."""
    table = json.loads(entries["e/data/constants/model_constants_config.json"])
    (weight, *_) = json.loads(entries[TABLE])["config"].values()
    table["config"] = {"x": weight | {"path_name": "opaque_obj_0"}}
    entries["e/data/constants/model_constants_config.json"] = json.dumps(table).encode()
    entries["e/data/constants/opaque_obj_0"] = b"cos\nsystem\n(S'true'\ntR."


def of_old(entries: Entries) -> None:
    entries["e/data/weights/model.pt"] = b"cos\nsystem\n(S'true'\ntR."


def compiled(entries: Entries) -> None:
    entries["e/data/aotinductor/model/x.so"] = b"\x7fELF"


def other_table(entries: Entries) -> None:
    entries[TABLE] = b"[]"


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (opaque, r"holds a pickle \(data/constants/model_constants_config.json\)"),
        (of_old, r"holds a pickle \(data/weights/model.pt\)"),
        (compiled, r"holds machine code \(data/aotinductor/model/x.so\)"),
    ],
)
@pytest.mark.usefixtures("untouched")
def test_a_pt2_with_code_of_any_kind_is_not_loaded(
    change: Callable[[Entries], None], reason: str, files: dict[str, Path], tmp_path: Path
) -> None:
    path = changed(files["pt2"], tmp_path / "e.pt2", change)
    with pytest.raises(UnsafeInputError, match=reason):
        FORMATS["pt2"].load(path, ("logits",))


def test_a_twin_of_a_weight_is_not_certified(
    folder: ConvertedFolder, files: dict[str, Path], tmp_path: Path
) -> None:
    read_pt2(folder, files["pt2"])
    with pytest.raises(UnsafeInputError, match=r"has two entries called 'e/data/weights/weight_0'"):
        read_pt2(folder, changed(files["pt2"], tmp_path / "e.pt2", twin))


def test_a_pt2_as_torch_writes_it_is_loaded(files: dict[str, Path]) -> None:
    FORMATS["pt2"].load(files["pt2"], ("logits",))
