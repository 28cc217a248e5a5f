"""Let system calls go wrong in every operation that writes, and print what is left of the files.

Run: make faults, or python -m tests.faults.table [--help]
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from tests.faults import shim
from tests.faults.injection import Bench, Outcome

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence


PAGE = Path(__file__).parents[2] / "docs" / "faults.md"
_BEGIN, _END = "<!-- table -->\n", "<!-- end of table -->\n"
_MEMORY = Path("/dev/shm")  # noqa: S108 -- a private folder in it, where no disk is waited for
_PRELOADED = "REGNET_FAULTS"
"""The variable with which this program calls itself, the shim loaded."""


def moments(calls: Sequence[str], each: int) -> list[int]:
    """Choose the calls that go wrong.

    Args:
        calls: The kinds of those that can, in their order.
        each: How many of each kind, evenly between the first and the last.

    Returns:
        Numbers of calls, from 1.
    """
    chosen: set[int] = set()
    for kind in set(calls):
        numbers = [number for number, call in enumerate(calls, start=1) if call == kind]
        last, steps = len(numbers) - 1, max(each - 1, 1)
        chosen |= {numbers[last * step // steps] for step in range(each)}
    return sorted(chosen)


def outcomes(options: argparse.Namespace) -> Iterator[Outcome]:
    """Inject everything, one fault after another."""
    from tests.faults.operations import operations, written_in_place

    with TemporaryDirectory(dir=_MEMORY if _MEMORY.is_dir() else None) as place:
        folder = Path(place)
        (folder / "templates").mkdir()
        with operations(folder / "templates") as known:
            for operation in [written_in_place()] if options.control else known:
                if options.only in operation.name:
                    yield from _of(Bench(operation, folder), options)


def _of(bench: Bench, options: argparse.Namespace) -> Iterator[Outcome]:
    name = bench.operation.name
    for place in sorted(bench.unsynced()):
        said = f"{place} is given its name before it is on the disk"
        yield Outcome(name, "power cut", 0, 0, "", "torn", [], [said])
    planned = [
        (fault, nth) for fault in shim.FAULTS for nth in moments(bench.calls(fault), options.each)
    ]
    for fault, nth in planned[len(name) % options.one_in :: options.one_in]:
        if outcome := bench.inject(fault, nth):
            yield outcome


def rows(found: Sequence[Outcome]) -> list[str]:
    """The table in Markdown: a row for each fault, a column for each operation."""
    names = list(dict.fromkeys(outcome.operation for outcome in found))
    lines = [
        f"| fault | {' | '.join(names)} | injected | torn | left, and taken up |",
        "|---|" + "---:|" * (len(names) + 3),
    ]
    for fault in [fault.name for fault in shim.FAULTS] + [""]:
        of_fault = [outcome for outcome in found if fault in {outcome.fault, ""}]
        by_name = {name: [o for o in of_fault if o.operation == name] for name in names}
        cells = [_cell(by_name[name]) for name in names]
        torn = sum(outcome.state == "torn" for outcome in of_fault)
        left = sum(bool(outcome.leftovers) for outcome in of_fault)
        cells += [str(len(of_fault)), str(torn), str(left)]
        lines.append(f"| {fault or '**all**'} | {' | '.join(cells)} |")
    return lines


def _cell(found: Sequence[Outcome]) -> str:
    """How often the old result was found, and how often the new one."""
    count = Counter(outcome.state for outcome in found)
    return f"{count['old']} + {count['new']}" if found else ""


def main() -> int:
    """Run, print, write; return 1 if anything is torn or does not hold."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--each", type=int, default=3, help="calls of each kind that go wrong")
    parser.add_argument("--one-in", type=int, default=1, help="inject one fault in so many")
    parser.add_argument("--control", action="store_true", help="only what must be found torn")
    parser.add_argument("--only", default="", help="operations with this in their name")
    parser.add_argument("--json", type=Path, help="a file for all outcomes")
    parser.add_argument("--write", action="store_true", help="renew docs/faults.md")
    arguments = parser.parse_args()
    if _PRELOADED not in os.environ:
        return _call_again()
    found = list(outcomes(arguments))
    if arguments.json:
        arguments.json.write_text(json.dumps([asdict(outcome) for outcome in found]))
    lines = rows(found)
    wrong = [outcome for outcome in found if outcome.wrong]
    complaints = [f"{o.operation}, {o.fault}, call {o.nth}: {'; '.join(o.wrong)}" for o in wrong]
    total = f"{len(found)} faults, {len(wrong)} of them not survived"
    sys.stdout.write("\n".join([*lines, "", *complaints, total, ""]))
    if arguments.write and not wrong:
        write(lines)
    return 1 if wrong else 0


def write(lines: Iterable[str]) -> None:
    """Put the table into its page."""
    before, _, rest = PAGE.read_text(encoding="utf-8").partition(_BEGIN)
    after = rest.partition(_END)[2]
    text = "\n".join([*lines, ""])
    PAGE.write_text(f"{before}{_BEGIN}\n{text}\n{_END}{after}", encoding="utf-8")


def _call_again() -> int:
    """Run this program with the shim in front of the C library."""
    import subprocess

    with TemporaryDirectory() as folder:
        environment = {
            "LD_PRELOAD": str(shim.build(Path(folder))),
            "PYTHONDONTWRITEBYTECODE": "1",
            "HF_HUB_VERBOSITY": "error",  # as the command has it
            "HF_HUB_DISABLE_SYMLINKS_WARNING": "1",
            "HF_HUB_DISABLE_PROGRESS_BARS": "1",
            _PRELOADED: "1",
        }
        command = [sys.executable, "-m", "tests.faults.table", *sys.argv[1:]]
        return subprocess.run(command, env=os.environ | environment, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
