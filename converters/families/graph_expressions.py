"""Expressions of one value, however an exporter spells them, and the activations among them.

They are of its elements one by one, but for means over groups of channels, which norms take.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

CLOSE = 1e-6
"""Relative: attributes and factors are kept in float32."""

MAX_TERMS = 64
"""Of an expression; that of the longest, a norm, has two dozen."""

Tree = tuple[Any, ...]
"""An expression of one value x: ``("x",)``, ``("tensor", tensor)`` of a number for each channel,
``(function, tree)``, ``("mean", groups, tree)`` over each group of channels of each image,
``("sum", number, trees)`` or ``("product", number, trees)``, trees in a fixed order."""

X: Tree = ("x",)


def parts(tree: Tree) -> tuple[Tree, ...]:
    """What an expression is made of."""
    if tree[0] in {"sum", "product"}:
        members: tuple[Tree, ...] = tree[2]
        return members
    return () if tree[0] in {"x", "tensor"} else tree[-1:]


def product(number: float, trees: Sequence[Tree]) -> Tree:
    """A product of expressions and a number, without products in it."""
    factors: list[Tree] = []
    for tree in trees:
        if tree[0] == "product":
            number *= tree[1]
            factors += tree[2]
        else:
            factors.append(tree)
    if math.isclose(number, 1.0, rel_tol=CLOSE):
        number = 1.0
        if len(factors) == 1:
            return factors[0]
    return ("product", number, tuple(sorted(factors, key=_key)))


def sum_of(number: float, trees: Sequence[Tree]) -> Tree:
    """A sum of expressions and a number."""
    return ("sum", number, tuple(sorted(trees, key=_key)))


def quotient(one: Tree, other: Tree) -> Tree:
    """A quotient of two expressions."""
    return product(1.0, [one, ("reciprocal", other)])


def difference(one: Tree, other: Tree) -> Tree:
    """A difference of two expressions."""
    return sum_of(0.0, [one, product(-1.0, [other])])


def mean_of(groups: int, tree: Tree) -> Tree:
    """Means of an expression over groups of channels."""
    return ("mean", groups, tree)


def variance_of(groups: int, tree: Tree) -> Tree:
    """Its biased variance."""
    centred = difference(tree, mean_of(groups, tree))
    return mean_of(groups, product(1.0, [centred, centred]))


def _key(tree: Tree) -> str:
    """What expressions are sorted by: their form, without numbers, which differ in last places."""
    return f"{tree[0]}({','.join(map(_key, parts(tree)))})"


def size_of(tree: Tree) -> int:
    """How many parts an expression has."""
    return 1 + sum(map(size_of, parts(tree)))


def same(one: Tree, other: Tree) -> bool:
    """Whether two expressions are one, but for how their numbers are rounded."""
    if one[0] != other[0] or len(parts(one)) != len(parts(other)):
        return False
    if one[0] in {"sum", "product"}:
        close = math.isclose(one[1], other[1], rel_tol=CLOSE, abs_tol=0.0)
    else:
        close = one[0] not in {"tensor", "mean"} or one[1] == other[1]
    return close and all(map(same, parts(one), parts(other)))


def substituted(tree: Tree, value: Tree) -> Tree:
    """An expression of an expression."""
    if tree == X:
        return value
    inner = [substituted(part, value) for part in parts(tree)]
    if tree[0] == "product":
        return product(tree[1], inner)
    if tree[0] == "sum":
        return sum_of(tree[1], inner)
    return (*tree[:-1], *inner) if inner else tree


def _gelu(inner: Tree, function: str) -> Tree:
    return product(0.5, [X, sum_of(1.0, [(function, inner)])])


_CUBIC = sum_of(0.0, [X, product(0.044715, [X, X, X])])

KNOWN: tuple[tuple[str, Tree], ...] = (
    ("relu", ("relu", X)),
    ("sigmoid", ("sigmoid", X)),
    ("selu", ("selu", X)),
    ("silu", product(1.0, [X, ("sigmoid", X)])),
    ("gelu", _gelu(product(math.sqrt(0.5), [X]), "erf")),
    ("gelu_new", _gelu(product(math.sqrt(2 / math.pi), [_CUBIC]), "tanh")),
)
"""Activations, as `RegNetConfig.hidden_act` has them, and the gate of squeeze-and-excitation."""
