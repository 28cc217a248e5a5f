"""One record of a folder: what strangers may write into it, and what everybody judges by."""

from __future__ import annotations

import json
import os
import shutil
from typing import TYPE_CHECKING, Any

import pytest

import converters
from converters.errors import InputError
from converters.families.options import SourceOptions
from converters.folder.folder import ConvertedFolder
from converters.folder.record import Record
from converters.jobs.batch.done import is_done
from converters.jobs.batch.job import Job
from converters.jobs.bench import recorded_verdicts
from converters.jobs.conversion import ConvertOptions
from converters.jobs.convert import convert
from converters.jobs.publish import prepare
from converters.parity.recording import recorded_pass
from converters.parity.verify import verify_folder
from tests.converters.demo import CHECKPOINT, labels

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

RECORD = "conversion.json"


def fields_of(folder: Path) -> dict[str, Any]:
    fields: dict[str, Any] = json.loads((folder / RECORD).read_text())
    return fields


def export(folder: Path, *formats: str, verify: bool = False) -> None:
    converters.export(folder, formats, verify=verify)


def with_file(fields: dict[str, Any], name: str) -> str:
    return json.dumps(fields | {"files": fields["files"] | {name: {"sha256": "0" * 64}}})


def with_verdict(fields: dict[str, Any], **changes: Any) -> str:
    verdict = fields["verification"]["verdicts"][0] | changes
    return json.dumps(fields | {"verification": {"verdicts": [verdict]}})


