"""Real findings, made once."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import pytest

from tests.converters.reports.made import damage, findings_of

if TYPE_CHECKING:
    from pathlib import Path

    from converters.reports.findings import Findings


@pytest.fixture(scope="session")
def passing(demo_folder: Path) -> Findings:
    return findings_of(demo_folder)


@pytest.fixture(scope="session")
def damaged_folder(demo_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = shutil.copytree(demo_folder, tmp_path_factory.mktemp("damaged") / "out")
    damage(path, "a bias dropped")
    return path


@pytest.fixture(scope="session")
def failing(damaged_folder: Path) -> Findings:
    return findings_of(damaged_folder)
