"""The list of frameworks whose RegNets are known: a new one is a module, and a row here.

From the list come what ``--from`` and ``--to`` take, the commands ``convert-pycls`` and its
sisters, and the names by which a checkpoint is recognised. A row says what must be known before a
framework's module is imported; all else is the module's `converters.families.family.Family`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

from converters.errors import InputError
from regnet.files.late import imported, lazily

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from converters.families.family import Family


@dataclass(frozen=True, slots=True)
class Known:
    """Where a framework is described, and what is asked of it before that is imported.

    Attributes:
        module: Holds its ``FAMILY``.
        tell_tale: A pattern for the name of a parameter that only its RegNets have.
        is_written: Whether a converted folder can be written back for it.
        is_regnet: Whether a mapping with the tell-tale is a RegNet; None where that is enough.
            Takes what stands before the tell-tale, and the mapping.
    """

    module: str
    tell_tale: str
    is_written: bool = False
    is_regnet: Callable[[str, Mapping[str, object]], bool] | None = None

    @property
    def family(self) -> Family:
        """All that is known of it; imported when it is asked for."""
        return cast("Family", imported(f"{self.module}:FAMILY"))


NOTHING = r"(?!)"
"""The tell-tale of what is recognised by its graph; no name matches it."""

FAMILIES = {
    "pycls": Known("converters.families.pycls", r"s1\.b1\.f\.a\.weight", is_written=True),
    "timm": Known(
        "converters.families.timm",
        r"s1\.b1\.conv1\.conv\.weight|s1\.b1\.conv1\.weight"
        r"|stages\.0\.0\.conv1_1x1\.conv\.weight",
        is_written=True,
    ),
    "transformers": Known(
        "converters.families.transformers", r"embedder\.embedder\.(0\.)?convolution\.weight"
    ),
    "tensorflow": Known(
        "converters.families.tensorflow",
        r"embedder\.embedder\.normalization\.gamma",
        is_written=True,
    ),
    "flax": Known(
        "converters.families.flax", r"embedder\.embedder\.normalization\.scale", is_written=True
    ),
    "torchvision": Known(
        "converters.families.torchvision",
        r"trunk_output\.block1\.block1-0\.f\.c\.0\.weight",
        is_written=True,
    ),
    "classy-vision": Known(
        "converters.families.classy_vision",
        r"trunk_output\.(_module\.)?block1\.(_module\.)?block1-0\.(_module\.)?f\.c\.weight",
        is_written=True,
    ),
    "vissl": Known(
        "converters.families.vissl",
        r"_feature_blocks\.res2\.(block1-part0\.)?block1-0\.f\.c\.weight",
        is_written=True,
    ),
    "mmpretrain": Known(
        "converters.families.openmmlab",
        r"layer1\.0\.conv3\.weight",  # a ResNet's too
        is_written=True,
        is_regnet=lazily("converters.families.openmmlab:is_regnet"),
    ),
    "pytorchcv": Known(
        "converters.families.pytorchcv",
        r"features\.stage1\.unit1\.body\.conv3\.conv\.weight",  # a ResNet's too
        is_written=True,
        is_regnet=lazily("converters.families.pytorchcv:is_regnet"),
    ),
    "mlx-image": Known(
        "converters.families.mlx_image",
        r"trunk_output\.0\.blocks\.0\.f\.c\.layers\.0\.weight",
        is_written=True,
    ),
    "mindcv": Known(
        "converters.families.mindcv",
        r"stem\.bn\.moving_mean",  # which no copy of the parameters for an optimiser has
        is_regnet=lazily("converters.families.mindcv:is_regnet"),
    ),
    "paddleclas": Known("converters.families.paddle_clas", r"s1_b1\.conv2\._conv\.weight"),
    "keras": Known(
        "converters.families.keras",
        r"stem_conv2d\.kernel|layers\.conv2d\.kernel",  # by its place, another network's too
        is_written=True,
    ),
    "keras-applications": Known(
        "converters.families.keras_applications",
        r"(\w+_)?Stage_0_[XY]Block_0_conv_1x1_1\.kernel",
        is_written=True,
    ),
    "kecam": Known(
        "converters.families.kecam", r"stack1_block1_deep_1_conv\.kernel", is_written=True
    ),
    "onnx": Known("converters.families.onnx", NOTHING),
    "pt2": Known("converters.families.pt2", NOTHING),
    "torchscript": Known("converters.families.torchscript", NOTHING),
}
"""Name on the command line to framework; it is also the name of the framework's keymap."""


def written_back() -> tuple[str, ...]:
    """The frameworks that a converted folder can be written back for."""
    return tuple(name for name, known in FAMILIES.items() if known.is_written)


def target_named(framework: str) -> Family:
    """A framework that a converted folder is written back for.

    Raises:
        InputError: If it is not, or there is no such framework.
    """
    names = written_back()
    if framework not in names:
        raise InputError(f"{framework} is not among {', '.join(names)}; choose one of them.")
    return FAMILIES[framework].family
