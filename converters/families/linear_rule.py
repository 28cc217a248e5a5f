"""The stages of a network in the words that frameworks build networks from; the rule behind them.

timm and mmpretrain cannot be told stages; they build every RegNet from the quantised linear rule of
the paper (Radosavovic et al., arXiv 2003.13678, section 3.3). A converted folder knows its stages
only, so the rule is searched for, and what is found is checked by applying it.
"""

from __future__ import annotations

import math
from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple

from regnet.design_space import (
    NETWORKS,
    QUANTUM,
    REGNETZ,
    fit_widths_to_groups,
    named_like,
    stage_widths_and_depths,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from regnet.config import RegNetConfig

_GRIDS = (100, 1000)
"""Steps per unit in which w_m is tried: as published rules have it, then finer."""

_SMALLEST, _LARGEST = 1.05, 8.0
"""The w_m between which is searched; published ones lie between 2 and 2.9."""

_MAX_EXPONENT = 64
_CLEARANCE = 1e-5
"""Relative distance of a width from where it would round otherwise: timm counts in float32."""


def group_widths(config: RegNetConfig) -> list[int]:
    """Channels per group of each stage."""
    blocks = (config.bottleneck_of(stage, width) for stage, width in enumerate(config.hidden_sizes))
    return [block.width // block.groups for block in blocks]


class LinearRule(NamedTuple):
    """The parameters of the quantised linear rule, and the group width."""

    depth: int
    w_0: int
    w_a: float
    w_m: float
    group_width: int

    def spelled(self, *words: str) -> dict[str, Any]:
        """The same under a framework's words for them, in this order."""
        return dict(zip(words, self, strict=True))


def rule_of(config: RegNetConfig) -> LinearRule | None:
    """The rule that gives a network's stages, the published one if it is; None if no rule does."""
    name = named_like(config)
    if name:
        network = (NETWORKS | REGNETZ)[name]
        return LinearRule(network.depth, network.w_0, network.w_a, network.w_m, network.group_width)
    group_width = _shared_group_width(config)
    if group_width is None:
        return None
    return _found(tuple(config.hidden_sizes), tuple(config.depths), group_width)


@cache  # where there is no rule, the search takes seconds
def _found(widths: tuple[int, ...], depths: tuple[int, ...], group_width: int) -> LinearRule | None:
    found = (_best(widths, depths, group_width, steps) for steps in _GRIDS)
    return next((rule for rule in found if rule), None)


def _best(
    widths: Sequence[int], depths: Sequence[int], group_width: int, steps: int
) -> LinearRule | None:
    """Of the rules that give the stages, the one whose w_a could vary most."""
    best: tuple[float, LinearRule] | None = None
    for w_0, w_m, exponents in _candidates(widths, group_width, steps):
        low, high = _slopes(w_0, w_m, exponents, depths)
        w_a = (low + high) / 2
        w_a = round(w_a, 2) if low < round(w_a, 2) < high else w_a
        freedom = (high - low) / max(high, 1)
        if low < w_a < high and (best is None or freedom > best[0]):
            rule = LinearRule(sum(depths), w_0, w_a, w_m, group_width)
            if _gives(rule, widths, depths):
                best = freedom, rule
    return best[1] if best else None


def _shared_group_width(config: RegNetConfig) -> int | None:
    """The group width from which every stage's groups follow by ``min(group width, width)``."""
    per_stage = group_widths(config)
    group_width = max(per_stage)
    fitted = [min(group_width, width) for width in config.hidden_sizes]
    return group_width if fitted == per_stage else None


def _candidates(
    widths: Sequence[int], group_width: int, steps: int
) -> Iterator[tuple[int, float, list[range]]]:
    """Every (w_0, w_m) that gives the widths, with the exponents of each stage."""
    around = group_width + QUANTUM
    first = max(QUANTUM, (widths[0] - around) // QUANTUM * QUANTUM)
    for w_0 in range(first, widths[0] + around, QUANTUM):
        if fit_widths_to_groups([w_0], group_width) == [widths[0]]:
            for step in range(round(_SMALLEST * steps), round(_LARGEST * steps)):
                w_m = step / steps
                exponents = _exponents(w_0, w_m, widths, group_width)
                if exponents:
                    yield w_0, w_m, exponents


def _exponents(w_0: int, w_m: float, widths: Sequence[int], group_width: int) -> list[range] | None:
    """For each stage the powers of ``w_m`` that round to its width, neighbours of one another."""
    exponents: list[range] = []
    exponent = 0
    for width in widths:
        while (raw := _rounded(w_0, w_m, exponent)) is not None:
            fitted = fit_widths_to_groups([raw], group_width)[0]
            if fitted >= width:
                break
            exponent += 1
        if raw is None or fitted != width:
            return None
        first = exponent
        while _rounded(w_0, w_m, exponent) == raw:
            exponent += 1
        exponents.append(range(first, exponent))
    return exponents


def _rounded(w_0: int, w_m: float, exponent: int) -> int | None:
    """A width before groups are fitted; None where the last bits decide to what it rounds."""
    quanta: float = w_0 * w_m**exponent / QUANTUM
    is_clear = exponent < _MAX_EXPONENT and abs(quanta % 1 - 0.5) > _CLEARANCE * quanta
    return round(quanta) * QUANTUM if is_clear else None


def _slopes(
    w_0: int, w_m: float, exponents: Sequence[range], depths: Sequence[int]
) -> tuple[float, float]:
    """Between which w_a each block gets one of its stage's exponents, after rounding."""
    low, high = 0.0, math.inf
    begin = 0
    for powers, depth in zip(exponents, depths, strict=True):
        last = begin + depth - 1
        if begin:
            low = max(low, w_0 * (w_m ** (powers[0] - 0.5) - 1) / begin)
        if last:
            high = min(high, w_0 * (w_m ** (powers[-1] + 0.5) - 1) / last)
        begin += depth
    low *= 1 + _CLEARANCE
    return low, (high * (1 - _CLEARANCE) if high < math.inf else low + QUANTUM)


def _gives(rule: LinearRule, widths: Sequence[int], depths: Sequence[int]) -> bool:
    raw, stage_depths = stage_widths_and_depths(rule.depth, rule.w_0, rule.w_a, rule.w_m)
    return stage_depths == list(depths) and (
        fit_widths_to_groups(raw, rule.group_width) == list(widths)
    )
