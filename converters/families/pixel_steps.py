"""The steps that a list of transforms takes from a file to pixels, followed one by one.

OpenMMLab and ClassyVision both write evaluation down as a list of steps. Each step is a function of
what is known of the picture so far; what comes out is an :class:`EvalTransform`, the order of the
channels, and the steps that could not be followed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from converters.checkpoint import Opaque
from converters.families.source import FILTERS, EvalTransform

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from converters.families.source import ChannelOrder

_MAX_STEPS, _MAX_DEPTH = 30, 3
"""Of a list of steps, beyond which nobody lists any."""

_BYTES = 255.0
_AREA = "area"
"""OpenCV's filter that averages what a pixel covers; for shrinking, Pillow's hamming is nearest."""


class StepError(ValueError):
    """Why a step cannot be followed, for people.

    Attributes:
        instead: The nearest that can be; None to leave the step out.
    """

    def __init__(self, words: str, instead: Picture | None = None) -> None:
        super().__init__(words)
        self.instead = instead


@dataclass(frozen=True, slots=True)
class Picture:
    """What is known of a picture between two steps.

    Attributes:
        order: Of its channels, if known.
        native: Side of the square pictures of a data set that has no others.
        resize: Its short side after resizing; None before.
        crop: Its side after cropping; None before.
        squash: Whether it was resized to a square.
        resample: Pillow's number of the filter.
        levels: Which value white has.
        mean: Per channel in the present order, of pixels in 0..``levels``.
        std: Likewise.
    """

    order: ChannelOrder | None = None
    native: int | None = None
    resize: int | None = None
    crop: int | None = None
    squash: bool = False
    resample: int = FILTERS["bilinear"]
    levels: float = _BYTES
    mean: tuple[float, ...] = (0.0,) * 3
    std: tuple[float, ...] = (1.0,) * 3

    def flipped(self) -> Picture:
        """The same with its channels in the other order."""
        orders: dict[ChannelOrder | None, ChannelOrder | None] = {"rgb": "bgr", "bgr": "rgb"}
        return replace(
            self,
            order=orders.get(self.order),
            mean=tuple(reversed(self.mean)),
            std=tuple(reversed(self.std)),
        )

    def resized(self, side: int, filter_name: str, *, squash: bool = False) -> Picture:
        """The same with its short side, or both sides, of so many pixels.

        Raises:
            StepError: If it was resized or cropped before, or with no filter of Pillow's.
        """
        if self.resize or self.crop:
            raise StepError("a second resize")
        if filter_name == _AREA:
            filter_name = "hamming"
        if filter_name not in FILTERS:
            raise StepError(f"the filter {filter_name}")
        whole(side)
        return replace(self, resize=side, squash=squash, resample=FILTERS[filter_name])

    def cropped(self, side: int) -> Picture:
        """The same cut to a square of so many pixels at the centre.

        Raises:
            StepError: If it was resized to another square, cropped before, or never resized.
        """
        resize = self.resize or self.native
        whole(side)
        if self.crop or resize is None or side > resize:
            raise StepError(f"a crop of {side} pixels")
        if self.squash and side != resize:
            instead = replace(self, crop=side, squash=False)
            raise StepError(f"from a picture squashed to {resize}; its aspect is kept", instead)
        return replace(self, crop=side)

    def normalised(self, mean: object, std: object) -> Picture:
        """The same with a mean subtracted and divided by a deviation, both per channel.

        Raises:
            StepError: If they are not so many numbers.
        """
        means, stds = _numbers(mean, len(self.mean)), _numbers(std, len(self.std))
        return replace(
            self,
            mean=tuple(a + b * s for a, b, s in zip(self.mean, means, self.std, strict=True)),
            std=tuple(a * b for a, b in zip(self.std, stds, strict=True)),
        )

    @property
    def has_size(self) -> bool:
        """Whether a transform can be made of it."""
        return self._side is not None

    @property
    def _side(self) -> int | None:
        is_square = self.squash or self.native is not None
        return self.crop or (self.resize if is_square and self.resize else self.native)

    def transform(self, sizes: EvalTransform) -> EvalTransform:
        """What was followed; sizes and filter are the framework's own where this has none."""
        picture = self.flipped() if self.order == "bgr" else self
        side, resize = self._side, self.resize or self.native
        if side is None or resize is None:
            side, resize, squash, resample = sizes.crop, sizes.resize, sizes.squash, sizes.resample
        else:
            squash, resample = self.squash, self.resample
        return EvalTransform(
            resize,
            side,
            resample,
            tuple(value / self.levels for value in picture.mean),
            tuple(value / self.levels for value in picture.std),
            squash,
        )


