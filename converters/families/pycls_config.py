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
    PER_STAGE,
    Says,
    Vocabulary,
    Word,
    anynet_words,
    count,
    keys,
    not_understood,
    number,
)
from regnet.config import IMAGENET_MEAN, IMAGENET_STD, MAX_BLOCKS
from regnet.design_space import fit_widths_to_groups, stage_widths_and_depths
from regnet.wider import NORM_EPS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from converters.families.source import ChannelOrder, Decision
    from regnet.config import RegNetConfig

_MAX_TEXT = 100_000
"""Characters, twenty times what pycls writes."""

_ACTIVATION = Word("MODEL.ACTIVATION_FUN", ACTIVATIONS, "relu, silu or gelu")

SAYS: Says = {
    "norm_eps": number("BN.EPS", NORM_EPS),
    **anynet_words("STEM_TYPE", "BLOCK_TYPE"),
    "se_ratio": number("SE_R", 0.25),
    "head_size": count("HEAD_W", 0),
    "expansion": number("BOT_MUL", 1.0),
    "strides": count("STRIDE", 2, least=1),
    "hidden_act": _ACTIVATION,
    "se_act": _ACTIVATION,
}
"""Keys without a section are those of REGNET, or of ANYNET, which has some of them per stage."""

FIELDS = frozenset({"groups_width", *SAYS}) - {"hidden_act"}
"""What any network of pycls may have beyond transformers'; group widths show in shapes."""

BOTTLENECK = "BOT_MUL"
RULE = ("DEPTH", "W0", "WA", "WM", "GROUP_W")
"""Keys of REGNET: the quantised linear rule, and the group width."""

_PER_STAGE = {"BOT_MUL", "STRIDE"}
_MEANS = {
    "vanilla_block": "blocks without a shortcut",
    "res_basic_block": "blocks of two convolutions",
    "res_stem_in": "a 7x7 convolution and max pooling",
    "res_stem_patch": "patches",
}
"""What a value stands for."""

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

_SHOWN = {"expansion", "se_ratio", "head_size"}
"""The fields that shapes show as well."""

_OF_ATTENTION = {"se_ratio", "se_act"}

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
        for word in SAYS.values():
            section, key = self._place(word)
            values = self._values(section, key, word.default)
            for value in values:
                if not word.allows(value):
                    raise self._refusal(section, key, value, word.only)
            if key == BOTTLENECK and any(value != values[0] for value in values):
                raise self._refusal(section, f"{key}S", values, "one number for all stages")

    def _place(self, word: Word) -> tuple[str, str]:
        """The section of a word, and its key there."""
        section, _, key = word.key.rpartition(".")
        return section or self.network_section, key

    def _refusal(self, section: str, key: str, value: Any, expected: Any) -> InputError:
        meaning = f" ({_MEANS[value]})" if isinstance(value, str) and value in _MEANS else ""
        return InputError(
            f"{self.where}: its cfg sets {section}.{key} to {value}{meaning}, which the reference "
            f"RegNet cannot express; only {expected} converts without changing the network."
        )

    def _values(self, section: str, key: str, default: Any) -> list[Any]:
        """``SECTION.KEY``, for all stages if it has one each; or the list ``ANYNET.KEYS``."""
        if section == "ANYNET" and key in _PER_STAGE:
            values = self.get(section, f"{key}S", []) or [default]
            return list(values) if isinstance(values, list) else [values]
        return [self.get(section, key, default)]

    @property
    def described_shapes(self) -> list[tuple[list[int], list[int]]]:
        """Width and depth of each stage by the REGNET section; empty where it does not say.

        There are two if versions of pycls fit bottlenecks to groups in different ways.
        """
        values = [self.get("REGNET", key, None) for key in RULE]
        if self.network_section != "REGNET" or not all(_is_number(value) for value in values):
            return []
        depth, w_0, w_a, w_m, group_width = values
        if not 1 <= depth <= MAX_BLOCKS:
            return []
        multiplier = self.get("REGNET", BOTTLENECK, SAYS["expansion"].default)
        try:
            rules = (False, True) if multiplier == int(multiplier) else (False,)
            widths, depths = stage_widths_and_depths(depth, w_0, w_a, w_m)
            return [
                (fit_widths_to_groups(widths, group_width, multiplier, whole=whole), depths)
                for whole in rules
            ]
        except (ArithmeticError, TypeError, ValueError):
            return []  # outside the design space, where pycls would build nothing either

    def fields(self, shown: RegNetConfig) -> dict[str, Any]:
        """The fields of the configuration that it says, or that pycls has where it is silent.

        Args:
            shown: What the shapes show; what they show is said only where it is in the text.
        """
        fields: dict[str, Any] = {}
        for name, word in SAYS.items():
            section, key = self._place(word)
            values = self._values(section, key, None if name in _SHOWN else word.default)
            if values[0] is None or (shown.layer_type == "x" and name in _OF_ATTENTION):
                continue
            fields[name] = word.meant(values[0])
            if name in PER_STAGE:
                fields[name] = values * len(shown.depths) if len(values) == 1 else values
        return fields

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
