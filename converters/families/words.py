"""The words that a checkpoint carries: each is read, known to change nothing, or named.

Every framework that stores a configuration has a table of these: what it reads lies in the reader,
what is known to be harmless lies in the table, and whatever is left is told to the user, who knows
what it means.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

from converters.checkpoint import Opaque
from converters.errors import printable
from converters.families.source import NOT_UNDERSTOOD, Decision
from regnet.files.json_file import MAX_COUNT

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Hashable, Iterable
    from typing import Any

    from regnet.config import Activation, RegNetConfig

_MOST_NAMED = 12
"""Of one configuration; beyond that a warning would not be read."""


@dataclass(frozen=True, slots=True)
class Word:
    """A framework's word for something of a network that neither names nor shapes show.

    Attributes:
        key: What its configuration calls it.
        ours: What it may be, its default first, to the value of the reference's field; to None
            where the reference has no field for it.
        only: What alone converts, for people.
        free: Whether any other value is that of the reference's field as it stands; None if no
            other is.
    """

    key: str
    ours: Mapping[Any, Any]
    only: object
    free: Callable[[object], bool] | None = None

    @property
    def default(self) -> Any:
        """What it is where nothing is said."""
        return next(iter(self.ours))

    def allows(self, theirs: object) -> bool:
        """Whether the reference can be that, which may be of any type."""
        return any(theirs == one for one in self.ours) or bool(self.free and self.free(theirs))

    def meant(self, theirs: Any) -> Any:
        """The value of the reference's field behind a word that is allowed."""
        return next((ours for one, ours in self.ours.items() if one == theirs), theirs)

    def spelled(self, ours: object) -> Any:
        """What the framework calls a value of the reference's field.

        Raises:
            StopIteration: If it has none.
        """
        if self.free and self.free(ours):
            return ours
        return next(theirs for theirs, value in self.ours.items() if value == ours)


def always(key: str, *values: object, only: object = None) -> Word:
    """The word for something that the reference always is, with these values alone."""
    return Word(key, dict.fromkeys(values), values[0] if only is None else only)


def number(key: str, usual: float) -> Word:
    """The word for a number above 0."""
    return Word(key, {usual: usual}, "a number above 0", _is_positive)


def count(key: str, usual: int, least: int = 0) -> Word:
    """The word for a whole number."""
    only = f"a whole number of at least {least}"
    return Word(key, {usual: usual}, only, lambda value: _is_count(value, least))


def _is_positive(value: object) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return 0 < value < MAX_COUNT


def _is_count(value: object, least: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and least <= value < MAX_COUNT


Says = Mapping[str, Word]
"""A field of `RegNetConfig`, or a name for what the reference always is, to a framework's word.

It is what a framework's reader, its writer and the builder of its networks have in common.
"""

LINEAR = "res_bottleneck_linear_block"
"""The block of a RegNetZ: no projection in shortcuts, no activation behind the sum."""


def anynet_words(stem: str, block: str) -> dict[str, Word]:
    """Words of pycls and ClassyVision for stems and blocks, under the keys that each has."""
    stems = {"simple_stem_in": None, "res_stem_cifar": [1]}
    usual, blocks = "res_bottleneck_block", f"res_bottleneck_block or {LINEAR}"
    return {
        "stem_strides": Word(stem, stems, " or ".join(stems)),
        "shortcut": Word(block, {usual: "conv", LINEAR: "none"}, blocks),
        "output_act": Word(block, {usual: True, LINEAR: False}, blocks),
    }


ACTIVATIONS: Mapping[str, Activation] = {
    "relu": "relu",
    "silu": "silu",
    "swish": "silu",
    "gelu": "gelu",
}
"""pycls' and timm's names of those that the reference has."""


def spoken(
    says: Says, config: RegNetConfig, fields: Collection[str]
) -> tuple[dict[str, Any], list[str]]:
    """What a framework's words say of a network.

    Args:
        says: Its words.
        config: Of the network.
        fields: Those of the configuration that are said; a word may be for several, which must then
            fit one another.

    Returns:
        Word to what it says; the fields that no word can say.
    """
    said: dict[str, Any] = {}
    unsaid: list[str] = []
    for field_, word in says.items():
        if field_ not in fields or (field_ == "se_act" and config.layer_type == "x"):
            continue
        try:
            theirs = [word.spelled(ours) for ours in _values(config, field_)]
        except StopIteration:
            unsaid.append(field_)
            continue
        value = theirs if field_ in PER_STAGE else theirs[0]
        if said.setdefault(word.key, value) != value:
            unsaid.append(field_)
    return said, unsaid


SHOWN = frozenset({"groups_width", "expansion", "se_ratio"})
"""The fields beyond transformers' that shapes show, of whatever can be told all of its stages."""

PER_STAGE = frozenset({"strides"})
"""The fields that have a value for each stage."""


def _values(config: RegNetConfig, field_: str) -> list[Any]:
    return config.stage_strides if field_ in PER_STAGE else [getattr(config, field_)]


def keys(*texts: str) -> frozenset[str]:
    """The keys that texts name, blanks between them."""
    return frozenset(key for text in texts for key in text.split())


@dataclass(frozen=True)
class Vocabulary:
    """What is known of the keys of a configuration.

    Attributes:
        read: Those that its reader acts on.
        harmless: Those that change neither the network nor how it is evaluated; ``*`` stands for
            any letters.
        harmless_as: Those that are harmless with these values alone.
    """

    read: frozenset[str] = frozenset()
    harmless: frozenset[str] = frozenset()
    harmless_as: Mapping[str, tuple[object, ...]] = field(default_factory=dict)

    def unknown(self, stated: Mapping[Any, Any], section: str = "") -> list[str]:
        """The keys that may change something and are not read, in the order of the configuration.

        Args:
            stated: The configuration, or a section of it.
            section: What stands before each key, such as ``"TRAIN."``.
        """
        return [
            f"{section}{key}"
            for key, value in stated.items()
            if not self._knows(str(key), value) and value is not None
        ]

    def _knows(self, key: str, value: object) -> bool:
        if key in self.harmless_as:
            allowed = self.harmless_as[key]
            return any(type(value) is type(one) and value == one for one in allowed)
        return key in self.read or any(fnmatchcase(key, pattern) for pattern in self.harmless)


def not_understood(words: Iterable[str], where: str) -> tuple[Decision, ...]:
    """What is told of words in ``where`` that nobody here understands; nothing of no words."""
    named = list(dict.fromkeys(map(printable, words)))
    if not named:
        return ()
    more = f" and {len(named) - _MOST_NAMED} more" if len(named) > _MOST_NAMED else ""
    value = ", ".join(named[:_MOST_NAMED]) + more
    reason = f"in {where}; nothing was done about it, so check that it does not matter"
    return (Decision(NOT_UNDERSTOOD, value, reason),)


def mapping_in(tree: object, key: Hashable) -> dict[Any, Any]:
    """The mapping under a key, also where an object has it for its attributes or items.

    It is empty if there is none.
    """
    found = tree.get(key) if isinstance(tree, dict) else None
    found = found.fields if isinstance(found, Opaque) else found
    return found if isinstance(found, dict) else {}
