"""A framework that does not exist, as `docs/extending.md` has one added: all that it takes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from converters.families.family import Family, write_flat
from converters.families.keymap import keymap
from converters.families.linear_rule import group_widths
from converters.families.reading import family_source
from converters.families.real_network import RealNetwork
from converters.families.source import BILINEAR, EvalTransform, Preprocessing

if TYPE_CHECKING:
    from converters.checkpoint import Checkpoint
    from converters.families.source import Source

TOY = keymap(
    "toy",
    "body.{stage}.{block}",
    stem=("entry.0", "entry.1"),
    shortcut=("side.0", "side.1"),
    reduce=("main.0.0", "main.0.1"),
    grouped=("main.1.0", "main.1.1"),
    expand=("main.2.0", "main.2.1"),
    classifier="answer",
)


def _build(source: Source, _: Checkpoint) -> RealNetwork:
    """Build its own network."""
    from tests.converters.families.toy_framework import Net

    config = source.config
    widths = (config.embedding_size, *config.hidden_sizes)
    module = Net(
        widths, config.depths, group_widths(config), config.stage_strides, config.num_labels
    )
    return RealNetwork(module, module.body, module)


FAMILY = Family(
    keymap=TOY,
    title="Toy",
    package="tests",
    read=family_source,
    preprocessing=Preprocessing(EvalTransform(256, 224, BILINEAR), "toy's own", "bgr"),
    build=_build,
    write=write_flat,
    lacks={"y": "toy has RegNetX only"},
)
