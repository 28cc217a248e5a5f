"""Which framework saved it and which RegNet it is: from names and shapes, never the file's name."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from converters.checkpoint import StoredTensor
from converters.errors import InputError, printable
from converters.families.changed import require_unchanged
from converters.families.levels import without_levels
from regnet.config import group_count, squeeze_width

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from converters.families.keymap import Fields, Keymap
    from converters.families.source import StateDict

_OF_KERAS = re.compile(r"(.*\.)?\w+_Stage_0_[XYZ]Block_0_conv_1x1_1\.kernel")
"""What only the RegNets of ``keras.applications`` have."""

_OTHER_NETWORKS = (
    ("an EfficientNet of pycls", r"s1\.b1\.(dwise|exp)\.weight"),
    ("a RegNetV of timm (pre-activation)", r"s1\.b1\.norm1\.weight"),
    (
        "a RegNetZ of timm's ByobNet (inverted bottlenecks, final convolution)",
        r"stages\.0\.0\.conv1_1x1\.conv\.weight",
    ),
    ("a ResNet", r"layer1\.0\.conv1\.weight"),
    ("a vision transformer", r"(.*\.)?(cls|class)_token|.*blocks?\.0\.attn\..*"),
    ("a ConvNeXt", r".*stages\.0\.(blocks\.)?0\.(conv_dw|dwconv).*|features\.1\.0\.layer_scale"),
    ("an EfficientNet", r"blocks\.0\.0\.conv_dw\.weight|features\.1\.0\.block.*"),
    ("a DenseNet", r"features\.denseblock1\..*"),
    ("a VGG", r"features\.0\.weight"),
)


def tensors_of(tree: object) -> dict[str, StoredTensor]:
    """The tensors of a state dict, by name; none if it is no mapping."""
    if not isinstance(tree, dict):
        return {}
    return {
        name: tensor
        for name, tensor in tree.items()
        if isinstance(name, str) and isinstance(tensor, StoredTensor)
    }


def refusal(
    framework: str | None, found: Sequence[StateDict], tensors: Collection[str], where: str
) -> InputError:
    """The error for a checkpoint without the RegNet that was looked for: what it is instead.

    Args:
        framework: Whose RegNet was asked for; None for any.
        found: RegNets of other frameworks.
        tensors: The names of what is in the checkpoint.
        where: What the message calls it.

    Raises:
        InputError: If a library changed a network so that it holds no weights.
    """
    wanted = f"a {framework} RegNet" if framework else "a RegNet of a known framework"
    if not tensors:
        return InputError(
            f"{where} holds no tensors by name; give the file that the training run saved."
        )
    if any(map(_OF_KERAS.fullmatch, tensors)):
        return InputError(
            f"{where} is a RegNet of keras.applications, whose convolutions of stride 2 pad below "
            "and to the right alone, where the reference RegNet pads on every side and would "
            "compute something else; convert the same network of another framework (`regnet list`)."
        )
    if found:
        return InputError(
            f"{where} is not {wanted}: it is one saved by {found[0].framework}; convert it with "
            f"`regnet convert`."
        )
    require_unchanged(tensors, where)
    bare = without_levels(tensors).values()
    kinds = (
        kind
        for kind, pattern in _OTHER_NETWORKS
        if any(re.fullmatch(pattern, name) for name in bare)
    )
    other = next(kinds, None)
    looks = (
        f"it looks like {other}"
        if other
        else f"its first parameter is {printable(next(iter(tensors)))}"
    )
    return InputError(
        f"{where} is not {wanted}: {looks}; this tool converts RegNetX and RegNetY checkpoints."
    )


def architecture_of(
    tensors: Mapping[str, StoredTensor], keymap: Keymap, where: str
) -> dict[str, Any]:
    """Read the architecture off the shapes of tensors that are spelled as ``keymap`` has it.

    Returns:
        Fields of :class:`~regnet.config.RegNetConfig`; ``num_labels`` is 0 without a classifier.
        Activation cannot be seen and is not among them, nor are strides, which seldom can.

    Raises:
        InputError: If the network is none that the reference can be.
    """
    blocks, others = _by_role(tensors, keymap, where)
    stem = others.get("stem.conv")
    if stem is None or stem[2:] != (3, 3):
        found = "no stem" if stem is None else f"a stem of shape {stem}"
        raise InputError(f"{where} has {found} where a RegNet has one 3x3 convolution.")
    depths = _depths(blocks, where)
    widths = [blocks[stage, 0]["expand.conv"][0] for stage in range(len(depths))]
    _require_regnet_blocks(blocks, stem[0], where)
    return {
        "num_channels": stem[1],
        "embedding_size": stem[0],
        "hidden_sizes": widths,
        "depths": depths,
        "groups_width": _groups_width(blocks, widths, where),
        "layer_type": _layer_type(blocks, where),
        "num_labels": others.get("classifier", (0,))[0],
    }


def is_identity_first(tensors: Mapping[str, StoredTensor], keymap: Keymap) -> bool:
    """Whether the first block adds its input as it is, which it can at stride 1 alone.

    Every other first block has a projection, and then shapes do not show which stride that has.
    """
    place: Fields = {"stage": 0, "block": 0, "norm": "weight"}
    names = (keymap.spell(f"shortcut.{part}", place) for part in ("conv", "norm"))
    return tensors.keys().isdisjoint(names)


Shapes = dict[str, tuple[int, ...]]


def _by_role(
    tensors: Mapping[str, StoredTensor], keymap: Keymap, where: str
) -> tuple[dict[tuple[int, int], Shapes], Shapes]:
    """Shapes of the weights of each block by role, and of what is outside blocks."""
    blocks: dict[tuple[int, int], Shapes] = {}
    others: Shapes = {}
    for name, tensor in tensors.items():
        role, fields = keymap.parse(name) or ("", {})
        if not role or role.endswith(".norm") or fields.get("affine") == "bias":
            continue
        if 0 in tensor.shape:
            raise InputError(
                f"{where}: {name} has shape {tensor.shape}, so that its numbers are elsewhere, as "
                "DeepSpeed's ZeRO-3 leaves them; gather them with the zero_to_fp32.py that "
                "DeepSpeed wrote beside the checkpoint."
            )
        if len(tensor.shape) != (2 if role == "classifier" else 4):
            raise InputError(
                f"{where}: {name} has shape {tensor.shape}, which no weight of a RegNet has; give "
                "the complete model_state of an unmodified network."
            )
        if "block" in fields:
            place = int(fields["stage"]), int(fields["block"])
            blocks.setdefault(place, {})[role] = tensor.shape
        else:
            others[role] = tensor.shape
    return blocks, others


def _depths(blocks: Mapping[tuple[int, int], Shapes], where: str) -> list[int]:
    """Blocks per stage, which must be numbered without gaps and be whole."""
    depths: list[int] = []
    for stage, block in sorted(blocks):
        if block == 0 and stage == len(depths):
            depths.append(0)
        if stage != len(depths) - 1 or block != depths[-1]:
            raise InputError(
                f"{where} is incomplete: stage {stage + 1} has a block {block + 1} but not the "
                "one before it."
            )
        depths[-1] += 1
        if absent := {"reduce.conv", "grouped.conv", "expand.conv"} - set(blocks[stage, block]):
            raise InputError(
                f"{where}: block {block + 1} of stage {stage + 1} has no {min(absent)}; a "
                "RegNet's bottleneck block has three convolutions (vanilla and basic blocks "
                "cannot be expressed)."
            )
    if not depths:
        raise InputError(f"{where} has no blocks; it is not a RegNet.")
    return depths


def _require_regnet_blocks(
    blocks: Mapping[tuple[int, int], Shapes], stem_width: int, where: str
) -> None:
    in_width = stem_width
    for (stage, block), shapes in sorted(blocks.items()):
        place = f"{where}: block {block + 1} of stage {stage + 1}"
        width = shapes["expand.conv"][0]
        if shapes["reduce.conv"][0] != width:
            raise InputError(
                f"{place} has a bottleneck of {shapes['reduce.conv'][0]} channels at width "
                f"{width}; the reference RegNet has a bottleneck ratio of 1 only."
            )
        if in_width != width and "shortcut.conv" not in shapes:
            raise InputError(
                f"{place} changes width without a projection, as a RegNetZ does; the reference "
                "RegNet cannot express that."
            )
        if "squeeze" in shapes and shapes["squeeze"][0] != squeeze_width(in_width):
            raise InputError(
                f"{place} squeezes to {shapes['squeeze'][0]} channels where the reference RegNet "
                f"squeezes a quarter of the block's input, {squeeze_width(in_width)}."
            )
        in_width = width


def _layer_type(blocks: Mapping[tuple[int, int], Shapes], where: str) -> str:
    with_attention = sum("squeeze" in shapes for shapes in blocks.values())
    if with_attention not in {0, len(blocks)}:
        raise InputError(
            f"{where} has squeeze-and-excitation in {with_attention} of {len(blocks)} blocks; a "
            "RegNet has it in all (Y) or none (X)."
        )
    return "y" if with_attention else "x"


def _groups_width(blocks: Mapping[tuple[int, int], Shapes], widths: list[int], where: str) -> int:
    """The one group width that explains every stage, if there is one.

    A stage in several groups has at least ``groups_width`` channels in each, more if that does not
    divide its width; a stage in one group only says that ``groups_width`` is above half its width.
    """
    per_stage = [blocks[stage, 0]["grouped.conv"][1] for stage in range(len(widths))]
    in_groups = [size for size, width in zip(per_stage, widths, strict=True) if size < width]
    group = min(in_groups, default=max(per_stage))
    fits = all(
        group_count(widths[stage], group) * shapes["grouped.conv"][1] == widths[stage]
        for (stage, _), shapes in blocks.items()
    )
    if not fits:
        raise InputError(
            f"{where} has other group widths in each stage ({', '.join(map(str, per_stage))} at "
            f"widths {', '.join(map(str, widths))}), which one groups_width cannot express."
        )
    return group
