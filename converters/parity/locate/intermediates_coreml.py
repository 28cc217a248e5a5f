"""Every value inside a Core ML package, as its program is evaluated."""

from __future__ import annotations

from typing import TYPE_CHECKING

from converters.errors import InputError, in_words
from converters.folder.inputs import fitted
from converters.formats.coreml.runtime import EvaluatedProgram
from converters.parity.contents.coreml import written_model
from converters.parity.locate.intermediates import Intermediates
from converters.parity.locate.walk import values_of
from regnet.architecture import PIXELS, folded

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    from converters.folder.folder import ConvertedFolder
    from converters.formats.coreml.reading import Package, Step


def run_coreml(folder: ConvertedFolder, path: Path, pixels: NDArray[np.float32]) -> Intermediates:
    """Evaluate a package and keep the value of every operation, on pixels of the sizes it fixes.

    Arguments are those of `run_with_intermediates`.

    Raises:
        InputError: If this project's exporter did not write it.
    """
    program = EvaluatedProgram(path, folder.output_names)
    modules = _modules(folder)
    steps = {step.name for step in program.package.steps}
    if 2 * len(steps & modules.keys()) < len(modules):
        raise InputError(
            f"{path.name} calls its operations otherwise than this project's exporter, so that "
            "none can be told; export it with `regnet export`."
        )
    differences = dict(_differences(folder, program.package, modules))
    pixels = fitted(pixels, program.sizes)
    values = {PIXELS: pixels}
    try:
        for step, value in program.values(pixels):
            values |= dict.fromkeys([modules.get(step, step), step], value)
    except Exception as error:  # noqa: BLE001 -- what a damaged program leads to has any class
        return Intermediates({}, True, differences, failure=in_words(error))
    return Intermediates(values, True, differences, precision=program.precision)


def _modules(folder: ConvertedFolder) -> dict[str, str]:
    """What a program calls the value of each module, and the module."""
    made = folded(folder.architecture.operations)
    values = values_of(folder, folded=True)
    return {
        operation.output.replace(".", "_"): value.name
        for operation, value in zip(made, values, strict=False)  # behind which come the outputs
    }


def _differences(
    folder: ConvertedFolder, package: Package, modules: Mapping[str, str]
) -> Iterator[tuple[str, str]]:
    """What operations say otherwise than the exporter's, by the module they take part in."""
    found = {step.name: step for step in package.steps}
    for expected in reversed(written_model(folder, package).steps):  # of a value's parts the first
        if difference := _difference(found.get(expected.name), expected):
            owners = [name for name in modules if expected.name.startswith(name)]
            if owners:
                yield modules[max(owners, key=len)], difference


def _difference(found: Step | None, expected: Step) -> str | None:
    if found is None:
        return f"its operation {expected.name} is missing"
    if found.kind != expected.kind:
        return f"its operation is {found.kind} where {expected.kind} belongs"
    if found.constant != expected.constant:
        return f"its {expected.name} is {found.constant} where {expected.constant} belongs"
    if found.reads != expected.reads:
        read, due = (", ".join(step.reads.values()) for step in (found, expected))
        return f"it reads {read} where {due} belongs"
    if found.made != expected.made:
        return f"it makes {found.made} where {expected.made} belongs"
    return None
