"""What a Core ML package holds: tensors that its program names and its file of weights holds.

The program of a package of today's revision is compared with what is written today, whole: its
inputs and outputs, each operation, classes and preprocessing. What differs is named by its
operation where it is one.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from converters.errors import printable
from converters.formats.coreml.formats import MANIFEST
from converters.formats.coreml.package import REVISION, manifest, specification
from converters.formats.coreml.reading import Place, read_model, read_package
from converters.formats.coreml.weights import places
from converters.formats.onnx.export import PRODUCER
from converters.formats.onnx.form import DEFAULT_FORM, FOLDED_BIAS, FOLDED_WEIGHT
from converters.formats.onnx.weights import folded_weights
from converters.parity.contents.held import Contents, HeldTensor
from converters.parity.contents.written import NOT_WRITTEN, metadata_faults
from regnet.architecture import PIXELS, Conv, folded

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from converters.folder.folder import ConvertedFolder
    from converters.formats.coreml.reading import Package, Step
    from converters.formats.onnx.form import GraphForm

_NORM = ".normalization."
"""In the names of tensors of norms, which all have one axis; some are held as (1, C, 1, 1)."""


def read_coreml(folder: ConvertedFolder, path: Path) -> Contents:
    """Read which tensors a package holds, and how its program differs from what is written.

    Raises:
        OSError: If a file of it cannot be opened.
        ValueError: If it is no package of one ML program.
    """
    package = read_package(path)
    names, form = dict(_names(folder)), _form_of(package)
    stated = package.metadata
    compared = (stated.get("producer"), stated.get("revision")) == (PRODUCER, REVISION)
    faults = list(_faults(folder, package)) if compared else []
    if compared and (path / MANIFEST).read_text(encoding="utf-8") != manifest(package.model):
        faults.append(f"its {MANIFEST} is {NOT_WRITTEN}")
    return Contents(
        tuple(
            _held(package, step, names.get(step.name, step.name))
            for step in package.steps
            if isinstance(step.constant, Place)
        ),
        faults=(*faults, *metadata_faults(folder, stated)),
        precision=form.precision,
        graph_compared=compared,
    )


def written_model(folder: ConvertedFolder, package: Package) -> Package:
    """What is written today for a folder, in the form that a package is in."""
    form = _form_of(package)
    weights = tuple(folded_weights(folder, form.precision))
    image_input = package.takes_images
    model = specification(folder, form, places(weights), image_input=image_input)
    return read_model(model, package.weights)


def _names(folder: ConvertedFolder) -> Iterator[tuple[str, str]]:
    """What a program calls each tensor that there may be, and its name here."""
    for operation in folded(folder.architecture.operations):
        names = [slot.name for slot in operation.slots]
        if isinstance(operation, Conv) and operation.norm:
            names = [operation.around + ending for ending in (FOLDED_WEIGHT, FOLDED_BIAS)]
        yield from ((name.replace(".", "_"), name) for name in names)


def _held(package: Package, step: Step, name: str) -> HeldTensor:
    sizes = tuple(size or 0 for size in step.made.sizes)
    if _NORM in name and sizes == (1, *sizes[1:2], 1, 1):
        sizes = sizes[1:2]
    try:
        element, data = package.elements(step)
    except ValueError as error:
        return HeldTensor(
            name, step.made.element, sizes, memoryview(b""), fault=f"is lost: {error}"
        )
    fault = None if element == step.made.element else f"is said to be {step.made.element}"
    return HeldTensor(name, element, sizes, data, fault)


def _form_of(package: Package) -> GraphForm:
    """The form that a package says it is in: its sizes, and the type of its values."""
    kind = package.inputs.get(PIXELS)
    sizes = kind.sizes if kind and len(kind.sizes) == 4 else (None,) * 4  # noqa: PLR2004 -- N, C, H, W
    is_half = any(step.made.element == "float16" for step in package.steps)
    return replace(
        DEFAULT_FORM,
        batch=sizes[0] or None,
        height=sizes[2] or None,
        width=sizes[3] or None,
        precision="float16" if is_half else "float32",
    )


def _faults(folder: ConvertedFolder, package: Package) -> Iterator[str]:
    """What of a model of today's revision is not what is written today."""
    written = written_model(folder, package)
    if written.model == package.model:
        return
    expected, found = _by_name(written), _by_name(package)
    differing = [name for name, step in expected.items() if found.get(name) != step]
    differing += [name for name in found if name not in expected]
    yield from (f"the operation {printable(name)} is {NOT_WRITTEN}" for name in differing)
    if not differing:
        yield f"its description, or the order of its operations, is {NOT_WRITTEN}"


def _by_name(package: Package) -> Mapping[str, bytes]:
    return {step.name: step.message for step in package.steps}
