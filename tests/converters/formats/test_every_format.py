"""Every format of every published network: exported, run, and judged to pass.

The networks are pycls' own, saved by pycls and converted, with weights and statistics like trained
ones'. Blocks have half their strength: branches that are drawn independently amplify rounding
errors as trained ones do not. Their own size is 64 pixels, so that all networks take minutes.
"""

from __future__ import annotations

import shutil
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from converters.folder.folder import ConvertedFolder
from converters.formats.format import ExportOptions
from converters.formats.registry import FORMATS
from converters.jobs.convert import convert
from converters.parity.truth import Truth
from converters.parity.verify import fresh_inputs, verify_artefacts
from regnet import RegNetImageProcessor
from regnet.design_space import NETWORKS
from tests.converters.formats.wider_networks import NETWORKS as REAL_WIDER
from tests.converters.parity.networks import IMAGE_SIZE, WIDER, Network, random_network
from tests.oracles.pycls import build, halve_branches, published, save
from tests.photographs import NAMES, photograph

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator
    from pathlib import Path

SIZES: dict[str, Any] = {"TEST__IM_SIZE": 64, "TRAIN__IM_SIZE": 64}

QUICK = ("RegNetX-200MF", "RegNetY-200MF", "RegNetY-800MF")

COMPILED = {name for name, kind in FORMATS.items() if kind.certificate is None}
"""Formats whose compilers take a minute or more for each network."""


@pytest.fixture(scope="module")
def network(request: pytest.FixtureRequest, workspace: Path) -> Iterator[Network]:
    """A network's folder without artefacts, and the truth on it, for all of its formats."""
    settings = published(request.param)
    root = workspace / request.param
    root.mkdir()
    real = halve_branches(build(settings, **SIZES))
    path = save(root / "net.pyth", real, settings, optimiser=False, **SIZES)
    convert(path, root / "out", formats=(), verify=False)
    path.unlink()
    folder = ConvertedFolder(root / "out")
    yield Network(folder, Truth(folder, fresh_inputs(folder)))
    shutil.rmtree(root)


@pytest.fixture(scope="module")
def options() -> ExportOptions:
    """Of int8: all layers, whatever that costs of top-1, for random networks know no classes.

    Blocks are named, so that nothing is timed.
    """
    return ExportOptions(
        calibration_images=[photograph(name) for name in NAMES], largest_loss=1.0, block=16
    )


def slow_unless(quick: Collection[str], names: Iterable[str]) -> list[Any]:
    """Parameters of a test, slow but for those that are quick."""
    return [pytest.param(name, marks=[pytest.mark.slow] * (name not in quick)) for name in names]


def require_pass(network: Network, kind: str, options: ExportOptions) -> None:
    """Export an artefact, judge it, and remove it, for the largest take gigabytes together."""
    form = FORMATS[kind]
    if form.needs:
        pytest.importorskip(form.needs[0])
    path = network.folder.path / form.file_name
    path.parent.mkdir(exist_ok=True)
    form.export(network.folder, path, options)
    _, verdict, *in_others = verify_artefacts(network.folder, network.truth, {kind: path}).verdicts
    assert verdict.passed, verdict.reason
    assert [other.failure for other in in_others if not other.passed] == []
    assert verdict.artefact == form.file_name
    assert verdict.precision == form.precision
    assert (verdict.tensors is None) == (form.certificate is None)
    for name in form.files:
        (network.folder.path / name).unlink(missing_ok=True)


@pytest.mark.parametrize("kind", slow_unless(set(FORMATS).difference(COMPILED), FORMATS))
@pytest.mark.parametrize("network", slow_unless(QUICK, NETWORKS), indirect=True)
def test_the_artefact_passes_in_the_precision_that_it_claims(
    network: Network, kind: str, options: ExportOptions
) -> None:
    require_pass(network, kind, options)


SHARING = "onnx, sharing"

KINDS = (*FORMATS, SHARING)


def slow_unless_quick(quick: Collection[str], names: Iterable[str]) -> list[Any]:
    """Network and format; of quick networks all that is not compiled is an ordinary test."""
    return [
        pytest.param(name, kind, marks=[pytest.mark.slow] * (name not in quick or kind in COMPILED))
        for name in names
        for kind in KINDS
    ]


def require_pass_of(network: Network, kind: str, options: ExportOptions) -> None:
    if kind == SHARING:
        kind, options = "onnx", replace(options, share_weights=True)
    require_pass(network, kind, options)


@pytest.fixture(scope="module")
def wider(request: pytest.FixtureRequest, workspace: Path) -> Network:
    """A small network of a kind that transformers does not have."""
    path = workspace / request.param
    random_network(path, request.param)
    RegNetImageProcessor(size={"shortest_edge": IMAGE_SIZE}).save_pretrained(path)
    return Network.of(ConvertedFolder(path))


@pytest.mark.parametrize(
    ("wider", "kind"), slow_unless_quick({"all at once"}, WIDER), indirect=["wider"]
)
def test_every_operation_passes_in_every_format(
    wider: Network, kind: str, options: ExportOptions
) -> None:
    require_pass_of(wider, kind, options)


@pytest.fixture(scope="module")
def real(request: pytest.FixtureRequest, workspace: Path) -> Iterator[Network]:
    """A network of such a kind that its framework saved, for images of 64 pixels."""
    root = workspace / request.param.replace("/", " ")
    root.mkdir()
    path = REAL_WIDER[request.param](root)
    convert(path, root / "out", formats=(), verify=False)
    path.unlink()
    folder = ConvertedFolder(root / "out")
    stated = RegNetImageProcessor.from_pretrained(folder.path).to_dict()
    small = RegNetImageProcessor.from_dict(stated, size={"shortest_edge": 64})
    small.save_pretrained(folder.path)
    folder = ConvertedFolder(folder.path)
    yield Network(folder, Truth(folder, fresh_inputs(folder)))
    shutil.rmtree(root)


@pytest.mark.parametrize(
    ("real", "kind"),
    slow_unless_quick(
        {"a small RegNetV", "kecam/evo.keras", "keras-applications/y.h5"}, REAL_WIDER
    ),
    indirect=["real"],
)
def test_networks_that_transformers_does_not_have_pass_in_every_format(
    real: Network, kind: str, options: ExportOptions
) -> None:
    require_pass_of(real, kind, options)
