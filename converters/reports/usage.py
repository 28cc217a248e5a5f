"""The model card's last section: the lines that load each artefact of a folder."""

from __future__ import annotations

from typing import TYPE_CHECKING

from converters.formats.registry import FORMATS

if TYPE_CHECKING:
    from converters.folder.folder import ConvertedFolder

_HEADING = "\n## Use\n"
_END = "\n<!-- what follows is yours: `regnet export` writes the section above anew -->\n"

_SESSION = ("import onnxruntime", 'session = onnxruntime.InferenceSession("{file}")')
_RUN = 'outputs = session.run(None, {{"pixel_values": pixels.numpy()}})'
_TORCH = "outputs = program(pixels)"
_COMPILE = (
    'program = openvino.Core().compile_model("{file}", "CPU", '
    '{{"INFERENCE_PRECISION_HINT": "f32"}})'
)

_LINES = {
    "onnx": (*_SESSION, _RUN),
    "onnx-fp16": (*_SESSION, _RUN),
    "onnx-int8": (*_SESSION, _RUN),
    "onnx-web": (
        'import * as ort from "onnxruntime-web";',
        'const session = await ort.InferenceSession.create("{file}");',
        "const outputs = await session.run({{ pixel_values: pixels }});  // an ort.Tensor",
    ),
    "onnx-preprocessing": (
        *_SESSION,
        'probabilities, scores, classes = session.run(None, {{"image": image}})  # uint8 NHWC, RGB',
    ),
    "torchscript": ("import torch", 'program = torch.jit.load("{file}")', _TORCH),
    "pt2": ("import torch", 'program = torch.export.load("{file}").module()', _TORCH),
    "aotinductor": (
        "import torch",
        'program = torch._inductor.aoti_load_package("{file}")',
        _TORCH,
    ),
    "openvino": (
        "import openvino",
        _COMPILE,
        "outputs = program(pixels.numpy())",
    ),
    "executorch": (
        "from executorch.runtime import Runtime",
        'program = Runtime.get().load_program("{file}").load_method("forward")',
        "outputs = program.execute([pixels])",
    ),
}
"""Key of :data:`converters.formats.registry.FORMATS` to three lines; ``{file}`` is the artefact."""

_LANGUAGES = {"onnx-web": "js"}
"""Of the lines, where it is not Python."""


def usage_section(folder: ConvertedFolder) -> str:
    """How to load the weights and each artefact that lies in a folder, as Markdown.

    Args:
        folder: The converted folder, its artefacts included.
    """
    kind = "RegNetForImageClassification" if folder.has_classifier else "RegNetModel"
    lines = [
        "`pixels` is a float32 tensor (N, channels, height, width) of the image processor.",
        *_block(
            "Weights, `model.safetensors`",
            "python",
            f"from transformers import AutoImageProcessor, {kind}  # or: from regnet import {kind}",
            'pixels = AutoImageProcessor.from_pretrained(".")(image, return_tensors="pt")'
            '["pixel_values"]',
            f'outputs = {kind}.from_pretrained(".")(pixels)',
        ),
    ]
    for key, form in FORMATS.items():
        if (folder.path / form.file_name).is_file():
            code = (line.format(file=form.file_name) for line in _LINES[key])
            title = f"{form.title}, `{form.file_name}`"
            lines += _block(title, _LANGUAGES.get(key, "python"), *code)
    return "\n".join(lines) + "\n"


def _block(title: str, language: str, *code: str) -> list[str]:
    return ["", f"**{title}**", "", f"```{language}", *code, "```"]


def with_usage(card: str, folder: ConvertedFolder) -> str:
    """A card whose last section is that of today's artefacts; what stands behind it stays."""
    before, _, after = card.partition(_HEADING)
    _, _, own = after.partition(_END)
    return before.rstrip("\n") + "\n" + _HEADING + "\n" + usage_section(folder) + _END + own


def is_ours(card: str) -> bool:
    """Whether a card has our last section, which can be written anew."""
    return _HEADING in card
