"""Which framework saved it and which RegNet it is: from names and shapes, never the file's name."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from converters.checkpoint import StoredTensor
from converters.errors import InputError, printable
from converters.families.changed import require_unchanged
from converters.families.levels import without_levels
from regnet.wider import group_count, squeeze_width

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from converters.families.keymap import Fields, Keymap
    from converters.families.source import StateDict

_OTHER_NETWORKS = (
    ("an EfficientNet of pycls", r"s1\.b1\.(dwise|exp)\.weight"),
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
    return InputError(f"{where} is not {wanted}: {looks}; this tool converts RegNets.")


def architecture_of(
    tensors: Mapping[str, StoredTensor],
    keymap: Keymap,
    where: str,
    wider: Collection[str] = (),
) -> dict[str, Any]:
    """Read the architecture off the shapes of tensors that are spelled as ``keymap`` has it.

    Args:
        tensors: The whole network's.
        keymap: Of the framework.
        where: What messages call the file.
        wider: Fields beyond transformers' that the framework's networks may differ in.

    Returns:
        Fields of :class:`~regnet.config.RegNetConfig`; ``num_labels`` is 0 without a classifier.
        Activations cannot be seen and are not among them, nor are strides, which seldom can.

    Raises:
        InputError: If the network is none that the reference can be.
    """
    blocks, others = _by_role(tensors, keymap, where)
    stem = _stem(others, where)
    depths = _depths(blocks, where)
    inputs = _input_widths(blocks, stem[-1][0])
    fields = {
        "num_channels": stem[0][1],
        "embedding_size": stem[-1][0],
        "hidden_sizes": [blocks[stage, 0]["expand.conv"][0] for stage in range(len(depths))],
        "depths": depths,
        **_wider(blocks, inputs, where, wider),
        "groups_width": _groups_width(blocks, where, wider),
        "layer_type": _layer_type(blocks, where),
        "num_labels": others.get("classifier", (0,))[0],
    }
    if len(stem) > 1:
        fields["stem_sizes"] = [shape[0] for shape in stem]
    if "head.conv" in others:
        fields["head_size"] = others["head.conv"][0]
    return fields


def is_identity_first(tensors: Mapping[str, StoredTensor], keymap: Keymap) -> bool:
    """Whether the first block has no projection, as it has at stride 1 and equal widths alone.

    Every other first block has one, unless no block has, and then shapes do not show which stride
    that has.
    """
    place: Fields = {"stage": 0, "block": 0, "norm": "weight"}
    names = (keymap.spell(f"shortcut.{part}", place) for part in ("conv", "norm"))
    return tensors.keys().isdisjoint(names)


Shapes = dict[str, tuple[int, ...]]
Place = tuple[int, int]
Blocks = dict[Place, Shapes]

_DIVISOR = 8
"""What timm's ByobNet rounds widths of squeeze-and-excitation to."""


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
            others[f"{role}.{fields['index']}" if "index" in fields else role] = tensor.shape
    return blocks, others


def _depths(blocks: Blocks, where: str) -> list[int]:
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


def _stem(others: Shapes, where: str) -> list[tuple[int, ...]]:
    """The shapes of its convolutions, in order."""
    stem = [shape for role, shape in sorted(others.items()) if role.startswith("stem")]
    if not stem or any(shape[2:] != (3, 3) for shape in stem):
        found = f"a stem of shape {stem[0]}" if stem else "no stem"
        raise InputError(f"{where} has {found} where a RegNet has one 3x3 convolution.")
    return stem


def _input_widths(blocks: Blocks, stem_width: int) -> dict[Place, int]:
    """How many channels each block reads."""
    places = sorted(blocks)
    widths = [stem_width, *(blocks[place]["expand.conv"][0] for place in places)]
    return dict(zip(places, widths, strict=False))


def _wider(
    blocks: Blocks, inputs: Mapping[Place, int], where: str, allowed: Collection[str]
) -> dict[str, Any]:
    """What shapes show of the fields beyond transformers'."""
    fields: dict[str, Any] = {}
    for (stage, block), shapes in sorted(blocks.items()):
        at = f"{where}: block {block + 1} of stage {stage + 1}"
        in_width, width = inputs[stage, block], shapes["expand.conv"][0]
        inner = shapes["reduce.conv"][0]
        if inner != width and "expansion" not in allowed:
            raise InputError(
                f"{at} has a bottleneck of {inner} channels at width {width}; the reference RegNet "
                "has a bottleneck ratio of 1 only."
            )
        if in_width != width and "shortcut.conv" not in shapes:
            if "shortcut" not in allowed:
                raise InputError(
                    f"{at} changes width without a projection, as a RegNetZ does; the reference "
                    "RegNet cannot express that."
                )
            fields["shortcut"] = "none"
        squeezed = shapes.get("squeeze", (squeeze_width(in_width),))[0]
        if squeezed != squeeze_width(in_width) and not {"se_of", "se_ratio"} & set(allowed):
            raise InputError(
                f"{at} squeezes to {squeezed} channels where the reference RegNet squeezes a "
                f"quarter of the block's input, {squeeze_width(in_width)}."
            )
    expansion = _expansion(blocks, inputs, where, allowed)
    return fields | expansion | _squeezing(blocks, inputs, where, allowed)


