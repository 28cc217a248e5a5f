"""Finding the state dicts inside whatever a checkpoint wraps them in.

Nothing is lost here: what is no tensor that can be read, what stands beside a network in its
mapping, and what lies elsewhere in the checkpoint is handed on, for whoever decides what becomes
of it (`converters.families.entries`).

Trainers nest (``model_state``, ``classy_state_dict.base_model.model.trunk``, ``state_dict``) and
wrappers prefix names (``module.``, ``_orig_mod.``, ``model.``). Neither needs a list: a state dict
is any mapping that holds a parameter only a RegNet of some framework has, and whatever stands
before that parameter's name is the prefix. What wrappers put *inside* of names has one
(:mod:`converters.families.levels`).
"""

from __future__ import annotations

import re
from dataclasses import replace
from itertools import takewhile
from typing import TYPE_CHECKING

from converters.checkpoint.pickle_arrays import FROM_BUFFER, RECONSTRUCT, kind_of
from converters.checkpoint.values import Opaque, StoredTensor
from converters.errors import InputError, printable
from converters.families.known import FAMILIES
from converters.families.levels import stored_prefix, without_levels
from converters.families.recognise import tensors_of
from converters.families.reparametrised import computed
from converters.families.source import StateDict, Unread
from converters.families.unnamed import averages_in, placed

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

_MAX_DEPTH = 8
_MAX_NETWORKS = 16

_TENSOR_KINDS = {
    "torch._utils._rebuild_sparse_tensor": "a sparse tensor",
    "torch._utils._rebuild_sparse_csr_tensor": "a sparse tensor",
    "torch._utils._rebuild_meta_tensor_no_storage": "a meta tensor (without numbers)",
    "torch._utils._rebuild_qtensor": "a quantised tensor",
    "torch._utils._rebuild_nested_tensor": "a nested tensor",
    "torch._utils._rebuild_device_tensor_from_numpy": "a tensor of another device",
    "torch._utils._rebuild_device_tensor_from_cpu_tensor": "a tensor of another device",
    "torch._utils._rebuild_wrapper_subclass": "a tensor of a class of its own",
    "torch._tensor._rebuild_from_type_v2": "a tensor of a class of its own",
}
"""How people call what torch's and NumPy's pickles name."""

_TENSOR_LIKE = re.compile(
    r"torch\.(_utils|_tensor|_subclasses|distributed|sparse|ao|jit)\..*|torch\.ScriptObject"
    r"|torch\.nn\.parameter\..*|numpy\._core\.(multiarray\._reconstruct|numeric\._frombuffer)"
    r"|torchao\..*"
)
"""Names of what a module's state may be besides tensors that can be read."""

ONE_PROCESS = "a DTensor, of which one process of a training has a part"

EXTRA_STATE = "_extra_state"
"""Under this leaf a module keeps what is no tensor (torch, `Module.get_extra_state`)."""


def find_state_dicts(tree: object) -> list[StateDict]:
    """Find every RegNet, outermost first; one mapping may hold several under several prefixes.

    Raises:
        InputError: If a mapping holds one tensor twice, with and without its prefix, or the
            checkpoint more networks than anybody saves in one file.
    """
    found: list[StateDict] = []
    for path, mapping in _mappings(tree, ()):
        networks = _recognise(mapping)
        if len(found) + len(networks) > _MAX_NETWORKS:
            raise InputError(
                f"The checkpoint holds more than {_MAX_NETWORKS} networks; save one of them alone."
            )
        prefixes = [prefix for _, prefix in networks]
        owners = {  # the longest prefix that each name has
            name: max(filter(name.startswith, prefixes), key=len, default=None)
            for name in (mapping if prefixes else ())
        }
        found += [
            _state_dict(framework, path, prefix, owners, mapping) for framework, prefix in networks
        ]
    if not found:
        return []
    elsewhere = dict(_elsewhere(tree, (), {state.path for state in found}))
    if len(found) == 1:
        lists = [placed(found[0], path, averages) for path, averages in averages_in(tree)]
        found += [state for state in lists if state is not found[0]]
        own = {state.path for state in found[1:]}
        elsewhere = {path: t for path, t in elsewhere.items() if path[:-1] not in own}
    found = [replace(state, elsewhere=elsewhere) for state in found]
    return sorted(found, key=lambda state: len(state.path))


def all_tensors(tree: object) -> dict[str, StoredTensor]:
    """The tensors of the largest mapping anywhere, to say what a checkpoint looks like."""
    mappings = (tensors_of(mapping) for _, mapping in _mappings(tree, ()))
    return max(mappings, key=len, default={})


Mapped = dict[str, "StoredTensor | Unread"]
"""What stands under the string keys of a mapping."""


def _mappings(tree: object, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Mapped]]:
    """Every mapping that holds state under string keys, with the keys that lead to it."""
    if not isinstance(tree, dict) or len(path) > _MAX_DEPTH:
        return
    mapped: Mapped = {
        key: value if isinstance(value, StoredTensor) else _unread(key, value)
        for key, value in tree.items()
        if isinstance(key, str)
    }
    if any(isinstance(value, StoredTensor) or value.is_state for value in mapped.values()):
        yield path, computed(mapped)
    for key, value in tree.items():
        if isinstance(key, str):
            yield from _mappings(value, (*path, key))


