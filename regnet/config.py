"""`RegNetConfig`: what a RegNet is, and `config.json` both ways.

Fields, defaults and file format are those of Hugging Face transformers
(``models/regnet/configuration_regnet.py``), so one ``config.json`` serves both. Whatever cannot be
built is refused here, before a model is: transformers finds most of it when the model is built, and
drops stages silently when ``depths`` is shorter than ``hidden_sizes``.

Beyond these stand the fields of networks that are called RegNet and that transformers does not
have: RegNetV and RegNetZ, AnyNets, those of Keras. Their defaults are transformers' network, and a
file holds those alone that differ; such a file is of another model type (:data:`WIDER_TYPE`), so
that transformers refuses it instead of computing something else. Of that type its classes only warn
where they are named (``RegNetForImageClassification.from_pretrained``), so such a file also has a
list where they take a number alone: the group width of each stage.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Self, get_args

from regnet.files.json_file import JsonFile
from regnet.files.loading import dtype_name

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

LayerType = Literal["x", "y"]
Activation = Literal["relu", "gelu", "gelu_new", "selu", "silu"]
SqueezeActivation = Literal["relu", "gelu", "selu", "silu"]
ExpansionOf = Literal["output", "input"]
SqueezeOf = Literal["input", "bottleneck"]
Shortcut = Literal["conv", "avg", "none"]
NormType = Literal["batch", "group", "evonorm-s0a"]
Padding = Literal["symmetric", "same"]
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

WIDER_TYPE = "anynet"
"""The model type of what transformers' RegNet cannot be; pycls calls the general network so."""

WIDER_NAME = "AnyNet"
"""What such a file's ``architectures`` begin with, in place of ``RegNet``."""

NORM_EPS = 1e-5
"""Epsilon of norms where nothing else is said; transformers' config cannot express another."""

_DTYPE_KEYS = ("dtype", "torch_dtype")  # the first wins, as in transformers
DEFAULT_NUM_LABELS = 2

MAX_BLOCKS = 1000
"""Of all stages together: thirty times the deepest published RegNet's."""

MAX_COUNT = 1 << 20
"""Of channels or classes: more than any network has, and few enough for any memory."""

MAX_SIDE = 2048
"""Of the images that a network takes, in pixels, before and after the crop: five times what any
RegNet was evaluated at, and few enough for any memory."""


WIDER_DEFAULTS: Mapping[str, Any] = {
    "stem_sizes": None,
    "stem_strides": None,
    "strides": None,
    "expansion": 1.0,
    "expansion_of": "output",
    "se_ratio": 0.25,
    "se_of": "input",
    "se_divisor": 1,
    "se_act": "relu",
    "shortcut": "conv",
    "output_act": True,
    "preactivation": False,
    "norm": "batch",
    "norm_group_size": 16,
    "norm_eps": NORM_EPS,
    "head_size": 0,
    "final_act": False,
    "padding": "symmetric",
}
"""The fields that transformers does not have, as its network has them."""

_MEMBERS = {
    "layer_type": LayerType,
    "hidden_act": Activation,
    "expansion_of": ExpansionOf,
    "se_of": SqueezeOf,
    "se_act": SqueezeActivation,
    "shortcut": Shortcut,
    "norm": NormType,
    "padding": Padding,
}


@dataclass(frozen=True, slots=True)
class Bottleneck:
    """The sizes inside a block.

    Attributes:
        width: Channels of its 3x3 convolution.
        groups: Of these.
        squeezed: Channels between the convolutions of squeeze-and-excitation; 0 without it.
    """

    width: int
    groups: int
    squeezed: int


