"""`RegNetConfig`: what a RegNet is, and `config.json` both ways.

Fields, defaults and file format are those of Hugging Face transformers
(``models/regnet/configuration_regnet.py``), so one ``config.json`` serves both. Whatever cannot be
built is refused here, before a model is: transformers finds most of it when the model is built, and
drops stages silently when ``depths`` is shorter than ``hidden_sizes``.

Beside these stand the fields that transformers does not have (:mod:`regnet.wider`). A file holds
those alone that differ from transformers' network; such a file is of another model type, so that
transformers refuses it instead of computing something else. Of that type its classes only warn
where they are named (``RegNetForImageClassification.from_pretrained``), so such a file also has a
list where they take a number alone: the group width of each stage.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, Self, get_args

from regnet.files.json_file import int_list, require_int
from regnet.files.loading import dtype_name
from regnet.wider import WIDER_DEFAULTS, WIDER_NAME, WIDER_TYPE, WiderFields

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

LayerType = Literal["x", "y"]
Activation = Literal["relu", "gelu", "gelu_new", "selu", "silu"]
ProblemType = Literal["regression", "single_label_classification", "multi_label_classification"]

IMAGENET_MEAN = (0.485, 0.456, 0.406)
"""Of ImageNet as every framework that trained a RegNet has it, per channel in RGB order, for pixels
in 0..1."""

IMAGENET_STD = (0.229, 0.224, 0.225)
"""Likewise."""

IMAGENET_CLASSES = 1000

CONFIG_NAME = "config.json"

CLASSIFIER_ARCHITECTURE = "RegNetForImageClassification"
TRUNK_ARCHITECTURE = "RegNetModel"
"""What ``architectures`` says: transformers' names of the classes, and ours."""

CLASSIFIER_OUTPUTS = ("logits",)
TRUNK_OUTPUTS = ("last_hidden_state", "pooler_output")
"""What the two return, in order."""

MODEL_TYPE = "regnet"
"""Transformers' model type, of what it can be."""

_DTYPE_KEYS = ("dtype", "torch_dtype")  # the first wins, as in transformers
DEFAULT_NUM_LABELS = 2

MAX_BLOCKS = 1000
"""Of all stages together: thirty times the deepest published RegNet's."""

MAX_SIDE = 2048
"""Of the images that a network takes, in pixels, before and after the crop: five times what any
RegNet was evaluated at, and few enough for any memory."""


