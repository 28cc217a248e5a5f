"""`.pt2`: the reference model through torch.export, the successor of TorchScript."""

from __future__ import annotations

from typing import TYPE_CHECKING

from converters.formats.torch_program import exported_program

if TYPE_CHECKING:
    from pathlib import Path

    from converters.folder.folder import ConvertedFolder


def export_pt2(folder: ConvertedFolder, path: Path) -> None:
    """Write a program that ``torch.export.load`` opens, with the weights under their names.

    The same version of torch writes the same bytes: no path of the machine is in the file, and no
    example input, which would be a pickle.

    Args:
        folder: What to export.
        path: Created or replaced.

    Raises:
        InputError: If the folder cannot be used.
        OSError: If the file cannot be written.
    """
    import torch

    program = exported_program(folder)
    program.example_inputs = None
    with path.open("wb") as file:  # given a path, torch would put the file's name into the archive
        torch.export.save(program, file)
