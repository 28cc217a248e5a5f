"""Change files and compare what is read of them; exit status 1 if anybody disagrees.

Run: python -m fuzz.differential [--seconds 60] [--seed 0] [TARGET ...]

Every case is made from the seed and its number alone; ``--case N`` makes and judges one of them.
A file that is disagreed on, or of which the library's process died, is kept in the folder, with
what was disagreed on or what ended the process beside it, and ``counts.json`` there says how far
the run is.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections import Counter
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from fuzz.differential.library import ROOT, Library
from fuzz.differential.targets import NAMES, Target, make_targets

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

_MEMORY = Path("/dev/shm")  # noqa: S108 -- Linux's file system in memory, in a folder of our own
_SLICE = 200
"""Cases of a target before it is the next one's turn."""


@dataclass
class Count:
    """What a target came to.

    Attributes:
        cases: Files that were judged.
        ours: Of those, which we read.
        both: Which others read, too.
        seconds: Processor time of all readers.
        deaths: Of the library's process, by what ended it.
        findings: Numbers of the cases that are disagreed on.
    """

    cases: int = 0
    ours: int = 0
    both: int = 0
    seconds: float = 0.0
    deaths: dict[str, int] = field(default_factory=dict)
    findings: list[int] = field(default_factory=list)


def in_words(deaths: Mapping[str, int]) -> str:
    """``2 SIGSEGV``."""
    return ", ".join(f"{count} {cause}" for cause, count in sorted(deaths.items())) or "0"


class Run:
    """A run over some targets.

    Args:
        targets: By name.
        seed: Of all cases.
        place: For the file that is read.
        folder: For files that are disagreed on.
        library: The others.
    """

    def __init__(
        self, targets: dict[str, Target], seed: int, place: Path, folder: Path, library: Library
    ) -> None:
        self._targets = targets
        self._seed = seed
        self._place = place
        self._folder = folder
        self.counts = {name: Count() for name in targets}
        self.library = library

    @property
    def seconds(self) -> float:
        """Processor time so far."""
        return sum(count.seconds for count in self.counts.values())

    def until(self, seconds: float) -> None:
        """Judge cases of each target in turn until so much processor time is used."""
        while self.seconds < seconds:
            least = min(self.counts, key=lambda name: self.counts[name].seconds)
            for _ in range(_SLICE):
                self.case(least, self.counts[least].cases)
                if self.seconds >= seconds:
                    break
            counts = {name: asdict(count) for name, count in self.counts.items()}
            (self._folder / "counts.json").write_text(json.dumps(counts, indent=1))

    def case(self, name: str, number: int) -> None:
        """Make and judge one case; keep and print what is disagreed on."""
        count, target = self.counts[name], self._targets[name]
        started, theirs = time.process_time(), self.library.seconds
        deaths = self.library.deaths.copy()
        data = target.make(Random(f"{name} {self._seed} {number}"))  # noqa: S311
        path = self._place / "input"
        path.write_bytes(data)
        finding, ours, taken = target.judge(path, self.library)
        count.cases += 1
        count.ours += ours
        count.both += ours and taken
        count.seconds += time.process_time() - started + self.library.seconds - theirs
        died = self.library.deaths - deaths
        count.deaths = dict(Counter(count.deaths) + died)
        words = (
            f"died of {in_words(died)}, and we {'read' if ours else 'refuse'} it" if died else ""
        )
        if finding is not None:
            count.findings.append(number)
            words = f"{finding.kind}: {finding.words}"
        if words:
            kept = self._folder / f"{name}-{self._seed}-{number}"
            kept.write_bytes(data)
            kept.with_suffix(".txt").write_text(f"{words}\n")
            print(f"{name} {number}: {words[:400]}", flush=True)


@contextmanager
def running(names: Sequence[str], seed: int, folder: Path, library: Library) -> Iterator[Run]:
    """Make the seeds of some targets, and what judges their cases.

    Args:
        names: Of targets.
        seed: Of all cases.
        folder: For files that are disagreed on.
        library: The others.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=_MEMORY if _MEMORY.is_dir() else None) as place:
        yield Run(make_targets(Path(place), names), seed, Path(place), folder, library)


def main() -> int:
    """Run, and print a line for each target."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("targets", nargs="*", default=list(NAMES), metavar="TARGET")
    parser.add_argument("--seconds", type=float, default=60.0, help="of processor time, in all")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--case", type=int, help="only this one")
    parser.add_argument("--folder", type=Path, default=ROOT / "build" / "differential")
    arguments = parser.parse_args()
    if unknown := set(arguments.targets) - set(NAMES):
        parser.error(f"no such target: {min(unknown)}; there are {', '.join(NAMES)}")
    folder = arguments.folder.resolve()
    with (
        Library() as library,
        running(arguments.targets, arguments.seed, folder, library) as run,
    ):
        if arguments.case is None:
            run.until(arguments.seconds)
        else:
            for name in arguments.targets:
                run.case(name, arguments.case)
    for name, count in run.counts.items():
        print(
            f"{name}: {count.cases:,} cases, {count.ours:,} read by us, {count.both:,} by both, "
            f"{count.seconds:.0f} s of processor time, {len(count.findings)} findings, "
            f"deaths of the library: {in_words(count.deaths)}"
        )
    return 1 if any(count.findings for count in run.counts.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
