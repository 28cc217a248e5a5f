"""Every value inside OpenVINO's files: a copy of the program in memory with all as outputs.

Nodes are called like those of the ONNX that the program was made of. The processor's plugin fuses
what it can around the values that it has to give.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from converters.errors import InputError, in_words, require_extra
from converters.parity.locate.intermediates import Intermediates
from converters.parity.locate.walk import Output, values_of

if TYPE_CHECKING:
    from collections.abc import Container
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    from converters.folder.folder import ConvertedFolder

_CONVOLUTION = ".convolution"
_EXACT = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1}


def run_openvino(folder: ConvertedFolder, path: Path, pixels: NDArray[np.float32]) -> Intermediates:
    """Run OpenVINO's files and keep the value of every operation.

    Arguments are those of `run_with_intermediates`. What a node says to do otherwise than it should
    is not looked for.

    Raises:
        InputError: If this project's exporter did not write it.
    """
    require_extra("openvino", "openvino")
    import openvino

    core = openvino.Core()
    model = core.read_model(path)
    made = values_of(folder, folded=True)
    modules = {operation.name for operation in made}
    nodes = {_module(node.get_friendly_name(), modules): node for node in model.get_ordered_ops()}
    if 2 * len(nodes.keys() & modules) < len(modules):
        raise InputError(
            f"{path.name} calls its nodes otherwise than this project's exporter, so that none can "
            "be told; export it with `regnet export`."
        )
    shown = [name for name in nodes if name in modules and name not in folder.output_names]
    try:
        model.add_outputs([nodes[name].output(0) for name in shown])
        arrays = core.compile_model(model, "CPU", _EXACT)(pixels).to_tuple()
    except Exception as error:  # noqa: BLE001 -- whatever the library raises
        return Intermediates({}, folded=True, differences={}, failure=in_words(error))
    values = dict(zip((*folder.output_names, *shown), arrays, strict=True))
    for operation in made:  # what is given is called like the output alone
        if isinstance(operation, Output):
            values.setdefault(operation.inputs[0], values[operation.name])
    return Intermediates(values, folded=True, differences={})


def _module(node: str, modules: Container[str]) -> str:
    """The module around a convolution that has taken in its batch norm, else the node's own."""
    return node if node in modules else node.removesuffix(_CONVOLUTION)
