"""The formats that LiteRT runs.

What writes and runs them is beside this file and imported when it is used.
"""

from __future__ import annotations

from dataclasses import replace

from converters.formats.format import INTERFACE_OPTIONS, Format
from regnet.files.late import lazily

_LITERT = "converters.formats.litert"

LITERT = Format(
    name="litert",
    title="LiteRT (TensorFlow Lite)",
    file_name="model.tflite",
    extra="litert",
    package="ai_edge_litert",
    options=INTERFACE_OPTIONS,
    states=lazily("converters.parity.contents.litert.model:stated_in_model"),
    export=lazily(f"{_LITERT}.export:export_litert"),
    load=lazily(f"{_LITERT}.runtime:LiteRtRuntime"),
    certificate="converters.parity.contents.litert.certificate:read_litert",
    intermediates="converters.parity.locate.intermediates_litert:run_litert",
    usage=(
        "from ai_edge_litert.interpreter import Interpreter",
        'run = Interpreter("{file}").get_signature_runner()',
        "outputs = run(pixel_values=pixels.permute(0, 2, 3, 1).numpy())",
    ),
)

LITERT_FP16 = replace(
    LITERT,
    name="litert-fp16",
    title="LiteRT with weights in float16",
    file_name="model_fp16.tflite",
    precision="float16",
    export=lazily(f"{_LITERT}.export:export_float16"),
    certificate="converters.parity.contents.litert.certificate:read_float16",
)

LITERT_INT8 = replace(
    LITERT,
    name="litert-int8",
    title="LiteRT in int8",
    file_name="model_int8.tflite",
    precision="int8",
    options=frozenset({"calibration_images", "largest_loss"}) | INTERFACE_OPTIONS,
    export=lazily(f"{_LITERT}.int8:export_int8"),
    certificate="converters.parity.contents.litert.certificate:read_int8",
    details=lazily("converters.parity.contents.litert.int8:details"),
    details_in_words=lazily("converters.formats.onnx.quantised:details_in_words"),
)
