"""Verifying a converted folder: every artefact, and the weights themselves, against the oracle."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from converters.artefacts import FORMATS
from converters.errors import ConversionError
from converters.folder import CARD_NAME, GOLDEN_NAME, REPORT_NAME
from converters.parity.golden import read_golden
from converters.parity.inputs import verification_inputs
from converters.parity.metrics import rms
from converters.parity.verdict import Measurement, Outputs, Verdict, judge
from converters.runtimes.reference import ReferenceRuntime

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from numpy.typing import NDArray

    from converters.folder import ConvertedFolder
    from converters.runtimes.runtime import Runtime

    Inputs = Mapping[str, NDArray[np.float32]]

_ORACLE_TOLERANCE = 1e-9
"""Relative: float64 sums in another order differ by some 1e-13, changed weights by far more."""


_JUDGED = {CARD_NAME, *(kind.file_name for kind in FORMATS.values())}
"""Files that the oracle does not depend on."""


@dataclass(frozen=True)
class Report:
    """All verdicts on a folder.

    Attributes:
        verdicts: One for the weights, one for each artefact.
        changed_files: Files whose sha256 is not the one recorded when they were written.
    """

    verdicts: tuple[Verdict, ...]
    changed_files: tuple[str, ...] = ()

    @property
    def passed(self) -> bool:
        """Whether every verdict is pass and no file was changed."""
        return not self.changed_files and all(verdict.passed for verdict in self.verdicts)

    @property
    def failures(self) -> list[str]:
        """One clause for each thing that is wrong, naming all files it is wrong with."""
        changed = [f"{name} was changed after it was written" for name in self.changed_files]
        files: dict[str | None, list[str]] = {}
        for verdict in self.verdicts:
            if not verdict.passed:
                files.setdefault(verdict.failure, []).append(verdict.artefact)
        return changed + [f"{' and '.join(names)}, {reason}" for reason, names in files.items()]

    def require_pass(self, outcome: str) -> None:
        """Do nothing if every verdict is pass.

        Args:
            outcome: What the message says happened instead.

        Raises:
            VerificationError: If one is fail.
        """
        if not self.passed:
            reasons = "; ".join(self.failures)
            raise VerificationError(f"{outcome}, for verification failed: {reasons}.", self)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            "passed": self.passed,
            "changed_files": list(self.changed_files),
            "verdicts": [verdict.to_dict() for verdict in self.verdicts],
        }


class VerificationError(ConversionError):
    """The conversion finished but its verdict is fail; nothing was published.

    Args:
        message: The sentence.
        report: The verdicts.
    """

    exit_status = 1

    def __init__(self, message: str, report: Report) -> None:
        super().__init__(message)
        self.report = report


@dataclass(frozen=True)
class Truth:
    """What artefacts are measured against, on the same inputs.

    Attributes:
        inputs: Batch to pixels.
        oracle: Outputs in float64.
        eager: Outputs of float32 PyTorch, whose errors are the unit.
        runtime: What float32 PyTorch calls itself.
    """

    inputs: Inputs
    oracle: Mapping[str, Outputs]
    eager: Mapping[str, Outputs]
    runtime: str

    @classmethod
    def compute(cls, folder: ConvertedFolder, inputs: Inputs) -> Truth:
        """Run the reference model in both precisions."""
        oracle = ReferenceRuntime(folder, "float64")
        eager = ReferenceRuntime(folder, "float32")
        return cls(inputs, _run(oracle, inputs), _run(eager, inputs), eager.name)


def fresh_inputs(folder: ConvertedFolder) -> Inputs:
    """The inputs for a folder without golden vectors: its native size, and another."""
    return verification_inputs(folder.config.num_channels, folder.image_size)


def verify_artefacts(
    folder: ConvertedFolder,
    truth: Truth,
    artefacts: Mapping[str, Path],
    tick: Callable[[str], None] = lambda _: None,
) -> Report:
    """Judge the weights and the named artefacts.

    Args:
        folder: Whose network it is.
        truth: From :meth:`Truth.compute`.
        artefacts: Key of :data:`converters.artefacts.FORMATS` to the file.
        tick: Called with a title before each artefact is run.
    """
    weights = ", ".join(path.name for path in folder.weight_files)
    measured = judge(truth.eager, truth.eager, truth.oracle)
    verdicts = [Verdict(weights, truth.runtime, "float32", measured)]
    for name, path in artefacts.items():
        tick(f"verifying {FORMATS[name].title}")
        verdicts.append(_judge_artefact(folder, truth, name, path))
    return Report(tuple(verdicts))


def verify_folder(folder: ConvertedFolder, tick: Callable[[str], None] = lambda _: None) -> Report:
    """Verify a folder from nothing but the folder.

    Checks the sha256 of every file recorded in ``conversion.json``, computes the oracle again and
    compares it with the golden vectors, then judges every artefact that is there. Where a file that
    the oracle is made of was changed there is nothing to judge by, and the report says only that.

    Args:
        folder: A converted folder; one that transformers saved, without golden vectors, is
            verified on fresh inputs.
        tick: Called with a title before each step.

    Raises:
        InputError: If a file is missing or cannot be read.
    """
    tick("checksums")
    changed = changed_files(folder.path)
    if not _JUDGED.issuperset(changed):
        return Report((), changed)
    has_golden = (folder.path / GOLDEN_NAME).is_file()
    tick("the oracle")
    inputs: Inputs
    golden: Mapping[str, Outputs] | None
    if has_golden:
        inputs, golden = read_golden(folder.path, folder.output_names)
    else:
        inputs, golden = fresh_inputs(folder), None
    truth = Truth.compute(folder, inputs)
    paths = {name: folder.path / kind.file_name for name, kind in FORMATS.items()}
    present = {name: path for name, path in paths.items() if path.is_file()}
    report = verify_artefacts(folder, truth, present, tick)
    verdicts = list(report.verdicts)
    if golden is not None:
        verdicts.insert(0, _judge_golden(truth.oracle, golden))
    return Report(tuple(verdicts), changed)


def changed_files(folder: Path) -> tuple[str, ...]:
    """Files that ``conversion.json`` records and that are missing or have another sha256."""
    path = folder / REPORT_NAME
    if not path.is_file():
        return ()
    try:
        recorded = json.loads(path.read_text(encoding="utf-8"))["files"]
        return tuple(
            name
            for name, entry in sorted(recorded.items())
            if not (folder / name).is_file() or sha256_of(folder / name) != entry["sha256"]
        )
    except (ValueError, KeyError, TypeError, AttributeError):
        return (REPORT_NAME,)


def sha256_of(path: Path) -> str:
    """The sha256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _run(runtime: Runtime, inputs: Inputs) -> dict[str, Outputs]:
    return {batch: runtime(pixels) for batch, pixels in inputs.items()}


