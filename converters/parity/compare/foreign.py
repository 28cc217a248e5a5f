"""What runtimes of anybody's artefacts share.

Ours have a runtime of their own (`converters.formats`), which knows their names. Those of other
tools have one image input of any name, perhaps of a fixed size, and return logits, or what
`RegNetModel` returns.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from converters.errors import InputError
from regnet.config import TRUNK_OUTPUTS

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from typing import Any

    import numpy as np
    from numpy.typing import NDArray

    from converters.parity.metrics import Outputs

    Layout = tuple[int | None, int | None, int | None, int | None]

IMAGE_AXES = 4


class Foreign(Protocol):
    """Runs an artefact whose names are not known beforehand.

    Attributes:
        name: Runtime and version.
        precision: What it computes in.
        layout: The axes of its input (N, C, H, W) that are fixed.
        producer: What says that it wrote the file; empty if nothing does.
        metadata: What it states of itself, by key.
        evaluator: What computes it in float64, in words.
        noise: What its own error in float32 is called.
    """

    name: str
    precision: str
    layout: Layout
    producer: str
    metadata: dict[str, str]
    evaluator: str
    noise: str

    def __call__(self, pixel_values: NDArray[np.float32]) -> Outputs:
        """Compute the outputs by the reference model's names.

        Args:
            pixel_values: (N, C, H, W), normalised.

        Returns:
            ``logits``, (N, classes), or ``last_hidden_state``, (N, width, H', W'), and
            ``pooler_output``, (N, width, 1, 1), in the artefact's precision.

        Raises:
            InputError: If it does not take them.
        """
        ...

    def in_another_order(self, pixel_values: NDArray[np.float32]) -> Outputs:
        """The same outputs with the same sums arranged in another way, which rounds otherwise."""
        ...

    def in_float64(self, pixel_values: NDArray[np.float32]) -> Outputs:
        """The same outputs with every float a float64; they are float64 too.

        Raises:
            InputError: If it does not run so.
        """
        ...

    def tensors(self) -> dict[str, NDArray[Any]]:
        """What it holds, by its own names, in the shapes and dtypes that it holds it in."""
        ...


def named(where: str, outputs: Mapping[str, NDArray[np.floating]]) -> Outputs:
    """The outputs by the names that the reference model has for them.

    Args:
        where: What a message calls the artefact.
        outputs: By the artefact's own names, in order, of any shapes.

    Raises:
        InputError: If they are neither logits nor what a trunk returns.
    """
    if set(TRUNK_OUTPUTS) <= outputs.keys():
        return {name: outputs[name] for name in TRUNK_OUTPUTS}
    logits = [array for array in outputs.values() if array.ndim == 2]  # noqa: PLR2004 -- (N, classes)
    if len(logits) != 1:
        shapes = ", ".join(f"{name} {list(array.shape)}" for name, array in outputs.items())
        raise InputError(
            f"{where} returns {shapes or 'nothing'}, among which there is not one (N, classes); "
            "compare networks that return logits."
        )
    return {"logits": logits[0]}


def by(shape: Iterable[int]) -> str:
    """A shape in words."""
    return " x ".join(map(str, shape))
