"""A format as somebody would add one: the state dict as NumPy's ``.npz``, run by the reference.

In the package the format would be ``converters/formats/npz.py``, and its certificate a file of its
own, ``converters/parity/contents/npz.py``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from converters.folder.folder import ConvertedFolder
from converters.formats.format import Format
from converters.formats.torch_program import TorchRuntime
from converters.parity.contents.held import Contents, HeldTensor

if TYPE_CHECKING:
    from pathlib import Path

    from converters.formats.format import ExportOptions
    from converters.formats.torch_program import Program


def export_npz(folder: ConvertedFolder, path: Path, _: ExportOptions) -> None:
    """Write every tensor of the state dict under its name."""
    with path.open("wb") as file:
        np.savez(file, **{name: folder.array(name) for name in folder.tensors})


class NpzRuntime(TorchRuntime):
    """Loads the tensors into the reference model of the folder that the file lies in."""

    library = "npz"

    def _loaded(self, path: Path) -> Program:
        import torch

        from regnet.model import RegNetForImageClassification

        model = RegNetForImageClassification(ConvertedFolder(path.parent).config).eval()
        with np.load(path) as held:
            model.load_state_dict({name: torch.from_numpy(held[name]) for name in held.files})
        return lambda pixels: model(pixels).logits


NPZ = Format(
    name="npz",
    title="NumPy",
    file_name="model.npz",
    export=export_npz,
    load=NpzRuntime,
    certificate="tests.converters.formats.npz:read_npz",
    usage=(
        "import numpy, torch",
        'state = {{name: torch.tensor(a) for name, a in numpy.load("{file}").items()}}',
        "program.load_state_dict(state)",
    ),
)


def read_npz(_: ConvertedFolder, path: Path) -> Contents:
    """The certificate: every array, and that there is no graph to be wrong."""
    with np.load(path) as held:
        tensors = tuple(
            HeldTensor(name, str(array.dtype), array.shape, memoryview(array.tobytes()))
            for name, array in held.items()
        )
    return Contents(tensors, counters=True, graph_compared=True)
