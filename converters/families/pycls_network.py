"""pycls: built from the cfg in the checkpoint, else as an AnyNet (``pycls/core/builders.py``)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from converters.families.built import NotRunError, RealNetwork, group_widths, strides
from converters.families.pycls_config import PyclsConfig

if TYPE_CHECKING:
    from converters.checkpoint import AnyCheckpoint
    from converters.families.source import Source
    from regnet.config import RegNetConfig

_SECTIONS = ("MODEL", "REGNET", "ANYNET", "BN")
"""The parts of the cfg that a network is built from."""


def build(source: Source, checkpoint: AnyCheckpoint) -> RealNetwork:
    """Build pycls' network; see `converters.families.built.Build`."""
    from pycls.core import builders
    from pycls.core.config import cfg, reset_cfg
    from torch.nn import Identity

    config = source.config
    reset_cfg()
    try:
        if config.hidden_act != "relu" and "ACTIVATION_FUN" not in cfg.MODEL:
            raise NotRunError(f"this version of pycls has relu only, not {config.hidden_act}")
        cfg.merge_from_list(_stated(checkpoint, cfg) or _from_shapes(config))
        cfg.MODEL.NUM_CLASSES = config.num_labels
        module = builders.build_model()
    finally:
        reset_cfg()
    if not source.has_classifier:
        module.head.fc = Identity()
    return RealNetwork(module, module.get_submodule(f"s{len(config.depths)}"), module)


def _stated(checkpoint: AnyCheckpoint, known: Any) -> list[Any]:
    """Pairs of key and value that the checkpoint's cfg states and this version of pycls knows."""
    text = checkpoint.tree.get("cfg") if isinstance(checkpoint.tree, dict) else None
    if not isinstance(text, str):
        return []
    stated = PyclsConfig.parse(text, checkpoint.path.name)
    pairs: list[Any] = []
    for section in _SECTIONS:
        for key in known[section]:
            value = stated.get(section, key, None)
            pairs += [] if value is None else [f"{section}.{key}", value]
    return pairs


def _from_shapes(config: RegNetConfig) -> list[Any]:
    """The settings of a file that holds nothing but tensors."""
    settings = {
        "MODEL.TYPE": "anynet",
        "ANYNET.STEM_TYPE": "simple_stem_in",
        "ANYNET.BLOCK_TYPE": "res_bottleneck_block",
        "ANYNET.STEM_W": config.embedding_size,
        "ANYNET.DEPTHS": list(config.depths),
        "ANYNET.WIDTHS": list(config.hidden_sizes),
        "ANYNET.STRIDES": strides(config),
        "ANYNET.BOT_MULS": [1.0] * len(config.depths),
        "ANYNET.GROUP_WS": group_widths(config),
        "ANYNET.SE_ON": config.layer_type == "y",
    }
    return [item for pair in settings.items() for item in pair]
