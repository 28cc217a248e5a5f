"""Where an ONNX file says its weights lie: beside it, or nothing is opened.

Runtimes before 2026 followed any path (CVE-2024-27318, CVE-2024-5187); newer ones refuse with words
for programmers. So it is looked at before a runtime sees the file.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from converters.checkpoint.values import printable
from converters.errors import InputError, UnsafeInputError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from onnx import GraphProto, ModelProto

_READ = 1 << 28
"""Bytes of a file that is looked at; larger ones hold their weights, as sharing ones are small."""


def require_readable(path: Path) -> None:
    """Refuse an ONNX file whose weights lie elsewhere, or that is of a version not known yet.

    What is no ONNX file at all is left to the runtime.

    Raises:
        UnsafeInputError: If a location leads out of the file's folder.
        InputError: If opset or format are newer than the installed onnx knows.
    """
    import onnx

    if path.stat().st_size > _READ:
        return
    try:
        model = onnx.load(path, load_external_data=False)
    except Exception:  # noqa: BLE001 -- protobuf's own, of which the runtime says more
        return
    _require_versions(model, path.name)
    for location in sorted(set(_locations(model.graph))):
        if location.startswith("/") or "\\" in location or ":" in location or ".." in location:
            raise UnsafeInputError(
                f"{path.name} reads its weights from '{printable(location)}', outside of its "
                "folder; nothing was read there, so get the file from a source you trust."
            )


def _require_versions(model: ModelProto, name: str) -> None:
    import onnx

    opset = max((o.version for o in model.opset_import if o.domain in {"", "ai.onnx"}), default=0)
    if opset > onnx.defs.onnx_opset_version() or model.ir_version > onnx.IR_VERSION:
        raise InputError(
            f"{name} is of opset {opset} and format {model.ir_version}, newer than the installed "
            "onnx knows; upgrade onnx and onnxruntime, or export it for an older opset."
        )


def _locations(graph: GraphProto) -> Iterator[str]:
    """Every location stated in a graph, and in graphs inside its nodes."""
    attributes = [attribute for node in graph.node for attribute in node.attribute]
    held = [tensor for attribute in attributes for tensor in (attribute.t, *attribute.tensors)]
    for tensor in (*graph.initializer, *held):
        yield from (stated.value for stated in tensor.external_data if stated.key == "location")
    for attribute in attributes:
        for inner in (attribute.g, *attribute.graphs):
            if inner.node or inner.initializer:
                yield from _locations(inner)
