"""The table of docs/parity.md: how far right artefacts are from the oracle, in units."""

from __future__ import annotations

from typing import Any

import numpy as np

from converters.parity.verdict import MAX_LIMIT, RMS_LIMIT

_UNJUDGED = ("is the same for every image", "not finite", "NaN or infinite", "leaves the range")
"""Refusals that are no false alarms: agreement would prove nothing, or the network leaves the range
of the type."""

_COLUMNS = (
    "artefact",
    "judged",
    "RMS ratio: median, 1 in 1,000, largest",
    "largest error's ratio",
    "without verdict",
    "false alarms",
)


def summary(entries: list[dict[str, Any]]) -> tuple[str, int]:
    """Markdown, and how many false alarms there are."""
    by_format: dict[str, list[dict[str, Any]]] = {}
    for entry in entries:
        for artefact in entry["artefacts"]:
            by_format.setdefault(artefact["format"], []).append(artefact)
    lines = [
        f"{len(entries)} networks; limits {RMS_LIMIT:g} (RMS) and {MAX_LIMIT:g} (largest)",
        "",
        f"| {' | '.join(_COLUMNS)} |",
        "|---" * len(_COLUMNS) + "|",
    ]
    alarms = 0
    for name, artefacts in by_format.items():
        refused = [a for a in artefacts if a["failure"]]
        void = [a for a in refused if any(words in a["failure"] for words in _UNJUDGED)]
        alarms += len(refused) - len(void)
        ratios = np.array([r[:2] for a in artefacts for r in a["ratios"].values()])
        columns = [", ".join(f"{v:.2f}" for v in _spread(ratios[:, axis])) for axis in (0, 1)]
        lines.append(
            f"| {name} | {len(artefacts)} | {columns[0]} | {columns[1]} | {len(void)} | "
            f"{len(refused) - len(void)} |"
        )
    return "\n".join(lines), alarms


def _spread(values: Any) -> list[float]:
    finite = values[np.isfinite(values)]
    return [float(np.quantile(finite, share)) for share in (0.5, 0.999, 1.0)]
