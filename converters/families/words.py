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

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable
    from typing import Any

    from regnet.config import Activation

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
    """

    key: str
    ours: Mapping[Any, Any]
    only: object

    @property
    def default(self) -> Any:
        """What it is where nothing is said."""
        return next(iter(self.ours))

    def allows(self, theirs: object) -> bool:
        """Whether the reference can be that, which may be of any type."""
        return any(theirs == one for one in self.ours)

    def spelled(self, ours: object) -> Any:
        """What the framework calls a value of the reference's field.

        Raises:
            StopIteration: If it has none.
        """
        return next(theirs for theirs, value in self.ours.items() if value == ours)


def always(key: str, *values: object, only: object = None) -> Word:
    """The word for something that the reference always is, with these values alone."""
    return Word(key, dict.fromkeys(values), values[0] if only is None else only)


Says = Mapping[str, Word]
"""A field of `RegNetConfig`, or a name for what the reference always is, to a framework's word.

It is what a framework's reader, its writer and the builder of its networks have in common.
"""

ACTIVATIONS: Mapping[str, Activation] = {
    "relu": "relu",
    "silu": "silu",
    "swish": "silu",
    "gelu": "gelu",
}
"""pycls' and timm's names of those that the reference has."""

FIRST_STRIDES = {2: True, 1: False}
"""The stride of the first stage to ``downsample_in_first_stage``."""


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
