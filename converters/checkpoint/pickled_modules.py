"""Networks that were pickled whole: their state dicts, taken out without running their code.

``torch.save(model)`` names the class of every module and saves its attributes. Three of them,
``_parameters``, ``_buffers`` and ``_modules``, hold all that a state dict does. Source:
torch/nn/modules/module.py (``state_dict``).
"""

from __future__ import annotations

from math import isclose
from typing import TYPE_CHECKING, Any, cast

from converters.checkpoint.values import Opaque, Tree
from converters.errors import InputError, printable
from regnet.wider import NORM_EPS

if TYPE_CHECKING:
    from collections.abc import Hashable

MAX_NESTED = 100
"""Modules inside modules; those of RegNets are ten deep."""

MAX_ENTRIES = 50_000
"""Modules, parameters and buffers together; the largest RegNets have three thousand."""

MAX_NAME = 500
"""Characters of a dotted name."""

_HOLD_STATE = ("_parameters", "_buffers", "_modules")
_NOT_SAVED = "_non_persistent_buffers_set"


def state_dicts_of(tree: Tree, where: str) -> tuple[Tree, dict[str, str]]:
    """Put the state dict of every pickled module in its place.

    Args:
        tree: What a checkpoint holds.
        where: What messages call it.

    Returns:
        The tree, of which what holds no module is as it was; and the class of each module that was
        found, by the keys that lead to it.

    Raises:
        InputError: A module is in itself, or there are more than a network has.
    """
    taker = _Taker(where)
    return taker.taken(tree, ()), taker.classes


def is_module(value: object) -> bool:
    """Whether a note is one of a module of torch's, or of a subclass of somebody's own."""
    if not isinstance(value, Opaque) or value.args is None or not isinstance(value.state, dict):
        return False
    return all(isinstance(value.state.get(name), dict) for name in _HOLD_STATE)


class _Taker:
    """Goes through a tree, whose containers do not nest without end; its modules may.

    Attributes:
        classes: Of the modules, by the keys that lead to each.
    """

    def __init__(self, where: str) -> None:
        self.classes: dict[str, str] = {}
        self._where = where
        self._entries = 0
        self._known: dict[int, Tree] = {}

    def taken(self, value: Tree, path: tuple[str, ...]) -> Tree:
        """The value with state dicts in the place of modules."""
        if is_module(value):
            module = cast("Opaque", value)
            self.classes[".".join(path)] = module.qualified_name
            found: dict[Hashable, Tree] = {}
            self._add(module, "", [], found)
            return found
        if not isinstance(value, dict):
            return value
        if id(value) not in self._known:
            new = {key: self.taken(v, (*path, str(key))) for key, v in value.items()}
            changed = any(new[key] is not value[key] for key in value)
            self._known[id(value)] = new if changed else value
        return self._known[id(value)]

    def _add(
        self, module: Opaque, prefix: str, above: list[Opaque], found: dict[Hashable, Tree]
    ) -> None:
        """Add what a module and those in it hold, in the order of a state dict."""
        if any(module is other for other in above):
            raise self._refused("a module that is in itself")
        if len(above) == MAX_NESTED:
            raise self._refused(f"modules nested more than {MAX_NESTED} deep")
        self._count(1)
        state = cast("dict[str, Any]", module.state)
        left_out = state.get(_NOT_SAVED)
        left_out = left_out if isinstance(left_out, set | frozenset) else set()
        other = _unlike_reference(module, state)
        own = {**state["_parameters"]}
        own |= {key: value for key, value in state["_buffers"].items() if key not in left_out}
        self._count(len(own))
        for key, value in own.items():
            if value is not None:
                found[self._name(prefix, key)] = other or value
        for key, value in state["_modules"].items():
            if is_module(value):
                self._add(value, self._name(prefix, key) + ".", [*above, module], found)
            elif value is not None:
                found[self._name(prefix, key)] = value

    def _name(self, prefix: str, key: object) -> str:
        if not isinstance(key, str) or len(prefix) + len(key) > MAX_NAME:
            raise self._refused("a module with a part whose name no module has")
        return prefix + key

    def _count(self, more: int) -> None:
        self._entries += more
        if self._entries > MAX_ENTRIES:
            raise self._refused(f"modules with more than {MAX_ENTRIES} parts")

    def _refused(self, what: str) -> InputError:
        return InputError(
            f"{self._where}: holds {what}, which no network has; save the state_dict() of the "
            "network alone."
        )


def _unlike_reference(module: Opaque, state: dict[str, Any]) -> Opaque | None:
    """A note of what a module computes that the reference cannot, though its tensors are alike.

    A state dict does not say it; a pickled module does.
    """
    kernel = state.get("kernel_size")
    checked: list[tuple[str, bool]] = []
    if "running_mean" in state["_buffers"]:
        eps = state.get("eps", NORM_EPS)
        checked = [("eps", isinstance(eps, float) and isclose(eps, NORM_EPS))]
    elif isinstance(kernel, tuple) and all(type(size) is int for size in kernel):
        padding = tuple(size // 2 for size in kernel)
        checked = [
            ("padding", state.get("padding", padding) == padding),
            ("dilation", state.get("dilation", 1) in (1, (1,) * len(kernel))),
            ("padding_mode", state.get("padding_mode", "zeros") == "zeros"),
        ]
    for name, usual in checked:
        if not usual:
            value = printable(str(state[name]))[:MAX_NAME]
            return Opaque(f"{module.qualified_name} with {name} {value}")
    return None
