"""The plan: every tensor of the source accounted for, every tensor of the target filled.

Two quirks compute weights. Some files hold them in parts (:mod:`converters.families.
reparametrised`). And VISSL's linear evaluation puts a batch norm between pooling and the
linear layer, and the reference has none there; but in evaluation a batch norm scales and shifts
each feature, which a linear layer can do itself: ``W (s x + t) + b = (W s) x + (W t + b)``.
"""

from __future__ import annotations

from dataclasses import dataclass
from difflib import get_close_matches
from typing import TYPE_CHECKING, Protocol

from converters.errors import InputError, first
from converters.families.reparametrised import Reparametrised
from regnet.architecture import Architecture
from regnet.files.dtypes import COUNTER_DTYPE, DEFAULT, DTYPES, ELEMENT_TYPES, repeated
from regnet.files.safetensors_file import TensorSpec
from regnet.wider import NORM_EPS

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import numpy as np
    from numpy.typing import NDArray

    from converters.checkpoint import StoredTensor
    from converters.families.source import Source
    from regnet.architecture import Slot
    from regnet.files.dtypes import DType

_COUNTS = frozenset(
    name for name in ELEMENT_TYPES if "complex" not in name and "float8" not in name
)
"""What a counter may be stored in: some trainers cast or average all that a network holds."""


class Computed(Protocol):
    """What computes a tensor of the target, in float64."""

    @property
    def action(self) -> str:
        """What is done, in words."""

    def apply(
        self, tensor: StoredTensor, read: Callable[[StoredTensor], NDArray[np.float64]]
    ) -> NDArray[np.float64]:
        """Compute the numbers of the target from ``tensor`` and others, which ``read`` returns."""


@dataclass(frozen=True, slots=True)
class Fold:
    """A batch norm and the weight of the linear layer behind it.

    Attributes:
        norm: ``weight``, ``bias``, ``running_mean`` and ``running_var``, each (features,).
        weight: (classes, features).
    """

    norm: Mapping[str, StoredTensor]
    weight: StoredTensor

    @property
    def action(self) -> str:
        """What a plan calls it."""
        return "fold batch norm"

    def apply(
        self, tensor: StoredTensor, read: Callable[[StoredTensor], NDArray[np.float64]]
    ) -> NDArray[np.float64]:
        """Compute the linear layer's weight or bias with the batch norm in it.

        Args:
            tensor: ``weight`` itself, or the bias (classes,).
            read: Returns a tensor's numbers in float64.

        Returns:
            Like ``tensor``, in float64, which is where all of it is computed.
        """
        import numpy as np

        norm = {leaf: read(stored) for leaf, stored in self.norm.items()}
        scale = norm["weight"] / np.sqrt(norm["running_var"] + NORM_EPS)
        weight = numbers_of(self.weight, read)
        if tensor is self.weight:
            return weight * scale
        shift = norm["bias"] - norm["running_mean"] * scale
        return numbers_of(tensor, read) + weight @ shift


def numbers_of(
    tensor: StoredTensor, read: Callable[[StoredTensor], NDArray[np.float64]]
) -> NDArray[np.float64]:
    """The numbers of a tensor in float64, computed if the file holds it in parts."""
    return tensor.apply(tensor, read) if isinstance(tensor, Reparametrised) else read(tensor)


@dataclass(frozen=True, slots=True)
class Step:
    """How one tensor of the target comes about.

    Attributes:
        target: What is written.
        source_name: The source's name for it; None if the source has none and it is filled.
        tensor: Where its bytes lie; None likewise.
        flip: Whether the input channels are reversed (BGR to RGB).
        cast: torch's name of the type that the numbers are cast to; None if they keep their own,
            and with it their bytes.
        fold: What computes the tensor; None if its numbers lie in the file.
        fill: What a tensor consists of that the source has none of.
    """

    target: TensorSpec
    source_name: str | None = None
    tensor: StoredTensor | None = None
    flip: bool = False
    cast: str | None = None
    fold: Computed | None = None
    fill: float = 0.0

    @property
    def filled(self) -> bytes:
        """The elements of a tensor that the source has none of."""
        return repeated(self.fill, self.target.nbytes, self.target.dtype)

    @property
    def action(self) -> str:
        """``copy``, ``flip channels``, ``cast``, ``make zeros``, ``fill``, or what is computed."""
        if self.tensor is None:
            return "fill" if self.fill else "make zeros"
        computed = [self.fold.action] if self.fold is not None else []
        actions = computed + ["flip channels"] * self.flip
        if self.cast is not None and not computed:
            actions.append("cast")
        return " and ".join(actions) or "copy"


