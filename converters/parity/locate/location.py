"""Where an artefact goes wrong: the first module whose output is wrong, *given its own input*.

See :mod:`converters.parity.locate.module_errors` for how that is measured. What the certificate
(:func:`converters.parity.contents.tensors.certify`) or the file's own words prove goes before what
numbers alone suggest: first what is proven and shows, then tensors that are proven wrong though no
value shows them, say because a ReLU before them is silent on the image, then the rest.
"""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from converters.errors import InputError
from converters.folder.interface import unnormalised
from converters.formats.registry import offered_by
from converters.parity.contents.tensors import certify
from converters.parity.locate.intermediates import run_with_intermediates
from converters.parity.locate.module_errors import measure
from converters.parity.locate.walk import values_of
from regnet.architecture import COUNTER

if TYPE_CHECKING:
    from collections.abc import Container, Mapping, Sequence
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    from converters.folder.folder import ConvertedFolder
    from converters.parity.locate.intermediates import Intermediates
    from converters.parity.locate.module_errors import ModuleError
    from regnet.architecture import Operations

    _Seen = Mapping[str, tuple[str | None, str]]


@dataclass(frozen=True, slots=True)
class Location:
    """Where an artefact goes wrong, and how the error travels from there.

    Attributes:
        artefact: File name.
        modules: Every value in the order of execution, the outputs last; none if the artefact
            cannot be run.
        culprit: The first module at fault, those that are proven so before others; None if there
            is none.
        tensor: The tensor of the artefact that makes it wrong; None if it is the operation.
        channel: The output channel with the largest error; None if it cannot be told.
        why: One clause for people.
    """

    artefact: str
    modules: tuple[ModuleError, ...]
    culprit: str | None
    tensor: str | None
    channel: int | None
    why: str

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON, which knows no infinity: what is not finite becomes None."""
        text = json.dumps(asdict(self))
        plain: dict[str, Any] = json.loads(text, parse_constant=lambda _: None)
        return plain


def locate(folder: ConvertedFolder, kind: str, path: Path, pixels: NDArray[np.float32]) -> Location:
    """Name the first module of an artefact that computes something else than the reference model.

    Args:
        folder: Whose artefact it is; its weights are the truth.
        kind: Key of :data:`converters.formats.registry.FORMATS`.
        path: The artefact.
        pixels: (N, num_channels, H, W), normalised. Noise: on a constant image rounding errors add
            up instead of averaging out.

    Raises:
        InputError: If the artefact is of a kind that shows no values inside, was not written by
            this project, or cannot be run for no reason that can be seen.
    """
    folder = offered_by(folder, kind, path)
    pixels = unnormalised(pixels, folder.statistics)
    computed = run_with_intermediates(folder, kind, path, pixels)
    operations = values_of(folder, folded=computed.folded)
    seen = _seen_faults(folder, kind, path, operations)
    if computed.failure is not None:
        return _unrunnable(path, operations, seen, computed)
    measured = measure(folder, operations, pixels, computed)
    modules = tuple(module for module, _ in measured)
    channels = {module.module: channel for module, channel in measured if module.at_fault}
    proven = seen.keys() | computed.differences.keys()
    culprit = (
        _first(operations, channels.keys() & proven)
        or _first(operations, seen)
        or _first(operations, channels)
    )
    if culprit is None:
        return Location(path.name, modules, None, None, None, _innocence(modules))
    tensor, why = seen.get(culprit, (None, computed.differences.get(culprit, "")))
    if culprit not in channels:
        why += ", though no value shows it on this image"
    local = next(m.local for m in modules if m.module == culprit)
    why = why or _operation(local)
    other = _first(operations, channels.keys() - proven - {culprit})
    why += f"; {other} errs as well, given its own input" if other else ""
    return Location(path.name, modules, culprit, tensor, channels.get(culprit), why)


def _first(operations: Operations, faults: Container[str]) -> str | None:
    return next((made.name for made in operations if made.name in faults), None)


def _unrunnable(
    path: Path, operations: Operations, seen: _Seen, computed: Intermediates
) -> Location:
    """What can be said of a file that no runtime runs: where it looks wrong."""
    culprit = _first(operations, seen.keys() | computed.differences.keys())
    if culprit is None:
        raise InputError(
            f"{path.name} cannot be run ({computed.failure}), though no module of it looks wrong; "
            "export it again."
        )
    tensor, clause = seen.get(culprit, (None, ""))
    why = clause or computed.differences[culprit]
    why += f", and the file cannot be run ({computed.failure})"
    return Location(path.name, (), culprit, tensor, None, why)


def _seen_faults(folder: ConvertedFolder, kind: str, path: Path, operations: Operations) -> _Seen:
    """What the certificate finds wrong: by module, the tensor if it is one, and a clause."""
    modules = {operation.name for operation in operations}
    found: dict[str, tuple[str | None, str]] = {}
    for clause in certify(folder, kind, path).wrong:
        name, _, what = clause.partition(" ")
        owner, _, _ = name.rpartition(".")
        if name.endswith(COUNTER):
            continue  # which no value depends on
        if name in modules:
            found.setdefault(name, (None, f"it {what}"))
        elif owner in modules:
            found.setdefault(owner, (name, f"its {name} {what}"))
    return found


def _operation(local: float | None) -> str:
    if local is None or not math.isfinite(local):
        return "it gives no finite value of the reference's shape, though its tensors are right"
    return (
        f"given its own input it is {local:.3g} times as far from the reference as rounding goes, "
        "though its tensors are right: the operation differs"
    )


def _innocence(modules: Sequence[ModuleError]) -> str:
    """Why no module is the culprit."""
    lost = next((m.module for m in modules if not math.isfinite(m.ratio)), None)
    if lost is not None:
        return f"the reference itself is not finite at {lost}, so the folder's weights are damaged"
    return "every module is right, given its own input"
