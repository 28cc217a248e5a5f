"""In which of the ways that fit the groups of each stage should lie: by timing, or as reckoned.

Which way is fastest depends on the processor. So each stage is timed alone in each way that may
pay, and the whole beside the untuned file, on this machine. With a block that somebody names
nothing is timed: a model of what computing costs decides, and the choice is the same everywhere.

ONNX Runtime's fast convolution (MLAS, ``nchwc_transformer.cc``) keeps channels in blocks of 16 with
AVX-512 and of 8 with AVX2, and takes grouped convolutions whose groups are whole blocks. It has no
such in integers, where it multiplies one group after another, so that fewer and wider ones pay.
"""

from __future__ import annotations

import math
import tempfile
import time
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from converters.errors import InputError
from converters.formats.blocks import fitting, group_widths, reblocked, rigid_stages, stage_of
from converters.formats.onnx.export import self_contained, write_alone
from converters.formats.onnx.form import DEFAULT_FORM, OPSET
from converters.formats.onnx.graph import spelled
from converters.formats.onnx.int8_graph import Grid, Int8Plan, layer_names
from converters.formats.onnx.runtime import OnnxRuntime, open_session, run_session
from converters.formats.onnx.weights import folded_weights
from regnet.architecture import PIXELS, Conv, extents, folded

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import Any

    from numpy.typing import NDArray
    from onnx import GraphProto, ModelProto

    from converters.folder.folder import ConvertedFolder
    from converters.formats.blocks import Blocks, Stages
    from converters.formats.onnx.form import GraphForm
    from regnet.architecture import Operation

POSSIBLE_BLOCKS = (4, 8, 16, 32, 64)
"""What may be named."""

_SLOWER, _MORE = 1.5, 24
"""What a convolution costs whose groups are no whole blocks: so many times as much for each channel
in a group, and that of so many channels more. Of 16 stages of four networks, each laid out in two
ways and timed with AVX-512, they tell what is gained to 3 % in the middle, and to 15 % at worst."""

_LEAST_GAIN = 1.03
"""How many times as fast a stage must be to be laid out otherwise; less may be chance."""

_WORTH_TIMING = 1.1
"""How many times what the network's own way costs another may cost, as reckoned, to be timed."""

_SECONDS = 1.5
_ROUNDS = range(5, 40)
"""How long contenders are timed in turn, and how many turns each has at least and at most."""

_FINE = 1e-6
"""Seconds."""


class Choice:
    """The ways in which the groups of each stage can lie, and what each costs.

    Args:
        folder: Whose network.
        form: Of the file; a size that it leaves open is reckoned as that of one image as large as
            the processor makes it.

    Attributes:
        batch: Number of images.
        blocks: What is tried where timing decides.
    """

    blocks: tuple[int, ...] = (8, 16)

    def __init__(self, folder: ConvertedFolder, form: GraphForm) -> None:
        self._folder, self._form = folder, form
        self._operations = folded(folder.architecture.operations)
        self._widths = group_widths(self._operations, len(folder.config.depths))
        self._rigid = rigid_stages(self._operations)
        self.batch = form.batch or 1
        sides = (form.height or folder.image_size, form.width or folder.image_size)
        self._extents = [extents(self._operations, side) for side in sides]

    def groups(self, stages: Stages) -> tuple[tuple[int, int], ...]:
        """For each stage the channels in a group: the network's, and those of a file."""
        laid = stages or [None] * len(self._widths)
        pairs = zip(self._widths, laid, strict=True)
        return tuple((own, blocks.width if blocks else own) for own, blocks in pairs)

    def reckoned(self, block: int) -> Stages:
        """For each stage the way that costs least in blocks of so many channels.

        Raises:
            InputError: If no runtime has such blocks.
        """
        if block not in POSSIBLE_BLOCKS:
            raise InputError(
                f"--block {block} is none that a runtime has; choose among "
                f"{', '.join(map(str, POSSIBLE_BLOCKS))}, or leave it out to have some timed."
            )
        stages = tuple(self._cheapest(stage, block) for stage in range(len(self._widths)))
        return stages if any(stages) else ()

    def timed(self, above: Path) -> tuple[Stages, float]:
        """For each stage the way that is fastest here, and how many times as fast the whole is.

        Args:
            above: Where there is room for the whole, twice, for a while.
        """
        stages = tuple(map(self._fastest, range(len(self._widths))))
        if not any(stages):
            return (), 1.0
        pixels = self._noise(PIXELS, self._folder.config.num_channels)
        with tempfile.TemporaryDirectory(dir=above) as scratch:
            calls = []
            for name, laid in {"plain": (), "tuned": stages}.items():
                path = Path(scratch, f"{name}.onnx")
                self._write(replace(self._form, stages=laid), path)
                calls.append(partial(OnnxRuntime(path), pixels))
            before, after = _least_seconds(calls)
        return (stages, round(before / after, 2)) if after < before else ((), 1.0)

    def _cheapest(self, stage: int, block: int) -> Blocks | None:
        return min((None, *self._ways(stage, block)), key=partial(self._cost, stage, block))

    def _cost(self, stage: int, block: int, blocks: Blocks | None) -> float:
        """Of a stage: its multiplications, weighed by how fast the runtime is at them."""
        height, width = self._extents
        return sum(
            math.prod(operation.slots[0].shape)
            * height[operation.output]
            * width[operation.output]
            * _weight(operation, block)
            for operation in self._laid(stage, blocks)
            if isinstance(operation, Conv)
        )

    def _ways(self, stage: int, block: int) -> tuple[Blocks, ...]:
        """In which a stage can lie in blocks."""
        return () if stage in self._rigid else fitting(self._widths[stage], block)

    def _fastest(self, stage: int) -> Blocks | None:
        """The way that takes least time, unless that may be chance."""
        worth = self._worth_timing(stage)
        if not worth:
            return None
        config = self._folder.config
        entry = self._laid(stage, None)[0].inputs[0]
        channels = config.hidden_sizes[stage - 1] if stage else config.embedding_size
        values = self._noise(entry, channels)
        models = [self._alone(stage, way, values.shape) for way in (None, *worth)]
        sessions = map(open_session, models)
        calls = [partial(run_session, session, entry, values) for session in sessions]
        before, *seconds = _least_seconds(calls)
        least = min(seconds)
        return worth[seconds.index(least)] if before > _LEAST_GAIN * least else None

    def _worth_timing(self, stage: int) -> list[Blocks]:
        """The ways that may pay."""
        ways = dict.fromkeys(way for block in self.blocks for way in self._ways(stage, block))
        costs = {way: self._cost(stage, max(self.blocks), way) for way in ways}
        most = _WORTH_TIMING * self._cost(stage, max(self.blocks), None)
        return [way for way, cost in costs.items() if cost <= most]

    def _noise(self, value: str, channels: int) -> NDArray[np.float32]:
        """Something to time with in the place of a value, positive as behind a ReLU."""
        height, width = (extent[value] for extent in self._extents)
        shape = (self.batch, channels, height, width)
        return np.abs(np.random.default_rng(0).standard_normal(shape, np.float32))

    def _laid(self, stage: int, blocks: Blocks | None) -> list[Operation]:
        """The operations of a stage, with its groups laid out in a way."""
        operations = reblocked(self._operations, self._only(stage, blocks))
        return [operation for operation in operations if stage_of(operation) == stage]

    def _only(self, stage: int, blocks: Blocks | None) -> Stages:
        return tuple(blocks if index == stage else None for index in range(len(self._widths)))

    def _alone(self, stage: int, blocks: Blocks | None, shape: Sequence[int]) -> ModelProto:
        """A network of one stage, which reads a value of a shape."""
        operations = self._laid(stage, blocks)
        nodes = spelled(operations, DEFAULT_FORM)
        read = {value for node in nodes for value in node.input}
        weights = folded_weights(self._folder, stages=self._only(stage, blocks))
        held = {weight.name: weight.computed() for weight in weights if weight.name in read}
        entry, end = (
            helper.make_tensor_value_info(name, TensorProto.FLOAT, sizes)
            for name, sizes in ((operations[0].inputs[0], shape), (operations[-1].output, None))
        )
        return self._model(helper.make_graph(nodes, f"stage {stage}", [entry], [end]), held)

    def _model(self, graph: GraphProto, weights: Mapping[str, NDArray[Any]]) -> ModelProto:
        """What a session is opened on, of a graph and what it reads."""
        opset = helper.make_opsetid("", OPSET)
        oldest = helper.find_min_ir_version_for([opset])
        model = helper.make_model(graph, opset_imports=[opset], ir_version=oldest)
        model.graph.initializer.extend(
            numpy_helper.from_array(tensor, name) for name, tensor in weights.items()
        )
        return model

    def _write(self, form: GraphForm, path: Path) -> None:
        """Write the whole network, to be timed."""
        write_alone(self_contained(self._folder, form), path)


