"""`RegNetImageProcessor`: from pictures to ``pixel_values``, as `preprocessor_config.json` says.

Hugging Face documents ConvNeXT's processor for RegNet. Names, file format and numbers are those of
transformers 5 (``models/convnext/image_processing_pil_convnext.py``), to the last bit, with Pillow
and numpy alone. Two ways of resizing are added, those that torchvision, SWAG and SEER, timm and
OpenMMLab evaluate with; see :data:`ResizeMode`.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal, Self, get_args

import numpy as np
from PIL import Image

from regnet.config import IMAGENET_MEAN, IMAGENET_STD, MAX_SIDE
from regnet.files.json_file import (
    PREPROCESSOR_NAME,
    PROCESSOR_NAME,
    JsonFile,
    processor_settings,
    read_object,
)
from regnet.images import (
    MOST_PIXELS,
    PILLOW_MODES,
    collated,
    has_byte_values,
    picture_of,
    pixels_of,
    scaled,
    single_images,
    to_picture,
    to_pixels,
)

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import numpy.typing as npt

    from regnet.images import ImageInput, Pixels

ResizeMode = Literal["convnext", "shortest_edge_then_crop", "squash"]
"""How an image becomes a square of ``size["shortest_edge"]`` pixels.

``convnext``
    Below 384 the short side is resized to ``int(size / crop_pct)``, keeping the aspect, and the
    centre is cropped; from 384 on the image is squashed to the square and nothing is cropped.
``shortest_edge_then_crop``
    Resize and crop at any size, the crop placed as torchvision's ``CenterCrop`` places it. The file
    says so with a ``resize_mode`` key, which transformers keeps but does not act on: from 384 on it
    squashes, and below it does the same as here, except that where a side exceeds the crop by
    3 modulo 4 pixels its crop starts one pixel earlier.
``squash``
    Below 384 too, the image is squashed to the square, as some of timm's and OpenMMLab's networks
    are evaluated. transformers crops there instead.
"""

PROCESSOR_TYPE = "ConvNextImageProcessor"
SQUASH_FROM = 384
"""The size, in pixels, from which ConvNeXT's rule squashes instead of cropping."""

# Class attributes of transformers' ConvNextImageProcessor that differ from the defaults here.
_MEANING_OF_ABSENT_KEYS = {"size": 384, "image_mean": (0.5, 0.5, 0.5), "image_std": (0.5, 0.5, 0.5)}
_TYPE_KEYS = ("image_processor_type", "feature_extractor_type")  # the first counts
_NOT_KEPT = {*_TYPE_KEYS, "processor_class"}  # transformers drops them too


class BatchFeature(dict[str, Any]):
    """A dict whose entries are attributes too: ``batch["pixel_values"] is batch.pixel_values``."""

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(name) from None

    def to(self, *args: Any, **kwargs: Any) -> Self:
        """Move every tensor as :meth:`torch.Tensor.to` would, in place, and return the batch."""
        self.update({name: tensor.to(*args, **kwargs) for name, tensor in self.items()})
        return self


