"""The evaluation transform and the image processor that computes it: each from the other."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from torchvision import transforms

from converters.families.known import target_named, written_back
from converters.families.options import SourceOptions
from converters.families.source import FILTERS, EvalTransform
from converters.jobs.writeback import ReadBackError, write_back
from converters.weights.inspection import inspected
from regnet import RegNetImageProcessor
from tests.converters.families.conversion import picture
from tests.converters.jobs.test_writeback import RULED, classifier, converted

if TYPE_CHECKING:
    from pathlib import Path

NUMBERS = st.floats(0.01, 2, allow_nan=False)


@st.composite
def any_transform(draw: st.DrawFn) -> EvalTransform:
    """Any that a three-channel network may be evaluated with."""
    crop = draw(st.integers(1, 700))
    squash = draw(st.booleans())
    resize = crop if squash else crop + draw(st.integers(0, 300))
    normalised = draw(st.booleans())
    mean, std = (tuple(draw(NUMBERS) for _ in range(3)) if normalised else () for _ in range(2))
    return EvalTransform(
        resize, crop, draw(st.sampled_from(list(FILTERS.values()))), mean, std, squash
    )


@given(any_transform())
def test_a_transform_comes_back_from_its_processor(transform: EvalTransform) -> None:
    processor = RegNetImageProcessor(**transform.preprocessor_fields(3))

    assert EvalTransform.of(processor) == transform
    assert EvalTransform.of(RegNetImageProcessor.from_dict(processor.to_dict())) == transform


@pytest.mark.parametrize("do_normalize", [True, False])
@pytest.mark.parametrize(("do_rescale", "factor"), [(True, 1 / 127.5), (False, 1 / 255)])
def test_another_range_of_pixels_is_another_mean_and_deviation(
    do_normalize: bool, do_rescale: bool, factor: float
) -> None:
    processor = RegNetImageProcessor(
        do_normalize=do_normalize, do_rescale=do_rescale, rescale_factor=factor
    )

    same = RegNetImageProcessor(**EvalTransform.of(processor).preprocessor_fields(3))

    ours, theirs = (p(picture(), return_tensors="np")["pixel_values"] for p in (same, processor))
    assert np.allclose(ours, theirs, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("size", [64, 224, 400])
def test_a_squashed_image_is_torchvision_s_resize_to_two_sides(size: int) -> None:
    transform = EvalTransform(size, size, FILTERS["bilinear"], (), (), squash=True)
    processor = RegNetImageProcessor(**transform.preprocessor_fields(3))

    ours = processor(picture(300, 517), return_tensors="np")["pixel_values"][0]

    theirs = transforms.Compose([transforms.Resize((size, size)), transforms.ToTensor()])
    assert np.allclose(ours, theirs(picture(300, 517)).numpy(), atol=1e-6)


def folder_with(tmp_path: Path, transform: EvalTransform, **fields: Any) -> Path:
    """A converted folder that is evaluated like this."""
    network = classifier(**RULED | STEM | {"layer_type": "x"} | fields)
    folder = converted(tmp_path / "folder", network)
    RegNetImageProcessor(**transform.preprocessor_fields(3)).save_pretrained(folder)
    return folder


SILENT = {"keras", "keras-applications"}
"""Of whose files none says anything of it."""

STEM = {"embedding_size": 32}
"""That of every network that some frameworks build."""

MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.25, 0.3)
TRANSFORMS = [
    EvalTransform(256, 224, FILTERS["bilinear"]),
    EvalTransform(72, 64, FILTERS["lanczos"], MEAN, STD),
    EvalTransform(225, 192, FILTERS["box"], (), ()),
    EvalTransform(384, 384, FILTERS["hamming"], squash=True),
    EvalTransform(64, 64, FILTERS["nearest"], MEAN, STD, squash=True),
]


@pytest.mark.parametrize("transform", TRANSFORMS, ids=lambda t: t.in_words)
@pytest.mark.parametrize("framework", written_back())
def test_what_a_framework_s_file_says_of_the_transform_is_read_back(
    framework: str, transform: EvalTransform, tmp_path: Path
) -> None:
    target = target_named(framework)
    layer_type = "y" if "x" in target.lacks else "x"
    folder = folder_with(tmp_path, transform, padding=target.padding, layer_type=layer_type)

    written = write_back(folder, tmp_path / "written", framework)

    with inspected(written.path, SourceOptions()) as (_, inspection):
        read = inspection.source.transform
    different = transform.differences(read)
    assert not different & says(framework)
    assert written.unsaid == (transform.in_words if different else "")


def says(framework: str) -> frozenset[str]:
    """What its file can say."""
    if framework in {*SILENT, "kecam", "mlx-image", "pytorchcv", "torchvision", "vissl"}:
        return frozenset()
    return frozenset({"resize", "crop"}) if framework == "pycls" else EvalTransform.fields()


def test_timm_evaluates_a_folder_as_it_is_written(tmp_path: Path) -> None:
    data = pytest.importorskip("timm.data")
    for index, transform in enumerate(TRANSFORMS):
        place = tmp_path / str(index)
        place.mkdir()
        written = write_back(folder_with(place, transform), place / "written", "timm")
        stated = json.loads((written.path / "config.json").read_text())["pretrained_cfg"]
        theirs = data.create_transform(**data.resolve_data_config({}, pretrained_cfg=stated))
        processor = RegNetImageProcessor(**transform.preprocessor_fields(3))
        ours = processor(picture(), return_tensors="np")["pixel_values"][0]
        assert np.allclose(ours, theirs(picture()).numpy(), atol=1e-5), transform.in_words


def test_another_transform_than_the_folder_s_is_not_published(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    timm = target_named("timm")

    def cropping(path: Path, network: Any) -> None:
        replace(network, target=timm).write(path)
        config = json.loads((path / "config.json").read_text())
        config["pretrained_cfg"]["interpolation"] = "bilinear"
        (path / "config.json").write_text(json.dumps(config))

    wrong = replace(timm, write=cropping)
    monkeypatch.setattr("converters.jobs.writeback.target_named", lambda _: wrong)
    folder = folder_with(tmp_path, EvalTransform(256, 224, FILTERS["lanczos"]))

    with pytest.raises(ReadBackError, match=r"evaluated otherwise .*resample"):
        write_back(folder, tmp_path / "written", "timm")
    assert not (tmp_path / "written").exists()
