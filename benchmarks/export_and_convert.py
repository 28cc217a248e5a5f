"""Conversion and ONNX export of a RegNetY-4.0GF beside ``optimum-cli export onnx`` and timmx.

``python -m benchmarks.export_and_convert`` makes what it needs (two checkpoints by the real pycls,
a converted folder, the others in virtual environments of their own), measures whole commands in
turn, prints the tables and writes them into ``docs/benchmarks.md``. It asserts nothing: times
belong to a machine, and the page says which.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.measure import interleaved
from benchmarks.optimum import installed_versions, optimum_cli
from benchmarks.tables import (
    Target,
    installed,
    listed,
    machine,
    measurements_table,
    replace_measured,
    targets_table,
)
from benchmarks.timmx import PACKAGES as TIMMX_PACKAGES
from benchmarks.timmx import timmx

if TYPE_CHECKING:
    from benchmarks.measure import Summary

CHECKOUT = Path(__file__).resolve().parent.parent

SUBJECT = "RegNetY-4.0GF"
LARGE = "RegNetY-32GF"
"""With optimiser state 1.16 GB."""

OPTIMUM = "optimum"
TIMMX = "timmx"
TIMM_NAME = "regnety_040"
"""What timm calls :data:`SUBJECT`."""

COMMANDS = {
    OPTIMUM: "optimum-cli export onnx -m out/ --task image-classification optimum-out/",
    TIMMX: f"timmx export onnx {TIMM_NAME} --checkpoint timm-in/model.safetensors --output t.onnx",
    "export": "regnet export out/ --format onnx --no-verify",
    "export-sharing": "regnet export out/ --format onnx --share-weights --no-verify",
    "convert": f"convert-pycls {SUBJECT}.pyth new-out/ --force",
    "help": "regnet --help",
    "inspect": f"regnet inspect {LARGE}.pyth",
}
"""Key to the command line, as a user types it in the work folder."""

_ANSWER_LIMIT = 0.5
_OF_TIMMX = 0.3


def main() -> None:
    """Prepare, measure, report."""
    arguments = _arguments()
    work: Path = arguments.work.resolve()
    programs = _prepare(work, arguments)
    commands = {key: _command(line, programs) for key, line in COMMANDS.items()}
    conditions = _conditions(arguments)
    summaries = interleaved(commands, arguments.runs, work, _say)
    text = "\n\n".join(
        [
            conditions,
            measurements_table(COMMANDS, summaries, OPTIMUM),
            targets_table(_targets(summaries)),
        ]
    )
    sys.stdout.write(f"{text}\n")
    replace_measured("export_and_convert", text)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--runs", type=int, default=5, help="rounds that count, after a warm-up")
    parser.add_argument("--work", type=Path, default=CHECKOUT / "build" / "benchmarks")
    parser.add_argument(
        "--optimum",
        type=Path,
        default=CHECKOUT / ".venv-optimum",
        help="optimum's virtual environment, made if it is missing",
    )
    parser.add_argument(
        "--timmx",
        type=Path,
        default=CHECKOUT / ".venv-timmx",
        help="likewise timmx's",
    )
    return parser.parse_args()


def _prepare(work: Path, arguments: argparse.Namespace) -> dict[str, list[str]]:
    """Make whatever is missing, and give what begins each program by its name."""
    work.mkdir(parents=True, exist_ok=True)
    scripts = Path(sys.executable).parent
    programs = {name: [str(scripts / name)] for name in ("regnet", "convert-pycls")}
    _say("the others' virtual environments")
    programs["optimum-cli"] = [str(optimum_cli(arguments.optimum.absolute()))]
    programs["timmx"] = timmx(arguments.timmx.absolute())
    for name in (SUBJECT, LARGE):
        path = work / f"{name}.pyth"
        if not path.is_file():
            _say(path.name)
            _run(CHECKOUT, sys.executable, "-m", "benchmarks.make_checkpoint", name, str(path))
    _say("the converted folder")
    _run(work, *programs["convert-pycls"], f"{SUBJECT}.pyth", "out/", "--force", "--quiet")
    weights = ("timm-in/", "--to", "timm", "--force", "--quiet")
    _run(work, *programs["convert-pycls"], f"{SUBJECT}.pyth", *weights)
    shutil.rmtree(work / "optimum-out", ignore_errors=True)
    return programs


def _run(folder: Path, *command: str) -> None:
    environment = os.environ | {"PYTHONPATH": str(CHECKOUT)}
    subprocess.run(command, cwd=folder, env=environment, check=True)  # noqa: S603 -- our own


def _command(line: str, programs: dict[str, list[str]]) -> list[str]:
    name, *arguments = line.split()
    return [*programs[name], *arguments]


def _conditions(arguments: argparse.Namespace) -> str:
    """The machine, how busy it is before the first run, and what is compared."""
    ours = installed("torch", "onnx", "onnxruntime")
    first = listed(installed_versions(arguments.optimum))
    second = listed(installed_versions(arguments.timmx, TIMMX_PACKAGES))
    return (
        f"{machine()} Ours: {ours}. optimum's: {first}. timmx's: {second}. "
        f"{arguments.runs} interleaved runs after a warm-up; median (smallest to largest)."
    )


def _targets(summaries: dict[str, Summary]) -> list[Target]:
    """The promises of the project, each beside what was measured."""
    theirs = summaries[OPTIMUM]

    def faster(title: str, key: str, limit: float) -> Target:
        ratio = theirs.wall.median / summaries[key].wall.median
        return Target(title, ratio, limit, "times as fast", at_least=True)

    def smaller(title: str, key: str, limit: float) -> Target:
        ratio = summaries[key].peak.median / theirs.peak.median
        return Target(title, ratio, limit, "of its memory", at_least=False)

    def answer(title: str, key: str) -> Target:
        return Target(title, summaries[key].wall.median, _ANSWER_LIMIT, "s", at_least=False)

    return [
        faster("self-contained export at least 8 times as fast as optimum", "export", 8),
        smaller("self-contained export in at most half of its memory", "export", 1 / 2),
        faster("sharing export at least 15 times as fast", "export-sharing", 15),
        smaller("sharing export in at most an eighth of its memory", "export-sharing", 1 / 8),
        faster("whole conversion, verification included, in half of its time", "convert", 2),
        Target(
            "whole conversion in at most 0.3 of timmx's export and check",
            summaries["convert"].wall.median / summaries[TIMMX].wall.median,
            _OF_TIMMX,
            "of its time",
            at_least=False,
        ),
        answer("`regnet --help` within half a second", "help"),
        answer("`regnet inspect` of 1.16 GB within half a second", "inspect"),
    ]


def _say(text: str) -> None:
    sys.stderr.write(f"{text}\n")


if __name__ == "__main__":
    main()
