"""OpenVINO: its own format, ``openvino_model.xml`` beside ``openvino_model.bin``, and its runtime.

Left alone it rounds weights to float16 when it saves, and computes in less than float32 where the
processor can. Here it is told to do neither, and what it really did is looked up.
"""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING
from xml.etree import ElementTree as ET

from converters.checkpoint.graph import INTERFACE
from converters.errors import require_extra
from converters.formats.format import DEFAULTS, INTERFACE_OPTIONS, ExportOptions, Format
from converters.formats.memory import require_memory
from converters.formats.onnx.form import PRECISION_KEY
from converters.formats.runtime import ArtefactRuntime
from converters.formats.stated import stated_in, stated_in_onnx
from regnet.architecture import NORMALISED
from regnet.files.dtypes import COMPUTED

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy as np
    from numpy.typing import NDArray
    from openvino import CompiledModel, Model, Node

    from converters.folder.folder import ConvertedFolder

_CONVOLUTION = ".convolution"
_WITHOUT_BIAS = "/WithoutBiases"
"""What OpenVINO appends to the name of a product whose bias it adds in a node of its own."""

_PRODUCTS = {"Convolution", "GroupConvolution", "MatMul"}

_BATCH_NORM = "BatchNormInference"
_BATCH_NORM_INPUTS = ("value", "weight", "bias", "running_mean", "running_var")

_NORM = ".normalization"
_OF_NORMS = {f"{_NORM}.scaled": "weight", _NORM: "bias", f"{_NORM}.sloped": "v"}
"""How the names of nodes end that read the tensors of other norms, and which."""

_OF_NORMALISATION = {f"{NORMALISED}.centred": "mean", NORMALISED: "std"}
"""Nodes that read the numbers by which images are normalised, and which."""

_STATED = "regnet"
"""What holds what we state in the ``rt_info`` of a model."""

_DEVICE = "CPU"
_HINT = "INFERENCE_PRECISION_HINT"
_COPIES = 3
"""How many times the weights' size it takes: mapped, packed for the processor, and in passing."""

_PRECISIONS = {"f16": "float16", "bf16": "bfloat16"}
"""OpenVINO's names of what is less than float32."""


def export_openvino(folder: ConvertedFolder, path: Path, _: ExportOptions = DEFAULTS) -> None:
    """Write the network for OpenVINO, in float32.

    OpenVINO itself rounds weights to float16 when it saves, unless told otherwise. The same version
    of OpenVINO writes the same bytes: the ``.xml``, and the ``.bin`` beside it.
    """
    require_extra("openvino", "openvino")
    import openvino
    from openvino.passes import ConstantFolding, Manager

    from converters.formats.onnx.export import export_onnx_alone

    with TemporaryDirectory(dir=path.parent) as temporary:
        graph = Path(temporary) / "model.onnx"
        export_onnx_alone(folder, graph, ExportOptions(external_data=True))
        model = openvino.Core().read_model(graph)
        passes = Manager()
        passes.register_pass(ConstantFolding())  # how weights and biases are reshaped
        passes.run_passes(model)
        _name_nodes(model)
        for key, text in stated_in(folder).items():
            if key == INTERFACE:
                model.set_rt_info(text, [_STATED, key])
        openvino.save_model(model, path, compress_to_fp16=False)
        del model  # which has the weights mapped; Windows would not let them be removed


def stated_in_xml(path: Path) -> Mapping[str, str]:
    """What an ``.xml`` states beside the network.

    Raises:
        OSError: If it cannot be read.
        ValueError: If it declares entities.
        xml.etree.ElementTree.ParseError: If it is no XML.
    """
    stated = parsed_xml(path).findall(f"rt_info/{_STATED}/*")
    return {each.tag: each.get("value", "") for each in stated}


