"""Opening an ONNX file: its weights lie beside it, or nothing is opened.

Runtimes before 2026 followed any path (CVE-2024-27318, CVE-2024-5187); newer ones refuse with words
for programmers. So it is looked at before a runtime sees the file, and weights outside of it are
read here: onnx's own loader refuses a file that has a second name anywhere on the disk.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from converters.checkpoint.source_file import SourceFile
from converters.errors import InputError, UnsafeInputError, printable
from regnet.files.reading import is_inside

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from onnx import ModelProto, TensorProto

_READ = 1 << 28
"""Bytes of a file that is looked at in any case; of a larger one, if it points anywhere."""

_PIECE = 1 << 20  # bytes

_POINTS = b"location"
"""Which the key of a location is, as it stands in the file."""


def require_readable(path: Path) -> tuple[str, ...]:
    """Refuse an ONNX file whose weights lie elsewhere, or that is of a version not known yet.

    What is no ONNX file at all is left to the runtime.

    Returns:
        The names of the files beside it that hold weights of it, sorted.

    Raises:
        UnsafeInputError: If a location leads out of the file's folder.
        InputError: If opset or format are newer than the installed onnx knows.
        StorageError: If it cannot be read.
    """
    with SourceFile(path) as file:
        if file.size > _READ and not _points_elsewhere(file):
            return ()
    model = parsed(path)
    return () if model is None else _require(model, path)


def open_onnx(path: Path, *, weights: bool = False) -> ModelProto:
    """Read an ONNX file that :func:`require_readable` takes.

    Args:
        path: The file.
        weights: Whether to read the weights beside it into the model.

    Raises:
        ConversionError: If :func:`require_readable` does not take it.
        ValueError: If it is no ONNX file, or its weights are not there.
    """
    model = parsed(path)
    if model is None:
        raise ValueError(f"{path.name} cannot be read as ONNX")
    _require(model, path)
    if weights:
        for tensor in _tensors(model):
            if tensor.external_data:
                _fill(tensor, path)
    return model


def parsed(path: Path) -> ModelProto | None:
    """Read an ONNX file without the weights beside it, unchecked; None if it is none.

    Raises:
        StorageError: If it cannot be read.
    """
    import onnx

    with SourceFile(path) as file:
        content = file.read(0, file.size)
    try:
        return onnx.load_model_from_string(content)
    except Exception:  # noqa: BLE001 -- protobuf's own, of which the runtime says more
        return None


def _points_elsewhere(file: SourceFile) -> bool:
    return any(
        _POINTS in file.read(start, min(_PIECE + len(_POINTS), file.size - start))
        for start in range(0, file.size, _PIECE)
    )


def _require(model: ModelProto, path: Path) -> tuple[str, ...]:
    """Check versions and locations; return the latter, sorted."""
    import onnx

    opset = max((o.version for o in model.opset_import if o.domain in {"", "ai.onnx"}), default=0)
    if opset > onnx.defs.onnx_opset_version() or model.ir_version > onnx.IR_VERSION:
        raise InputError(
            f"{path.name} is of opset {opset} and format {model.ir_version}, newer than the "
            "installed onnx knows; upgrade onnx and onnxruntime, or export it for an older opset."
        )
    stated = {_stated(tensor).get("location", "") for tensor in _tensors(model)}
    locations = tuple(sorted(filter(None, stated)))
    for location in locations:
        require_inside(location, path)
    return locations


def require_inside(location: str, path: Path) -> None:
    """Refuse what an ONNX file names as a place of its weights if that leads out of its folder.

    Raises:
        UnsafeInputError: If it does.
    """
    if location not in {"", "."} and not is_inside(location):
        raise UnsafeInputError(
            f"{path.name} reads its weights from '{printable(location)}', outside of its "
            "folder; nothing was read there, so get the file from a source you trust."
        )


def _stated(tensor: TensorProto) -> dict[str, str]:
    """Where a tensor says that its elements lie: the last word counts."""
    return {entry.key: entry.value for entry in tensor.external_data}


def _fill(tensor: TensorProto, path: Path) -> None:
    """Read the elements that a tensor points at."""
    stated = _stated(tensor)
    location = stated.get("location", "")
    file = path.parent / location
    try:
        if not file.resolve().is_relative_to(path.parent.resolve()) or not file.is_file():
            raise FileNotFoundError(location)
        offset = int(stated.get("offset", 0))
        length = int(stated.get("length", file.stat().st_size - offset))
        if min(offset, length) < 0 or offset + length > file.stat().st_size:
            raise ValueError(length)  # noqa: TRY301
        with file.open("rb") as weights:
            weights.seek(offset)
            tensor.raw_data = weights.read(length)
    except (OSError, ValueError) as error:
        where = printable(location) or "a file without a name"
        raise ValueError(f"the weights that it needs from {where} are not there") from error
    tensor.ClearField("external_data")
    tensor.ClearField("data_location")


def _tensors(message: Any) -> Iterator[TensorProto]:
    """Every tensor in a message of protobuf, be it in a graph, function or training."""
    from onnx import TensorProto

    if isinstance(message, TensorProto):
        yield message
        return
    for field, value in message.ListFields():
        if field.message_type is not None:  # no number or text
            for each in [value] if hasattr(value, "ListFields") else value:
                yield from _tensors(each)
