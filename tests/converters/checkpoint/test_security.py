"""`regnet inspect --security`: what a file would have done, where, and that nothing of it runs."""

from __future__ import annotations

import argparse
import gzip
import io
import json
import os
import pickle
import re
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import onnx
import pytest
import torch
from onnx import TensorProto, helper

from converters.checkpoint import StoredTensor, open_checkpoint
from converters.checkpoint.security import inspect_security
from converters.cli.app import app
from converters.cli.endings import run_app
from converters.errors import ConversionError, InputError, StorageError, UnsafeInputError
from tests.converters.checkpoint.files import fail_behind_the_head, in_zip, saved, zip_of
from tests.converters.checkpoint.test_code_in_pickles import SPELLINGS, WRITERS, Call, attacks
from tests.converters.checkpoint.test_wrong_files import tar_bytes
from tests.converters.cli.running import regnet
from tests.converters.demo import CHECKPOINT, snapshot
from tests.frameworks.environments import RECORDED

if TYPE_CHECKING:
    from collections.abc import Mapping

    from converters.checkpoint.pickle_audit import Named
    from converters.checkpoint.security import SecurityReport

HONEST = {
    "weights": {"weight": torch.ones(2, 3), "epoch": 3, "loss": 0.5},
    "arguments": {"state_dict": {"w": torch.ones(1)}, "args": argparse.Namespace(lr=0.1)},
    "parameter": torch.nn.Parameter(torch.ones(2)),
    "types": [torch.ones(1, dtype=dtype) for dtype in (torch.bfloat16, torch.bool)],
    "sizes": {"shape": torch.Size([1, 2]), "dtype": torch.float16, "device": torch.device("cpu")},
    "optimiser": torch.optim.SGD([torch.ones(1, requires_grad=True)], lr=0.1).state_dict(),
}


def report_of(content: bytes, folder: Path, name: str = "model.pyth") -> SecurityReport:
    path = folder / name
    path.write_bytes(content)
    before = snapshot(folder)
    report = inspect_security(path)
    assert snapshot(folder) == before
    return report


def refusal(report: SecurityReport, kind: type[ConversionError] = UnsafeInputError) -> str:
    with pytest.raises(ConversionError) as caught:
        report.require_harmless()
    assert type(caught.value) is kind
    return str(caught.value)


def named(report: SecurityReport) -> dict[str, Named]:
    return {named.name: named for pickle in report.pickles for named in pickle.names}


class Looker(pickle._Unpickler):  # type: ignore[misc, name-defined]
    """Python's own unpickler, which notes what it would import and call instead."""

    def __init__(self, content: bytes) -> None:
        super().__init__(io.BytesIO(content))
        self.looked_up: dict[str, int] = {}

    def find_class(self, module: str, name: str) -> Any:
        full = f"{module}.{name}"
        self.looked_up.setdefault(full, 0)

        class Note(dict[object, object]):
            def __new__(cls, *_: object, **__: object) -> Any:  # REDUCE and NEWOBJ both come here
                self.looked_up[full] += 1
                return super().__new__(cls)

            def __init__(self, *_: object) -> None: ...

            def __setstate__(self, _: object) -> None: ...

        return Note

    def persistent_load(self, _: object) -> object:
        return object()


@pytest.mark.parametrize("protocol", [2, 4])
@pytest.mark.parametrize("tree", HONEST)
def test_every_name_and_call_is_one_that_python_itself_looks_up(
    tree: str, protocol: int, tmp_path: Path
) -> None:
    content = saved(HONEST[tree], "zip", protocol)
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith("data.pkl"))
        looker = Looker(archive.read(name))
    looker.load()
    found = named(report_of(content, tmp_path))
    assert set(found) == set(looker.looked_up)
    for name, calls in looker.looked_up.items():
        uses = found[name].uses
        assert found[name].used == len(uses)
        assert sum(use.instruction != "BUILD" for use in uses) == calls


@pytest.mark.parametrize("layout", ["zip", "legacy"])
@pytest.mark.parametrize("tree", HONEST)
def test_what_honest_programs_save_is_harmless(tree: str, layout: str, tmp_path: Path) -> None:
    report = report_of(saved(HONEST[tree], layout), tmp_path)
    assert report.harmless
    report.require_harmless()


