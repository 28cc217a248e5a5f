"""A converted folder: where its files are and how its weights are mapped."""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from converters.checkpoint import open_checkpoint
from converters.checkpoint.beside import read_json
from converters.errors import InputError
from converters.families.recognise import tensors_of
from converters.folder.interface import LARGEST_BYTE, NETWORK, Interface
from regnet.architecture import COUNTER, PROBABILITIES, Architecture, deployed
from regnet.config import (
    CLASSIFIER_ARCHITECTURE,
    CLASSIFIER_OUTPUTS,
    CONFIG_NAME,
    TRUNK_OUTPUTS,
    RegNetConfig,
)
from regnet.files.dtypes import ELEMENT_TYPES
from regnet.files.json_file import PREPROCESSOR_NAME, processor_settings
from regnet.files.safetensors_file import (
    INDEX_NAME,
    WEIGHTS_NAME,
    require_indexed,
    shards_of,
    unindexed,
    weight_files,
)

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from converters.checkpoint import StoredTensor
    from regnet.image_processor import RegNetImageProcessor

ONNX_NAME = "model.onnx"
TORCHSCRIPT_NAME = "model.torchscript.pt"
GOLDEN_NAME = "golden.safetensors"
REPORT_NAME = "conversion.json"
CARD_NAME = "README.md"

DEFAULT_IMAGE_SIZE = 224
"""What RegNets were trained on, in pixels, where a folder does not say."""


def _require_folder(path: Path) -> None:
    """Do nothing if a path is a folder with a configuration.

    Raises:
        InputError: If it is not, with what it is and what to do.
    """
    if not path.exists():
        raise InputError(f"{path} does not exist; give a folder that `regnet convert` made.")
    if not path.is_dir():
        raise InputError(f"{path} is not a folder; convert a checkpoint with `regnet convert`.")
    if not (path / CONFIG_NAME).exists():
        from converters.folder.images import shows_images  # and Pillow

        if shows_images(path):
            raise InputError(
                f"{path} holds images and no network; put a folder that `regnet convert` made in "
                "its place."
            )
        raise InputError(
            f"{path / CONFIG_NAME} does not exist; give a folder that `regnet convert` made, or "
            "transformers."
        )


