"""What becomes of every entry of a state dict that is no parameter of the network itself.

Each is placed (a classifier outside the trunk, the mean and deviation of a normaliser), or left out
for a reason that cannot change what the network puts out, or it is an error. Where only the order
of computation, which no file tells, decides between the last two, the user does, with ``--head``.
"""

from __future__ import annotations

import re
from collections import defaultdict
from dataclasses import replace
from typing import TYPE_CHECKING

from converters.errors import InputError, first, printable
from converters.families.changed import require_unchanged
from converters.families.harmless import COUNTED, harmless, harmless_elsewhere, is_profilers
from converters.families.heads import NO_HEAD, Head, choose_head, last_block
from converters.families.levels import REPLACED
from converters.families.normalising import (
    channels_of,
    require_nothing_in_front,
    without_normalisers,
)
from converters.families.recognise import tensors_of
from converters.families.wrapping import ONE_PROCESS, shared_levels, unread_of
from regnet.architecture import COUNTER

if TYPE_CHECKING:
    from collections.abc import Mapping

    from converters.checkpoint import StoredTensor
    from converters.families.family import Found
    from converters.families.keymap import Keymap
    from converters.families.source import Decision, StateDict, Unread

Tensors = dict[str, "StoredTensor"]

_PRETRAINING = re.compile(
    r"(.*[._])?(projectors?|projections?|proj|predictors?|prototypes?|queue|swav|byol|simclr|moco"
    r"|dino|contrastive|memory|bank)([._].*)?"
)
"""Heads of self-supervised and contrastive training, which give no classes."""

_BEHIND_TRUNK = "a head of pre-training, which gives no classes"

_BEFORE_PEFT = "the module as it was before peft trained the one that is taken"

_AFFINE = ("weight", "bias")

_SHOWN = 3


def prepared(found: Found, state: StateDict) -> StateDict:
    """Check that all of a chosen state dict can be read, and find what normalises its images.

    Returns:
        The same with its normalisers, which its tensors no longer contain.

    Raises:
        InputError: If an entry of the network, or one that may change what comes out of it, is
            of a kind that is not read, or no weight yet.
    """
    keymap = found.family.keymap
    require_unchanged((name for name in state.tensors if not harmless(name)), found.where)
    for name, unread in state.unread.items():
        if name.endswith(COUNTER):
            continue  # nothing is computed with it, and the plan makes zeros
        if keymap.parse(name) or (unread.is_state and not harmless(name)):
            raise _unreadable(name, unread, found.where)
    channels = channels_of(state, keymap)
    return without_normalisers(state, channels) if channels else state


def readable(stored: object, where: str) -> Tensors:
    """The tensors of a head that is stored in a mapping of its own; none if it is no mapping.

    Raises:
        InputError: If an entry is a tensor of a kind that is not read.
    """
    for name, unread in unread_of(stored).items():
        if unread.is_state:
            raise _unreadable(name, unread, where)
    return tensors_of(stored)


def _unreadable(name: str, unread: Unread, where: str) -> InputError:
    if unread.kind == ONE_PROCESS:
        return InputError(
            f"{where}: {printable(name)} is stored as {unread.kind}; give a folder that "
            "torch.distributed.checkpoint wrote, or save what its get_model_state_dict gives with "
            "StateDictOptions(full_state_dict=True)."
        )
    return InputError(
        f"{where}: {printable(name)} is stored as {unread.kind}, which is not read; load the "
        "network in its framework, make it an ordinary tensor, and save its state_dict() again."
    )


def settle(
    found: Found, state: StateDict
) -> tuple[Tensors, tuple[Decision] | tuple[()], dict[str, str]]:
    """Place or leave out what stands beside a :func:`prepared` network, and choose its classifier.

    Returns:
        The network's tensors, its classifier spelled as the framework's keymap has it; which one
        that is, where there was a choice to be made; and what is left out: name to reason.

    Raises:
        InputError: If something may change what comes out of the network and has no place, or
            the user has to choose a head.
    """
    keymap = found.family.keymap
    tensors = dict(state.tensors)
    beside: Tensors = {}
    for name, tensor in state.beside.items():
        (tensors if keymap.parse(name) else beside)[name] = tensor
    require_nothing_in_front(state, keymap, beside, found.where)
    skipped = _counters(tensors, keymap) | _replaced(tensors)
    for name in _outside(tensors, keymap):
        beside[name] = tensors.pop(name)
    near = {n: t for n, t in beside.items() if not harmless(n, t)}
    heads = _Heads(tensors, near, {**_by_place(state.elsewhere), **near}, keymap)
    decisions, left = heads.choose(found)
    rest = {n: t for n, t in beside.items() if not heads.knows(n)}
    others = {path: t for path, t in state.elsewhere.items() if not heads.knows(".".join(path))}
    skipped |= _reasons(state, rest) | elsewhere(replace(state, elsewhere=others))
    skipped |= {
        name.split(".")[0]: why
        for name, unread in state.unread.items()
        if unread.is_state and (why := harmless(name))
    }
    return heads.tensors, decisions, skipped | left


