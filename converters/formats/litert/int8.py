"""The int8 LiteRT exporter: ONNX's grids and its choice of layers, in LiteRT's integers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from converters.formats.litert.export import graph_of, held_weights, write
from converters.formats.litert.int8_graph import quantised
from converters.formats.onnx.quantised import QUANTISATION_KEY, QuantisedNetwork

if TYPE_CHECKING:
    from pathlib import Path

    from converters.folder.folder import ConvertedFolder
    from converters.formats.format import ExportOptions


def export_int8(folder: ConvertedFolder, path: Path, options: ExportOptions) -> None:
    """Write the folder's network for LiteRT in int8; two exports on a machine give the same bytes.

    Input and outputs are float32. What it is calibrated on says
    :func:`converters.formats.onnx.calibration.calibration_images`.

    Raises:
        InputError: Also if there are no images, or int8 does not do for this network.
    """
    network = QuantisedNetwork(folder, options, instead="litert-fp16")
    quantisation = network.fewest_in_float()
    chosen = network.plan(quantisation.float_layers).computed
    graph, integers = quantised(graph_of(folder), chosen, network.grids, network.weights)
    weights = held_weights(folder) | integers
    write(folder, path, graph, weights, {QUANTISATION_KEY: quantisation.text})
