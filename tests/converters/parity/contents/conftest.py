"""A small network with artefacts of every form, to be tampered with."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import pytest

from converters.folder.folder import ConvertedFolder
from tests.converters.parity.contents.tampering import with_artefacts

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> ConvertedFolder:
    return with_artefacts(tmp_path_factory.mktemp("network") / "folder")


@pytest.fixture
def copy(network: ConvertedFolder, tmp_path: Path) -> ConvertedFolder:
    """The test's own."""
    return ConvertedFolder(shutil.copytree(network.path, tmp_path / "copy"))
