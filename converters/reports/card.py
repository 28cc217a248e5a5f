"""The model card: a folder's ``README.md``, written from its record.

Three parts are ours and written anew whenever an artefact changes: the tags, the verification and
the use. What a person has written elsewhere stays.
"""

from __future__ import annotations

import html
import json
import math
import re
from typing import TYPE_CHECKING, Any

from converters.errors import DISTRIBUTION, InputError, printable
from converters.folder.folder import CARD_NAME, ConvertedFolder
from converters.folder.interface import NETWORK
from converters.folder.record import outcome_of
from converters.formats.registry import FORMATS, artefacts_in, interface_of
from converters.parity.recording import unverified
from regnet.config import MODEL_TYPE
from regnet.files.reading import read_text

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence
    from pathlib import Path

    from converters.folder.record import Record

SHAREABLE = {
    "mit": "shareable with its notice",
    "apache-2.0": "shareable with its notice",
    "bsd-3-clause": "shareable with its notice",
    "cc-by-nc-4.0": "shareable with credit, for use that is not commercial",
}
"""Licences of published weights that let anybody share them, and on what terms; the Hub has an id
for each.

Texts: https://spdx.org/licenses. Not in here is ``seer-license``, which is for research only: who
publishes under it must have read it.
"""

_TASK = "image-classification"
"""What the Hub calls what classifiers do."""

_PIXELS = 'pixels = {processor}(image, return_tensors="pt", {left_out})["pixel_values"].float()'
_LEFT_OUT = {255: "do_rescale=False, do_normalize=False", 1: "do_normalize=False"}
"""What an image processor is not to do for an artefact that does it, by what white is then."""

_TAGS = re.compile(r"^tags: (\[.*\])$", re.MULTILINE)
_INDEX = re.compile(r"^model-index: (\[.*\])\n", re.MULTILINE)
_MODEL_NAME = re.compile(r"^model_name: (\".*\")\n", re.MULTILINE)
_VERIFICATION = "\n## Verification\n"
_SECTION = re.compile(r"\n## ")
_HEADING = "\n## Use\n"
_END = "\n<!-- what follows is yours: `regnet export` writes the section above anew -->\n"


def write_card(folder: Path, record: Record) -> None:
    """Write the model card: front matter, what it is, what was measured, how to use it.

    Args:
        folder: The converted folder, artefacts included.
        record: What was converted, and the verdicts.
    """
    converted = ConvertedFolder(folder)
    architecture, framework = record.fields["architecture"], record.fields["source"]["framework"]
    name = architecture["name"] or f"RegNet{architecture['layer_type'].upper()}"
    front_matter = {
        "library_name": "transformers" if _is_known_to_transformers(converted) else DISTRIBUTION,
        "pipeline_tag": _TASK if converted.has_classifier else "image-feature-extraction",
        "tags": ["regnet", *_formats_of(converted), framework],
        "model_name": name,
        **_licence_fields(record.licence),
    }
    lines = [
        "---",
        *(f"{key}: {json.dumps(value)}" for key, value in front_matter.items()),
        "---",
        "",
        f"# {name}",
        "",
        (
            f"Converted from a {framework} checkpoint: "
            f"{architecture['parameters']:,} parameters, {architecture['flops'] / 1e9:.3f} GFLOPs "
            f"at {architecture['image_size']} pixels."
        ),
        "",
        "| decision | value | reason |",
        "|---|---|---|",
        *(
            f"| {_cell(d['topic'])} | {_cell(d['value'])} | {_cell(d['reason'])} |"
            for d in record.decisions
        ),
    ]
    card = "\n".join(lines) + "\n" + _VERIFICATION + _verification(record)
    (folder / CARD_NAME).write_text(with_usage(card, converted), encoding="utf-8", newline="\n")


def read_card(folder: Path) -> str | None:
    """Read a folder's card; None if it has none.

    Raises:
        InputError: If it is no text.
    """
    path = folder / CARD_NAME
    if not path.is_file():
        return None
    try:
        return read_text(path)
    except ValueError as error:
        raise InputError(f"{path} {error}; save it as UTF-8, or move it elsewhere.") from error


