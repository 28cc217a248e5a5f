"""Every framework whose RegNets are read: what it is called and what reads its checkpoints."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Protocol, cast

if TYPE_CHECKING:
    from collections.abc import Sequence

    from converters.checkpoint import AnyCheckpoint
    from converters.families.options import SourceOptions
    from converters.families.source import Source
    from converters.families.wrapping import StateDict


class Reader(Protocol):
    """What reads a framework's checkpoint."""

    def __call__(
        self, checkpoint: AnyCheckpoint, states: Sequence[StateDict], options: SourceOptions
    ) -> Source:
        """Find out all that the checkpoint says, without reading a weight.

        Args:
            checkpoint: An open file or folder.
            states: The state dicts of this framework found in it; at least one.
            options: What the user decided.

        Raises:
            InputError: If it is a RegNet that the reference cannot be.
        """
        ...


@dataclass(frozen=True, slots=True)
class Framework:
    """A framework.

    Attributes:
        title: For people.
        home: Module and name of its reader, imported when it is needed.
    """

    title: str
    home: str

    @property
    def read(self) -> Reader:
        """Its reader."""
        module, name = self.home.split(":")
        return cast("Reader", getattr(import_module(f"converters.families.{module}"), name))


FRAMEWORKS = {
    "pycls": Framework("pycls", "pycls:read_pycls"),
    "timm": Framework("timm", "timm:read_timm"),
    "torchvision": Framework("torchvision", "torchvision:read_torchvision"),
    "transformers": Framework("Hugging Face transformers", "transformers:read_transformers"),
    "mmpretrain": Framework("OpenMMLab", "openmmlab:read_openmmlab"),
    "classy-vision": Framework("ClassyVision or SWAG", "classy_vision:read_classy_vision"),
    "vissl": Framework("VISSL", "vissl:read_vissl"),
}
"""Name on the command line to framework; the names are those of `converters.families.wrapping`."""
