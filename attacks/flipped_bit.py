"""One bit of a weight is flipped, as by a bad disk; the archive's checksum says so to nobody.

``torch.load`` ignores the checksums of the zip archives that ``torch.save`` writes.
"""

from __future__ import annotations

from pathlib import Path

import torch

from attacks.shown import fell, ours, temporary_folder

CHECKPOINT = Path(__file__).parents[1] / "checkpoints/fashion_mnist/RegNetY-FashionMNIST.pyth"


def main() -> None:
    """Make the file and show it to torch and to us."""
    with temporary_folder():
        held = torch.load(CHECKPOINT, weights_only=False)  # the bundled file, which is our own
        tree = {"model_state": held["model_state"]}
        weight = tree["model_state"]["stem.conv.weight"]
        torch.save(tree, "net.pyth")  # as a zip archive; the bundled file is older
        content = bytearray(Path("net.pyth").read_bytes())
        content[content.find(weight.numpy().tobytes()) + 3] ^= 0x80
        Path("net.pyth").write_bytes(content)
        loaded = torch.load("net.pyth", weights_only=True)["model_state"]["stem.conv.weight"]
        if not torch.equal(loaded, weight):
            fell("torch.load(weights_only=True)", "it loaded a weight of the opposite sign")
        ours("net.pyth")


if __name__ == "__main__":
    main()
