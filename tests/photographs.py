"""The photographs that scikit-image ships."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

NAMES = ("astronaut.png", "chelsea.png", "coffee.png", "ihc.png", "retina.jpg", "rocket.jpg")


def photograph(name: str) -> Path:
    """Where one lies."""
    spec = find_spec("skimage")  # not imported: it asks for packages that pictures do not need
    assert spec
    assert spec.origin
    return Path(spec.origin).parent / "data" / name
