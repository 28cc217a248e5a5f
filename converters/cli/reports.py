"""Writing reports where the command line says."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from converters.staging import staged_file, storage_errors

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from converters.reports.findings import Findings

_STDOUT = "-"


def write_reports(
    findings: Findings,
    *,
    junit: Path | None = None,
    markdown: Path | None = None,
    html: Path | None = None,
) -> None:
    """Write the forms that were asked for; each file appears whole or not at all.

    Args:
        findings: What was found.
        junit: Where JUnit XML goes; ``-`` is stdout, here and below.
        markdown: Where GitHub-flavoured Markdown goes.
        html: Where the page goes.

    Raises:
        StorageError: If a file cannot be written.
    """
    from converters.reports import html as html_form
    from converters.reports import junit as junit_form
    from converters.reports import markdown as markdown_form

    forms: tuple[tuple[Path | None, Callable[[Findings], str]], ...] = (
        (junit, junit_form.junit),
        (markdown, markdown_form.markdown),
        (html, html_form.html),
    )
    for target, form in forms:
        if target is not None:
            write_text(target, form(findings))


def write_text(target: Path, text: str) -> None:
    """Write a text whole or not at all; ``-`` is stdout.

    Raises:
        StorageError: If the file cannot be written.
    """
    if str(target) == _STDOUT:
        sys.stdout.write(text)
    elif target.is_symlink() or (target.exists() and not target.is_file()):
        with storage_errors(target):  # /dev/stdout or a pipe is written into, never replaced
            target.write_text(text, encoding="utf-8")
    else:
        with storage_errors(target):
            target.parent.mkdir(parents=True, exist_ok=True)
        with staged_file(target) as staging:
            staging.write_text(text, encoding="utf-8")
