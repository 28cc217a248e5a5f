"""ncnn: what its files say, how they run, and what becomes of broken ones."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING

import numpy as np
import pytest

from converters.errors import InputError
from converters.folder.inputs import verification_inputs
from converters.formats.ncnn import NcnnByDefault, NcnnRuntime, export_ncnn
from converters.formats.reference import ReferenceRuntime
from converters.formats.registry import FORMATS
from converters.jobs.predict import open_runtime
from converters.parity.contents.tensors import certify
from converters.parity.truth import Truth, run
from converters.parity.verdict import judge
from converters.parity.verify import verify_artefacts
from regnet.config import RegNetConfig
from tests.converters.formats.random_folder import random_folder
from tests.converters.parity.networks import _SMALL, WIDER

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from converters.folder.folder import ConvertedFolder

PARAM, BIN = FORMATS["ncnn"].files


@pytest.fixture
def folder(tmp_path: Path) -> ConvertedFolder:
    """A small RegNetY with its artefact."""
    folder = random_folder(tmp_path / "folder", RegNetConfig(**_SMALL))
    export_ncnn(folder, folder.path / PARAM)
    return folder


def test_images_of_any_size_and_number_run_and_are_left_as_they_were(
    folder: ConvertedFolder,
) -> None:
    network, reference = NcnnRuntime(folder.path / PARAM), ReferenceRuntime(folder)
    for shape in ((3, 3, 33, 40), (1, 3, 1, 1), (2, 3, 7, 64)):
        pixels = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
        before = pixels.copy()
        logits = network(pixels)["logits"]
        np.testing.assert_allclose(logits, reference(pixels)["logits"], rtol=1e-4, atol=1e-5)
        assert np.array_equal(pixels, before)


def test_ncnn_opens_and_runs_it_without_a_word(
    folder: ConvertedFolder, capfd: pytest.CaptureFixture[str]
) -> None:
    import ncnn

    net = ncnn.Net()
    net.load_param(str(folder.path / PARAM))
    net.load_model(str(folder.path / BIN))
    with net.create_extractor() as run:
        run.input("pixel_values", ncnn.Mat(np.zeros((3, 48, 48), np.float32)))
        status, _ = run.extract("logits")
    assert status == 0
    assert capfd.readouterr() == ("", "")


def test_a_trunk_gives_both_outputs_in_their_shapes(tmp_path: Path) -> None:
    config = RegNetConfig(**_SMALL | WIDER["three stems"])
    folder = random_folder(tmp_path, config, classifier=False)
    export_ncnn(folder, tmp_path / PARAM)
    pixels = np.zeros((2, 3, 48, 64), np.float32)
    outputs = NcnnRuntime(tmp_path / PARAM, folder.output_names)(pixels)
    shapes = {name: value.shape for name, value in ReferenceRuntime(folder)(pixels).items()}
    assert {name: value.shape for name, value in outputs.items()} == shapes


def test_its_lines_are_called_like_the_network_and_end_in_what_it_returns(
    folder: ConvertedFolder,
) -> None:
    lines = (folder.path / PARAM).read_text().splitlines()
    assert lines[2].split() == ["Input", "pixel_values", "0", "1", "pixel_values"]
    assert lines[-1].split()[:6] == [
        "InnerProduct",
        "classifier.1",
        "1",
        "1",
        "classifier.0",
        "logits",
    ]
    names = {line.split()[1] for line in lines[2:] if not line.startswith("Split")}
    architecture = folder.architecture.operations
    assert names == {
        "pixel_values",
        *(op.name for op in architecture if "Norm" not in str(type(op))),
    }


def test_what_ncnn_does_by_default_is_judged_in_half_the_precision(folder: ConvertedFolder) -> None:
    truth = Truth(folder, verification_inputs(3, 48))
    report = verify_artefacts(folder, truth, {"ncnn": folder.path / PARAM})
    own, by_default = report.verdicts[1:]
    assert (own.outcome, own.precision) == ("pass", "float32")
    assert (by_default.outcome, by_default.precision) == ("pass", "float16")
    assert by_default.artefact == f"{PARAM} (ncnn-default)"
    assert by_default.tensors == own.tensors
    network = NcnnByDefault(folder.path / PARAM)
    outputs = run(network, truth.inputs)
    assert any(m.failure for m in judge(outputs, truth.units(), truth.oracle)), "float32 is more"


def test_an_epsilon_of_many_digits_is_read_as_it_was_meant(tmp_path: Path) -> None:
    eps = float(np.float32(1e-3))  # 0.0010000000474974513, of which ncnn would read 15 characters
    config = RegNetConfig(**_SMALL | WIDER["group norm"] | {"norm_eps": eps})
    folder = random_folder(tmp_path, config)
    export_ncnn(folder, tmp_path / PARAM)
    written = set(re.findall(r"GroupNorm .* 2=(\S+)", (tmp_path / PARAM).read_text()))
    assert {float(np.float32(text)) for text in written} == {eps}
    assert max(map(len, written)) <= 15
    assert not certify(folder, "ncnn", tmp_path / PARAM).wrong


def test_padding_that_ncnn_lacks_is_refused_by_name(tmp_path: Path) -> None:
    fields = WIDER["same padding"] | {"stem_strides": [4]}
    folder = random_folder(tmp_path, RegNetConfig(**_SMALL | fields))
    with pytest.raises(InputError, match=r"^ncnn has no padding for regnet\.embedder\..* of 4; "):
        export_ncnn(folder, tmp_path / PARAM)


def _shorten(folder: Path) -> None:
    os.truncate(folder / BIN, 1000)


def _remove(folder: Path) -> None:
    (folder / BIN).unlink()


def _of_another_kind(folder: Path) -> None:
    text = (folder / PARAM).read_text()
    (folder / PARAM).write_text(text.replace("ReLU ", "Rectifier ", 1))


@pytest.mark.parametrize("harm", [_shorten, _remove, _of_another_kind])
def test_files_that_ncnn_does_not_take_end_in_one_sentence(
    folder: ConvertedFolder, harm: Callable[[Path], None]
) -> None:
    harm(folder.path)
    with pytest.raises(InputError, match=rf"^{PARAM} cannot be opened by ncnn \(.*\); write it "):
        open_runtime(folder, "ncnn")
