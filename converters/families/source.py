"""What is found of a network in a checkpoint, and what its framework's reader makes of that."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, fields, replace
from itertools import zip_longest
from typing import TYPE_CHECKING, Any, Literal

from converters.errors import InputError
from regnet.config import IMAGENET_MEAN, IMAGENET_STD, MAX_SIDE, RegNetConfig

if TYPE_CHECKING:
    from collections.abc import Mapping

    from converters.checkpoint import StoredTensor
    from converters.families.keymap import Keymap
    from regnet.image_processor import RegNetImageProcessor

ChannelOrder = Literal["rgb", "bgr"]
WeightsChoice = Literal["raw", "ema", "best"]

FILTERS = {"nearest": 0, "lanczos": 1, "bilinear": 2, "bicubic": 3, "box": 4, "hamming": 5}
"""Name to Pillow's number of the filters that frameworks name."""

_NAMES = {number: name for name, number in FILTERS.items()}

BILINEAR = FILTERS["bilinear"]
BICUBIC = FILTERS["bicubic"]


@dataclass(frozen=True, slots=True)
class Decision:
    """Something that the tensors cannot tell, what was assumed, and why."""

    topic: str
    value: str
    reason: str


LICENCE = "licence"
"""Topic of the decision that says under which licence the weights are."""

_FIRST_STAGE = "first stage"
"""Topic of the decision that says with which stride it begins, where that is not 2."""

NOT_UNDERSTOOD = "not understood"
"""The topic of what a checkpoint says and nobody here knows the meaning of: a warning."""


@dataclass(frozen=True, slots=True)
class EvalTransform:
    """How the source evaluated: resize the short side, crop the centre, normalise.

    Attributes:
        resize: Short side after resizing, in pixels.
        crop: Side of the centre crop, in pixels.
        resample: The number of one of Pillow's filters.
        mean: Per channel, RGB, for pixels in 0..1; empty if the source does not say.
        std: Likewise.
        squash: Whether the image is resized to the square, its aspect lost, and nothing cropped.

    Raises:
        ValueError: No image can be treated like this.
    """

    resize: int
    crop: int
    resample: int
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD
    squash: bool = False

    def __post_init__(self) -> None:
        if not all(0 < side <= MAX_SIDE for side in (self.resize, self.crop)):
            raise ValueError("images are evaluated at sizes that no image has")
        if not all(map(math.isfinite, (*self.mean, *self.std))) or not all(self.std):
            raise ValueError("images are normalised with numbers that cannot be")

    @property
    def in_words(self) -> str:
        """For people: short side, crop, filter."""
        if self.squash:
            return f"squashed to {self.crop} x {self.crop}, {self.filter_name}"
        return f"short side to {self.resize}, centre crop {self.crop}, {self.filter_name}"

    @property
    def filter_name(self) -> str:
        """Pillow's name of the filter, in small letters."""
        if self.resample in _NAMES:
            return _NAMES[self.resample]
        from PIL.Image import Resampling  # may have more of them in another version

        return Resampling(self.resample).name.lower()

    @classmethod
    def of(cls, processor: RegNetImageProcessor) -> EvalTransform:
        """The transform that an image processor computes; undoes :meth:`preprocessor_fields`.

        What it cannot say is left out: ConvNeXT's way of placing an odd crop, keys of others, and
        that images are not resized at all.

        Raises:
            ValueError: If images are rescaled with nothing.
        """
        crop = processor.size["shortest_edge"]
        resize = crop if processor.squashes else int(crop / processor.crop_pct)
        factor = processor.rescale_factor if processor.do_rescale else 1.0
        if not factor:
            raise ValueError("images are rescaled with 0")
        # Mean and deviation of pixels in 0..1, whatever the processor's range of them is.
        unit = 1.0 if factor == 1 / 255 else 1 / (255 * factor)
        mean, std = processor.image_mean, processor.image_std
        if not processor.do_normalize:
            mean, std = ((), ()) if unit == 1 else ((0.0,) * len(mean), (1.0,) * len(std))
        return cls(
            resize,
            crop,
            int(processor.resample),
            tuple(value * unit for value in mean),
            tuple(value * unit for value in std),
            processor.squashes,
        )

    def preprocessor_fields(self, channels: int) -> dict[str, Any]:
        """Keyword arguments of `RegNetImageProcessor` that compute this transform."""
        from regnet.image_processor import SQUASH_FROM, crop_pct_for
        from regnet.images import PILLOW_MODES

        stated: dict[str, Any] = {
            "size": self.crop,
            "crop_pct": crop_pct_for(self.resize, self.crop),
            "resample": self.resample,
        }
        # transformers ignores this: it may crop one pixel off, and squashes from 384 on.
        if not self.squash:
            stated["resize_mode"] = "shortest_edge_then_crop"
        elif self.crop < SQUASH_FROM:
            stated["resize_mode"] = "squash"
        if channels not in PILLOW_MODES:  # no picture has so many, so none can be normalised
            return stated | {"do_normalize": False}
        if self.mean:
            return stated | {"image_mean": list(self.mean), "image_std": list(self.std)}
        neutral = {"image_mean": [0.0] * channels, "image_std": [1.0] * channels}
        return stated | neutral | {"do_normalize": False}

    @classmethod
    def fields(cls) -> frozenset[str]:
        """The names of its fields."""
        return frozenset(field.name for field in fields(cls))

    def differences(self, other: EvalTransform) -> frozenset[str]:
        """The fields in which two transforms differ by more than a text rounds.

        Not to normalise is to subtract nothing and divide by one.
        """
        different = {
            name
            for name in ("resize", "crop", "resample", "squash")
            if getattr(self, name) != getattr(other, name)
        }
        for name, neutral in (("mean", 0.0), ("std", 1.0)):
            ours, theirs = getattr(self, name), getattr(other, name)
            pairs = zip_longest(ours, theirs, fillvalue=neutral)
            if not all(math.isclose(a, b, rel_tol=1e-5, abs_tol=1e-6) for a, b in pairs):
                different.add(name)
        return frozenset(different)

    def for_channels(self, count: int) -> EvalTransform:
        """The same for images of so many channels: mean and deviation of another count are none."""
        fits = len(self.mean) == len(self.std) == count
        return self if fits else replace(self, mean=(), std=())


