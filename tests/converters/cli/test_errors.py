"""Errors of every command: one sentence, the exit status, nothing left behind, out/ as it was."""

from __future__ import annotations

import os
import re
import resource
import signal
import struct
import zipfile
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch
from timm.models.resnet import BasicBlock, ResNet

from tests.converters.cli.running import assert_one_sentence, regnet, run
from tests.converters.demo import CHECKPOINT, LABELS, snapshot

if TYPE_CHECKING:
    from collections.abc import Callable

    Maker = Callable[[Path], None]


def save_as_zip(path: Path) -> None:
    torch.save(torch.load(CHECKPOINT, weights_only=False), path)


def _flip_a_bit(path: Path) -> None:
    """In the storage of a weight, where nothing but the checksum can tell."""
    save_as_zip(path)
    with zipfile.ZipFile(path) as archive:
        entry = next(e for e in archive.infolist() if "/data/" in e.filename and e.file_size > 1000)
    content = bytearray(path.read_bytes())
    name, extra = struct.unpack_from("<HH", content, entry.header_offset + 26)
    content[entry.header_offset + 30 + name + extra + 500] ^= 1
    path.write_bytes(content)


def _truncate(make: Maker, path: Path) -> None:
    make(path)
    os.truncate(path, path.stat().st_size * 2 // 3)


def _copy(path: Path) -> None:
    path.write_bytes(CHECKPOINT.read_bytes())


def _write(text: str, path: Path) -> None:
    path.write_text(text)


def _save_resnet(path: Path) -> None:
    torch.save(ResNet(BasicBlock, (1, 1, 1, 1), num_classes=10).state_dict(), path)


class _Payload:
    """What unpickling would run: it makes a file."""

    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, ("the code ran",)


def _save_code(path: Path) -> None:
    torch.save({"model_state": {"stem.conv.weight": torch.ones(3)}, "extra": _Payload()}, path)


LFS = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a21\nsize 83590140\n"
PAGE = "<!DOCTYPE html>\n<html><body>404: Not Found</body></html>\n"

BAD_FILES: dict[str, tuple[Maker, int, str]] = {
    "missing": (lambda _: None, 2, "there is no such file"),
    "empty": (Path.touch, 2, "is empty"),
    "truncated zip": (partial(_truncate, save_as_zip), 2, "truncated|incomplete|cut short|ends"),
    "truncated legacy": (partial(_truncate, _copy), 2, "truncated|incomplete|cut short|ends"),
    "flipped bit": (_flip_a_bit, 2, "(?i)checksum|crc"),
    "web page": (partial(_write, PAGE), 2, "is a web page"),
    "git-lfs pointer": (partial(_write, LFS), 2, "git lfs pull"),
    "ResNet": (_save_resnet, 2, "(?i)not a regnet|no regnet|not pycls|resnet"),
    "code": (_save_code, 3, r"mkdir"),
    "folder": (Path.mkdir, 2, "holds none of model.safetensors, "),
}


@pytest.fixture
def existing(tmp_path: Path) -> Path:
    """A folder with an `out/` that must stay as it is."""
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "config.json").write_text("mine")
    return tmp_path


@pytest.mark.parametrize("arguments", [("--force",), ("--dry-run", "--force")], ids=" ".join)
@pytest.mark.parametrize("kind", BAD_FILES)
def test_a_bad_file_is_refused(kind: str, arguments: tuple[str, ...], existing: Path) -> None:
    make, status, reason = BAD_FILES[kind]
    make(existing / "model.pyth")
    before = snapshot(existing)
    finished = run("convert-pycls", "model.pyth", "out", "-q", *arguments, cwd=existing)
    if kind == "flipped bit" and "--dry-run" in arguments:
        assert finished.status == 0  # no weights are read
    else:
        sentence = assert_one_sentence(finished, status)
        assert sentence.startswith("model.pyth")
        assert re.search(reason, sentence), sentence
        assert str(existing) not in sentence
    assert snapshot(existing) == before


@pytest.mark.parametrize("kind", ["code", "ResNet", "empty"])
def test_a_bad_file_is_not_inspected_either(kind: str, tmp_path: Path) -> None:
    make, status, _ = BAD_FILES[kind]
    make(tmp_path / "model.pyth")
    before = snapshot(tmp_path)
    assert_one_sentence(regnet("inspect", "model.pyth", cwd=tmp_path), status)
    assert snapshot(tmp_path) == before


def test_an_existing_output_is_not_replaced_without_force(existing: Path) -> None:
    before = snapshot(existing)
    finished = run("convert-pycls", CHECKPOINT, "out", "-q", cwd=existing)
    assert "--force" in assert_one_sentence(finished, 2)
    assert snapshot(existing) == before


