"""`conversion.json` and the model card: what was converted, how, and what was measured."""

from __future__ import annotations

import html
import json
from typing import TYPE_CHECKING, Any

from converters.artefacts import FORMATS
from converters.checkpoint.values import printable
from converters.digests import sha256_of
from converters.folder import CARD_NAME, REPORT_NAME, ConvertedFolder
from converters.reports.findings import number
from converters.usage import with_usage
from regnet.design_space import complexity

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from converters.convert import ConvertOptions
    from converters.inspection import Inspection
    from converters.parity.report import Report
    from converters.parity.verdict import Verdict
    from converters.stream import Written

SCHEMA = 1
"""Of conversion.json; it grows when a key changes its meaning."""

NOT_VERIFIED: dict[str, Any] = {"passed": None, "changed_files": [], "verdicts": []}
"""What stands in the place of a report that nobody has made: neither pass nor fail."""

_HUB_LICENCES = {"mit", "apache-2.0", "bsd-3-clause", "cc-by-nc-4.0"}
"""Those of the manifest that the Hub has an id for."""

_DETAILS = {kind.file_name: kind.details for kind in FORMATS.values() if kind.details}
"""Name of an artefact to what reads from it what is recorded beside its digest."""

_PACKAGES = ("regnet-converters", "torch", "numpy", "onnx", "onnxruntime")


def conversion_record(
    inspection: Inspection,
    written: Written,
    report: Report | None,
    options: ConvertOptions,
    folder: Path,
) -> dict[str, Any]:
    """The content of ``conversion.json``: nothing in it depends on time, place or machine.

    Args:
        inspection: The recognised and planned source.
        written: Digests of the source and of the weights files.
        report: The verdicts; None if there are none yet.
        options: How it was converted.
        folder: Where all other files lie already.
    """
    from importlib.metadata import version

    files = (path for path in folder.rglob("*") if path.is_file())
    names = sorted(path.relative_to(folder).as_posix() for path in files)
    return {
        "schema": SCHEMA,
        "source": {
            "file": inspection.path.name,
            "sha256": dict(written.source),
            "size": inspection.size,
            "container": inspection.container,
            "framework": inspection.source.framework,
        },
        **planned_record(inspection),
        "options": options_record(options, ConvertedFolder(folder)),
        "files": {
            name: file_record(folder, name, written.weights.get(name))
            for name in names
            if name != REPORT_NAME
        },
        "versions": {name: version(name).split("+")[0] for name in _PACKAGES},
        "verification": NOT_VERIFIED if report is None else report.to_dict(),
    }


def planned_record(inspection: Inspection) -> dict[str, Any]:
    """What ``conversion.json`` says that is known before a weight is read."""
    return {
        "architecture": architecture_record(inspection),
        "decisions": [
            {"topic": d.topic, "value": d.value, "reason": d.reason}
            for d in inspection.source.decisions
        ],
        "plan": [
            {"source": step.source_name, "target": step.target.name, "action": step.action}
            for step in inspection.plan.steps
        ],
        "skipped": dict(inspection.plan.skipped),
    }


def options_record(options: ConvertOptions, folder: ConvertedFolder) -> dict[str, Any]:
    """Options that neither the plan nor ``config.json`` tells, without the names of files."""
    images = None
    if "onnx-int8" in options.formats:
        from converters.calibration import images_sha256

        images = images_sha256(folder, options.calibration_images)
    return {
        "formats": list(options.formats),
        "share_weights": options.share_weights,
        "calibration_images": images,
        "max_shard_size": options.max_shard_size,
        "allow_nonfinite": options.allow_nonfinite,
    }


def file_record(folder: Path, name: str, sha256: str | None = None) -> dict[str, Any]:
    """What is recorded of a folder's file; pass its sha256 if it is known already."""
    path = folder / name
    own = _DETAILS[name](path) if name in _DETAILS else {}
    return {"sha256": sha256 or sha256_of(path), "size": path.stat().st_size} | own


