"""The keymaps of the flat families against the names of the real networks."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

import pytest
import torch
from timm import create_model

from converters.families.keymap import REFERENCE
from converters.families.openmmlab import OPENMMLAB
from converters.families.pytorchcv import PYTORCHCV
from converters.families.timm_dialects import TIMM, dialect_of
from converters.families.torchvision import TORCHVISION
from tests.converters.families.test_openmmlab import renamed
from tests.oracles import pycls, pytorchcv, timm, torchvision

if TYPE_CHECKING:
    from converters.families.keymap import Keymap

SE_ROLES = {"squeeze", "excite"}
WIDER_ROLES = {"stems.conv", "stems.norm", "preact.norm", "head.conv", "head.norm"}
"""Of networks that transformers does not have."""

OF_NO_PUBLISHED = {"head.conv", "head.norm"}
"""Rows of RegNetV, whose head no published one has."""


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

    assert used == set(keymap.rows) - WIDER_ROLES
    assert used | SE_ROLES | WIDER_ROLES == set(REFERENCE.rows)


def test_each_name_of_timms_wider_networks_fits_one_row_and_no_row_is_dead() -> None:
    used: dict[str, set[str]] = {}
    tables = {}
    for network in timm.WIDER:
        with torch.device("meta"):
            names = set(create_model(network).state_dict())
        table, _ = dialect_of(names)
        dialect = table.rows["reduce.conv"]
        tables[dialect] = table
        for name in names:
            rows = {role for role, row in table.patterns.items() if row.match(name) is not None}
            assert len(rows) == 1, f"{name} fits {rows}"
            used.setdefault(dialect, set()).update(rows)

    assert len(tables) == 3
    for dialect, table in tables.items():
        assert used[dialect] | OF_NO_PUBLISHED >= set(table.rows)


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
