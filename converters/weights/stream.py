"""Writing the target's weights from a plan: one pass over the source, pieces in memory.

On the way numbers are looked for that no trained network has: NaN, infinity, a negative variance.
They come of a training that diverged, and a network with one of them answers the same to every
image. The thread that takes a file's sha256 finds them, in bytes it has read already.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

from converters.checkpoint.digests import SourceDigest, followable
from converters.errors import InputError, first
from converters.weights.weights_file import PIECE, Follower, WeightsFile
from regnet.architecture import BUFFER_LEAVES
from regnet.files.dtypes import ELEMENT_TYPES, cast, cast_pieces, dtypes_that_hold, widened
from regnet.files.safetensors_file import (
    INDEX_NAME,
    header_bytes,
    in_file_order,
    index_json,
    plan_shards,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from converters.checkpoint import Checkpoint, Storage, StoredTensor
    from converters.checkpoint.values import Run
    from converters.weights.plan import Plan, Step
    from converters.weights.weights_file import Look

    Buffer = bytes | memoryview

_VARIANCE = "running_var"


@dataclass(frozen=True, slots=True)
class Written:
    """The sha256 of what was written and of what it was written from.

    Attributes:
        weights: By file name, in hexadecimal; the index of shards is not among them.
        source: Likewise.
    """

    weights: Mapping[str, str]
    source: Mapping[str, str]


def write_weights(  # noqa: PLR0913 -- the checkpoint, the plan, and how
    checkpoint: Checkpoint,
    plan: Plan,
    folder: Path,
    *,
    max_shard_size: int | None = None,
    allow_nonfinite: bool = False,
    advance: Callable[[int], None] = lambda _: None,
) -> Written:
    """Write ``model.safetensors``, or shards and their index.

    Files of an interrupted attempt are taken up: what they hold is compared with what belongs
    there, and written anew from where it differs.

    Args:
        checkpoint: The open source.
        plan: What to write.
        folder: An existing folder.
        max_shard_size: In bytes; None for one file.
        allow_nonfinite: Whether NaN, infinity and negative variances may be written.
        advance: Called with the number of bytes after each piece.

    Raises:
        InputError: If the source turns out damaged (its checksum does not hold), holds numbers that
            no trained network has, or a finite one would become infinite in the plan's dtype.
        StorageError: If the source cannot be read or changes meanwhile.
        OSError: If a file cannot be written.
    """
    steps = {step.target.name: step for step in plan.steps}
    shards = plan_shards([step.target for step in plan.steps], max_shard_size)
    ordered = [[steps[spec.name] for spec in in_file_order(shard.specs)] for shard in shards]
    digests = _source_digests(checkpoint, plan)
    with Follower() as target, Follower() as source:
        runs = followable([run for of_file in ordered for step in of_file for run in _runs(step)])
        stream = _Stream(checkpoint, target, source, digests, runs, advance)
        weights = {
            shard.file_name: stream.write(folder / shard.file_name, of_file)
            for shard, of_file in zip(shards, ordered, strict=True)
        }
    if len(shards) > 1:
        (folder / INDEX_NAME).write_text(
            index_json(shards, BUFFER_LEAVES), encoding="utf-8", newline="\n"
        )
    read = {path.name: digest.finish() for path, digest in digests.items()}
    if stream.wrong and not allow_nonfinite:
        named = [f"{name} {what}" for name, what in stream.wrong.items()]
        raise InputError(
            f"{checkpoint.path.name} holds numbers that no trained network has ({first(named)}); "
            "convert an earlier checkpoint, or this one as it is with --allow-nonfinite."
        )
    return Written(weights, read)


def _source_digests(checkpoint: Checkpoint, plan: Plan) -> dict[Path, SourceDigest]:
    """One for each file; it checks the storages whose tensors are written or folded."""
    storages: dict[Path, list[Storage]] = defaultdict(list)
    for tensor in (step.tensor for step in plan.steps if step.tensor):
        for part in tensor.parts:
            storages[part.storage.path].append(part.storage)
    return {
        path: SourceDigest(path, stamp, storages[path]) for path, stamp in checkpoint.stamps.items()
    }


def _runs(step: Step) -> Sequence[Run]:
    """Where a tensor's bytes lie, if it can be written piece by piece."""
    if step.tensor is None or step.flip or step.fold is not None:
        return ()
    return step.tensor.runs or ()


