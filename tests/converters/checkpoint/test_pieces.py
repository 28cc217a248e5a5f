"""Parameters in pieces, put together as fairscale itself puts them together."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from converters.checkpoint import open_any
from converters.errors import InputError
from tests.converters.checkpoint.compare import in_chunks

pytest.importorskip("fairscale")

from fairscale.nn.data_parallel import FullyShardedDataParallel

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

Shards = tuple[list[dict[str, torch.Tensor]], list[dict[str, Any]]]

SHAPES = st.lists(st.lists(st.integers(1, 4), max_size=3).map(tuple), min_size=1, max_size=4)


def cut(groups: list[list[tuple[int, ...]]], world: int, *, whole: bool) -> Shards:
    """Cut parameters of these shapes as FSDP does: each group flat, in equal pieces, padded.

    Args:
        groups: The shapes of the parameters that share a flat one, of each wrapped module.
        world: How many processes there were.
        whole: Whether the last module's group was a single process, which keeps all of it.
    """
    counter = 0
    weights: list[dict[str, torch.Tensor]] = [{} for _ in range(world)]
    metadata: list[dict[str, Any]] = [
        {"param_metadata": [], "buffer_names": ["m0.count"]} for _ in range(world)
    ]
    for index, shapes in enumerate(groups):
        numels = [int(np.prod(shape)) for shape in shapes]
        flat = torch.arange(counter, counter + sum(numels), dtype=torch.float32)
        counter += sum(numels)
        alone = whole and index == len(groups) - 1
        length = len(flat) if alone else -(-len(flat) // world)
        for rank in range(world):
            piece = flat if alone else flat[rank * length : (rank + 1) * length]
            padding = length - len(piece)
            weights[rank][f"m{index}.flat_param_0"] = torch.nn.functional.pad(
                piece, (0, padding), value=-1.0
            )
            params = {
                "names": [f"p{number}" for number in range(len(shapes))],
                "shapes": [torch.Size(shape) for shape in shapes],
                "numels": numels,
                "padding": padding,
            }
            metadata[rank]["param_metadata"].append(
                {
                    "fsdp_path": f"m{index}",
                    "params": {"flat_param_0": params},
                    "no_broadcast_optim_state": alone,
                    "shared_param_info": [(f"m{index}.p0", f"m{index}.tied")],
                }
            )
    for rank, shard in enumerate(weights):
        shard["m0.count"] = torch.tensor(7 + rank)
    return weights, metadata


def save(folder: Path, shards: Shards) -> Path:
    names = []
    for rank, (weights, metadata) in enumerate(zip(*shards, strict=True)):
        base = {"model": {"trunk": weights}, "meta": {"trunk": metadata}}
        names.append(f"model_shard{rank}.torch")
        torch.save({"type": "shard", "classy_state_dict": {"base_model": base}}, folder / names[-1])
    torch.save({"type": "shard_list", "shards": names}, folder / "model.torch")
    return folder / "model.torch"


def joined(checkpoint: Any) -> dict[str, Any]:
    assert checkpoint.container == "shard_list"
    tree: Any = checkpoint.tree
    tensors: dict[str, Any] = tree["classy_state_dict"]["base_model"]["model"]["trunk"]
    return tensors


@given(
    groups=st.lists(SHAPES, min_size=1, max_size=3), world=st.integers(1, 4), whole=st.booleans()
)
def test_pieces_are_joined_as_fairscale_joins_them(
    tmp_path_factory: pytest.TempPathFactory,
    groups: list[list[tuple[int, ...]]],
    world: int,
    whole: bool,
) -> None:
    shards = cut(groups, world, whole=whole)
    expected = FullyShardedDataParallel.consolidate_shard_weights(*shards)

    with open_any(save(tmp_path_factory.mktemp("run"), shards)) as checkpoint:
        found = joined(checkpoint)
        # fairscale itself ties only the parameters of the module that comes last.
        assert {name for name in found if not name.endswith("tied")} == {
            name for name in expected if not name.endswith("tied")
        }
        for name, tensor in expected.items():
            assert found[name].shape == tuple(tensor.shape)
            assert np.array_equal(checkpoint.array(found[name]), tensor.numpy())
            assert in_chunks(checkpoint, found[name], 5) == tensor.numpy().tobytes()


def lose_a_shard(shards: Shards) -> None:
    shards[0].pop()
    shards[1].pop()


def lose_a_parameter(shards: Shards) -> None:
    del shards[0][1]["m0.flat_param_0"]


def lose_the_padding(shards: Shards) -> None:
    del shards[1][1]["param_metadata"][0]["params"]["flat_param_0"]["padding"]


def change_a_type(shards: Shards) -> None:
    shards[0][1]["m0.flat_param_0"] = shards[0][1]["m0.flat_param_0"].half()


def lose_the_metadata(shards: Shards) -> None:
    shards[1][0]["param_metadata"] = "none"


def pad_too_much(shards: Shards) -> None:
    shards[1][1]["param_metadata"][0]["params"]["flat_param_0"]["padding"] = 10**9


@pytest.mark.parametrize(
    "damage",
    [
        lose_a_shard,
        lose_a_parameter,
        lose_the_padding,
        change_a_type,
        lose_the_metadata,
        pad_too_much,
    ],
)
def test_shards_that_do_not_fit_each_other_are_refused(
    tmp_path: Path, damage: Callable[[Shards], None]
) -> None:
    shards = cut([[(3, 5), (4,)]], 2, whole=False)
    damage(shards)

    with pytest.raises(InputError, match=r"shards"), open_any(save(tmp_path, shards)):
        pass


def test_a_shard_that_is_missing_is_named(tmp_path: Path) -> None:
    path = save(tmp_path, cut([[(3, 5)]], 2, whole=False))
    (tmp_path / "model_shard1.torch").unlink()

    with pytest.raises(InputError, match=r"model_shard1\.torch.*not beside it"), open_any(path):
        pass


def test_a_shard_that_is_something_else_is_named(tmp_path: Path) -> None:
    path = save(tmp_path, cut([[(3, 5)]], 2, whole=False))
    torch.save({"weight": torch.zeros(1)}, tmp_path / "model_shard1.torch")

    with pytest.raises(InputError, match=r"model_shard1\.torch"), open_any(path):
        pass