@dataclass(frozen=True, slots=True)
class Preprocessing:
    """How a network's images are made, and whose rules these are.

    Attributes:
        transform: From a picture to pixels.
        reason: Whose rule that is.
        channel_order: Of the images.
        order_reason: Whose rule that is; empty if it is the framework's own.
    """

    transform: EvalTransform
    reason: str
    channel_order: ChannelOrder = "rgb"
    order_reason: str = ""


@dataclass(frozen=True, slots=True)
class Unread:
    """A value of a mapping that is no tensor of the kind that is read.

    Attributes:
        kind: What it is, in words.
        is_state: Whether a module's state may be in it; else it is a number, a text or a note.
    """

    kind: str
    is_state: bool


@dataclass(frozen=True, slots=True)
class Normaliser:
    """Mean and deviation that a network is given with its weights, to be applied to its images.

    Attributes:
        name: Of the mean, in the checkpoint.
        mean: One number per input channel, or one for all.
        std: Likewise.
    """

    name: str
    mean: StoredTensor
    std: StoredTensor


@dataclass(frozen=True)
class StateDict:
    """A RegNet's tensors somewhere in a checkpoint.

    Attributes:
        framework: Whose names they have.
        path: The keys that lead to it, from the top.
        prefix: What stood before every name and is taken off, such as ``module.``.
        tensors: Name without the prefix to tensor.
        beside: What the same mapping holds without the prefix: the head, where the prefix is a
            trunk's (``backbone.``), or the rest of a detector. Of the prefix's own wrappers
            (``module.`` of ``module.backbone.``) the names are rid as well.
        unread: What of both is no tensor that can be read, by the same names.
        order: The names of ``tensors`` and ``beside`` as they are stored one behind the other.
        elsewhere: The tensors of mappings without a network, by the keys that lead to them.
        normalisers: What its images are normalised with; empty until it is looked for.
    """

    framework: str
    path: tuple[str, ...]
    prefix: str
    tensors: Mapping[str, StoredTensor]
    beside: Mapping[str, StoredTensor] = field(default_factory=dict)
    unread: Mapping[str, Unread] = field(default_factory=dict)
    order: tuple[str, ...] = ()
    elsewhere: Mapping[tuple[str, ...], StoredTensor] = field(default_factory=dict)
    normalisers: tuple[Normaliser, ...] = ()

    @property
    def place(self) -> str:
        """Where it was, for messages: ``model.trunk``, or ``the top``."""
        return ".".join((*self.path, *self.prefix.split(".")[:-1])) or "the top"


