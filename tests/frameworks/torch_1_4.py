"""Records TorchScript of torch 1.4 in `tests/recorded/torchscript`.

They are networks of timm, traced, and one of torch's own layers, scripted, which timm's cannot be.

Such a torch needs Python 3.8, so no environment of the project has it, and this is run by hand
(``pip install torch==1.4.0 torchvision==0.5.0 timm==0.3.2 "numpy<1.20"``) with the folder as its
argument. Debug records, which hold the paths of the machine, are left out of the files.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any
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


def layers(
    before: int, behind: int, kernel: int = 1, stride: int = 1, width: int = 0
) -> torch.nn.Sequential:
    """A convolution and its batch norm."""
    groups = behind // width if width else 1
    conv = torch.nn.Conv2d(before, behind, kernel, stride, kernel // 2, 1, groups, bias=False)
    return torch.nn.Sequential(conv, torch.nn.BatchNorm2d(behind))


class Gate(torch.nn.Module):
    """Squeeze-and-excitation."""

    def __init__(self, width: int, squeezed: int) -> None:
        super().__init__()
        self.pool = torch.nn.AdaptiveAvgPool2d(1)
        self.reduce = torch.nn.Conv2d(width, squeezed, 1)
        self.expand = torch.nn.Conv2d(squeezed, width, 1)

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        gate = torch.relu(self.reduce(self.pool(hidden)))
        scaled: torch.Tensor = hidden * torch.sigmoid(self.expand(gate))
        return scaled


class Block(torch.nn.Module):
    """A block of a RegNetY."""

    def __init__(self, before: int, behind: int, stride: int) -> None:
        super().__init__()
        self.layer = torch.nn.Sequential(
            layers(before, behind),
            torch.nn.ReLU(inplace=True),
            layers(behind, behind, 3, stride, 8),
            torch.nn.ReLU(inplace=True),
            Gate(behind, before // 4),
            layers(behind, behind),
        )
        same = stride == 1 and before == behind
        self.shortcut = torch.nn.Sequential() if same else layers(before, behind, 1, stride)
        self.function = torch.nn.ReLU(inplace=True)

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        added: torch.Tensor = self.function(self.layer(hidden) + self.shortcut(hidden))
        return added


class Network(torch.nn.Module):
    """A small RegNetY."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = torch.nn.Sequential(layers(3, 8, 3, 2), torch.nn.ReLU())
        self.blocks = torch.nn.Sequential(Block(8, 16, 2), Block(16, 16, 1), Block(16, 24, 2))
        self.pool = torch.nn.AdaptiveAvgPool2d(1)
        self.classifier = torch.nn.Linear(24, 5)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        hidden = self.pool(self.blocks(self.stem(pixels)))
        logits: torch.Tensor = self.classifier(hidden.view(hidden.size(0), -1))
        return logits


def trained(made: torch.nn.Module) -> torch.nn.Module:
    """The same with statistics like a trained one's."""
    norms: Any = [each for each in made.modules() if isinstance(each, torch.nn.BatchNorm2d)]
    for norm in norms:
        norm.running_mean.normal_(0, 0.1)
        norm.running_var.uniform_(0.5, 2)
        norm.weight.data.uniform_(0.5, 1.5)
        norm.bias.data.normal_(0, 0.2)
    return made.eval()


def network(shape: Any, classes: int) -> torch.nn.Module:
    """One of timm's."""
    torch.manual_seed(classes)
    same = {"w0": 8, "wa": 8.0, "wm": 1.6, "group_w": 8, "stem_width": 8, "bottle_ratio": 1.0}
    return trained(RegNet({**same, **shape}, num_classes=classes))


def record(folder: Path) -> None:
    """Write the files, and what the networks compute."""
    networks = {name: network(*shape) for name, shape in SHAPES.items()}
    torch.manual_seed(0)
    networks["scripted"] = trained(Network())
    jit: Any = torch.jit
    facts = {}
    for name, made in networks.items():
        with torch.no_grad():
            module = jit.script(made) if name == "scripted" else jit.trace(made, images())
            jit.save(module, str(folder / "whole.pt"))
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
