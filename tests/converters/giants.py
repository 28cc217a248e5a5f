"""Checkpoints of any size in a moment: their weights are holes that the disk does not store."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from regnet.config import RegNetConfig
from regnet.files.safetensors_file import TensorSpec, header_bytes
from tests.converters.stored import in_pycls_words

if TYPE_CHECKING:
    from pathlib import Path


def wide(width: int, depth: int = 2) -> RegNetConfig:
    """A RegNetX whose last stage has ``2 * depth - 1`` layers of ``4 * width**2`` bytes."""
    return RegNetConfig(
        depths=(1, depth), hidden_sizes=(256, width), groups_width=64, layer_type="x"
    )


def sparse_checkpoint(path: Path, config: RegNetConfig) -> Path:
    """Make a safetensors file under pycls's names, all zeros but for marks along its length."""
    specs = [
        TensorSpec(name, "int64" if name.endswith("num_batches_tracked") else "float32", shape)
        for name, shape in in_pycls_words(config).items()
    ]
    header = header_bytes(specs)
    size = len(header) + sum(spec.nbytes for spec in specs)
    with path.open("wb") as file:
        file.write(header)
        file.truncate(size)
        for number in range(1, 100):  # each a float32 of its own, small enough for any type
            offset = size - (size * number // 100) // 8 * 8
            os.pwrite(file.fileno(), number.to_bytes(3, "little") + b"\x3f", offset - 8)
    return path