def changed_files(folder: Path) -> tuple[tuple[str, ...], dict[str, str]]:
    """Compare files with ``conversion.json``.

    Returns:
        Names of those that are missing or have another sha256 than recorded, and the sha256 of each
        that is as it was; both empty without a record.
    """
    path = folder / REPORT_NAME
    if not path.is_file():
        return (), {}
    changed: list[str] = []
    unchanged: dict[str, str] = {}
    try:
        recorded = json.loads(path.read_text(encoding="utf-8"))["files"]
        for name, entry in sorted(recorded.items()):
            digest = sha256_of(folder / name) if (folder / name).is_file() else None
            if digest is None or digest != entry["sha256"]:
                changed.append(name)
            else:
                unchanged[name] = digest
    except (ValueError, KeyError, TypeError, AttributeError):
        return (REPORT_NAME,), {}
    return tuple(changed), unchanged


def architecture_record(inspection: Inspection) -> dict[str, Any]:
    """Name, shape and cost of the network, at its own image size."""
    source = inspection.source
    config = source.config
    cost = complexity(config, source.transform.crop)
    return {
        "name": inspection.network_name,
        "layer_type": config.layer_type,
        "depths": config.depths,
        "hidden_sizes": config.hidden_sizes,
        "groups_width": config.groups_width,
        "embedding_size": config.embedding_size,
        "num_channels": config.num_channels,
        "num_labels": config.num_labels if source.has_classifier else 0,
        "parameters": cost.parameters,
        "flops": cost.flops,
        "activations": cost.activations,
        "image_size": source.transform.crop,
    }


def write_json(path: Path, record: Mapping[str, Any]) -> None:
    """Write a record as readable JSON."""
    text = json.dumps(record, indent=2, ensure_ascii=False, allow_nan=False)
    path.write_text(text + "\n", encoding="utf-8")


def write_card(folder: Path, inspection: Inspection, report: Report | None) -> None:
    """Write the model card: front matter, what it is, what was measured, how to use it.

    Args:
        folder: The converted folder, artefacts included.
        inspection: The recognised and planned source.
        report: The verdicts; None if there are none yet.
    """
    name = inspection.network_name or f"RegNet{inspection.source.config.layer_type.upper()}"
    architecture = architecture_record(inspection)
    front_matter = {
        "library_name": "transformers",
        "pipeline_tag": "image-classification"
        if inspection.source.has_classifier
        else "image-feature-extraction",
        "tags": ["regnet", "onnx", "torchscript", inspection.source.framework],
        "model_name": name,
        **_licence_fields(inspection.source.licence),
    }
    lines = [
        "---",
        *(f"{key}: {json.dumps(value)}" for key, value in front_matter.items()),
        "---",
        "",
        f"# {name}",
        "",
        (
            f"Converted from a {inspection.source.framework} checkpoint: "
            f"{architecture['parameters']:,} parameters, {architecture['flops'] / 1e9:.3f} GFLOPs "
            f"at {architecture['image_size']} pixels."
        ),
        "",
        "| decision | value | reason |",
        "|---|---|---|",
        *(
            f"| {_cell(d.topic)} | {_cell(d.value)} | {_cell(d.reason)} |"
            for d in inspection.source.decisions
        ),
        "",
        "## Verification",
        "",
        *_verification(report),
    ]
    card = with_usage("\n".join(lines), ConvertedFolder(folder))
    (folder / CARD_NAME).write_text(card, encoding="utf-8")


def _cell(text: str) -> str:
    """Text for a table, which may quote the checkpoint: neither markup nor another row or line."""
    return html.escape(printable(text), quote=False).replace("|", "\\|")


def _verification(report: Report | None) -> list[str]:
    if report is None:
        return ["Not verified: converted with `--no-verify`. Run `regnet verify` on this folder."]
    return [
        "Errors against the float64 oracle, in units of float32 PyTorch's own error.",
        "",
        "| file | runtime | RMS ratio | largest ratio | verdict |",
        "|---|---|---|---|---|",
        *(
            f"| {v.artefact} | {v.runtime} | {number(v.worst('rms_ratio'))} | "
            f"{number(v.worst('max_ratio'))} | {v.outcome}{_left_out(v)} |"
            for v in report.verdicts
        ),
        "",
        "`regnet verify` repeats this from the folder alone.",
    ]


def _left_out(verdict: Verdict) -> str:
    return f", {verdict.not_compared} not compared" if verdict.not_compared else ""


def _licence_fields(licence: str | None) -> dict[str, str]:
    """Front matter on a licence, in the Hub's terms: those without an id there are ``other``."""
    if licence is None or licence in _HUB_LICENCES:
        return {"license": licence} if licence else {}
    return {"license": "other", "license_name": licence}
