"""Records TorchScript of torch 1.4, of timm's networks, in `tests/recorded/torchscript`.

Such a torch needs Python 3.8, so no environment of the project has it, and this is run by hand
(``pip install torch==1.4.0 torchvision==0.5.0 timm==0.3.2 "numpy<1.20"``) with the folder as its
argument. Debug records, which hold the paths of the machine, are left out of the files.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from zipfile import ZIP_DEFLATED, ZipFile

import torch
from timm.models.regnet import RegNet

SHAPES = {
    "x": ({"depth": 3, "se_ratio": 0.0}, 7),
    "y": ({"depth": 4, "se_ratio": 0.25}, 5),
}
"""What timm builds a network from, beside what all have, and its classes."""


def images() -> torch.Tensor:
    """Those of `tests/converters/families/test_onnx.py`."""
    steps = torch.arange(2 * 3 * 64 * 64, dtype=torch.float64)
    return (2 * torch.sin(steps * steps * 0.37)).float().reshape(2, 3, 64, 64)


def network(shape: dict, classes: int) -> torch.nn.Module:
    """One with weights like a trained one's."""
    torch.manual_seed(classes)
    same = {"w0": 8, "wa": 8.0, "wm": 1.6, "group_w": 8, "stem_width": 8, "bottle_ratio": 1.0}
    made = RegNet({**same, **shape}, num_classes=classes).eval()
    for module in made.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 2)
            module.weight.data.uniform_(0.5, 1.5)
            module.bias.data.normal_(0, 0.2)
    return made


def record(folder: Path) -> None:
    """Write the files, and what the networks compute."""
    facts = {}
    for name, (shape, classes) in SHAPES.items():
        made = network(shape, classes)
        with torch.no_grad():
            torch.jit.save(torch.jit.trace(made, images()), str(folder / "whole.pt"))
            facts[name] = made(images()).tolist()
        with ZipFile(folder / "whole.pt") as whole, ZipFile(folder / f"{name}.pt", "w") as target:
            for entry in whole.infolist():
                if not entry.filename.endswith(".debug_pkl"):
                    kind = ZIP_DEFLATED if entry.filename.endswith(".py") else 0
                    target.writestr(entry.filename, whole.read(entry), kind)
        (folder / "whole.pt").unlink()
    (folder / "facts.json").write_text(json.dumps(facts), "utf-8")


if __name__ == "__main__":
    record(Path(sys.argv[1]))