@dataclass(frozen=True)
class Plan:
    """What a conversion writes.

    Attributes:
        steps: In the order of the target's state dict.
        skipped: What is left out of the source: name to reason.
        dtype: What the weights are stored in.
    """

    steps: tuple[Step, ...]
    skipped: Mapping[str, str]
    dtype: DType = DEFAULT

    @property
    def nbytes(self) -> int:
        """Size of the target's tensors in bytes."""
        return sum(step.target.nbytes for step in self.steps)

    @property
    def cast_from(self) -> list[str]:
        """The types, other than ``dtype``, that the source stores weights in."""
        of_weights = (step for step in self.steps if step.target.dtype != COUNTER_DTYPE)
        return sorted({step.tensor.dtype for step in of_weights if step.tensor} - {self.dtype})


def make_plan(source: Source, where: str, dtype: DType = DEFAULT) -> Plan:
    """Match the source's tensors with the target's, from headers alone.

    Args:
        source: The recognised checkpoint.
        where: What error messages call it.
        dtype: What to store the weights in.

    Raises:
        InputError: If a tensor has no place, none fills a place, or a shape or dtype does not fit.
    """
    slots = Architecture.of(source.config, classifier=source.has_classifier).slots
    names = {slot.name: source.keymap.spell(slot.role, slot.fields) for slot in slots}
    known = set(names.values())
    required = {names[slot.name] for slot in slots if not slot.is_counter}
    if not required - source.filled.keys() <= source.tensors.keys() <= known:
        raise InputError(_mismatch(source, where))
    steps = tuple(_step(source, slot, names[slot.name], dtype, where) for slot in slots)
    return Plan(steps, source.skipped, dtype)


def _step(source: Source, slot: Slot, name: str, dtype: DType, where: str) -> Step:
    target = TensorSpec(slot.name, COUNTER_DTYPE if slot.is_counter else dtype, slot.shape)
    if name not in source.tensors:
        return Step(target, fill=source.filled.get(name, 0.0))
    tensor = source.tensors[name]
    if tensor.shape != target.shape:
        raise InputError(
            f"{where}: {name} has shape {tensor.shape} where the rest of the network asks for "
            f"{target.shape}; the file is damaged or mixes two models."
        )
    if tensor.dtype not in (_COUNTS if slot.is_counter else DTYPES):
        raise InputError(
            f"{where}: {name} is stored as {tensor.dtype}; only float32, float64, float16 and "
            "bfloat16 weights convert (undo the quantisation first)."
        )
    fold: Computed | None = tensor if isinstance(tensor, Reparametrised) else None
    if slot.role == "classifier" and source.classifier_norm:
        weight = source.keymap.spell("classifier", {"affine": "weight"})
        fold = Fold(source.classifier_norm, source.tensors[weight])
    return Step(
        target=target,
        source_name=name,
        tensor=tensor,
        flip=_reads_image(slot) and source.flips_stem,
        cast=target.dtype if fold or tensor.dtype != target.dtype else None,
        fold=fold,
    )


def _reads_image(slot: Slot) -> bool:
    """Whether it is the kernel of the first convolution."""
    return slot.role == "stem.conv" or (slot.role == "stems.conv" and slot.fields["index"] == 0)


def _mismatch(source: Source, where: str) -> str:
    """One sentence with counts, the first few names, and what may be meant."""
    slots = Architecture.of(source.config).slots
    names = {slot.name: source.keymap.spell(slot.role, slot.fields) for slot in slots}
    classifier = {names[slot.name] for slot in slots if slot.role == "classifier"}
    # Of half a classifier the other half is missing; of none, none is.
    absent = set() if source.tensors.keys() & classifier else classifier
    known = [name for name in names.values() if name not in absent]
    missing = [
        names[slot.name]
        for slot in slots
        if not slot.is_counter
        and names[slot.name] in set(known) - source.tensors.keys() - source.filled.keys()
    ]
    unknown = [name for name in source.tensors if name not in known]
    parts = []
    if missing:
        parts.append(f"{len(missing)} missing ({first(missing)})")
    if unknown:
        guess = get_close_matches(unknown[0], missing, n=1)
        hint = f"; the first may be meant for {guess[0]}" if guess else ""
        parts.append(f"{len(unknown)} unknown ({first(unknown)}{hint})")
    return (
        f"{where} does not hold exactly the tensors of one {source.framework} RegNet: "
        f"{' and '.join(parts)}; give the complete model_state of an unmodified network."
    )
