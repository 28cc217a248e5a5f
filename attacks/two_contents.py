"""Two entries of one name in a zip archive: a scanner checks one, the loader reads the other.

Python's zipfile, on which scanners are built, takes the last entry of a name, torch the first.
"""

from __future__ import annotations

import zipfile

import torch

from attacks.shown import fell, ours, temporary_folder


def main() -> None:
    """Make the file and show it to zipfile, to torch and to us."""
    with temporary_folder():
        torch.save({"weight": torch.ones(2)}, "net.pyth")
        with zipfile.ZipFile("net.pyth", "a") as archive:
            archive.writestr("net/data/0", torch.full((2,), 9.0).numpy().tobytes())
        with zipfile.ZipFile("net.pyth") as archive:
            checked = torch.frombuffer(bytearray(archive.read("net/data/0")), dtype=torch.float32)
        loaded = torch.load("net.pyth", weights_only=True)["weight"]
        if not torch.equal(checked, loaded):
            fell(
                "torch.load(weights_only=True)",
                f"it loaded {loaded[0]:g}, zipfile sees {checked[0]:g}",
            )
        ours("net.pyth")


if __name__ == "__main__":
    main()
