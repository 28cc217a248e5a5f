"""timm: built by its entrypoint, or from the linear rule (``timm/models/regnet.py``)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from converters.families.built import NotRunError, RealNetwork
from converters.families.linear_rule import rule_of
from converters.families.timm_config import TimmConfig
from converters.families.timm_target import entrypoint
from converters.families.torchvision_network import import_torchvision
from converters.families.words import mapping_in

if TYPE_CHECKING:
    from torch import nn

    from converters.checkpoint import AnyCheckpoint
    from converters.families.source import Source
    from regnet.config import RegNetConfig


def build(source: Source, checkpoint: AnyCheckpoint) -> RealNetwork:
    """Build timm's network; see `converters.families.built.Build`."""
    import_torchvision()  # which timm builds on
    import timm

    config = source.config
    stated = TimmConfig.of(checkpoint)
    options: dict[str, Any] = {
        "num_classes": config.num_labels if source.has_classifier else 0,
        "in_chans": config.num_channels,
        "global_pool": stated.pooling or "avg",  # a trunk that pools nothing is pooled for us
    }
    if isinstance(stated.folder.get("architecture"), str):
        arguments = mapping_in(stated.folder, "model_args")
        module = timm.create_model(stated.folder["architecture"], **arguments | options)
    else:
        module = _from_shapes(config, options)
    return RealNetwork(module, module.get_submodule(f"s{len(config.depths)}"), module)


def _from_shapes(config: RegNetConfig, options: dict[str, Any]) -> nn.Module:
    """The network of a file that holds nothing but tensors."""
    import timm
    from timm.models.regnet import RegNet, RegNetCfg

    shared: dict[str, Any] = {"stem_width": config.embedding_size, "act_layer": config.hidden_act}
    name = entrypoint(config)
    if name:
        named: nn.Module = timm.create_model(name, **shared, **options)
        return named
    rule = rule_of(config)
    if rule is None:
        raise NotRunError("timm builds stages from the linear rule, which does not give these")
    shape = RegNetCfg(
        depth=rule.depth,
        w0=rule.w_0,
        wa=rule.w_a,
        wm=rule.w_m,
        group_size=rule.group_width,
        se_ratio=0.25 if config.layer_type == "y" else 0.0,
        **shared,
    )
    made: nn.Module = RegNet(shape, **options)
    return made
