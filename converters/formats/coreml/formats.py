"""The formats that are Core ML packages, and where things lie in one.

What writes and evaluates them is beside this file and imported when it is used.
"""

from __future__ import annotations

import platform
from dataclasses import replace

from converters.errors import is_installed
from converters.formats.format import IMAGE_INPUT, INTERFACE_OPTIONS, Format
from regnet.files.late import lazily

MANIFEST = "Manifest.json"
MODEL = "Data/com.apple.CoreML/model.mlmodel"
WEIGHTS = "Data/com.apple.CoreML/weights/weight.bin"

_COREML = "converters.formats.coreml"
_PARITY = "converters.parity"

LIBRARY = "coremltools"
"""What Apple's runtime is reached by."""

ELSEWHERE = "Apple's runtime is on macOS alone"


def why_not_run() -> str | None:
    """Why Apple's runtime runs no package here, as a clause; None if it does."""
    if platform.system() != "Darwin":
        return ELSEWHERE
    return None if is_installed(LIBRARY) else f"{LIBRARY} is not installed"


def _lacks() -> str | None:
    why = why_not_run()
    return why and f"written and evaluated here, not run ({why})"


COREML = Format(
    name="coreml",
    title="Core ML",
    file_name="model.mlpackage",
    members=(MANIFEST, MODEL, WEIGHTS),
    options=frozenset({"sizes", IMAGE_INPUT}) | INTERFACE_OPTIONS,
    states=lazily(f"{_COREML}.reading:stated_in_package"),
    export=lazily(f"{_COREML}.package:export_coreml"),
    load=lazily(f"{_COREML}.runtime:open_coreml"),
    lacks=_lacks,
    in_torch=platform.system() != "Darwin",
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
)
