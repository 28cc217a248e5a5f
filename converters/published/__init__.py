"""Fetching published checkpoints by their names, which the manifest of `families` lists."""

from __future__ import annotations

from converters.families import manifest

__all__ = ["manifest"]
