"""The image processor against transformers' and torchvision's, to the last bit."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoImageProcessor, ConvNextImageProcessorPil

from regnet.files.json_file import PREPROCESSOR_NAME
from regnet.image_processor import RegNetImageProcessor, crop_pct_for

if TYPE_CHECKING:
    import numpy.typing as npt

IMAGENET = {"image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]}
CROPS = [
    pytest.param(224, 0.875, id="256 to 224"),
    pytest.param(224, crop_pct_for(232, 224), id="232 to 224"),
    pytest.param(224, 0.95, id="235 to 224"),
    pytest.param(192, crop_pct_for(225, 192), id="225 to 192, where the quotient truncates low"),
    pytest.param(383, 1.0, id="383, the last that crops"),
    pytest.param(384, 0.875, id="384, the first that squashes"),
    pytest.param(480, 1.0, id="480"),
]
WIDTHS_AND_HEIGHTS = [(500, 375), (333, 501), (97, 41), (224, 224), (20, 300), (259, 256)]


def noise(*shape: int) -> npt.NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


def photo(width: int, height: int) -> Image.Image:
    return Image.fromarray(noise(height, width, 3))


def ours(images: Any, **settings: Any) -> npt.NDArray[np.float32]:
    pixels = RegNetImageProcessor(**settings)(images, return_tensors="np").pixel_values
    assert pixels.dtype == np.float32
    return pixels  # type: ignore[no-any-return]


def theirs(images: Any, **settings: Any) -> npt.NDArray[np.float32]:
    oracle = ConvNextImageProcessorPil(**{"size": 224, **IMAGENET, **settings})
    pixels = oracle(images, return_tensors="np").pixel_values
    assert pixels.dtype == np.float32
    return pixels  # type: ignore[no-any-return]


@pytest.mark.parametrize(("width", "height"), WIDTHS_AND_HEIGHTS)
@pytest.mark.parametrize(("size", "crop_pct"), CROPS)
def test_pixels_equal_those_of_transformers_to_the_last_bit(
    size: int, crop_pct: float, width: int, height: int
) -> None:
    image = photo(width, height)
    ours_ = ours(image, size=size, crop_pct=crop_pct)
    assert ours_.shape == (1, 3, size, size)
    np.testing.assert_array_equal(ours_, theirs(image, size=size, crop_pct=crop_pct))


@pytest.mark.parametrize(
    "settings",
    [
        *({"resample": filter_.value} for filter_ in Image.Resampling),
        {"do_resize": False},
        {"do_rescale": False},
        {"do_normalize": False},
        {"rescale_factor": 1 / 127.5},
        {"do_resize": False, "do_normalize": False},
    ],
    ids=str,
)
def test_every_setting_does_what_it_does_in_transformers(settings: dict[str, Any]) -> None:
    image = photo(150, 101)
    np.testing.assert_array_equal(ours(image, **settings), theirs(image, **settings))
    per_call = RegNetImageProcessor()(image, return_tensors="np", **settings).pixel_values
    np.testing.assert_array_equal(per_call, theirs(image, **settings))


def picture_of_mode(mode: str) -> Image.Image:
    if mode == "P with transparency":
        picture = photo(90, 70).convert("P")
        picture.info["transparency"] = picture.getpixel((0, 0))
        return picture
    if mode in {"RGBA", "LA"}:
        return Image.fromarray(noise(70, 90, 4)).convert(mode)
    return photo(90, 70).convert(mode)


@pytest.mark.parametrize(
    "mode", ["1", "L", "LA", "P", "P with transparency", "RGBA", "CMYK", "HSV"]
)
def test_pictures_of_every_mode_become_rgb(mode: str) -> None:
    picture = picture_of_mode(mode)
    np.testing.assert_array_equal(ours(picture), theirs(picture, do_convert_rgb=True))


@pytest.mark.parametrize(("mode", "channels"), [("L", 1), ("RGBA", 4)])
def test_the_means_decide_the_number_of_channels(mode: str, channels: int) -> None:
    settings = {"image_mean": [0.3] * channels, "image_std": [0.2] * channels, "size": 32}
    picture = picture_of_mode(mode)
    assert ours(picture, **settings).shape == (1, channels, 32, 32)
    np.testing.assert_array_equal(ours(picture, **settings), theirs(picture, **settings))


def test_every_kind_of_input_gives_the_same_pixels() -> None:
    image = photo(90, 70)
    last, expected = np.asarray(image), ours(photo(90, 70))
    first = np.moveaxis(last, -1, 0).copy()
    kinds = {
        "a list": [image],
        "channels last": last,
        "channels first": first,
        "whole floats": first.astype(np.float32),
        "integers": first.astype(np.int64),
        "a tensor": torch.from_numpy(first),
        "a float tensor that wants gradients": torch.from_numpy(first).float().requires_grad_(),
        "a batch": first[None],
        "a batch of channels last": last[None],
        "a batched tensor": torch.from_numpy(first)[None],
        "a tuple of a batch": (first[None],),
    }
    for kind, images in kinds.items():
        np.testing.assert_array_equal(ours(images), expected, err_msg=kind)


@pytest.mark.parametrize("do_resize", [True, False])
def test_fractions_are_taken_as_transformers_takes_them(do_resize: bool) -> None:  # noqa: FBT001, RUF100
    fractions = np.random.default_rng(0).random((3, 40, 50), dtype=np.float32)
    settings: dict[str, Any] = {"do_resize": do_resize, "do_rescale": False}
    np.testing.assert_array_equal(ours(fractions, **settings), theirs(fractions, **settings))


def test_rescaling_fractions_once_more_warns() -> None:
    fractions = np.random.default_rng(0).random((3, 40, 50), dtype=np.float32)
    with pytest.warns(UserWarning, match="do_rescale=False"):
        pixels = ours(fractions)
    np.testing.assert_array_equal(pixels, theirs(fractions))


def test_one_channel_is_repeated() -> None:
    grey = noise(1, 40, 50)
    np.testing.assert_array_equal(ours(grey), ours(Image.fromarray(grey[0])))


def test_the_result_comes_as_list_array_or_tensor_by_key_and_by_attribute() -> None:
    process = RegNetImageProcessor()
    images = [photo(90, 70), photo(70, 90)]
    listed, array, tensor = (process(images, kind) for kind in (None, "np", "pt"))
    assert isinstance(listed["pixel_values"], list)
    assert array.pixel_values.shape == tensor["pixel_values"].shape == (2, 3, 224, 224)
    assert tensor.pixel_values.dtype == torch.float32
    np.testing.assert_array_equal(np.stack(listed.pixel_values), array.pixel_values)
    np.testing.assert_array_equal(tensor.pixel_values.numpy(), array.pixel_values)
    assert tensor.to(torch.float64).pixel_values.dtype == torch.float64
    assert not hasattr(tensor, "labels")
    np.testing.assert_array_equal(process.preprocess(images, "np").pixel_values, array.pixel_values)


THEN_CROP = {"resize_mode": "shortest_edge_then_crop", "do_rescale": False, "do_normalize": False}


@pytest.mark.parametrize(("width", "height"), [*WIDTHS_AND_HEIGHTS, (387, 384), (385, 384)])
@pytest.mark.parametrize(("resize", "crop"), [(256, 224), (232, 224), (384, 384), (400, 384)])
@pytest.mark.parametrize("resample", [Image.Resampling.BICUBIC, Image.Resampling.BILINEAR])
def test_resizing_then_cropping_equals_torchvision(
    resize: int, crop: int, width: int, height: int, resample: Image.Resampling
) -> None:
    transforms = pytest.importorskip("torchvision.transforms")
    mode = transforms.InterpolationMode[resample.name]
    evaluate = transforms.Compose(
        [transforms.Resize(resize, mode), transforms.CenterCrop(crop), transforms.PILToTensor()]
    )
    image, crop_pct = photo(width, height), crop_pct_for(resize, crop)
    pixels = ours(image, size=crop, crop_pct=crop_pct, resample=resample, **THEN_CROP)
    np.testing.assert_array_equal(pixels[0], evaluate(image).numpy())


@pytest.mark.parametrize("excess", range(9))
def test_below_384_the_two_ways_of_cropping_differ_by_one_pixel_at_most(excess: int) -> None:
    image = photo(256 + excess, 256)
    then_crop = ours(image, **THEN_CROP)
    convnext = ours(image, do_rescale=False, do_normalize=False)
    if (256 + excess - 224) % 4 == 3:
        np.testing.assert_array_equal(then_crop[..., :-1], convnext[..., 1:])
    else:
        np.testing.assert_array_equal(then_crop, convnext)


def test_every_resize_and_crop_up_to_600_has_a_crop_pct() -> None:
    wrong = [
        (resize, crop)
        for resize in range(1, 601)
        for crop in range(1, resize + 1)
        if int(crop / crop_pct_for(resize, crop)) != resize
    ]
    assert wrong == []
    assert crop_pct_for(256, 224) == 0.875
    assert crop_pct_for(384, 384) == 1


@pytest.mark.parametrize(("resize", "crop"), [(224, 256), (224, 0), (0, 0)])
def test_a_crop_that_does_not_fit_has_no_crop_pct(resize: int, crop: int) -> None:
    with pytest.raises(ValueError, match="cannot be cut"):
        crop_pct_for(resize, crop)


OLD_FORM = {
    "crop_pct": 0.875,
    "do_normalize": True,
    "do_resize": True,
    "feature_extractor_type": "ConvNextFeatureExtractor",
    "resample": 3,
    "size": 224,
    **IMAGENET,
}
NEW_FORM = {
    **{name: value for name, value in OLD_FORM.items() if name != "feature_extractor_type"},
    "image_processor_type": "ConvNextImageProcessor",
    "size": {"shortest_edge": 224},
    "do_rescale": True,
    "rescale_factor": 1 / 255,
}
FILES = [
    pytest.param(OLD_FORM, id="old form"),
    pytest.param(NEW_FORM, id="new form"),
    pytest.param({**NEW_FORM, "image_processor_type": "ConvNextImageProcessorFast"}, id="fast"),
    pytest.param({"image_processor_type": "ConvNextImageProcessor"}, id="no settings"),
    pytest.param({**OLD_FORM, "size": 384, "crop_pct": None}, id="384 and no crop_pct"),
    *(
        pytest.param({k: v for k, v in NEW_FORM.items() if k != name}, id=f"without {name}")
        for name in NEW_FORM
        if name != "image_processor_type"
    ),
]


def write(folder: Path, fields: object) -> Path:
    path = folder / PREPROCESSOR_NAME
    path.write_text(json.dumps(fields))
    return path


def their_processor(folder: Path) -> Any:
    return AutoImageProcessor.from_pretrained(folder, backend="pil", local_files_only=True)


@pytest.mark.parametrize("fields", FILES)
def test_a_file_means_what_it_means_to_transformers(tmp_path: Path, fields: dict[str, Any]) -> None:
    path = write(tmp_path, fields)
    image = photo(260, 201)
    expected = their_processor(tmp_path)(image, return_tensors="np").pixel_values
    for source in (tmp_path, path, str(path)):
        pixels = RegNetImageProcessor.from_pretrained(source)(image, "np").pixel_values
        np.testing.assert_array_equal(pixels, expected)


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"size": 384, "crop_pct": 1.0, "resample": 2},
        {"size": 384, "resize_mode": "shortest_edge_then_crop", "note": "Größe"},
    ],
    ids=str,
)
def test_what_we_save_loads_in_transformers_and_back(
    tmp_path: Path, settings: dict[str, Any]
) -> None:
    processor = RegNetImageProcessor(**settings)
    path = Path(*processor.save_pretrained(tmp_path / "ours"))
    fields = json.loads(path.read_text(encoding="utf-8"))
    assert path.name == PREPROCESSOR_NAME
    assert RegNetImageProcessor.from_pretrained(path.parent) == processor

    loaded = their_processor(path.parent)
    assert type(loaded) is ConvNextImageProcessorPil
    loaded.save_pretrained(tmp_path / "theirs")
    assert json.loads((tmp_path / "theirs" / PREPROCESSOR_NAME).read_bytes()) == fields
    assert RegNetImageProcessor.from_pretrained(tmp_path / "theirs") == processor

    image = photo(500, 400)
    expected = loaded(image, return_tensors="np").pixel_values
    same = np.array_equal(processor(image, "np").pixel_values, expected)
    assert same == (processor.resize_mode == "convnext")


def test_transformers_chooses_its_default_backend_for_what_we_save(tmp_path: Path) -> None:
    pytest.importorskip("torchvision")
    RegNetImageProcessor().save_pretrained(tmp_path)
    loaded = AutoImageProcessor.from_pretrained(tmp_path, local_files_only=True)
    assert type(loaded).__name__ == "ConvNextImageProcessor"
    assert dict(loaded.size) == {"shortest_edge": 224}


def test_the_file_is_sorted_indented_and_complete(tmp_path: Path) -> None:
    path = Path(*RegNetImageProcessor().save_pretrained(tmp_path))
    assert path.read_text() == json.dumps(NEW_FORM, indent=2, sort_keys=True) + "\n"
    (tmp_path / "plain").touch()
    assert path.stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_unknown_keys_are_kept_and_old_type_keys_are_not(tmp_path: Path) -> None:
    write(
        tmp_path, {**OLD_FORM, "processor_class": None, "data_format": "channels_first", "x": None}
    )
    fields = RegNetImageProcessor.from_pretrained(tmp_path).to_dict()
    assert fields == {**NEW_FORM, "data_format": "channels_first", "x": None}


def test_overrides_win_over_the_file(tmp_path: Path) -> None:
    write(tmp_path, NEW_FORM)
    assert RegNetImageProcessor.from_pretrained(tmp_path, size=288).size == {"shortest_edge": 288}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"size": 0}, "size=0"),
        ({"size": True}, "size=True"),
        ({"size": {"height": 224, "width": 224}}, "size="),
        ({"size": {"shortest_edge": 224, "longest_edge": 500}}, "size="),
        ({"size": {"shortest_edge": 224.5}}, "size="),
        ({"crop_pct": 0}, "crop_pct=0"),
        ({"crop_pct": 1.01}, "crop_pct=1.01"),
        ({"crop_pct": float("nan")}, "crop_pct=nan"),
        ({"crop_pct": "0.875"}, "crop_pct='0.875'"),
        ({"resample": 99}, "resample=99"),
        ({"resample": "bicubic"}, "resample='bicubic'"),
        ({"rescale_factor": None}, "rescale_factor=None"),
        ({"image_std": [0.2, 0.0, 0.2]}, "image_std="),
        ({"image_mean": [0.5, 0.5]}, "image_mean has 2"),
        ({"image_mean": [0.5] * 2, "image_std": [0.5] * 2}, "1, 3 or 4"),
        ({"image_mean": 0.5}, "image_mean=0.5"),
        ({"image_mean": [0.5, "0.5", 0.5]}, "image_mean entry"),
        ({"do_resize": 1}, "do_resize=1"),
        ({"resize_mode": "stretch"}, "resize_mode='stretch'"),
        ({"do_center_crop": True}, "do_center_crop"),
    ],
    ids=str,
)
def test_a_setting_that_cannot_be_used_is_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        RegNetImageProcessor(**settings)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is not valid JSON"),
        ("{", "is not valid JSON"),
        ("\xff", "is no UTF-8 text"),
        ("[]", "is not a JSON object"),
        ('{"crop_pct": 2}', "crop_pct=2"),
        ('{"do_resize": null}', "do_resize=None"),
        ('{"image_processor_type": "CLIPImageProcessor"}', "CLIPImageProcessor is not"),
        ('{"feature_extractor_type": "ViTFeatureExtractor"}', "ViTFeatureExtractor is not"),
    ],
)
def test_an_unusable_file_is_named(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / PREPROCESSOR_NAME).write_text(text, encoding="latin-1")
    with pytest.raises(ValueError, match=f"{PREPROCESSOR_NAME}.*{message}"):
        RegNetImageProcessor.from_pretrained(tmp_path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=PREPROCESSOR_NAME):
        RegNetImageProcessor.from_pretrained(tmp_path)


@pytest.mark.parametrize(
    ("images", "error", "message"),
    [
        ("cat.jpg", TypeError, "A str is not an image"),
        ([], ValueError, "no image"),
        (noise(40, 50), ValueError, "neither an image nor a batch"),
        (noise(40, 50, 7), ValueError, "no axis of channels"),
        (noise(40, 50, 4), ValueError, "has 4 channels; give 3"),
        (noise(3, 0, 50), ValueError, "without pixels"),
        (noise(3, 40, 50).astype(np.float32) * 2, ValueError, "values from"),
        (noise(3, 40, 50) / np.float32(2), ValueError, "values from"),
        (np.full((3, 40, 50), np.nan, np.float32), ValueError, "values from"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_is_no_image_is_refused(images: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        RegNetImageProcessor()(images)


def test_images_of_different_sizes_are_not_stacked() -> None:
    images = [photo(90, 70), photo(70, 90)]
    assert len(RegNetImageProcessor(do_resize=False)(images).pixel_values) == 2
    with pytest.raises(ValueError, match="cannot be stacked"):
        RegNetImageProcessor(do_resize=False)(images, "np")


def test_arguments_that_are_misspelt_are_refused() -> None:
    with pytest.raises(TypeError, match="crop is not a setting"):
        RegNetImageProcessor()(photo(9, 9), crop=0.9)
    with pytest.raises(ValueError, match="return_tensors='tf'"):
        RegNetImageProcessor()(photo(9, 9), "tf")  # type: ignore[arg-type]


def test_neither_torch_nor_transformers_is_imported() -> None:
    code = (
        "import sys, numpy; from regnet import RegNetImageProcessor;"
        "RegNetImageProcessor()(numpy.zeros((9, 9, 3), numpy.uint8), 'np');"
        "sys.exit(bool({'torch', 'torchvision', 'transformers'} & sys.modules.keys()))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_sizes_that_no_network_takes_are_refused() -> None:
    assert RegNetImageProcessor(size=2048, crop_pct=1.0).size == {"shortest_edge": 2048}
    assert RegNetImageProcessor(size=2048, crop_pct=0.9).size == {"shortest_edge": 2048}  # squashed
    for settings in (
        {"size": 30_000},
        {"size": 10**400},
        {"size": 224, "crop_pct": 1e-9},
        {"size": 224, "crop_pct": 5e-324},
        {"size": 2000, "crop_pct": 0.9, "resize_mode": "shortest_edge_then_crop"},
    ):
        with pytest.raises(ValueError, match="more than 2048 pixels a side"):
            RegNetImageProcessor(**settings)


@pytest.mark.parametrize(("size", "width", "height"), [(224, 1, 20_000), (384, 500_000, 1)])
def test_pictures_far_longer_than_wide_are_refused_before_they_are_resized(
    size: int, width: int, height: int
) -> None:
    with pytest.raises(ValueError, match=f"An image of {width} x {height} pixels would become"):
        ours(Image.new("RGB", (width, height)), size=size)


def test_transparency_of_large_pictures_is_laid_on_white_as_transformers_does() -> None:
    picture = Image.fromarray(noise(1500, 1100, 4))  # more than one strip
    np.testing.assert_array_equal(ours(picture), theirs(picture, do_convert_rgb=True))
    kept = picture.copy()
    ours(picture)
    assert picture == kept
