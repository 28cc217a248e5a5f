"""The families of the sweep over every published network."""

from __future__ import annotations

from tests.converters.families.networks_flat import (
    OPENMMLAB,
    PYCLS,
    PYTORCHCV,
    TIMM,
    TORCHVISION,
    TRANSFORMERS,
)
from tests.converters.families.networks_nested import CLASSY_VISION, SWAG, VISSL

FAMILIES = {
    "pycls": PYCLS,
    "timm": TIMM,
    "torchvision": TORCHVISION,
    "classy-vision": CLASSY_VISION,
    "swag": SWAG,
    "vissl": VISSL,
    "mmpretrain": OPENMMLAB,
    "transformers": TRANSFORMERS,
    "pytorchcv": PYTORCHCV,
}
