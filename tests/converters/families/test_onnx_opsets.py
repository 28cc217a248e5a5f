"""Every version of ONNX's operators that is read, as torch and onnx spell a network in it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import onnx
import pytest
import torch
from onnx import version_converter

from converters.checkpoint import open_checkpoint
from converters.checkpoint.onnx_container import OPSETS
from converters.errors import InputError
from converters.families.graph_network import network_of
from tests.oracles import torchvision as in_torchvision

if TYPE_CHECKING:
    from converters.families.graph_network import GraphNetwork

RECORDED = Path(__file__).parents[2] / "recorded" / "onnx"

OLDER = (7, 9, 11, 13, 17)
"""In which attributes have another place than in the next."""

FOLDING = 9
"""The first for which torch folds batch norms."""

ONWARDS = range(18, OPSETS[-1] + 1)


def read(path: Path) -> GraphNetwork:
    with open_checkpoint(path) as checkpoint:
        assert checkpoint.graph is not None
        return network_of(checkpoint.graph, path.name)


def restated(path: Path, *opsets: int) -> Path:
    """A recorded file that says that it is of other opsets."""
    model = onnx.load(RECORDED / "timm-y.onnx")
    del model.opset_import[:]
    model.opset_import.extend(onnx.helper.make_opsetid("", opset) for opset in opsets)
    path.write_bytes(model.SerializeToString())
    return path


@pytest.mark.parametrize("folded", [True, False], ids=["folded", "as trained"])
@pytest.mark.parametrize("opset", OLDER)
@pytest.mark.filterwarnings("ignore")
def test_what_torch_writes_in_an_older_opset_is_read(
    opset: int, folded: bool, tmp_path: Path
) -> None:
    network = in_torchvision.build().eval()
    modes = torch.onnx.TrainingMode
    torch.onnx.export(
        network,
        (torch.zeros(1, 3, 32, 32),),
        tmp_path / "network.onnx",
        dynamo=False,
        opset_version=opset,
        training=modes.EVAL if folded else modes.PRESERVE,
        do_constant_folding=folded,
    )

    found = read(tmp_path / "network.onnx")

    assert bool(found.folded) == (folded and opset >= FOLDING)
    assert found.config.layer_type == "y"
    assert len(found.tensors) + len(found.filled) == sum(
        not name.endswith("tracked") for name in network.state_dict()
    )


@pytest.mark.parametrize(
    ("name", "opset"),
    [*(("optimum-y", opset) for opset in ONWARDS), *(("torch-plain-y", v) for v in (25, 28))],
)
def test_what_onnx_converts_to_a_newer_opset_is_the_same_network(
    name: str, opset: int, tmp_path: Path
) -> None:
    whole = onnx.load(RECORDED / f"{name}.onnx")
    onnx.save(version_converter.convert_version(whole, opset), tmp_path / "network.onnx")

    found, first = read(tmp_path / "network.onnx"), read(RECORDED / f"{name}.onnx")

    assert found.config.to_dict() == first.config.to_dict()
    assert {key: tensor.shape for key, tensor in found.tensors.items()} == {
        key: tensor.shape for key, tensor in first.tensors.items()
    }


@pytest.mark.parametrize(
    ("opsets", "said"),
    [
        ((6,), "is of opset 6, and graphs of one opset from 7 to 28 are read"),
        ((29,), "is of opset 29, and"),
        ((0,), "is of opset 0, and"),
        ((1 << 62,), f"is of opset {1 << 62}, and"),
        ((), "is of opset none, and"),
        ((18, 17), "is of opset 17 and 18, and"),
    ],
)
def test_other_opsets_are_refused(opsets: tuple[int, ...], said: str, tmp_path: Path) -> None:
    """In opset 6 a batch norm trains unless it is told not to."""
    with pytest.raises(InputError, match=said):
        read(restated(tmp_path / "network.onnx", *opsets))
