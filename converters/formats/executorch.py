"""ExecuTorch: a ``.pte`` for phones and microcontrollers, computed by XNNPACK."""

from __future__ import annotations

from typing import TYPE_CHECKING

from converters.checkpoint.quiet import ignoring
from converters.errors import require_extra
from converters.formats.format import DEFAULTS, INTERFACE_OPTIONS, Format
from converters.formats.stated import state_behind, stated_behind
from converters.formats.torch_program import TorchRuntime, exported_program

if TYPE_CHECKING:
    from pathlib import Path

    import torch

    from converters.folder.folder import ConvertedFolder
    from converters.formats.format import ExportOptions
    from converters.formats.torch_program import Program

LARGEST_BATCH = 8
"""Memory of the outputs is planned for so many images. ExecuTorch 1.5 takes 15 at most, whatever
bound the program states."""

_LARGEST_IMAGE = 2
"""Times the network's own image size: how large an image may be."""

_LEAST_LARGEST_IMAGE = 64


def export_executorch(folder: ConvertedFolder, path: Path, _: ExportOptions = DEFAULTS) -> None:
    """Write a program for ExecuTorch, in float32, that XNNPACK computes as a whole.

    Batch and image size are open up to :data:`LARGEST_BATCH` images of twice the network's own
    size. The same versions of torch and ExecuTorch write the same bytes.
    """
    require_extra("executorch", "executorch")
    with ignoring():  # ExecuTorch 1.5 and torchao 0.18 use what torch 2.13 renames
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
    state_behind(folder, path)


class ExecuTorchRuntime(TorchRuntime):
    """Runs a ``.pte``, which is mapped, and packed for the processor.

    Larger batches than the program allows go through it in pieces. All programs of the process
    share its threads.
    """

    library = "executorch"

    def _version(self) -> str:
        return require_extra("executorch", "executorch")

    def _loaded(self, path: Path) -> Program:
        import torch

        with ignoring():  # torchao's, of what torch 2.13 renames
            from executorch.extension.pybindings.portable_lib import _unsafe_reset_threadpool
            from executorch.runtime import Runtime as Library

        _unsafe_reset_threadpool(self.threads)
        program = Library.get().load_program(path)  # which owns what the method points into
        largest: int = program.load_method("forward").metadata.input_tensor_meta(0).sizes()[0]

        def run(pixels: torch.Tensor) -> tuple[torch.Tensor, ...]:
            method = program.load_method("forward")  # loaded once
            # The next piece is written where the last one was, so each is copied.
            pieces = [
                [output.clone() for output in method.execute([piece])]
                for piece in torch.split(pixels, largest)
            ]
            return tuple(torch.cat(parts) for parts in zip(*pieces, strict=True))

        return run


EXECUTORCH = Format(
    name="executorch",
    title="ExecuTorch",
    file_name="model.pte",
    extra="executorch",
    options=INTERFACE_OPTIONS,
    states=stated_behind,
    export=export_executorch,
    load=ExecuTorchRuntime,
    usage=(
        "from executorch.runtime import Runtime",
        'program = Runtime.get().load_program("{file}").load_method("forward")',
        "outputs = program.execute([pixels])",
    ),
    traced=True,
)