def parsed_xml(path: Path) -> ET.Element:
    """The root of an ``.xml``, which may be anybody's; raises as :func:`stated_in_xml` does."""
    text = path.read_bytes()
    if b"<!" in text:
        raise ValueError("it declares what XML may expand without end")
    return ET.fromstring(text)  # noqa: S314 -- entities are refused above


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
    from converters.formats.onnx.graph import folded_names

    readers = list(constant.output(0).get_target_inputs())
    name = readers[0].get_node().get_friendly_name()
    if name in _OF_NORMALISATION:
        return f"{NORMALISED}.{_OF_NORMALISATION[name]}"
    if len(readers) > 1:  # the numbers of an activation
        return None
    product, is_weight = readers[0].get_node(), True
    name = product.get_friendly_name()
    if product.get_type_name() == _BATCH_NORM:
        return f"{name}.{_BATCH_NORM_INPUTS[readers[0].get_index()]}"
    if leaf := _OF_NORMS.get(name[name.rfind(_NORM) :]):
        return f"{name[: name.rfind(_NORM)]}{_NORM}.{leaf}"
    if product.get_type_name() == "Add":
        product, is_weight = product.input_value(0).get_node(), False
    if not is_weight and product.get_type_name() == "Multiply":  # by the 1 that a Gemm may state
        product = product.input_value(0).get_node()
    if product.get_type_name() not in _PRODUCTS:
        return None
    name = product.get_friendly_name()
    module = name.removesuffix(_WITHOUT_BIAS)
    if module.endswith(_CONVOLUTION) and module != name:  # only what it has taken in gives a bias
        weight, bias = folded_names(module.removesuffix(_CONVOLUTION))
    else:
        weight, bias = f"{module}.weight", f"{module}.bias"
    return weight if is_weight else bias


class OpenVinoRuntime(ArtefactRuntime):
    """Runs an ``openvino_model.xml``, or any other file that OpenVINO opens.

    Left alone OpenVINO computes in bfloat16 on processors that have it, with some hundred times the
    error of float32. So float32 is asked for, and what was really compiled is looked up.

    Args:
        precision: What to ask for: ``f32``; None leaves it to OpenVINO.

    Attributes:
        name: Runtime and version, and this processor's default where that is not float32.
        precision: In which the compiled network computes: ``float32``, ``bfloat16`` or ``float16``.
    """

    def __init__(
        self,
        path: Path,
        output_names: Sequence[str] = ("logits",),
        threads: int = 1,
        precision: str | None = "f32",
    ) -> None:
        version = require_extra("openvino", "openvino")
        import openvino

        weights = path.with_suffix(".bin")
        require_memory(_COPIES * (weights if weights.is_file() else path).stat().st_size)
        core = openvino.Core()
        default = core.get_property(_DEVICE, _HINT).to_string()
        settings: dict[str, int | bool | str] = {
            "INFERENCE_NUM_THREADS": threads,
            "NUM_STREAMS": 1,
            "ENABLE_CPU_PINNING": False,
        }
        if precision is not None:
            settings[_HINT] = precision
        self._compiled = core.compile_model(path, _DEVICE, settings)
        self.precision = _computed_in(self._compiled)
        self.name = f"openvino {version}"
        if default in _PRECISIONS:
            self.name += f" (by default {_PRECISIONS[default]} on this processor)"
        self._output_names = tuple(output_names)

    def __call__(self, pixel_values: NDArray[np.float32]) -> dict[str, NDArray[np.float32]]:
        """Compute every output."""
        arrays = self._compiled(pixel_values).to_tuple()
        return dict(zip(self._output_names, arrays, strict=True))


class OpenVinoInt8Runtime(OpenVinoRuntime):
    """Runs ONNX in int8: in integers what the file has between its grids, the rest in float32.

    Attributes:
        precision: That which the file states, unless something is computed in half precision.
    """

    def __init__(
        self, path: Path, output_names: Sequence[str] = ("logits",), threads: int = 1
    ) -> None:
        super().__init__(path, output_names, threads)
        if self.precision == COMPUTED:
            self.precision = stated_in_onnx(path).get(PRECISION_KEY, COMPUTED)


def _computed_in(compiled: CompiledModel) -> str:
    """The least precise type that an operation of the compiled network runs in."""
    nodes = compiled.get_runtime_model().get_ops()
    used = {str(node.get_rt_info()["runtimePrecision"].value) for node in nodes}
    reduced = [name for short, name in _PRECISIONS.items() if short in used]
    return reduced[0] if reduced else "float32"


_COMPILE = (
    'program = openvino.Core().compile_model("{file}", "CPU", '
    '{{"INFERENCE_PRECISION_HINT": "f32"}})'
)

OPENVINO = Format(
    name="openvino",
    title="OpenVINO",
    file_name="openvino_model.xml",
    companions=("openvino_model.bin",),
    extra="openvino",
    options=INTERFACE_OPTIONS,
    states=stated_in_xml,
    export=export_openvino,
    load=OpenVinoRuntime,
    runs_beside=True,
    certificate="converters.parity.contents.openvino:read_openvino",
    intermediates="converters.parity.locate.intermediates_openvino:run_openvino",
    usage=(
        "import openvino",
        _COMPILE,
        "outputs = program(pixels.numpy())",
    ),
)
