"""What the models return: objects that are also mappings and tuples, as transformers' are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor


class _Output(Mapping[str, Any]):
    """A mapping of the fields that are not None, in order, that is also indexed by position."""

    def to_tuple(self) -> tuple[Any, ...]:
        """The values that are not None, in order."""
        return tuple(self.values())

    def __getitem__(self, key: str | int | slice) -> Any:
        if isinstance(key, str):
            if key not in tuple(self):
                raise KeyError(key)
            return getattr(self, key)
        return self.to_tuple()[key]

    def __contains__(self, key: object) -> bool:
        return key in tuple(self)

    def __iter__(self) -> Iterator[str]:
        names = (field.name for field in fields(self))  # type: ignore[arg-type]
        return (name for name in names if getattr(self, name) is not None)

    def __len__(self) -> int:
        return sum(1 for _ in self)


@dataclass(eq=False, kw_only=True)
class ModelOutput(_Output):
    """What :class:`RegNetModel` returns.

    Attributes:
        last_hidden_state: (N, C, H/32, W/32), the last stage's output.
        pooler_output: (N, C, 1, 1), its mean over height and width.
        hidden_states: The stem's output, then each stage's; None unless asked for.
    """

    last_hidden_state: Tensor
    pooler_output: Tensor
    hidden_states: tuple[Tensor, ...] | None = None


@dataclass(eq=False, kw_only=True)
class ClassifierOutput(_Output):
    """What :class:`RegNetForImageClassification` returns.

    Attributes:
        loss: Scalar; None without labels.
        logits: (N, num_labels), before softmax.
        hidden_states: The stem's output, then each stage's; None unless asked for.
    """

    loss: Tensor | None = None
    logits: Tensor
    hidden_states: tuple[Tensor, ...] | None = None
