"""The formats that are Core ML packages, and where things lie in one.

What writes and evaluates them is beside this file and imported when it is used.
"""

from __future__ import annotations

from dataclasses import replace

from converters.formats.format import IMAGE_INPUT, INTERFACE_OPTIONS, Format
from regnet.files.late import lazily

MANIFEST = "Manifest.json"
MODEL = "Data/com.apple.CoreML/model.mlmodel"
WEIGHTS = "Data/com.apple.CoreML/weights/weight.bin"

_COREML = "converters.formats.coreml"
_PARITY = "converters.parity"

COREML = Format(
    name="coreml",
    title="Core ML",
    file_name="model.mlpackage",
    members=(MANIFEST, MODEL, WEIGHTS),
    options=frozenset({"sizes", IMAGE_INPUT}) | INTERFACE_OPTIONS,
    states=lazily(f"{_COREML}.reading:stated_in_package"),
    export=lazily(f"{_COREML}.package:export_coreml"),
    load=lazily(f"{_COREML}.runtime:open_coreml"),
    certificate=f"{_PARITY}.contents.coreml:read_coreml",
    intermediates=f"{_PARITY}.locate.intermediates_coreml:run_coreml",
    usage=(
        "import coremltools  # predicts on macOS alone",
        'model = coremltools.models.MLModel("{file}")',
        'outputs = model.predict({{"pixel_values": pixels.numpy()}})',
    ),
)

COREML_FP16 = replace(
    COREML,
    name="coreml-fp16",
    title="Core ML in float16",
    file_name="model_fp16.mlpackage",
    precision="float16",
    export=lazily(f"{_COREML}.package:export_float16"),
    intermediates=None,
)
