"""ImageNet as every framework that trained a RegNet has it."""

from __future__ import annotations

IMAGENET_MEAN = (0.485, 0.456, 0.406)
"""Per channel in RGB order, for pixels in 0..1."""

IMAGENET_STD = (0.229, 0.224, 0.225)
"""Likewise."""

IMAGENET_CLASSES = 1000