@pytest.mark.parametrize("writer", WRITERS)
@pytest.mark.parametrize("name", attacks(""))
def test_an_attack_is_named_with_its_arguments_and_its_place(
    name: str, writer: str, tmp_path: Path
) -> None:
    target = tmp_path / "created"
    tree = {"weight": torch.ones(2) if writer == "zip" else 0, "x": [attacks("created")[name]]}
    report = report_of(WRITERS[writer](tree), tmp_path)
    running = {named.name: named for _, named in report.running}
    (full,) = (found for found in running if found.endswith(name.rpartition(".")[2]))
    assert running[full].used >= 1
    assert not target.exists()
    assert full in refusal(report)


def test_the_position_is_that_of_the_instruction_and_the_arguments_are_those_of_the_call(
    tmp_path: Path,
) -> None:
    content = pickle.dumps([1, Call(os.system, "touch ran")], protocol=2)
    found = named(report_of(content, tmp_path))["posix.system"]
    assert found.position == content.index(b"cposix")
    (use,) = found.uses
    assert (use.instruction, use.arguments) == ("REDUCE", "('touch ran')")
    assert content[use.position : use.position + 1] == pickle.REDUCE


def test_a_state_that_is_set_counts_as_a_use(tmp_path: Path) -> None:
    content = b"\x80\x02cos\nenviron\n}U\x01aU\x01bsb."
    (use,) = named(report_of(content, tmp_path))["os.environ"].uses
    assert (use.instruction, use.arguments) == ("BUILD", "{'a': 'b'}")


@pytest.mark.parametrize(("name", "content"), SPELLINGS.items(), ids=SPELLINGS)
def test_every_spelling_of_a_call_is_found(name: str, content: bytes, tmp_path: Path) -> None:
    assert any(name in found for found in named(report_of(content, tmp_path)))


class Foreign:
    """A class of a package that nobody heard of."""


def test_code_of_an_unknown_package_counts_although_a_conversion_would_leave_it_out(
    tmp_path: Path,
) -> None:
    report = report_of(saved({"w": torch.ones(1), "x": Foreign()}), tmp_path)
    assert report.refusal is None
    assert f"{__name__}.Foreign" in refusal(report)


ODD: Mapping[str, tuple[bytes, str]] = {
    # What our machine has no use for does not hide what comes behind.
    "an extension": (
        b"\x80\x02\x82\x01cposix\nsystem\nU\x01x\x85R.",
        "posix.system at byte 4 and 1 more",
    ),
    "a named reference": (b"Pkey\ncposix\nsystem\n(S'x'\ntR.", "posix.system"),
    "an append to a class": (b"ccollections\nOrderedDict\nI1\na0cnt\nsystem\n.", "nt.system"),
    "a name from the memo of nothing": (b"\x80\x04h\x00\x93.", "could not be followed"),
    "a state for a function": (b"\x80\x02cos\nenviron\n}b.", "os.environ"),
    "in a safetensors file": (
        b"\x42\x04\x00\x00\x00\x00\x00\x00{0cposix\nsystem\n(S'x'\ntR." + bytes(2000),
        "posix.system",
    ),
    "in what begins as another kind of file": (b"GGUFxxxxx0cposix\nsystem\n.", "posix.system"),
}


@pytest.mark.parametrize("form", ODD)
def test_nothing_hides_a_name(form: str, tmp_path: Path) -> None:
    content, name = ODD[form]
    assert name in refusal(report_of(content, tmp_path))


EVIL = b"\x80\x02cposix\nsystem\nX\x09\x00\x00\x00touch ran\x85R."


def with_flags(content: bytes, flags: int) -> bytes:
    """Set the flags of the first entry in both of its headers."""
    data = bytearray(content)
    for at in (6, content.index(b"PK\x01\x02") + 8):
        data[at : at + 2] = flags.to_bytes(2, "little")
    return bytes(data)


def with_wrong_checksum(content: bytes) -> bytes:
    data = bytearray(content)
    for at in (14, content.index(b"PK\x01\x02") + 16):
        data[at] ^= 1
    return bytes(data)


def twice(first: bytes, last: bytes) -> bytes:
    content = bytearray(in_zip(first, **{"data.pkX": last}))
    return bytes(content.replace(b"data.pkX", b"data.pkl"))


