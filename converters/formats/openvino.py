"""OpenVINO's own format: ``openvino_model.xml`` and the weights in ``openvino_model.bin``."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from converters.errors import require_extra
from converters.formats.onnx.export import export_onnx_alone
from converters.formats.onnx.form import GraphForm
from converters.formats.onnx.graph import folded_names

if TYPE_CHECKING:
    from openvino import Model, Node

    from converters.folder.folder import ConvertedFolder

_CONVOLUTION = ".convolution"
_WITHOUT_BIAS = "/WithoutBiases"
"""What OpenVINO appends to the name of a product whose bias it adds in a node of its own."""

_PRODUCTS = {"Convolution", "GroupConvolution", "MatMul"}


def export_openvino(folder: ConvertedFolder, path: Path) -> None:
    """Write the network for OpenVINO, in float32.

    OpenVINO itself rounds weights to float16 when it saves, unless told otherwise. The same version
    of OpenVINO writes the same bytes.

    Args:
        folder: What to export.
        path: The ``.xml``, created or replaced, and with it the ``.bin`` beside it.

    Raises:
        InputError: If the folder cannot be used.
        StorageError: If OpenVINO is not installed.
        OSError: If a file cannot be written.
    """
    require_extra("openvino", "openvino")
    import openvino
    from openvino.passes import ConstantFolding, Manager

    with TemporaryDirectory(dir=path.parent) as temporary:
        graph = Path(temporary) / "model.onnx"
        export_onnx_alone(folder, graph, GraphForm(), external_data=True)
        model = openvino.Core().read_model(graph)
        passes = Manager()
        passes.register_pass(ConstantFolding())  # how weights and biases are reshaped
        passes.run_passes(model)
        _name_nodes(model)
        openvino.save_model(model, path, compress_to_fp16=False)


def _name_nodes(model: Model) -> None:
    """Name weights as our ONNX does, and what OpenVINO has numbered by its place.

    Its numbers count on through the process, so the same network would give other bytes.
    """
    for place, node in enumerate(model.get_ordered_ops()):
        kind, name = node.get_type_name(), node.get_friendly_name()
        if kind == "Constant":
            node.set_friendly_name(_tensor_name(node) or f"{kind}_{place}")
        elif name.rpartition("_")[0] == kind:
            node.set_friendly_name(f"{kind}_{place}")


def _tensor_name(constant: Node) -> str | None:
    """The state dict's name, or the fold's, by what it is used for; None if it is no weight."""
    readers = list(constant.output(0).get_target_inputs())
    if len(readers) > 1:  # the numbers of an activation
        return None
    product, is_weight = readers[0].get_node(), True
    if product.get_type_name() == "Add":
        product, is_weight = product.input_value(0).get_node(), False
    if not is_weight and product.get_type_name() == "Multiply":  # by the 1 that a Gemm may state
        product = product.input_value(0).get_node()
    if product.get_type_name() not in _PRODUCTS:
        return None
    module = product.get_friendly_name().removesuffix(_WITHOUT_BIAS)
    if module.endswith(_CONVOLUTION):
        weight, bias = folded_names(module.removesuffix(_CONVOLUTION))
    else:
        weight, bias = f"{module}.weight", f"{module}.bias"
    return weight if is_weight else bias
