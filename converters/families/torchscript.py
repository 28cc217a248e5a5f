"""TorchScript files of any exporter, as sources: read by their code, whatever modules are called.

Neither torch.jit's files nor those of this project say how images are made or classes are called.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from converters.families.exported import read_exported
from converters.families.family import Family
from converters.families.keymap import REFERENCE, Keymap
from converters.families.source import BILINEAR, EvalTransform, Preprocessing

if TYPE_CHECKING:
    from converters.families.family import Found
    from converters.families.source import Source

NAME = "torchscript"


def _read(found: Found) -> Source:
    """Read a TorchScript file."""
    how = "its code was followed from forward on, as after eval(), and not run"
    return read_exported(found, "TorchScript", "version", how)


FAMILY = Family(
    keymap=Keymap(NAME, REFERENCE.rows),
    title="torch.jit",
    package="torch",
    read=_read,
    preprocessing=Preprocessing(
        EvalTransform(256, 224, BILINEAR),
        "the most usual; a TorchScript file does not say how its images are made",
        order_reason="the most usual; --channel-order says otherwise",
    ),
    states_evaluation=False,
)
