"""Verifying a converted folder: every artefact, and the weights themselves, against the oracle."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from converters.errors import InputError, for_shell, printable
from converters.folder.folder import CARD_NAME, GOLDEN_NAME, REPORT_NAME
from converters.folder.inputs import PHOTOGRAPHS, photographs, verification_inputs
from converters.folder.record import Record
from converters.formats.beside import ALONE, torch_beside
from converters.formats.registry import (
    FORMATS,
    OTHER_RUNTIMES,
    artefact_names,
    artefacts_in,
    beside_verifying,
)
from converters.parity.golden import judge_golden, read_golden
from converters.parity.report import Report
from converters.parity.verdict import Verdict, judge
from converters.progress import SILENT
from regnet.design_space import complexity
from regnet.files.dtypes import COMPUTED

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from converters.families.options import SourceOptions
    from converters.folder.folder import ConvertedFolder
    from converters.formats.beside import Beside
    from converters.parity.metrics import Inputs
    from converters.parity.truth import Truth
    from converters.progress import Progress

_PROGRAMS = {
    ".mlmodel",
    ".onnx",
    ".ort",
    ".pt",
    ".pt2",
    ".pte",
    ".ptl",
    ".pth",
    ".tflite",
}
"""How files of networks end."""

_PACKAGES = {".aimodel", ".mlpackage"}
"""How folders of networks do: Core AI's and Core ML's."""

_COSTLY = 500_000_000_000
"""Multiply-adds of one image; the largest network of any framework but VISSL's stays below."""


def of_the_oracle(names: Iterable[str]) -> tuple[str, ...]:
    """Those of a folder's files that the oracle depends on."""
    others = {CARD_NAME, *artefact_names()}
    return tuple(name for name in names if name not in others)


def fresh_inputs(folder: ConvertedFolder) -> Inputs:
    """The inputs for a folder without golden vectors.

    They are of the network's native size, unless one such image costs so much (RegNetY-10B takes
    5.5e12 multiply-adds at 384 pixels) that smaller ones, on which the same weights are used,
    decide minutes instead of hours.
    """
    size = folder.image_size
    cost = complexity(folder.config, size).flops
    if cost > _COSTLY:
        size = int(size * math.sqrt(_COSTLY / cost))
    return verification_inputs(folder.config.num_channels, size)


class Verification:
    """The verdicts on weights and artefacts: begun one by one, and given together.

    Args:
        folder: Whose network it is.
        truth: Of the folder.
        beside: What else computes; it does what it can before the verdicts are asked for.
        weights_sha256: Digests of the weights files by name, where they are known.
        found: Whether the artefacts lay in the folder instead of having been written by this
            process: then they may be anybody's programs, and those that are not what is written for
            the folder run in a process of their own.
        runtimes: Of :data:`converters.formats.registry.OTHER_RUNTIMES` those that the artefacts are
            judged in as well, beside those that always are.

    Attributes:
        truth: As given.
    """

    def __init__(  # noqa: PLR0913 -- what is known of them already is an option each
        self,
        folder: ConvertedFolder,
        truth: Truth,
        beside: Beside = ALONE,
        *,
        weights_sha256: Mapping[str, str] | None = None,
        found: bool = False,
        runtimes: Collection[str] = (),
    ) -> None:
        self.truth = truth
        self._folder, self._beside = folder, beside
        self._weights_sha256, self._found, self._runtimes = weights_sha256, found, runtimes
        self._begun: dict[str, tuple[Path, Callable[[], Callable[[], Verdict]]]] = {}

    def begin(self, name: str, path: Path) -> None:
        """Judge one artefact more.

        Args:
            name: Key of :data:`converters.formats.registry.FORMATS`.
            path: The file.
        """
        where = self._beside if FORMATS[name].runs_beside else ALONE
        self._begun[name] = path, where.begin(self._started, name, path)

    def report(self, progress: Progress = SILENT) -> Report:
        """Judge the weights, and wait for the verdicts."""
        from converters.parity.artefact import judge_in_other

        truth = self.truth
        weights = ", ".join(path.name for path in self._folder.weight_files)
        measured = judge(truth.eager, truth.units(), truth.oracle)
        verdicts = [Verdict(weights, truth.runtime, COMPUTED, measured)]
        for name, (path, started) in self._begun.items():
            progress.step(f"verifying {FORMATS[name].title}")
            own = started()()
            if own.not_run is not None and self._beside:
                self._beside.wait()  # it may have been for others that took the memory
                own = self._started(name, path)()
            verdicts.append(own)
            for other in FORMATS[name].others:
                if other.always or other.name in self._runtimes:
                    progress.step(f"verifying {FORMATS[name].title} in {other.title}")
                    found = self._found
                    verdicts.append(
                        judge_in_other(self._folder, truth, own, other, path, found=found)
                    )
        return Report(tuple(verdicts))

    def _started(self, name: str, path: Path) -> Callable[[], Verdict]:
        from converters.parity.artefact import begin_artefact

        return begin_artefact(
            self._folder, self.truth, name, path, self._weights_sha256, self._found
        )


