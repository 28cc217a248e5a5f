"""A checkpoint that runs code when it is loaded with ``weights_only=False``.

That is what most old training scripts ask for, what torch's own error message suggests, and what
timm's helper takes as an argument.
"""

from __future__ import annotations

from importlib import import_module

import torch

from attacks.shown import MakesFolder, ours, ran_code, temporary_folder


def main() -> None:
    """Make the file and show it to torch, to timm, and to us."""
    with temporary_folder():
        torch.save({"model_state": {"weight": torch.ones(2)}, "epoch": MakesFolder()}, "net.pyth")
        torch.load("net.pyth", weights_only=False)
        ran_code("torch.load(weights_only=False)")
        import_module("tests.conftest")  # before timm, which imports torchvision
        from timm.models import load_state_dict

        load_state_dict("net.pyth", weights_only=False)
        ran_code("timm.models.load_state_dict(weights_only=False)")
        ours("net.pyth")


if __name__ == "__main__":
    main()
