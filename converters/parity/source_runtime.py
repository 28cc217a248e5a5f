"""A checkpoint in the network of the framework that saved it, run like any runtime."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from typing import TYPE_CHECKING, cast

from converters.errors import in_words
from converters.families.built import NotRunError
from converters.formats.reference import torch_threads
from regnet.architecture import COUNTER
from regnet.files.casts import widened

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

    from converters.checkpoint import AnyCheckpoint, StoredTensor
    from converters.families.built import Build, RealNetwork
    from converters.families.source import Source
    from converters.parity.loaded import Tensors


@dataclass(frozen=True, slots=True)
class Installed:
    """A framework as Python knows it.

    Attributes:
        package: What is installed by pip, and imported.
        home: The module in this package that builds its networks.
    """

    package: str
    home: str

    @property
    def name(self) -> str:
        """The package with its version, such as ``timm 1.0.31``."""
        try:
            return f"{self.package} {version(self.package)}"
        except PackageNotFoundError:  # run from a folder
            return self.package

    @property
    def build(self) -> Build:
        """What builds its networks.

        Raises:
            NotRunError: If the framework is not installed.
        """
        if find_spec(self.package) is None:
            raise NotRunError(
                f"{self.package} is not installed (pip install {self.package.replace('_', '-')})"
            )
        return cast("Build", import_module(f"converters.families.{self.home}_network").build)


INSTALLED = {
    "pycls": Installed("pycls", "pycls"),
    "timm": Installed("timm", "timm"),
    "torchvision": Installed("torchvision", "torchvision"),
    "transformers": Installed("transformers", "transformers"),
    "mmpretrain": Installed("mmpretrain", "mmpretrain"),
    "classy-vision": Installed("classy_vision", "classy_vision"),
    "swag": Installed("classy_vision", "classy_vision"),
    "vissl": Installed("vissl", "vissl"),
}
"""Framework, by the name of its keymap, to the package of its own code."""


class SourceRuntime:
    """A checkpoint's weights in its framework's own network, in float32.

    The framework's code builds the network; every tensor of the checkpoint must have its place
    there and every place a tensor, but for counters of batches, which old files lack. The
    framework's own order of channels is kept: images for BGR are turned round on the way in.

    Args:
        source: What was recognised.
        checkpoint: The open file or folder.
        tensors: Gives the elements of its tensors; by default the checkpoint itself.

    Attributes:
        name: The framework, with version.
        precision: In which it computes.

    Raises:
        NotRunError: If the framework is missing, cannot be imported, or has no such network.
        RuntimeError: From torch, if a tensor has no place there or another shape.
    """

    precision = "float32"

    def __init__(
        self, source: Source, checkpoint: AnyCheckpoint, tensors: Tensors | None = None
    ) -> None:
        installed = INSTALLED[source.keymap.framework]
        with torch_threads():
            self._network = _built(installed, source, checkpoint)
            self.name = installed.name
            _load(self._network, _state(self._network, source, tensors or checkpoint))
        self._source = source

    def __call__(self, pixel_values: NDArray[np.float32]) -> dict[str, NDArray[np.float32]]:
        """Run the network.

        Args:
            pixel_values: (N, num_channels, H, W), normalised, in RGB.

        Returns:
            Outputs by the reference model's names.
        """
        import torch

        with torch.inference_mode(), torch_threads():
            images = torch.tensor(pixel_values)
            images = images.flip(1) if self._source.flips_stem else images
            has_classifier = self._source.has_classifier
            outputs = self._network.outputs(images, has_classifier=has_classifier)
        return {name: output.contiguous().numpy() for name, output in outputs.items()}


def _built(installed: Installed, source: Source, checkpoint: AnyCheckpoint) -> RealNetwork:
    build = installed.build
    try:
        with warnings.catch_warnings(action="ignore"):  # of what old frameworks still use
            return build(source, checkpoint)
    except ImportError as error:
        raise NotRunError(f"{installed.package} cannot be imported ({in_words(error)})") from error


def _state(network: RealNetwork, source: Source, tensors: Tensors) -> dict[str, Tensor]:
    """The checkpoint's tensors under the names of the network's state dict."""
    stored: dict[str, StoredTensor] = {
        network.spell(name): tensor
        for name, tensor in source.tensors.items()
        if source.keymap.parse(name)
    }
    for leaf, tensor in source.classifier_norm.items():
        stored[network.norm + leaf] = tensor
    return {name: _tensor(tensors, tensor) for name, tensor in stored.items()}


def _tensor(tensors: Tensors, stored: StoredTensor) -> Tensor:
    import torch

    return torch.from_numpy(widened(tensors.array(stored), stored.dtype))


def _load(network: RealNetwork, state: Mapping[str, Tensor]) -> None:
    missing, unexpected = network.module.load_state_dict(state, strict=False)
    missing = [name for name in missing if not name.endswith(COUNTER)]
    for what, names in (("gets no tensor for", missing), ("has no place for", unexpected)):
        if names:
            raise RuntimeError(f"the framework's network {what} {', '.join(names[:3])}")
    network.module.eval()
