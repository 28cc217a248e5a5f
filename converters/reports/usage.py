"""The model card's last section: the lines that load each artefact of a folder."""

from __future__ import annotations

from typing import TYPE_CHECKING

from converters.formats.registry import FORMATS, artefacts_in

if TYPE_CHECKING:
    from converters.folder.folder import ConvertedFolder

_HEADING = "\n## Use\n"
_END = "\n<!-- what follows is yours: `regnet export` writes the section above anew -->\n"


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
    for name in artefacts_in(folder.path):
        artefact = FORMATS[name]
        code = (line.format(file=artefact.file_name) for line in artefact.usage)
        lines += _block(f"{artefact.title}, `{artefact.file_name}`", artefact.language, *code)
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
