"""A plugin of pytest: ``pytest --regnet-folder out/`` is one test for each verdict on a folder.

It is imported wherever pytest runs beside this project, so it imports nothing until it is asked.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add ``--regnet-folder``."""
    parser.getgroup("regnet", "converted RegNets").addoption(
        "--regnet-folder",
        action="append",
        default=[],
        metavar="FOLDER",
        help="Verify a converted folder: one test for each verdict; as often as needed.",
    )


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(
    session: pytest.Session, config: pytest.Config, items: list[pytest.Item]
) -> None:
    """Add the tests of each folder behind all others, before ``-k`` and ``-m`` choose."""
    base = config.invocation_params.dir
    for folder in dict.fromkeys(base / name for name in config.getoption("regnet_folder")):
        items.extend(session.genitems(ConvertedFolderTests.from_parent(session, path=folder)))


class ConvertedFolderTests(pytest.File):
    """The tests of one folder, which is verified when they are collected."""

    def collect(self) -> Iterator[pytest.Item]:
        """One test for the recorded files, one for each verdict, one for what was not checked.

        Raises:
            CollectError: If the folder cannot be verified.
        """
        from converters.errors import ConversionError
        from converters.jobs.verify import verify

        try:
            report = verify(Path(self.path).resolve())
        except ConversionError as error:
            raise self.CollectError(str(error)) from error
        yield self._test("recorded_files", "; ".join(report.changes) + report.way_out)
        for verdict in report.verdicts:
            wrong = "" if verdict.passed else f"{verdict.artefact}, {verdict.failure}"
            not_run = f"not run: {verdict.not_run}" if verdict.not_run else ""
            yield self._test(f"verdict[{verdict.artefact}]", wrong, not_run)
        if report.unchecked:
            yield self._test("not_checked", skipped="; ".join(report.unchecked))

    def _test(self, name: str, wrong: str = "", skipped: str = "") -> pytest.Item:
        test = VerdictTest.from_parent(self, name=name, wrong=wrong)
        if skipped and not wrong:
            test.add_marker(pytest.mark.skip(reason=skipped))
        return test


class VerdictTest(pytest.Item):
    """What a verification found of one thing.

    Args:
        wrong: What is wrong with it, in words; empty if nothing is.
    """

    def __init__(self, *, wrong: str, **own: Any) -> None:
        super().__init__(**own)
        self._wrong = wrong

    def runtest(self) -> None:
        """Fail if it is wrong.

        Raises:
            AssertionError: If it is.
        """
        if self._wrong:
            raise AssertionError(self._wrong)

    def repr_failure(
        self, excinfo: pytest.ExceptionInfo[BaseException], style: str | None = None
    ) -> str:
        """The sentence alone: no line of code is at fault."""
        del style
        return str(excinfo.value)

    def reportinfo(self) -> tuple[Path, int, str]:
        """Where the terminal says that it lies."""
        return Path(self.path), 0, self.name
