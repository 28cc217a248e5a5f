"""Finding the state dicts inside whatever a checkpoint wraps them in.

Trainers nest (``model_state``, ``classy_state_dict.base_model.model.trunk``, ``state_dict``) and
wrappers prefix names (``module.``, ``_orig_mod.``, ``model.``). Neither needs a list: a state dict
is any mapping that holds a parameter only a RegNet of some framework has, and whatever stands
before that parameter's name is the prefix.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from converters.checkpoint.values import StoredTensor, printable
from converters.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping

TELL_TALES = {
    "pycls": r"s1\.b1\.f\.a\.weight",
    "timm": r"s1\.b1\.conv1\.conv\.weight",
    "transformers": r"embedder\.embedder\.convolution\.weight",
    "torchvision": r"trunk_output\.block1\.block1-0\.f\.c\.0\.weight",
    "classy-vision": r"trunk_output\.(_module\.)?block1\.(_module\.)?block1-0\.f\.c\.weight",
    "vissl": r"_feature_blocks\.res2\.(block1-part0\.)?block1-0\.f\.c\.weight",
    "mmpretrain": r"layer1\.0\.conv3\.weight",
}
"""Framework to the name of a parameter that only its RegNets have.

OpenMMLab's is a ResNet's too; its RegNet is told by the stem, see `_is_regnet`.
"""

_REGNET_STEM = (32, 3, 3, 3)
_MAX_DEPTH = 8


@dataclass(frozen=True)
class StateDict:
    """A RegNet's tensors somewhere in a checkpoint.

    Attributes:
        framework: Whose names they have.
        path: The keys that lead to it, from the top.
        prefix: What stood before every name and is taken off, such as ``module.``.
        tensors: Name without the prefix to tensor; names that lacked it are kept as they are.
    """

    framework: str
    path: tuple[str, ...]
    prefix: str
    tensors: Mapping[str, StoredTensor]

    @property
    def place(self) -> str:
        """Where it was, for messages: ``model.trunk``, or ``the top``."""
        return ".".join(self.path) or "the top"


def find_state_dicts(tree: object) -> list[StateDict]:
    """Find every mapping that holds a RegNet, outermost first.

    Args:
        tree: What a checkpoint holds.

    Raises:
        InputError: If a mapping holds one tensor twice, with and without its prefix.
    """
    found = []
    for path, tensors in _tensor_mappings(tree, ()):
        recognised = _recognise(tensors)
        if recognised:
            framework, prefix = recognised
            found.append(StateDict(framework, path, prefix, _without(prefix, tensors, path)))
    return sorted(found, key=lambda state: len(state.path))


def all_tensors(tree: object) -> dict[str, StoredTensor]:
    """The tensors of the largest mapping anywhere, to say what a checkpoint looks like."""
    mappings = [tensors for _, tensors in _tensor_mappings(tree, ())]
    return max(mappings, key=len, default={})


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


def _recognise(tensors: Mapping[str, StoredTensor]) -> tuple[str, str] | None:
    """Framework and prefix, by the first tell-tale that ends one of the names."""
    for framework, tell_tale in TELL_TALES.items():
        pattern = re.compile(rf"(?P<prefix>(?:.*\.)?){tell_tale}")
        matches = (pattern.fullmatch(name) for name in tensors)
        prefix = min((m["prefix"] for m in matches if m), key=len, default=None)
        if prefix is not None and _is_regnet(framework, prefix, tensors):
            return framework, prefix
    return None


def _is_regnet(framework: str, prefix: str, tensors: Mapping[str, StoredTensor]) -> bool:
    if framework != "mmpretrain":
        return True
    stem = tensors.get(f"{prefix}conv1.weight")
    return stem is not None and stem.shape == _REGNET_STEM


def _without(
    prefix: str, tensors: Mapping[str, StoredTensor], path: Collection[str]
) -> dict[str, StoredTensor]:
    stripped: dict[str, StoredTensor] = {}
    for name, tensor in tensors.items():
        short = name.removeprefix(prefix)
        if short in stripped:
            where = ".".join(path) or "The checkpoint"
            raise InputError(
                f"{where} holds {printable(short)} twice, with and without "
                f"{printable(prefix)} before it; keep one of them."
            )
        stripped[short] = tensor
    return stripped
