"""ExecuTorch: a ``.pte`` for phones and microcontrollers, computed by XNNPACK."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

from converters.errors import require_extra
from converters.formats.format import DEFAULTS, Format
from converters.formats.memory import require_memory
from converters.formats.runtime import ArtefactRuntime
from converters.formats.torch_program import exported_program

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    from converters.folder.folder import ConvertedFolder
    from converters.formats.format import ExportOptions

LARGEST_BATCH = 8
"""Memory of the outputs is planned for so many images. ExecuTorch 1.5 takes 15 at most, whatever
bound the program states."""

_LARGEST_IMAGE = 2
"""Times the network's own image size: how large an image may be."""

_LEAST_LARGEST_IMAGE = 64

_COPIES = 2
"""How many times the file's size it takes: mapped, and packed for the processor."""


def export_executorch(folder: ConvertedFolder, path: Path, _: ExportOptions = DEFAULTS) -> None:
    """Write a program for ExecuTorch, in float32, that XNNPACK computes as a whole.

    Batch and image size are open up to :data:`LARGEST_BATCH` images of twice the network's own
    size. The same versions of torch and ExecuTorch write the same bytes.
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


class ExecuTorchRuntime(ArtefactRuntime):
    """Runs a ``.pte``; larger batches than the program allows go through it in pieces.

    All programs of the process share its threads.
    """

    def __init__(
        self, path: Path, output_names: Sequence[str] = ("logits",), threads: int = 1
    ) -> None:
        self.name = f"executorch {require_extra('executorch', 'executorch')}"
        require_memory(_COPIES * path.stat().st_size)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torchao's, of what torch 2.13 renames
            from executorch.extension.pybindings.portable_lib import _unsafe_reset_threadpool
            from executorch.runtime import Runtime as Library

        _unsafe_reset_threadpool(threads)
        self._program = Library.get().load_program(path)  # which owns what the method points into
        self._method = self._program.load_method("forward")
        self._batch: int = self._method.metadata.input_tensor_meta(0).sizes()[0]
        self._output_names = tuple(output_names)

    def __call__(self, pixel_values: NDArray[np.float32]) -> dict[str, NDArray[np.float32]]:
        """Compute every output, in float32."""
        import numpy as np
        import torch

        pixels = torch.tensor(pixel_values)
        # The next piece is written where the last one was, so each is copied.
        pieces = [
            [output.numpy().copy() for output in self._method.execute([piece])]
            for piece in torch.split(pixels, self._batch)
        ]
        arrays = (np.concatenate(parts) for parts in zip(*pieces, strict=True))
        return dict(zip(self._output_names, arrays, strict=True))


EXECUTORCH = Format(
    name="executorch",
    title="ExecuTorch",
    file_name="model.pte",
    extra="executorch",
    export=export_executorch,
    load=ExecuTorchRuntime,
    usage=(
        "from executorch.runtime import Runtime",
        'program = Runtime.get().load_program("{file}").load_method("forward")',
        "outputs = program.execute([pixels])",
    ),
)