def elsewhere(state: StateDict, but: str | None = None) -> dict[str, str]:
    """What lies in other mappings than the network's: name to the reason to leave it out.

    Args:
        state: The network.
        but: The key beside the network's own under which there are heads, which have reasons of
            their own; None if there is none.
    """
    heads = (*state.path[:-1], but)
    found: dict[str, str] = {}
    for path in state.elsewhere:
        if path[: len(heads)] == heads:
            continue
        depth = shared_levels(path[:-1], state.path)
        reason = harmless_elsewhere(path) or "no part of the network's state dict"
        found.setdefault(".".join(path[: depth + 1]), reason)
    return found


def _by_place(elsewhere: Mapping[tuple[str, ...], StoredTensor]) -> Tensors:
    """What may be a part of the network in mappings of their own, by the keys that lead there."""
    return {
        ".".join(path): tensor for path, tensor in elsewhere.items() if not harmless_elsewhere(path)
    }


def _counters(tensors: Tensors, keymap: Keymap) -> dict[str, str]:
    """Take a profiler's counters out of the network's own tensors."""
    found = [n for n, t in tensors.items() if is_profilers(n, t) and not keymap.parse(n)]
    for name in found:
        del tensors[name]
    return {name.rpartition(".")[2]: COUNTED for name in found}


def _replaced(tensors: Tensors) -> dict[str, str]:
    """Take modules out that peft trained others in place of."""
    found = [name for name in tensors if f".{REPLACED}." in name]
    for name in found:
        del tensors[name]
    return {name.rpartition(".")[0]: _BEFORE_PEFT for name in found}


def _outside(tensors: Tensors, keymap: Keymap) -> list[str]:
    """What stands among a network's own tensors and may be a classifier of another form.

    That is what is below its classifier's first level, ``fc.1`` where ``fc`` is, and a linear layer
    of a level of its own that reads what the network ends in.
    """
    classifier = keymap.spell("classifier", {"affine": "weight"}).rpartition(".")[0]
    unknown = {name: tensor for name, tensor in tensors.items() if not keymap.parse(name)}
    levels = {name.split(".")[0] for name in tensors if name not in unknown}
    width = last_block(tensors, keymap)[2]
    modules = _by_module(unknown)
    linear = {
        module
        for module, leaves in modules.items()
        if leaves.keys() == set(_AFFINE)
        and leaves["weight"].shape[1:] == (width,)
        and module.split(".")[0] not in levels
    }
    below = f"{classifier.split('.')[0]}."
    return [
        f"{module}.{leaf}"
        for module, leaves in modules.items()
        if module in linear or (module.startswith(below) and module != classifier)
        for leaf in leaves
    ]


def _reasons(state: StateDict, beside: Mapping[str, StoredTensor]) -> dict[str, str]:
    """Why each first level beside the network is left out."""
    found: dict[str, str] = {}
    for name, tensor in beside.items():
        behind = _BEHIND_TRUNK if _PRETRAINING.fullmatch(name.lower()) else None
        reason = harmless(name, tensor) or behind
        found.setdefault(
            name.split(".")[0],
            reason or f"behind or beside {state.place}, which it is not a part of",
        )
    return found


# Classifiers outside the network's own names.


