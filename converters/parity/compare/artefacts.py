"""What else lies in the folders of a comparison: artefacts, which are judged, and the rest.

A folder is more than its weights. Whoever runs ``model.onnx`` of B runs another network if that
file is broken, so each artefact of a converted folder is judged by the weights beside it, as
`regnet verify` does. What nothing looks at is listed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from converters.errors import first
from converters.formats.registry import FORMATS, artefacts_in
from converters.parity.compare.sides import WeightsSide
from converters.parity.truth import Truth
from converters.parity.verify import fresh_inputs, verify_artefacts

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from converters.parity.compare.sides import Side
    from converters.parity.metrics import Inputs
    from converters.parity.verdict import Verdict
    from converters.progress import Progress

_CHECKPOINTS = frozenset({".bin", ".json", ".pth", ".pyth", ".safetensors", ".torch"})
"""Endings of what the reader of a checkpoint's folder looks at."""

_SHOWN = 8


@dataclass(frozen=True, slots=True)
class FolderArtefact:
    """An artefact of a folder, judged by the folder's weights.

    Attributes:
        side: ``A`` or ``B``.
        verdict: On it.
    """

    side: str
    verdict: Verdict

    @property
    def difference(self) -> str | None:
        """A clause where it is not the network of its folder, or None."""
        if not self.verdict.wrong:
            return None
        name = f"{self.side}'s {self.verdict.artefact}"
        return f"{name} is not the network of its folder: {self.verdict.wrong}"

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {"side": self.side, **self.verdict.to_dict()}


def judge_artefacts(
    sides: Mapping[str, Side], inputs: Inputs | None, progress: Progress
) -> tuple[FolderArtefact, ...]:
    """Judge every artefact that lies in a converted folder.

    Args:
        sides: ``A`` and ``B``.
        inputs: That both sides take, or None if there are none.
        progress: Who wants to know how far it is.

    Raises:
        InputError: If a folder cannot be used.
    """
    judged = []
    for letter, side in sides.items():
        present = _artefacts(side)
        if not isinstance(side, WeightsSide) or not present:
            continue
        progress.step(f"running the artefacts of {letter}")
        truth = Truth(side.folder, fresh_inputs(side.folder) if inputs is None else inputs)
        report = verify_artefacts(side.folder, truth, present, progress, found=True)
        judged += [FolderArtefact(letter, verdict) for verdict in report.verdicts[1:]]
    return tuple(judged)


def not_compared(sides: Mapping[str, Side], judged: tuple[FolderArtefact, ...]) -> tuple[str, ...]:
    """What of either side was compared with nothing, one clause each."""
    clauses = []
    for letter, side in sides.items():
        if side.path.is_dir() and (names := _rest(side)):
            clauses.append(f"{letter}'s {first(names, most=_SHOWN)}")
    for artefact in judged:
        verdict, name = artefact.verdict, f"{artefact.side}'s {artefact.verdict.artefact}"
        if verdict.not_run:
            clauses.append(f"{name} was not run: {verdict.not_run}")
        elif verdict.not_compared:
            clauses.append(f"{verdict.not_compared} of {name}")
    return tuple(clauses)


def _artefacts(side: Side) -> dict[str, Path]:
    if side.kind != "folder":
        return {}
    return artefacts_in(side.path)


def _rest(side: Side) -> list[str]:
    """Names of a folder's files that were not looked at."""
    files = (path for path in side.path.rglob("*") if path.is_file())
    names = sorted(path.relative_to(side.path).as_posix() for path in files)
    shown = [name for name in names if not name.startswith(".")]
    if not isinstance(side, WeightsSide) or side.kind != "folder":
        return [name for name in shown if not name.endswith(tuple(_CHECKPOINTS))]
    seen = set(side.folder.network_files)
    for name in _artefacts(side):
        seen.update(FORMATS[name].files)
    return [name for name in shown if name not in seen]
