"""Every published network of every family, and every layout its users have it in.

A giant, of 640 million parameters or more, is built on the meta device only, by the tests of its
family. Where weights are averaged, the set that the family itself does not take is negated, so
that a wrong choice shows.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from PIL import Image
    from torch import Tensor

State = dict[str, "Tensor"]


@dataclass(frozen=True)
class Built:
    """A real network: its name, itself, and what else its layouts need of it."""

    name: str
    network: Any
    more: Any = None

    @property
    def state(self) -> State:
        state: State = self.network.state_dict()
        return state


@dataclass(frozen=True)
class Layout:
    """A way to hand a network over.

    Attributes:
        save: Saves it into an empty folder; returns what to convert.
        pixels: What the framework itself makes of a picture then, in RGB; the path is what was
            saved.
        trunk: Whether the layout has no classifier.
        network: The real network whose logits it has, where its classifier is another.
        counters: Whether the batch norms' counters are kept.
        options: Of `SourceOptions`.
        framework: As it is recognised, where that is not the family's.
    """

    save: Callable[[Built, Path], Path]
    pixels: Callable[[Image.Image, Built, Path], Tensor]
    trunk: bool = False
    network: Callable[[Built], Any] | None = None
    counters: bool = True
    options: Mapping[str, Any] = field(default_factory=dict)
    framework: str | None = None


@dataclass(frozen=True)
class Family:
    """A framework's published networks.

    Attributes:
        framework: As it is recognised.
        build: A published network, with weights like a trained one's, by name.
        names: Of the networks that fit into memory, the smallest first.
        layouts: By name; the first is complete.
        bgr: Whether the real network takes BGR.
        picture: Size of the picture to compare on, in pixels.
    """

    framework: str
    build: Callable[[str], Built]
    names: tuple[str, ...]
    layouts: dict[str, Layout]
    bgr: bool = False
    picture: tuple[int, int] = (500, 400)


def tree(make: Callable[[State], Any]) -> Callable[[Built, Path], Path]:
    """A layout that is one file of what ``make`` nests a state dict in."""

    def save(built: Built, folder: Path) -> Path:
        torch.save(make(built.state), folder / "net.pth")
        return folder / "net.pth"

    return save


def prefixed(prefix: str, state: State) -> State:
    return {prefix + name: tensor for name, tensor in state.items()}


def negated(state: State) -> State:
    """Weights of another network of the same shape."""
    return {name: -tensor for name, tensor in state.items()}


WRAPPED: dict[str, Callable[[State], Any]] = {
    "flat": lambda state: state,
    "DDP": lambda state: {"state_dict": prefixed("module.", state)},
    "compiled": lambda state: prefixed("_orig_mod.", state),
    "Lightning": lambda state: {"epoch": 3, "state_dict": prefixed("model.", state)},
    "float64": lambda state: {
        name: tensor.double() if tensor.is_floating_point() else tensor
        for name, tensor in state.items()
    },
}
"""What trainers of any framework put around a network."""


def wrapped(pixels: Callable[[Image.Image, Built, Path], Tensor]) -> dict[str, Layout]:
    return {name: Layout(tree(make), pixels) for name, make in WRAPPED.items()}
