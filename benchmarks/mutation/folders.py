"""Faults in a folder's own files, with no checksum to notice them: golden vectors must."""

from __future__ import annotations

import json
import shutil
import warnings
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from safetensors.numpy import load_file, save_file

from benchmarks.mutation.judging import Outcome, reasons
from converters.errors import ConversionError
from converters.folder.folder import GOLDEN_NAME, ONNX_NAME, ConvertedFolder
from converters.formats.format import ExportOptions
from converters.formats.registry import FORMATS
from converters.parity.verify import verify_folder
from regnet.config import CONFIG_NAME, TRUNK_ARCHITECTURE
from regnet.files.json_file import PREPROCESSOR_NAME
from regnet.files.safetensors_file import WEIGHTS_NAME

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from numpy.typing import NDArray

    from benchmarks.mutation.subjects import Subject

    Array = NDArray[Any]
    FolderFault = Callable[[Path], None]

FORMS = {"folder": False, "folder, exported again": True}
"""Whether the artefact was written after the fault, and so agrees with it."""


def _setting(name: str, **fields: Any) -> FolderFault:
    """Other values in a JSON file."""
    return partial(_rewrite, name=name, change=lambda content: content | fields)


def _rewrite(folder: Path, name: str, change: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    path = folder / name
    path.write_text(json.dumps(change(json.loads(path.read_text()))))


def _in_bgr(content: dict[str, Any]) -> dict[str, Any]:
    return content | {key: content[key][::-1] for key in ("image_mean", "image_std")}


def _smaller_groups(content: dict[str, Any]) -> dict[str, Any]:
    return content | {"groups_width": content["groups_width"] // 2}


def _labels_off_by_one(content: dict[str, Any]) -> dict[str, Any]:
    """Of a classifier; without one, labels mean nothing."""
    if content["architectures"] == [TRUNK_ARCHITECTURE]:
        return content
    labels = content.get("id2label") or {str(index): f"LABEL_{index}" for index in range(2)}
    names = [*labels.values()]
    shifted = dict(zip(labels, [*names[1:], names[0]], strict=True))
    return content | {"id2label": shifted, "label2id": {v: int(k) for k, v in shifted.items()}}


def _weights(end: str, change: Callable[[Array], Array]) -> FolderFault:
    """Another tensor in place of the middle one of those whose names end so."""

    def plant(folder: Path) -> None:
        state = load_file(folder / WEIGHTS_NAME)
        names = [name for name in state if name.endswith(end)]
        name = names[len(names) // 2]
        state[name] = np.ascontiguousarray(change(state[name]))
        save_file(state, folder / WEIGHTS_NAME)

    return plant


def _flipped(array: Array, bit: int) -> Array:
    changed = array.copy()
    changed.reshape(-1).view(np.uint32)[changed.size // 2] ^= np.uint32(1 << bit)
    return changed


_KERNEL = "convolution.weight"

FOLDER_FAULTS: dict[str, FolderFault] = {
    **{
        f"config.json: hidden_act {name}": _setting(CONFIG_NAME, hidden_act=name)
        for name in ("relu", "gelu", "gelu_new", "selu", "silu")
    },
    "config.json: downsample_in_first_stage": _setting(
        CONFIG_NAME, downsample_in_first_stage=False
    ),
    "config.json: layer_type x": _setting(CONFIG_NAME, layer_type="x"),
    "config.json: layer_type y": _setting(CONFIG_NAME, layer_type="y"),
    "config.json: groups_width halved": partial(_rewrite, name=CONFIG_NAME, change=_smaller_groups),
    "config.json: labels off by one": partial(
        _rewrite, name=CONFIG_NAME, change=_labels_off_by_one
    ),
    "weights: BGR stem": _weights("embedder.convolution.weight", lambda array: array[:, ::-1]),
    "weights: bias dropped": _weights("normalization.bias", np.zeros_like),
    "weights: stale mean": _weights("running_mean", np.zeros_like),
    "weights: kernel rounded to float16": _weights(
        _KERNEL, lambda array: array.astype(np.float16).astype(np.float32)
    ),
    "weights: middle mantissa bit": _weights(_KERNEL, partial(_flipped, bit=11)),
    "weights: lowest mantissa bit": _weights(_KERNEL, partial(_flipped, bit=0)),
    "preprocessor_config.json: BGR": partial(_rewrite, name=PREPROCESSOR_NAME, change=_in_bgr),
    "preprocessor_config.json: size": _setting(PREPROCESSOR_NAME, size={"shortest_edge": 56}),
    "preprocessor_config.json: crop": _setting(PREPROCESSOR_NAME, crop_pct=1.0),
}
"""By file and fault; each leaves ``conversion.json`` out, so that no checksum can notice."""

EXPLAINED = {
    "preprocessor_config.json": "images are prepared before the network, so golden vectors cannot "
    "tell; rewritten together with the artefact, the folder agrees with itself, and only the "
    "checksums in conversion.json know better",
    "config.json: labels off by one": "names of classes are no output of the network; rewritten "
    "together with the artefact, only the checksums in conversion.json know better",
}
"""Why a kind can survive that begins so, where the artefact was exported again."""


def folder_outcomes(subject: Subject, path: Path, files: tuple[str, ...] = ()) -> Iterator[Outcome]:
    """Plant in copies of a folder and verify each from nothing but itself.

    Args:
        subject: Whose folder is copied.
        path: Where to; what is there is overwritten.
        files: How the kinds begin that are planted; all without any.
    """
    for kind, fault in FOLDER_FAULTS.items():
        if files and not kind.startswith(files):
            continue
        for form, exported_again in FORMS.items():
            shutil.rmtree(path, ignore_errors=True)
            subject.copy(path)
            before = _contents(path)
            fault(path)
            if _contents(path) != before:
                yield _judged(subject, path, kind, form, exported_again)


def _contents(folder: Path) -> dict[str, Any]:
    texts = {name: (folder / name).read_text() for name in (CONFIG_NAME, PREPROCESSOR_NAME)}
    contents: dict[str, Any] = {name: json.loads(text) for name, text in texts.items()}
    return contents | {WEIGHTS_NAME: (folder / WEIGHTS_NAME).read_bytes()}


def _judged(subject: Subject, path: Path, kind: str, form: str, exported_again: bool) -> Outcome:
    place = kind.partition(":")[0]
    folder = ConvertedFolder(path)
    try:
        if exported_again:
            FORMATS["onnx"].export(folder, path / ONNX_NAME, ExportOptions())
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that tensors do not fit is said again, as an error
            report = verify_folder(folder)
    except (ConversionError, ValueError) as error:
        refusal = str(error).replace(str(path), subject.name)
        return Outcome(kind, subject.name, form, place, True, False, False, refusal)
    verdicts = {verdict.artefact: verdict for verdict in report.verdicts}
    _, tensors, structure = reasons(verdicts[ONNX_NAME])
    golden = not verdicts[GOLDEN_NAME].passed
    numbers = golden or any(m.failure for v in report.verdicts for m in v.measurements)
    reason = "; ".join(report.failures) or verdicts[ONNX_NAME].reason
    return Outcome(kind, subject.name, form, place, numbers, tensors, structure, reason)
