"""Run the 67 classes of hostile and broken files, print what each ends with, and write it down.

Run: make hostile, or python -m tests.hostile.table [--renew] [--scanners PYTHON]

With ``--renew``, what the commands said becomes what the tests expect; read the difference.
"""

from __future__ import annotations

import argparse
import html
import json
import subprocess
import sys
from collections import Counter
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from tests.hostile.others import OWN, TOOLS
from tests.hostile.victim import Table, write_recorded

CLASSES = 67
ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "hostile-files.md"
_HERE = Path(__file__).parent
LOADERS = ("torch", "transformers", OWN)
"""Of the other tools, those that are installed beside the project."""

CONTROL = "test_00_a_sound_file"
LAST_OF_FILES = 35
"""Class with which those end whose fault is in the file itself."""

OF_LIBRARIES = range(60, 68)
"""Classes of files that have libraries of their own, from HDF5 to NumPy's archives."""

Answers = dict[str, dict[str, list[str]]]
_SECONDS = 300
_BEGIN, _END = "<!-- classes -->\n", "<!-- end of classes -->\n"


def rows(table: Table) -> list[str]:
    """The table in Markdown: one row for each class."""
    lines = ["| class | file | exit status and message |", "|---|---|---|"]
    for name, said in sorted(table.outcomes.items()):
        _, number, words = name.split("_", 2)
        ended = "<br>".join(
            html.escape(text, quote=False).replace("|", "\\|") for text in dict.fromkeys(said)
        )
        failed = "**FAILED** " if name in table.failed else ""
        lines.append(f"| {number} | {words.replace('_', ' ')} | {failed}{ended} |")
    return lines


def main() -> int:
    """Run, print, write; return 1 unless all classes are there and as on record."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--renew", action="store_true", help="record the messages anew")
    parser.add_argument(
        "--scanners",
        type=Path,
        metavar="PYTHON",
        help="the Python that picklescan and fickling are installed for",
    )
    arguments = parser.parse_args()
    with TemporaryDirectory() as folder:
        table = Table(renews=arguments.renew, files=Path(folder))
        pytest.main(
            ["-q", "-p", "no:xdist", "--ignore", str(_HERE / "test_attacks.py"), str(_HERE)],
            plugins=[table],
        )
        put_control(Path(folder))
        said = answers(Path(folder), arguments.scanners)
    return report(table, said)


def answers(folder: Path, scanners: Path | None) -> Answers:
    """Show every file to every other tool.

    Args:
        folder: Holds a folder for each test.
        scanners: The Python of the scanners; without it they are left out.

    Returns:
        Tool to test to what it said of each of its files.
    """
    files = sorted(map(str, folder.rglob("*.*")))
    found: Answers = {}
    for tool in TOOLS:
        python = sys.executable if tool in LOADERS else scanners
        if python is None:
            continue
        by_test = found.setdefault(tool, {})
        rest = files
        if tool == OWN:
            rest = [f for f in files if number_of(Path(f).parent.name) in OF_LIBRARIES]
        while rest:
            lines = _ask(python, tool, rest)
            for path, answer in lines:
                by_test.setdefault(Path(path).parent.name, []).append(answer)
            rest = rest[len(lines) :]
            if rest:  # the process has died of the next one, or needs too long
                by_test.setdefault(Path(rest[0]).parent.name, []).append("crashes")
                rest = rest[1:]
    return found


def put_control(folder: Path) -> None:
    """Add a file with nothing wrong: a tool that objects to it is not installed as it should be."""
    import torch

    (folder / CONTROL).mkdir()
    torch.save({"weight": torch.ones(2)}, folder / CONTROL / "0.bin")


def number_of(name: str) -> int:
    """The class of a test, by its name."""
    return int(name.split("_")[1])


def _ask(python: str | Path, tool: str, files: list[str]) -> list[list[str]]:
    """What a tool says of files, up to the first that ends it."""
    script = ["-m", "tests.hostile.others"] if tool in LOADERS else [_HERE / "others.py"]
    command = [python, *script, tool, *files]
    try:
        run = subprocess.run(
            command, cwd=ROOT, capture_output=True, text=True, timeout=_SECONDS, check=False
        )
        output = run.stdout
    except subprocess.TimeoutExpired as expired:
        output = (expired.stdout or b"").decode()
    return [json.loads(line) for line in output.splitlines() if line.startswith("[")]


def own_libraries(by_test: dict[str, list[str]]) -> list[str]:
    """What the libraries of such files make of them, in Markdown."""
    lines = ["| class | file | ours | the library |", "|---|---|---|---|"]
    for name, found in sorted(by_test.items()):
        _, number, words = name.split("_", 2)
        row = f"{number} | {words.replace('_', ' ')} | refuses {len(found)} | {_count(found)}"
        lines.append(f"| {row} |")
    return lines


def comparison(table: Table, said: Answers) -> list[str]:
    """Who catches what, in Markdown: a row for each class whose files were refused."""
    said = {tool: by_test for tool, by_test in said.items() if tool != OWN}
    lines = [f"| class | file | ours | {' | '.join(said)} |", "|---" * (3 + len(said)) + "|"]
    for name in sorted(next(iter(said.values()), {})):
        if name not in (CONTROL, *table.outcomes) or number_of(name) > LAST_OF_FILES:
            continue
        _, number, words = name.split("_", 2)
        files = len(next(iter(said.values()))[name])
        ours = "converts" if name == CONTROL else f"refuses {files}"
        cells = " | ".join(_count(said[tool].get(name, [])) for tool in said)
        lines.append(f"| {number} | {words.replace('_', ' ')} | {ours} | {cells} |")
    return lines


def _count(found: list[str]) -> str:
    return ", ".join(f"{answer} {count}" for answer, count in sorted(Counter(found).items()))


def report(table: Table, said: Answers) -> int:
    """Print and write what a run found."""
    lines = [*rows(table), "", "## Who catches what", "", *comparison(table, said), ""]
    lines += [
        "The libraries are h5py, msgpack by Flax's lines, protobuf by MindSpore's, onnx with its",
        "checker, zipfile and h5py by Keras' lines, and NumPy:",
        "",
    ]
    lines += own_libraries(said[OWN])
    held = len(table.outcomes.keys() - table.failed)
    sys.stdout.write("\n".join([*lines, "", f"{held} of {CLASSES}", ""]))
    if held < CLASSES:
        return 1
    if table.renews:
        write_recorded(table.outcomes)
    if len(said) < len(TOOLS):
        return 0  # without the scanners the page would lose their columns
    before, _, rest = PAGE.read_text(encoding="utf-8").partition(_BEGIN)
    after = rest.partition(_END)[2]
    text = "\n".join([*lines, ""])
    PAGE.write_text(f"{before}{_BEGIN}\n{text}\n{_END}{after}", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
