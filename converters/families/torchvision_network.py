"""torchvision: built from its class (``torchvision/models/regnet.py``)."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from converters.families.built import RealNetwork, group_widths, require_plain, strides

if TYPE_CHECKING:
    from converters.checkpoint import AnyCheckpoint
    from converters.families.source import Source

_DECLARED: list[object] = []
"""What must live as long as torchvision is used."""


def build(source: Source, checkpoint: AnyCheckpoint) -> RealNetwork:  # noqa: ARG001 -- of a protocol
    """Build torchvision's network; see `converters.families.built.Build`."""
    import_torchvision()
    from torch.nn import Identity
    from torchvision.models.regnet import BlockParams, RegNet

    config = source.config
    require_plain(config, "torchvision")
    shape = BlockParams(
        depths=config.depths,
        widths=config.hidden_sizes,
        group_widths=group_widths(config),
        bottleneck_multipliers=[1.0] * len(config.depths),
        strides=strides(config),
        se_ratio=0.25 if config.layer_type == "y" else None,
    )
    module = RegNet(shape, num_classes=config.num_labels, stem_width=config.embedding_size)
    if not source.has_classifier:
        module.fc = Identity()
    return RealNetwork(module, module.trunk_output, module)


def import_torchvision() -> None:
    """Import torchvision, also beside a torch that lacks the operators its wheel was built with.

    Its own detection operators, which no RegNet uses, are declared first where a CPU build of torch
    brings none.
    """
    try:
        import_module("torchvision")
    except RuntimeError:
        import torch

        library: Any = torch.library.Library("torchvision", "DEF")  # type: ignore[no-untyped-call]
        library.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        library.define("qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        _DECLARED.append(library)
        import_module("torchvision")
