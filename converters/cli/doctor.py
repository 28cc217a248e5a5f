"""`regnet doctor`: what is installed, what can be done with it, and how to install the rest."""

from __future__ import annotations

from typing import TYPE_CHECKING

from converters.cli.console import Output
from converters.cli.options import Json, Quiet
from converters.cli.tables import facts_table

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from converters.jobs.doctor import Diagnosis, Part


def doctor_command(*, as_json: Json = False, quiet: Quiet = False) -> None:
    """Say what is installed, what can be read, written and run here, and how to install the rest.

    Exit status 4 if a package is missing that nothing works without.

    Example: regnet doctor
    """
    from converters.jobs.doctor import doctor

    output = Output(as_json, quiet)
    diagnosis = doctor()
    output.result(facts_table(_facts(diagnosis)))
    if diagnosis.install:
        output.result("", f"What is missing to read, write and run: {diagnosis.install}")
    output.record(diagnosis.to_dict())
    diagnosis.require_packages()


def _facts(diagnosis: Diagnosis) -> Iterator[tuple[str, str]]:
    yield "regnet", f"{diagnosis.version}, Python {diagnosis.python}, {diagnosis.system}"
    gpus = "; ".join(diagnosis.gpus) or "none of NVIDIA's found"
    yield "GPU", f"{gpus}; none is needed, since verdicts are computed on the processor"
    yield from _group("packages", diagnosis.packages)
    yield from _group("reads", diagnosis.reads, packages=False)
    yield from _group("writes (--to)", diagnosis.writes, packages=False)
    yield from _group("formats", diagnosis.formats)
    yield from _group("runtimes", diagnosis.runtimes)
    yield from _group("verify --against", diagnosis.frameworks)
    yield from _group("extras", diagnosis.extras, packages=False)


def _group(
    title: str, parts: Iterable[Part], *, packages: bool = True
) -> Iterator[tuple[str, str]]:
    """What is there in a line, then a line for each reason why something is not."""
    there, missing = [], dict[str, list[str]]()
    for part in parts:
        if part.lacks:
            remedy = f"; {part.install}" if part.install else ""
            missing.setdefault(f"{part.lacks}{remedy}", []).append(part.name)
        else:
            there.append(_named(part) if packages else part.name)
    yield title, ", ".join(there) or "-"
    for why, names in missing.items():
        yield "", f"{', '.join(names)}: {why}"


def _named(part: Part) -> str:
    """A name, and the package behind it if that is called otherwise."""
    if part.found is None or part.found.partition(" ")[0] == part.name:
        return part.found or part.name
    return f"{part.name} ({part.found})"
