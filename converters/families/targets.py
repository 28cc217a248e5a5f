"""Every framework that a converted folder can be written back for."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, cast

from converters.errors import InputError

if TYPE_CHECKING:
    from converters.families.target import Target

_HOMES = {
    "timm": "timm",
    "torchvision": "torchvision",
    "pycls": "pycls",
    "classy-vision": "classy_vision",
    "mmpretrain": "openmmlab",
}
"""Name on the command line to the module in this package, imported when it is needed."""

TARGETS = tuple(_HOMES)


def target_named(framework: str) -> Target:
    """The target of that name.

    Raises:
        InputError: If there is none.
    """
    if framework not in _HOMES:
        raise InputError(f"{framework} is not among {', '.join(TARGETS)}; choose one of them.")
    module = import_module(f"converters.families.{_HOMES[framework]}_target")
    return cast("Target", module.TARGET)
