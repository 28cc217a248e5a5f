"""torchvision: a flat file, as on its server.

``RegNet(BlockParams(...))`` of torchvision ``models/regnet.py`` takes any stages; whose widths are
not those of a builder such as ``regnet_y_400mf`` is built from the class.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from converters.families.target import Target
from converters.families.torchvision_keymap import TORCHVISION

if TYPE_CHECKING:
    from pathlib import Path

    from converters.families.written import Network


def _write(path: Path, network: Network) -> None:
    network.save(path, network.state_dict())


TARGET = Target(TORCHVISION, _write)
