"""What artefacts are measured against: the oracle, and the unit of error."""

from __future__ import annotations

from functools import cached_property
from threading import RLock
from typing import TYPE_CHECKING, Any

from converters.folder.inputs import EXTREMES, NATURAL, fitted, fitted_batches
from converters.folder.interface import in_bytes, unnormalised
from converters.formats.beside import ALONE, stop_if_told
from converters.formats.onnx.form import INT8, SYMMETRIC_INT8
from converters.formats.runtime_apart import RuntimeApart

if TYPE_CHECKING:
    from collections.abc import Sequence

    from converters.folder.folder import ConvertedFolder
    from converters.folder.interface import Interface
    from converters.formats.beside import Beside, Work
    from converters.formats.runtime import Runtime
    from converters.parity.metrics import Batches, Inputs, Outputs, Units
    from converters.parity.units import Drawn

FLOAT32 = "float32"
FLOAT16 = "float16"

_COMPUTED = "converters.parity.computed"


class Truth:
    """The oracle's outputs on some inputs, and the unit of each precision there; computed once.

    Args:
        folder: Whose network it is.
        inputs: Batch to pixels, (N, num_channels, H, W), as the folder's interface takes them.
        beside: What may compute.

    Attributes:
        inputs: As given.
        beside: Likewise.
    """

    def __init__(self, folder: ConvertedFolder, inputs: Inputs, beside: Beside = ALONE) -> None:
        self._folder = folder
        self.inputs = inputs
        self.beside = beside
        self._oracle: Work[Batches] = beside.later(self._computed, "oracle")
        self._eager: Work[Batches] = beside.later(self._computed, "eager")
        self._drawn: Work[Drawn] = beside.later(self._computed, "drawn_in_float32")
        self._lock = RLock()
        self._fitted: dict[tuple[int | None, ...], Truth] = {}
        self._offering: dict[Interface, Truth] = {}
        self._units: dict[str, Units] = {}

    def begin(self) -> None:
        """Compute what the verdict on weights needs, beside other work."""
        for work in (self._oracle, self._drawn, self._eager):
            work.begin()

    @property
    def runtime(self) -> str:
        """What float32 PyTorch calls itself."""
        name: str = self.beside.with_torch("converters.formats.reference:torch_name")
        return name

    @property
    def oracle(self) -> Batches:
        """Outputs in float64: batch to output name to array."""
        return self._oracle()

    @property
    def eager(self) -> Batches:
        """Outputs of float32 PyTorch: batch to output name to array."""
        return self._eager()

    def inputs_for(self, precision: str = FLOAT32) -> Inputs:
        """The batches that an artefact of a precision is judged on.

        In float16 not the extremes, which it cannot hold. In int8 only those that look like
        photographs: its ranges are set for them, and to clip what lies outside is what it is meant
        to do.
        """
        if precision == FLOAT16:
            return {name: pixels for name, pixels in self.inputs.items() if name != EXTREMES}
        if precision in {INT8, SYMMETRIC_INT8}:
            return {name: pixels for name, pixels in self.inputs.items() if name in NATURAL}
        return self.inputs

    def fitted(self, sizes: Sequence[int | None]) -> Truth:
        """The truth for an artefact that fixes sizes of its input.

        Args:
            sizes: Batch, height and width; None is open.

        Returns:
            Itself, if all batches have these sizes; else one on those of `fitted_batches`.
        """
        if all(fitted(pixels, sizes) is pixels for pixels in self.inputs.values()):
            return self
        key = tuple(sizes)
        with self._lock:
            if key not in self._fitted:
                self._fitted[key] = Truth(
                    self._folder, fitted_batches(self.inputs, sizes), self.beside
                )
            return self._fitted[key]

    def offering(self, folder: ConvertedFolder) -> Truth:
        """The truth for an artefact that takes or gives something else.

        Probabilities are not judged on the extremes: of images a million times brighter than
        photographs one class has all of it, whatever the others are.

        Args:
            folder: The same, with the interface of that.
        """
        if folder.interface == self._folder.interface:
            return self
        with self._lock:
            if folder.interface not in self._offering:
                statistics = folder.statistics
                inputs = {
                    name: unnormalised(pixels, statistics)
                    for name, pixels in self.inputs.items()
                    if not (folder.interface.softmax and name == EXTREMES)
                }
                self._offering[folder.interface] = Truth(folder, inputs, self.beside)
            return self._offering[folder.interface]

    @cached_property
    def in_bytes(self) -> Truth:
        """The truth for an artefact that takes pictures, on the same pixels rounded to bytes."""
        inputs = {name: in_bytes(own) for name, own in self.inputs.items()}
        return Truth(self._folder, inputs, self.beside)

    def units(self, precision: str = FLOAT32) -> Units:
        """What an honest computation in a precision gets wrong.

        In float32 that is the network with the error of a rounding drawn behind every operation
        (`converters.parity.injection`). In float16, bfloat16 and int8 it is the network with
        everything rounded that such an artefact has to round (`converters.parity.rounding`).

        Args:
            precision: As a runtime names it.

        Raises:
            InputError: If nothing is known of the precision.
        """
        from converters.parity.units import float32_units

        oracle = self.oracle
        with self._lock:
            if precision not in self._units:
                inputs = self.inputs_for(precision)
                self._units[precision] = (
                    float32_units(self._drawn(), oracle)
                    if precision == FLOAT32
                    else self.beside.with_torch(
                        f"{_COMPUTED}:reduced_units", self._folder, inputs, oracle, precision
                    )
                )
            return self._units[precision]

    def _computed(self, function: str) -> Any:
        return self.beside.with_torch(f"{_COMPUTED}:{function}", self._folder, self.inputs)


def run(runtime: Runtime, inputs: Inputs) -> dict[str, Outputs]:
    """Every batch, (N, C, H, W), through a runtime; its outputs by batch and name."""
    if isinstance(runtime, RuntimeApart):
        return runtime.run(inputs)
    outputs = {}
    for batch, pixels in inputs.items():
        stop_if_told()
        outputs[batch] = runtime(pixels)
    return outputs
