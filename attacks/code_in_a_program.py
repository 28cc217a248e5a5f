"""An exported program (``.pt2``) whose example inputs are a pickle that runs code.

``torch.export.load`` tries ``weights_only=True`` first, and where that refuses, tries again
without: the refusal is the attacker's to cause (torch/_export/serde/serialize.py).
"""

from __future__ import annotations

import io
import logging
import zipfile

import torch

from attacks.shown import MakesFolder, ours, ran_code, temporary_folder


def poisoned() -> bytes:
    """The program of a linear layer with other example inputs."""
    program = torch.export.export(torch.nn.Linear(2, 2).eval(), (torch.ones(1, 2),))
    torch.export.save(program, honest := io.BytesIO())
    torch.save(((MakesFolder(),), {}), inputs := io.BytesIO())
    made = io.BytesIO()
    with zipfile.ZipFile(honest) as source, zipfile.ZipFile(made, "w") as target:
        for name in source.namelist():
            is_inputs = "sample_inputs" in name
            target.writestr(name, inputs.getvalue() if is_inputs else source.read(name))
    return made.getvalue()


def main() -> None:
    """Make the file and show it to torch and to us."""
    logging.disable()  # it warns of the second attempt after that has succeeded
    with temporary_folder():
        with open("net.pt2", "wb") as file:  # noqa: PTH123 -- as short as it gets
            file.write(poisoned())
        torch.export.load("net.pt2")
        ran_code("torch.export.load")
        ours("net.pt2")


if __name__ == "__main__":
    main()
