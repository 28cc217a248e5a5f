"""ClassyVision: an AnyNet with a head (``classy_vision/models/anynet.py``).

SWAG's own code is a script of the Hub; its trunk is the same class under the same names.
"""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

from converters.families.built import RealNetwork, group_widths, require_plain, strides

if TYPE_CHECKING:
    from converters.checkpoint import AnyCheckpoint
    from converters.families.source import Source
    from regnet.config import RegNetConfig

_TRUNK, _HEAD = "network.", "head."


def build(source: Source, checkpoint: AnyCheckpoint) -> RealNetwork:  # noqa: ARG001 -- of a protocol
    """Build ClassyVision's trunk and head; see `converters.families.built.Build`."""
    from torch import nn

    with warnings.catch_warnings(action="ignore"):  # of what Python and torch deprecate
        from classy_vision.heads import build_head
        from classy_vision.models import build_model

    config = source.config
    require_plain(config, "ClassyVision")
    network = build_model(anynet(config))
    head = build_head(
        {
            "name": "fully_connected",
            "unique_id": "default_head",
            "num_classes": config.num_labels if source.has_classifier else None,
            "in_plane": config.hidden_sizes[-1],
        }
    )
    module = nn.ModuleDict({"network": network, "head": head})
    return RealNetwork(module, network.trunk_output, lambda x: head(network(x)), _spell)


def anynet(config: RegNetConfig) -> dict[str, Any]:
    """What ClassyVision's registry takes, and VISSL passes on to it."""
    return {
        "name": "anynet",
        "depths": config.depths,
        "widths": config.hidden_sizes,
        "group_widths": group_widths(config),
        "bottleneck_multipliers": [1.0] * len(config.depths),
        "strides": strides(config),
        "stem_width": config.embedding_size,
        "use_se": config.layer_type == "y",
    }


def _spell(name: str) -> str:
    classifier = name.removeprefix(_HEAD)  # SWAG writes "head.fc", ClassyVision "fc"
    return (_HEAD if classifier.startswith("fc.") else _TRUNK) + classifier
