"""The Core ML exporter: a package of the program, its weights and a list of both."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from hashlib import sha256
from typing import TYPE_CHECKING
from uuid import NAMESPACE_OID, uuid5

from converters.errors import InputError
from converters.formats.coreml.formats import MANIFEST, MODEL, WEIGHTS
from converters.formats.coreml.program import CLASS_LABEL, CLASS_SCORES, build_program
from converters.formats.coreml.weights import places, write_weights
from converters.formats.coreml.wire import entries, message, packed, repeated
from converters.formats.format import DEFAULTS
from converters.formats.onnx.export import PRODUCER, stated_metadata
from converters.formats.onnx.weights import folded_weights
from regnet.architecture import PIXELS

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from converters.folder.folder import ConvertedFolder
    from converters.formats.coreml.mil import Dims
    from converters.formats.coreml.wire import Field
    from converters.formats.format import ExportOptions
    from converters.formats.onnx.form import GraphForm

REVISION = "1"
"""Of the packages written here, kept in each. Raise it with every change of what is written for a
configuration: a package of another revision is not held to those of this one."""

SPECIFICATION = 6
"""Of Core ML's format: that of iOS 15 and macOS 12, whose operations the program takes."""

LARGEST_BATCH = 64
LARGEST_SIDE = 2048
"""Up to how many images, and pixels of a side, sizes are open: ML programs must have bounds."""

_ARRAY_TYPES = {"float32": 65568, "float16": 65552}
"""Core ML's numbers of element types of inputs and outputs."""

_COLOURS = {1: 10, 3: 20}
"""Its numbers of greyscale and RGB, by channels."""

_AUTHOR = "com.apple.CoreML"
_FORMAT_VERSION = "1.0.0"


def export_coreml(folder: ConvertedFolder, path: Path, options: ExportOptions = DEFAULTS) -> None:
    """Write the folder's network as a Core ML package, a folder; two exports give the same bytes.

    The program takes ``pixel_values`` (batch, num_channels, height, width) and gives the outputs of
    :func:`converters.formats.onnx.graph.build_graph`, in float32. Its sizes are fixed to one image
    as large as the processor makes it unless ``form`` fixes others. What it leaves open, as all is
    with ``open_sizes``, goes up to :data:`LARGEST_BATCH` images of :data:`LARGEST_SIDE` pixels.
    """
    form = form_of(folder, options)
    weights = tuple(folded_weights(folder, form.precision))
    for place in (MODEL, WEIGHTS):
        (path / place).parent.mkdir(parents=True, exist_ok=True)
    write_weights(path / WEIGHTS, weights)
    model = specification(folder, form, places(weights), image_input=options.image_input)
    (path / MODEL).write_bytes(model)
    (path / MANIFEST).write_text(manifest(model), encoding="utf-8", newline="\n")


def export_float16(folder: ConvertedFolder, path: Path, options: ExportOptions) -> None:
    """Write the folder's network as Core ML in float16; see :func:`export_coreml`.

    It takes and gives float32.

    Raises:
        InputError: Also if float16 cannot hold its weights.
    """
    form = options.form.in_float16(io=False)
    export_coreml(folder, path, replace(options, form=form))


def form_of(folder: ConvertedFolder, options: ExportOptions) -> GraphForm:
    """The sizes that are written: those asked for, else one image of the network's own size.

    Raises:
        InputError: If pictures are to be taken, and others than one of one size.
    """
    if options.open_sizes or options.form.fixed:
        fixed = (options.form.batch, options.form.height, options.form.width)
        if options.image_input and (None in fixed or options.form.batch != 1):
            raise InputError(
                "--image-input takes one picture of one size; leave out --dynamic, and let --shape "
                "begin with 1."
            )
        return options.form
    side = folder.image_size
    return replace(options.form, batch=1, height=side, width=side)