HIDDEN: Mapping[str, tuple[bytes, str]] = {
    "marked as encrypted": (with_flags(in_zip(EVIL), 1), "is marked as encrypted"),
    "with a wrong checksum": (with_wrong_checksum(in_zip(EVIL)), ""),
    "compressed": (zip_of({"a/data.pkl": EVIL}, zipfile.ZIP_DEFLATED), "is compressed"),
    "the first of two": (twice(EVIL, b"\x80\x02}."), "2 entries are called archive/data.pkl"),
    "the last of two": (twice(b"\x80\x02}.", EVIL), "2 entries are called archive/data.pkl"),
    "in capitals": (in_zip(b"\x80\x02}.", **{"DATA.PKL": EVIL}), ""),
    "in an entry of its own": (in_zip(b"\x80\x02}.", **{"extra/more.pkl": EVIL}), ""),
}


@pytest.mark.parametrize("form", HIDDEN)
def test_a_pickle_in_a_zip_archive_is_found_however_it_is_hidden(form: str, tmp_path: Path) -> None:
    content, note = HIDDEN[form]
    report = report_of(content, tmp_path)
    assert named(report)["posix.system"].uses[0].arguments == "('touch ran')"
    assert note in " ".join(report.notes)
    refusal(report)


def test_programs_are_refused_and_safetensors_are_not(folder: Path) -> None:
    inspect_security(folder / "model.safetensors").require_harmless()
    inspect_security(folder / "model.onnx").require_harmless()
    script = inspect_security(folder / "model.torchscript.pt")
    assert "is a TorchScript archive, a program" in refusal(script)


@pytest.mark.parametrize(
    ("file", "note"),
    [
        ("tensorflow/y.h5", "HDF5, which can name code in a network's description alone, and "),
        ("flax/y.msgpack", "msgpack, which cannot name code"),
        ("mindcv/y.ckpt", "protobuf of MindSpore, which cannot name code"),
        ("mlx-image/y.safetensors", "safetensors, which cannot name code"),
    ],
)
def test_what_cannot_name_code_is_said_to(file: str, note: str) -> None:
    report = inspect_security(RECORDED / file)
    with open_checkpoint(RECORDED / file) as checkpoint:
        tree: Any = checkpoint.tree
        count = sum(isinstance(value, StoredTensor) for value in tree.values())
    assert len(report.notes) == 1
    assert report.notes[0].startswith(f"holds {count} tensors in {note}")
    assert report.harmless


def test_modules_that_were_pickled_whole_are_named(tmp_path: Path) -> None:
    report = report_of(saved({"model": torch.nn.Linear(1, 1)}), tmp_path)
    said = "holds a module pickled whole at model, for which torch.load imports torch.nn.modules."
    assert report.notes == (said + "linear.Linear",)
    assert "torch.nn.modules.linear.Linear" in refusal(report)


def test_onnx_that_reads_elsewhere_or_needs_a_library_is_told(tmp_path: Path) -> None:
    away = helper.make_tensor("w", TensorProto.FLOAT, [1], [0.0])
    away.ClearField("float_data")
    away.data_location = TensorProto.EXTERNAL
    away.external_data.add(key="location", value="../secret")
    node = helper.make_node("Evil", ["x"], ["y"], domain="com.evil")
    graph = helper.make_graph([node], "g", [], [], [away])
    opsets = [helper.make_opsetid("", 20), helper.make_opsetid("com.evil", 1)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=10)
    onnx.save(model, tmp_path / "model.onnx")
    report = inspect_security(tmp_path / "model.onnx")
    assert report.kind == "onnx"
    assert report.notes == ("needs a library for operators of com.evil",)
    assert "outside of its folder" in refusal(report)


