"""`regnet bench` and `converters.bench`: timing all that a folder holds, to say what to deploy."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from converters.checkpoint.digests import sha256_of
from converters.errors import ConversionError, UnsafeInputError
from converters.folder.folder import ConvertedFolder
from converters.folder.record import Record
from converters.formats.registry import FORMATS, OTHER_RUNTIMES, run_by
from converters.jobs.predict import EAGER, open_runtime, present_runtimes
from converters.jobs.timing import Choice, Contender, Entry, choose, time_in_turn
from converters.progress import SILENT
from regnet.files.system import load_average, usable_cores

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from converters.formats.runtime import ArtefactRuntime
    from converters.jobs.timing import Timing, VerdictWord
    from converters.progress import Progress
    from converters.published.located import Place


@dataclass(frozen=True, slots=True)
class Bench:
    """What was timed.

    Attributes:
        entries: One for each contender.
        absent: Runtime to why it could not be opened, in a sentence.
        image_size: Side of the images in pixels.
        cores: That this process may use.
        load: Of the machine in the last minute, before the first turn; None if nobody knows it.
    """

    entries: Sequence[Entry]
    absent: Mapping[str, str]
    image_size: int
    cores: int
    load: float | None

    @property
    def runtimes(self) -> list[str]:
        """Keys of those that were timed."""
        return list(dict.fromkeys(entry.contender.runtime for entry in self.entries))

    @property
    def choices(self) -> list[Choice]:
        """What to deploy where one image must be done soon, and where many must be done."""
        chosen = (choose(self.entries, goal) for goal in ("latency", "throughput"))
        return [choice for choice in chosen if choice]

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            "image_size": self.image_size,
            "cores": self.cores,
            "load": self.load,
            "contenders": [entry.to_dict() for entry in self.entries],
            "absent": dict(self.absent),
            "deploy": [choice.to_dict() for choice in self.choices],
        }


def bench(  # noqa: PLR0913 -- one keyword per option
    folder: Place,
    *,
    runtimes: Sequence[str] = (),
    batch_sizes: Sequence[int] = (1, 8),
    threads: Sequence[int] = (1,),
    rounds: int = 10,
    image_size: int | None = None,
    progress: Progress = SILENT,
) -> Bench:
    """Time artefacts and eager PyTorch in turn, and say which to deploy on this machine.

    >>> result = bench("out", runtimes=["onnx"], batch_sizes=[1], rounds=1)
    >>> [entry.verdict for entry in result.entries]
    ['pass']

    Args:
        folder: What :func:`convert` wrote.
        runtimes: Keys of :data:`converters.formats.registry.FORMATS`, and ``torch``; empty for all
            that the folder has.
        batch_sizes: Numbers of images that go through the network at once.
        threads: Numbers of threads.
        rounds: How many turns each contender has on each batch.
        image_size: Side of the images in pixels; None for the network's own.
        progress: Who wants to know how many turns are done.

    Raises:
        InputError: If the folder cannot be used or lacks an artefact that was asked for.
        UnsafeInputError: If an artefact in it is not safe to be opened.
    """
    # OpenMP's threads spin while they wait, and would take the cores from whose turn is next; its
    # library looks here when torch loads it.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    converted = ConvertedFolder(folder)
    load = load_average()
    contenders, absent = _open(converted, runtimes, threads)
    size = image_size or converted.image_size
    shape = (max(batch_sizes), converted.config.num_channels, size, size)
    pixels = np.random.default_rng(0).standard_normal(shape, np.float32)
    inputs = [pixels[:batch] for batch in batch_sizes]
    progress.step("timing", len(contenders) * len(inputs) * rounds)
    timed = time_in_turn(contenders, inputs, rounds, progress.advance)
    verdicts = recorded_verdicts(converted, (each.runtime for each in contenders))
    entries = [
        _entry(converted, contender, contenders[contender], verdicts, timings)
        for contender, timings in timed.items()
    ]
    return Bench(entries, absent, size, usable_cores(), load)


def _open(
    folder: ConvertedFolder, runtimes: Sequence[str], threads: Sequence[int]
) -> tuple[dict[Contender, ArtefactRuntime], dict[str, str]]:
    """Every contender; what the folder holds but this machine cannot run is only named."""
    contenders: dict[Contender, ArtefactRuntime] = {}
    absent: dict[str, str] = {}
    for name in dict.fromkeys(runtimes or present_runtimes(folder)):
        try:
            for count in dict.fromkeys(threads):
                contenders[Contender(name, count)] = open_runtime(folder, name, count)
        except ConversionError as error:
            if runtimes or isinstance(error, UnsafeInputError):
                raise
            absent[name] = str(error)
    return contenders, absent


def _entry(
    folder: ConvertedFolder,
    contender: Contender,
    network: ArtefactRuntime,
    verdicts: Mapping[str, VerdictWord],
    timings: Sequence[Timing | str],
) -> Entry:
    files = files_of(folder, contender.runtime)
    return Entry(
        contender=contender,
        title=_title(contender.runtime),
        name=network.name,
        precision=network.precision,
        size=sum(file.stat().st_size for file in files),
        verdict=verdicts[contender.runtime],
        timings=timings,
    )


def _title(runtime: str) -> str:
    if runtime == EAGER:
        return "PyTorch"
    if runtime in OTHER_RUNTIMES:
        return OTHER_RUNTIMES[runtime][1].title
    return FORMATS[runtime].title


def files_of(folder: ConvertedFolder, runtime: str) -> list[Path]:
    """What a runtime reads: the weights for ``torch``, else the artefact and its companions."""
    if runtime == EAGER:
        return folder.weight_files
    paths = (folder.path / name for name in run_by(runtime).files)
    return [path for path in paths if path.is_file()]


def recorded_verdicts(
    folder: ConvertedFolder, others: Iterable[str] = ()
) -> dict[str, VerdictWord]:
    """What ``conversion.json`` says of everything that the folder can run.

    Args:
        folder: The converted folder.
        others: Of :data:`converters.formats.registry.OTHER_RUNTIMES` those that are wanted too.

    Returns:
        Runtime to verdict: ``changed`` where a file's sha256 is not the recorded one, and
        ``not verified`` where there is no verdict or no record.

    Raises:
        InputError: If ``conversion.json`` is damaged.
    """
    record = Record.read(folder.path)
    present = dict.fromkeys((*present_runtimes(folder), *others))
    if record is None:
        return dict.fromkeys(present, "not verified")
    outcomes = record.outcomes
    return {
        name: _verdict(outcomes.get(_artefact(folder, name)), folder, name, record)
        for name in present
    }


def _artefact(folder: ConvertedFolder, runtime: str) -> str:
    """What a verdict calls that which a runtime runs."""
    if runtime == EAGER:
        return ", ".join(path.name for path in folder.weight_files)
    name = run_by(runtime).file_name
    return f"{name} ({runtime})" if runtime in OTHER_RUNTIMES else name


def _verdict(
    outcome: VerdictWord | None, folder: ConvertedFolder, runtime: str, record: Record
) -> VerdictWord:
    if outcome is None:
        return "not verified"
    for file in files_of(folder, runtime):
        entry = record.files.get(file.relative_to(folder.path).as_posix(), {})
        if entry.get("sha256") != sha256_of(file):
            return "changed"
    return outcome
