"""How ImageNet pixels are normalised, by every framework that trained a RegNet."""

from __future__ import annotations

IMAGENET_MEAN = (0.485, 0.456, 0.406)
"""Per channel in RGB order, for pixels in 0..1."""

IMAGENET_STD = (0.229, 0.224, 0.225)
"""Likewise."""
