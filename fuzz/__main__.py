"""Fuzz all targets in turn; exit status 1 if anything was found.

Run: make fuzz, or python -m fuzz [--minutes 120] [--folder build/fuzz] [TARGET ...]

In the folder, ``TARGET/corpus`` keeps the inputs that reached something new, and the next run goes
on from them; ``TARGET/findings`` has the inputs that ended a run (run one alone with
``python -m fuzz.worker TARGET build/fuzz/TARGET FILE``); ``log.jsonl`` is what `fuzz.log` reads.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory

from fuzz.log import Run, table

ROOT = Path(__file__).parents[1]

SLICE = 120.0
"""Seconds for a target before it is the next one's turn."""

RSS_LIMIT_MB = 1024
"""Of resident memory, some 100 MB of which are libraries."""

_FLAGS = (
    "-timeout=60",  # of the clock; fuzz.guard measures ten seconds of processor time
    "-report_slow_units=60",
    f"-rss_limit_mb={RSS_LIMIT_MB}",
    "-print_final_stats=1",
    "-use_value_profile=1",
)
_MEMORY = Path("/dev/shm")  # noqa: S108 -- Linux's file system in memory, in a folder of our own

_MAX_FINDINGS = 20
"""Of one target, after which it is no longer run."""


def fuzz(target: str, folder: Path, seconds: float) -> Run:
    """Run one process for one target, until the time is over or something is found.

    Args:
        target: Its name.
        folder: Its own.
        seconds: How long; whole ones count.
    """
    from fuzz.targets import TARGETS

    findings = folder / "findings"
    for made in (findings, folder / "corpus"):
        made.mkdir(exist_ok=True)
    before = set(findings.iterdir())
    flags = (
        f"-max_total_time={max(1, round(seconds))}",
        f"-max_len={TARGETS[target].max_len}",
        f"-artifact_prefix={findings}/",
    )
    places = (str(folder / "corpus"), str(folder / "seeds"))
    command = [sys.executable, "-m", "fuzz.worker", target, str(folder), *_FLAGS, *flags, *places]
    started = time.monotonic()
    with (
        (folder / "output.txt").open("wb") as output,
        TemporaryDirectory(dir=_MEMORY if _MEMORY.is_dir() else None) as place,
    ):
        subprocess.run(  # noqa: S603 -- our own worker
            command,
            cwd=ROOT,
            env=os.environ | {"TMPDIR": place},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            check=False,
        )
    text = (folder / "output.txt").read_text(encoding="utf-8", errors="replace")
    found = sorted(path.name for path in set(findings.iterdir()) - before)
    for name in found:
        (findings / f"{name}.txt").write_text(text[-4000:], encoding="utf-8")
    if "stat::" not in text and not found:
        raise RuntimeError(f"{target} did not start; see {folder / 'output.txt'}.")
    slowest = float((folder / "slowest").read_text() or 0)
    return Run.of_output(target, time.monotonic() - started, text, slowest, found)


def _differs(folder: Path, seconds: float) -> bool:
    """Whether torch or safetensors reads a changed file otherwise; see `fuzz.differential`."""
    options = ("--seconds", str(seconds), "--folder", str(folder))
    command = [sys.executable, "-m", "fuzz.differential", *options]
    return subprocess.run(command, cwd=ROOT, check=False).returncode != 0  # noqa: S603


def main() -> int:
    """Make the corpora, fuzz in turn until the time is over, print the table.

    Where no targets are named, a tenth of the time goes to `fuzz.differential`.
    """
    from fuzz.targets import TARGETS

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("targets", nargs="*", default=list(TARGETS), metavar="TARGET")
    parser.add_argument("--minutes", type=float, default=120.0, help="for all targets together")
    parser.add_argument("--folder", type=Path, default=ROOT / "build" / "fuzz")
    arguments = parser.parse_args()
    if unknown := set(arguments.targets) - set(TARGETS):
        parser.error(f"no such target: {min(unknown)}; there are {', '.join(TARGETS)}")
    if find_spec("atheris") is None:
        parser.error("atheris is not installed; run `make fuzz`")
    folder = arguments.folder.resolve()
    # In a process of its own: what this one has in memory counts as the peak of its children.
    subprocess.run([sys.executable, "-m", "fuzz.seeds", str(folder)], cwd=ROOT, check=True)  # noqa: S603
    runs: list[Run] = []
    left = dict.fromkeys(arguments.targets, _MAX_FINDINGS)
    differs = False
    if arguments.targets == list(TARGETS):
        differs = _differs(folder / "differential", 6 * arguments.minutes)
        arguments.minutes *= 0.9
    end = time.monotonic() + 60 * arguments.minutes
    turn = min(SLICE, 60 * arguments.minutes / len(left))
    while left and time.monotonic() < end:
        for target in tuple(left):
            run = fuzz(target, folder / target, turn)
            run.append(folder / "log.jsonl")
            print(f"{target}: {run.executions:,} executions", *run.findings, flush=True)
            runs.append(run)
            left[target] -= len(run.findings)
            if left[target] <= 0:
                del left[target]
    print("", *table(runs), sep="\n")
    return 1 if differs or any(run.findings for run in runs) else 0


if __name__ == "__main__":
    sys.exit(main())
