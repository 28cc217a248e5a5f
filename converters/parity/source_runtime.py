"""A checkpoint in the network of the framework that saved it, run like any runtime."""

from __future__ import annotations

import warnings
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from typing import TYPE_CHECKING

from converters.errors import in_words
from converters.families.real_network import NotRunError
from converters.formats.reference import torch_threads
from regnet.architecture import COUNTER
from regnet.files.dtypes import widened

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

    from converters.checkpoint import AnyCheckpoint, StoredTensor
    from converters.families.family import Family
    from converters.families.real_network import Build, RealNetwork
    from converters.families.source import Source
    from converters.parity.loaded import Tensors


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
        with torch_threads():
            self._network = _built(source, checkpoint)
            self.name = _with_version(source.family.package)
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


def _build_of(family: Family) -> Build:
    """What builds a framework's networks.

    Raises:
        NotRunError: If nothing does, or the framework is not installed.
    """
    package = family.package
    if family.build is None:
        raise NotRunError(f"nothing here builds the networks of {family.title}")
    if find_spec(package) is None:
        raise NotRunError(f"{package} is not installed (pip install {package.replace('_', '-')})")
    return family.build


def _with_version(package: str) -> str:
    """A package with its version, such as ``timm 1.0.31``."""
    try:
        return f"{package} {version(package)}"
    except PackageNotFoundError:  # run from a folder
        return package


def _built(source: Source, checkpoint: AnyCheckpoint) -> RealNetwork:
    build = _build_of(source.family)
    try:
        with warnings.catch_warnings(action="ignore"):  # of what old frameworks still use
            return build(source, checkpoint)
    except ImportError as error:
        package = source.family.package
        raise NotRunError(f"{package} cannot be imported ({in_words(error)})") from error


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