class RegNetImageProcessor(JsonFile):
    """Resize, crop, rescale and normalise, in this order.

    The defaults are the evaluation of the published ImageNet models: short side 256, centre crop
    224, bicubic, ImageNet mean and deviation. The defaults of transformers' ConvNeXT class (384,
    mean and deviation 0.5) are wrong for every RegNet; still, a key *missing from a file* means
    what it means to transformers, so that both read one file alike.

    Args:
        do_resize: Whether to resize (and crop).
        size: Side of the result in pixels, ``n`` or ``{"shortest_edge": n}``.
        crop_pct: Share of the resized short side that the crop keeps, in (0, 1]; see
            :func:`crop_pct_for`.
        resample: A Pillow filter, ``PIL.Image.Resampling`` or its number.
        do_rescale: Whether to multiply by ``rescale_factor``.
        rescale_factor: 1/255 takes bytes to [0, 1].
        do_normalize: Whether to subtract ``image_mean`` and divide by ``image_std``.
        image_mean: One number per channel, in units of the rescaled image. Their count, 1, 3 or 4,
            decides whether pictures become greyscale, RGB or RGBA.
        image_std: As many numbers, none of them zero.
        resize_mode: See :data:`ResizeMode`.
        **extra: Any other key is kept and written back to the file.

    Raises:
        ValueError: If a value cannot be used.
    """

    file_name = PREPROCESSOR_NAME
    title = "the image processor"

    def __init__(  # noqa: PLR0913 -- the documented fields
        self,
        *,
        do_resize: bool = True,
        size: int | Mapping[str, int] = 224,
        crop_pct: float = 224 / 256,
        resample: int = Image.Resampling.BICUBIC,
        do_rescale: bool = True,
        rescale_factor: float = 1 / 255,
        do_normalize: bool = True,
        image_mean: Sequence[float] = IMAGENET_MEAN,
        image_std: Sequence[float] = IMAGENET_STD,
        resize_mode: ResizeMode = "convnext",
        **extra: Any,
    ) -> None:
        self.do_resize = do_resize
        self.size = _size_dict(size)
        self.crop_pct = _number("crop_pct", crop_pct)
        self.resample = _resampling(resample)
        self.do_rescale = do_rescale
        self.rescale_factor = _number("rescale_factor", rescale_factor)
        self.do_normalize = do_normalize
        self.image_mean = _numbers("image_mean", image_mean)
        self.image_std = _numbers("image_std", image_std)
        self.resize_mode = resize_mode
        self.extra = extra
        self._validate()

    def _validate(self) -> None:
        self._require_switches("do_resize", "do_rescale", "do_normalize")
        if not 0 < self.crop_pct <= 1:
            raise ValueError(f"crop_pct={self.crop_pct} must be above 0 and at most 1.")
        if len(self.image_mean) != len(self.image_std) or len(self.image_mean) not in PILLOW_MODES:
            raise ValueError(
                f"image_mean has {len(self.image_mean)} numbers and image_std "
                f"{len(self.image_std)}; give one per channel in both, for 1, 3 or 4 channels."
            )
        if 0 in self.image_std:
            raise ValueError(f"image_std={list(self.image_std)} must not contain zero.")
        self._require_member("resize_mode", get_args(ResizeMode))
        # Compared so, and not with the side itself, which may be infinite.
        if self.size["shortest_edge"] > MAX_SIDE * (1 if self.squashes else self.crop_pct):
            raise ValueError(
                f"size={self.size['shortest_edge']} with crop_pct={self.crop_pct} resizes images "
                f"to more than {MAX_SIDE} pixels a side, which no network needs."
            )
        if self.extra.get("do_center_crop"):
            raise ValueError(
                "do_center_crop asks for a second crop, which is not supported; "
                "describe the crop with size and crop_pct."
            )

    def __call__(
        self,
        images: ImageInput | Sequence[ImageInput],
        return_tensors: Literal["np", "pt"] | None = None,
        **overrides: Any,
    ) -> BatchFeature:
        """Same as :meth:`preprocess`."""
        return self.preprocess(images, return_tensors, **overrides)

    def preprocess(
        self,
        images: ImageInput | Sequence[ImageInput],
        return_tensors: Literal["np", "pt"] | None = None,
        **overrides: Any,
    ) -> BatchFeature:
        """Turn images into the input of a RegNet.

        Args:
            images: One image, a list of them, or a batch of shape (N, C, H, W) or (N, H, W, C). An
                image is a Pillow image of any mode (transparency is laid on white), or a numpy
                array or torch tensor of shape (C, H, W) or (H, W, C) with values from 0 to 255.
                Values from 0 to 1 need ``do_rescale=False``; resizing rounds them down to bytes.
            return_tensors: ``"np"`` for a numpy array, ``"pt"`` for a torch tensor, ``None`` for a
                list of numpy arrays.
            **overrides: Settings for this call only.

        Returns:
            ``pixel_values``: float32 of shape (N, C, size, size), or N arrays of (C, size, size).

        Raises:
            TypeError: If an image is none of the kinds above, or an override is no setting.
            ValueError: If shapes or values are not as above, or the results cannot be stacked.
        """
        if overrides:
            unknown = sorted(overrides.keys() - self.settings())
            if unknown:
                raise TypeError(f"{', '.join(unknown)} is not a setting of the image processor.")
            return self.from_dict(self.to_dict(), **overrides).preprocess(images, return_tensors)
        arrays = [self._preprocess_one(image) for image in single_images(images)]
        return BatchFeature(pixel_values=collated(arrays, return_tensors))

    def _preprocess_one(self, image: Image.Image | Pixels) -> npt.NDArray[np.float32]:
        channels = len(self.image_mean)
        if self.do_resize and isinstance(image, Image.Image):
            # What the way through an array would give, without that array and its copies.
            return self._scale(pixels_of(self._resize_picture(to_picture(image, channels))))
        pixels = to_pixels(image, channels)
        if self.do_rescale and np.issubdtype(pixels.dtype, np.floating) and 0 < pixels.max() <= 1:
            warnings.warn(
                "The image has values from 0 to 1 and is rescaled once more; pass do_rescale=False "
                "if it was rescaled before.",
                stacklevel=2,
            )
        if self.do_resize:
            pixels = self._resize(pixels)
        return self._scale(pixels)

    def _scale(self, pixels: Pixels) -> npt.NDArray[np.float32]:
        """What comes after resizing."""
        if self.do_rescale:
            pixels = scaled(pixels, self.rescale_factor)
        pixels = pixels.astype(np.float32, copy=False)
        if self.do_normalize:
            mean = np.array(self.image_mean, np.float32)[:, None, None]
            std = np.array(self.image_std, np.float32)[:, None, None]
            pixels = (pixels - mean) / std
        return np.ascontiguousarray(pixels)

    def _resize(self, pixels: Pixels) -> Pixels:
        in_bytes = has_byte_values(pixels)
        # Truncated to bytes, not rounded, as transformers does.
        as_bytes = (pixels if in_bytes else scaled(pixels, 255)).astype(np.uint8, copy=False)
        resized = pixels_of(self._resize_picture(picture_of(as_bytes)))
        return resized if in_bytes else scaled(resized, 1 / 255)

    def _resize_picture(self, picture: Image.Image) -> Image.Image:
        edge = self.size["shortest_edge"]
        if self.squashes:
            _require_resizable(picture.size, (edge, edge))
            return picture.resize((edge, edge), self.resample)
        short = int(edge / self.crop_pct)
        width, height = (short * side // min(picture.size) for side in picture.size)
        _require_resizable(picture.size, (width, height))
        left, top = self._crop_start(width - edge), self._crop_start(height - edge)
        resized = picture.resize((width, height), self.resample)
        return resized.crop((left, top, left + edge, top + edge))

    def _crop_start(self, excess: int) -> int:
        # torchvision rounds half to even, ConvNeXT's processor rounds down.
        return excess // 2 if self.resize_mode == "convnext" else round(excess / 2)

    @property
    def squashes(self) -> bool:
        """Whether an image is resized to the square, its aspect lost, and nothing is cropped."""
        by_size = self.resize_mode == "convnext" and self.size["shortest_edge"] >= SQUASH_FROM
        return by_size or self.resize_mode == "squash"

    @classmethod
    def _read(cls, place: Path) -> tuple[Path, dict[str, Any]]:
        """Read the keys of the file, or those that lie nested in ``processor_config.json``."""
        folder = place.parent if place.name == PROCESSOR_NAME and place.is_file() else place
        if folder.is_dir():
            name, fields = processor_settings(
                folder, lambda file: read_object(file) if file.is_file() else {}
            )
            if name == PROCESSOR_NAME:
                return folder / name, fields
        return super()._read(place)

    def save_pretrained(self, folder: str | Path) -> list[str]:
        """Write ``preprocessor_config.json`` into a folder, which is created if missing.

        Returns:
            The path of the file, in a list, as in transformers.

        Raises:
            OSError: If it cannot be written.
        """
        return [str(self._save(folder))]

    def to_dict(self) -> dict[str, Any]:
        """The keys and plain values of the file, unknown ones included.

        ``resize_mode`` is left out where it is ConvNeXT's, which is what every other file means.
        """
        fields = {**self.extra, **{name: getattr(self, name) for name in sorted(self.settings())}}
        fields |= {
            "size": dict(self.size),
            "resample": int(self.resample),
            "image_mean": list(self.image_mean),
            "image_std": list(self.image_std),
            "image_processor_type": PROCESSOR_TYPE,
        }
        if self.resize_mode == "convnext":
            del fields["resize_mode"]
        return fields

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any], **overrides: Any) -> Self:
        """Build a processor from the keys of a file; absent ones mean transformers' default.

        So does a null ``crop_pct``, as in transformers 4; every other null is refused.

        Args:
            fields: As :meth:`to_dict` or transformers write them.
            **overrides: Settings that win.

        Raises:
            ValueError: If a value cannot be used, or the file names another kind of processor.
        """
        kind = next(filter(None, map(fields.get, _TYPE_KEYS)), PROCESSOR_TYPE)
        if not str(kind).startswith("ConvNext"):
            raise ValueError(f"{kind} is not the processor of a RegNet; use {PROCESSOR_TYPE}.")
        given = {
            name: value
            for name, value in {**fields, **overrides}.items()
            if name not in _NOT_KEPT and (name, value) != ("crop_pct", None)
        }
        return cls(**{**_MEANING_OF_ABSENT_KEYS, **given})


