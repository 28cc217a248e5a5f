"""One converted folder, as it is, for every program that is to load it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from converters.folder.folder import ConvertedFolder
from converters.parity.golden import read_golden
from converters.parity.truth import Truth
from converters.parity.verdict import Verdict, judge
from tests.converters.conftest import demo_folder, folder
from tests.converters.demo import snapshot

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    Network = Callable[[NDArray[np.float32]], NDArray[np.floating]]

__all__ = ["demo_folder", "folder"]


@pytest.fixture(scope="session")
def truth(demo_folder: Path) -> Truth:
    """What the folder's network computes in float64, on every kind of input."""
    folder = ConvertedFolder(demo_folder)
    return Truth(folder, read_golden(folder)[0])


@pytest.fixture
def out(demo_folder: Path) -> Iterator[Path]:
    """The folder, which no program may change."""
    before = snapshot(demo_folder)
    yield demo_folder
    assert snapshot(demo_folder) == before


@pytest.fixture
def assert_same_network(truth: Truth) -> Callable[[Network], None]:
    """Hold a program's logits to what every artefact is held to."""

    def check(network: Network) -> None:
        outputs = {batch: {"logits": network(pixels)} for batch, pixels in truth.inputs.items()}
        measured = judge(outputs, truth.units(), truth.oracle)
        verdict = Verdict("the folder", "as loaded", "float32", measured)
        assert verdict.passed, verdict.reason

    return check