def updated_card(
    card: str, folder: ConvertedFolder, record: Record | None, replaced: Collection[str] = ()
) -> str:
    """A card of ours with the parts that are ours as of today's artefacts and verdicts.

    Args:
        card: The text; see :func:`is_ours`.
        folder: The converted folder, its artefacts included.
        record: Its record; without one nothing is known of verdicts, and that part stays.
        replaced: Artefacts that are new, of which no earlier score speaks.
    """
    if results := _results(card):
        for result in results:
            result["metrics"] = [m for m in result["metrics"] if m["config"] not in replaced]
        card = _with_results(card, [result for result in results if result["metrics"]])
    card = _TAGS.sub(lambda match: _tags_line(match, folder), card, count=1)
    if record is not None and _VERIFICATION in card:
        before, _, rest = card.partition(_VERIFICATION)
        following = _SECTION.search(rest)
        after = rest[following.start() :] if following else ""
        card = before + _VERIFICATION + _verification(record) + after
    return with_usage(card, folder)


def with_scores(
    card: str, data_set: str, images: int, scores: Mapping[str, Mapping[str, float]]
) -> str:
    """A card of ours with measured accuracies in its front matter, as the Hub's ``model-index``.

    What was measured on another data set stays.

    Args:
        card: The text; see :func:`is_ours`.
        data_set: Its name, on the Hub if it is there.
        images: How many of it were seen.
        scores: File to kind of accuracy, such as ``top-1``, to the share of images.

    Raises:
        InputError: If somebody else has written an index there.
    """
    metrics = [
        {"type": "accuracy", "value": share, "name": f"{kind} accuracy of {file}", "config": file}
        for file, shares in scores.items()
        for kind, share in shares.items()
    ]
    result = {
        "task": {"type": _TASK},
        "dataset": {"name": data_set, "type": data_set, "args": {"images": images}},
        "metrics": metrics,
    }
    known = _results(card)
    if known is None:
        raise InputError(
            f"The model-index of {CARD_NAME} is none that was written here; remove it there, or "
            "leave out --card."
        )
    others = [each for each in known if each["dataset"]["name"] != data_set]
    return _with_results(card, [*others, result])


def _results(card: str) -> list[dict[str, Any]] | None:
    """What :func:`with_scores` has entered, if anything; None where somebody else has."""
    if "\nmodel-index:" not in card:
        return []
    try:
        results: list[dict[str, Any]] = json.loads(_INDEX.search(card)[1])[0]["results"]  # type: ignore[index]
        for result in results:
            _ = result["dataset"]["name"], [metric["config"] for metric in result["metrics"]]
    except (ValueError, RecursionError, LookupError, TypeError):
        return None
    return results


def _with_results(card: str, results: Sequence[Mapping[str, Any]]) -> str:
    name = _MODEL_NAME.search(card)
    index = [{"name": json.loads(name[1]) if name else "RegNet", "results": results}]
    line = f"model-index: {json.dumps(index)}\n" if results else ""
    before, _, behind = _INDEX.sub("", card, count=1).partition("\n---\n")
    return f"{before}\n{line}---\n{behind}"


def _formats_of(folder: ConvertedFolder) -> list[str]:
    """What a folder's artefacts are to be found by, such as ``onnx`` for all kinds of ONNX."""
    return list(dict.fromkeys(FORMATS[name].tag for name in artefacts_in(folder.path)))


def _tags_line(match: re.Match[str], folder: ConvertedFolder) -> str:
    """The line with the formats that are there; tags of a person's own stay behind them."""
    try:
        stated = json.loads(match[1])
    except (ValueError, RecursionError):
        return match[0]
    formats = {kind.tag for kind in FORMATS.values()}
    own = [tag for tag in stated if isinstance(tag, str) and tag not in formats]
    first, others = own[:1], own[1:]
    return f"tags: {json.dumps([*first, *_formats_of(folder), *others])}"


