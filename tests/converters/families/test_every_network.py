"""Every published network in every layout: recognised, streamed to the same bytes, equal logits.

A network is built once by its framework, with weights like a trained one's, and saved in each
layout in turn. The weights that the first layout gives are run: their logits of a picture must be
those of the real network, each side with its own preprocessing. Every other layout must give the
same tensors bit for bit, and the pixels of its own rule, so that its logits are the same too.
"""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING, Any

import pytest
import torch
from safetensors.torch import load_file

from converters.families.options import SourceOptions
from converters.weights.inspection import inspected
from converters.weights.stream import write_weights
from regnet import RegNetForImageClassification, RegNetImageProcessor
from tests.converters.families.conversion import LIMIT, difference, picture
from tests.converters.families.networks import FAMILIES

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor, nn

    from converters.families.source import Source
    from regnet import RegNetConfig
    from tests.converters.families.every_network import Built, Family, Layout

QUICK = ("RegNetX-200MF", "regnetx_002", "regnet_x_400mf", "regnetx_400mf", "regnetx002")
"""One small network of each family that has one; VISSL's and SWAG's smallest have 80 million."""

PIXEL_LIMIT = 1e-6
"""Normalised pixels go to 2.6; most frameworks normalise them in the very same steps."""

ROUNDING_LIMIT = 5e-5
"""No more than this is put down to another processor's rounding, with float64 as witness."""

DOUBLE_LIMIT = 1e-12

PAIRS = [
    pytest.param(
        family, network, id=f"{label}-{network}", marks=[pytest.mark.slow] * (network not in QUICK)
    )
    for label, family in FAMILIES.items()
    for network in family.names
]


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")
@pytest.mark.parametrize(("family", "name"), PAIRS)
def test_every_layout_gives_the_same_network_and_the_pixels_of_its_rule(
    tmp_path: Path, family: Family, name: str
) -> None:
    built = family.build(name)
    first: dict[str, Tensor] = {}
    for label, layout in family.layouts.items():
        folder = tmp_path / label
        (folder / "saved").mkdir(parents=True)
        path = layout.save(built, folder / "saved")

        source = converted_to(folder, path, layout)

        assert source.framework == (layout.framework or family.framework), label
        assert source.has_classifier is not layout.trunk, label
        ours, theirs = both_pixels(family, layout, built, source, path)
        assert ours.shape == theirs.shape, label
        assert float((ours - theirs).abs().max()) <= PIXEL_LIMIT, label
        written = load_file(folder / "model.safetensors")
        if layout.network or not first:
            real = layout.network(built) if layout.network else built.network
            network = classifier(source.config, written)
            require_same_logits(family, network, real, ours, theirs)
        first = first or {key: tensor.clone() for key, tensor in written.items()}
        require_same(layout, first, written, label)
        shutil.rmtree(folder)


def converted_to(folder: Path, path: Path, layout: Layout) -> Source:
    """Recognise what lies at a path, plan it, and stream its weights into a folder."""
    with inspected(path, SourceOptions(**layout.options)) as (checkpoint, inspection):
        write_weights(checkpoint, inspection.plan, folder)
    return inspection.source


def classifier(config: RegNetConfig, weights: dict[str, Tensor]) -> nn.Module:
    """Ours with copies of the tensors: what lies in a file is aligned to 8 bytes only."""
    with torch.device("meta"):
        network = RegNetForImageClassification(config)
    network.load_state_dict({n: t.clone() for n, t in weights.items()}, assign=True)
    return network.eval()


def both_pixels(
    family: Family, layout: Layout, built: Built, source: Source, path: Path
) -> tuple[Tensor, Tensor]:
    """A picture as our processor and as the framework itself prepares it (3, height, width)."""
    seen = picture(*family.picture)
    processor = RegNetImageProcessor(**source.preprocessor_fields())
    ours: Tensor = processor(seen, return_tensors="pt")["pixel_values"][0]
    return ours, layout.pixels(seen, built, path).float()


def require_same_logits(
    family: Family, network: nn.Module, real: Any, ours: Tensor, theirs: Tensor
) -> None:
    """Two networks agree on a picture, each on its own pixels of it.

    A flipped stem, or a tensor that lies elsewhere in memory, is added in another order, which
    changes last bits. Where this was written no network makes as much as `LIMIT` of them. Another
    processor rounds otherwise; should one go beyond, its agreement in float64, on pixels equal to
    the bit, tells rounding from error.
    """
    found = difference(*both_logits(family, network, real, ours, theirs))
    if found >= LIMIT:
        assert found < ROUNDING_LIMIT
        assert torch.equal(ours, theirs)
        real.double()
        network.double()
        exact = both_logits(family, network, real, ours.double(), theirs.double())
        real.float()
        assert difference(*exact) < DOUBLE_LIMIT


@torch.inference_mode()
def both_logits(
    family: Family, network: nn.Module, real: Any, ours: Tensor, theirs: Tensor
) -> tuple[Tensor, Tensor]:
    """What ours and the real network compute, each of its own pixels."""
    output: Any = real((theirs.flip(0) if family.bgr else theirs)[None])
    return network(ours[None]).logits, getattr(output, "logits", output)


def require_same(
    layout: Layout, first: dict[str, Tensor], written: dict[str, Tensor], label: str
) -> None:
    """Every tensor is the first layout's, but for what the layout does not hold."""
    expected = {
        name.removeprefix("regnet.") if layout.trunk else name: tensor
        for name, tensor in first.items()
        if not (layout.trunk and name.startswith("classifier."))
    }
    assert written.keys() == expected.keys(), label
    for name, tensor in expected.items():
        counted = layout.counters or not name.endswith("num_batches_tracked")
        if counted and not (layout.network and name.startswith("classifier.")):
            assert torch.equal(written[name], tensor), f"{label}: {name}"
