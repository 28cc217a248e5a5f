"""The traps of test_traps.py that only ClassyVision's and VISSL's checkpoints set, by number."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch

from converters.errors import InputError
from converters.families.classy_vision import FAMILY
from converters.families.recognise import architecture_of
from regnet.config import RegNetConfig
from tests.converters.loading import load, relative_error
from tests.converters.stored import headers

pytest.importorskip("vissl")

from tests.oracles import classy_vision
from tests.oracles.vissl import WIDTH, Pooled, consolidated, mlp, save_slices, swav, trunk

if TYPE_CHECKING:
    from pathlib import Path

LIMIT = 1e-5


def saved(folder: Path, content: Any) -> Path:
    torch.save(content, folder / "model_final.torch")
    return folder / "model_final.torch"


@pytest.mark.parametrize(("group_widths", "fits"), [((16, 24, 24), True), ((8, 12, 24), False)])
def test_trap_07_group_widths_that_differ(group_widths: tuple[int, ...], *, fits: bool) -> None:
    config = classy_vision.UNEVEN | {"widths": [16, 24, 48], "group_widths": list(group_widths)}
    tensors = headers(classy_vision.build(config))
    if fits:  # 16 // 24 is no group, which is one group
        fields = architecture_of(tensors, FAMILY.keymap, "x") | {"num_labels": 2}
        assert RegNetConfig(**fields).groups_width == 24
    else:
        with pytest.raises(InputError, match="group widths"):
            architecture_of(tensors, FAMILY.keymap, "x")


def test_trap_14_a_consolidated_file_is_not_in_the_order_of_the_model(tmp_path: Path) -> None:
    network = Pooled(trunk(2), [mlp(WIDTH, 10)])
    backwards = dict(reversed(network.trunk.state_dict().items()))
    path = saved(tmp_path, consolidated(backwards, network.heads.state_dict()))
    loaded = load(path, tmp_path / "out")
    assert relative_error(loaded.network, network, torch.float32) <= LIMIT


def test_trap_15_the_part_level_is_a_training_setting(tmp_path: Path) -> None:
    parts = trunk(2).state_dict()
    assert any("-part1." in name for name in parts)
    renumbered = {name.replace("-part1.", "-part7."): tensor for name, tensor in parts.items()}
    configs = []
    for number, state in enumerate((trunk(1).state_dict(), parts, renumbered)):
        folder = tmp_path / str(number)
        folder.mkdir()
        configs.append(load(saved(folder, state), folder / "out").source.config)
    assert configs[0] == configs[1] == configs[2]


def test_trap_16_a_foreign_head_is_no_classifier(tmp_path: Path) -> None:
    network = Pooled(trunk(), [swav(WIDTH)])
    path = saved(tmp_path, consolidated(network.trunk.state_dict(), network.heads.state_dict()))
    loaded = load(path, tmp_path / "out")
    assert not loaded.source.has_classifier
    assert any("prototypes" in name for name in network.state_dict())
    assert any("head" in place for place in loaded.inspection.plan.skipped)


def test_trap_17_attached_heads_move_the_names(tmp_path: Path) -> None:
    heads = {"trunk_output": [classy_vision.head("default_head", 40, 10)]}
    network = classy_vision.build(classy_vision.TINY, heads)
    state = network.state_dict()
    assert any("._module." in name for name in state)
    loaded = load(saved(tmp_path, state), tmp_path / "out")
    assert relative_error(loaded.network, network, torch.float32) <= LIMIT


def test_trap_31_a_slice_list_names_files_of_another_machine(tmp_path: Path) -> None:
    network = Pooled(trunk(), [])
    path = tmp_path / "theirs" / "model_final.torch"
    path.parent.mkdir()
    model = {"trunk": save_slices(path, network.trunk.state_dict()), "heads": {}}
    content = {"type": "slice_list", "classy_state_dict": {"base_model": {"model": model}}}
    torch.save(content, path)
    moved = path.parent.rename(tmp_path / "ours") / path.name
    loaded = load(moved, tmp_path / "out")
    assert relative_error(loaded.network, network, torch.float32) <= LIMIT