class _Heads:
    """The linear layers that may be the classifier.

    Args:
        tensors: The network's.
        near: What may matter and stands beside it in its mapping.
        outside: The same, and what stands in other mappings, by place.
        keymap: The framework's.

    Attributes:
        tensors: The network's; after :meth:`choose` with the chosen head, and no other.
    """

    def __init__(self, tensors: Tensors, near: Tensors, outside: Tensors, keymap: Keymap) -> None:
        self.tensors = tensors
        self._keymap, self._near, self._outside = keymap, near, outside
        self._width = last_block(tensors, keymap)[2]
        self._names = {affine: keymap.spell("classifier", {"affine": affine}) for affine in _AFFINE}
        self._inside = {
            affine: tensors[name] for affine, name in self._names.items() if name in tensors
        }
        self._fit: dict[str, Head] = {}
        self._unfit: dict[str, str] = {}
        self._judge()

    def knows(self, name: str) -> bool:
        """Whether an entry belongs to a head, which has a reason if it is left out."""
        module = name.rpartition(".")[0]
        return module in self._fit or module in self._unfit

    def _judge(self) -> None:
        """Say which modules are classifiers, and which only read what one would."""
        inside, name = self._inside, self._names["weight"].rpartition(".")[0]
        if len(inside) == len(_AFFINE):
            self._fit[name] = Head(inside["weight"], inside["bias"])
        classes = inside["weight"].shape[0] if "weight" in inside and inside["weight"].shape else 0
        readers = _readers(self._outside)
        for module, leaves in _by_module(self._outside).items():
            matrices = [t for t in leaves.values() if len(t.shape) == 2]  # noqa: PLR2004
            reads = {matrix.shape[1] for matrix in matrices}
            if not module or not reads & ({self._width, classes} - {0}):
                continue
            if _PRETRAINING.fullmatch(module.lower()):
                continue
            linear = leaves.keys() == set(_AFFINE) and len(matrices) == 1
            fits = linear and leaves["bias"].shape == leaves["weight"].shape[:1]
            # Another layer of the same parent may read what this one puts out.
            parent = module.rpartition(".")[0]
            if fits and self._width not in reads:
                self._unfit[module] = f"it reads the {classes} outputs of {name}"
            elif fits and not (parent and readers[parent, leaves["weight"].shape[0]] - {module}):
                self._fit[module] = Head(leaves["weight"], leaves["bias"])
            else:
                self._unfit[module] = "it is more than one linear layer, or has another form"

    def choose(self, found: Found) -> tuple[tuple[Decision] | tuple[()], dict[str, str]]:
        """Choose the head, and put it in its place among :attr:`tensors`.

        Returns:
            Which, and why, nothing where there is nothing to choose; the others, with the reason.

        Raises:
            InputError: If the user has to choose, or chose what is not there.
        """
        if found.options.head is None:
            self._require_clear(found.where)
            if not self._fit or (self._inside and len(self._fit) == 1):
                return (), {}  # a trunk, the network's own classifier, or half of one
        head, decision, left = choose_head(found, self._fit, self._unfit)
        for name in self._names.values():
            self.tensors.pop(name, None)
        if head is not None:
            self.tensors |= head.spelled(self._keymap)
        return (decision,), left

    def _require_clear(self, where: str) -> None:
        """Refuse what may stand between the trunk and its classifier, behind it, or be one."""
        unclear = list(self._unfit)
        if len(self._fit) == 1 or self._inside:
            # Where the head is in the network's own mapping, others are the trainer's.
            in_place = self._inside or _by_module(self._near).keys() & self._fit.keys()
            unclear += [
                name
                for name, tensor in (self._near if in_place else self._outside).items()
                if not self.knows(name)
                and (not _PRETRAINING.fullmatch(name.lower()) or self._width in tensor.shape[:1])
            ]
        if not unclear:
            return
        why = self._unfit.get(unclear[0])
        because = f" ({why})" if why else ""
        choice = f"--head {next(iter(self._fit))} or " if len(self._fit) == 1 else ""
        raise InputError(
            f"{where}: beside the network stands {first(unclear, most=_SHOWN)}{because}, which "
            f"may change what comes out of it; choose {choice}--head {NO_HEAD}, the trunk alone, "
            "if that is what you want."
        )


def _by_module(tensors: Mapping[str, StoredTensor]) -> dict[str, Tensors]:
    modules: dict[str, Tensors] = {}
    for name, tensor in tensors.items():
        module, _, leaf = name.rpartition(".")
        modules.setdefault(module, {})[leaf] = tensor
    return modules


def _readers(tensors: Mapping[str, StoredTensor]) -> Mapping[tuple[str, int], set[str]]:
    """Parent and size to the modules below it that read or keep so many features."""
    found: dict[tuple[str, int], set[str]] = defaultdict(set)
    for name, tensor in tensors.items():
        module = name.rpartition(".")[0]
        parent = module.rpartition(".")[0]
        for above in (parent, parent.rpartition(".")[0]):
            for size in tensor.shape[-2:]:
                found[above, size].add(module)
    return found
