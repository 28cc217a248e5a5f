"""A pickle whose name differs in case: a scanner looks at one, the loader reads the other.

torch's zip reader takes ``DATA.PKL`` for ``data.pkl``, and of two the last; Python's zipfile, on
which scanners are built, keeps them apart.
"""

from __future__ import annotations

import io
import pickle
import zipfile

import torch

from attacks.shown import fell, ours, temporary_folder


def main() -> None:
    """Make the file and show it to zipfile, to torch and to us."""
    with temporary_folder():
        written = io.BytesIO()
        torch.save({"weight": 9.0}, written)
        with zipfile.ZipFile(written) as source, zipfile.ZipFile("net.pyth", "w") as archive:
            archive.writestr("archive/data.pkl", pickle.dumps({"weight": 1.0}, protocol=2))
            archive.writestr("archive/DATA.PKL", source.read("archive/data.pkl"))
            for name in source.namelist():
                if not name.endswith("data.pkl"):
                    archive.writestr(name, source.read(name))
        with zipfile.ZipFile("net.pyth") as archive:
            checked = pickle.loads(archive.read("archive/data.pkl"))["weight"]  # noqa: S301 -- ours
        loaded = torch.load("net.pyth", weights_only=True)["weight"]
        if loaded != checked:
            fell(
                "torch.load(weights_only=True)",
                f"it loaded {loaded:g}, zipfile sees {checked:g}",
            )
        ours("net.pyth")


if __name__ == "__main__":
    main()
