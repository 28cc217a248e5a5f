"""Norms that exporters spell out: of groups of channels, and EvoNorm."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from converters.families.graph_expressions import (
    X,
    difference,
    mean_of,
    parts,
    product,
    quotient,
    same,
    sum_of,
    variance_of,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from converters.checkpoint.values import StoredTensor
    from converters.families.graph_expressions import Tree

GROUP_NORM, EVONORM = "group_norm", "evonorm"


@dataclass(frozen=True, slots=True)
class SpelledNorm:
    """A norm that an expression is.

    Attributes:
        kind: :data:`GROUP_NORM` or :data:`EVONORM`.
        groups: Of channels.
        eps: What is added to the variance.
        tensors: ``weight`` and ``bias``, and ``v`` of an EvoNorm that is an activation.
    """

    kind: str
    groups: int
    eps: float
    tensors: Mapping[str, StoredTensor]

    @property
    def tree(self) -> Tree:
        """Its expression; that of `regnet.architecture.GroupNorm`, or of `EvoNorm`."""
        inner = X if self.kind == EVONORM else difference(X, mean_of(self.groups, X))
        if "v" in self.tensors:
            inner = product(1.0, [X, ("sigmoid", product(1.0, [X, ("tensor", self.tensors["v"])]))])
        scaled = product(1.0, [normalised(inner, self.groups, self.eps), self._tensor("weight")])
        return sum_of(0.0, [scaled, self._tensor("bias")])

    def _tensor(self, leaf: str) -> Tree:
        return ("tensor", self.tensors[leaf])


def normalised(tree: Tree, groups: int, eps: float) -> Tree:
    """An expression divided by the deviation of the value that it is of."""
    return quotient(tree, ("sqrt", sum_of(eps, [variance_of(groups, X)])))


def norm_of(tree: Tree) -> SpelledNorm | None:
    """The norm that an expression is; None if it is none."""
    every = list(_within(tree))
    groups = next((part[1] for part in every if part[0] == "mean"), None)
    roots = [part[1] for part in every if part[0] == "sqrt"]
    if groups is None or not roots or roots[0][0] != "sum":
        return None
    found = {
        "bias": _tensors_in(tree),
        "weight": [tensor for part in parts(tree) for tensor in _tensors_in(part)],
        "v": [t for part in every if part[0] == "sigmoid" for t in _tensors_in(part[1])],
    }
    tensors = {leaf: several[0] for leaf, several in found.items() if several}
    if not {"weight", "bias"} <= set(tensors):
        return None
    kinds = [EVONORM] if "v" in tensors else [GROUP_NORM, EVONORM]
    norms = (SpelledNorm(kind, groups, roots[0][1], tensors) for kind in kinds)
    return next((norm for norm in norms if same(norm.tree, tree)), None)


def _within(tree: Tree) -> Iterator[Tree]:
    yield tree
    for part in parts(tree):
        yield from _within(part)


def _tensors_in(tree: Tree) -> list[StoredTensor]:
    """Those that an expression is the sum or product of."""
    return [part[1] for part in parts(tree) if part[0] == "tensor"]
