"""Finding the state dicts inside whatever a checkpoint wraps them in.

Trainers nest (``model_state``, ``classy_state_dict.base_model.model.trunk``, ``state_dict``) and
wrappers prefix names (``module.``, ``_orig_mod.``, ``model.``). Neither needs a list: a state dict
is any mapping that holds a parameter only a RegNet of some framework has, and whatever stands
before that parameter's name is the prefix.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from converters.checkpoint.values import StoredTensor, printable
from converters.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

TELL_TALES = {
    "pycls": r"s1\.b1\.f\.a\.weight",
    "timm": r"s1\.b1\.conv1\.conv\.weight",
    "transformers": r"embedder\.embedder\.convolution\.weight",
    "torchvision": r"trunk_output\.block1\.block1-0\.f\.c\.0\.weight",
    "classy-vision": r"trunk_output\.(_module\.)?block1\.(_module\.)?block1-0\.(_module\.)?f\.c"
    r"\.weight",
    "vissl": r"_feature_blocks\.res2\.(block1-part0\.)?block1-0\.f\.c\.weight",
    "mmpretrain": r"layer1\.0\.conv3\.weight",
}
"""Framework to the name of a parameter that only its RegNets have.

OpenMMLab's is a ResNet's too; its RegNet is told by the shapes, see `_is_regnet`.
"""

_MAX_DEPTH = 8
_MAX_NETWORKS = 16


@dataclass(frozen=True)
class StateDict:
    """A RegNet's tensors somewhere in a checkpoint.

    Attributes:
        framework: Whose names they have.
        path: The keys that lead to it, from the top.
        prefix: What stood before every name and is taken off, such as ``module.``.
        tensors: Name without the prefix to tensor.
        beside: What the same mapping holds without the prefix: the head, where the prefix is a
            trunk's (``backbone.``), or the rest of a detector. Of the prefix's own wrappers
            (``module.`` of ``module.backbone.``) the names are rid as well.
    """

    framework: str
    path: tuple[str, ...]
    prefix: str
    tensors: Mapping[str, StoredTensor]
    beside: Mapping[str, StoredTensor] = field(default_factory=dict)

    @property
    def place(self) -> str:
        """Where it was, for messages: ``model.trunk``, or ``the top``."""
        return ".".join((*self.path, *self.prefix.split(".")[:-1])) or "the top"


def find_state_dicts(tree: object) -> list[StateDict]:
    """Find every RegNet, outermost first; one mapping may hold several under several prefixes.

    Args:
        tree: What a checkpoint holds.

    Raises:
        InputError: If a mapping holds one tensor twice, with and without its prefix, or the
            checkpoint more networks than anybody saves in one file.
    """
    found: list[StateDict] = []
    for path, tensors in _tensor_mappings(tree, ()):
        framework, prefixes = _recognise(tensors)
        if len(found) + len(prefixes) > _MAX_NETWORKS:
            raise InputError(
                f"The checkpoint holds more than {_MAX_NETWORKS} networks; save one of them alone."
            )
        owners = {
            name: max(filter(name.startswith, prefixes), key=len, default=None)
            for name in (tensors if prefixes else ())
        }
        found += [_state_dict(framework, path, prefix, owners, tensors) for prefix in prefixes]
    return sorted(found, key=lambda state: len(state.path))


def all_tensors(tree: object) -> dict[str, StoredTensor]:
    """The tensors of the largest mapping anywhere, to say what a checkpoint looks like."""
    return max((tensors for _, tensors in _tensor_mappings(tree, ())), key=len, default={})


def _tensor_mappings(
    tree: object, path: tuple[str, ...]
) -> Iterator[tuple[tuple[str, ...], dict[str, StoredTensor]]]:
    """Every mapping that holds tensors under string keys, with the keys that lead to it."""
    if not isinstance(tree, dict) or len(path) > _MAX_DEPTH:
        return
    tensors = {
        key: value
        for key, value in tree.items()
        if isinstance(key, str) and isinstance(value, StoredTensor)
    }
    if tensors:
        yield path, tensors
    for key, value in tree.items():
        if isinstance(key, str):
            yield from _tensor_mappings(value, (*path, key))


def _recognise(tensors: Mapping[str, StoredTensor]) -> tuple[str, list[str]]:
    """Framework and prefixes, by the first tell-tale that ends any name; no prefix if none does."""
    for framework, tell_tale in TELL_TALES.items():
        pattern = re.compile(rf"(?P<prefix>(?:.*\.)?){tell_tale}")
        matches = (pattern.fullmatch(name) for name in tensors)
        prefixes = {match["prefix"] for match in matches if match}
        regnets = [prefix for prefix in prefixes if _is_regnet(framework, prefix, tensors)]
        if regnets:
            return framework, sorted(regnets)
    return "", []


def _is_regnet(framework: str, prefix: str, tensors: Mapping[str, StoredTensor]) -> bool:
    """Whether OpenMMLab's layers are a RegNet's: a 3x3 stem, output as wide as the bottleneck."""
    if framework != "mmpretrain":
        return True
    stem = tensors.get(f"{prefix}conv1.weight")
    expand = tensors[f"{prefix}layer1.0.conv3.weight"].shape
    return stem is not None and stem.shape[2:] == (3, 3) and expand[:1] == expand[1:2]


def _state_dict(
    framework: str,
    path: tuple[str, ...],
    prefix: str,
    owners: Mapping[str, str | None],
    tensors: Mapping[str, StoredTensor],
) -> StateDict:
    """What belongs to one of the prefixes found in a mapping: names under no longer one of them.

    Args:
        framework: Whose names they are.
        path: The keys that lead to the mapping.
        prefix: The one.
        owners: Each name's longest prefix, or None.
        tensors: The mapping.

    Raises:
        InputError: If it holds a tensor twice, with and without the prefix.
    """
    parts: dict[bool, dict[str, StoredTensor]] = {True: {}, False: {}}
    seen: set[str] = set()
    for name, tensor in tensors.items():
        owner = owners[name]
        if owner not in {prefix, None}:
            continue
        short = _without(prefix, name)
        if short in seen:
            where = ".".join(path) or "The checkpoint"
            raise InputError(
                f"{where} holds {printable(short)} twice, with and without "
                f"{printable(prefix)} before it; keep one of them."
            )
        seen.add(short)
        parts[owner is not None][short] = tensor
    return StateDict(framework, path, prefix, tensors=parts[True], beside=parts[False])


def _without(prefix: str, name: str) -> str:
    """The name without the prefix, or else without as many of its outer levels as it has."""
    while not name.startswith(prefix):
        prefix = prefix[: prefix[:-1].rfind(".") + 1]
    return name[len(prefix) :]