def verify_artefacts(  # noqa: PLR0913 -- what is known of them already is an option each
    folder: ConvertedFolder,
    truth: Truth,
    artefacts: Mapping[str, Path],
    progress: Progress = SILENT,
    *,
    beside: Beside = ALONE,
    weights_sha256: Mapping[str, str] | None = None,
    found: bool = False,
    runtimes: Collection[str] = (),
) -> Report:
    """Judge the weights and the named artefacts; see :class:`Verification`.

    Args:
        folder: Whose network it is.
        truth: Of the folder.
        artefacts: Key of :data:`converters.formats.registry.FORMATS` to the file.
        progress: Who wants to know how far it is.
        beside: As of the class, like the rest.
        weights_sha256: Likewise.
        found: Likewise.
        runtimes: Likewise.
    """
    verification = Verification(
        folder,
        truth,
        beside,
        weights_sha256=weights_sha256,
        found=found,
        runtimes=runtimes,
    )
    for name, path in artefacts.items():
        verification.begin(name, path)
    truth.begin()
    return verification.report(progress)


def verify_folder(  # noqa: PLR0913 -- one argument per option
    folder: ConvertedFolder,
    progress: Progress = SILENT,
    images: Sequence[Path] = (),
    against: Path | None = None,
    source_options: SourceOptions | None = None,
    *,
    others: Sequence[Path] = (),
    runtimes: Sequence[str] = (),
) -> Report:
    """Verify a folder from nothing but the folder.

    Checks the sha256 of every file recorded in ``conversion.json``, computes the oracle again and
    compares it with the golden vectors, then judges every artefact that is there: what it computes,
    and what it holds. Where a file that the oracle is made of was changed there is nothing to judge
    by, and the report says only that.

    Args:
        folder: A converted folder; one that transformers saved, without golden vectors, is
            verified on fresh inputs.
        progress: Who wants to know how far it is.
        images: Photographs to verify on as well.
        against: The checkpoint that the folder was made from, to be run by its own framework.
        source_options: How to read that; None is as it was read when the folder was made, which
            the folder's record says.
        others: Artefacts that lie elsewhere, to be judged by the folder as well: ONNX, TorchScript
            and ``.pt2``, of any tool.
        runtimes: Of :data:`converters.formats.registry.OTHER_RUNTIMES` those that the folder's
            artefacts are judged in as well.

    Raises:
        InputError: If a file is missing or cannot be read, the record is damaged, a runtime is not
            known, or the folder holds nothing that it runs.
    """
    kinds = _kinds(others)
    _require_artefacts(folder, runtimes)
    with torch_beside() as torch, beside_verifying(folder, torch) as others_do:
        progress.step("checksums")
        record = Record.read(folder.path)
        changed, digests = (
            record.changed_files(folder.path, others_do.begin) if record else ((), {})
        )
        if of_the_oracle(changed):
            return Report((), changed)
        from converters.parity.artefact import judge_artefact
        from converters.parity.truth import Truth

        progress.step("the oracle")
        inputs = fresh_inputs(folder)
        if images:
            inputs = {**inputs, PHOTOGRAPHS: photographs(folder, images)}
        truth = Truth(folder, inputs, others_do)
        report = verify_artefacts(
            folder,
            truth,
            artefacts_in(folder.path),
            progress,
            beside=others_do,
            weights_sha256=digests,
            found=True,
            runtimes=runtimes,
        )
    verdicts = [*_golden_verdict(folder, truth), *report.verdicts]
    elsewhere: list[str] = []
    for path, name in zip(others, kinds, strict=True):
        progress.step(f"verifying {printable(path.name)}")
        shown = _told_apart(path, [verdict.artefact for verdict in verdicts])
        elsewhere.append(shown)
        verdicts.append(judge_artefact(folder, truth, name, path, digests, found=True, shown=shown))
    not_checked = list(_not_checked(folder, record))
    if against is not None:
        from converters.parity.against import judge_source

        progress.step("the source's own network")
        if source_options is None and record is not None:
            source_options = record.source_options
            not_checked.extend(_taken_over(source_options))
        verdicts.append(judge_source(folder, truth, against, source_options))
    return Report(tuple(verdicts), changed, tuple(not_checked), tuple(elsewhere))