@pytest.mark.parametrize("form", ["zip", "legacy", "pickle", "tar", "gzip", "onnx"])
def test_a_device_that_fails_is_an_error_of_the_environment(
    form: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    noise = os.urandom(2000)
    forms = {
        "zip": lambda: saved(noise),
        "legacy": lambda: saved(noise, "legacy"),
        "pickle": lambda: pickle.dumps(noise),
        "tar": tar_bytes,
        "gzip": lambda: gzip.compress(noise),
        "onnx": lambda: helper.make_model(
            helper.make_graph([], "g", [], [], doc_string=noise.hex()), producer_name="test"
        ).SerializeToString(),
    }
    path = tmp_path / "model.pyth"
    path.write_bytes(forms[form]())
    assert run_app(app, "regnet", ["inspect", "--security", str(path)]) in {0, 2, 3}
    capsys.readouterr()
    fail_behind_the_head(monkeypatch)
    with pytest.raises(StorageError):
        inspect_security(path)
    assert run_app(app, "regnet", ["inspect", "--security", str(path)]) == 4
    said = capsys.readouterr()
    assert said.out == ""
    assert "".join(said.err.split()).endswith("model.pyth:cannotberead(Input/outputerror).")


def test_what_cannot_be_followed_is_not_called_harmless(tmp_path: Path) -> None:
    assert "web page" in refusal(report_of(b"<html>", tmp_path), InputError)
    assert "truncated" in refusal(report_of(saved({"a": 1})[:200], tmp_path), InputError)


@pytest.mark.parametrize(
    ("count", "content", "behind"),
    [(1, b"\x80\x02(((", "byte 5"), (6, b"N.", "its first 5 pickles of 7")],
)
def test_pickles_beside_the_checkpoint_count_too(
    count: int, content: bytes, behind: str, tmp_path: Path
) -> None:
    more = {f"extra/{number}.pkl": content for number in range(count)}
    report = report_of(in_zip(b"\x80\x02}.", **more), tmp_path)
    assert report.refusal is None
    assert not report.harmless
    assert f"cannot be followed behind {behind}" in refusal(report, InputError)


def test_calls_and_names_without_number_and_deep_arguments_are_shown_within_bounds(
    tmp_path: Path,
) -> None:
    deep = b"\x80\x02cposix\nsystem\n" + b"(" * 5000 + b"t" * 5000 + b"R" + b"."
    (use,) = named(report_of(deep, tmp_path))["posix.system"].uses
    assert use.arguments == "((((...))))"
    many = b"\x80\x02cposix\nsystem\nq\x00" + b"h\x00K\x01\x85R0" * 20_000 + b"."
    found = named(report_of(many, tmp_path))["posix.system"]
    assert (found.used, len(found.uses)) == (20_000, 20)
    names = b"".join(b"ca\nb%d\n0" % number for number in range(20_000))
    report = report_of(b"\x80\x02" + names + b".", tmp_path)
    assert len(report.pickles[0].names) == 10_000
    assert "more than 10000 names" in str(report.pickles[0].lost)


def test_the_command_prints_what_would_happen_and_ends_with_3(tmp_path: Path) -> None:
    (tmp_path / "model.pyth").write_bytes(
        saved({"w": torch.ones(1), "x": Call(os.system, "\x1b[2J")})
    )
    finished = regnet("inspect", "--security", "model.pyth", cwd=tmp_path)
    assert finished.status == 3
    assert "posix.system at byte " in finished.err
    assert "REDUCE at byte " in finished.out
    assert "\x1b" not in finished.out
    finished = regnet("inspect", "--security", "--json", "model.pyth", cwd=tmp_path)
    assert finished.status == 3
    record = json.loads(finished.out)
    assert record["harmless"] is False
    (pickled,) = record["pickles"]
    (system,) = (entry for entry in pickled["names"] if entry["name"] == "posix.system")
    assert system["judgement"] == "unsafe"
    assert system["uses"][0]["arguments"] == repr(("\x1b[2J",)).replace(",)", ")")


def test_the_command_ends_with_0_for_a_harmless_file_and_needs_no_torch(tmp_path: Path) -> None:
    code = "import sys; sys.modules['torch'] = None\nfrom converters.cli.main import run; run()"
    arguments = [sys.executable, "-c", code, "inspect", "--security", str(CHECKPOINT)]
    run = subprocess.run(arguments, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (run.returncode, run.stderr) == (0, "")
    assert "torch._utils._rebuild_tensor_v2" in run.stdout
    assert "Nothing in it runs code" in run.stdout


def test_the_example_in_the_documentation_is_what_the_command_prints(tmp_path: Path) -> None:
    page = (Path(__file__).parents[3] / "SECURITY.md").read_text("utf-8")
    example = re.search(r"```console\n(.*?)```", page, re.DOTALL)
    assert example
    tree = {"w": torch.ones(2), "epoch": Call(os.system, "touch ran")}
    torch.save(tree, tmp_path / "model.pyth")
    finished = regnet("inspect", "--security", "model.pyth", cwd=tmp_path)
    shown = "$ regnet inspect --security model.pyth\n" + finished.out + finished.err
    assert [line.rstrip() for line in shown.splitlines()] == example[1].splitlines()
    assert not (tmp_path / "ran").exists()
