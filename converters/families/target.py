"""What a framework's own RegNets can be: whatever else is refused, by the feature in the way."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from converters.errors import InputError
from converters.families.linear_rule import rule_of
from regnet.imagenet import IMAGENET_MEAN

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

    from converters.families.keymap import Keymap
    from converters.families.source import ChannelOrder
    from converters.families.written import Network
    from regnet.config import RegNetConfig


@dataclass(frozen=True, slots=True)
class Target:
    """A framework that a converted folder can be written back for.

    The rest of the attributes say what its own code can build; files that it could not load
    strictly are not written.

    Attributes:
        keymap: Its names.
        write: Makes its file or folder at a path that does not exist yet.
        is_folder: Whether it loads a folder, or a single file.
        channel_order: Of the images that its own loaders feed.
        shortcut_last: Whether a block's shortcut follows its layers in the state dict.
        has_attention: Whether it has RegNetY.
        any_channels: Whether its stem takes other images than those of three channels.
        headless: Whether it has RegNets without a classifier.
        states_activation: Whether its file can say what shapes cannot: activation and strides.
        says: The fields of the evaluation transform that its file says; whoever loads it must know
            the others.
        stage_counts: How many stages it builds, if it builds them from the linear rule alone.
        knows: Gives its name of a network that it has although no rule is found for it.
    """

    keymap: Keymap
    write: Callable[[Path, Network], None]
    is_folder: bool = False
    channel_order: ChannelOrder = "rgb"
    shortcut_last: bool = False
    has_attention: bool = True
    any_channels: bool = False
    headless: bool = False
    states_activation: bool = False
    says: frozenset[str] = frozenset()
    stage_counts: range | None = None
    knows: Callable[[RegNetConfig], str | None] = lambda _: None

    def require_expressible(
        self, config: RegNetConfig, where: str, *, has_classifier: bool
    ) -> None:
        """Check that the framework's own code can be this network.

        Args:
            config: Its architecture.
            where: What the message calls it.
            has_classifier: Whether it has one, or is a trunk alone.

        Raises:
            InputError: Naming the first feature that stands in the way.
        """
        obstacle = next(self._obstacles(config, has_classifier=has_classifier), None)
        if obstacle:
            raise InputError(
                f"{where} cannot be written for {self.keymap.framework}: {obstacle}; choose "
                "another framework with --to."
            )

    def _obstacles(self, config: RegNetConfig, *, has_classifier: bool) -> Iterator[str]:
        name = self.keymap.framework
        if config.layer_type == "y" and not self.has_attention:
            yield f"it is a RegNetY, and {name} has RegNetX only"
        if config.num_channels != len(IMAGENET_MEAN) and not self.any_channels:
            yield f"it takes {config.num_channels} channels, and the stem of {name} takes three"
        if not (has_classifier and config.num_labels) and not self.headless:
            yield f"it has no classifier, and every RegNet of {name} has one"
        yield from self._invisible_obstacles(config)
        if self.stage_counts:
            yield from self._rule_obstacles(config, self.stage_counts)

    def _invisible_obstacles(self, config: RegNetConfig) -> Iterator[str]:
        """Obstacles in what the tensors do not show."""
        name = self.keymap.framework
        without_attention = self.states_activation and config.layer_type == "x"
        activations = {"relu", "silu", "gelu"} if without_attention else {"relu"}
        if config.hidden_act not in activations:
            yield f"its activation is {config.hidden_act}, which no {name} file can say of it"
        if not (config.downsample_in_first_stage or self.states_activation):
            yield f"its first stage does not downsample, which no {name} file can say"

    def _rule_obstacles(self, config: RegNetConfig, stage_counts: range) -> Iterator[str]:
        name, stages = self.keymap.framework, len(config.depths)
        if stages not in stage_counts:
            yield f"it has {stages} stages, and {name} builds {_in_words(stage_counts)}"
        elif not (rule_of(config) or self.knows(config)):
            yield (
                f"{name} builds stages from the quantised linear rule, which gives no widths "
                f"{_join(config.hidden_sizes)} at depths {_join(config.depths)}"
            )


def _join(numbers: Iterable[int]) -> str:
    return "/".join(map(str, numbers))


def _in_words(counts: range) -> str:
    return f"{counts[0]} to {counts[-1]}" if len(counts) > 1 else str(counts[0])
