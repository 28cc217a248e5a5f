"""A framework's own network: its module, its names, and what comes out of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from converters.families.linear_rule import rule_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor, nn

    from converters.families.linear_rule import LinearRule
    from regnet.config import RegNetConfig


class NotRunError(Exception):
    """Why a real network is not run, as words that follow "not run: ".

    It says nothing against a folder: the framework is missing, or never had such a network.
    """


@dataclass(frozen=True)
class RealNetwork:
    """A network as the framework's own code built it, its weights not loaded yet.

    Attributes:
        module: Holds the weights.
        last: The part of it that gives the last feature map.
        forward: From images (N, C, H, W) to logits, or of a trunk to its pooled features.
        spell: From the name in `Source.tensors` to that in the module's state dict.
        norm: What stands in the state dict before the leaves of `Source.classifier_norm`.
    """

    module: nn.Module
    last: nn.Module
    forward: Callable[[Tensor], Tensor]
    spell: Callable[[str], str] = str
    norm: str = ""

    def outputs(self, images: Tensor, *, has_classifier: bool) -> dict[str, Tensor]:
        """Run the network.

        Args:
            images: (N, C, H, W), normalised, in the framework's order of channels.
            has_classifier: Whether it gives logits.

        Returns:
            ``logits`` (N, classes), or ``last_hidden_state`` (N, C, h, w) and ``pooler_output``
            (N, C, 1, 1), as the reference model calls them.
        """
        feature_maps: list[Tensor] = []
        hook = self.last.register_forward_hook(lambda *call: feature_maps.append(call[2]))
        try:
            result = self.forward(images)
        finally:
            hook.remove()
        if has_classifier:
            return {"logits": result}
        pooled = result.reshape(*result.shape[:2], 1, 1)
        return {"last_hidden_state": feature_maps[0], "pooler_output": pooled}


def rule_behind(config: RegNetConfig, framework: str) -> LinearRule:
    """The linear rule by which a framework that cannot be told stages builds them.

    Raises:
        NotRunError: If no rule gives these stages.
    """
    rule = rule_of(config)
    if rule is None:
        raise NotRunError(
            f"{framework} builds stages from the linear rule, which does not give these"
        )
    return rule
