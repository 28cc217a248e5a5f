"""Writing the target's weights from a plan, one tensor in memory."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from converters.dtypes import cast, cast_pieces, dtypes_that_hold, widened
from converters.errors import InputError
from regnet.safetensors_file import (
    INDEX_NAME,
    TensorSpec,
    index_json,
    plan_shards,
    write_file,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

    from numpy.typing import NDArray

    from converters.checkpoint import AnyCheckpoint, StoredTensor
    from converters.plan import Plan, Step

    Buffer = bytes | bytearray | memoryview


def write_weights(
    checkpoint: AnyCheckpoint,
    plan: Plan,
    folder: Path,
    *,
    max_shard_size: int | None = None,
    advance: Callable[[int], None] = lambda _: None,
) -> dict[str, str]:
    """Write ``model.safetensors``, or shards and their index.

    Args:
        checkpoint: The open source.
        plan: What to write.
        folder: An existing folder.
        max_shard_size: In bytes; None for one file.
        advance: Called with the number of bytes after each chunk.

    Returns:
        File name to sha256 of each weights file.

    Raises:
        InputError: If the source turns out damaged (its checksum does not hold), or a finite number
            would become infinite in the plan's dtype.
        OSError: If a file cannot be written.
    """
    steps = {step.target.name: step for step in plan.steps}

    def data(spec: TensorSpec) -> Iterator[Buffer]:
        for chunk in _chunks(checkpoint, steps[spec.name]):
            yield chunk
            advance(memoryview(chunk).nbytes)

    shards = plan_shards([step.target for step in plan.steps], max_shard_size)
    digests = {
        shard.file_name: write_file(folder / shard.file_name, shard.specs, data) for shard in shards
    }
    if len(shards) > 1:
        (folder / INDEX_NAME).write_text(index_json(shards), encoding="utf-8")
    return digests


def _chunks(checkpoint: AnyCheckpoint, step: Step) -> Iterable[Buffer]:
    """The bytes of one tensor; copied as they are unless a quirk or a cast asks for more."""
    if step.tensor is None:
        return [bytes(step.target.nbytes)]
    if not step.flip and step.cast is None:
        return checkpoint.chunks(step.tensor)
    array, dtype = _array(checkpoint, step, step.tensor)
    if step.flip:
        array = array[:, ::-1]
    return [array.tobytes()] if step.cast is None else _cast(array, dtype, step, checkpoint)


def _array(checkpoint: AnyCheckpoint, step: Step, tensor: StoredTensor) -> tuple[NDArray[Any], str]:
    """A tensor as it is stored, or as its fold computes it, and torch's name of its type."""
    if step.fold is None:
        return checkpoint.array(tensor), tensor.dtype
    folded = step.fold.apply(tensor, lambda t: cast(checkpoint.array(t), t.dtype, "float64"))
    return folded, "float64"


def _cast(
    array: NDArray[Any], dtype: str, step: Step, checkpoint: AnyCheckpoint
) -> Iterator[bytes]:
    """Cast piece by piece to what the step asks for; no finite number may become infinite."""
    import numpy as np

    to = str(step.cast)
    for before, after in cast_pieces(array, dtype, to):
        numbers = widened(before, dtype)
        lost = np.isinf(widened(after, to)) & np.isfinite(numbers)
        if lost.any():
            number = float(numbers[lost][0])
            choices = " or ".join(dtypes_that_hold(number))
            raise InputError(
                f"{checkpoint.path.name}: {step.source_name} holds {number:.7g}, which is too "
                f"large for {to}; convert it with --dtype {choices}."
            )
        yield after.tobytes()
