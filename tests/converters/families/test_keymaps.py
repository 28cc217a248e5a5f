"""The keymaps of the flat families against the names of the real networks."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

import pytest

from converters.families.keymap import REFERENCE
from converters.families.openmmlab import OPENMMLAB
from converters.families.pytorchcv import PYTORCHCV
from converters.families.timm import TIMM
from converters.families.torchvision import TORCHVISION
from tests.converters.families.test_openmmlab import renamed
from tests.oracles import pycls, pytorchcv, timm, torchvision

if TYPE_CHECKING:
    from converters.families.keymap import Keymap

SE_ROLES = {"squeeze", "excite"}


@cache
def names(framework: str) -> dict[str, list[str]]:
    """Layer type to the parameter names of a real network."""
    if framework == "mmpretrain":
        state = renamed(pycls.build(pycls.TINY_X))
        return {"x": [name.replace("fc.", "head.fc.") for name in state]}
    oracle = {"timm": timm, "torchvision": torchvision, "pytorchcv": pytorchcv}[framework]
    return {
        "x": list(oracle.build(attention=False).state_dict()),
        "y": list(oracle.build(attention=True).state_dict()),
    }


EVERY_KEYMAP = pytest.mark.parametrize(
    "keymap", [TIMM, TORCHVISION, OPENMMLAB, PYTORCHCV], ids=lambda keymap: keymap.framework
)


@EVERY_KEYMAP
def test_each_name_fits_one_row_and_no_row_is_dead(keymap: Keymap) -> None:
    used = set()
    for name in {name for group in names(keymap.framework).values() for name in group}:
        rows = {role for role, row in keymap.patterns.items() if row.match(name) is not None}
        assert len(rows) == 1, f"{name} fits {rows}"
        used |= rows

    assert used == set(keymap.rows)
    assert used | SE_ROLES == set(REFERENCE.rows)


@EVERY_KEYMAP
def test_there_and_back_is_the_identity(keymap: Keymap) -> None:
    for layer_type, group in names(keymap.framework).items():
        there = {}
        for name in group:
            parsed = keymap.parse(name)
            assert parsed is not None
            role, fields = parsed
            there[name] = REFERENCE.spell(role, fields | {"last": 3 if layer_type == "y" else 2})
        assert len(set(there.values())) == len(group)
        for name, target in there.items():
            parsed = REFERENCE.parse(target)
            assert parsed is not None
            assert keymap.spell(*parsed) == name