def _unread(name: str, value: object) -> Unread:
    """What a value is that is no tensor."""
    if isinstance(value, Opaque):
        named = [arg.qualified_name for arg in value.args or () if isinstance(arg, Opaque)]
        if any(name.endswith(".DTensor") for name in named):
            return Unread(ONE_PROCESS, is_state=True)
        kind = _TENSOR_KINDS.get(value.qualified_name, f"a {printable(value.qualified_name)}")
        if value.qualified_name in (RECONSTRUCT, FROM_BUFFER):
            kind = kind_of(value)
        return Unread(
            kind, value.args is not None and bool(_TENSOR_LIKE.match(value.qualified_name))
        )
    if name.rpartition(".")[2] == EXTRA_STATE:
        return Unread("a state of its own kind", bool(value))
    if isinstance(value, list | tuple):
        members = (isinstance(v, StoredTensor) or _unread("", v).is_state for v in value)
        return Unread(f"a {type(value).__name__}", any(members))
    return Unread("nothing" if value is None else f"a {type(value).__name__}", is_state=False)


def unread_of(tree: object) -> dict[str, Unread]:
    """What in a mapping is no tensor that can be read, by name; empty if it is no mapping."""
    if not isinstance(tree, dict):
        return {}
    return {
        str(name): _unread(str(name), value)
        for name, value in tree.items()
        if not isinstance(value, StoredTensor)
    }


def _elsewhere(
    tree: object, path: tuple[str, ...], networks: set[tuple[str, ...]]
) -> Iterator[tuple[tuple[str, ...], StoredTensor]]:
    """Every tensor that stands in no mapping with a network, with the keys that lead to it."""
    if len(path) > _MAX_DEPTH:
        return
    members = tree if isinstance(tree, list | tuple) else ()
    pairs = tree.items() if isinstance(tree, dict) else enumerate(members)
    for key, value in pairs:
        place = (*path, str(key))
        if isinstance(value, StoredTensor):
            if path not in networks or not isinstance(key, str):
                yield place, value
        elif isinstance(value, dict | list | tuple):
            yield from _elsewhere(value, place, networks)


def _recognise(mapped: Mapped) -> list[tuple[str, str]]:
    """The networks in a mapping: framework and prefix, by a tell-tale that ends a name."""
    found = []
    bare = without_levels(
        [n for n, value in mapped.items() if isinstance(value, StoredTensor) or value.is_state]
    )
    for framework, known in FAMILIES.items():
        pattern = re.compile(rf"(?:.*\.)?(?P<end>{known.tell_tale})")
        matches = {name: pattern.fullmatch(short) for name, short in bare.items()}
        prefixes = {stored_prefix(name, match["end"]) for name, match in matches.items() if match}
        found += [
            (framework, prefix)
            for prefix in sorted(prefixes)
            if known.is_regnet is None or known.is_regnet("", _below(prefix, mapped))
        ]
    return found


def _below(prefix: str, mapped: Mapped) -> Mapped:
    """What stands under a prefix, without it and without the levels of wrappers."""
    names = {name: name.removeprefix(prefix) for name in mapped if name.startswith(prefix)}
    bare = without_levels(names.values())
    return {bare[short]: mapped[name] for name, short in names.items()}


def _state_dict(
    framework: str,
    path: tuple[str, ...],
    prefix: str,
    owners: Mapping[str, str | None],
    mapped: Mapped,
) -> StateDict:
    """What belongs to one of the prefixes found in a mapping: names under no longer one of them.

    What stands beside several networks is of the one with which its name has the most levels in
    common, or of all of them.

    Raises:
        InputError: If it holds a tensor twice, with and without the prefix.
    """
    parts: dict[bool, dict[str, StoredTensor]] = {True: {}, False: {}}
    unread: dict[str, Unread] = {}
    seen: dict[str, None] = {}  # in order
    others = set(owners.values()) - {prefix, None}
    bare = without_levels({_without(prefix, name) for name in mapped})
    for name, value in mapped.items():
        owner = owners[name]
        if owner not in {prefix, None}:
            continue
        ours = shared_levels(name.split("."), prefix.split("."))
        if owner is None and any(
            shared_levels(name.split("."), str(other).split(".")) > ours for other in others
        ):
            continue
        short = bare[_without(prefix, name)]
        if isinstance(value, Unread) and not value.is_state and short in seen:
            continue
        if short in seen:
            where = ".".join(path) or "The checkpoint"
            raise InputError(
                f"{where} holds {printable(short)} twice, with and without "
                f"{printable(prefix)} before it; keep one of them."
            )
        seen[short] = None
        if isinstance(value, Unread):
            unread[short] = value
        else:
            parts[owner is not None][short] = value
    return StateDict(
        framework,
        path,
        prefix,
        tensors=parts[True],
        beside=parts[False],
        unread=unread,
        order=tuple(seen),
    )


def shared_levels(place: Sequence[str], other: Sequence[str]) -> int:
    """How many levels two places have in common, from the outermost."""
    pairs = zip(place, other, strict=False)
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))


def _without(prefix: str, name: str) -> str:
    """The name without the prefix, or else without as many of its outer levels as it has."""
    while not name.startswith(prefix):
        prefix = prefix[: prefix[:-1].rfind(".") + 1]
    return name[len(prefix) :]
