"""Programs of torch: the reference model as torch.export sees it, and what runs any of them.

TorchScript, `.pt2`, AOTInductor and ExecuTorch each have a file of their own; this is what more
than one of them needs.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, Any

from converters.errors import release
from converters.folder.interface import NETWORK
from converters.formats.memory import require_memory
from converters.formats.reference import reference_model, torch_threads
from converters.formats.runtime import ArtefactRuntime
from regnet.architecture import Normalise, Softmax

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    import numpy as np
    import torch
    from numpy.typing import NDArray
    from torch.export import ExportedProgram

    from converters.folder.folder import ConvertedFolder

    Program = Callable[[torch.Tensor], torch.Tensor | tuple[torch.Tensor, ...]]
    Sizes = tuple[int, int, int]

_TRACES = ("stack_trace", "nn_module_stack", "torch_fn", "source_fn_stack", "from_node")
"""Where each node comes from: paths of the machine that traced it, for debuggers alone."""


def exported_program(folder: ConvertedFolder, largest: Sizes | None = None) -> ExportedProgram:
    """Trace the reference model with the folder's weights as float32.

    Nothing is computed, and weights stay mapped. The program takes ``pixel_values`` (N,
    num_channels, H, W) and returns logits (N, num_labels), or of a trunk a tuple of
    ``last_hidden_state`` and ``pooler_output``; its state dict has the reference's names.

    Args:
        folder: What to trace.
        largest: Batch, height and width that must be possible; None is any.

    Raises:
        InputError: If the folder cannot be used.
    """
    import torch
    from torch.fx.experimental import _config as symbolic

    model = reference_model(folder, torch.float32).eval().requires_grad_(requires_grad=False)
    _spell_out_ceilings(model)
    model.__dict__["forward"] = _plain(model, folder)
    size = folder.image_size
    pixels = torch.zeros(2, folder.config.num_channels, size, size)
    batch, height, width = largest or (None, None, None)
    axes = {
        0: torch.export.Dim("batch", min=1, max=batch),
        2: torch.export.Dim("height", min=1, max=height),
        3: torch.export.Dim("width", min=1, max=width),
    }
    # Otherwise a size of 1, of the image or of a feature map, would be another program.
    with torch_threads(), symbolic.patch(backed_size_oblivious=True):  # type: ignore[attr-defined]
        program = torch.export.export(model, (pixels,), dynamic_shapes=(axes,))
    for node in program.graph.nodes:
        for key in _TRACES:
            node.meta.pop(key, None)
    return program


def _spell_out_ceilings(model: torch.nn.Module) -> None:
    """Let means of 2x2 pixels repeat the last row and column instead of counting fewer of them.

    That is the same mean. Of a size that is open torch.export cannot tell whether a ceiling gives a
    window that lies outside of the image, which torch leaves out.
    """
    from torch import nn

    for shortcut in model.modules():
        if isinstance(pooler := getattr(shortcut, "pooler", None), nn.AvgPool2d):
            repeated = nn.ReplicationPad2d((0, 1, 0, 1))
            pooled = nn.AvgPool2d(pooler.kernel_size, pooler.stride)
            shortcut.pooler = nn.Sequential(repeated, pooled)


def _plain(model: torch.nn.Module, folder: ConvertedFolder) -> Program:
    """The model's forward with one argument and nothing but tensors returned.

    It begins and ends as the folder's interface says.
    """
    import torch

    from converters.formats.operations import normalised, tensors_of

    compute, names = model.forward, folder.offering(NETWORK).output_names
    first, *_, last = folder.architecture.operations
    held = tensors_of(first, {}, torch.float32) if isinstance(first, Normalise) else None

    def forward(pixel_values: torch.Tensor) -> torch.Tensor | tuple[torch.Tensor, ...]:
        if held:
            pixel_values = normalised(pixel_values, *held)
        outputs = compute(pixel_values, return_dict=True)
        tensors = tuple(outputs[name] for name in names)
        if isinstance(last, Softmax):
            return torch.softmax(tensors[0], 1)
        return tensors[0] if len(tensors) == 1 else tensors

    return forward


class TorchRuntime(ArtefactRuntime):
    """Runs what takes a tensor and returns tensors, in torch.

    Attributes:
        library: What of torch it is, for its name, which torch's version follows.
        threads: How many compute.
        copies: How many times the file's size loading takes: the bytes that are read, and the
            tensors.
        program: What was loaded.
    """

    library: str
    copies: float = 2

    def __init__(
        self, path: Path, output_names: Sequence[str] = ("logits",), threads: int = 1
    ) -> None:
        self.name = f"{self.library} {self._version()}"
        require_memory(round(self.copies * path.stat().st_size))
        self.threads = threads
        with torch_threads(threads):
            self.program = self._loaded(path)
        self._output_names = tuple(output_names)

    def _version(self) -> str:
        import torch

        return release(torch.__version__)

    @abstractmethod
    def _loaded(self, path: Path) -> Any:
        """Load a file that memory suffices for, as what is called with pixels."""

    def __call__(self, pixel_values: NDArray[np.float32]) -> dict[str, NDArray[np.float32]]:
        """Compute every output, in float32."""
        import torch

        with torch.inference_mode(), torch_threads(self.threads):
            outputs = self.program(torch.tensor(pixel_values))
        tensors = (outputs,) if isinstance(outputs, torch.Tensor) else outputs
        arrays = (tensor.contiguous().numpy() for tensor in tensors)
        return dict(zip(self._output_names, arrays, strict=True))
