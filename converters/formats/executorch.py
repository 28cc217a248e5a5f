"""ExecuTorch: a ``.pte`` for phones and microcontrollers, computed by XNNPACK."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

from converters.errors import require_extra
from converters.formats.torch_program import exported_program

if TYPE_CHECKING:
    from pathlib import Path

    from converters.folder.folder import ConvertedFolder

LARGEST_BATCH = 8
"""Memory of the outputs is planned for so many images. ExecuTorch 1.5 takes 15 at most, whatever
bound the program states."""

_LARGEST_IMAGE = 2
"""Times the network's own image size: how large an image may be."""

_LEAST_LARGEST_IMAGE = 64


def export_executorch(folder: ConvertedFolder, path: Path) -> None:
    """Write a program for ExecuTorch, in float32, that XNNPACK computes as a whole.

    Batch and image size are open up to :data:`LARGEST_BATCH` images of twice the network's own
    size. The same versions of torch and ExecuTorch write the same bytes.

    Args:
        folder: What to export.
        path: Created or replaced.

    Raises:
        InputError: If the folder cannot be used.
        StorageError: If ExecuTorch is not installed.
        OSError: If the file cannot be written.
    """
    require_extra("executorch", "executorch")
    with warnings.catch_warnings():
        # ExecuTorch 1.5 and torchao 0.18 use what torch 2.13 renames.
        warnings.simplefilter("ignore")
        from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
        from executorch.exir import ExecutorchBackendConfig, to_edge_transform_and_lower
        from executorch.exir.passes import MemoryPlanningPass

        side = max(_LARGEST_IMAGE * folder.image_size, _LEAST_LARGEST_IMAGE)
        program = exported_program(folder, (LARGEST_BATCH, side, side))
        edge = to_edge_transform_and_lower(program, partitioner=[XnnpackPartitioner()])
        # Callers bring the memory of images; planned, it would be reserved at every load.
        memory = MemoryPlanningPass(alloc_graph_input=False)
        lowered = edge.to_executorch(ExecutorchBackendConfig(memory_planning_pass=memory))
    with path.open("wb") as file:
        lowered.write_to_file(file)
