"""The manifest of published checkpoints: which there are, and what is known of each.

The file beside this one says where everything in it comes from. A name stands for one checkpoint:
``RegNetY-4.0GF``, or in full ``pycls/RegNetY-4.0GF``, in any case.
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass, replace
from difflib import get_close_matches
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from converters.errors import InputError, printable
from converters.families.source import FILTERS, LICENCE, Decision, EvalTransform
from regnet.config import RegNetConfig
from regnet.design_space import NETWORKS, REGNETZ, named_like
from regnet.wider import WIDER_DEFAULTS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from converters.families.source import ChannelOrder, Source
    from regnet.wider import Padding

MANIFEST = Path(__file__).with_name("manifest.toml")


@dataclass(frozen=True, slots=True, kw_only=True)
class Published:
    """A published checkpoint.

    Attributes:
        publisher: Who published it; the first part of its full name.
        name: The rest of its full name.
        framework: Key of :data:`converters.families.known.FAMILIES`: whose names it uses.
        transform: How its publisher evaluates it.
        url: Of its file; None if it is in a repository on the Hugging Face Hub.
        architecture: Name of its network; None if that is stated nowhere.
        classes: Of its classifier; 0 if it is a trunk; None if that is stated nowhere.
        parameters: Learned parameters, classifier included; None if not known.
        top1: Accuracy on ImageNet's validation set, one crop, in percent.
        top5: Likewise.
        measured_at: Size in pixels of the crop that accuracy was measured with, if not the
            transform's.
        licence: Of the weights; None if nobody states one.
        channel_order: Of the images it was trained on, if not its framework's own.
        sha256: How the digest of its file begins, if the file's name or its publisher's code says.
        sha1: The digest of its file, if its publisher says so.
        origin: Name of the file that it was published in before it was a repository.
        crop_pct: timm's, from which the transform's short side follows; None for other publishers.
        padding: How its network pads what it convolves.
        default: Whether timm means this one by the part of its name before the tag.
    """

    publisher: str
    name: str
    framework: str
    transform: EvalTransform
    url: str | None = None
    architecture: str | None = None
    classes: int | None = None
    parameters: int | None = None
    top1: float | None = None
    top5: float | None = None
    measured_at: int | None = None
    licence: str | None = None
    channel_order: ChannelOrder | None = None
    sha256: str | None = None
    sha1: str | None = None
    origin: str | None = None
    crop_pct: float | None = None
    padding: Padding = "symmetric"
    default: bool = False

    @property
    def full_name(self) -> str:
        """Publisher and name."""
        return f"{self.publisher}/{self.name}"

    @property
    def in_repository(self) -> tuple[str, str | None]:
        """The id of its repository on the Hub, and its file there, if that is one of several."""
        repository, _, file = self.name.partition("/")
        return f"{self.publisher}/{repository}", file or None

    @property
    def file_name(self) -> str | None:
        """Of its file, which may come in a zip; None if it never was one."""
        return self.url.rpartition("/")[2].removesuffix(".zip") if self.url else self.origin

    @property
    def digest(self) -> str | None:
        """How the sha256 of :attr:`file_name` begins, if its name says so."""
        named = self.sha256 if self.sha256 and self.sha256 in (self.file_name or "") else None
        return named or (self.origin and self.origin.rpartition("-")[2].partition(".")[0])

    @property
    def config(self) -> RegNetConfig | None:
        """Its network, if that is known."""
        if self.architecture is None:
            return None
        if network := (NETWORKS | REGNETZ).get(self.architecture):
            return network.config(num_labels=self.classes or 0, padding=self.padding)
        fields = _content().architectures[self.architecture].to_dict()
        return RegNetConfig.from_dict(fields, num_labels=self.classes or 0)

    def describe(
        self, source: Source, asked_order: ChannelOrder | None, because: str | None = None
    ) -> Source:
        """Add to a recognised checkpoint what is known of it because it is this one.

        A folder that states its own image processor keeps it.

        Args:
            source: What was recognised in the file.
            asked_order: The channel order that the user asked for, if any.
            because: Why it is this one, for people; None if it was fetched by its name.

        Raises:
            InputError: If the file holds another network.
        """
        found, expected = source.config, self.config
        if expected and (field := _difference(found, expected)):
            raise InputError(
                f"{self.full_name}: its file has {field} {getattr(found, field)} where a "
                f"{self.architecture} has {getattr(expected, field)}; if that is what you want, "
                "give the file instead of the name."
            )
        transform, stated = source.transform, {}
        if not source.processor:
            transform = self.transform.for_channels(source.config.num_channels)
            stated["evaluation transform"] = transform.in_words
        order = source.channel_order
        if self.channel_order and not asked_order:
            order = self.channel_order
            stated["channel order"] = f"{order.upper()}, stem {_STEM[order]}"
        if self.licence:
            stated[LICENCE] = self.licence
        reason = because or f"the manifest's entry {self.full_name}"
        known = {topic: Decision(topic, value, reason) for topic, value in stated.items()}
        decisions = [known.pop(decision.topic, decision) for decision in source.decisions]
        return replace(
            source,
            channel_order=order,
            transform=transform,
            decisions=(*decisions, *known.values()),
        )

    def is_network(self, source: Source) -> bool:
        """Whether a checkpoint holds this network, with as many classes."""
        config = self.config
        classes = source.config.num_labels if source.has_classifier else 0
        same = config is not None and not _difference(source.config, config)
        return same and self.classes in {None, classes}


@dataclass(frozen=True, slots=True)
class Manifest:
    """The content of the manifest.

    Attributes:
        architectures: Networks that are not of a design space's, by name, without classes.
        checkpoints: In the order of the file.
        untrained: Networks that a framework builds and has no weights of, as if they were.
    """

    architectures: Mapping[str, RegNetConfig]
    checkpoints: tuple[Published, ...]
    untrained: tuple[Published, ...]


_STEM: Mapping[ChannelOrder, str] = {"bgr": "flipped to take RGB", "rgb": "kept"}


def parse(content: bytes) -> Manifest:
    """Read the text of a manifest.

    Raises:
        InputError: If it is no TOML, or lacks what a manifest says.
    """
    try:
        stated = tomllib.loads(content.decode("utf-8"))
        networks = stated["architectures"].items()
        return Manifest(
            {name: RegNetConfig(**fields, num_labels=0) for name, fields in networks},
            *(
                tuple(
                    _published(group | row) for group in groups for row in group.pop("checkpoints")
                )
                for groups in (stated["group"], stated.get("untrained", ()))
            ),
        )
    except (AttributeError, LookupError, RecursionError, TypeError, ValueError) as error:
        raise InputError(
            f"{MANIFEST.name}: is no manifest of checkpoints ({printable(str(error))}); install "
            "the package again."
        ) from error


@cache
def manifest() -> tuple[Published, ...]:
    """Every published checkpoint, in the order of the file."""
    return _content().checkpoints


def find(name: str) -> Published | None:
    """Look a checkpoint up by its name or its full name, in any case."""
    wanted = name.casefold()
    for published in manifest():
        if wanted in {published.name.casefold(), published.full_name.casefold()}:
            return published
    return None


def timm_default(model: str) -> Published | None:
    """The checkpoint whose transform timm takes for a model, by its name with or without a tag.

    Of a model without weights it is none that could be had.
    """
    for published in (*manifest(), *_content().untrained):
        name, _, _ = published.name.partition(".")
        if published.publisher == "timm" and (
            model == published.name or (published.default and model == name)
        ):
            return published
    return None


def named_file(
    name: str, source: Source, asked_order: ChannelOrder | None, *, has_words: bool
) -> Source | None:
    """Describe a file that has a published one's name, and its network, as that one.

    A name that ends in a digest is only a suggestion: the bytes decide, by
    :func:`require_published`, as soon as they are read. Where no digest is known, what a file says
    of itself goes before what its name suggests.

    Args:
        name: Of the file.
        source: What was recognised in it.
        asked_order: The channel order that the user asked for, if any.
        has_words: Whether it holds more than tensors.

    Returns:
        None if the name is no published file's, or of several, or the network is another.
    """
    named = [p for p in manifest() if p.file_name == name]
    entry = named[0] if len(named) == 1 else None
    if not entry or entry.framework != source.family or not entry.is_network(source):
        return None
    if entry.digest:
        because = f"the name of the file, {entry.full_name}'s; its sha256 decides as it is read"
    elif not has_words:
        because = f"the name and network of the file, {entry.full_name}'s"
    else:
        return None
    return entry.describe(source, asked_order, because)


def require_published(sha256: Mapping[str, str]) -> None:
    """Refuse a file that has the name of a published one and other bytes.

    timm and torchvision end a file's name with the first digits of its sha256, in hexadecimal.

    Raises:
        InputError: If a digest does not begin as the name says.
    """
    published = {p.file_name: p for p in manifest() if p.digest}
    for name, digest in sha256.items():
        entry = published.get(name)
        if entry and not digest.startswith(entry.digest or ""):
            raise InputError(
                f"{name} has the sha256 {digest[:16]}... where that of {entry.full_name} begins "
                f"with {entry.digest}; download it again, or rename it if it is your own."
            )


def network_like(config: RegNetConfig) -> str | None:
    """Name the published network with this architecture, whatever its classes; None if none."""
    for name, published in _content().architectures.items():
        if not _difference(config, published):
            return name
    return named_like(config)


def title_of(config: RegNetConfig) -> str:
    """The published network's name, or what else it is, for people."""
    unnamed = f"a RegNet{config.layer_type.upper()} of no published size"
    return network_like(config) or unnamed


def _difference(config: RegNetConfig, other: RegNetConfig) -> str | None:
    """The first field in which two architectures differ."""
    fields = ("layer_type", "depths", "hidden_sizes", "groups_width", *WIDER_DEFAULTS)
    if other.wider_fields():
        fields += ("hidden_act",)
    return next((f for f in fields if getattr(config, f) != getattr(other, f)), None)


def nearest(name: str) -> list[str]:
    """At most three names like a mistaken one, the most similar first; full if it is full."""
    names = (p.full_name if "/" in name else p.name for p in manifest())
    spelling = {each.casefold(): each for each in names}
    return [spelling[each] for each in get_close_matches(name.casefold(), spelling, cutoff=0.7)]


@cache
def _content() -> Manifest:
    return parse(MANIFEST.read_bytes())


def _published(row: dict[str, Any]) -> Published:
    stated = row.pop("transform")
    transform = EvalTransform(
        stated["resize"],
        stated["crop"],
        FILTERS[stated["interpolation"]],
        squash=stated.get("squash", False),
        **{name: (stated[name],) * 3 for name in ("mean", "std") if name in stated},
    )
    if "url" in row:
        row["url"] += row.pop("file")
    return Published(**row, transform=transform)
