"""Finding image files and reading them in batches."""

from __future__ import annotations

import io
import math
import os
import resource
import struct
import sys
import tracemalloc
import zlib
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image, TiffImagePlugin, TiffTags

from converters.errors import InputError
from converters.folder.images import find_images, open_image, read_in_batches
from regnet.image_processor import RegNetImageProcessor

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

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


def test_only_formats_of_pixels_are_opened(tmp_path: Path) -> None:
    page = tmp_path / "page.png"
    page.write_bytes(
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 64 64\n%%EndComments\nshowpage\n%%EOF\n"
    )
    with Image.open(page) as by_pillow:
        assert by_pillow.format == "EPS"  # which `load` hands to Ghostscript
    with pytest.raises(InputError, match=r"page\.png is not an image of a known format \(JPEG,"):
        open_image(page)
    save(tmp_path / "folder" / "icon.ico")
    with pytest.raises(InputError, match="holds no image"):
        find_images([tmp_path / "folder"])


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "tiff", "bmp", "gif", "ppm", "tga"])
def test_every_ordinary_format_is_opened(suffix: str, tmp_path: Path) -> None:
    path = save(tmp_path / f"image.{suffix}")
    assert find_images([tmp_path]) == [path]
    assert open_image(path).size == (40, 30)


def test_what_is_no_regular_file_is_never_waited_for(tmp_path: Path) -> None:
    pipe, good = tmp_path / "pipe.png", save(tmp_path / "good.png")
    os.mkfifo(pipe)
    unreadable: list[str] = []
    ((files, _),) = read_in_batches(
        [pipe, Path("/dev/zero"), good, tmp_path], PROCESSOR, 8, unreadable
    )
    assert files == [good]
    assert [sentence.partition(" cannot be read (")[2] for sentence in unreadable] == [
        "Not a regular file).",
        "Not a regular file).",
        "Is a directory).",
    ]


def png(path: Path, width: int, height: int) -> Path:
    """White in one bit a pixel, never all in memory."""
    compress, row = zlib.compressobj(1), b"\0" + b"\xff" * math.ceil(width / 8)
    data = b"".join(compress.compress(row) for _ in range(height)) + compress.flush()
    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", data), (b"IEND", b""))
    content = b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        for kind, body in chunks
    )
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + content)
    return path


@pytest.mark.parametrize(
    ("size", "settings"),
    [
        ((1, 1_500_000), {}),
        ((40_000_000, 1), {}),
        ((1, 200_000), {}),
        ((200_000, 2), {"size": 224}),
        ((2, 400_000), {"size": 384}),
        ((12_000, 12_000), {}),
        ((5_000, 4_000), {"do_resize": False}),
    ],
    ids=str,
)
def test_a_picture_that_would_take_gigabytes_is_left_out(
    size: tuple[int, int], settings: dict[str, Any], tmp_path: Path
) -> None:
    bomb, good = png(tmp_path / "bomb.png", *size), save(tmp_path / "good.png")
    processor = RegNetImageProcessor(**{"size": 32, "crop_pct": 1.0, **settings})
    unreadable: list[str] = []
    with bounded_memory(400_000_000):
        ((files, _),) = read_in_batches([bomb, good], processor, 8, unreadable)
    assert files == [good]
    (sentence,) = unreadable
    assert sentence.startswith(str(bomb))
    assert "pixels" in sentence


def test_large_photographs_are_read_in_little_more_than_their_own_memory(tmp_path: Path) -> None:
    path = png(tmp_path / "large.png", 9_000, 9_000)
    with bounded_memory(600_000_000):
        ((_, pixels),) = read_in_batches([path], PROCESSOR, 8, [])
    assert pixels.shape == (1, 3, 32, 32)
    assert len(np.unique(pixels[0, 0])) == 1


def test_a_picture_without_memory_for_it_is_one_sentence(tmp_path: Path) -> None:
    large, good = png(tmp_path / "large.png", 11_000, 11_000), save(tmp_path / "good.png")
    unreadable: list[str] = []
    with bounded_memory(200_000_000):
        ((files, _),) = read_in_batches([large, good], PROCESSOR, 8, unreadable)
    assert files == [good]
    assert unreadable == [f"{large} is too large for this machine's memory; scale it down."]


def test_a_tile_larger_than_its_picture_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "tile.tiff"
    tags = TiffImagePlugin.ImageFileDirectory_v2()
    for tag, value in {
        256: 64,
        257: 64,
        258: 8,
        259: 8,
        262: 1,
        322: 1 << 16,
        323: 1 << 16,
    }.items():
        tags.tagtype[tag] = TiffTags.LONG
        tags[tag] = value
    tags[324], tags[325] = 8, 100
    head = io.BytesIO()
    head.write(b"II*\0" + struct.pack("<I", 108) + bytes(100))
    tags.save(head)
    path.write_bytes(head.getvalue())
    with pytest.raises(InputError, match="tiles that are too large"):
        open_image(path)


def test_very_large_images_share_a_batch_with_few(tmp_path: Path) -> None:
    paths = [save(tmp_path / f"{index}.png", (2000, 2000), "L") for index in range(10)]
    processor = RegNetImageProcessor(do_resize=False, image_mean=[0.5], image_std=[0.5])
    shapes = [pixels.shape for _, pixels in read_in_batches(paths, processor, 16, [])]
    assert shapes == [(8, 1, 2000, 2000), (2, 1, 2000, 2000)]


@contextmanager
def bounded_memory(more: int) -> Iterator[None]:
    """Let this process take at most so many more bytes."""
    if sys.platform != "linux":
        pytest.skip("only Linux says how many it has, and limits them as meant here")
    before = resource.getrlimit(resource.RLIMIT_AS)
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + more, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)