class Int8Choice(Choice):
    """The same of networks in int8, where groups are merged and nothing else pays.

    Grids do not matter to times, so that nothing is calibrated for them.
    """

    blocks = (16, 32, 64)

    def _ways(self, stage: int, block: int) -> tuple[Blocks, ...]:
        own = self._widths[stage]
        return tuple(way for way in super()._ways(stage, block) if way.pitch == own)

    def _cheapest(self, stage: int, block: int) -> Blocks | None:
        """As many groups as one block takes, where whole ones fill it."""
        return next((way for way in self._ways(stage, block) if way.width == block), None)

    def _worth_timing(self, stage: int) -> list[Blocks]:
        return list(dict.fromkeys(way for each in self.blocks for way in self._ways(stage, each)))

    def _model(self, graph: GraphProto, weights: Mapping[str, NDArray[Any]]) -> ModelProto:
        plan = Int8Plan(graph, layer_names(self._folder))
        grids = {value.name: Grid.spanning(-1.0, 1.0) for value in graph.output}
        grids |= {value: Grid.spanning(0.0, 1.0) for value in plan.values}
        return super()._model(plan.quantised(), plan.initialisers(grids, weights))

    def _write(self, form: GraphForm, path: Path) -> None:
        file = self_contained(self._folder, form)
        model = self._model(file.graph, {weight.name: weight.computed() for weight in file.weights})
        path.write_bytes(model.SerializeToString())


def _weight(operation: Conv, block: int) -> float:
    """How slowly the runtime multiplies in a convolution, beside one that lies in its blocks."""
    width = operation.slots[0].shape[1]
    off_path = operation.groups > 1 and width > 1 and width % block
    return _SLOWER + _MORE / width if off_path else 1.0


def _least_seconds(calls: Sequence[Callable[[], object]]) -> list[float]:
    """The least time of each, called in turn, so that what else the machine does meets all.

    It is the processor's time of this thread, which is the one that computes; a clock that is too
    coarse for that, as that of Windows, gives way to the time of day.
    """
    fine = time.get_clock_info("thread_time").resolution < _FINE
    clock = time.thread_time if fine else time.perf_counter
    least = [math.inf] * len(calls)
    begin = clock()
    for turn in range(_ROUNDS.stop):
        if turn >= _ROUNDS.start and clock() - begin > _SECONDS:
            break
        for index, call in enumerate(calls):
            call()  # whoever ran before has left the caches to himself
            start = clock()
            call()
            least[index] = min(least[index], clock() - start)
    return least
