"""The reference RegNet: configuration, model, image processor, design space.

Names and behaviour are those that Hugging Face documents for RegNet. ``import regnet`` is quick:
torch is imported when the first model class is asked for.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from regnet.config import RegNetConfig
    from regnet.image_processor import RegNetImageProcessor
    from regnet.model import RegNetForImageClassification, RegNetModel

__version__ = "0.1.0"
"""Stated here, so that a checkout that nobody installed has one too; the build reads it."""

__all__ = [
    "RegNetConfig",
    "RegNetForImageClassification",
    "RegNetImageProcessor",
    "RegNetModel",
]

_HOMES = {
    "RegNetConfig": "regnet.config",
    "RegNetForImageClassification": "regnet.model",
    "RegNetImageProcessor": "regnet.image_processor",
    "RegNetModel": "regnet.model",
}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module 'regnet' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
