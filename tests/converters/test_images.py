"""Finding image files and reading them in batches."""

from __future__ import annotations

import tracemalloc
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image

from converters.errors import InputError
from converters.inference.images import find_images, open_image, read_in_batches
from regnet.image_processor import RegNetImageProcessor

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

PROCESSOR = RegNetImageProcessor(size=32, crop_pct=1.0)


def save(path: Path, size: tuple[int, int] = (40, 30), mode: str = "RGB") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size).save(path)
    return path


def test_folders_are_searched_to_the_bottom_and_each_file_comes_once(tmp_path: Path) -> None:
    shallow, deep = save(tmp_path / "b.PNG"), save(tmp_path / "a" / "deep" / "z.jpg")
    save(tmp_path / ".hidden" / "no.png")
    save(tmp_path / "a" / "._no.png")
    (tmp_path / "notes.txt").write_text("no")
    assert find_images([tmp_path]) == [deep, shallow]
    assert find_images([shallow, tmp_path, shallow]) == [shallow, deep]
    assert find_images([tmp_path / "absent.png"]) == [tmp_path / "absent.png"]


def test_patterns_are_expanded_unless_a_file_is_named_like_one(tmp_path: Path) -> None:
    files = [save(tmp_path / "x" / f"{name}.png") for name in ("a", "b", "c[1]")]
    assert find_images([tmp_path / "*" / "[ab].png"]) == files[:2]
    assert find_images([tmp_path / "**" / "*.png"]) == files
    assert find_images([tmp_path / "?"]) == files
    assert find_images([files[2]]) == files[2:]


@pytest.mark.parametrize("place", ["", "*.jpeg"], ids=["empty folder", "pattern"])
def test_a_place_without_images_is_named(place: str, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("no")
    with pytest.raises(InputError, match=r"holds no image|\*\.jpeg matches no file"):
        find_images([tmp_path / place])


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "CMYK", "I;16"])
def test_any_mode_becomes_what_the_network_takes(mode: str, tmp_path: Path) -> None:
    path = (
        save(tmp_path / "image.tiff", mode=mode)
        if mode != "LA"
        else save(tmp_path / "image.png", mode=mode)
    )
    ((files, pixels),) = read_in_batches([path], PROCESSOR, 4, [])
    assert files == [path]
    assert pixels.shape == (1, 3, 32, 32)
    assert pixels.dtype == np.float32


def test_batches_are_full_in_order_and_those_of_the_processor(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    paths = [tmp_path / f"{index}.png" for index in range(5)]
    for path in paths:
        Image.fromarray(rng.integers(0, 256, (50, 40, 3), np.uint8)).save(path)
    batches = list(read_in_batches(paths, PROCESSOR, 2, []))
    assert [files for files, _ in batches] == [paths[:2], paths[2:4], paths[4:]]
    expected = PROCESSOR([Image.open(path) for path in paths])["pixel_values"]
    np.testing.assert_array_equal(np.concatenate([pixels for _, pixels in batches]), expected)


def test_images_of_several_sizes_are_never_stacked(tmp_path: Path) -> None:
    sizes = [(40, 40), (40, 40), (48, 40), (40, 40)]
    paths = [save(tmp_path / f"{index}.png", size) for index, size in enumerate(sizes)]
    processor = RegNetImageProcessor(do_resize=False)
    shapes = [pixels.shape for _, pixels in read_in_batches(paths, processor, 8, [])]
    assert shapes == [(2, 3, 40, 40), (1, 3, 40, 48), (1, 3, 40, 40)]


def test_memory_holds_one_batch_however_many_images_there_are(tmp_path: Path) -> None:
    paths = [save(tmp_path / f"{index}.png") for index in range(60)]
    processor = RegNetImageProcessor(size=224, crop_pct=1.0)
    next(read_in_batches(paths[:1], processor, 1, []))
    tracemalloc.start()
    for _ in read_in_batches(paths, processor, 2, []):
        pass
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    image = 3 * 224 * 224 * 4
    assert peak < 12 * image


def _truncated(path: Path) -> None:
    save(path, (400, 300)).write_bytes(path.read_bytes()[:-100])


def _corrupt(path: Path) -> None:
    content = bytearray(save(path).read_bytes())
    content[30:60] = bytes(30)
    path.write_bytes(content)


def _text(path: Path) -> None:
    path.write_text("hello")


def _folder(path: Path) -> None:
    path.mkdir()


@pytest.mark.parametrize("spoil", [_truncated, _corrupt, _text, _folder, lambda _: None])
def test_each_unreadable_image_gets_a_sentence_and_the_rest_goes_on(
    spoil: Callable[[Path], None], tmp_path: Path
) -> None:
    good, bad, last = save(tmp_path / "a.png"), tmp_path / "bad.png", save(tmp_path / "c.png")
    spoil(bad)
    unreadable: list[str] = []
    ((files, _),) = read_in_batches([good, bad, last], PROCESSOR, 8, unreadable)
    assert files == [good, last]
    (sentence,) = unreadable
    assert sentence.startswith(str(bad))
    assert sentence.endswith(".")
    assert "\n" not in sentence


def test_large_pictures_are_read_and_far_too_large_ones_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = save(tmp_path / "large.png", (100, 100))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 9_000)
    assert open_image(path).size == (100, 100)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1_000)
    with pytest.raises(InputError, match=r"large\.png has more pixels than Pillow takes"):
        open_image(path)