def specification(
    folder: ConvertedFolder,
    form: GraphForm,
    offsets: Mapping[str, int],
    *,
    image_input: bool = False,
) -> bytes:
    """The package's ``model.mlmodel``: what the model takes and gives, and its program.

    Args:
        folder: Whose network.
        form: Sizes and precision.
        offsets: Where in the file of the weights each tensor is described, by its name in ONNX.
        image_input: Whether it takes a picture, of which the program has the bytes, and names
            classes where it has probabilities.

    Raises:
        InputError: If the network cannot be said in Core ML's words.
    """
    pixels = (form.batch, folder.config.num_channels, form.height, form.width)
    classes = class_names(folder) if image_input and folder.interface.softmax else ()
    program = build_program(
        folder.architecture, folder.output_names, pixels, form, offsets, classes
    )
    taken = _picture(folder, pixels) if image_input else (5, _input(folder, pixels, form))
    given = [
        _feature(name, (5, _array(form.io_precision, sizes)))
        for name, sizes in program.outputs.items()
    ]
    named: list[Field] = []
    if classes:
        dictionary = message((2, b""))  # whose keys are texts
        given = [_feature(CLASS_LABEL, (3, b"")), _feature(CLASS_SCORES, (6, dictionary))]
        named = [(11, CLASS_LABEL), (12, CLASS_SCORES)]
    description = message(
        (1, _feature(PIXELS, taken)), *repeated(10, given), *named, (100, _metadata(folder, form))
    )
    return message((1, SPECIFICATION), (2, description), (502, program.content))


def class_names(folder: ConvertedFolder) -> tuple[str, ...]:
    """What classes are called where no two may be called alike: their number follows such names."""
    names = [name for _, name in sorted(folder.config.id2label.items())]
    numbered = [f"{name} ({index})" for index, name in enumerate(names)]
    often = Counter(names)
    told = [own if often[name] > 1 else name for name, own in zip(names, numbered, strict=True)]
    return tuple(told if len({*told}) == len(told) else numbered)


def manifest(model: bytes) -> str:
    """The package's ``Manifest.json``.

    Its identifiers, which Apple's tools draw, follow from the digest of ``model``.
    """
    digest = sha256(model).hexdigest()
    described = {
        MODEL: "CoreML Model Specification",
        WEIGHTS.rpartition("/")[0]: "CoreML Model Weights",
    }
    items = {
        str(uuid5(NAMESPACE_OID, f"{digest} {place}")): {
            "author": _AUTHOR,
            "description": description,
            "name": place.rpartition("/")[2],
            "path": place.partition("/")[2],
        }
        for place, description in described.items()
    }
    text = {
        "fileFormatVersion": _FORMAT_VERSION,
        "itemInfoEntries": items,
        "rootModelIdentifier": next(iter(items)),
    }
    return json.dumps(text, indent=4) + "\n"


def _feature(name: str, kind: Field) -> bytes:
    """An input or output: ``FeatureDescription``, with the field of its type."""
    return message((1, name), (3, message(kind)))


def _picture(folder: ConvertedFolder, pixels: Dims) -> Field:
    """``ImageFeatureType``."""
    _, channels, height, width = pixels
    if channels not in _COLOURS:
        raise InputError(
            f"{folder.path} takes {channels} channels, which no picture of Core ML has; leave out "
            "--image-input."
        )
    return 4, message((1, width or 0), (2, height or 0), (3, _COLOURS[channels]))


def _array(element: str, sizes: Dims, *more: Field) -> bytes:
    """``ArrayFeatureType``; sizes that are not all known are left out."""
    known = [size for size in sizes if size is not None]
    shape: list[Field] = [(1, packed(known))] if len(known) == len(sizes) else []
    return message(*shape, (2, _ARRAY_TYPES[element]), *more)


def _input(folder: ConvertedFolder, pixels: Dims, form: GraphForm) -> bytes:
    """The same of the input: where sizes are open, with their bounds, and what is usual."""
    if None not in pixels:
        return _array(form.io_precision, pixels)
    side = folder.image_size
    channels = folder.config.num_channels
    usual = (1, channels, side, side)
    largest = (LARGEST_BATCH, channels, *[max(LARGEST_SIDE, side)] * 2)
    bounds = (
        message((1, size or 1), (2, size or most))
        for size, most in zip(pixels, largest, strict=True)
    )
    shape = tuple(size or common for size, common in zip(pixels, usual, strict=True))
    return _array(form.io_precision, shape, (31, message(*repeated(1, bounds))))


def _metadata(folder: ConvertedFolder, form: GraphForm) -> bytes:
    """``Metadata``: what it is for people, and what programs can use."""
    stated = stated_metadata(folder, form)
    description = stated.pop("description")
    own = {**stated, "producer": PRODUCER, "revision": REVISION}
    return message((1, description), *entries(100, own))
