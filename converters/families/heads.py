"""Choosing the classifier among several heads on a trunk."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from converters.errors import InputError, printable
from converters.families.source import Decision

if TYPE_CHECKING:
    from collections.abc import Mapping

    from converters.checkpoint import StoredTensor
    from converters.families.keymap import Keymap
    from converters.families.options import SourceOptions


NO_HEAD = "none"
"""What the user asks for who wants the trunk alone."""

_TRUNK = "none, a trunk alone"
_OTHER = "not the one asked for"


@dataclass(frozen=True)
class Head:
    """A linear classifier on the network's pooled output.

    Attributes:
        weight: (classes, features).
        bias: (classes,).
        norm: A batch norm between pooling and the linear layer, by leaf; empty if there is none.
    """

    weight: StoredTensor
    bias: StoredTensor
    norm: Mapping[str, StoredTensor] = field(default_factory=dict)

    def spelled(self, keymap: Keymap) -> dict[str, StoredTensor]:
        """Weight and bias under the names that a keymap has for them."""
        return {
            keymap.spell("classifier", {"affine": "weight"}): self.weight,
            keymap.spell("classifier", {"affine": "bias"}): self.bias,
        }


@dataclass(frozen=True)
class HeadChoice:
    """Which head was chosen.

    Attributes:
        head: None for a trunk alone.
        decision: Which, and why.
        skipped: The others, with the reason.
    """

    head: Head | None
    decision: Decision
    skipped: Mapping[str, str]


def choose_head(
    heads: Mapping[str, Head], unfit: Mapping[str, str], options: SourceOptions, where: str
) -> HeadChoice:
    """Choose the head that becomes the classifier.

    Args:
        heads: Those that can, by name.
        unfit: Those that cannot, by name, with the reason.
        options: What the user decided.
        where: What error messages call the checkpoint.

    Raises:
        InputError: If the head asked for cannot be it, or several can and none was asked for.
    """
    names = ", ".join(map(printable, heads))
    skipped = {f"head {name}": why for name, why in unfit.items()}
    if options.head == NO_HEAD and NO_HEAD not in heads:
        decision = Decision("head", _TRUNK, "as asked for with --head")
        return HeadChoice(None, decision, skipped | {f"head {name}": _OTHER for name in heads})
    if options.head is None and len(heads) > 1:
        raise InputError(
            f"{where} has {len(heads)} heads ({names}); choose one with --head, or the trunk alone "
            f"with --head {NO_HEAD}."
        )
    if options.head is not None and options.head not in heads:
        raise InputError(f"{where}: {_not_there(options.head, names, unfit)}")
    if not heads:
        reason = "its heads are no classifiers" if unfit else "the file holds none"
        return HeadChoice(None, Decision("head", _TRUNK, reason), skipped)
    name = options.head or next(iter(heads))
    reason = "as asked for with --head" if options.head else "the only classifier in the file"
    value = printable(name) + (", its batch norm folded in" if heads[name].norm else "")
    others = {f"head {other}": _OTHER for other in heads if other != name}
    return HeadChoice(heads[name], Decision("head", value, reason), skipped | others)


def _not_there(name: str, names: str, unfit: Mapping[str, str]) -> str:
    advice = f"choose one of {names}." if names else f"choose --head {NO_HEAD}, the trunk alone."
    if name in unfit:
        return f"its head {printable(name)} cannot be the classifier ({unfit[name]}); {advice}"
    return f"has no head {printable(name)!r}; {advice}"


def branch(tree: object, *path: str) -> Any:
    """What lies at the end of a path of keys, or None if there is no such path."""
    for key in path:
        tree = tree.get(key) if isinstance(tree, dict) else None
    return tree


def last_block(tensors: Mapping[str, StoredTensor], keymap: Keymap) -> tuple[int, int, int]:
    """Stage and block, from zero, of the last block, and how many channels it puts out.

    Args:
        tensors: A trunk's, spelled as ``keymap`` has it.
        keymap: The framework's.

    Returns:
        Zeros if there is no block.
    """
    found = [(0, 0, 0)]
    for name, tensor in tensors.items():
        role, fields = keymap.parse(name) or ("", {})
        if role == "expand.conv" and tensor.shape:
            found.append((int(fields["stage"]), int(fields["block"]), tensor.shape[0]))
    return max(found)
