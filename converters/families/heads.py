"""Choosing the classifier among several heads on a trunk."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from converters.errors import InputError, printable
from converters.families.source import Decision

if TYPE_CHECKING:
    from collections.abc import Mapping

    from converters.checkpoint import StoredTensor
    from converters.families.family import Found
    from converters.families.keymap import Keymap


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
        conv: A 1x1 convolution before pooling, (features, channels, 1, 1), with norm and
            activation; None if there is none.
        conv_norm: That norm, by leaf.
    """

    weight: StoredTensor
    bias: StoredTensor
    norm: Mapping[str, StoredTensor] = field(default_factory=dict)
    conv: StoredTensor | None = None
    conv_norm: Mapping[str, StoredTensor] = field(default_factory=dict)

    def spelled(self, keymap: Keymap) -> dict[str, StoredTensor]:
        """Its tensors, but the norm behind pooling, under the names that a keymap has for them."""
        before = {} if self.conv is None else {keymap.spell("head.conv", {}): self.conv}
        before |= {
            keymap.spell("head.norm", {"norm": leaf}): tensor
            for leaf, tensor in self.conv_norm.items()
        }
        return before | {
            keymap.spell("classifier", {"affine": "weight"}): self.weight,
            keymap.spell("classifier", {"affine": "bias"}): self.bias,
        }


def choose_head(
    found: Found, heads: Mapping[str, Head], unfit: Mapping[str, str]
) -> tuple[Head | None, Decision, dict[str, str]]:
    """Choose the head that becomes the classifier.

    Args:
        found: The checkpoint, and which head the user asked for.
        heads: Those that can be it, by name.
        unfit: Those that cannot, by name, with the reason.

    Returns:
        The head, or None for a trunk alone; which that is, and why; the others, with the reason.

    Raises:
        InputError: If the head asked for cannot be it, or several can and none was asked for.
    """
    asked, where = found.options.head, found.where
    names = ", ".join(map(printable, heads))
    skipped = {f"head {name}": why for name, why in unfit.items()}
    if asked == NO_HEAD and NO_HEAD not in heads:
        decision = Decision("head", _TRUNK, "as asked for with --head")
        return None, decision, skipped | {f"head {name}": _OTHER for name in heads}
    if asked is None and len(heads) > 1:
        raise InputError(
            f"{where} has {len(heads)} heads ({names}); choose one with --head, or the trunk alone "
            f"with --head {NO_HEAD}."
        )
    if asked is not None and asked not in heads:
        raise InputError(f"{where}: {_not_there(asked, names, unfit)}")
    if not heads:
        reason = "its heads are no classifiers" if unfit else "the file holds none"
        return None, Decision("head", _TRUNK, reason), skipped
    name = asked or next(iter(heads))
    reason = "as asked for with --head" if asked else "the only classifier in the file"
    value = printable(name) + (", its batch norm folded in" if heads[name].norm else "")
    others = {f"head {other}": _OTHER for other in heads if other != name}
    return heads[name], Decision("head", value, reason), skipped | others


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
    """Stage and block of a trunk's last block, from zero, and how many channels it puts out.

    All are zero if there is no block.
    """
    found = [(0, 0, 0)]
    for name, tensor in tensors.items():
        role, fields = keymap.parse(name) or ("", {})
        if role == "expand.conv" and tensor.shape:
            found.append((int(fields["stage"]), int(fields["block"]), tensor.shape[0]))
    return max(found)
