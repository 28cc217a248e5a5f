"""A converted folder: where its files are and how its weights are mapped."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from converters.checkpoint import open_checkpoint
from converters.checkpoint.values import NUMPY_CODES
from converters.errors import InputError
from converters.recognise import tensors_of
from regnet.architecture import BUFFER_LEAVES, Architecture
from regnet.config import CONFIG_NAME, MAX_SIDE, RegNetConfig
from regnet.safetensors_file import INDEX_NAME, WEIGHTS_NAME

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    from converters.checkpoint import StoredTensor
    from regnet.image_processor import RegNetImageProcessor

PREPROCESSOR_NAME = "preprocessor_config.json"
ONNX_NAME = "model.onnx"
TORCHSCRIPT_NAME = "model.torchscript.pt"
GOLDEN_NAME = "golden.safetensors"
REPORT_NAME = "conversion.json"
CARD_NAME = "README.md"

DEFAULT_IMAGE_SIZE = 224
"""What RegNets were trained on, in pixels, where a folder does not say."""

CLASSIFIER_ARCHITECTURE = "RegNetForImageClassification"
TRUNK_ARCHITECTURE = "RegNetModel"


@dataclass(frozen=True)
class ConvertedFolder:
    """Read access to a folder that `regnet convert` or transformers wrote.

    Args:
        path: The folder.

    Raises:
        InputError: From any property, if a file is missing or cannot be used.
    """

    path: Path

    @cached_property
    def config(self) -> RegNetConfig:
        """The folder's ``config.json``."""
        try:
            return RegNetConfig.from_pretrained(self.path)
        except (FileNotFoundError, ValueError) as error:
            raise InputError(str(error)) from error

    @property
    def has_classifier(self) -> bool:
        """Whether the folder holds a classifier or a trunk alone (``architectures``)."""
        architectures = getattr(self.config, "architectures", None) or [CLASSIFIER_ARCHITECTURE]
        return TRUNK_ARCHITECTURE not in architectures

    @property
    def output_names(self) -> tuple[str, ...]:
        """What every artefact of this folder returns, in order."""
        if self.has_classifier:
            return ("logits",)
        return ("last_hidden_state", "pooler_output")

    @property
    def architecture(self) -> Architecture:
        """The layers; their names carry no ``regnet.`` prefix."""
        return Architecture.of(self.config)

    @cached_property
    def preprocessing(self) -> dict[str, Any]:
        """The keys of ``preprocessor_config.json``."""
        path = self.path / PREPROCESSOR_NAME
        try:
            keys: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise InputError(f"{path} cannot be read ({error}); convert again.") from error
        return keys

    @cached_property
    def processor(self) -> RegNetImageProcessor:
        """The folder's own image processor."""
        from regnet.image_processor import RegNetImageProcessor

        try:
            return RegNetImageProcessor.from_pretrained(self.path)
        except (OSError, TypeError, ValueError) as error:
            raise InputError(str(error)) from error

    @property
    def image_size(self) -> int:
        """Side of the square images that the folder's processor makes, in pixels; 224 without."""
        if not (self.path / PREPROCESSOR_NAME).is_file():
            return DEFAULT_IMAGE_SIZE
        size = self.preprocessing.get("size", DEFAULT_IMAGE_SIZE)
        if isinstance(size, dict):
            size = size.get("shortest_edge", size.get("height"))
        if not isinstance(size, int) or size < 1:
            raise InputError(f"{self.path / PREPROCESSOR_NAME} states no size in pixels; mend it.")
        if size > MAX_SIDE:
            raise InputError(
                f"{self.path / PREPROCESSOR_NAME} asks for images of more than {MAX_SIDE} pixels a "
                "side, which no network needs; mend it."
            )
        return size

    @property
    def weight_files(self) -> list[Path]:
        """The safetensors file, or the shards in the order of their names."""
        if (self.path / WEIGHTS_NAME).is_file():
            return [self.path / WEIGHTS_NAME]
        shards = sorted(self.path.glob("model-*-of-*.safetensors"))
        if not shards or not (self.path / INDEX_NAME).is_file():
            raise InputError(
                f"{self.path} holds no {WEIGHTS_NAME}; convert a checkpoint with `regnet convert`."
            )
        return shards

    @cached_property
    def tensors(self) -> dict[str, StoredTensor]:
        """Where each tensor lies: name to file, offset, dtype and shape."""
        tensors: dict[str, StoredTensor] = {}
        for path in self.weight_files:
            with open_checkpoint(path) as checkpoint:
                tensors.update(tensors_of(checkpoint.tree))
        missing = [
            name
            for name, shape in self.architecture.tensors(classifier=self.has_classifier)
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
        counter = BUFFER_LEAVES[-1]
        return next(t.dtype for name, t in self.tensors.items() if not name.endswith(counter))

    def array(self, name: str) -> NDArray[np.generic]:
        """Map one tensor from its file, read-only, without reading it.

        Args:
            name: A name of the state dict, for example ``classifier.1.weight``.
        """
        import numpy as np

        tensor = self.tensors[name]
        return np.memmap(
            tensor.storage.path,
            dtype=NUMPY_CODES[tensor.dtype],
            mode="r",
            offset=tensor.storage.offset,
            shape=tensor.shape or (1,),
        ).reshape(tensor.shape)
