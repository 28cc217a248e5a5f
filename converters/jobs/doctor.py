"""`regnet doctor` and `converters.doctor`: what is installed, and what can be done with it here.

It asks the tables of formats and families, and what is recorded of installed packages, none of
which is imported.
"""

from __future__ import annotations

import platform
import re
import subprocess
import tomllib
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from shutil import which
from typing import Any, NamedTuple

from converters.errors import DISTRIBUTION, StorageError, is_installed, release
from converters.families.known import FAMILIES, written_back
from converters.formats.registry import FORMATS, OTHER_RUNTIMES
from regnet import __version__

_REQUIREMENT = re.compile(
    r"(?P<package>[\w.-]+)\s*(?:>=\s*(?P<least>[\w.]+))?[^;]*"
    r"(?:;.*\bextra\s*==\s*['\"](?P<extra>[\w-]+)['\"])?"
)
_PATIENCE = 10
"""Seconds that the driver of a GPU may take to answer."""


@dataclass(frozen=True, slots=True)
class Part:
    """A package that a machine may have, or something that may be possible on it.

    Attributes:
        name: Of the package, or as the command line spells it.
        found: The package behind it, with its version; None where none is needed or there.
        lacks: What is missing, as a clause; None if nothing is.
        install: The command that brings what is missing; None where pip cannot help.
        extra: The extra of this project that brings it, if one does.
    """

    name: str
    found: str | None = None
    lacks: str | None = None
    install: str | None = None
    extra: str | None = None


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """What a machine has, and what can be done with it.

    Attributes:
        version: Of this project.
        python: Its version, and which it is.
        system: Its name and the kind of processor.
        gpus: Those that NVIDIA's driver names. Nothing here needs one.
        packages: What this project cannot do without.
        reads: Whose checkpoints.
        writes: For whom a converted folder can be written back (``--to``).
        formats: What can be exported, judged and run.
        runtimes: What else runs some formats (``--runtime``).
        frameworks: Whose own networks ``verify --against`` runs.
        extras: All that this project has.
    """

    version: str
    python: str
    system: str
    gpus: tuple[str, ...]
    packages: tuple[Part, ...]
    reads: tuple[Part, ...]
    writes: tuple[Part, ...]
    formats: tuple[Part, ...]
    runtimes: tuple[Part, ...]
    frameworks: tuple[Part, ...]
    extras: tuple[Part, ...]

    @property
    def install(self) -> str | None:
        """The command that brings whatever is missing for reading, writing and running."""
        parts = (*self.reads, *self.writes, *self.formats, *self.runtimes)
        missing = sorted({part.extra for part in parts if part.lacks and part.extra})
        return _of_extra(",".join(missing)) if missing else None

    def require_packages(self) -> None:
        """Do nothing if what this project cannot do without is there.

        Raises:
            StorageError: If a package is missing or too old.
        """
        lacking = [part.lacks for part in self.packages if part.lacks]
        if lacking:
            raise StorageError(
                f"{'; '.join(lacking)}; install what is needed with `pip install {DISTRIBUTION}`."
            )

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self) | {"install": self.install}


class _Requirement(NamedTuple):
    package: str
    least: str | None
    extra: str | None

    def part(self) -> Part:
        """Whether the package is there, and new enough."""
        version = _version(self.package)
        found = version and f"{self.package} {version}"
        if version is None:
            lacks = f"{self.package} is not installed"
        elif self.least and _numbers(version) < _numbers(self.least):
            lacks = f"{found} is older than {self.least}"
        else:
            return Part(self.package, found, extra=self.extra)
        return Part(self.package, found, lacks, _of_extra(self.extra), self.extra)


def doctor() -> Diagnosis:
    """Say what is installed, and what can be read, written and run with it.

    >>> diagnosis = doctor()
    >>> [part.name for part in diagnosis.formats if not part.lacks][:2]
    ['onnx', 'onnx-fp16']
    """
    requirements = _requirements()
    families = {name: known.family for name, known in FAMILIES.items()}
    others = {name: other for name, (_, other) in OTHER_RUNTIMES.items()}
    files = {name: _needing(name, family.needs) for name, family in families.items()}
    return Diagnosis(
        version=__version__,
        python=f"{platform.python_version()}, {platform.python_implementation()}",
        system=f"{platform.system()} {platform.machine()}",
        gpus=_gpus(),
        packages=tuple(each.part() for each in requirements if each.extra is None),
        reads=tuple(files.values()),
        writes=tuple(files[name] for name in written_back()),
        formats=tuple(_needing(name, kind.needs, kind.lacks()) for name, kind in FORMATS.items()),
        runtimes=tuple(
            _needing(name, other.needs or OTHER_RUNTIMES[name][0].needs)
            for name, other in others.items()
        ),
        frameworks=tuple(
            _framework(name, family.package, family.how_to_install)
            for name, family in families.items()
            if family.build is not None
        ),
        extras=_extras(requirements),
    )


def _requirements() -> list[_Requirement]:
    """What the installed project asks for; what the checkout does, if it is not installed."""
    try:
        texts = metadata.requires(DISTRIBUTION) or []
    except metadata.PackageNotFoundError:
        texts = _of_checkout()
    matches = (_REQUIREMENT.match(text) for text in texts)
    return [_Requirement(*match.group("package", "least", "extra")) for match in matches if match]


def _of_checkout() -> list[str]:
    page = Path(__file__).parents[2] / "pyproject.toml"
    if not page.is_file():
        return []
    project = tomllib.loads(page.read_text("utf-8"))["project"]
    optional = project["optional-dependencies"].items()
    return [
        *project["dependencies"],
        *(f"{text}; extra == '{extra}'" for extra, texts in optional for text in texts),
    ]


def _extras(requirements: list[_Requirement]) -> tuple[Part, ...]:
    """One for each extra; of its packages the first that is missing speaks."""
    found: dict[str, list[Part]] = {}
    for requirement in requirements:
        if requirement.extra:
            found.setdefault(requirement.extra, []).append(requirement.part())
    return tuple(
        Part(extra, parts[0].found, lacks, _of_extra(extra) if lacks else None, extra)
        for extra, parts in found.items()
        for lacks in [next((part.lacks for part in parts if part.lacks), None)]
    )


def _needing(name: str, needs: tuple[str, str] | None, lacks: str | None = None) -> Part:
    """What is possible once a package is there, and nothing else is lacking."""
    if needs is None:
        return Part(name, lacks=lacks)
    package, extra = needs
    if not is_installed(package):
        return Part(name, None, f"{package} is not installed", _of_extra(extra), extra)
    return Part(name, _found(package), lacks, None, extra)


def _framework(name: str, package: str, install: str) -> Part:
    if not is_installed(package):
        return Part(name, None, f"{package} is not installed", install)
    return Part(name, _found(package))


def _of_extra(extra: str | None) -> str:
    return f'pip install "{DISTRIBUTION}[{extra}]"' if extra else f"pip install {DISTRIBUTION}"


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _found(package: str) -> str:
    """A package with its version, unless pip calls it otherwise than it is imported."""
    return " ".join(filter(None, (package, _version(package))))


def _numbers(version: str) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", release(version))]


def _gpus() -> tuple[str, ...]:
    """Names, and the version of the driver."""
    program = which("nvidia-smi")
    if program is None:
        return ()
    query = [program, "--query-gpu=name,driver_version", "--format=csv,noheader"]
    try:
        answer = subprocess.run(  # noqa: S603 -- the driver's own program
            query, capture_output=True, text=True, timeout=_PATIENCE, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return ()
    return tuple(answer.stdout.splitlines()) if answer.returncode == 0 else ()