@dataclass(frozen=True)
class Source:
    """A recognised checkpoint, ready to be planned.

    Attributes:
        family: Who saved it: key of :data:`converters.families.known.FAMILIES`.
        keymap: How it spells parameters.
        tensors: Its spelling to where the tensor lies, wrappers and prefixes removed.
        config: The architecture, from shapes.
        has_classifier: Whether it has a head, or is a trunk alone.
        channel_order: The order of the input channels that the stem was trained on.
        transform: The source's own evaluation transform.
        labels: Names of the classes, where the checkpoint says which they are.
        decisions: What was decided and why, to be printed.
        skipped: What else is in the file and is left out: name to reason.
        processor: Settings of `RegNetImageProcessor` that the source states itself, which then say
            all; empty where ``transform`` does.
        classifier_norm: A batch norm between pooling and classifier, by leaf, to be folded into
            the classifier; empty if there is none, as in the reference.
        normalisers: What stands in front of the network and normalises its images; empty if
            nothing does.
        filled: Tensors that the checkpoint has none of, by the source's spelling: each is this
            number, over and over.
    """

    family: str
    keymap: Keymap
    tensors: Mapping[str, StoredTensor]
    config: RegNetConfig
    has_classifier: bool
    channel_order: ChannelOrder
    transform: EvalTransform
    labels: tuple[str, ...] | None = None
    decisions: tuple[Decision, ...] = ()
    skipped: Mapping[str, str] = field(default_factory=dict)
    processor: Mapping[str, Any] = field(default_factory=dict)
    classifier_norm: Mapping[str, StoredTensor] = field(default_factory=dict)
    normalisers: tuple[Normaliser, ...] = ()
    filled: Mapping[str, float] = field(default_factory=dict)

    @property
    def framework(self) -> str:
        """Who saved it, in the keymap's words."""
        return self.keymap.framework

    @property
    def licence(self) -> str | None:
        """Of the weights, where one of the decisions says which."""
        return next((d.value for d in self.decisions if d.topic == LICENCE), None)

    @property
    def flips_stem(self) -> bool:
        """Whether the stem's input channels must be reversed to take RGB."""
        return self.channel_order == "bgr" and self.config.num_channels == len(IMAGENET_MEAN)

    def decided(self, *decisions: Decision) -> Source:
        """The same with more decisions, behind those that there are."""
        return replace(self, decisions=(*self.decisions, *decisions))

    def configured(self, **fields: Any) -> Source:
        """The same with other values of fields of its configuration."""
        return replace(self, config=RegNetConfig.from_dict(self.config.to_dict() | fields))

    def described(self, fields: Mapping[str, Any], whose: str) -> Source:
        """The same with fields of its configuration as a file's own words have them.

        Args:
            fields: By name.
            whose: Where the words are, such as ``net.pyth: its cfg``.

        Raises:
            InputError: If they describe no network.
        """
        try:
            return self.configured(**fields)
        except ValueError as error:
            raise InputError(f"{whose} describes no network: {error}") from None

    def labelled(self, names: object, reason: str) -> Source:
        """The same with what a checkpoint has for class names, unless it does not name them all."""
        classes = self.config.num_labels if self.has_classifier else 0
        if not isinstance(names, list | tuple) or len(names) != classes or not classes:
            return self
        decision = Decision("labels", f"{classes} names", reason)
        return replace(self.decided(decision), labels=tuple(map(str, names)))

    def strided(self, reason: str, *, downsamples: bool) -> Source:
        """The same with what somebody says of the first stage's stride, whatever was said before.

        Args:
            reason: Who says so; empty where nobody needs to be told.
            downsamples: Whether it is 2, not 1.
        """
        others = tuple(d for d in self.decisions if d.topic != _FIRST_STAGE)
        told = (Decision(_FIRST_STAGE, "stride 1", reason),) if reason and not downsamples else ()
        source = self.configured(downsample_in_first_stage=downsamples)
        return replace(source, decisions=(*others, *told))

    def preprocessor_fields(self) -> dict[str, Any]:
        """Keyword arguments of `RegNetImageProcessor` for the source's evaluation transform."""
        return dict(self.processor) or self.transform.preprocessor_fields(self.config.num_channels)