class RegNetConfig(JsonFile):
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
            squeeze-and-excitation is `se_act`, whatever this is.
        downsample_in_first_stage: Whether the first stage halves the resolution, as every
            published RegNetX and RegNetY does. Taken from ``strides`` where these are given.
        stem_sizes: Output channels of each 3x3 convolution of the stem; None for one, of
            ``embedding_size``, which is taken from the last where they are given.
        stem_strides: Stride of each of them; None for 2 in the first and 1 in others.
        strides: Stride of each stage; None for 2, and in the first stage what
            ``downsample_in_first_stage`` says.
        expansion: Width of a block's 3x3 convolution, as a multiple of what `expansion_of` says,
            rounded half to even.
        expansion_of: ``"output"`` or ``"input"`` of the block.
        se_ratio: Channels between the two convolutions of squeeze-and-excitation, as a multiple of
            what `se_of` says.
        se_of: ``"input"`` of the block, or its ``"bottleneck"``, which is the 3x3 convolution.
        se_divisor: These channels are a multiple of it, at least one (see :func:`squeeze_width`).
        se_act: The activation between the two convolutions; any of the above but ``gelu_new``.
        shortcut: What stands in the shortcut of a block whose output has another shape than its
            input: ``"conv"``, a 1x1 convolution with the block's stride; ``"avg"``, the mean of 2x2
            pixels with that stride before a 1x1 convolution; ``"none"``, no shortcut at all.
        output_act: Whether an activation follows the sum at the end of a block.
        preactivation: Whether norm and activation precede each convolution of a block instead of
            following it. The stem is bare convolutions then, shortcuts begin behind the first
            activation, and no activation follows the sum.
        norm: ``"batch"``, ``"group"``, or ``"evonorm-s0a"``, which is its own activation.
        norm_group_size: Channels per group of the latter two.
        norm_eps: What is added to the variance, of all norms.
        head_size: Output channels of a 1x1 convolution with norm and activation behind the last
            stage; 0 for none.
        final_act: Whether, without such a head, an activation stands there.
        padding: Where the zeros around images lie when a 3x3 convolution has a stride:
            ``"symmetric"``, one on every side; ``"same"``, as TensorFlow has it, so many that the
            size is divided by the stride, the odd one below and to the right.
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
        stem_sizes: Sequence[int] | None = None,
        stem_strides: Sequence[int] | None = None,
        strides: Sequence[int] | None = None,
        expansion: float = 1.0,
        expansion_of: ExpansionOf = "output",
        se_ratio: float = 0.25,
        se_of: SqueezeOf = "input",
        se_divisor: int = 1,
        se_act: SqueezeActivation = "relu",
        shortcut: Shortcut = "conv",
        output_act: bool = True,
        preactivation: bool = False,
        norm: NormType = "batch",
        norm_group_size: int = 16,
        norm_eps: float = NORM_EPS,
        head_size: int = 0,
        final_act: bool = False,
        padding: Padding = "symmetric",
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
        self.stem_sizes = stem_sizes
        self.stem_strides = stem_strides
        self.strides = strides
        self.expansion = expansion
        self.expansion_of = expansion_of
        self.se_ratio = se_ratio
        self.se_of = se_of
        self.se_divisor = se_divisor
        self.se_act = se_act
        self.shortcut = shortcut
        self.output_act = output_act
        self.preactivation = preactivation
        self.norm = norm
        self.norm_group_size = norm_group_size
        self.norm_eps = norm_eps
        self.head_size = head_size
        self.final_act = final_act
        self.padding = padding
        self._settle()
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

    def _settle(self) -> None:
        """Say in transformers' fields what they can say, so that one network has one spelling."""
        if self.stem_sizes is not None:
            self.stem_sizes = _int_list("stem_sizes", self.stem_sizes)
            self.embedding_size = next(reversed(self.stem_sizes), 0)
            self.stem_sizes = self.stem_sizes if len(self.stem_sizes) > 1 else None
        if self.stem_strides is not None:
            self.stem_strides = _int_list("stem_strides", self.stem_strides)
            usual = [2, *(1 for _ in self.stem_sizes or ())][: len(self.stem_sizes or (0,))]
            self.stem_strides = self.stem_strides if self.stem_strides != usual else None
        if self.strides is not None:
            self.strides = _int_list("strides", self.strides)
            self.downsample_in_first_stage = self.strides[:1] != [1]
            usual = [2 if self.downsample_in_first_stage else 1, *(2 for _ in self.depths[1:])]
            self.strides = self.strides if self.strides != usual else None
        if isinstance(self.groups_width, (list, tuple)):
            self.groups_width = _int_list("groups_width", self.groups_width)
            if len(self.groups_width) == len(self.depths) and len(set(self.groups_width)) == 1:
                self.groups_width = self.groups_width[0]

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

    @property
    def model_type(self) -> str:
        """``regnet`` of a network that transformers' RegNet can be, else :data:`WIDER_TYPE`."""
        return WIDER_TYPE if self.wider_fields() else MODEL_TYPE

    def wider_fields(self) -> dict[str, Any]:
        """What of the network transformers' configuration cannot say; empty of most."""
        fields = {name: getattr(self, name) for name in WIDER_DEFAULTS}
        wider = {name: one for name, one in fields.items() if one != WIDER_DEFAULTS[name]}
        return (
            wider
            if isinstance(self.groups_width, int)
            else {"groups_width": self.groups_width} | wider
        )

    def architecture_name(self, *, classifier: bool) -> str:
        """What ``architectures`` says of the network: transformers' name of its class, or ours."""
        name = CLASSIFIER_ARCHITECTURE if classifier else TRUNK_ARCHITECTURE
        return name.replace("RegNet", WIDER_NAME) if self.wider_fields() else name

    @property
    def stem_convolutions(self) -> list[tuple[int, int]]:
        """Output channels and stride of each convolution of the stem."""
        sizes = self.stem_sizes or [self.embedding_size]
        strides = self.stem_strides or [2, *(1 for _ in sizes[1:])]
        return list(zip(sizes, strides, strict=True))

    @property
    def stage_strides(self) -> list[int]:
        """Stride of each stage, which is that of its first block."""
        first = 2 if self.downsample_in_first_stage else 1
        return list(self.strides or (first, *(2 for _ in self.depths[1:])))

    @property
    def stage_groups_widths(self) -> list[int]:
        """Channels per group of each stage."""
        if isinstance(self.groups_width, int):
            return [self.groups_width for _ in self.depths]
        return list(self.groups_width)

    @property
    def feature_size(self) -> int:
        """Channels of the features that are pooled and classified."""
        return self.head_size or self.hidden_sizes[-1]

    def bottleneck_of(self, stage: int, in_channels: int) -> Bottleneck:
        """The sizes inside a block.

        Args:
            stage: Which it is in, from 0.
            in_channels: Of its input.
        """
        out = self.hidden_sizes[stage]
        width = round((in_channels if self.expansion_of == "input" else out) * self.expansion)
        of = in_channels if self.se_of == "input" else width
        return Bottleneck(
            width,
            group_count(width, self.stage_groups_widths[stage]),
            squeeze_width(of, self.se_ratio, self.se_divisor) if self.layer_type == "y" else 0,
        )

    def _validate(self) -> None:
        for name in ("num_channels", "embedding_size", "norm_group_size", "se_divisor"):
            _require_int(name, getattr(self, name), minimum=1)
        _require_int("head_size", self.head_size, minimum=0)
        if not self.depths or len(self.depths) != len(self.hidden_sizes):
            raise ValueError(
                f"depths has {len(self.depths)} stages and hidden_sizes {len(self.hidden_sizes)}; "
                "give one positive number per stage in both."
            )
        if sum(self.depths) > MAX_BLOCKS:
            raise ValueError(
                f"depths has {sum(self.depths)} blocks; at most {MAX_BLOCKS} are built."
            )
        for name, allowed in _MEMBERS.items():
            self._require_member(name, get_args(allowed))
        if self.problem_type is not None:
            self._require_member("problem_type", get_args(ProblemType))
        self._require_switches("downsample_in_first_stage", "output_hidden_states", "return_dict")
        self._require_switches("output_act", "preactivation", "final_act")
        for name in ("expansion", "se_ratio", "norm_eps"):
            _require_positive(name, getattr(self, name))
        self._require_as_many("stem_strides", self.stem_strides, "stem_sizes")
        self._require_as_many("strides", self.strides, "depths")
        if isinstance(self.groups_width, list):
            self._require_as_many("groups_width", self.groups_width, "depths")
        else:
            _require_int("groups_width", self.groups_width, minimum=1)
        if sorted(self.id2label) != list(range(self.num_labels)):
            raise ValueError("id2label must name every class index from 0 up, without gaps.")
        self._validate_widths()

    def _require_as_many(self, name: str, values: Sequence[int] | None, as_in: str) -> None:
        """Check that a list has one number for each of another."""
        items = getattr(self, as_in) or (self.embedding_size,)
        if values is not None and len(values) != len(items):
            raise ValueError(
                f"{name} has {len(values)} numbers and {as_in} {len(items)}; give as many in both."
            )

    def _validate_widths(self) -> None:
        for stage, in_channels in self._block_inputs():
            block = self.bottleneck_of(stage, in_channels)
            _require_int(f"the bottleneck of stage {stage}", block.width, minimum=1)
            if block.width % block.groups:
                raise ValueError(
                    f"stage {stage} cannot be built: its width {block.width} does not divide into "
                    f"the {block.groups} groups that groups_width={self.groups_width} asks for."
                )
            if self.layer_type == "y" and block.squeezed == 0:
                raise ValueError(
                    f"a squeeze-and-excitation block fed with {in_channels} channels would squeeze "
                    "to none; widen it or use layer_type='x'."
                )
        if self.norm != "batch":
            self._validate_norm_groups()

    def _validate_norm_groups(self) -> None:
        """Check that every normalised width is whole groups."""
        inside = (self.bottleneck_of(*block).width for block in self._block_inputs())
        widths = [
            *(width for width, _ in self.stem_convolutions),
            *self.hidden_sizes,
            *inside,
            self.head_size,
        ]
        for width in widths:
            if width % self.norm_group_size:
                raise ValueError(
                    f"{width} channels do not divide into groups of norm_group_size="
                    f"{self.norm_group_size}."
                )

    def _block_inputs(self) -> Iterator[tuple[int, int]]:
        """Stage and input channels of every kind of block that there is."""
        in_channels = self.embedding_size
        for stage, (width, depth) in enumerate(zip(self.hidden_sizes, self.depths, strict=True)):
            yield stage, in_channels
            if depth > 1:
                yield stage, width
            in_channels = width

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


