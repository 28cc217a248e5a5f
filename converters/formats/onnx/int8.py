"""The int8 ONNX exporter: static quantisation, calibrated on images, checked on them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from onnx import ModelProto, StringStringEntryProto

from converters.checkpoint.onnx_places import open_onnx
from converters.formats.onnx.file import OnnxFile
from converters.formats.onnx.form import INT8, PRECISION_KEY, SIZES_KEY, SYMMETRIC_INT8
from converters.formats.onnx.quantised import QUANTISATION_KEY, Quantisation, QuantisedNetwork

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from converters.folder.folder import ConvertedFolder
    from converters.formats.format import ExportOptions


def export_int8(
    folder: ConvertedFolder,
    path: Path,
    options: ExportOptions,
    more: Mapping[str, str] | None = None,
) -> None:
    """Write the folder's network as ONNX in int8; two exports on a machine give the same bytes.

    ``more`` is what else its metadata states.

    Input and outputs are float32. What it is calibrated on says
    :func:`converters.formats.onnx.calibration.calibration_images`.

    Raises:
        InputError: Also if there are no images, or int8 does not do for this network.
    """
    form = options.form
    network = QuantisedNetwork(folder, options)
    quantisation = network.fewest_in_float()
    model = network.in_int8(quantisation.float_layers, form)
    precision = SYMMETRIC_INT8 if options.symmetric else INT8
    stated = {PRECISION_KEY: precision, QUANTISATION_KEY: quantisation.text, **(more or {})}
    if form.fixed:
        stated[SIZES_KEY] = json.dumps(form.fixed, sort_keys=True)
    model.metadata_props.extend(
        StringStringEntryProto(key=key, value=value) for key, value in stated.items()
    )
    graph = model.graph
    model.ClearField("graph")
    OnnxFile(model, graph).write(path)


def details(path: Path) -> dict[str, Any]:
    """What is recorded of an int8 file beside its digest: what it states, as values for JSON."""
    return stated_quantisation(open_onnx(path)).details


def stated_quantisation(model: ModelProto) -> Quantisation:
    """Read from a file's metadata how it was quantised.

    Raises:
        ValueError: If that says nothing, or it is damaged.
    """
    return Quantisation.stated({entry.key: entry.value for entry in model.metadata_props})
