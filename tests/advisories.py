"""Asks the package index what is known against the pinned versions: `make audit`.

The index is the one that pip is configured with. Where it is PyPI, or a mirror that passes on
PyPI's JSON (https://docs.pypi.org/api/json/), that names the advisories of a version. Other mirrors
serve files alone; then nothing can be said, and saying so is no failure. pip-audit 2.10 asks fixed
hosts instead, which a closed network does not reach.
"""

from __future__ import annotations

import json
import ssl
import sys
from base64 import b64encode
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, unquote, urlsplit
from urllib.request import Request, urlopen

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

TIMEOUT = 20
"""Seconds for one answer."""


@dataclass(frozen=True)
class Index:
    """A package index.

    Attributes:
        url: Of its simple pages, perhaps with a user's name and password.
        certificates: A file of those to trust; None for the system's.
    """

    url: str
    certificates: str | None = None

    @classmethod
    def of_pip(cls) -> Index:
        """The index from which pip installs, as its files and variables say."""
        from pip._internal.commands import create_command

        options, _ = create_command("download").parse_args([])
        return cls(options.index_url, options.cert)

    def advisories(self, name: str, version: str) -> list[dict[str, Any]]:
        """What is known against a version and was not withdrawn.

        Raises:
            OSError: The index does not answer, or not for this.
            ValueError: It answers something else.
        """
        parts = urlsplit(self.url)
        root = parts.path.rstrip("/").removesuffix("/simple")
        place = f"{root}/pypi/{quote(name)}/{quote(version)}/json"
        host = parts.netloc.rpartition("@")[2]
        request = Request(f"{parts.scheme}://{host}{place}")  # noqa: S310 -- as pip is configured
        if parts.username:
            pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
            request.add_header("Authorization", f"Basic {b64encode(pair.encode()).decode()}")
        context = ssl.create_default_context(cafile=self.certificates)
        with urlopen(request, timeout=TIMEOUT, context=context) as answer:  # noqa: S310
            found = json.load(answer)["vulnerabilities"]
        return [advisory for advisory in found if not advisory.get("withdrawn")]


@dataclass
class Audit:
    """What was found.

    Attributes:
        asked: How many versions the index told of.
        found: A line for each advisory.
        silent: Why the index did not tell, by version.
    """

    asked: int = 0
    found: list[str] = field(default_factory=list)
    silent: dict[str, str] = field(default_factory=dict)


def pins(constraints: str) -> list[tuple[str, str]]:
    """Name and version of each line ``name==version``."""
    lines = (line.partition("#")[0].strip() for line in constraints.splitlines())
    return [
        (name, version) for name, _, version in (line.partition("==") for line in lines) if name
    ]


def audit(index: Index, versions: Iterable[tuple[str, str]]) -> Audit:
    """Ask for each version; an index that does not tell of the first is not asked again."""
    result = Audit()
    for name, version in versions:
        try:
            advisories = index.advisories(name, version)
        except (OSError, ValueError, KeyError, TypeError) as error:
            # Never the error's own words, in which the index's address may stand.
            status = getattr(error, "code", None)
            result.silent[f"{name} {version}"] = f"{type(error).__name__} {status or ''}".strip()
            if not result.asked:
                break
            continue
        result.asked += 1
        result.found += [_line(name, version, advisory) for advisory in advisories]
    return result


def _line(name: str, version: str, advisory: dict[str, Any]) -> str:
    names = ", ".join([str(advisory.get("id")), *map(str, advisory.get("aliases") or ())])
    fixed = ", ".join(map(str, advisory.get("fixed_in") or ())) or "no version"
    words = advisory.get("summary") or advisory.get("details") or ""
    return f"{name} {version}: {names}, fixed in {fixed}: {' '.join(str(words).split())[:200]}"


def main(arguments: Sequence[str], index: Index | None = None) -> int:
    """Print the advisories against what a constraints file pins; return the exit status.

    Returns:
        1 if there are any, else 0, also where the index does not tell.
    """
    versions = pins(Path(arguments[0]).read_text(encoding="utf-8"))
    result = audit(index or Index.of_pip(), versions)
    lines = list(result.found)
    if not result.asked:
        (why,) = result.silent.values() or ("there are none",)
        lines.append(f"No advisories could be read: the index of pip does not tell ({why}).")
    else:
        lines.append(f"Advisories against {result.asked} versions: {len(result.found)}.")
        lines += [f"No answer for {version} ({why})." for version, why in result.silent.items()]
    sys.stdout.write("\n".join(lines) + "\n")
    return 1 if result.found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
