"""How much of its limit a ratio uses up, as a small picture."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from converters.reports.markup import tag
from converters.reports.row import number

if TYPE_CHECKING:
    from converters.reports.markup import Markup

_LIMIT = 80
_WIDTH = 100
"""In units of the picture. Linear up to the limit, and a quarter beyond it: by how much a ratio is
too large the number beside it says."""


def bar(ratio: float | None, limit: float, what: str) -> Markup:
    """An ``<svg>`` as wide as what it stands in: a bar, and a line at the limit.

    Args:
        ratio: What was measured; None or not finite if it could not be.
        limit: What passes.
        what: Name of the ratio, for those who hear the page.
    """
    measured = ratio is not None and math.isfinite(ratio)
    share = ratio / limit if measured and ratio is not None else math.inf
    width = min(share * _LIMIT, _WIDTH)
    kind = "good" if share <= 1 else "bad"
    return tag(
        "svg",
        tag("rect", class_="rail", width=str(_WIDTH), height="8"),
        tag("rect", class_=kind, width=f"{width:.2f}", height="8"),
        tag("line", class_="limit", x1=str(_LIMIT), x2=str(_LIMIT), y1="-2", y2="10"),
        viewBox=f"0 -2 {_WIDTH} 12",
        preserveAspectRatio="none",
        role="img",
        aria_label=f"{what} {number(ratio)}, limit {limit:g}",
    )
