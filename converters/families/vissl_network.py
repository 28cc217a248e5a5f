"""VISSL: the trunk of a single process and the head (``vissl/models/trunks/regnet.py``).

Checkpoints of the trunk that is cut for FSDP hold the same tensors under the same names, once the
levels of its parts are taken out.
"""

from __future__ import annotations

import warnings
from functools import partial
from typing import TYPE_CHECKING, Any

from converters.families.built import RealNetwork, require_plain
from converters.families.classy_vision_keymap import VISSL
from converters.families.classy_vision_network import anynet
from converters.families.torchvision_network import import_torchvision
from regnet.architecture import NORM_EPS

if TYPE_CHECKING:
    from torch import nn

    from converters.checkpoint import AnyCheckpoint
    from converters.families.source import Source


def build(source: Source, checkpoint: AnyCheckpoint) -> RealNetwork:  # noqa: ARG001 -- of a protocol
    """Build VISSL's trunk and head; see `converters.families.built.Build`."""
    import_torchvision()
    from torch import nn

    with warnings.catch_warnings(action="ignore"):  # of what Python and torch deprecate
        from vissl.config import AttrDict
        from vissl.models.trunks.regnet import RegNet

    config = source.config
    require_plain(config, "VISSL")
    settings = AttrDict(
        {
            "INPUT_TYPE": "rgb",
            "ACTIVATION_CHECKPOINTING": {
                "USE_ACTIVATION_CHECKPOINTING": False,
                "NUM_ACTIVATION_CHECKPOINTING_SPLITS": 1,
            },
            "TRUNK": {"NAME": "regnet", "REGNET": anynet(config)},
            "HEAD": {
                "BATCHNORM_EPS": NORM_EPS,
                "BATCHNORM_MOMENTUM": 0.1,
                "PARAMS_MULTIPLIER": 1.0,
            },
        }
    )
    trunk = RegNet(settings, "regnet")
    head = _head(settings, source) if source.has_classifier else nn.Identity()
    last = trunk.get_submodule(f"_feature_blocks.res{len(config.depths) + 1}")
    return RealNetwork(
        module=nn.ModuleDict({"trunk": trunk, "head": head}),
        last=last,
        forward=lambda images: head(trunk(images)[0]),
        spell=partial(_spell, classifier="clf.clf." if source.classifier_norm else "clf."),
        norm="head.channel_bn.",
    )


def _head(settings: Any, source: Source) -> nn.Module:
    """Its linear classifier, behind a batch norm where the checkpoint has one."""
    with warnings.catch_warnings(action="ignore"):
        from vissl.models.heads.linear_eval_mlp import LinearEvalMLP
        from vissl.models.heads.mlp import MLP

    width, classes = source.config.hidden_sizes[-1], source.config.num_labels
    if source.classifier_norm:
        head: nn.Module = LinearEvalMLP(settings, width, [width, classes])
    else:
        head = MLP(settings, [width, classes])
    return head


def _spell(name: str, classifier: str) -> str:
    stored = VISSL.spell("classifier", {"affine": ""})
    if name.startswith(stored):
        return f"head.{classifier}0.{name.removeprefix(stored)}"
    return f"trunk.{name}"
