"""TorchScript files of any exporter, as sources: read by their code, whatever modules are called.

torch.jit's files do not say how images are made or classes are called, unless whoever saved them
did, as this project does. But the class of the module is mostly that of a framework, which has
rules for images.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from converters.families.exported import read_exported
from converters.families.family import Family
from converters.families.keymap import REFERENCE, Keymap
from converters.families.known import FAMILIES
from converters.families.source import BILINEAR, EvalTransform, Preprocessing

if TYPE_CHECKING:
    from converters.families.family import Found
    from converters.families.source import Source

NAME = "torchscript"


def _read(found: Found) -> Source:
    """Read a TorchScript file."""
    framework = _framework(found)
    if framework:
        rules = FAMILIES[framework].family.preprocessing
        whose = f"{framework}'s own, whose module it is"
        rules = replace(rules, reason=whose, order_reason=whose)
        found = replace(found, family=replace(found.family, preprocessing=rules))
    how = "its code was followed from forward on, as after eval(), and not run"
    return read_exported(found, "TorchScript", "version", how, found.checkpoint.metadata)


def _framework(found: Found) -> str:
    """Whose module is traced or scripted, by its class; empty if it is nobody's that is known."""
    graph = found.checkpoint.graph
    kind = graph.producer.split(".") if graph is not None else []
    package = kind[1].replace("_", "-") if len(kind) > 1 else ""
    return package if package in FAMILIES else ""


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
