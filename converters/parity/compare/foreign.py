"""Anybody's artefact, opened and run in a process of its own.

Ours have a runtime of their own (`converters.formats`), which knows their names. Those of other
tools have one image input of any name, perhaps of a fixed size, and return logits, or what
`RegNetModel` returns.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from converters.errors import ConversionError, InputError, in_words, printable
from converters.formats.confined import Allowance, ConfinedProgram, ProgramError
from converters.formats.runtime import Runtime
from regnet.config import TRUNK_OUTPUTS

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from pathlib import Path
    from typing import Any

    import numpy as np
    from numpy.typing import NDArray

    from converters.parity.metrics import Outputs

    Layout = tuple[int | None, int | None, int | None, int | None]

ONNX, TORCHSCRIPT = "onnx", "torchscript"
"""Kinds of files that anybody may have written, told apart by their first bytes."""

_OPENED_BY = {
    ONNX: "converters.parity.compare.foreign_onnx:ForeignOnnx",
    TORCHSCRIPT: "converters.parity.compare.foreign_torchscript:ForeignTorchScript",
}
_STATED = ("name", "precision", "layout", "producer", "metadata", "evaluator", "noise")

IMAGE_AXES = 4


class ConfinedForeign(Runtime):
    """Runs an artefact whose names are not known beforehand, where it cannot harm anybody.

    One of `ForeignOnnx` and `ForeignTorchScript` stands in the other process, and has the same
    methods and attributes.

    Args:
        kind: ``onnx`` or ``torchscript``.
        path: The file.

    Attributes:
        layout: The axes of its input (N, C, H, W) that are fixed.
        producer: What says that it wrote the file; empty if nothing does.
        metadata: What it states of itself, by key.
        evaluator: What computes it in float64, in words.
        noise: What its own error in float32 is called.

    Raises:
        InputError: If it cannot be opened, there or within bounds of time and memory.
        UnsafeInputError: If programs may read it in several ways, or its weights lie elsewhere.
    """

    def __init__(self, kind: str, path: Path) -> None:
        self._path = path
        with self._in_words():
            self._program = ConfinedProgram(
                _OPENED_BY[kind], (str(path),), _STATED, Allowance.of(_files(path))
            )
        stated = self._program.attributes
        self.name = printable(str(stated["name"]))
        self.precision = printable(str(stated["precision"]))
        self.layout: Layout = tuple(stated["layout"])
        self.producer = str(stated["producer"])
        self.metadata = {str(key): str(value) for key, value in stated["metadata"].items()}
        self.evaluator = str(stated["evaluator"])
        self.noise = str(stated["noise"])

    def __call__(self, pixel_values: NDArray[np.float32]) -> Outputs:
        """Compute the outputs by the reference model's names, on one thread.

        Args:
            pixel_values: (N, C, H, W), normalised.

        Returns:
            ``logits``, (N, classes), or ``last_hidden_state``, (N, width, H', W'), and
            ``pooler_output``, (N, width, 1, 1), in the artefact's precision.

        Raises:
            InputError: If it does not take them; also from the other methods.
        """
        return self._ask("__call__", pixel_values)

    def in_another_order(self, pixel_values: NDArray[np.float32]) -> Outputs:
        """The same outputs with the same sums arranged in another way, which rounds otherwise."""
        return self._ask("in_another_order", pixel_values)

    def in_float64(self, pixel_values: NDArray[np.float32]) -> Outputs:
        """The same outputs with every float a float64; they are float64 too."""
        return self._ask("in_float64", pixel_values)

    def tensors(self) -> dict[str, NDArray[Any]]:
        """What it holds, by its own names, in the shapes and dtypes that it holds it in."""
        return self._ask("tensors")

    def _ask(self, method: str, *arrays: NDArray[Any]) -> dict[str, NDArray[Any]]:
        with self._in_words():
            return self._program.call(method, *arrays)

    @contextmanager
    def _in_words(self) -> Iterator[None]:
        try:
            yield
        except ProgramError as error:
            raise InputError(
                f"{self._path.name} cannot be run ({error}); compare networks that classify images."
            ) from error


def _files(path: Path) -> list[Path]:
    """The artefact and what may belong to it: an ONNX file has its weights beside it."""
    beside = (*path.parent.glob("*.safetensors"), *path.parent.glob("*data"))
    return [path, *(file for file in beside if file.is_file())]


@contextmanager
def in_a_sentence(path: Path, what: str, remedy: str) -> Iterator[None]:
    """Tell what a runtime raises in one sentence; what is one already stays.

    Args:
        path: The artefact.
        what: What cannot be done with it, as words that follow "cannot be".
        remedy: What to do instead.

    Raises:
        InputError: With the runtime's own words in it.
    """
    try:
        yield
    except ConversionError:
        raise
    except Exception as error:
        reason = in_words(error, path)
        raise InputError(f"{path.name} cannot be {what} ({reason}); {remedy}.") from error


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
