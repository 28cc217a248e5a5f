"""The `cfg` text inside a pycls checkpoint: what it says that tensors cannot.

Source: pycls ``core/config.py`` and ``datasets/`` (0.1.1 and main). Keys that an older dump lacks
mean that version's fixed behaviour, which is also the default here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import yaml

from converters.checkpoint.pickle_reader import require_bounded
from converters.errors import InputError
from converters.families.source import BILINEAR, EvalTransform, Preprocessing
from converters.families.words import (
    ACTIVATIONS,
    FIRST_STRIDES,
    Says,
    Vocabulary,
    Word,
    always,
    keys,
    not_understood,
)
from regnet.config import IMAGENET_MEAN, IMAGENET_STD, MAX_BLOCKS, NORM_EPS
from regnet.design_space import fit_widths_to_groups, stage_widths_and_depths

if TYPE_CHECKING:
    from collections.abc import Mapping

    from converters.families.source import ChannelOrder, Decision
    from regnet.config import Activation

_MAX_TEXT = 100_000
"""Characters, twenty times what pycls writes."""

SAYS: Says = {
    "norm_eps": always("BN.EPS", NORM_EPS),
    "stem": always("STEM_TYPE", "simple_stem_in"),
    "block": always("BLOCK_TYPE", "res_bottleneck_block"),
    "squeeze": always("SE_R", 0.25),
    "head": always("HEAD_W", 0),
    "bottleneck": always("BOT_MUL", 1.0),
    "hidden_act": Word("MODEL.ACTIVATION_FUN", ACTIVATIONS, "relu, silu or gelu"),
    "downsample_in_first_stage": Word("STRIDE", FIRST_STRIDES, 2),
}
"""Keys without a section are those of REGNET, or of ANYNET, which has some of them per stage."""

RULE = ("DEPTH", "W0", "WA", "WM", "GROUP_W")
"""Keys of REGNET: the quantised linear rule, and the group width."""

_OF_FIELDS = {"hidden_act", "downsample_in_first_stage"}
_PER_STAGE = {"BOT_MUL", "STRIDE"}
_MEANS = {"BLOCK_TYPE": "a RegNetZ or another network"}
"""What it is where a key has another value."""

_DATASETS = ("", "imagenet", "cifar10")
"""Those that pycls has loaders of; whoever added another decided how it is loaded."""


def _in_unit_range(values: tuple[float, float, float]) -> tuple[float, float, float]:
    red, green, blue = values
    return red / 255, green / 255, blue / 255


_CIFAR = _in_unit_range((125.3, 123.0, 113.9)), _in_unit_range((63.0, 62.1, 66.7))
"""Mean and deviation in ``datasets/cifar10.py``; its comment says BGR, its pictures are RGB."""

_FFCV_RATIO = 256 / 224
_WHOLE_NUMBERS = _in_unit_range((123, 116, 103)), _in_unit_range((58, 57, 57))
"""ImageNet's mean and deviation as FFCV's loader takes them: bytes."""

_SECTIONS = Vocabulary(
    harmless=keys(
        # of other networks, of training, of the machine
        "RESNET EN VIT LN OPTIM CUDNN PREC_TIME LAUNCH FSDP MEM NUM_GPUS OUT_DIR CFG_DEST RNG_SEED",
        "LOG_DEST LOG_PERIOD DIST_BACKEND HOST PORT PORT_RANGE DOWNLOAD_CACHE",
    ),
)

_NETWORK = Vocabulary(
    read=keys("STRIDES BOT_MULS SE_ON", *RULE, *(word.key for word in SAYS.values())),
    harmless=keys("STEM_W DEPTHS WIDTHS GROUP_WS"),  # shown by the shapes
)

_KEYS = {
    "MODEL": Vocabulary(
        read=keys("TYPE NUM_CLASSES ACTIVATION_FUN"),
        harmless=keys("DEPTH LOSS_FUN ACTIVATION_INPLACE SCALING_*"),
    ),
    "REGNET": _NETWORK,
    "ANYNET": _NETWORK,
    "BN": Vocabulary(
        read=keys("EPS"),
        harmless=keys("MOM *PRECISE* ZERO_INIT_* *CUSTOM_WEIGHT_DECAY"),
    ),
    "TRAIN": Vocabulary(
        read=keys("DATASET IM_SIZE AUGMENT"),
        harmless=keys(
            "SPLIT BATCH_SIZE *_PERIOD AUTO_RESUME WEIGHTS MIXED_PRECISION LABEL_SMOOTHING",
            "MIXUP_ALPHA",
        ),
    ),
    "TEST": Vocabulary(
        read=keys("DATASET IM_SIZE"),
        harmless=keys("SPLIT BATCH_SIZE WEIGHTS"),
    ),
    "DATA_LOADER": Vocabulary(
        harmless=keys("NUM_WORKERS PIN_MEMORY"),
        harmless_as={"MODE": ("", "pytorch", "ffcv")},
    ),
}
"""Section to what is known of its keys, of 0.1.1 and of main."""

_WRONG_VALUES = (ArithmeticError, AttributeError, LookupError, RecursionError, ValueError)
"""What PyYAML raises beside its own errors, of ``!!bool x`` for example."""


class _Loader(yaml.SafeLoader):
    """PyYAML's safe loader without merge keys: a few lines of those make a mapping of any size."""

    def flatten_mapping(self, _: yaml.MappingNode) -> None:
        """Leave ``<<`` as it is, which then has no meaning and is an error."""


