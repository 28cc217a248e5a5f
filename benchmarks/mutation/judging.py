"""Judging mutants: by numbers alone, by all that a verdict looks at, and by other tools' rules."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from benchmarks.mutation.artefact import OnnxArtefact, ScriptArtefact
from benchmarks.mutation.graphs import graph_mutants
from benchmarks.mutation.litert import LiteRtArtefact, litert_mutants
from benchmarks.mutation.scripts import script_mutants
from benchmarks.mutation.subjects import kind_of
from benchmarks.mutation.weights import Weights, weight_mutants
from converters.parity.contents.written import NOT_WRITTEN

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from benchmarks.mutation.contenders import Notice
    from benchmarks.mutation.mutant import Mutant
    from benchmarks.mutation.subjects import Subject
    from converters.parity.verdict import Verdict


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a mutant.

    Attributes:
        kind: Of the fault.
        subject: The network.
        form: The artefact.
        place: Where the fault is.
        numbers: Whether what it computes failed.
        tensors: Whether its tensors, or the nodes that read them, were found wrong.
        structure: Whether its graph or code was found not to be what is written.
        reason: Of the verdict.
        optimum: What optimum makes of it; None where it is no ONNX file.
        torch_onnx: What torch.onnx makes of it, likewise.
    """

    kind: str
    subject: str
    form: str
    place: str
    numbers: bool
    tensors: bool
    structure: bool
    reason: str
    optimum: Notice | None = None
    torch_onnx: Notice | None = None

    @property
    def killed(self) -> bool:
        """Whether the whole verdict is a fail."""
        return self.numbers or self.tensors or self.structure


def mutants(
    subject: Subject, form: str, count: int, random: np.random.Generator
) -> Iterator[Mutant]:
    """All that is planted in an artefact, ``count`` times each kind where it has a place."""
    artefact = subject.artefact(form)
    yield from weight_mutants(Weights(artefact, subject.folder), count, random)
    if isinstance(artefact, OnnxArtefact):
        yield from graph_mutants(artefact.model, subject.folder, count, random)
    elif isinstance(artefact, ScriptArtefact):
        yield from script_mutants(artefact, subject.folder)
    elif isinstance(artefact, LiteRtArtefact):
        yield from litert_mutants(artefact, count, random)


def outcomes(subject: Subject, form: str, count: int, seed: int) -> Iterator[Outcome]:
    """Plant and judge; what turns out to be the right artefact again is no mutant."""
    random = np.random.default_rng(seed)
    path = subject.planted(form)
    subject.artefact(form).save(path)
    right = path.read_bytes()
    for mutant in mutants(subject, form, count, random):
        artefact = subject.artefact(form)
        mutant.plant(artefact)
        artefact.save(path)
        if path.read_bytes() != right:
            yield judged(subject, form, path, mutant.kind, mutant.place)


def judged(subject: Subject, form: str, path: Path, kind: str, place: str) -> Outcome:
    """The outcome for one file."""
    verdict = subject.verdict(form, path)
    numbers, tensors, structure = reasons(verdict)
    is_onnx = kind_of(form) == "onnx"
    return Outcome(
        kind,
        subject.name,
        form,
        place,
        numbers,
        tensors,
        structure,
        verdict.reason,
        subject.contenders.optimum(path) if is_onnx else None,
        subject.contenders.torch_onnx(path) if is_onnx else None,
    )


def reasons(verdict: Verdict) -> tuple[bool, bool, bool]:
    """Whether numbers, tensors, and structure failed."""
    wrong = verdict.tensors.wrong if verdict.tensors else ()
    structure = [clause.endswith(NOT_WRITTEN) for clause in wrong]
    numbers = any(measurement.failure for measurement in verdict.measurements)
    return numbers, not all(structure), any(structure)