def _require_resizable(size: tuple[int, int], resized: tuple[int, int]) -> None:
    """Refuse what would take gigabytes: pictures far longer than wide, of which a crop remains.

    Between its two passes Pillow holds a picture of one old and one new side.
    """
    (width, height), (to_width, to_height) = size, resized
    if max(to_width * to_height, to_width * height, width * to_height) > MOST_PIXELS:
        raise ValueError(
            f"An image of {width} x {height} pixels would become {to_width} x {to_height} on the "
            f"way, and more than {MOST_PIXELS} pixels are not computed; cut it to the part that "
            "counts."
        )


def crop_pct_for(resize: int, crop: int) -> float:
    """The ``crop_pct`` that makes a processor of size ``crop`` resize the short side to ``resize``.

    Args:
        resize: Short side after resizing, in pixels.
        crop: Side of the centre crop, in pixels.

    Returns:
        ``crop / resize``, lowered by the last bit where ``int(crop / crop_pct)`` would otherwise
        be ``resize - 1``, as for 192 of 225.

    Raises:
        ValueError: Unless ``1 <= crop <= resize``.
    """
    if not 1 <= crop <= resize:
        raise ValueError(f"A crop of {crop} pixels cannot be cut from {resize}.")
    crop_pct = crop / resize
    return crop_pct if int(crop / crop_pct) == resize else math.nextafter(crop_pct, 0)


def _size_dict(size: int | Mapping[str, int]) -> dict[str, int]:
    edge = dict(size) if isinstance(size, Mapping) else {"shortest_edge": size}
    side = edge.get("shortest_edge")
    if len(edge) != 1 or not isinstance(side, int) or isinstance(side, bool) or side <= 0:
        raise ValueError(f'size={size!r} must be a positive integer n or {{"shortest_edge": n}}.')
    return edge


def _resampling(resample: int) -> Image.Resampling:
    try:
        return Image.Resampling(resample)
    except ValueError:
        filters = ", ".join(f"{each.value} ({each.name.lower()})" for each in Image.Resampling)
        raise ValueError(f"resample={resample!r} is not one of {filters}.") from None


def _number(name: str, value: float) -> float:
    if not isinstance(value, int | float) or isinstance(value, bool) or not math.isfinite(value):
        raise ValueError(f"{name}={value!r} must be a finite number.")
    return float(value)


def _numbers(name: str, values: Sequence[float]) -> tuple[float, ...]:
    if not isinstance(values, list | tuple):
        raise ValueError(f"{name}={values!r} must be a list of numbers, one per channel.")
    return tuple(_number(f"{name} entry", value) for value in values)
