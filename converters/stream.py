"""Writing the target's weights from a plan, one tensor in memory."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

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

_DTYPES = {"F32": "float32", "I64": "int64"}
"""safetensors' name of a type to NumPy's."""


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
        InputError: If the source turns out damaged (its checksum does not hold).
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
    """The bytes of one tensor; copied as they are unless a quirk asks for arithmetic."""
    tensor = step.tensor
    if tensor is None:
        return [bytes(step.target.nbytes)]
    if step.fold is not None:
        return [step.fold.apply(tensor, lambda t: _cast(checkpoint, t, "float64")).tobytes()]
    if not (step.flip or step.cast):
        return checkpoint.chunks(tensor)
    dtype = _DTYPES[step.target.dtype]
    array = _cast(checkpoint, tensor, dtype) if step.cast else checkpoint.array(tensor)
    if step.flip:
        array = array[:, ::-1]
    return [array.tobytes()]


def _cast(checkpoint: AnyCheckpoint, tensor: StoredTensor, dtype: str) -> NDArray[Any]:
    """Read as another type; bfloat16 arrives as the upper half of a float32."""
    import numpy as np

    array = checkpoint.array(tensor)
    if tensor.dtype == "bfloat16":
        array = (array.astype(np.uint32) << 16).view(np.float32)
    with np.errstate(all="ignore"):  # too large becomes infinite, in silence, as in torch
        return array.astype(dtype)
