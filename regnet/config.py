"""`RegNetConfig`: what a RegNet is, and `config.json` both ways.

Fields, defaults and file format are those of Hugging Face transformers
(``models/regnet/configuration_regnet.py``), so one ``config.json`` serves both. Whatever cannot be
built is refused here, before a model is: transformers finds most of it when the model is built, and
drops stages silently when ``depths`` is shorter than ``hidden_sizes``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, Self, get_args

from regnet.files.json_file import JsonFile
from regnet.files.loading import dtype_name

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

_DTYPE_KEYS = ("dtype", "torch_dtype")  # the first wins, as in transformers
DEFAULT_NUM_LABELS = 2

MAX_BLOCKS = 1000
"""Of all stages together: thirty times the deepest published RegNet's."""

MAX_COUNT = 1 << 20
"""Of channels or classes: more than any network has, and few enough for any memory."""

MAX_SIDE = 2048
"""Of the images that a network takes, in pixels, before and after the crop: five times what any
RegNet was evaluated at, and few enough for any memory."""


class RegNetConfig(JsonFile):
    """The architecture and labels of a RegNet.

    Args:
        num_channels: Channels of the input image.
        embedding_size: Output channels of the stem.
        hidden_sizes: Output channels of each stage.
        depths: Blocks in each stage.
        groups_width: Channels per group of the 3x3 convolutions, one number for all stages.
        layer_type: ``"x"`` or ``"y"``; ``"y"`` adds squeeze-and-excitation.
        hidden_act: ``relu``, ``gelu``, ``gelu_new``, ``selu`` or ``silu``. The activation inside
            squeeze-and-excitation is always ReLU.
        downsample_in_first_stage: Whether the first stage halves the resolution, as every
            published RegNet does.
        num_labels: Classes; 0 leaves the classifier out. Taken from ``id2label`` where that is
            given.
        id2label: Class index to name.
        label2id: Class name to index; derived from ``id2label`` where it is left out.
        problem_type: Which loss ``labels`` ask for; ``None`` chooses by their dtype.
        output_hidden_states: Whether models return their hidden states by default.
        return_dict: Whether models return objects (or tuples) by default.
        **extra: Any other key is kept as an attribute and written back to ``config.json``.

    Raises:
        ValueError: If no model can be built from the values.
    """

    file_name = CONFIG_NAME
    title = "the configuration"
    model_type = "regnet"
    layer_types = get_args(LayerType)

    def __init__(  # noqa: PLR0913, PLR0917 -- the documented fields
        self,
        /,
        num_channels: int = 3,
        embedding_size: int = 32,
        hidden_sizes: Sequence[int] = (128, 192, 512, 1088),
        depths: Sequence[int] = (2, 6, 12, 2),
        groups_width: int = 64,
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
        self.hidden_sizes = _int_list("hidden_sizes", hidden_sizes)
        self.depths = _int_list("depths", depths)
        self.groups_width = groups_width
        self.layer_type = layer_type
        self.hidden_act = hidden_act
        self.downsample_in_first_stage = downsample_in_first_stage
        self.problem_type = problem_type
        self.output_hidden_states = output_hidden_states
        self.return_dict = return_dict
        self._set_labels(num_labels, id2label, label2id)
        for name, value in extra.items():
            if name != "model_type" and hasattr(type(self), name):
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
        _require_int("num_labels", count, minimum=0)
        self.id2label = {index: f"LABEL_{index}" for index in range(count)}
        self.label2id = {name: index for index, name in self.id2label.items()}

    def _validate(self) -> None:
        for name in ("num_channels", "embedding_size", "groups_width"):
            _require_int(name, getattr(self, name), minimum=1)
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
        self._validate_widths()

    def _validate_widths(self) -> None:
        for stage, width in enumerate(self.hidden_sizes):
            groups = group_count(width, self.groups_width)
            if width % groups:
                raise ValueError(
                    f"stage {stage} cannot be built: its width {width} does not divide into the "
                    f"{groups} groups that groups_width={self.groups_width} asks for."
                )
        if self.layer_type == "y":
            for width in (self.embedding_size, *self.hidden_sizes[:-1]):
                if squeeze_width(width) == 0:
                    raise ValueError(
                        f"a squeeze-and-excitation block fed with {width} channels would squeeze "
                        "to none; widen it or use layer_type='x'."
                    )

    @classmethod
    def settings(cls) -> frozenset[str]:
        """The documented fields, and the dtype that a file may state, by its two names."""
        return super().settings() | {*_DTYPE_KEYS}

    def save_pretrained(self, folder: str | Path) -> None:
        """Write ``config.json`` into a folder, which is created if missing.

        Raises:
            OSError: If it cannot be written.
        """
        self._save(folder)

    def to_dict(self) -> dict[str, Any]:
        """Every field as plain values, including the kept unknown ones."""
        return {"model_type": self.model_type, **vars(self)}

    def _fields_of_file(self) -> dict[str, Any]:
        """Leave out, as transformers does, what equals the default where nothing is lost by it.

        These are the two default labels and the output switches.
        """
        default = RegNetConfig()
        optional = ("id2label", "label2id", "problem_type", "output_hidden_states", "return_dict")
        return {
            name: value
            for name, value in self.to_dict().items()
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
        if merged.pop("model_type", cls.model_type) != cls.model_type:
            raise ValueError("this does not describe a RegNet; its model_type must be 'regnet'.")
        if "num_labels" in overrides and "id2label" not in overrides:
            merged.pop("id2label", None)
            merged.pop("label2id", None)
        return cls(**merged)


def group_count(width: int, groups_width: int) -> int:
    """Groups of a 3x3 convolution of ``width`` channels.

    A stage narrower than the group width is one group, as in RegNetX-8.0GF (80 channels, 120 per
    group).
    """
    return max(1, width // groups_width)


def squeeze_width(in_channels: int) -> int:
    """Channels between the two convolutions of squeeze-and-excitation.

    A quarter of the *block's input*, rounded half to even: 746 gives 186, where rounding half up
    would give 187 (pycls ``models/anynet.py``, transformers ``RegNetYLayer``).
    """
    return round(in_channels / 4)


def _label(name: object) -> str:
    """A label as text; folders whose labels are numbers exist."""
    if not isinstance(name, str | int | float):
        raise TypeError(name)
    return str(name)


def _require_int(name: str, value: object, *, minimum: int) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or value < minimum:
        raise ValueError(f"{name}={value!r} must be an integer of at least {minimum}.")
    if value > MAX_COUNT:
        raise ValueError(f"{name} is larger than {MAX_COUNT}, which no network needs.")


def _int_list(name: str, values: Sequence[int]) -> list[int]:
    if not isinstance(values, (list, tuple)):
        raise ValueError(f"{name}={values!r} must be a list of integers, one per stage.")
    for value in values:
        _require_int(f"{name} entry", value, minimum=1)
    return list(values)
