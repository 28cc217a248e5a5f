"""The formats that are ONNX files: one graph, for seven kinds of users.

What writes and runs them is beside this file and imported when it is used, since ``onnx`` and
``onnxruntime`` take their time.
"""

from __future__ import annotations

from dataclasses import replace

from converters.folder.folder import ONNX_NAME
from converters.formats.format import INTERFACE_OPTIONS, Format, OtherRuntime
from converters.formats.stated import stated_in_onnx
from regnet.files.late import lazily

_ONNX = "converters.formats.onnx"
_PARITY = "converters.parity"
_GRAPH = frozenset({"opset", "sizes"})
_NETWORK = _GRAPH | INTERFACE_OPTIONS
_SESSION = ("import onnxruntime", 'session = onnxruntime.InferenceSession("{file}")')

_PLAIN = Format(
    name="onnx",
    title="ONNX",
    file_name=ONNX_NAME,
    options=_NETWORK | {"share_weights"},
    export=lazily(f"{_ONNX}.export:export_onnx"),
    load=lazily(f"{_ONNX}.runtime:OnnxRuntime"),
    certificate=f"{_PARITY}.contents.onnx:read_onnx",
    intermediates=f"{_PARITY}.locate.intermediates_onnx:run_onnx",
    states=stated_in_onnx,
    usage=(*_SESSION, 'outputs = session.run(None, {{"pixel_values": pixels.numpy()}})'),
    runs_beside=True,
)

_OTHERS = f"{_ONNX}.other_runtimes"

ONNX = replace(
    _PLAIN,
    others=(
        OtherRuntime("tract", "tract", lazily(f"{_OTHERS}:TractRuntime"), needs=("tract", "tract")),
        OtherRuntime("mnn", "MNN", lazily(f"{_OTHERS}:MnnRuntime"), needs=("MNN", "mnn")),
        OtherRuntime(
            "opencv", "OpenCV", lazily(f"{_OTHERS}:OpenCvRuntime"), needs=("cv2", "opencv")
        ),
        OtherRuntime("ort", "ONNX Runtime's .ort", lazily(f"{_OTHERS}:OrtFileRuntime")),
    ),
)

ONNX_WEB = replace(
    _PLAIN,
    name="onnx-web",
    title="ONNX for transformers.js",
    file_name="onnx/model.onnx",
    companions=("model.onnx_data",),
    may_equal="onnx",
    options=_NETWORK | {"external_data"},
    export=lazily(f"{_ONNX}.export:export_onnx_alone"),
    language="js",
    usage=(
        'import * as ort from "onnxruntime-web";',
        'const session = await ort.InferenceSession.create("{file}");',
        "const outputs = await session.run({{ pixel_values: pixels }});  // an ort.Tensor",
    ),
)

ONNX_FP16 = replace(
    _PLAIN,
    name="onnx-fp16",
    title="ONNX in float16",
    file_name="onnx/model_fp16.onnx",
    companions=("model_fp16.onnx_data",),
    precision="float16",
    options=_NETWORK | {"external_data", "io_float16"},
    export=lazily(f"{_ONNX}.export:export_float16"),
)

ONNX_INT8 = replace(
    _PLAIN,
    name="onnx-int8",
    title="ONNX in int8",
    file_name="onnx/model_quantized.onnx",
    precision="int8",
    options=_NETWORK | {"calibration_images", "largest_loss", "symmetric"},
    export=lazily(f"{_ONNX}.int8:export_int8"),
    certificate=f"{_PARITY}.contents.onnx_int8:read_onnx_int8",
    details=lazily(f"{_ONNX}.int8:details"),
    details_in_words=lazily(f"{_ONNX}.quantised:details_in_words"),
    others=(
        OtherRuntime(
            "openvino-int8",
            "OpenVINO in int8",
            lazily("converters.formats.openvino:OpenVinoInt8Runtime"),
            needs=("openvino", "openvino"),
        ),
    ),
)

ONNX_TUNED = replace(
    _PLAIN,
    name="onnx-tuned",
    title="ONNX, tuned",
    file_name="onnx/model_tuned.onnx",
    companions=("model_tuned.onnx_data",),
    options=_NETWORK | {"external_data", "block"},
    export=lazily(f"{_ONNX}.tuned:export_tuned"),
    details=lazily(f"{_ONNX}.tuned:details"),
    details_in_words=lazily(f"{_ONNX}.tuned:details_in_words"),
)

ONNX_INT8_TUNED = replace(
    ONNX_INT8,
    name="onnx-int8-tuned",
    title="ONNX in int8, tuned",
    file_name="onnx/model_tuned_quantized.onnx",
    options=ONNX_INT8.options | {"block"},
    others=(),
    export=lazily(f"{_ONNX}.tuned:export_tuned_int8"),
    details=lazily(f"{_ONNX}.tuned:details_of_int8"),
    details_in_words=lazily(f"{_ONNX}.tuned:details_of_int8_in_words"),
)

ONNX_PREPROCESSING = replace(
    _PLAIN,
    name="onnx-preprocessing",
    title="ONNX with preprocessing",
    file_name="onnx/model_with_preprocessing.onnx",
    prepares_images=True,
    options=_GRAPH,
    export=lazily(f"{_ONNX}.preprocessing:export_with_preprocessing"),
    load=lazily(f"{_ONNX}.preprocessing_runtime:NetworkOfPreprocessing"),
    intermediates=None,
    usage=(
        *_SESSION,
        'probabilities, scores, classes = session.run(None, {{"image": image}})  # uint8 NHWC, RGB',
    ),
)
