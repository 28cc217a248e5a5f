"""Checkpoints that the real VISSL made: both trunks, every kind of head, shards and slices."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from converters.checkpoint import open_any
from converters.errors import InputError, StorageError
from converters.families.heads import branch
from converters.families.options import SourceOptions
from converters.jobs.writeback import write_back
from converters.weights.inspection import inspected
from converters.weights.stream import write_weights
from regnet.files.dtypes import DTYPES
from tests.converters.loading import TOLERANCES, load, planned, relative_error
from tests.converters.stored import headers, stored

pytest.importorskip("vissl")

from tests.oracles.vissl import (
    TINY,
    WIDTH,
    Pooled,
    consolidated,
    eval_mlp,
    in_parts,
    mlp,
    save_shards,
    save_slices,
    swav,
    trunk,
    unfilled_trunk,
)
from tests.oracles.vissl import loaded as loaded_by_vissl

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from torch import nn

    from regnet.files.dtypes import DType

VERSIONS = pytest.mark.parametrize("version", [1, 2])
BOTH_PRECISIONS = pytest.mark.parametrize("dtype", TOLERANCES, ids=str)

SEER = {
    "32Gf": ([232, 696, 1392, 3712], [2, 5, 12, 1], 232),
    "64Gf": ([328, 984, 1968, 4920], [2, 5, 12, 1], 328),
    "128Gf": ([528, 1056, 2904, 7392], [2, 7, 17, 1], 264),
    "256Gf": ([746, 1492, 4103, 10444], [2, 7, 17, 1], 373),
    "10B": ([2020, 4040, 11110, 28280], [2, 7, 17, 1], 1010),
}
"""Widths, depths and group width of the published trunks."""


def saved(tmp_path: Path, content: Any) -> Path:
    torch.save(content, tmp_path / "model_final.torch")
    return tmp_path / "model_final.torch"


def as_list(network: Pooled) -> list[dict[str, torch.Tensor]]:
    return [head.state_dict() for head in network.heads]


LAYOUTS: dict[str, Callable[[Pooled], Any]] = {
    "heads in a dict": lambda network: consolidated(
        network.trunk.state_dict(), network.heads.state_dict()
    ),
    "heads in a list": lambda network: consolidated(network.trunk.state_dict(), as_list(network)),
    "frozen trunk": lambda network: consolidated(
        {f"base_model.{name}": tensor for name, tensor in network.trunk.state_dict().items()},
        network.heads.state_dict(),
    ),
    "one state dict": lambda network: network.state_dict(),
    "one state dict, DDP": lambda network: {
        "state_dict": {f"module.{name}": tensor for name, tensor in network.state_dict().items()}
    },
}


@BOTH_PRECISIONS
@VERSIONS
@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_fine_tuned_network_is_recognised_and_computes_the_same(
    tmp_path: Path, layout: str, version: int, dtype: torch.dtype
) -> None:
    network = Pooled(trunk(version), [mlp(WIDTH, 10)])
    path = saved(tmp_path, LAYOUTS[layout](network))

    loaded = load(path, tmp_path / "out")

    assert loaded.source.framework == "vissl"
    assert loaded.source.channel_order == "rgb"
    assert loaded.source.transform.crop == 384
    assert relative_error(loaded.network, network, dtype) <= TOLERANCES[dtype]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_batch_norm_of_a_linear_evaluation_is_folded_into_the_classifier(
    tmp_path: Path, layout: str
) -> None:
    network = Pooled(trunk(), [eval_mlp(WIDTH, WIDTH, 10)])
    path = saved(tmp_path, LAYOUTS[layout](network))

    loaded = load(path, tmp_path / "out")

    assert loaded.decision("head") == "0, its batch norm folded in"
    assert loaded.source.transform.crop == 224
    actions = {
        step.action for step in loaded.inspection.plan.steps if "classifier" in step.target.name
    }
    assert actions == {"fold batch norm"}
    # Folded weights are rounded to float32 once, so float64 cannot agree any further.
    assert relative_error(loaded.network, network, torch.float64) <= 2e-7


@pytest.mark.parametrize("dtype", DTYPES)
def test_folding_computes_in_float64_and_casts_what_it_gives(dtype: DType, tmp_path: Path) -> None:
    head = eval_mlp(WIDTH, WIDTH, 10)
    heads = {f"0.{name}": tensor for name, tensor in head.state_dict().items()}
    path = saved(tmp_path, consolidated(trunk().state_dict(), heads))

    with inspected(path, SourceOptions(), dtype) as (checkpoint, inspection):
        write_weights(checkpoint, inspection.plan, tmp_path)
    written = load_file(tmp_path / "model.safetensors")

    doubled = head.double()
    with torch.no_grad():  # what a linear layer does to nothing and to each unit vector
        bias = doubled(torch.zeros(1, WIDTH, dtype=torch.float64))[0]
        weight = (doubled(torch.eye(WIDTH, dtype=torch.float64)) - bias).T
    for name, exact in (("weight", weight), ("bias", bias)):
        # That sum and ours may differ in float64's last bits.
        loose = {"rtol": 1e-14, "atol": 1e-14} if dtype == "float64" else {"rtol": 0, "atol": 0}
        expected = exact.to(getattr(torch, dtype))
        torch.testing.assert_close(written[f"classifier.1.{name}"], expected, **loose)


def test_the_trunk_that_is_written_back_gives_the_same_features(tmp_path: Path) -> None:
    network = trunk()
    path = saved(tmp_path, consolidated(network.state_dict()))

    written = write_back(path, tmp_path / "written", "vissl")

    assert torch.load(written.path, weights_only=True)["type"] == "consolidated"
    again = loaded_by_vissl(written.path, TINY).trunk
    pixels = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(again(pixels)[0], network(pixels)[0])


def test_a_linear_evaluation_is_written_back_as_the_one_layer_that_it_is(tmp_path: Path) -> None:
    network = Pooled(trunk(2), [eval_mlp(WIDTH, WIDTH, 10)])
    path = saved(tmp_path, LAYOUTS["heads in a list"](network))

    written = write_back(path, tmp_path / "written", "vissl")

    again = loaded_by_vissl(written.path, TINY, WIDTH, 10)
    pixels = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(again(pixels), network(pixels), rtol=1e-5, atol=1e-5)
    # Of the head's evaluation the folder knows, and what is written says nothing.
    assert written.unsaid


HEADS: dict[str, Callable[[], list[Any]]] = {
    "SwAV": lambda: [swav(WIDTH)],
    "two layers": lambda: [mlp(WIDTH, 24, 10)],
    "one behind another": lambda: [mlp(WIDTH, 24), mlp(24, 10)],
    "one behind another, equally wide": lambda: [mlp(WIDTH, WIDTH), mlp(WIDTH, 10)],
    "without bias": lambda: [mlp(WIDTH, 10, use_bias=False)],
    "another stage's": lambda: [eval_mlp(24, 24, 10)],
    "another stage's, unpooled": lambda: [eval_mlp(WIDTH // 2, WIDTH, 10)],
}


@VERSIONS
@pytest.mark.parametrize("kind", HEADS)
def test_a_head_that_is_no_classifier_is_left_out_and_said_so(
    tmp_path: Path, kind: str, version: int
) -> None:
    network = Pooled(trunk(version), HEADS[kind]())
    path = saved(tmp_path, LAYOUTS["heads in a dict"](network))

    loaded = load(path, tmp_path / "out")

    assert not loaded.source.has_classifier
    assert set(loaded.source.skipped) == {f"head {index}" for index in range(len(network.heads))}
    assert relative_error(loaded.network, Pooled(network.trunk), torch.float32) <= 1e-5


@pytest.mark.parametrize(
    "head",
    [
        {"flat_param_0": torch.zeros(205)},
        {"clf.0.weight": torch.zeros(200), "clf.0.bias": torch.zeros(5)},
        {"clf.flat_param_0": torch.zeros(205), "channel_bn.weight": torch.zeros(WIDTH)},
    ],
    ids=lambda head: next(iter(head)),
)
def test_a_head_in_pieces_without_metadata_is_left_out_with_the_reason(
    tmp_path: Path, head: dict[str, torch.Tensor]
) -> None:
    path = saved(tmp_path, consolidated(trunk().state_dict(), [head]))

    loaded = load(path, tmp_path / "out")

    assert not loaded.source.has_classifier
    assert "pieces" in loaded.source.skipped["head 0"]


@BOTH_PRECISIONS
@VERSIONS
def test_a_bare_trunk_never_gets_a_classifier(
    tmp_path: Path, version: int, dtype: torch.dtype
) -> None:
    network = trunk(version)
    path = saved(tmp_path, network.state_dict())

    loaded = load(path, tmp_path / "out")

    assert not any("classifier" in step.target.name for step in loaded.inspection.plan.steps)
    assert loaded.source.transform.crop == 224
    assert relative_error(loaded.network, Pooled(network), dtype) <= TOLERANCES[dtype]


def test_of_a_linear_evaluation_of_several_stages_the_last_is_the_classifier(
    tmp_path: Path,
) -> None:
    heads = [eval_mlp(16, 16, 10), eval_mlp(24, 2 * 24, 10), eval_mlp(WIDTH, WIDTH, 10)]
    network = trunk()
    path = saved(tmp_path, LAYOUTS["frozen trunk"](Pooled(network, heads)))

    loaded = load(path, tmp_path / "out")

    assert loaded.decision("head") == "2, its batch norm folded in"
    assert set(loaded.source.skipped) == {"head 0", "head 1"}
    assert relative_error(loaded.network, Pooled(network, heads[2:]), torch.float32) <= 1e-5


@pytest.mark.parametrize("layout", ["heads in a dict", "heads in a list"])
def test_of_two_classifiers_the_one_asked_for_is_taken(layout: str, tmp_path: Path) -> None:
    network, heads = trunk(), [mlp(WIDTH, 10), mlp(WIDTH, 7)]
    path = saved(tmp_path, LAYOUTS[layout](Pooled(network, heads)))

    with pytest.raises(InputError, match=r"0, 1"), inspected(path, SourceOptions()):
        pass
    loaded = load(path, tmp_path / "out", head="1")

    assert relative_error(loaded.network, Pooled(network, heads[1:]), torch.float32) <= 1e-5


def test_two_parts_of_a_stage_with_one_name_are_refused(tmp_path: Path) -> None:
    parts = trunk(2).state_dict()
    name = next(name for name in parts if "-part1." in name)
    path = saved(tmp_path, parts | {name.replace("-part1.", "-part0."): parts[name] + 1})

    with (
        pytest.raises(InputError, match=r"in two parts of a stage; it mixes two models"),
        inspected(path, SourceOptions()),
    ):
        pass


def test_what_lies_beside_trunk_and_heads_is_said(tmp_path: Path) -> None:
    network = Pooled(trunk(), [mlp(WIDTH, 10)])
    content = LAYOUTS["heads in a dict"](network)
    content["classy_state_dict"]["base_model"]["model"]["queue"] = {"keys": torch.ones(2, 3)}

    loaded = load(saved(tmp_path, content), tmp_path / "out")

    assert "classy_state_dict.base_model.model.queue" in loaded.source.skipped
    assert loaded.source.has_classifier


def test_averaged_weights_are_found_beside_the_raw_ones(tmp_path: Path) -> None:
    raw, averaged = (Pooled(trunk(seed=seed), [mlp(WIDTH, 10)]) for seed in (1, 2))
    ema = LAYOUTS["heads in a dict"](averaged)["classy_state_dict"]["base_model"]
    content = LAYOUTS["heads in a dict"](raw)
    content["classy_state_dict"]["ema_model"] = ema
    path = saved(tmp_path, content)

    for choice, network in {"raw": raw, "ema": averaged}.items():
        loaded = load(path, tmp_path / choice, weights=choice)
        assert relative_error(loaded.network, network, torch.float32) <= 1e-5


def test_the_supervised_networks_take_bgr_when_told(tmp_path: Path) -> None:
    network = Pooled(trunk(), [mlp(WIDTH, 10)])
    path = saved(tmp_path, LAYOUTS["heads in a dict"](network))

    loaded = load(path, tmp_path / "out", channel_order="bgr")

    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        ours, theirs = loaded.network(images).logits, network(images.flip(1))
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


@VERSIONS
@pytest.mark.parametrize("name", SEER)
def test_every_seer_network_is_planned_from_its_names_and_shapes(name: str, version: int) -> None:
    widths, depths, group = SEER[name]
    network = on_meta(widths, depths, group, version)
    heads = {"0.clf.0.weight": stored((1000, widths[-1])), "0.clf.0.bias": stored((1000,))}

    source, plan = planned(consolidated(headers(network), heads))

    config = source.config
    assert (config.hidden_sizes, config.depths, config.groups_width) == (widths, depths, group)
    assert source.has_classifier
    assert len(plan.steps) == len(network.state_dict()) + 2
    assert not any("part" in name for name in source.tensors)


def on_meta(widths: list[int], depths: list[int], group: int, version: int) -> nn.Module:
    """A published trunk without memory; the second version cut as the 10B network was."""
    count = len(depths)
    regnet = {
        "name": "anynet",
        "depths": depths,
        "widths": widths,
        "group_widths": [group] * count,
        "bottleneck_multipliers": [1.0] * count,
        "strides": [2] * count,
    }
    with torch.device("meta"):
        return unfilled_trunk(version, regnet, [[2], [5], [9, depths[2]], []])


@pytest.fixture
def sliced(tmp_path: Path) -> tuple[Pooled, Path]:
    """A network that VISSL cut into slices, moved away from where it was saved."""
    network = Pooled(trunk(2), [mlp(WIDTH, 10)])
    path = tmp_path / "before" / "model_final.torch"
    path.parent.mkdir()
    model = {
        "trunk": save_slices(path, network.trunk.state_dict()),
        "heads": save_slices(path, network.heads.state_dict()),
    }
    content = {"type": "slice_list", "classy_state_dict": {"base_model": {"model": model}}}
    torch.save(content, path)
    return network, path.parent.rename(tmp_path / "after") / path.name


def test_slices_are_found_beside_their_list_wherever_it_was_moved(
    sliced: tuple[Pooled, Path], tmp_path: Path
) -> None:
    network, path = sliced

    loaded = load(path, tmp_path / "out")

    assert loaded.inspection.container == "slice_list"
    assert len(loaded.inspection.files) == 1 + len(network.state_dict())
    assert relative_error(loaded.network, network, torch.float32) <= 1e-5


def test_slices_may_lie_in_the_folder_of_their_list(
    sliced: tuple[Pooled, Path], tmp_path: Path
) -> None:
    network, path = sliced
    for slice_path in path.with_name("model_final_layers").iterdir():
        slice_path.rename(path.with_name(slice_path.name))

    loaded = load(path, tmp_path / "out")

    assert relative_error(loaded.network, network, torch.float32) <= 1e-5


def test_the_older_list_of_layers_is_read_as_well(tmp_path: Path) -> None:
    network = trunk()
    path = tmp_path / "model_final.torch"
    layers = save_slices(path, network.state_dict())
    torch.save({"type": "slice_list", "layers": layers}, path)

    loaded = load(path, tmp_path / "out")

    assert relative_error(loaded.network, Pooled(network), torch.float32) <= 1e-5


def test_few_files_are_open_at_once(
    sliced: tuple[Pooled, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    network, path = sliced
    monkeypatch.setattr("converters.checkpoint.reader._MAX_OPEN", 3)

    loaded = load(path, tmp_path / "out")

    assert relative_error(loaded.network, network, torch.float32) <= 1e-5


def test_a_slice_that_changes_meanwhile_is_noticed(
    sliced: tuple[Pooled, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    _, path = sliced
    monkeypatch.setattr("converters.checkpoint.reader._MAX_OPEN", 1)

    with open_any(path) as checkpoint:
        model = branch(checkpoint.tree, "classy_state_dict", "base_model", "model", "trunk")
        tensor = next(iter(model.values()))
        torch.save({"type": "slice", "weight": torch.zeros(tensor.shape)}, tensor.storage.path)
        with pytest.raises(StorageError, match="changed"):
            checkpoint.array(tensor)


def test_a_missing_slice_is_named(sliced: tuple[Pooled, Path]) -> None:
    _, path = sliced
    lost = min(path.with_name("model_final_layers").iterdir())
    lost.unlink()

    with pytest.raises(InputError, match=f"{lost.name}.*complete the download"), open_any(path):
        pass


@pytest.mark.parametrize("named", ["../secret.torch", "/etc/../secret.torch", "..", "", 3])
def test_a_list_leads_nowhere_but_beside_itself(tmp_path: Path, named: object) -> None:
    torch.save({"weight": torch.zeros(1)}, tmp_path / "secret.torch")
    folder = tmp_path / "lists"
    folder.mkdir()
    path = saved(folder, {"type": "shard_list", "shards": [named]})

    with pytest.raises(InputError, match="not beside it"), open_any(path):
        pass


@pytest.mark.parametrize("kind", ["shard", "slice"])
def test_one_of_many_files_asks_for_the_list(tmp_path: Path, kind: str) -> None:
    path = saved(tmp_path, {"type": kind, "weight": torch.zeros(3)})

    with pytest.raises(InputError, match=f"{kind}_list"), open_any(path):
        pass


@pytest.mark.slow
@pytest.mark.parametrize(("world", "flatten"), [(2, True), (3, False)])
def test_shards_of_a_real_fsdp_run_consolidate_to_the_unsharded_network(
    tmp_path: Path, world: int, flatten: bool
) -> None:
    network = Pooled(trunk(2), [mlp(WIDTH, 10), eval_mlp(WIDTH, WIDTH, 10)])
    (tmp_path / "run").mkdir()
    model = {"trunk": network.trunk.state_dict(), "heads": as_list(network)}
    save_shards(tmp_path / "run", world, in_parts(), model, flatten=flatten)
    folder = (tmp_path / "run").rename(tmp_path / "moved")
    path = folder / "model_final_checkpoint_phase0.torch"

    for index, head in enumerate(network.heads):
        loaded = load(path, tmp_path / f"out{index}", head=str(index))
        alone = Pooled(network.trunk, [head])
        assert relative_error(loaded.network, alone, torch.float32) <= 1e-5
    with open_any(path) as checkpoint:
        found = branch(checkpoint.tree, "classy_state_dict", "base_model", "model", "trunk")
        expected = network.trunk.state_dict()
        assert found.keys() == expected.keys()
        for name, tensor in expected.items():
            assert np.array_equal(checkpoint.array(found[name]), tensor.numpy())