def _kinds(paths: Iterable[Path]) -> list[str]:
    """The formats of files that lie elsewhere."""
    if not paths:
        return []
    from converters.parity.artefact import format_of

    return [format_of(path) for path in paths]


def _require_artefacts(folder: ConvertedFolder, runtimes: Iterable[str]) -> None:
    """Check, before the oracle is computed, that there is what other runtimes run."""
    for name in runtimes:
        if name not in OTHER_RUNTIMES:
            raise InputError(
                f"--runtime {name} is none that an artefact is judged in beside its own; choose "
                f"among {', '.join(OTHER_RUNTIMES)}."
            )
        kind, _ = OTHER_RUNTIMES[name]
        if not kind.is_in(folder.path):
            raise InputError(
                f"{folder.path} has no {kind.file_name} for {name}; write it with "
                f"`regnet export {for_shell(folder.path)} --format {kind.name}`."
            )


def _told_apart(path: Path, names: Sequence[str]) -> str:
    """What a file is called beside others: its name, and where that is taken its folder's too."""
    parts = path.resolve().parts
    shown = (printable("/".join(parts[-length:])) for length in range(1, len(parts) + 1))
    return next((name for name in shown if name not in names), printable(path.name))


def _golden_verdict(folder: ConvertedFolder, truth: Truth) -> Iterator[Verdict]:
    """On the golden vectors, where there are some.

    Their inputs are today's, unless an earlier version wrote them, or somebody who would rather
    have others: nothing else is judged on those.
    """
    if not (folder.path / GOLDEN_NAME).is_file():
        return
    inputs, golden = read_golden(folder)
    own = truth.inputs
    if not all(name in own and np.array_equal(own[name], inputs[name]) for name in inputs):
        from converters.parity.truth import Truth

        truth = Truth(folder, inputs)
    yield judge_golden(truth.oracle, golden, truth.units())


def _not_checked(folder: ConvertedFolder, record: Record | None) -> Iterator[str]:
    """What there was nothing to check by, one clause each."""
    if record is None:
        yield f"there is no {REPORT_NAME}, so no checksum was compared"
    elif not record.files:
        yield f"{REPORT_NAME} names no file, so no checksum was compared"
    else:
        artefacts = (name for kind in FORMATS.values() for name in kind.files)
        known = (*folder.network_files, GOLDEN_NAME, *artefacts)
        unnamed = [
            name for name in known if name not in record.files and (folder.path / name).is_file()
        ]
        if unnamed:
            names = ", ".join(unnamed)
            yield f"{REPORT_NAME} does not name {names}, so no checksum of it was compared"
    if others := _other_programs(folder):
        names = printable(", ".join(others))
        yield f"{names} is of no format that is known here, so nothing was judged of it"
    if not (folder.path / GOLDEN_NAME).is_file():
        yield (
            f"there is no {GOLDEN_NAME}, so the weights were not compared with what was converted"
        )


def _other_programs(folder: ConvertedFolder) -> list[str]:
    """What somebody might take for an artefact, where artefacts lie, and no format writes."""
    known = {*artefact_names(), *(kind.file_name for kind in FORMATS.values())}
    places = {kind.file_name.rpartition("/")[0] for kind in FORMATS.values()}
    names = (
        path.relative_to(folder.path).as_posix()
        for place in sorted(places)
        for path in sorted((folder.path / place).glob("*"))
        if path.suffix in _PACKAGES or (path.suffix in _PROGRAMS and path.is_file())
    )
    return [name for name in names if name not in known]


def _taken_over(options: SourceOptions) -> Iterator[str]:
    """What the record says was asked for, and so was not judged by what the source says itself."""
    chosen = [
        f"{title} {value}"
        for title, value, own in (
            ("channel order", options.channel_order, None),
            ("weights", options.weights, "best"),
            ("head", options.head, None),
        )
        if value != own
    ]
    if chosen:
        yield (
            f"the source was read as {REPORT_NAME} says that it was asked for: "
            f"{printable(', '.join(chosen))}"
        )
