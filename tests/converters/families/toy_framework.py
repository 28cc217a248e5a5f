"""The code of a framework that does not exist: a RegNetX of its own, under names of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import nn
from torch.nn.functional import relu

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor


def unit(inward: int, outward: int, size: int = 1, stride: int = 1, groups: int = 1) -> nn.Module:
    conv = nn.Conv2d(inward, outward, size, stride, size // 2, groups=groups, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(outward))


class Block(nn.Module):
    def __init__(self, inward: int, outward: int, stride: int, group: int) -> None:
        super().__init__()
        self.side = unit(inward, outward, 1, stride) if stride > 1 or inward != outward else None
        middle = unit(outward, outward, 3, stride, outward // group)
        self.main = nn.ModuleList([unit(inward, outward), middle, unit(outward, outward)])

    def forward(self, x: Tensor) -> Tensor:
        reduce, middle, expand = self.main
        beside = x if self.side is None else self.side(x)
        return relu(beside + expand(relu(middle(relu(reduce(x))))))


class Net(nn.Module):
    """Takes images of (N, 3, H, W), in BGR; gives logits.

    Args:
        widths: Of the stem and of each stage.
        depths: Blocks of each stage.
        groups: Channels per group of each stage.
        strides: Of the first block of each stage.
        classes: How many.
    """

    def __init__(
        self,
        widths: Sequence[int],
        depths: Sequence[int],
        groups: Sequence[int],
        strides: Sequence[int],
        classes: int,
    ) -> None:
        super().__init__()
        self.entry = unit(3, widths[0], 3, 2)
        self.body = nn.Sequential(
            *(
                nn.Sequential(
                    Block(widths[i], widths[i + 1], strides[i], groups[i]),
                    *(Block(widths[i + 1], widths[i + 1], 1, groups[i]) for _ in range(depth - 1)),
                )
                for i, depth in enumerate(depths)
            )
        )
        self.answer = nn.Linear(widths[-1], classes)

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.answer(self.body(relu(self.entry(images))).mean((2, 3)))
        return logits