@dataclass(frozen=True, slots=True)
class _Stream:
    """One run of :func:`write_weights`.

    Attributes:
        checkpoint: The source.
        target: The thread that hashes what is written.
        source: The thread that feeds the digests.
        digests: That of each source file.
        followed: The runs that are fed to them.
        advance: Called with the number of bytes written.
        wrong: The tensors with a number that cannot be right: name to what it is.
    """

    checkpoint: Checkpoint
    target: Follower
    source: Follower
    digests: Mapping[Path, SourceDigest]
    followed: set[Run]
    advance: Callable[[int], None]
    wrong: dict[str, str] = field(default_factory=dict)

    def write(self, path: Path, steps: Sequence[Step]) -> str:
        """Write one file of tensors, in this order, and return its sha256."""
        with WeightsFile(path, self.target, self.source) as file:
            file.write(header_bytes([step.target for step in steps]))
            for step in steps:
                tensor, runs = step.tensor, _runs(step)
                if tensor is None:
                    self._append(file, step, [step.filled])
                elif not runs:
                    self._append(file, step, self._pieces(step, tensor))
                else:
                    for run in runs:
                        self._write_run(file, step, tensor, run)
            return file.finish()

    def _write_run(self, file: WeightsFile, step: Step, tensor: StoredTensor, run: Run) -> None:
        """Copy or cast a run, one piece after another."""
        import numpy as np

        source = self.checkpoint.source_file(run.path)
        digest = self.digests[run.path] if run in self.followed else None
        for piece in run.pieces(PIECE):
            if step.cast is None:
                file.copy(source, piece, digest, self._look(step))
                self.advance(piece.length)
            else:
                stored = source.read(piece.offset, piece.length)
                if digest is not None:
                    self.source.do(digest.feed, piece.offset, stored)
                array = np.frombuffer(stored, ELEMENT_TYPES[tensor.dtype].numpy)
                self._append(file, step, self._cast(step, array, tensor.dtype))
        source.require_unchanged()

    def _append(self, file: WeightsFile, step: Step, pieces: Iterable[Buffer]) -> None:
        for data in pieces:
            file.write(data, self._look(step))
            self.advance(len(data))

    def _look(self, step: Step) -> Look | None:
        """What finds wrong numbers in a step's bytes; None for counters and what is made zeros."""
        dtype = step.target.dtype
        if step.source_name is None or "float" not in dtype:
            return None
        return partial(self._look_at, step.source_name, dtype)

    def _look_at(self, name: str, dtype: str, data: bytes) -> None:
        import numpy as np

        numbers = widened(np.frombuffer(data, ELEMENT_TYPES[dtype].numpy), dtype)
        if not np.isfinite(numbers).all():
            self.wrong.setdefault(name, "is not finite")
        elif name.endswith(_VARIANCE) and (numbers < 0).any():
            self.wrong.setdefault(name, "is negative")

    def _pieces(self, step: Step, tensor: StoredTensor) -> Iterator[Buffer]:
        """What has to be in memory as a whole before it can be written."""
        if not step.flip and step.cast is None:  # its elements lie in another order
            yield from self.checkpoint.chunks(tensor)
            return
        if step.fold is None:
            array, dtype = self.checkpoint.array(tensor), tensor.dtype
        else:
            array, dtype = step.fold.apply(tensor, self._float64), "float64"
        if step.flip:
            array = array[:, ::-1]
        if step.cast is not None:
            yield from self._cast(step, array, dtype)
            return
        flat = array.reshape(-1).view("|u1")
        for start in range(0, flat.size, PIECE):
            yield flat[start : start + PIECE].data

    def _float64(self, tensor: StoredTensor) -> NDArray[Any]:
        return cast(self.checkpoint.array(tensor), tensor.dtype, "float64")

    def _cast(self, step: Step, array: NDArray[Any], dtype: str) -> Iterator[bytes]:
        """Cast piece by piece to what the step asks for; no finite number may become infinite."""
        import numpy as np

        to = str(step.cast)
        for before, after in cast_pieces(array, dtype, to):
            numbers = widened(before, dtype)
            lost = np.isinf(widened(after, to)) & np.isfinite(numbers)
            if lost.any():
                raise self._lost(step, float(numbers[lost][0]))
            yield after.tobytes()

    def _lost(self, step: Step, number: float) -> InputError:
        """The error for a number that a cast would lose, unless damage has made it so large."""
        if step.tensor is not None:
            self.checkpoint.verify(step.tensor)
        choices = " or ".join(dtypes_that_hold(number))
        return InputError(
            f"{self.checkpoint.path.name}: {step.source_name} holds {number:.7g}, which is too "
            f"large for {step.cast}; convert it with --dtype {choices}."
        )
