"""Judging mutants: by numbers alone, by all that a verdict looks at, and by other tools' rules."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from benchmarks.mutation.artefact import OnnxArtefact, ScriptArtefact
from benchmarks.mutation.coreml import CoreMlArtefact, coreml_mutants
from benchmarks.mutation.graphs import configuration_mutants, graph_mutants
from benchmarks.mutation.int8 import Int8, int8_mutants
from benchmarks.mutation.litert import LiteRtArtefact, litert_mutants
from benchmarks.mutation.ncnn import NcnnArtefact, ncnn_mutants
from benchmarks.mutation.scripts import script_mutants
from benchmarks.mutation.subjects import kind_of
from benchmarks.mutation.weights import Weights, weight_mutants
from converters.parity.contents.written import NOT_WRITTEN

if TYPE_CHECKING:
    from collections.abc import Container, Iterator
    from pathlib import Path

    from benchmarks.mutation.contenders import Notice
    from benchmarks.mutation.mutant import Mutant
    from benchmarks.mutation.subjects import Subject
    from converters.parity.metrics import Outputs
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


_ENDING = {("LiteRT, int8", "kernel one highest exponent bit flipped")}
"""Faults over which a runtime ends the process, here this one: XNNPACK does where a step is some
1e36. What `regnet verify` finds in a folder and is not as written it runs in another process."""


def mutants(
    subject: Subject, form: str, count: int, random: np.random.Generator
) -> Iterator[Mutant]:
    """All that is planted in an artefact, ``count`` times each kind where it has a place."""
    artefact, folder = subject.artefact(form), subject.folder
    yield from weight_mutants(Weights(artefact, folder), count, random)
    if isinstance(artefact, Int8):
        yield from int8_mutants(artefact, folder, count, random)
    match artefact:
        case OnnxArtefact():
            yield from graph_mutants(artefact.model, folder, count, random)
            if not isinstance(artefact, Int8):
                yield from configuration_mutants(folder)
        case ScriptArtefact():
            yield from script_mutants(artefact, folder)
        case LiteRtArtefact():
            yield from litert_mutants(artefact, count, random)
        case NcnnArtefact():
            yield from ncnn_mutants(artefact, folder, count, random)
        case CoreMlArtefact():
            yield from coreml_mutants(artefact, folder, count, random)


def outcomes(
    subject: Subject, form: str, count: int, seed: int, kinds: Container[str] | None = None
) -> Iterator[Outcome]:
    """Plant and judge; what turns out to change nothing is no mutant.

    That is what gives the right file again, and what is not in weights and leaves every output of
    every batch, those too that the form is not judged on, as it is to the last bit.

    Args:
        subject: The network.
        form: Of artefact.
        count: In how many places each kind of fault is planted.
        seed: Of the places.
        kinds: Those that are planted; all if None.
    """
    random = np.random.default_rng(seed)
    path = subject.planted(form)
    subject.artefact(form).save(path)
    right, outputs = content_of(path), subject.outputs(form, path)
    for mutant in mutants(subject, form, count, random):
        if (kinds is not None and mutant.kind not in kinds) or (form, mutant.kind) in _ENDING:
            continue
        artefact = subject.artefact(form)
        mutant.plant(artefact)
        artefact.save(path)
        if content_of(path) == right:
            continue
        outcome = judged(subject, form, path, mutant.kind, mutant.place)
        if (
            outcome.numbers
            or mutant.in_weights
            or not same_bits(subject.outputs(form, path), outputs)
        ):
            yield outcome


def content_of(path: Path) -> dict[str, bytes]:
    """All that was saved of an artefact: the file, what lies beside it, or what is in it."""
    beside = path.with_suffix(".bin")
    files = sorted(path.rglob("*")) if path.is_dir() else [path, beside]
    return {file.name: file.read_bytes() for file in files if file.is_file()}


def same_bits(outputs: dict[str, Outputs], others: dict[str, Outputs]) -> bool:
    """Whether two artefacts gave the same, by batch and output."""
    return all(
        array.tobytes() == others[batch][name].tobytes()
        for batch, named in outputs.items()
        for name, array in named.items()
    )


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