class RegNetConfig(WiderFields):
    """The architecture and labels of a RegNet.

    Args:
        num_channels: Channels of the input image.
        embedding_size: Output channels of the stem.
        hidden_sizes: Output channels of each stage.
        depths: Blocks in each stage.
        groups_width: Channels per group of the 3x3 convolutions: one number for all stages, or,
            as AnyNets have it, one for each.
        layer_type: ``"x"`` or ``"y"``; ``"y"`` adds squeeze-and-excitation.
        hidden_act: ``relu``, ``gelu``, ``gelu_new``, ``selu`` or ``silu``. The activation inside
            squeeze-and-excitation is another field, whatever this is.
        downsample_in_first_stage: Whether the first stage halves the resolution, as every
            published RegNetX and RegNetY does. Taken from ``strides`` where these are given.
        num_labels: Classes; 0 leaves the classifier out. Taken from ``id2label`` where that is
            given.
        id2label: Class index to name.
        label2id: Class name to index; derived from ``id2label`` where it is left out.
        problem_type: Which loss ``labels`` ask for; ``None`` chooses by their dtype.
        output_hidden_states: Whether models return their hidden states by default.
        return_dict: Whether models return objects (or tuples) by default.
        **extra: The fields of :class:`regnet.wider.WiderFields`. Any other key is kept as an
            attribute and written back to ``config.json``.

    Raises:
        ValueError: If no model can be built from the values.
    """

    file_name = CONFIG_NAME
    title = "the configuration"
    layer_types = get_args(LayerType)

    def __init__(  # noqa: PLR0913, PLR0917 -- the documented fields
        self,
        /,
        num_channels: int = 3,
        embedding_size: int = 32,
        hidden_sizes: Sequence[int] = (128, 192, 512, 1088),
        depths: Sequence[int] = (2, 6, 12, 2),
        groups_width: int | Sequence[int] = 64,
        layer_type: LayerType = "y",
        hidden_act: Activation = "relu",
        downsample_in_first_stage: bool = True,
        *,
        num_labels: int | None = None,
        id2label: Mapping[int | str, str] | None = None,
        label2id: Mapping[str, int] | None = None,
        problem_type: ProblemType | None = None,
        output_hidden_states: bool = False,
        return_dict: bool = True,
        **extra: Any,
    ) -> None:
        self.num_channels = num_channels
        self.embedding_size = embedding_size
        self.hidden_sizes = int_list("hidden_sizes", hidden_sizes)
        self.depths = int_list("depths", depths)
        self.groups_width = groups_width
        self.layer_type = layer_type
        self.hidden_act = hidden_act
        self.downsample_in_first_stage = downsample_in_first_stage
        self._set_wider(extra)
        self.problem_type = problem_type
        self.output_hidden_states = output_hidden_states
        self.return_dict = return_dict
        self._set_labels(num_labels, id2label, label2id)
        extra.pop("model_type", None)  # which the fields say
        for name, value in extra.items():
            if hasattr(type(self), name):
                raise ValueError(f"{name} is the name of no field.")
            setattr(self, name, value)
        self._validate()

    def _set_labels(
        self,
        num_labels: int | None,
        id2label: Mapping[int | str, str] | None,
        label2id: Mapping[str, int] | None,
    ) -> None:
        if id2label is None:
            self.num_labels = DEFAULT_NUM_LABELS if num_labels is None else num_labels
            return
        try:
            self.id2label = {int(index): _label(name) for index, name in id2label.items()}
            derived = {name: index for index, name in self.id2label.items()}
            self.label2id = dict(label2id.items()) if label2id else derived
        except (ArithmeticError, AttributeError, TypeError, ValueError):
            raise ValueError("id2label must map class indices to names, label2id back.") from None
        if num_labels is not None and num_labels != len(self.id2label):
            raise ValueError(
                f"num_labels={num_labels} contradicts id2label, which names {len(self.id2label)} "
                "classes; give one of them."
            )

    @property
    def num_labels(self) -> int:
        """Number of classes: the length of ``id2label``."""
        return len(self.id2label)

    @num_labels.setter
    def num_labels(self, count: int) -> None:
        require_int("num_labels", count, minimum=0)
        self.id2label = {index: f"LABEL_{index}" for index in range(count)}
        self.label2id = {name: index for index, name in self.id2label.items()}

    @property
    def model_type(self) -> str:
        """``regnet`` of a network that transformers' RegNet can be, else :data:`WIDER_TYPE`."""
        return WIDER_TYPE if self.wider_fields() else MODEL_TYPE

    def architecture_name(self, *, classifier: bool) -> str:
        """What ``architectures`` says of the network: transformers' name of its class, or ours."""
        name = CLASSIFIER_ARCHITECTURE if classifier else TRUNK_ARCHITECTURE
        return name.replace("RegNet", WIDER_NAME) if self.wider_fields() else name

    def _validate(self) -> None:
        for name in ("num_channels", "embedding_size"):
            require_int(name, getattr(self, name), minimum=1)
        if not self.depths or len(self.depths) != len(self.hidden_sizes):
            raise ValueError(
                f"depths has {len(self.depths)} stages and hidden_sizes {len(self.hidden_sizes)}; "
                "give one positive number per stage in both."
            )
        if sum(self.depths) > MAX_BLOCKS:
            raise ValueError(
                f"depths has {sum(self.depths)} blocks; at most {MAX_BLOCKS} are built."
            )
        self._require_member("layer_type", self.layer_types)
        self._require_member("hidden_act", get_args(Activation))
        if self.problem_type is not None:
            self._require_member("problem_type", get_args(ProblemType))
        self._require_switches("downsample_in_first_stage", "output_hidden_states", "return_dict")
        if sorted(self.id2label) != list(range(self.num_labels)):
            raise ValueError("id2label must name every class index from 0 up, without gaps.")
        self._validate_wider()

    @classmethod
    def settings(cls) -> frozenset[str]:
        """The documented fields, and the dtype that a file may state, by its two names."""
        return super().settings() | {*WIDER_DEFAULTS, *_DTYPE_KEYS}

    def save_pretrained(self, folder: str | Path) -> None:
        """Write ``config.json`` into a folder, which is created if missing.

        Raises:
            OSError: If it cannot be written.
        """
        self._save(folder)

    def to_dict(self) -> dict[str, Any]:
        """Every field as plain values, including the kept unknown ones.

        Fields that transformers does not have are there if they differ from its network.
        """
        usual = {name for name, one in WIDER_DEFAULTS.items() if getattr(self, name) == one}
        fields = {name: value for name, value in vars(self).items() if name not in usual}
        return {"model_type": self.model_type, **fields}

    def _fields_of_file(self) -> dict[str, Any]:
        """Leave out, as transformers does, what equals the default where nothing is lost by it.

        These are the two default labels and the output switches. Of a network that transformers
        does not have, the group width is that of each stage.
        """
        default = RegNetConfig()
        wider = {"groups_width": self.stage_groups_widths} if self.wider_fields() else {}
        optional = ("id2label", "label2id", "problem_type", "output_hidden_states", "return_dict")
        return {
            name: value
            for name, value in (self.to_dict() | wider).items()
            if name not in optional or value != getattr(default, name)
        }

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any], **overrides: Any) -> Self:
        """Build a config from the keys of a ``config.json``.

        Args:
            fields: As :meth:`to_dict` or transformers write them.
            **overrides: Fields that win; ``num_labels`` replaces the labels in ``fields``.

        Raises:
            ValueError: If no model can be built from the values.
        """
        given = (overrides[key] for key in _DTYPE_KEYS if overrides.get(key) is not None)
        dtype = dtype_name(next(given, None))
        overrides = {key: value for key, value in overrides.items() if key not in _DTYPE_KEYS}
        merged = {**fields, **overrides}
        if dtype is not None:
            merged.pop("torch_dtype", None)  # its older name, in the file
            merged["dtype"] = dtype
        if merged.pop("model_type", MODEL_TYPE) not in {MODEL_TYPE, WIDER_TYPE}:
            raise ValueError(
                f"this does not describe a RegNet; its model_type must be '{MODEL_TYPE}' or "
                f"'{WIDER_TYPE}'."
            )
        if "num_labels" in overrides and "id2label" not in overrides:
            merged.pop("id2label", None)
            merged.pop("label2id", None)
        return cls(**merged)


def _label(name: object) -> str:
    """A label as text; folders whose labels are numbers exist."""
    if not isinstance(name, str | int | float):
        raise TypeError(name)
    return str(name)
