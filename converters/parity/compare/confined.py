"""Anybody's artefact, opened and run in a process of its own."""

from __future__ import annotations

from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from converters.errors import InputError, printable
from converters.formats.confined import Allowance, ConfinedProgram, ProgramError
from converters.parity.compare.foreign_onnx import ForeignOnnx
from converters.parity.compare.foreign_torchscript import ForeignTorchScript

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy as np
    from numpy.typing import NDArray

    from converters.parity.compare.foreign import Foreign, Layout
    from converters.parity.metrics import Outputs

ONNX, TORCHSCRIPT = "onnx", "torchscript"
"""Kinds of files that anybody may have written, told apart by their first bytes."""

_OPENED_BY: dict[str, type[ForeignOnnx | ForeignTorchScript]] = {
    ONNX: ForeignOnnx,
    TORCHSCRIPT: ForeignTorchScript,
}
_STATED = ("name", "precision", "layout", "producer", "metadata", "evaluator", "noise")


class ConfinedForeign:
    """A `Foreign` whose program cannot harm whoever compares it; its attributes are a `Foreign`'s.

    Args:
        kind: ``onnx`` or ``torchscript``.
        path: The file.

    Raises:
        InputError: If it cannot be opened, there or within bounds of time and memory.
    """

    def __init__(self, kind: str, path: Path) -> None:
        self._path = path
        with self._in_words():
            self._program = ConfinedProgram(
                f"{__name__}:opened", (kind, str(path)), _STATED, Allowance.of(_files(path))
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
        """Compute the outputs by the reference model's names; see `Foreign`."""
        return self._ask("__call__", pixel_values)

    def in_another_order(self, pixel_values: NDArray[np.float32]) -> Outputs:
        """The same with the same sums arranged in another way; see `Foreign`."""
        return self._ask("in_another_order", pixel_values)

    def in_float64(self, pixel_values: NDArray[np.float32]) -> Outputs:
        """The same with every float a float64; see `Foreign`."""
        return self._ask("in_float64", pixel_values)

    def tensors(self) -> dict[str, NDArray[Any]]:
        """What it holds, by its own names."""
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


def opened(kind: str, path: str) -> Foreign:
    """What the process of a `ConfinedForeign` opens."""
    return _OPENED_BY[kind](Path(path))


def _files(path: Path) -> list[Path]:
    """The artefact and what may belong to it: an ONNX file has its weights beside it."""
    beside = (*path.parent.glob("*.safetensors"), *path.parent.glob("*data"))
    return [path, *(file for file in beside if file.is_file())]
