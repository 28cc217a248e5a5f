"""The way of an image through the trunk of a RegNet, layer by layer.

Whoever writes a network down value by value goes this way: the ONNX exporter makes nodes on it, the
locator the steps that it compares.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

from regnet.architecture import PIXELS, ConvNorm

if TYPE_CHECKING:
    from regnet.architecture import Block, Blocks, SqueezeExcite


class Dataflow(ABC):
    """Describes the values of a trunk; every method returns the name of the value it described.

    Attributes:
        prefix: What precedes the names that :mod:`regnet.architecture` gives to layers.
    """

    prefix: str

    def trunk(self, network: Blocks) -> str:
        """Everything from the image to the last feature map."""
        value = self.conv_norm(network.stem, PIXELS)
        for stage in network.stages:
            for block in stage:
                value = self.block(block, value)
        return value

    def block(self, block: Block, value: str) -> str:
        """A residual block; its shortcut comes first."""
        shortcut = self.conv_norm(block.shortcut, value) if block.shortcut else value
        for layer in block.layers:
            if isinstance(layer, ConvNorm):
                value = self.conv_norm(layer, value)
            else:
                value = self.squeeze_excite(layer, value)
        return self.residual(self.prefix + block.name, value, shortcut)

    @abstractmethod
    def conv_norm(self, layer: ConvNorm, value: str) -> str:
        """A convolution, its batch norm, and the activation where there is one."""

    @abstractmethod
    def squeeze_excite(self, layer: SqueezeExcite, value: str) -> str:
        """The value times its gate."""

    @abstractmethod
    def residual(self, name: str, value: str, shortcut: str) -> str:
        """The activated sum that ends the block called ``name``."""
