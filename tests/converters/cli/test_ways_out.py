"""Each dead end has a sentence that leads out of it, and shows no name that nobody gave."""

from __future__ import annotations

import re
import shutil
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
import torch

from converters.cli.app import app
from converters.cli.endings import run_app
from converters.parity.contents.tensors import TensorCertificate
from converters.parity.report import Report, VerificationError
from regnet import RegNetConfig, RegNetForImageClassification, RegNetModel
from tests.converters.cli.test_tables import REPORT
from tests.converters.demo import CHECKPOINT, sample_images, snapshot

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

NO_FOLDER = "{} is not a folder; convert a checkpoint with `regnet convert`."
NOT_THERE = "absent does not exist; give a folder that `regnet convert` made."
NO_NETWORK = (
    "photos holds images and no network; put a folder that `regnet convert` made in its place."
)
OTHER = (
    "empty/config.json does not exist; give a folder that `regnet convert` made, or transformers."
)
ELLIPTIC = "name a PEM file with an elliptic-curve key (P-256, P-384 or P-521)"
SWAPPED = (
    "out is the folder of a network and holds no image that can be read; give it first, and "
    "images after it."
)
COMMAS = "onnx-fp16 stands alone; put commas between several: a,b,c; see `regnet {} --help`."

SENTENCES = {
    "verify net.pyth": NO_FOLDER.format("net.pyth"),
    "verify out/model.onnx": NO_FOLDER.format("out/model.onnx"),
    "verify absent": NOT_THERE,
    "bench net.pyth": NO_FOLDER.format("net.pyth"),
    "predict net.pyth photos": NO_FOLDER.format("net.pyth"),
    "evaluate net.pyth photos": NO_FOLDER.format("net.pyth"),
    "export net.pyth": NO_FOLDER.format("net.pyth"),
    "sign net.pyth --private-key k.pem": (
        "net.pyth is a file and no folder; name a folder to sign or to check."
    ),
    "predict photos out": SWAPPED,
    "verify out --image out": SWAPPED,
    "evaluate photos out": NO_NETWORK,
    "predict photos photos": NO_NETWORK,
    "verify photos": NO_NETWORK,
    "bench photos": NO_NETWORK,
    "export photos": NO_NETWORK,
    "verify empty": OTHER,
    "predict my-&-out photos --runtime pt2": (
        "my-&-out has no model.pt2; write it with `regnet export 'my-&-out' --format pt2`."
    ),
    "export out --format onnx-int8": (
        "There is no folder calibration/ with images to set the ranges of int8 by; name some with "
        "--calibration-images."
    ),
    "export trunk --softmax --no-verify": (
        "trunk has no classes to choose among, so there are no probabilities to give; leave out "
        "--softmax."
    ),
    "export trunk --format onnx-preprocessing --no-verify": (
        "trunk has no classifier, so there are no probabilities to give."
    ),
    "export out --format onnx onnx-fp16": COMMAS.format("export"),
    "convert net.pyth new --format onnx onnx-fp16": COMMAS.format("convert"),
    "convert net.pyth new other": (
        "Several checkpoints need --out-dir, the folder for all results; see `regnet convert "
        "--help`."
    ),
    "verify out photos": ("Got unexpected extra argument(s) (photos); see `regnet verify --help`."),
    "sign out --private-key absent.pem": (
        f"absent.pem does not exist; {ELLIPTIC}; its password goes into REGNET_KEY_PASSWORD."
    ),
    "verify out --public-key absent.pem": f"absent.pem does not exist; {ELLIPTIC}.",
    "verify out --html - --json": "Two reports would go to stdout; name a file for all but one.",
    "verify out --junit - --markdown -": (
        "Two reports would go to stdout; name a file for all but one."
    ),
}
"""What somebody may call, and the sentence on stderr, with the exit status 2."""


@pytest.fixture
def place(demo_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with a checkpoint, a converted folder, and photographs."""
    shutil.copy(CHECKPOINT, tmp_path / "net.pyth")
    shutil.copytree(demo_folder, tmp_path / "out")
    (tmp_path / "photos").mkdir()
    (tmp_path / "my-&-out").symlink_to("out")
    (tmp_path / "empty").mkdir()
    config = RegNetConfig(depths=[1], hidden_sizes=[8], groups_width=8, embedding_size=8)
    RegNetModel(config).save_pretrained(tmp_path / "trunk")
    shutil.copy(tmp_path / "out" / "preprocessor_config.json", tmp_path / "trunk")
    sample_images(tmp_path / "photos", 1)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def called(capsys: pytest.CaptureFixture[str]) -> Callable[[str], tuple[int, str]]:
    """Runs a command line; gives its status and what is on stderr."""

    def call(line: str) -> tuple[int, str]:
        status = run_app(app, "regnet", line.split())
        return status, capsys.readouterr().err

    return call


@pytest.mark.parametrize("line", SENTENCES)
def test_a_wrong_call_leads_to_the_right_one(
    line: str, place: Path, called: Callable[[str], tuple[int, str]]
) -> None:
    before = snapshot(place)
    assert called(line) == (2, f"{SENTENCES[line]}\n")
    assert snapshot(place) == before


@pytest.mark.usefixtures("place")
def test_a_network_that_was_trained_further_is_converted_anew(
    called: Callable[[str], tuple[int, str]], capsys: pytest.CaptureFixture[str]
) -> None:
    model = RegNetForImageClassification.from_pretrained("out")
    with torch.no_grad():
        model.classifier[1].bias += 1
    model.save_pretrained("out")
    remedy = (
        "model.safetensors was changed after it was written; if you saved another network there "
        "yourself, `regnet convert FOLDER NEW` makes a proven folder of it.\n"
    )
    status, said = called("verify out")
    assert status == 1
    assert said.endswith(remedy)
    status, said = called("export out --format onnx")
    assert status == 1
    assert said.endswith(remedy)
    assert run_app(app, "regnet", ["export", "out", "--format", "onnx", "--no-verify"]) == 0
    assert " ".join(capsys.readouterr().out.split()).endswith(remedy.rstrip())  # however it wraps
    assert called("convert out new --format onnx -q") == (0, "")


def test_int8_that_is_right_and_not_good_enough_is_calibrated_anew() -> None:
    remedy = (
        "calibrate int8 on more images that the network knows (--calibration-images), or export"
    )
    with pytest.raises(VerificationError, match=re.escape(remedy)):
        REPORT.require_pass("out is not to be trusted")
    (failed,) = (verdict for verdict in REPORT.verdicts if not verdict.passed)
    wrong = replace(failed, tensors=TensorCertificate(3, 58, 0, ("a weight differs",)))
    assert "calibrate" not in Report((wrong,)).way_out


def test_a_new_head_is_named_with_the_line_that_asked_for_it(place: Path) -> None:
    with pytest.warns(UserWarning, match=r"\(classifier\.1\.weight, classifier\.1\.bias\) in") as w:
        RegNetForImageClassification.from_pretrained(
            place / "out", num_labels=3, ignore_mismatched_sizes=True
        )
    assert [warning.filename for warning in w] == [__file__]
