"""The contenders that are libraries: ``python -m benchmarks.sizes.programs NAME SOURCE OUT ...``.

Each does what the library's own documentation or script tells users to do.
"""

from __future__ import annotations

import sys
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

_OPERATORS = "tests.conftest"
"""Declares torchvision's operators, which timm and transformers import."""


def main() -> None:
    """Run one program."""
    name, source, out, *arguments = sys.argv[1:]
    PROGRAMS[name](Path(source), Path(out), *arguments)


def safetensors(source: Path, out: Path) -> None:
    """Convert as ``bindings/python/convert.py`` of safetensors 0.8 does: load, save, compare all.

    That script wants a flat file; the way into VISSL's is added.
    """
    import torch
    from safetensors.torch import load_file, save_file

    state = _flat(torch.load(source, map_location="cpu", weights_only=True))
    state = {name: tensor.contiguous() for name, tensor in state.items()}
    save_file(state, out, metadata={"format": "pt"})
    reloaded = load_file(out)
    for name, tensor in state.items():
        if not torch.equal(tensor, reloaded[name]):
            raise ValueError(f"{name} differs in the saved file; the conversion failed.")


def mapped(source: Path, out: Path) -> None:
    """Save a checkpoint that is mapped, not loaded."""
    import torch
    from safetensors.torch import save_file

    state = torch.load(source, map_location="cpu", mmap=True, weights_only=True)
    save_file(_flat(state), out)


def timm(source: Path, out: Path, name: str) -> None:
    """Load a foreign checkpoint through timm's filter of names, and save the network."""
    import_module(_OPERATORS)
    from safetensors.torch import save_file
    from timm import create_model

    overlay = {"file": str(source)}
    model = create_model(name, pretrained=True, pretrained_cfg_overlay=overlay)
    save_file(model.state_dict(), out)


def transformers(source: Path, out: Path) -> None:
    """Load and save."""
    _transformers_model(source).save_pretrained(out)


def dynamo(source: Path, out: Path) -> None:
    """Export through torch.export, with the weights beside the graph as it does over 2 GB."""
    import torch

    model = _transformers_model(source).eval()
    out.mkdir()
    pixels = torch.zeros(1, 3, 224, 224)
    torch.onnx.export(model, (pixels,), out / "model.onnx", dynamo=True, external_data=True)


PROGRAMS: dict[str, Callable[..., None]] = {
    program.__name__: program for program in (safetensors, mapped, timm, transformers, dynamo)
}
"""Name to program."""


def _flat(state: dict[str, Any]) -> dict[str, Tensor]:
    """The tensors of VISSL's consolidated file."""
    model = state["classy_state_dict"]["base_model"]["model"]
    return {**model["trunk"], **model["heads"]}


def _transformers_model(source: Path) -> Any:
    import_module(_OPERATORS)
    from transformers import RegNetForImageClassification

    return RegNetForImageClassification.from_pretrained(source)


if __name__ == "__main__":
    main()
