"""Expressions of one value, however an exporter spells them, and the activations among them."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

CLOSE = 1e-6
"""Relative: attributes and factors are kept in float32."""

MAX_TERMS = 64
"""Of an expression; that of the longest activation has twelve."""

Tree = tuple[Any, ...]
"""An expression of one value x: ``("x",)``, ``(function, tree)``, ``("sum", number, trees)`` or
``("product", number, trees)``, trees in a fixed order."""

X: Tree = ("x",)


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


def _key(tree: Tree) -> str:
    """What expressions are sorted by: their form, without numbers, which differ in last places."""
    if tree[0] in {"sum", "product"}:
        return f"{tree[0]}({','.join(map(_key, tree[2]))})"
    return tree[0] if tree == X else f"{tree[0]}({_key(tree[1])})"


def size_of(tree: Tree) -> int:
    """How many parts an expression has."""
    if tree[0] in {"sum", "product"}:
        return 1 + sum(map(size_of, tree[2]))
    return 1 if tree == X else 1 + size_of(tree[1])


def same(one: Tree, other: Tree) -> bool:
    """Whether two expressions are one, but for how their numbers are rounded."""
    if one[0] != other[0] or len(one) != len(other):
        return False
    if one[0] in {"sum", "product"}:
        return (
            math.isclose(one[1], other[1], rel_tol=CLOSE, abs_tol=0.0)
            and len(one[2]) == len(other[2])
            and all(map(same, one[2], other[2]))
        )
    return one == X or same(one[1], other[1])


def substituted(tree: Tree, value: Tree) -> Tree:
    """An expression of an expression."""
    if tree == X:
        return value
    if tree[0] == "product":
        return product(tree[1], [substituted(factor, value) for factor in tree[2]])
    if tree[0] == "sum":
        return sum_of(tree[1], [substituted(term, value) for term in tree[2]])
    return (tree[0], substituted(tree[1], value))


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
