"""What README and docs say exists: links, pages, commands, options, code, messages, words."""

from __future__ import annotations

import ast
import re
import shlex
import tomllib
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml
from typer.main import get_command

from converters.cli import tables
from converters.cli.app import app
from converters.cli.front import COMMANDS
from converters.formats.registry import FORMATS
from converters.reports.row import COLUMNS
from docs import hooks, reference

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"

PAGES = sorted(
    path.relative_to(ROOT).as_posix()
    for path in (*ROOT.glob("*.md"), *DOCS.glob("*.md"), ROOT / "attacks" / "README.md")
)

NOT_OURS = ("hf", "model_signing", "openssl", "pip", "pytest")
"""Programs of others, which are not called: they want keys, an account, a network or tests."""


OPTIONS_OF_OTHERS = {"--help", "--regnet-folder", "--extra-index-url", "--part"}
"""Of every program, our plugin of pytest, pip, and `benchmarks.false_alarms`."""


class Block(NamedTuple):
    """A block of code in a page."""

    page: str
    number: int
    language: str
    text: str

    def __str__(self) -> str:
        return f"{self.page}:{self.number}"


@cache
def text_of(page: str) -> str:
    return (ROOT / page).read_text("utf-8")


def blocks(*languages: str) -> list[Block]:
    found = []
    for page in PAGES:
        fences = re.findall(r"^```(\w*)\n(.*?)^```$", text_of(page), re.DOTALL | re.MULTILINE)
        found += [Block(page, n, language, text) for n, (language, text) in enumerate(fences, 1)]
    return [block for block in found if block.language in languages]


def lines(block: Block) -> list[list[str]]:
    """The commands of a block, as words; of what a console shows those behind a dollar sign."""
    text = block.text.replace("\\\n", " ")
    given = text.splitlines()
    if block.language == "console":
        given = [line[2:] for line in given if line.startswith("$ ")]
    return [words for line in given if (words := shlex.split(line, comments=True))]


def first_cells(page: str) -> list[str]:
    """The first column of all tables of a page."""
    return re.findall(r"^\| (.*?) \|", text_of(page), re.MULTILINE)


def code_in(texts: list[str]) -> list[str]:
    return [code for text in texts for code in re.findall(r"`([^`]+)`", text)]


def prose(page: str) -> str:
    """A page without its blocks of code."""
    return re.sub(r"^```.*?^```$", "", text_of(page), flags=re.DOTALL | re.MULTILINE)


