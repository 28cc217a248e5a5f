"""The files that are changed: small, and written by the programs that write such files."""

from __future__ import annotations

import argparse
import io
import pickle
import warnings
from collections import OrderedDict
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from safetensors.torch import save as save_safetensors

from benchmarks.giants.make import Recipe, make
from converters.folder.folder import ConvertedFolder
from converters.jobs.convert import convert
from regnet.config import RegNetConfig
from regnet.model import RegNetForImageClassification

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path


class _Config:
    """Stands for a class of somebody's trainer."""


def _trees() -> list[Any]:
    """What checkpoints are made of; the same names with different numbers, for splices."""
    trees: list[Any] = []
    for sign in (1, -1):
        base = sign * torch.arange(1.0, 7.0).reshape(2, 3)
        shared = sign * torch.arange(12, dtype=torch.float32)
        trees.append({"weight": base, "bias": base[0] * 2})
        trees.append(
            OrderedDict(
                a=base.t(), b=torch.nn.Parameter(base), c=base[:, 1], d=base.long(), e=base.half(),
                f=base > 1, g=base.bfloat16(), h=shared[2:8].view(2, 3), i=shared[::2],
                j=torch.tensor(sign, dtype=torch.int64), k=base[:0], l=shared.expand(2, 12),
            )
        )  # fmt: skip
        plain = {
            "epoch": 3, "big": 1 << 70, "text": "line\né", "bytes": b"\x00\xff", "set": {1, "a"},
            "frozen": frozenset({2.5}), "complex": 1 + 2j, "size": torch.Size([1, 2]), "none": None,
            "half": np.float32(1.5), "dtype": torch.float16, "list": [1, [2.5, True]], 5: (1,),
        }  # fmt: skip
        trees.append({"state_dict": {"weight": base, "bias": base[1]}, **plain})
        trees.append({"weight": base.to(torch.uint16), "bias": torch.zeros(2) + sign})
        parameter = torch.nn.Parameter(base)
        parameter.note = {"data": base.t()}  # type: ignore[attr-defined]
        trees.append({"weight": parameter, "bias": base[1]})
        trees.append({"state_dict": _arrays(base), "epoch": sign})
        trees.append({"model": _module(base), "epoch": sign})
        args = argparse.Namespace(lr=0.1, names=["a", None], model="regnet")
        trees.append({"weight": base, "args": args, "config": _Config(), "steps": sign})
    return trees


def _module(base: torch.Tensor) -> torch.nn.Module:
    """A network that is pickled whole."""
    network = torch.nn.Sequential(
        torch.nn.Conv2d(1, 2, 1, bias=False), torch.nn.BatchNorm2d(2), torch.nn.Linear(3, 2)
    )
    with torch.no_grad():
        for name, value in network.state_dict().items():
            if not name.endswith("num_batches_tracked"):
                value.copy_(base.reshape(-1)[: value.numel()].reshape(value.shape))
    return network


def _arrays(base: torch.Tensor) -> dict[str, Any]:
    """The same numbers as NumPy's, in every form that its pickles have."""
    array: np.ndarray = base.numpy()
    return {
        "weight": array, "bias": array[0] * 2, "order": np.asfortranarray(array), "again": array,
        "half": array.astype(np.float16), "scalar": np.array(7), "bytes": array.astype(np.uint8),
        "none": array[:0], "big": array.astype(">f4"), "objects": np.array([1, None]),
        "truth": array > 1, "step": np.float64(0.5), "raw": b"\x00\xff",
    }  # fmt: skip


def pickled() -> list[bytes]:
    """Pickles of arrays, which torch did not write."""
    base = torch.arange(1.0, 7.0).reshape(2, 3)
    return [
        pickle.dumps({"model": _arrays(sign * base), "author": "x"}, protocol)
        for protocol in (1, 2, 3, 4, 5)
        for sign in (1, -1)
    ]


def saved(*, is_zip: bool) -> list[bytes]:
    """Checkpoints in one of torch's containers."""
    files = []
    for protocol in (2, 4, 5):
        for tree in _trees():
            buffer = io.BytesIO()
            torch.save(
                tree, buffer, pickle_protocol=protocol, _use_new_zipfile_serialization=is_zip
            )
            files.append(buffer.getvalue())
    return files


def safetensors() -> list[bytes]:
    """Files of the safetensors library."""
    base = torch.arange(4.0)
    return [
        save_safetensors({"a": base, "b": base[:2] + 9}),
        save_safetensors({"a": -base, "A": base.half(), "n": torch.tensor(3)}, {"format": "pt"}),
        save_safetensors({"x.weight": base.reshape(2, 2), "empty": base[:0], "u": base.byte()}),
        save_safetensors({}, {"a": "b", "é": "line\n"}),
    ]


class _Logits(torch.nn.Module):
    """A network that returns what exporters can follow: a tensor."""

    def __init__(self, network: torch.nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.network(images).logits
        return logits


def exported(kind: str, folders: Sequence[ConvertedFolder]) -> list[bytes]:
    """What torch's own exporter makes of converted networks."""
    files = []
    images = torch.zeros(1, 3, 32, 32)
    for folder in folders:
        network = _Logits(RegNetForImageClassification.from_pretrained(folder.path)).eval()
        buffer = io.BytesIO()
        with warnings.catch_warnings(action="ignore"):  # of torch, about its own code
            if kind == "pt2":
                torch.export.save(torch.export.export(network, (images,)), buffer)
            else:
                trace: Any = torch.jit.trace
                torch.jit.save(torch.jit.freeze(trace(network, images)), buffer)
        files.append(buffer.getvalue())
    return files


KINDS: tuple[tuple[Literal["x", "y"], int], ...] = (("x", 1), ("x", 2), ("y", 3))
"""Layer type and seed: two networks of one shape, and one of another."""


def folders(
    place: Path, file_format: str, kinds: Sequence[tuple[Literal["x", "y"], int]] = KINDS
) -> list[ConvertedFolder]:
    """Converted networks with an artefact.

    The block needs its shortcut for its width, too: strides that change places leave it there, so
    that nothing but a comparison of strides shows them.
    """
    made = []
    for index, (layer_type, seed) in enumerate(kinds):
        config = RegNetConfig(
            depths=(1,), hidden_sizes=(8,), groups_width=4, embedding_size=4,
            layer_type=layer_type, num_labels=3,
        )  # fmt: skip
        source, out = place / f"source-{index}", place / f"out-{index}"
        make(config, source, Recipe("pycls", classes=3, seed=seed))
        convert(source, out, formats=(file_format,), verify=False)
        made.append(ConvertedFolder(out))
    return made
