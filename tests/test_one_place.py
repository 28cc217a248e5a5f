"""Names and numbers that files, formats and rooms have in common are written down once."""

from __future__ import annotations

import ast
from collections import defaultdict
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parent.parent

HOMES: dict[str | int, str] = {
    "config.json": "regnet/config.py",
    "preprocessor_config.json": "regnet/files/json_file.py",
    "processor_config.json": "regnet/files/json_file.py",
    "model.safetensors": "regnet/files/safetensors_file.py",
    "model.safetensors.index.json": "regnet/files/safetensors_file.py",
    "model-*-of-*.safetensors": "regnet/files/safetensors_file.py",
    "__metadata__": "regnet/files/safetensors_file.py",
    "pytorch_model.bin": "converters/checkpoint/beside.py",
    "open_clip_model.safetensors": "converters/checkpoint/beside.py",
    "conversion.json": "converters/folder/folder.py",
    "golden.safetensors": "converters/folder/folder.py",
    "regnet-converters": "converters/errors.py",
    "BF16": "regnet/files/dtypes.py",
    "<f2": "regnet/files/dtypes.py",
    "LongStorage": "regnet/files/dtypes.py",
    "num_batches_tracked": "regnet/architecture.py",
    ".convolution.weight": "regnet/architecture.py",
    ".folded_weight": "converters/formats/onnx/form.py",
    20200330: "converters/folder/inputs.py",
}
"""Each to the only module that may spell it; all others import it."""


@cache
def places() -> dict[object, set[str]]:
    """Every constant of the product but its docstrings, and the modules that spell it."""
    found: dict[object, set[str]] = defaultdict(set)
    for room in ("regnet", "converters"):
        for path in (ROOT / room).rglob("*.py"):
            for value in constants(ast.parse(path.read_bytes())):
                found[value].add(path.relative_to(ROOT).as_posix())
    return found


def constants(tree: ast.Module) -> Iterator[object]:
    documentation = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and id(node) not in documentation:
            yield node.value


@pytest.mark.parametrize("value", HOMES, ids=str)
def test_what_many_need_is_spelt_in_one_module(value: str | int) -> None:
    assert places()[value] == {HOMES[value]}
