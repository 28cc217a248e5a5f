"""The ONNX exporter: self-contained, or sharing the weights of the folder.

*Self-contained* files carry their weights, with every batch norm folded into its convolution;
beyond protobuf's limit, or when asked, they do so in a second file beside the first. *Sharing*
files point into ``model.safetensors`` by offset and length, as ONNX's external data allows, and
keep batch norms as nodes, which every runtime folds when it loads them.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from onnx import ModelProto, OperatorSetIdProto, helper

from converters.checkpoint.digests import sha256_of
from converters.checkpoint.graph import BLOCKS
from converters.errors import DISTRIBUTION, InputError
from converters.formats.format import DEFAULTS
from converters.formats.onnx.file import OnnxFile
from converters.formats.onnx.form import PRECISION_KEY, SIZES_KEY, stages_text
from converters.formats.onnx.graph import build_graph
from converters.formats.onnx.weights import cast_names, folded_weights, shared_weights
from converters.formats.stated import as_json, stated_in
from regnet.files.dtypes import COMPUTED

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from converters.folder.folder import ConvertedFolder
    from converters.formats.format import ExportOptions
    from converters.formats.onnx.form import GraphForm

PRODUCER = DISTRIBUTION

REVISION = "2"
"""Of the graphs written here, kept in each file. Raise it with every change of what is written for
a configuration: a file of another revision is not held to the graphs of this one."""

SELF_CONTAINED_LIMIT = 2_000_000_000
"""In bytes; protobuf reads no message of 2**31 bytes or more, and this leaves a margin."""

WEIGHTS_KEY = "weights_sha256"
"""Metadata key of a sharing file: JSON, name of each weights file to its sha256."""


def export_onnx(folder: ConvertedFolder, path: Path, options: ExportOptions = DEFAULTS) -> None:
    """Write the folder's network as ONNX; two exports give the same bytes.

    Input and outputs are those of :func:`converters.formats.onnx.graph.build_graph`. They compute
    in float32 whatever the folder stores: a self-contained file carries float32, a sharing one
    casts what it points to.

    With ``share_weights`` the file, which must lie in the folder itself, points into the folder's
    safetensors instead of carrying weights; a network beyond 2 GB, which protobuf cannot carry, is
    always shared. Digests that ``weights_sha256`` lacks are computed.
    """
    file = None if options.share_weights else self_contained(folder, options.form)
    if file is None or file.nbytes > SELF_CONTAINED_LIMIT:
        file = _sharing(folder, path, options.weights_sha256 or {}, options.form)
    file.write(path)


def export_float16(folder: ConvertedFolder, path: Path, options: ExportOptions) -> None:
    """Write the folder's network as ONNX in float16; see :func:`export_onnx_alone`."""
    form = options.form.in_float16(io=options.io_float16)
    export_onnx_alone(folder, path, replace(options, form=form))


def export_onnx_alone(folder: ConvertedFolder, path: Path, options: ExportOptions) -> None:
    """Write the folder's network as ONNX that needs nothing of the folder.

    With ``external_data`` the weights go into a file of their own, named like the artefact with
    :data:`converters.formats.onnx.file.DATA_SUFFIX`; beyond 2 GB, which protobuf cannot carry, they
    always do.

    Raises:
        InputError: Also if float16 cannot hold its weights.
    """
    write_alone(self_contained(folder, options.form), path, external_data=options.external_data)


def write_alone(file: OnnxFile, path: Path, *, external_data: bool = False) -> None:
    """Write one file, or two where that is asked for or protobuf's limit wants it."""
    if external_data or file.nbytes > SELF_CONTAINED_LIMIT:
        file.write_pair(path)
    else:
        file.write(path)


def self_contained(
    folder: ConvertedFolder, form: GraphForm, more: Mapping[str, str] | None = None
) -> OnnxFile:
    """The network with folded weights; ``more`` is what else its metadata states.

    Raises:
        InputError: If the folder cannot be used.
    """
    graph = build_graph(
        folder.config,
        classifier=folder.has_classifier,
        fold_norms=True,
        form=form,
        network=folder.architecture,
    )
    weights = tuple(folded_weights(folder, form.precision, form.stages))
    return OnnxFile(_model(folder, form, more), graph, weights)


def _sharing(
    folder: ConvertedFolder, path: Path, weights_sha256: Mapping[str, str], form: GraphForm
) -> OnnxFile:
    if path.parent.resolve() != folder.path.resolve():
        raise InputError(
            f"{path.name} can share weights only with the folder it lies in; write it beside "
            "them, or export it self-contained, which works up to 2 GB."
        )
    classifier, casts = folder.has_classifier, cast_names(folder)
    graph = build_graph(
        folder.config,
        classifier=classifier,
        fold_norms=False,
        casts=casts,
        form=form,
        network=folder.architecture,
    )
    graph.initializer.extend(shared_weights(folder))
    digests = {
        file.name: weights_sha256.get(file.name) or sha256_of(file) for file in folder.weight_files
    }
    return OnnxFile(_model(folder, form, {WEIGHTS_KEY: as_json(digests)}), graph)


def _model(
    folder: ConvertedFolder, form: GraphForm, more: Mapping[str, str] | None = None
) -> ModelProto:
    """Everything but the graph; nothing in it tells the machine or what is installed there.

    The format is the oldest that the opset allows: runtimes refuse newer ones than they know.
    """
    opset = OperatorSetIdProto(version=form.opset)
    model = ModelProto(
        ir_version=helper.find_min_ir_version_for([opset]),
        producer_name=PRODUCER,
        producer_version=REVISION,
        opset_import=[opset],
    )
    metadata = {**stated_metadata(folder, form), **(more or {})}
    helper.set_model_props(model, dict(sorted(metadata.items())))
    return model


def stated_metadata(folder: ConvertedFolder, form: GraphForm) -> dict[str, str]:
    """What a file says of itself: what it is, its classes, and how images are prepared for it."""
    config = folder.config
    image = f"{form.io_precision} RGB image, {folder.interface.takes},"
    metadata = {
        "architecture": config.architecture_name(classifier=folder.has_classifier),
        "description": f"RegNet trunk: {image} to features.",
        "model_type": config.model_type,
    }
    if folder.has_classifier:
        metadata["description"] = f"RegNet classifier: {image} to {folder.interface.gives}."
    if form.precision != COMPUTED:
        metadata[PRECISION_KEY] = form.precision
    if form.fixed:
        metadata[SIZES_KEY] = as_json(form.fixed)
    if form.stages:
        metadata[BLOCKS] = stages_text(form.stages)
    return metadata | stated_in(folder)
