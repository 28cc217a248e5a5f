"""The networks that giants can be made of: every published one, by name."""

from __future__ import annotations

from typing import TYPE_CHECKING

from converters.families.manifest import manifest
from regnet.config import CLASSIFIER_ARCHITECTURE, TRUNK_ARCHITECTURE, RegNetConfig
from regnet.design_space import NETWORKS

if TYPE_CHECKING:
    from collections.abc import Sequence

STAGE_PARTS: dict[str, Sequence[Sequence[int]]] = {"RegNetY-10B": ((2,), (7,), (9, 17), ())}
"""Where VISSL's configuration cuts the stages of a network, for those published in its second
version (``configs/config/pretrain/seer/models/regnet10B.yaml``)."""


def published_names() -> list[str]:
    """Names of the linear rule's networks, then of those that only the manifest knows."""
    others = (published.architecture for published in manifest())
    return list(dict.fromkeys([*NETWORKS, *(name for name in others if name)]))


def config_of(name: str, classes: int) -> RegNetConfig:
    """Give a published network's configuration.

    Args:
        name: One of :func:`published_names`.
        classes: Of its classifier; 0 for a trunk alone.

    Raises:
        ValueError: If there is no such network.
    """
    if name in NETWORKS:
        config: RegNetConfig | None = NETWORKS[name].config()
    else:
        config = next((p.config for p in manifest() if p.architecture == name), None)
    if config is None:
        raise ValueError(f"{name} is not among {', '.join(published_names())}; choose one of them.")
    architecture = CLASSIFIER_ARCHITECTURE if classes else TRUNK_ARCHITECTURE
    fields = {**config.to_dict(), "architectures": [architecture]}
    return RegNetConfig.from_dict(fields, num_labels=classes)