def group_count(width: int, groups_width: int) -> int:
    """Groups of a 3x3 convolution of ``width`` channels.

    A stage narrower than the group width is one group, as in RegNetX-8.0GF (80 channels, 120 per
    group).
    """
    return max(1, width // groups_width)


def squeeze_width(channels: int, ratio: float = 0.25, divisor: int = 1) -> int:
    """Channels between the two convolutions of squeeze-and-excitation.

    As it is published, a quarter of the *block's input*, rounded half to even: 746 gives 186, where
    rounding half up would give 187 (pycls ``models/anynet.py``, transformers ``RegNetYLayer``). A
    divisor rounds to its nearest multiple instead, half up, and gives at least one (timm
    ``layers/helpers.py``, ``make_divisible`` with ``round_limit=0``).
    """
    if divisor == 1:
        return round(channels * ratio)
    return max(divisor, int(channels * ratio + divisor / 2) // divisor * divisor)


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


def _require_positive(name: str, value: object) -> None:
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 < value < MAX_COUNT:
        raise ValueError(f"{name}={value!r} must be a number above 0.")


def _int_list(name: str, values: Sequence[int]) -> list[int]:
    if not isinstance(values, (list, tuple)):
        raise ValueError(f"{name}={values!r} must be a list of integers, one per stage.")
    for value in values:
        _require_int(f"{name} entry", value, minimum=1)
    return list(values)