@dataclass(frozen=True)
class PyclsConfig:
    """The parsed text, as nested mappings; an absent one is empty and gives the defaults.

    Args:
        values: Section to key to value.
        where: What error messages call it.
    """

    values: Mapping[str, Any]
    where: str

    @classmethod
    def parse(cls, text: str | None, where: str) -> PyclsConfig:
        """Read the YAML text that ``cfg.dump()`` wrote.

        Raises:
            InputError: If it is no YAML mapping.
        """
        if text is None:
            return cls({}, where)
        try:
            values = yaml.load(text, _Loader) if len(text) <= _MAX_TEXT else None  # noqa: S506
            require_bounded(values)
        except (yaml.YAMLError, *_WRONG_VALUES):
            values = None
        if not isinstance(values, dict):
            raise InputError(f"{where}: its cfg is not the YAML text that pycls writes.")
        return cls(values, where)

    def get(self, section: str, key: str, default: Any) -> Any:
        """The value of ``section.key``, or the default where the text lacks it."""
        found = self.values.get(section)
        return found.get(key, default) if isinstance(found, dict) else default

    @property
    def network_section(self) -> str:
        """``REGNET`` or ``ANYNET``, by ``MODEL.TYPE``.

        Raises:
            InputError: If the type is another network's.
        """
        kind = str(self.get("MODEL", "TYPE", "regnet"))
        if kind not in {"regnet", "anynet"}:
            raise InputError(
                f"{self.where}: its cfg says MODEL.TYPE {kind}, which is not a RegNet; this tool "
                "converts RegNetX and RegNetY only."
            )
        return kind.upper()

    def require_expressible(self) -> None:
        """Check everything that the reference's configuration cannot say.

        Raises:
            InputError: Naming the first setting that stands in the way.
        """
        section = self.network_section
        for word in (SAYS[name] for name in SAYS if name not in _OF_FIELDS):
            place, _, key = word.key.rpartition(".")
            for value in self._values(place or section, key, word.default):
                if not word.allows(value):
                    raise self._refusal(place or section, key, value, word.only)
        first, *others = self.strides
        allowed_first = {1, 2} if section == "ANYNET" else {2}  # REGNET.STRIDE is every stage's
        if first not in allowed_first or set(others) - {2}:
            raise self._refusal(section, "STRIDE", self.strides, 2)
        if self.has_attention and self.activation != "relu":
            raise self._refusal("MODEL", "ACTIVATION_FUN", self.activation, "relu with SE")

    def _refusal(self, section: str, key: str, value: Any, expected: Any) -> InputError:
        meaning = f" ({_MEANS[key]})" if key in _MEANS else ""
        return InputError(
            f"{self.where}: its cfg sets {section}.{key} to {value}{meaning}, which the reference "
            f"RegNet cannot express; only {expected} converts without changing the network."
        )

    def _values(self, section: str, key: str, default: Any) -> list[Any]:
        """``SECTION.KEY``, for all stages if it has one each; or the list ``ANYNET.KEYS``."""
        if section == "ANYNET" and key in _PER_STAGE:
            values = self.get(section, f"{key}S", [])
            return list(values) if values else [default]
        return [self.get(section, key, default)]

    @property
    def described_shape(self) -> tuple[list[int], list[int]] | None:
        """Width and depth of each stage by the REGNET section; None where it does not say."""
        values = [self.get("REGNET", key, None) for key in RULE]
        if self.network_section != "REGNET" or not all(_is_number(value) for value in values):
            return None
        depth, w_0, w_a, w_m, group_width = values
        if not 1 <= depth <= MAX_BLOCKS:
            return None
        try:
            widths, depths = stage_widths_and_depths(depth, w_0, w_a, w_m)
            return fit_widths_to_groups(widths, group_width), depths
        except (ArithmeticError, TypeError, ValueError):
            return None  # outside the design space, where pycls would build nothing either

    @property
    def strides(self) -> list[int]:
        """Stride of the first block of each stage, or of all if only one is given."""
        return self._values(self.network_section, "STRIDE", 2)

    @property
    def downsample_in_first_stage(self) -> bool:
        """Whether the first stage has stride 2, as it has unless an AnyNet says otherwise."""
        return self.strides[0] != 1

    @property
    def has_attention(self) -> bool:
        """``SE_ON``."""
        return bool(self.get(self.network_section, "SE_ON", False))

    @property
    def activation(self) -> Activation:
        """``hidden_act`` of the reference.

        Raises:
            InputError: If pycls' activation has no counterpart.
        """
        word = SAYS["hidden_act"]
        section, _, key = word.key.partition(".")
        name = str(self.get(section, key, word.default))
        if name not in word.ours:
            raise self._refusal(section, key, name, word.only)
        ours: Activation = word.ours[name]
        return ours

    @property
    def preprocessing(self) -> Preprocessing:
        """Short side ``TEST.IM_SIZE``, centre crop ``TRAIN.IM_SIZE``, bilinear; BGR, as of OpenCV.

        CIFAR's pictures are RGB and taken as they are. FFCV, whose loader pycls has for ImageNet
        alone, feeds RGB, crops 224/256 of the short side, whatever ``TEST.IM_SIZE`` is, and without
        augmentation normalises with whole numbers. pycls resizes with OpenCV, without antialiasing,
        FFCV by area; Pillow's bilinear is the nearest filter that a ``preprocessor_config.json``
        can name.

        Raises:
            InputError: If the sizes are not positive integers, the crop no larger than the image.
        """
        dataset = self.get("TEST", "DATASET", "") or self.get("TRAIN", "DATASET", "")
        resize, crop = self.get("TEST", "IM_SIZE", 256), self.get("TRAIN", "IM_SIZE", 224)
        mean, std = IMAGENET_MEAN, IMAGENET_STD
        reason = "the cfg's TEST.IM_SIZE and TRAIN.IM_SIZE"
        order: ChannelOrder = "bgr"
        order_reason = "the cfg names pycls' own loader, which feeds BGR"
        if not self.values:
            reason = "pycls' default"
            order_reason = "pycls' default; the file has no cfg that says otherwise"
        elif dataset == "cifar10":
            resize, (mean, std) = crop, _CIFAR
            reason = "the cfg's TEST.DATASET is cifar10"
            order, order_reason = "rgb", f"{reason}, whose loader feeds RGB"
        elif self.get("DATA_LOADER", "MODE", "") == "ffcv":
            resize = round(crop * _FFCV_RATIO) if isinstance(crop, int) else resize
            if not self.get("TRAIN", "AUGMENT", ""):
                mean, std = _WHOLE_NUMBERS
            reason = "the cfg's TRAIN.IM_SIZE, by the share of it that pycls' FFCV loader crops"
            order, order_reason = "rgb", "the cfg's DATA_LOADER.MODE is ffcv, which feeds RGB"
        elif dataset not in _DATASETS:
            order_reason = f"pycls' default; the data set {dataset} is none of its own"
        if not (isinstance(resize, int) and isinstance(crop, int) and 0 < crop <= resize):
            raise InputError(
                f"{self.where}: its cfg evaluates with TEST.IM_SIZE {resize} and TRAIN.IM_SIZE "
                f"{crop}; they must be positive and the second no larger than the first."
            )
        transform = EvalTransform(resize, crop, BILINEAR, mean, std)
        return Preprocessing(transform, reason, order, order_reason)

    @property
    def not_understood(self) -> tuple[Decision, ...]:
        """Keys that may change the network or its evaluation, and are not understood."""
        in_use = self.network_section
        unknown: list[str] = []
        for section, value in self.values.items():
            if section in {"REGNET", "ANYNET"} and section != in_use:
                continue
            if section in _KEYS and isinstance(value, dict):
                unknown += _KEYS[section].unknown(value, f"{section}.")
            else:
                unknown += _SECTIONS.unknown({section: value})
        for section in ("TRAIN", "TEST"):
            name = self.get(section, "DATASET", "")
            if name not in _DATASETS:
                unknown.append(f"the data set {name}")
        return not_understood(unknown, "the cfg")


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