Step = tuple[str, Mapping[str, Any]]
"""Name and settings."""

Steps = Mapping[str, Callable[[Picture, Mapping[str, Any]], Picture]]
"""By the name of a step, what it makes of a picture with its settings."""


def whole(value: object) -> int:
    """The value, if it is a positive whole number.

    Raises:
        StepError: If it is not.
    """
    if isinstance(value, int) and not isinstance(value, bool) and value > 0:
        return value
    raise StepError(f"the size {value!r}")


def sides(value: object) -> tuple[int, bool]:
    """A size as torchvision and OpenMMLab write one: side, and whether it is that of a square.

    Raises:
        StepError: If it is neither a number nor two equal ones.
    """
    if isinstance(value, list | tuple):
        if len(value) == 1:
            return whole(value[0]), False
        if len(value) == 2 and value[0] == value[1]:  # noqa: PLR2004
            return whole(value[0]), True
        raise StepError(f"the size {value!r}")
    return whole(value), False


def _numbers(values: object, count: int) -> tuple[float, ...]:
    listed = values if isinstance(values, list | tuple) else (values,)
    if len(listed) == 1:
        listed = tuple(listed) * count
    if len(listed) != count or not all(isinstance(value, int | float) for value in listed):
        raise StepError(f"the numbers {values!r}")
    return tuple(float(value) for value in listed)


def filter_of(settings: Mapping[str, Any]) -> str:
    """The filter's name: a configuration has a number of Pillow's, a name, or torchvision's enum.

    Raises:
        StepError: If it is none of these.
    """
    value = settings.get("interpolation", FILTERS["bilinear"])
    if isinstance(value, Opaque) and value.args:
        value = value.args[0]
    by_number = {number: name for name, number in FILTERS.items()}
    if isinstance(value, str):
        return value.rpartition(".")[2].lower()
    if value not in by_number:
        raise StepError(f"the filter {value!r}")
    return by_number[value]


def as_it_is(picture: Picture, _: Mapping[str, Any]) -> Picture:
    """A step that changes nothing of what is followed."""
    return picture


def _resize(picture: Picture, settings: Mapping[str, Any]) -> Picture:
    side, square = sides(settings["size"])
    return picture.resized(side, filter_of(settings), squash=square)


TORCHVISION: Steps = {
    "Resize": _resize,
    "CenterCrop": lambda p, s: p.cropped(sides(s["size"])[0]),
    "ToTensor": lambda p, _: replace(p, levels=1.0),
    "Normalize": lambda p, s: p.normalised(s["mean"], s["std"]),
}
"""``torchvision.transforms``, which other frameworks take for steps of their own lists."""


def listed(steps: object, named: Callable[[object], Step | None], depth: int = 0) -> Iterator[Step]:
    """The steps of a list, if there is one; those that hold others are those others.

    Args:
        steps: Whatever the configuration has for them.
        named: Gives name and settings of a step; None if it is none of pictures.
        depth: In how many steps these are held.
    """
    for step in steps[:_MAX_STEPS] if isinstance(steps, list | tuple) else ():
        found, inner = named(step), step.get("transforms") if isinstance(step, dict) else None
        if found and isinstance(inner, list | tuple) and depth < _MAX_DEPTH:
            yield from listed(inner, named, depth + 1)
        elif found:
            yield found


def follow(steps: Iterable[Step], known: Steps, picture: Picture) -> tuple[Picture, list[str]]:
    """Follow steps by a table, from what is known of a picture before the first.

    Returns:
        What is known of it in the end, and the steps that could not be followed, in words.
    """
    missed = []
    for name, settings in steps:
        if name not in known:
            missed.append(name)
            continue
        try:
            picture = known[name](picture, settings)
        except StepError as error:
            missed.append(f"{name} ({error})")
            picture = error.instead or picture
        except (LookupError, TypeError, ValueError):
            missed.append(f"{name} (its settings)")
    return picture, missed
