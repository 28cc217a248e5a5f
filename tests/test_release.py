"""What a release says of itself says the same everywhere."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import yaml

from converters.errors import DISTRIBUTION
from regnet import __version__

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
CITATION = yaml.safe_load((ROOT / "CITATION.cff").read_text("utf-8"))

REQUIRED = {"authors", "cff-version", "message", "title"}
"""Keys that the schema of CFF 1.2.0 wants of every file."""

KNOWN = REQUIRED | {"abstract", "keywords", "license", "references", "type", "version"}
"""Those of its other keys that are used; it allows none that it does not name."""


def test_the_version_has_one_place_that_all_others_follow() -> None:
    assert PROJECT["project"]["dynamic"] == ["version"]
    place = PROJECT["tool"]["hatch"]["version"]["path"]
    assert f'__version__ = "{__version__}"' in (ROOT / place).read_text("utf-8")
    assert CITATION["version"] == __version__
    newest = re.search(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text("utf-8"), re.MULTILINE)
    assert newest
    assert newest[1] == __version__


def test_the_citation_file_is_one() -> None:
    assert REQUIRED <= CITATION.keys() <= KNOWN
    assert CITATION["cff-version"] == "1.2.0"
    assert CITATION["title"] == PROJECT["project"]["name"] == DISTRIBUTION
    assert CITATION["license"] == PROJECT["project"]["license"]
    assert CITATION["type"] in {"software", "dataset"}
    for reference in (CITATION, *CITATION["references"]):
        assert reference.keys() >= {"authors", "title", "type"}
        for author in reference["authors"]:
            assert author.keys() in ({"name"}, {"family-names", "given-names"})