def _verification(record: Record) -> str:
    if not record.verdicts:
        text = "Not verified: converted with `--no-verify`. Run `regnet verify` on this folder."
        return f"\n{text}\n"
    lines = [
        "",
        "Errors against the float64 oracle, in units of an honest computation's.",
        "",
        "| file | runtime | RMS ratio | largest ratio | verdict |",
        "|---|---|---|---|---|",
        *(f"| {' | '.join(map(_cell, _row(verdict)))} |" for verdict in record.verdicts),
        "",
    ]
    if missing := unverified(record):
        names = ", ".join(f"`{name}`" for name in missing)
        lines += [f"Not verified: {names}. Run `regnet verify` on this folder."]
    else:
        lines += ["`regnet verify` repeats this from the folder alone."]
    return "\n".join(lines) + "\n"


def _row(verdict: Mapping[str, Any]) -> Iterator[str]:
    yield verdict["artefact"]
    yield verdict["runtime"]
    for name in ("rms_ratio", "max_ratio"):
        ratios = [m[name] for m in verdict["measurements"]]
        known = ratios and all(r is not None and math.isfinite(r) for r in ratios)
        yield f"{max(ratios):.2f}" if known else "-"
    left_out = verdict.get("not_compared")
    yield outcome_of(verdict) + (f", {left_out} not compared" if left_out else "")


def _cell(text: str) -> str:
    """Text for a table, which may quote the checkpoint: neither markup nor another row or line."""
    return html.escape(printable(text), quote=False).replace("|", "\\|")


def _licence_fields(licence: str | None) -> dict[str, str]:
    """Front matter on a licence, in the Hub's terms: those without an id there are ``other``."""
    if licence is None or licence in SHAREABLE:
        return {"license": licence} if licence else {}
    return {"license": "other", "license_name": licence}


def _is_known_to_transformers(folder: ConvertedFolder) -> bool:
    return folder.config.model_type == MODEL_TYPE


def _image_processor(folder: ConvertedFolder) -> tuple[str, str, str, str]:
    """Whose makes the pixels that the network was evaluated on: package, class, call, and why."""
    from regnet.image_processor import SQUASH_FROM

    processor = folder.processor
    own = ("regnet", "RegNetImageProcessor", 'RegNetImageProcessor.from_pretrained(".")')
    if processor.squashes != (processor.size["shortest_edge"] >= SQUASH_FROM):
        does, was = ("crops", "squashed") if processor.squashes else ("squashes", "cropped")
        return (*own, f"That of transformers {does} images of this size, which were {was} here.")
    if not _is_known_to_transformers(folder):
        return (*own, "transformers does not have this network.")
    near = "" if processor.resize_mode == "convnext" else ", its crop at most a pixel elsewhere"
    said = (
        f"Its backend `pil` resizes as the network was evaluated{near}; transformers' default, "
        "torchvision's, makes slightly other pixels."
    )
    name = "AutoImageProcessor"
    return "transformers", name, f'{name}.from_pretrained(".", backend="pil")', said


def usage_section(folder: ConvertedFolder) -> str:
    """How to load the weights and each artefact that lies in a folder, as Markdown.

    Args:
        folder: The converted folder, its artefacts included.
    """
    kind = "RegNetForImageClassification" if folder.has_classifier else "RegNetModel"
    package, imported, processor, said = _image_processor(folder)
    other = f"  # or: from regnet import {kind}" if package == "transformers" else ""
    lines = [
        f"`pixels` is a float32 tensor (N, channels, height, width) of the image processor. {said}",
        *_block(
            "Weights, `model.safetensors`",
            "python",
            f"from {package} import {imported}, {kind}{other}",
            f'pixels = {processor}(image, return_tensors="pt")["pixel_values"]',
            f'outputs = {kind}.from_pretrained(".")(pixels)',
        ),
    ]
    for name in artefacts_in(folder.path):
        artefact = FORMATS[name]
        interface = interface_of(name, folder.path / artefact.file_name)
        code = [line.format(file=artefact.file_name) for line in artefact.usage]
        if interface.pixels is not None and artefact.language == "python":
            left_out = _LEFT_OUT[interface.pixels]
            code.insert(-1, _PIXELS.format(processor=processor, left_out=left_out))
        title = f"{artefact.title}, `{artefact.file_name}`"
        if interface != NETWORK:
            title += f", pixels {interface.takes}, gives {interface.gives}"
        lines += _block(title, artefact.language, *code)
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
