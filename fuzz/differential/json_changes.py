"""Changes of JSON: other values, keys and orders, keys that occur twice."""

from __future__ import annotations

import copy
import json
from typing import TYPE_CHECKING, Any

from fuzz.differential.pickles import changed_bytes

if TYPE_CHECKING:
    from collections.abc import Iterator
    from random import Random

_VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, 1, -1, 2, 1.5, 1 << 40, 1 << 64, float("nan")),
    *("", "a", "x" * 300, "\0", "é", "0", [], [0], ["a"]),
)


class Members(list[tuple[str, Any]]):
    """Of an object, of which keys may occur twice."""


def changed(content: bytes, rng: Random) -> bytes:
    """Change a text; what is none is changed as bytes."""
    try:
        tree = [json.loads(content, object_pairs_hook=Members)]
    except ValueError:
        return changed_bytes(content, rng)
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        _change(tree, rng)
    return "".join(map(_written, tree)).encode("utf-8", "surrogatepass")


def _change(tree: list[Any], rng: Random) -> None:
    places = [(holder, at) for holder in _holders(tree) for at in range(len(holder))]
    if not places:
        return
    (holder, at), (other, there) = rng.choice(places), rng.choice(places)
    key, value = _member(holder, at)
    another_key, another = _member(other, there)
    another = copy.deepcopy(another)  # lest it gets into itself
    alike = [_member(*place)[1] for place in places if type(_member(*place)[1]) is type(value)]
    match rng.randrange(9):
        case 0:
            _put(holder, at, key, rng.choice(_VALUES))
        case 1:
            del holder[at]
        case 2:
            twin = rng.choice((copy.deepcopy(value), another))
            holder.insert(rng.randrange(len(holder) + 1), (key, twin) if key else twin)
        case 3:
            _put(holder, at, rng.choice((another_key, key.upper())) or key, value)
        case 4:
            rng.shuffle(holder)
        case 5 if not isinstance(value, list) and not isinstance(another, list):
            _put(holder, at, key, another)
            _put(other, there, another_key, value)
        case _ if isinstance(value, int) and rng.randrange(2):
            _put(holder, at, key, value + rng.choice((-8, -1, 1, 8)))
        case _:
            _put(holder, at, key, copy.deepcopy(rng.choice(alike)))


def _holders(value: Any) -> Iterator[list[Any]]:
    """The lists and objects in a tree, itself too."""
    if isinstance(value, list):
        yield value
        for at in range(len(value)):
            yield from _holders(_member(value, at)[1])


def _member(holder: list[Any], at: int) -> tuple[str, Any]:
    """A member's key, which is none in a list, and value."""
    return holder[at] if isinstance(holder, Members) else ("", holder[at])


def _put(holder: list[Any], at: int, key: str, value: Any) -> None:
    holder[at] = (key, value) if isinstance(holder, Members) else value


def _written(value: Any) -> str:
    match value:
        case Members():
            pairs = (f"{json.dumps(key)}: {_written(each)}" for key, each in value)
            return "{" + ", ".join(pairs) + "}"
        case list():
            return "[" + ", ".join(map(_written, value)) + "]"
    return json.dumps(value)