def _judge_artefact(folder: ConvertedFolder, truth: Truth, name: str, path: Path) -> Verdict:
    """Run one artefact; one that cannot be loaded or run fails with the runtime's own words."""
    file_name = FORMATS[name].file_name
    try:
        runtime = FORMATS[name].load(path, folder.output_names)
        measurements = judge(_run(runtime, truth.inputs), truth.eager, truth.oracle)
    except ConversionError:
        raise
    except Exception as error:  # noqa: BLE001 -- runtimes raise classes of their own
        words = " ".join(str(error).split())[:300]
        failed = Measurement("all", "all", (), failure=f"it cannot be run ({words})")
        return Verdict(file_name, name, "unknown", (failed,))
    return Verdict(file_name, runtime.name, runtime.precision, measurements)


def _judge_golden(oracle: Mapping[str, Outputs], golden: Mapping[str, Outputs]) -> Verdict:
    measurements = tuple(
        Measurement(batch, name, truth.shape, failure=_differs(oracle[batch][name], truth))
        for batch, truths in golden.items()
        for name, truth in truths.items()
    )
    return Verdict(GOLDEN_NAME, "oracle", "float64", measurements)


def _differs(output: NDArray[np.floating], golden: NDArray[np.floating]) -> str | None:
    if output.shape != golden.shape:
        return f"the oracle gives shape {output.shape} where {golden.shape} was recorded"
    difference = output.astype(np.float64) - golden
    distance = rms(difference) / max(rms(golden.astype(np.float64)), np.finfo(float).tiny)
    if not distance <= _ORACLE_TOLERANCE:
        return (
            f"the weights no longer give what they gave when they were converted (relative "
            f"difference {distance:.2g}, limit {_ORACLE_TOLERANCE:g})"
        )
    return None