def anchors(page: str) -> set[str]:
    """What GitHub and the site call the headings of a page."""
    headings = re.findall(r"^#+ (.*)$", prose(page), re.MULTILINE)
    plain = (re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", heading) for heading in headings)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in plain}


@pytest.mark.parametrize("page", PAGES)
def test_every_link_leads_somewhere(page: str) -> None:
    for link, anchor in hooks.links(text_of(page)):
        target = hooks.target_of(page, link)
        assert (ROOT / target).is_file(), f"{page} links to {link}"
        if anchor and target.endswith(".md"):
            assert anchor in anchors(target), f"{page} links to {link}#{anchor}"


@pytest.mark.parametrize("page", PAGES)
def test_lists_and_tables_are_such_in_the_site_too(page: str) -> None:
    """There an empty line must stand before one, and four blanks before one inside a list."""
    text = prose(page)
    assert not re.findall(r"^[^\s|#-].*\n(?:- |1\. |\|).*", text, re.MULTILINE)
    assert not re.findall(r"^ {1,3}(?:- |\d+\. ).*", text, re.MULTILINE)


def nav() -> dict[str, tuple[str, ...]]:
    """The pages of the site, each with the titles that lead to it."""

    class Loader(yaml.SafeLoader):
        """As mkdocs reads it, but for what it would call."""

    Loader.add_multi_constructor("tag:yaml.org,2002:python/", lambda *_: None)
    settings = yaml.load((ROOT / "mkdocs.yml").read_text("utf-8"), Loader)  # noqa: S506

    def walk(entries: list[dict[str, Any]], titles: tuple[str, ...]) -> None:
        for entry in entries:
            for title, inside in entry.items():
                if isinstance(inside, str):
                    found[inside] = (*titles, title)
                else:
                    walk(inside, (*titles, title))

    found: dict[str, tuple[str, ...]] = {}
    walk(settings["nav"], ())
    return found


def test_every_page_is_three_clicks_away() -> None:
    found = nav()
    assert {page.name for page in DOCS.glob("*.md")} == {p for p in found if "/" not in p}
    assert all(len(titles) <= 2 for titles in found.values())
    outside = {hooks.in_repository(page) for page in found if "/" in page}
    assert outside <= set(hooks.outside())


def test_pages_that_the_code_ends_have_room_for_it() -> None:
    for marker, written in reference.GENERATED.items():
        assert [page for page in PAGES if marker in text_of(page)]
        assert marker not in reference.on_page_markdown(marker)
        assert written() in reference.on_page_markdown(marker)
    assert all(f"### `regnet {name}`" in reference.options() for name in COMMANDS)


def test_links_out_of_the_folder_lead_to_pages_of_the_site() -> None:
    page = type("Page", (), {"file": type("File", (), {"src_uri": "a.md"})})
    text = "[x](../SECURITY.md#hdf5) `[y](z)` [c](../hubconf.py) [p](parity.md#inputs) [](http://h)"
    assert hooks.on_page_markdown(text, page=page) == (
        "[x](repository/SECURITY.md#hdf5) `[y](z)` [c](repository/hubconf.py.md) "
        "[p](parity.md#inputs) [](http://h)"
    )
    code = "````python\nx[0](../y.py)\n```\nx[0](../y.py)\n````\n"
    assert hooks.on_page_markdown(code, page=page) == code
    page.file.src_uri = "repository/attacks/README.md"
    text = "[x](../docs/parity.md) [y](../SECURITY.md)"
    assert hooks.on_page_markdown(text, page=page) == "[x](../../parity.md) [y](../SECURITY.md)"


@pytest.mark.parametrize("block", blocks("sh", "console"), ids=str)
def test_every_command_line_can_be_called(block: Block) -> None:
    group: Any = get_command(app)
    targets = re.findall(r"^([\w-]+):", text_of("Makefile"), re.MULTILINE)
    for program, *given in lines(block):
        words = given[: given.index(">")] if ">" in given else given
        if program == "regnet" and words[0] in COMMANDS:
            group.commands[words[0]].make_context(words[0], words[1:])
        elif program == "regnet":
            assert set(words) <= {option for each in group.params for option in each.opts}
        elif program.startswith("convert-"):
            assert program in project()["scripts"]
            group.commands["convert"].make_context("convert", words)
        elif program == "make":
            assert set(words) <= set(targets)
        elif program == "python":
            assert find_spec(words[1]) if words[0] == "-m" else (ROOT / words[0]).exists(), words
        else:
            assert program in NOT_OURS, program


@cache
def project() -> dict[str, Any]:
    return dict(tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"])


@pytest.mark.parametrize("block", blocks(""), ids=str)
def test_what_can_be_called_is_marked_as_a_shell_s(block: Block) -> None:
    """Else nobody would look whether it can be."""
    assert not re.search(r"^(\$ )?(regnet|convert-\w+|make|pip|python) ", block.text, re.MULTILINE)


@pytest.mark.parametrize("block", blocks("python", "py"), ids=str)
def test_all_code_is_python(block: Block) -> None:
    code = re.sub(r"^(>>>|\.\.\.) ?", "", block.text, flags=re.MULTILINE)
    if code != block.text:  # doctests, of which the lines between say what is printed
        code = "\n".join(re.findall(r"^(?:>>>|\.\.\.) ?(.*)$", block.text, re.MULTILINE))
    compile(code, str(block), "exec")


def options() -> set[str]:
    """Of all commands, and of ``regnet`` itself."""
    group: Any = get_command(app)
    params = [param for each in (group, *group.commands.values()) for param in each.params]
    return {name for param in params for name in (*param.opts, *param.secondary_opts)}


@pytest.mark.parametrize("page", [page for page in PAGES if page != "docs/benchmarks.md"])
def test_every_option_that_a_page_names_is_one_there_is(page: str) -> None:
    code = [text for text in code_in([prose(page)]) if re.match(r"-|regnet |convert-", text)]
    named = {name for text in code for name in re.findall(r"(?<![\w-])--[a-z][a-z0-9-]+", text)}
    assert named <= options() | OPTIONS_OF_OTHERS


def test_commands_make_targets_and_extras_that_pages_name_are_those_there_are() -> None:
    shown = {words[1] for b in blocks("sh") if b.page == "docs/commands.md" for words in lines(b)}
    assert shown == set(COMMANDS)
    targets = set(re.findall(r"^([\w-]+):", text_of("Makefile"), re.MULTILINE))
    named = {name for page in PAGES for name in re.findall(r"`make ([a-z-]+)", text_of(page))}
    assert named <= targets
    extras = {
        name for page in PAGES for name in re.findall(r"converters\[([\w,]+)\]", text_of(page))
    }
    table = set(code_in(first_cells("docs/install.md")))
    assert table == set(project()["optional-dependencies"])
    assert {name for listed in extras for name in listed.split(",")} <= table


@cache
def sentences() -> list[str]:
    """Every text in the code, with a blank for what is put in."""
    found = []
    for package in ("converters", "regnet"):
        for path in (ROOT / package).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_bytes())):
                if isinstance(node, ast.JoinedStr):
                    parts = [n.value if isinstance(n, ast.Constant) else "\0" for n in node.values]
                    found.append("".join(map(str, parts)))
                elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                    found.append(node.value)
    return found


def test_the_page_of_formats_has_each_of_them() -> None:
    assert set(FORMATS) <= set(code_in(first_cells("docs/formats.md")))


def test_every_message_of_the_page_is_one_that_is_written() -> None:
    messages = code_in(first_cells("docs/troubleshooting.md"))
    assert len(messages) > 60
    for message in messages:
        parts = message.split(" ... ")
        assert any(all(part in text for part in parts) for text in sentences()), message


def test_the_glossary_has_every_word_of_the_table() -> None:
    cells = first_cells("docs/glossary.md")
    said = " ".join(cells[: cells.index("oracle")])
    for word in (*COLUMNS, *tables._SHOWN, "pass", "FAIL", "not run", "identical", "recomputed"):
        assert word in said, word
