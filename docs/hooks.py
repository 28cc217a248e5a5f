"""How the pages of this folder become a site (`mkdocs.yml`), where they link to the repository.

Whoever reads a page on GitHub follows its links into the repository; in the site each file that a
page links to is a page of its own, below ``repository/``.
"""

from __future__ import annotations

import json
import posixpath
import re
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import Files
    from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[1]
DOCS = Path(__file__).parent.name

OUTSIDE = "repository/"
"""Where files from outside of this folder are in the site."""

_CODE = re.compile(r"^(?P<fence>`{3,}).*?^(?P=fence)$|`[^`\n]+`", re.DOTALL | re.MULTILINE)
_LINK = re.compile(r"(?P<before>\]\()(?P<target>[^)\s#]*)(?P<anchor>#[^)\s]*)?(?P<after>\))")
_ELSEWHERE = ("http://", "https://", "mailto:")
_LANGUAGES = {".py": "python", ".yml": "yaml", ".toml": "toml", ".json": "json", ".sh": "sh"}


def links(text: str) -> Iterator[tuple[str, str]]:
    """The targets of a page's links into the repository, each with its anchor or nothing.

    Args:
        text: The page, in Markdown. What looks like a link in code is none.
    """
    for match in _LINK.finditer(_CODE.sub("", text)):
        if not match["target"].startswith(_ELSEWHERE):
            yield match["target"], (match["anchor"] or "")[1:]


def target_of(page: str, link: str) -> str:
    """The path of a link's target from the root of the repository, without its anchor.

    Args:
        page: The page that has the link, likewise.
        link: As it stands there.
    """
    return posixpath.normpath(posixpath.join(posixpath.dirname(page), link)) if link else page


def in_site(path: str) -> str:
    """Where the site has the source of a file; a path from the root of the repository."""
    if path.startswith(f"{DOCS}/"):
        return path.removeprefix(f"{DOCS}/")
    return f"{OUTSIDE}{path}" if path.endswith(".md") else f"{OUTSIDE}{path}.md"


def in_repository(source: str) -> str:
    """The other way round, of what is a page in the repository as well."""
    return source.removeprefix(OUTSIDE) if source.startswith(OUTSIDE) else f"{DOCS}/{source}"


@cache
def outside() -> tuple[str, ...]:
    """Files outside of this folder that a page of the site links to, by whatever way."""
    waiting = [f"{DOCS}/{page.name}" for page in sorted((ROOT / DOCS).glob("*.md"))]
    found: dict[str, None] = {}
    while waiting:
        page = waiting.pop()
        for link, _ in links((ROOT / page).read_text("utf-8")):
            target = target_of(page, link)
            if not target.startswith(f"{DOCS}/") and target not in found:
                found[target] = None
                waiting += [target] if target.endswith(".md") else []
    return tuple(found)


def shown(path: str) -> str:
    """The page on a file: its own text if it is a page, else what is in it."""
    text = (ROOT / path).read_text("utf-8")
    if path.endswith(".md"):
        return text
    if path.endswith(".ipynb"):
        cells = [(cell["cell_type"], "".join(cell["source"])) for cell in json.loads(text)["cells"]]
        body = "\n\n".join(_fenced(t, "python") if kind == "code" else t for kind, t in cells)
    else:
        body = f"# {path}\n\n{_fenced(text, _LANGUAGES.get(Path(path).suffix, ''))}"
    return f"---\nsearch:\n  exclude: true\n---\n{body}\n"


def _fenced(code: str, language: str) -> str:
    return f"````{language}\n{code.rstrip()}\n````"


def on_files(files: Files, *, config: MkDocsConfig) -> Files:
    """Add what lies outside of this folder and is linked to."""
    from mkdocs.structure.files import File

    for path in outside():
        files.append(File.generated(config, in_site(path), content=shown(path)))
    return files


def on_page_markdown(markdown: str, *, page: Page, **_: object) -> str:
    """Let links lead to where the site has their targets."""
    source = page.file.src_uri
    here, folder = in_repository(source), posixpath.dirname(source)

    def replaced(match: re.Match[str]) -> str:
        if match["target"].startswith(_ELSEWHERE) or not match["target"]:
            return match[0]
        target = posixpath.relpath(in_site(target_of(here, match["target"])), folder or ".")
        return f"{match['before']}{target}{match['anchor'] or ''}{match['after']}"

    parts, at = [], 0
    for code in _CODE.finditer(markdown):
        parts += [_LINK.sub(replaced, markdown[at : code.start()]), code[0]]
        at = code.end()
    return "".join([*parts, _LINK.sub(replaced, markdown[at:])])
