"""A giant: a network without weights under a framework's names, and how it is written."""

from __future__ import annotations

import tempfile
from collections import OrderedDict
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.giants.content import Part
from converters.checkpoint import open_any
from converters.families.family import Network
from converters.families.recognise import tensors_of
from converters.families.source import BICUBIC, EvalTransform
from regnet.architecture import COUNTER, Architecture
from regnet.files.dtypes import COUNTER_DTYPE
from regnet.files.safetensors_file import (
    WEIGHTS_NAME,
    TensorSpec,
    header_bytes,
    in_file_order,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from benchmarks.giants.containers import Writer
    from converters.checkpoint import StoredTensor
    from converters.checkpoint.torch_pickle import Value
    from converters.families.family import Family
    from regnet.config import RegNetConfig


@dataclass(frozen=True)
class Giant(Network):
    """A network that a target writes as any other, but for its numbers, which are made meanwhile.

    Attributes:
        writer: Writes its files.
    """

    writer: Writer

    def state_dict(self) -> OrderedDict[str, Value]:
        """Every tensor under the target's name, in the order of its state dict."""
        return OrderedDict((name, self.part(name)) for name in self.tensors)

    def part(self, name: str) -> Part:
        """A whole tensor.

        Args:
            name: The target's.
        """
        stored = self.tensors[name]
        is_stem = name == self.target.keymap.spell("stem.conv", {})
        flipped = is_stem and self.target.preprocessing.channel_order == "bgr"
        source = self._sources[stored]
        return Part("", name, stored, stored.dtype, source=source, flipped=flipped)

    def save(self, path: Path, tree: dict[str, Any]) -> None:
        """Write a file in the giant's container."""
        self.writer.write(path, tree)

    @cached_property
    def _sources(self) -> dict[StoredTensor, str]:
        return {stored: ours for ours, stored in self.stored.items()}


@contextmanager
def giant(
    config: RegNetConfig, dtype: str, classes: int, target: Family, writer: Writer
) -> Iterator[Giant]:
    """Lay out a network as a converted folder whose weights are one hole, for as long as needed.

    Args:
        config: The network.
        dtype: Of all but the counters, torch's name.
        classes: Of its classifier; 0 for a trunk alone.
        target: Whose names it gets.
        writer: Writes its files.

    Raises:
        InputError: If the framework has no such network.
    """
    target.require_expressible(config, "The network", has_classifier=classes > 0)
    with tempfile.TemporaryDirectory(prefix="giant-") as name:
        weights = Path(name) / WEIGHTS_NAME
        _write_hole(weights, config, dtype, classes)
        with open_any(weights) as checkpoint:
            yield Giant(
                target=target,
                checkpoint=checkpoint,
                stored=tensors_of(checkpoint.tree),
                config=config,
                has_classifier=classes > 0,
                stated=EvalTransform(256, 224, BICUBIC),
                where=name,
                writer=writer,
            )


def _write_hole(path: Path, config: RegNetConfig, dtype: str, classes: int) -> None:
    """Write a safetensors file's header, and nothing behind it."""
    specs = in_file_order(
        TensorSpec(
            name,
            COUNTER_DTYPE if name.endswith(COUNTER) else dtype,
            shape,
        )
        for name, shape in Architecture.of(config, classifier=classes > 0).shapes.items()
    )
    header = header_bytes(specs)
    with path.open("wb") as file:
        file.write(header)
        file.truncate(len(header) + sum(spec.nbytes for spec in specs))
