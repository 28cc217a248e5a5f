"""Makes a checkpoint with the real pycls: ``python -m benchmarks.make_checkpoint NAME FILE``.

A program of its own, because the measuring process must stay small (see
:mod:`benchmarks.measure`). The file is as in the model zoo: the container of torch before 1.6, with
the optimiser's state, at twice the size of the weights.
"""

from __future__ import annotations

import sys
from pathlib import Path

from tests.oracles import pycls


def make_checkpoint(name: str, path: Path) -> None:
    """Build a published network with realistic statistics and save it.

    Args:
        name: For example ``RegNetY-4.0GF``.
        path: Appears once it is whole.
    """
    regnet = pycls.published(name)
    unfinished = path.with_suffix(".unfinished")
    pycls.save(unfinished, pycls.build(regnet), regnet)
    unfinished.rename(path)


if __name__ == "__main__":
    make_checkpoint(sys.argv[1], Path(sys.argv[2]))
