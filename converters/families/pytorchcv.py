"""pytorchcv: flat files of its 24 networks, which are those of the paper, trained by its author.

Source: pytorchcv 0.0.74 ``models/regnet.py`` (names, stages) and
``models/common/model_metainfos.csv`` (how each file was evaluated, but not with which filter). Its
class takes any stages, channels and stem; the first block of every stage has stride 2. Other
networks of it have blocks of the same names.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from converters.families.family import Family, write_flat
from converters.families.keymap import keymap
from converters.families.linear_rule import group_widths
from converters.families.reading import family_source
from converters.families.real_network import RealNetwork
from converters.families.source import BILINEAR, EvalTransform, Preprocessing

if TYPE_CHECKING:
    from collections.abc import Mapping

    from converters.checkpoint import Checkpoint
    from converters.families.source import Source

PYTORCHCV = keymap(
    "pytorchcv",
    "features.stage{stage+1}.unit{block+1}",
    stem=("features.init_block.conv", "features.init_block.bn"),
    shortcut=("identity_conv.conv", "identity_conv.bn"),
    reduce=("body.conv1.conv", "body.conv1.bn"),
    grouped=("body.conv2.conv", "body.conv2.bn"),
    expand=("body.conv3.conv", "body.conv3.bn"),
    attention=("body.se.conv1", "body.se.conv2"),
    classifier="output",
)


def is_regnet(prefix: str, mapped: Mapping[str, object]) -> bool:
    """Whether blocks are a RegNet's: its stem is a convolution, a ResNet's is one level deeper."""
    return prefix + PYTORCHCV.spell("stem.conv", {}) in mapped


def _build(source: Source, _: Checkpoint) -> RealNetwork:
    """Build pytorchcv's network."""
    from pytorchcv.models.regnet import RegNet
    from torch.nn import Identity

    config = source.config
    module = RegNet(
        channels=[
            [width] * depth for width, depth in zip(config.hidden_sizes, config.depths, strict=True)
        ],
        init_block_channels=config.embedding_size,
        groups=group_widths(config),
        use_se=config.layer_type == "y",
        in_channels=config.num_channels,
        num_classes=config.num_labels,
    )
    if not source.has_classifier:
        module.output = Identity()
    return RealNetwork(module, module.features.get_submodule(f"stage{len(config.depths)}"), module)


FAMILY = Family(
    keymap=PYTORCHCV,
    title="pytorchcv",
    package="pytorchcv",
    read=family_source,
    preprocessing=Preprocessing(
        EvalTransform(256, 224, BILINEAR), "pytorchcv's sizes; it does not say its filter"
    ),
    build=_build,
    write=write_flat,
    shortcut_last=True,
    squeeze=lambda width: width // 4,
    any_channels=True,
)