@dataclass(frozen=True, init=False)
class ConvertedFolder:
    """Read access to a folder that `regnet convert` or transformers wrote.

    Args:
        path: The folder.
        interface: What an artefact of it takes and gives; the network, its outputs and its image
            processor are those of such a one.

    Raises:
        InputError: From any property, if a file is missing or cannot be used.
    """

    path: Path
    interface: Interface

    def __init__(self, path: str | os.PathLike[str], interface: Interface = NETWORK) -> None:
        object.__setattr__(self, "path", Path(path))  # it is frozen
        object.__setattr__(self, "interface", interface)

    def __reduce__(self) -> tuple[type[ConvertedFolder], tuple[Path, Interface]]:
        """Pickled it is the folder itself, without what was read of it."""
        return ConvertedFolder, (self.path, self.interface)

    def offering(self, interface: Interface) -> ConvertedFolder:
        """The same folder, of whose artefacts one takes and gives something else.

        Raises:
            InputError: If it has no classes to give probabilities of, or nothing in it says how
                images of its channels are normalised.
        """
        if interface == self.interface:
            return self
        other = ConvertedFolder(self.path, interface)
        if interface.softmax and not (self.has_classifier and self.config.num_labels > 1):
            raise InputError(
                f"{self.path} has no classes to choose among, so there are no probabilities to "
                "give; leave out --softmax."
            )
        other.architecture  # noqa: B018 -- which needs the image processor's numbers
        return other

    @cached_property
    def config(self) -> RegNetConfig:
        """The folder's ``config.json``."""
        _require_folder(self.path)
        try:
            return RegNetConfig.from_pretrained(self.path)
        except (FileNotFoundError, ValueError) as error:
            raise InputError(str(error)) from error

    @property
    def has_classifier(self) -> bool:
        """Whether the folder holds a classifier or a trunk alone (``architectures``)."""
        architectures = getattr(self.config, "architectures", None) or [CLASSIFIER_ARCHITECTURE]
        if not isinstance(architectures, list):
            raise InputError(f"{self.path / CONFIG_NAME} lists no architectures; restore it.")
        return self.config.architecture_name(classifier=False) not in architectures

    @property
    def output_names(self) -> tuple[str, ...]:
        """What every artefact of this folder returns, in order."""
        if self.interface.softmax:
            return (PROBABILITIES,)
        return CLASSIFIER_OUTPUTS if self.has_classifier else TRUNK_OUTPUTS

    @cached_property
    def architecture(self) -> Architecture:
        """The network as a list of operations."""
        network = Architecture.of(self.config, classifier=self.has_classifier)
        if self.interface == NETWORK:
            return network
        softmax = self.interface.softmax
        return Architecture(deployed(network.operations, self.statistics, softmax=softmax))

    @property
    def statistics(self) -> tuple[tuple[float, ...], tuple[float, ...]] | None:
        """What an artefact normalises with, in its pixels' scale; None if it does not."""
        if self.interface.pixels is None:
            return None
        of_bytes = ConvertedFolder(self.path).normalisation
        if of_bytes is None:
            raise InputError(
                f"{self.path} does not say how images of {self.config.num_channels} channels are "
                f"normalised; mend its {PREPROCESSOR_NAME}."
            )
        scale = self.interface.pixels / LARGEST_BYTE
        mean, std = (tuple(each * scale for each in numbers) for numbers in of_bytes)
        return mean, std

    @cached_property
    def preprocessing(self) -> dict[str, Any]:
        """The settings of its image processor; empty if it has none."""
        settings = processor_settings(self.path, read_json)[1]
        return settings | self.interface.settings if settings else {}

    @cached_property
    def processor(self) -> RegNetImageProcessor:
        """The folder's own image processor, without what an artefact does itself."""
        return self._processor(**self.interface.settings)

    def _processor(self, **overrides: Any) -> RegNetImageProcessor:
        from regnet.image_processor import RegNetImageProcessor

        try:
            return RegNetImageProcessor.from_pretrained(self.path, **overrides)
        except (OSError, TypeError, ValueError) as error:
            raise InputError(str(error)) from error

    @property
    def normalisation(self) -> tuple[list[float], list[float]] | None:
        """Mean and deviation of each channel that an artefact's images are normalised by before it.

        In steps of a byte; None if it has no image processor, or one of images with other channels.
        """
        if not self.preprocessing:
            return None
        sized = {"size": DEFAULT_IMAGE_SIZE}  # another class's size is none of ours
        own = self._processor(**sized, **self.interface.settings)
        channels, step = len(own.image_mean), own.rescale_factor if own.do_rescale else 1.0
        if channels != self.config.num_channels or not step:
            return None
        mean = own.image_mean if own.do_normalize else [0.0] * channels
        std = own.image_std if own.do_normalize else [1.0] * channels
        return [each / step for each in mean], [each / step for each in std]

    @property
    def image_size(self) -> int:
        """Side of the square images that the folder's processor makes, in pixels; 224 without."""
        if not self.preprocessing:
            return DEFAULT_IMAGE_SIZE
        stated = self.preprocessing.get("size")
        if isinstance(stated, dict) and stated.keys() == {"height", "width"}:
            # Another class's processor, which ours cannot be; its size is one all the same.
            return self._processor(size=stated["height"]).size["shortest_edge"]
        return self.processor.size["shortest_edge"]

    @cached_property
    def weight_files(self) -> list[Path]:
        """The safetensors file, or the shards that the index names, in the order of their names."""
        try:
            files = weight_files(self.path)
        except (FileNotFoundError, ValueError) as error:
            raise InputError(str(error)) from error
        stray = unindexed(self.path, {file.name for file in files})
        if stray:
            raise InputError(
                f"{self.path} holds {stray[0]}, which is named like a shard of its weights and is "
                "none of those that it is loaded from; move it elsewhere."
            )
        return files

    @property
    def network_files(self) -> tuple[str, ...]:
        """What its files are called that make the network, though not all need be there."""
        weights = (path.name for path in self.weight_files)
        return (CONFIG_NAME, PREPROCESSOR_NAME, INDEX_NAME, *weights)

    @cached_property
    def tensors(self) -> dict[str, StoredTensor]:
        """Where each tensor lies: name to file, offset, dtype and shape."""
        held: dict[str, dict[str, StoredTensor]] = {}
        for path in self.weight_files:
            with open_checkpoint(path) as checkpoint:
                held[path.name] = tensors_of(checkpoint.tree)
        if WEIGHTS_NAME not in held:
            index = self.path / INDEX_NAME
            try:
                require_indexed(index, shards_of(index), held)
            except (FileNotFoundError, ValueError) as error:
                raise InputError(f"{self.path}: {error}") from error
        tensors = {name: tensor for part in held.values() for name, tensor in part.items()}
        missing = [
            name
            for name, shape in self.architecture.shapes.items()
            if name not in tensors or tensors[name].shape != shape
        ]
        if missing:
            raise InputError(
                f"{self.path} does not fit its {CONFIG_NAME}: {len(missing)} tensors are missing "
                f"or of another shape, first {missing[0]}; convert the checkpoint again."
            )
        return tensors

    @property
    def dtype(self) -> str:
        """What the weights are stored in: torch's name, such as ``float16``."""
        return next(t.dtype for name, t in self.tensors.items() if not name.endswith(COUNTER))

    def array(self, name: str) -> NDArray[np.generic]:
        """Map one tensor from its file, read-only, without reading it.

        Args:
            name: A name of the state dict, for example ``classifier.1.weight``.

        Returns:
            Of the tensor's shape and dtype; of bfloat16 the bits, in uint16.
        """
        import numpy as np

        tensor = self.tensors[name]
        return np.memmap(
            os.fspath(tensor.storage.path),  # of a path it would look up every folder
            dtype=ELEMENT_TYPES[tensor.dtype].numpy,
            mode="r",
            offset=tensor.storage.offset,
            shape=tensor.shape or (1,),
        ).reshape(tensor.shape)
