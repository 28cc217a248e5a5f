"""Running a Core ML package by Apple's runtime, or, where there is none, evaluating its program."""

from __future__ import annotations

import platform
from typing import TYPE_CHECKING

import numpy as np

from converters.errors import require_extra
from converters.folder.interface import in_bytes
from converters.formats.coreml.formats import ELSEWHERE, LIBRARY, WEIGHTS, why_not_run
from converters.formats.coreml.program import CLASS_SCORES
from converters.formats.coreml.reading import read_package
from converters.formats.memory import require_memory
from converters.formats.reference import torch_name, torch_threads
from converters.formats.runtime import ArtefactRuntime
from regnet.architecture import PIXELS
from regnet.images import picture_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

_COPIES = 3
"""How many times the weights' size Core ML takes: mapped, compiled, and in passing."""


class _PackageRuntime(ArtefactRuntime):
    """What both ways have in common: the sizes and the precision that the program states."""

    def __init__(self, path: Path, output_names: Sequence[str], threads: int) -> None:
        self.package = read_package(path)
        batch, _, height, width = self.package.inputs[PIXELS].sizes
        self.sizes = (batch, height, width)
        self.takes_bytes = self.package.takes_images
        elements = {step.made.element for step in self.package.steps}
        self.precision = "float16" if "float16" in elements else "float32"
        self.threads = threads
        self._output_names = tuple(output_names)


class AppleRuntime(_PackageRuntime):
    """Runs a package on macOS, on the processor: other units compute in float16 where they can."""

    def __init__(self, path: Path, output_names: Sequence[str], threads: int = 1) -> None:
        version = require_extra(LIBRARY, "coreml")
        super().__init__(path, output_names, threads)
        require_memory(_COPIES * (path / WEIGHTS).stat().st_size)
        import coremltools

        self.name = f"Core ML of macOS {platform.mac_ver()[0]}, {LIBRARY} {version}"
        unit = coremltools.ComputeUnit.CPU_ONLY
        self._model = coremltools.models.MLModel(str(path), compute_units=unit)

    def __call__(self, pixel_values: NDArray[np.float32]) -> dict[str, NDArray[np.floating]]:
        """Compute every output; of what takes pictures the pixels are rounded to bytes."""
        if not self.takes_bytes:
            outputs = self._model.predict({PIXELS: pixel_values})
            return {name: np.asarray(outputs[name]) for name in self._output_names}
        (image,) = in_bytes(pixel_values).astype(np.uint8)
        outputs = self._model.predict({PIXELS: picture_of(image)})
        if classes := self.package.classes:
            scores = [[outputs[CLASS_SCORES][name] for name in classes]]
            return {name: np.array(scores, np.float32) for name in self._output_names}
        return {name: np.asarray(outputs[name]) for name in self._output_names}


class EvaluatedProgram(_PackageRuntime):
    """Evaluates the program of a package, which says nothing of Apple's runtime.

    Attributes:
        not_run: Why Apple's runtime did not run it.
    """

    def __init__(
        self, path: Path, output_names: Sequence[str], threads: int = 1, why: str = ELSEWHERE
    ) -> None:
        super().__init__(path, output_names, threads)
        self.name = f"evaluated by {torch_name()}"
        self.not_run = why

    def __call__(self, pixel_values: NDArray[np.float32]) -> dict[str, NDArray[np.floating]]:
        """Compute every output."""
        wanted = set(self._output_names)
        values = self.values(pixel_values)
        return {name: value for name, value in values if name in wanted}

    def values(
        self, pixel_values: NDArray[np.float32]
    ) -> Iterator[tuple[str, NDArray[np.floating]]]:
        """Name and value of each operation."""
        import torch

        from converters.formats.coreml.evaluate import evaluate

        with torch.inference_mode(), torch_threads(self.threads):
            for name, value in evaluate(self.package, {PIXELS: torch.tensor(pixel_values)}):
                yield name, value.to(torch.float32).numpy()


def open_coreml(path: Path, output_names: Sequence[str], threads: int = 1) -> ArtefactRuntime:
    """Open a package for Apple's runtime where that is, and else for evaluation."""
    if why := why_not_run():
        return EvaluatedProgram(path, output_names, threads, why)
    return AppleRuntime(path, output_names, threads)
