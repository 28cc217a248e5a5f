"""Plant faults, and count who notices: the checker is checked.

``python -m benchmarks.mutation`` prints the tables of docs/mutation.md and ends with status 1 if a
mutant survives unexplained, an equivalent one is rejected, or a right artefact is.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from benchmarks.mutation import tables
from benchmarks.mutation.contenders import Notice
from benchmarks.mutation.equivalents import Shown, shown
from benchmarks.mutation.folders import folder_outcomes
from benchmarks.mutation.judging import Outcome, judged, outcomes
from benchmarks.mutation.subjects import DEAD, FORMS, PUBLISHED, SMALL, SUBJECTS, Subject

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence

QUICK = ("Y",)
ALARMS = "RegNetY-4.0GF"
"""Whose right artefacts are judged as well: large logits, many sums."""

ONNX = "ONNX"
_WHOLE_FOLDERS = ("X", "Y", "Y, trunk")


@dataclass
class Findings:
    """All that was found.

    Attributes:
        mutants: What became of each.
        equivalents: Likewise of the changes that are no faults.
        right: Of the right artefacts.
    """

    mutants: list[Outcome] = field(default_factory=list)
    equivalents: list[Shown] = field(default_factory=list)
    right: list[Outcome] = field(default_factory=list)

    @classmethod
    def read(cls, files: Sequence[Path]) -> Findings:
        """Put together what several runs wrote."""
        findings = cls()
        for file in files:
            parts = json.loads(file.read_text())
            findings.mutants += [_outcome(**each) for each in parts["mutants"]]
            findings.equivalents += [Shown(**each) for each in parts["equivalents"]]
            findings.right += [_outcome(**each) for each in parts["right"]]
        return findings

    def add(
        self, subject: Subject, forms: Collection[str], *, places: int, seed: int, path: Path
    ) -> None:
        """Plant everything in one network.

        Args:
            subject: The network.
            forms: Of artefacts; whole folders go with ONNX.
            places: In how many each kind of fault is planted.
            seed: Of the places.
            path: For copies of its folder.
        """
        for form, right in subject.right.items():
            if form not in forms:
                continue
            self.right.append(judged(subject, form, right, "none", ""))
            self.equivalents += shown(subject, form)
            if subject.name != DEAD:
                self.mutants += outcomes(subject, form, places, seed)
        if ONNX not in forms:
            return
        if subject.name in _WHOLE_FOLDERS:
            self.mutants += folder_outcomes(subject, path)
        elif subject.name in PUBLISHED:
            self.mutants += folder_outcomes(subject, path, ("weights",))

    @property
    def right_throughout(self) -> bool:
        """Whether every survivor is explained, and nothing is rejected that is no fault."""
        lives = [outcome for outcome in self.mutants if not outcome.killed]
        return (
            all(map(tables.explanation, lives))
            and all(each.right for each in self.equivalents)
            and not any(outcome.killed for outcome in self.right)
        )


def _outcome(**fields: Any) -> Outcome:
    """From JSON, which knows no notices."""
    for rule in ("optimum", "torch_onnx"):
        fields[rule] = fields[rule] and Notice(fields[rule])
    return Outcome(**fields)


def main() -> None:
    """Plant, judge and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    names = (*SUBJECTS, DEAD)
    parser.add_argument("--networks", nargs="+", choices=names, help="all if none is named")
    parser.add_argument("--forms", nargs="+", choices=FORMS, default=FORMS, help="all if none is")
    parser.add_argument("--places", type=int, help="of each kind; 2, of published networks 1")
    parser.add_argument("--quick", action="store_true", help="one small network, one place a kind")
    parser.add_argument("--seed", type=int, default=0, help="of the places")
    parser.add_argument("--alarms", type=int, default=3, help=f"draws of {ALARMS}'s weights")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every outcome as well")
    parser.add_argument(
        "--tables", nargs="+", type=Path, metavar="FILE", help="print what --json wrote in parts"
    )
    arguments = parser.parse_args()
    if arguments.tables:
        print_tables(Findings.read(arguments.tables))
        return
    torch.set_num_threads(1)
    begin = time.perf_counter()
    findings = Findings()
    names = arguments.networks or (QUICK if arguments.quick else (*SUBJECTS, DEAD))
    for name in names:
        places = arguments.places or (1 if arguments.quick or name not in SMALL else 2)
        with tempfile.TemporaryDirectory() as path, _quiet():
            subject = Subject.build(name, Path(path) / "folder", forms=arguments.forms)
            findings.add(
                subject,
                arguments.forms,
                places=places,
                seed=arguments.seed,
                path=Path(path) / "copy",
            )
        print(f"{name}: {len(findings.mutants)} mutants", file=sys.stderr, flush=True)
    for seed in range(0 if arguments.quick else arguments.alarms):
        with tempfile.TemporaryDirectory() as path:
            subject = Subject.build(ALARMS, Path(path) / "folder", seed, arguments.forms)
            right = ((form, subject.right[form]) for form in arguments.forms)
            findings.right += [judged(subject, form, path, "none", "") for form, path in right]
    print_tables(findings)
    print(f"\n{time.perf_counter() - begin:.0f} seconds")
    if arguments.json:
        arguments.json.write_text(json.dumps(asdict(findings), indent=1) + "\n")
    sys.exit(not findings.right_throughout)


@contextmanager
def _quiet() -> Iterator[None]:
    """Leave out what runtimes print, past Python, about mutants that they cannot run."""
    errors = os.dup(2)
    try:
        with open(os.devnull, "w", encoding="utf-8") as nowhere:  # noqa: PTH123 -- for its number
            os.dup2(nowhere.fileno(), 2)
            yield
    finally:
        os.dup2(errors, 2)
        os.close(errors)


def print_tables(findings: Findings) -> None:
    """The Markdown of docs/mutation.md."""
    parts = (
        tables.kinds_table(findings.mutants),
        tables.forms_table(findings.mutants),
        tables.totals(findings.mutants, findings.right),
        ["Survivors:\n", *tables.survivors(findings.mutants)],
        tables.equivalents_table(findings.equivalents),
        tables.alarms_table(findings.right),
    )
    print("\n\n".join("\n".join(part) for part in parts))


if __name__ == "__main__":
    main()
