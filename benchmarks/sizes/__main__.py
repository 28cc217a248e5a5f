"""``python -m benchmarks.sizes --scratch FOLDER``: the tables and the plot, see the package.

They go into ``docs/benchmarks.md`` and ``docs/sizes.svg`` after every source, so a run that is
ended early leaves what it has measured. Exit status 1 if a command of ours did not come to its end.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.optimum import installed_versions, optimum_cli
from benchmarks.sizes.contenders import programs
from benchmarks.sizes.contest import LARGE, Conditions, contest
from benchmarks.sizes.plot import Line, Panel, growth_svg
from benchmarks.sizes.report import (
    anonymous_of,
    available_memory,
    memory_of_machine,
    network_table,
    settled_of,
)
from benchmarks.sizes.sources import CHECKOUT, CONSOLIDATED, SHARDS, SOURCES
from benchmarks.tables import PAGE, installed, listed, machine, replace_measured

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from benchmarks.sizes.contest import Result

NETWORKS = ("RegNetY-200MF", "RegNetY-4.0GF", "RegNetY-32GF", "RegNetY-128GF", "RegNetY-10B")

GIANT_SOURCES = (CONSOLIDATED, SHARDS)
"""The two layouts that the largest network is published in; of 37 GB each more would take long."""

PLOT = "sizes.svg"

_GIGABYTE = 10**9
_MEGABYTE = 10**6
_LEAST_MEGABYTES = 0.1

_KEPT_FREE = 2 * _GIGABYTE
"""Memory that no contender gets, for the page cache and everybody else."""


def main() -> None:
    """Measure and report, network by network."""
    arguments = _arguments()
    scratch = arguments.scratch.resolve() / "regnet-sizes"
    shutil.rmtree(scratch, ignore_errors=True)  # what a run that was killed left
    scratch.mkdir(parents=True)
    _say("optimum's virtual environment")
    found = programs(optimum_cli(arguments.optimum.absolute()))
    most = round(arguments.memory * _GIGABYTE) or available_memory() - _KEPT_FREE
    conditions = Conditions(scratch, found, arguments.runs, most, _say)
    words = _conditions(conditions, arguments.optimum)
    tables: list[str] = []
    results: list[Result] = []
    for network in arguments.networks:
        sparse = network in arguments.sparse
        sources, density = (GIANT_SOURCES, arguments.density) if sparse else (SOURCES, 1.0)
        new: list[Result] = []
        for source in sources:
            new += contest(network, source, density, conditions)
            _report("\n\n".join([words, *tables, network_table(network, new)]), [*results, *new])
        results += new
        tables.append(network_table(network, new))
    sys.stdout.write("\n\n".join([words, *tables]) + "\n")
    shutil.rmtree(scratch)
    missing = [result for result in results if result.contender.is_ours and result.reason]
    if missing:
        sys.exit(f"{len(missing)} commands of ours did not come to their end; see the table.")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.sizes", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument("--networks", nargs="+", default=NETWORKS, metavar="NETWORK")
    parser.add_argument(
        "--scratch",
        type=Path,
        default=CHECKOUT / "build" / "sizes",
        help="takes one source and one output: twice the weights of the largest network",
    )
    parser.add_argument("--runs", type=int, default=5, help="rounds of sources up to 1 GB")
    parser.add_argument(
        "--sparse",
        nargs="*",
        default=["RegNetY-10B"],
        help="networks with holes in their sources, in VISSL's layouts alone",
    )
    parser.add_argument(
        "--density",
        type=float,
        default=0.05,
        help="of those: how much of them is written; many holes take long to delete",
    )
    parser.add_argument(
        "--memory", type=float, default=0, help="GB at which to stop; default: what is available"
    )
    parser.add_argument(
        "--optimum",
        type=Path,
        default=CHECKOUT / ".venv-optimum",
        help="optimum's virtual environment, made if it is missing",
    )
    return parser.parse_args()


def _conditions(conditions: Conditions, optimum_environment: Path) -> str:
    """The machine, what is compared, and how."""
    ours = installed("torch", "safetensors", "transformers", "timm", "onnx", "onnxscript")
    theirs = listed(installed_versions(optimum_environment))
    return (
        f"{machine()} {memory_of_machine()}; a contender is stopped at "
        f"{conditions.most_anonymous / _GIGABYTE:.1f} GB of anonymous memory. {ours}. "
        f"optimum's environment: {theirs}. Sources up to {LARGE / _GIGABYTE:g} GB: "
        f"in turn, {conditions.runs} times after a warm-up, median (smallest to largest), memory "
        "the largest; larger ones: once."
    )


def _report(text: str, results: Sequence[Result]) -> None:
    done = [result for result in results if result.contender.plotted and result.runs]
    if done:
        svg = growth_svg(
            _panel("seconds until the output is on the disk", done, _seconds),
            _panel("peak anonymous memory, MB", done, _megabytes),
            "size of the checkpoint, GB",
        )
        PAGE.with_name(PLOT).write_text(svg, encoding="utf-8")
    replace_measured("sizes/__main__", f"{text}\n\n![Growth with size]({PLOT})" if done else text)


def _panel(title: str, results: Sequence[Result], measured: Callable[[Result], float]) -> Panel:
    lines: dict[str, list[tuple[float, float]]] = {}
    for result in results:
        name = result.contender.title.replace("`", "")
        lines.setdefault(name, []).append((result.source.size / _GIGABYTE, measured(result)))
    return Panel(title, [Line(name, points) for name, points in lines.items()])


def _seconds(result: Result) -> float:
    return settled_of(result).median


def _megabytes(result: Result) -> float:
    # 0 has no place on a logarithmic axis: a command may end before it is looked at.
    return max(anonymous_of(result) / _MEGABYTE, _LEAST_MEGABYTES)


def _say(text: str) -> None:
    sys.stderr.write(f"{text}\n")


if __name__ == "__main__":
    main()
