"""Classes of images, through every runtime."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch

from converters import predict
from converters.errors import InputError
from converters.formats.runtime import softmax
from tests.converters.demo import labels, sample_images

if TYPE_CHECKING:
    from pathlib import Path

RUNTIMES = ("torch", "onnx", "torchscript")


def test_real_images_are_recognised_the_same_by_every_runtime(
    demo_folder: Path, tmp_path: Path
) -> None:
    images = sample_images(tmp_path, 30)
    paths = [path for path, _ in images]
    by_runtime = [predict(demo_folder, paths, runtime=runtime, top=10) for runtime in RUNTIMES]
    best = [prediction.classes[0][0] for prediction in by_runtime[0]]
    assert sum(found == truth for found, (_, truth) in zip(best, images, strict=True)) >= 25
    for predictions in zip(*by_runtime, strict=True):
        torch_says = predictions[0]
        assert {label for label, _ in torch_says.classes} == set(labels())
        assert sum(score for _, score in torch_says.classes) == pytest.approx(1)
        for other in predictions[1:]:
            assert other.image == torch_says.image
            assert [label for label, _ in other.classes] == [
                label for label, _ in torch_says.classes
            ]
            assert [score for _, score in other.classes] == pytest.approx(
                [score for _, score in torch_says.classes], abs=1e-5
            )


def test_the_best_classes_come_first(demo_folder: Path, tmp_path: Path) -> None:
    ((path, _),) = sample_images(tmp_path, 1)
    (everything,) = predict(demo_folder, [path], top=99)
    (three,) = predict(demo_folder, [path], top=3)
    scores = [score for _, score in everything.classes]
    assert scores == sorted(scores, reverse=True)
    assert three.classes == everything.classes[:3]


def test_softmax_is_that_of_torch_and_takes_any_logits() -> None:
    logits = np.array([[1e4, 0, -1e4], [88.9, 88.5, 1], [-3, -3, -3]], np.float32)
    expected = torch.from_numpy(logits).double().softmax(dim=1).numpy()
    np.testing.assert_allclose(softmax(logits), expected, rtol=1e-12)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"hello", r"is not an image of a known format \(.*\)"),
        (b"", r"is not an image of a known format \(.*\)"),
        (None, r"cannot be read \(No such file or directory\)"),
    ],
    ids=["text", "empty", "missing"],
)
def test_what_is_no_image_is_named(
    content: bytes | None, reason: str, demo_folder: Path, tmp_path: Path
) -> None:
    path = tmp_path / "image.png"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError, match=rf"image\.png {reason}\.$"):
        predict(demo_folder, [path])


def test_a_truncated_image_is_named(demo_folder: Path, tmp_path: Path) -> None:
    ((path, _),) = sample_images(tmp_path, 1)
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(InputError, match=r"0\.png cannot be read \(.*\)\.$"):
        predict(demo_folder, [path])


@pytest.mark.parametrize("runtime", ["onnx", "torchscript"])
def test_a_missing_artefact_is_named_with_its_remedy(runtime: str, folder: Path) -> None:
    for name in ("model.onnx", "model.torchscript.pt"):
        (folder / name).unlink()
    with pytest.raises(
        InputError, match=rf"write it with `regnet export \S+ --format {runtime}`\.$"
    ):
        predict(folder, [], runtime=runtime)


def test_a_trunk_predicts_no_classes(folder: Path) -> None:
    path = folder / "config.json"
    config = json.loads(path.read_text()) | {"architectures": ["RegNetModel"]}
    path.write_text(json.dumps(config))
    with pytest.raises(InputError, match=r"has no classifier, so it predicts no classes\.$"):
        predict(folder, [])


def test_a_folder_that_is_none_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"config\.json does not exist"):
        predict(tmp_path, [])


@pytest.mark.parametrize("content", [None, '{"size": -1}'], ids=["missing", "wrong"])
def test_a_folder_without_a_usable_processor_is_named(content: str | None, folder: Path) -> None:
    path = folder / "preprocessor_config.json"
    path.unlink() if content is None else path.write_text(content)
    with pytest.raises(InputError, match=r"preprocessor_config\.json|size"):
        predict(folder, [])
