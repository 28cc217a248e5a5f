"""A victim for every test, whose messages are compared with those on record."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch

from converters.jobs.convert import convert
from tests.hostile.victim import Table, Victim, recorded, working_in
from tests.oracles import pycls

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def victim(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], request: pytest.FixtureRequest
) -> Iterator[Victim]:
    """Runs commands in an empty folder; in the end, what they said must be what is on record."""
    folder = tmp_path / "here"
    folder.mkdir()
    found, name = Victim(folder, capsys), request.node.originalname
    tables = [p for p in request.config.pluginmanager.get_plugins() if isinstance(p, Table)]
    for _ in working_in(folder):
        found.copies = tables[0].files / name if tables else None
        yield found
    for table in tables:
        table.outcomes[name] = found.said
    if not any(table.renews for table in tables):
        assert found.said == recorded()[name]


@pytest.fixture(scope="session")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small network in a file of pycls' own."""
    path = tmp_path_factory.mktemp("saved") / "model.pyth"
    network = pycls.build(pycls.TINY, classes=10)
    return pycls.save(path, network, pycls.TINY, classes=10, legacy=False)


@pytest.fixture
def tree(saved: Path) -> dict[str, Any]:
    """What the file holds, of the test's own: ``model_state``, ``optimizer_state``, ``cfg``, ..."""
    loaded: dict[str, Any] = torch.load(saved, weights_only=True)
    return loaded


@pytest.fixture
def state(tree: dict[str, Any]) -> dict[str, torch.Tensor]:
    """The tensors of the network, by pycls' names."""
    return dict(tree["model_state"])


@pytest.fixture(scope="session")
def proven(saved: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The network converted and verified; its ONNX file points into ``model.safetensors``."""
    out = tmp_path_factory.mktemp("proven") / "out"
    convert(saved, out, formats=("onnx",), share_weights=True)
    return out