HOSTILE: dict[str, Callable[[dict[str, Any]], str | bytes]] = {
    "empty": lambda _: "",
    "a list": lambda _: "[]",
    "no files": lambda _: "{}",
    "files as a list": lambda _: '{"files": []}',
    "a file as a number": lambda _: '{"files": {"config.json": 1}}',
    "a file without a digest": lambda _: '{"files": {"config.json": {}}}',
    "deep lists": lambda _: "[" * 100_000,
    "deep objects": lambda _: '{"files":' + '{"a":' * 50_000,
    "not UTF-8": lambda _: b"\xff\xfe{",
    "half a surrogate pair": lambda f: json.dumps(f | {"note": "\ud800"}),
    "not a number": lambda f: json.dumps(f | {"note": float("nan")}),
    "beyond any number": lambda f: json.dumps(f | {"note": 1}).replace(": 1}", ": 1e999}"),
    "too large": lambda _: '{"files": {}, "note": "' + "x" * 20_000_000 + '"}',
    "verification without verdicts": lambda f: json.dumps(f | {"verification": {}}),
    "verification as text": lambda f: json.dumps(f | {"verification": "pass"}),
    "a verdict without a name": lambda f: json.dumps(
        f | {"verification": {"verdicts": [{"passed": True}]}}
    ),
    "a ratio as text": lambda f: with_verdict(f, measurements=[{"rms_ratio": "0"}]),
    "words as a list": lambda f: with_verdict(f, not_compared=["graph"]),
    "a decision as a number": lambda f: json.dumps(f | {"decisions": [1]}),
    "options as a list": lambda f: json.dumps(f | {"options": []}),
    "a name above the folder": lambda f: with_file(f, "../outside"),
    "an absolute name": lambda f: with_file(f, "/proc/kmsg"),
    "a name that comes back": lambda f: with_file(f, "onnx/../../outside"),
    "a name above it on Windows": lambda f: with_file(f, "onnx\\..\\..\\outside"),
    "a drive": lambda f: with_file(f, "C:/outside"),
    "a file of a drive": lambda f: with_file(f, "C:outside"),
    "another machine": lambda f: with_file(f, "//server/share/outside"),
    "another machine on Windows": lambda f: with_file(f, "\\\\server\\share\\outside"),
    "the folder itself": lambda f: with_file(f, "."),
    "no name": lambda f: with_file(f, ""),
    "a name with a zero": lambda f: with_file(f, "a\0b"),
    "a name too long": lambda f: with_file(f, "a" * 300),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_record_that_cannot_be_used_is_refused_by_all_in_a_sentence(
    kind: str, folder: Path
) -> None:
    os.mkfifo(folder.parent / "outside")  # whoever opens it waits for ever
    text = HOSTILE[kind](fields_of(folder))
    (folder / RECORD).write_bytes(text if isinstance(text, bytes) else text.encode())
    for command in (
        lambda: verify_folder(ConvertedFolder(folder)),
        lambda: export(folder, "onnx-web"),
        lambda: recorded_verdicts(ConvertedFolder(folder)),
        lambda: prepare(folder, "somebody/regnet", has_right=True),
    ):
        with pytest.raises(InputError, match=r"conversion\.json is damaged \(.*\); ") as caught:
            command()
        assert str(caught.value).isprintable()
        assert str(caught.value).endswith("convert the checkpoint again.")
    assert not (folder / "onnx").exists()
    assert not is_done(Job("demo", CHECKPOINT, folder, ConvertOptions(labels=labels())))


def test_a_link_does_not_lead_a_name_out_of_the_folder(folder: Path) -> None:
    os.mkfifo(folder.parent / "outside")
    (folder / "linked").symlink_to(folder.parent)
    (folder / RECORD).write_text(with_file(fields_of(folder), "linked/outside"))
    with pytest.raises(InputError, match="names linked/outside, which a link takes out"):
        verify_folder(ConvertedFolder(folder))


def test_links_to_files_as_in_the_hubs_cache_are_followed(folder: Path) -> None:
    blobs = folder.parent / "blobs"
    blobs.mkdir()
    for path in list(folder.iterdir()):
        shutil.move(path, blobs / path.name)
        path.symlink_to(blobs / path.name)
    changed, unchanged = Record.required(folder).changed_files(folder)
    assert changed == ()
    assert unchanged.keys() == Record.required(folder).files.keys()


def test_a_card_that_is_no_text_is_told_in_a_sentence(folder: Path) -> None:
    (folder / "README.md").write_bytes(b"\xff## Use")
    with pytest.raises(InputError, match=r"README\.md is no UTF-8 text \(.*save it as UTF-8"):
        export(folder, "onnx")


def test_pass_is_said_of_what_is_there_and_has_a_verdict(tmp_path: Path) -> None:
    out = tmp_path / "out"
    convert(CHECKPOINT, out, formats=("onnx",), verify=False)

    def state() -> tuple[bool | None, str]:
        record = Record.required(out)
        passed = recorded_pass(record)
        assert record.fields["verification"]["passed"] is passed
        return passed, (out / "README.md").read_text()

    passed, card = state()
    assert passed is None
    assert "Not verified: converted with `--no-verify`." in card
    assert 'tags: ["regnet", "onnx", "pycls"]' in card

    export(out, "onnx", verify=True)
    passed, card = state()
    assert passed is True
    assert "Not verified" not in card
    assert "| model.onnx | onnxruntime " in card
    assert "| model.safetensors | torch " in card

    export(out, "torchscript")
    passed, card = state()
    assert passed is None
    assert "Not verified: `model.torchscript.pt`." in card
    assert 'tags: ["regnet", "onnx", "torchscript", "pycls"]' in card

    export(out, "torchscript", verify=True)
    assert state()[0] is True

    export(out, "onnx")  # the verdict was on a file that is no more
    passed, card = state()
    assert passed is None
    assert "Not verified: `model.onnx`." in card
    assert "| model.onnx |" not in card
    assert recorded_verdicts(ConvertedFolder(out)) == {
        "torch": "pass",
        "onnx": "not verified",
        "torchscript": "pass",
    }
    assert verify_folder(ConvertedFolder(out)).passed


def test_a_batch_skips_what_has_a_verdict_on_all_that_it_makes(folder: Path) -> None:
    job = Job("demo", CHECKPOINT, folder, ConvertOptions(labels=labels()))
    assert is_done(job)
    export(folder, "onnx-web")
    assert is_done(job)
    export(folder, "onnx")
    assert not is_done(job)


def test_what_was_not_run_is_no_pass_in_a_record_of_an_earlier_version(folder: Path) -> None:
    fields = fields_of(folder)
    for verdict in fields["verification"]["verdicts"]:
        del verdict["outcome"]
        if verdict["artefact"] == "model.onnx":
            verdict.update(measurements=[], runtime="not run: it needs about 0.0 GB")
    (folder / RECORD).write_text(json.dumps(fields))
    assert recorded_verdicts(ConvertedFolder(folder)) == {
        "torch": "pass",
        "onnx": "not run",
        "torchscript": "pass",
    }


@pytest.mark.parametrize(
    ("files", "said"),
    [
        (lambda _: {}, "conversion.json names no file, so no checksum was compared"),
        (
            lambda files: {n: e for n, e in files.items() if n != "model.onnx"},
            "conversion.json does not name model.onnx, so no checksum of it was compared",
        ),
    ],
    ids=["none", "one"],
)
def test_what_has_no_recorded_checksum_is_said(
    files: Callable[[dict[str, Any]], dict[str, Any]], said: str, folder: Path
) -> None:
    fields = fields_of(folder)
    (folder / RECORD).write_text(json.dumps(fields | {"files": files(fields["files"])}))
    report = verify_folder(ConvertedFolder(folder))
    assert report.passed
    assert report.not_checked == (said,)


def test_what_no_format_writes_is_said_not_to_be_judged(folder: Path) -> None:
    (folder / "onnx").mkdir()
    for name in ("other.tflite", "onnx/model_q4.onnx", "notes.txt"):
        (folder / name).write_bytes(b"anything")
    (said,) = verify_folder(ConvertedFolder(folder)).not_checked
    assert said.startswith("other.tflite, onnx/model_q4.onnx is of no format that is known here")


def test_choices_about_the_source_are_recorded_and_read_again(tmp_path: Path) -> None:
    chosen: dict[str, Any] = {"framework": "pycls", "channel_order": "rgb", "weights": "raw"}
    convert(CHECKPOINT, tmp_path / "out", **chosen, formats=(), verify=False)
    assert Record.required(tmp_path / "out").source_options == SourceOptions(**chosen)
    fields = fields_of(tmp_path / "out")
    for key, value in (("weights", "all"), ("framework", ["pycls"]), ("head", 1)):
        record = Record(fields | {"options": fields["options"] | {key: value}})
        with pytest.raises(InputError, match=f"its option {key} is none that there is"):
            record.source_options  # noqa: B018 -- raises
    del fields["options"]
    assert Record(fields).source_options == SourceOptions()