def _expansion(
    blocks: Blocks, inputs: Mapping[Place, int], where: str, allowed: Collection[str]
) -> dict[str, Any]:
    """How wide the 3x3 convolutions are, as a multiple of a block's output, else of its input."""
    inner = {place: shapes["reduce.conv"][0] for place, shapes in blocks.items()}
    outputs = {place: shapes["expand.conv"][0] for place, shapes in blocks.items()}
    kinds: list[tuple[str, Mapping[Place, int]]] = [("output", outputs)]
    kinds += [("input", inputs)] if "expansion_of" in allowed else []
    for of, widths in kinds:
        for ratio in _ratios(widths, inner):
            if all(round(widths[place] * ratio) == inner[place] for place in blocks):
                return {"expansion": ratio, "expansion_of": of} if ratio != 1 else {}
    raise InputError(
        f"{where} has bottlenecks of {', '.join(map(str, inner.values()))} channels, which are no "
        "multiple of what its blocks read or make; the reference RegNet has one bottleneck "
        "multiplier for all stages."
    )


def _ratios(wholes: Mapping[Place, int], parts: Mapping[Place, int]) -> list[float]:
    """What numbers may be multiplied by to give others, rounded: the most precise, the middle."""
    widest = max(parts, key=wholes.__getitem__)
    low = max((part - 0.5) / wholes[place] for place, part in parts.items())
    high = min((part + 0.5) / wholes[place] for place, part in parts.items())
    return [parts[widest] / wholes[widest], (low + high) / 2]


def _squeezing(
    blocks: Blocks, inputs: Mapping[Place, int], where: str, allowed: Collection[str]
) -> dict[str, Any]:
    """How many channels squeeze-and-excitation squeezes to, and of which."""
    squeezed = {place: s["squeeze"][0] for place, s in blocks.items() if "squeeze" in s}
    if not squeezed:
        return {}
    inner = {place: shapes["reduce.conv"][0] for place, shapes in blocks.items()}
    of: Mapping[str, Mapping[Place, int]] = {"input": inputs, "bottleneck": inner}
    kinds = list(of) if "se_of" in allowed else ["input"]
    divisors = (1, _DIVISOR) if "se_divisor" in allowed else (1,)
    rules = [(0.25, name, divisor) for name in kinds for divisor in divisors]
    rules += [(ratio, *rule[1:]) for rule in rules for ratio in _ratios(of[rule[1]], squeezed)]
    for ratio, name, divisor in rules:
        widths = of[name]
        if all(squeeze_width(widths[at], ratio, divisor) == squeezed[at] for at in squeezed):
            fields = {"se_of": name, "se_ratio": ratio, "se_divisor": divisor}
            usual = {"se_of": "input", "se_ratio": 0.25, "se_divisor": 1}
            return {key: one for key, one in fields.items() if one != usual[key]}
    raise InputError(
        f"{where} squeezes to {', '.join(map(str, squeezed.values()))} channels, which no rule of "
        "squeeze-and-excitation gives."
    )


def _layer_type(blocks: Blocks, where: str) -> str:
    with_attention = sum("squeeze" in shapes for shapes in blocks.values())
    if with_attention not in {0, len(blocks)}:
        raise InputError(
            f"{where} has squeeze-and-excitation in {with_attention} of {len(blocks)} blocks; a "
            "RegNet has it in all (Y) or none (X)."
        )
    return "y" if with_attention else "x"


def _groups_width(blocks: Blocks, where: str, allowed: Collection[str]) -> int | list[int]:
    """The one group width that explains every stage, if there is one; else that of each.

    A stage in several groups has at least ``groups_width`` channels in each, more if that does not
    divide its width; a stage in one group only says that ``groups_width`` is above half its width.
    """
    stages = range(max(stage for stage, _ in blocks) + 1)
    per_stage = [blocks[stage, 0]["grouped.conv"][1] for stage in stages]
    widths = [blocks[stage, 0]["grouped.conv"][0] for stage in stages]
    in_groups = [size for size, width in zip(per_stage, widths, strict=True) if size < width]
    group = min(in_groups, default=max(per_stage))
    if _explains([group] * len(stages), blocks):
        return group
    if "groups_width" in allowed and _explains(per_stage, blocks):
        return per_stage
    raise InputError(
        f"{where} has other group widths in each stage ({', '.join(map(str, per_stage))} at "
        f"widths {', '.join(map(str, widths))}), which one groups_width cannot express."
    )


def _explains(per_stage: Sequence[int], blocks: Blocks) -> bool:
    """Whether group widths give every block's groups."""
    kernels = {place: shapes["grouped.conv"] for place, shapes in blocks.items()}
    return all(
        group_count(kernel[0], per_stage[stage]) * kernel[1] == kernel[0]
        for (stage, _), kernel in kernels.items()
    )