@pytest.mark.parametrize("out", [".", "sub/..", ".."])
def test_an_input_inside_the_output_is_not_destroyed(out: str, tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    _copy(tmp_path / "model.pyth")
    before = snapshot(tmp_path)
    finished = run("convert-pycls", "model.pyth", out, "--force", "-q", cwd=tmp_path)
    assert "lies inside" in assert_one_sentence(finished, 2)
    assert snapshot(tmp_path) == before


@pytest.mark.parametrize(
    ("out", "status"), [("file", 2), ("file/out", 4), ("/proc/out", 4), ("dangling", 2)]
)
def test_an_output_that_cannot_be_made_is_named(out: str, status: int, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    (tmp_path / "dangling").symlink_to("nowhere")
    before = snapshot(tmp_path)
    finished = run("convert-pycls", CHECKPOINT, out, "--force", "-q", cwd=tmp_path)
    assert out in assert_one_sentence(finished, status)
    assert snapshot(tmp_path) == before


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
@pytest.mark.parametrize("mode", [0o555, 0o000])
def test_a_parent_that_may_not_be_written_is_an_error_of_the_environment(
    mode: int, tmp_path: Path
) -> None:
    parent = tmp_path / "parent"
    parent.mkdir()
    parent.chmod(mode)
    finished = run("convert-pycls", CHECKPOINT, parent / "out", "-q", cwd=tmp_path)
    parent.chmod(0o755)
    assert "permission denied" in assert_one_sentence(finished, 4)
    assert not list(parent.iterdir())


def _limit_file_size(nbytes: int) -> None:
    """Let writing fail as on a full disk, with an error instead of a signal."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (nbytes, nbytes))


@pytest.mark.parametrize(
    "nbytes", [1_000_000, 1_710_000], ids=["while writing weights", "while writing an artefact"]
)
def test_a_full_disk_leaves_everything_as_it_was(nbytes: int, existing: Path) -> None:
    before = snapshot(existing)
    finished = run(
        *("convert-pycls", CHECKPOINT, "out", "--force", "-q"),
        cwd=existing,
        before=partial(_limit_file_size, nbytes),
    )
    assert "nothing was left behind" in assert_one_sentence(finished, 4)
    assert snapshot(existing) == before


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["convert", CHECKPOINT, "out", "--nope"], r"--nope.*`regnet convert --help`"),
        (["convert", CHECKPOINT], r"out.*`regnet convert --help`"),
        (["convert", CHECKPOINT, "out", "--weights", "good"], r"--weights.*raw"),
        (["convert", CHECKPOINT, "out", "--weights", "ema"], "no averaged weights"),
        (["convert", CHECKPOINT, "out", "--format", "tflite"], "--format.*onnx"),
        (["convert", CHECKPOINT, "out", "--max-shard-size", "big"], "--max-shard-size"),
        (["convert", CHECKPOINT, "out", "--labels", "absent.json"], r"labels absent\.json"),
        (["convert", CHECKPOINT, "out", "--labels", CHECKPOINT], "labels"),
        (
            ["convert", CHECKPOINT, "out", "--labels", "three.txt"],
            "3 different names .* 10 classes",
        ),
        (["transmogrify"], r"transmogrify.*`regnet --help`"),
        (["inspect", CHECKPOINT, CHECKPOINT], "`regnet inspect --help`"),
        (["verify", "absent"], "absent"),
        (["verify", CHECKPOINT], "RegNetY-FashionMNIST.pyth"),
        (["export", "absent"], "absent does not exist; give a folder"),
        (["predict", "absent", CHECKPOINT], "absent"),
        (["predict", "absent", CHECKPOINT, "--runtime", "abacus"], "--runtime"),
    ],
    ids=lambda value: "_".join(map(str, value[:1] + value[3:])) if isinstance(value, list) else "",
)
def test_a_wrong_call_is_answered_in_one_sentence(
    arguments: list[str | Path], reason: str, tmp_path: Path
) -> None:
    (tmp_path / "three.txt").write_text("cat\ndog\nhen\n")
    before = snapshot(tmp_path)
    sentence = assert_one_sentence(regnet(*arguments, cwd=tmp_path), 2)
    assert re.search(reason, sentence), sentence
    assert snapshot(tmp_path) == before


def test_a_file_that_is_no_image_is_named(demo_folder: Path, tmp_path: Path) -> None:
    finished = regnet("predict", demo_folder, LABELS, cwd=tmp_path)
    assert "labels.json is not an image" in assert_one_sentence(finished, 2)


def test_a_changed_file_makes_verify_fail_and_is_named(folder: Path) -> None:
    (folder / "README.md").write_text("mine")
    finished = regnet("verify", folder.name, cwd=folder.parent)
    assert finished.status == 1
    assert finished.out.count(" pass ") == 4  # the verdicts are given all the same
    assert finished.out.splitlines()[-1] == (
        "4 of 4 pass, 1 file changed; what to do: docs/troubleshooting.md"
    )
    assert re.fullmatch(r"moved .*: README\.md was changed after it was written\.\n", finished.err)

    config = folder / "config.json"
    config.write_text(config.read_text().replace("relu", "silu"))
    sentence = assert_one_sentence(regnet("verify", folder.name, cwd=folder.parent), 1)
    assert "config.json was changed after it was written" in sentence


def test_debug_shows_the_traceback_and_keeps_the_exit_status(tmp_path: Path) -> None:
    finished = regnet("inspect", "absent.pyth", "--debug", cwd=tmp_path)
    assert finished.status == 2
    assert finished.err.startswith("Traceback")
    assert finished.err.endswith("absent.pyth: there is no such file; check the path.\n")
