"""Whether an artefact that bears our mark is the one that is written for its folder.

Graph and code follow from the configuration and the exporter's revision alone, so they can be
written again and compared. What other revisions or tools wrote, or rewrote and signed, is judged by
its numbers and tensors.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from onnx import TensorProto

from converters.checkpoint.graph import LABELS, PREPROCESSING
from converters.errors import printable
from converters.formats.onnx.export import PRODUCER, REVISION
from converters.formats.onnx.form import (
    FOLDED_WEIGHT,
    NEWEST_OPSET,
    OLDEST_OPSET,
    OPSET,
    PRECISION_KEY,
    GraphForm,
    stated_stages,
)
from converters.formats.onnx.graph import build_graph
from converters.formats.onnx.preprocessing import IMAGE, with_preprocessing
from converters.formats.onnx.weights import cast_names
from converters.formats.torchscript import CODE, MARK, program_entries
from regnet.config import CONFIG_NAME
from regnet.files.dtypes import COMPUTED
from regnet.files.json_file import PREPROCESSOR_NAME
from regnet.files.reading import parse_json

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from onnx import GraphProto, ModelProto, NodeProto

    from converters.folder.folder import ConvertedFolder
    from converters.parity.contents.archive import Archive

NOT_WRITTEN = "not what is written for this configuration"
"""How every clause ends that has nothing more precise to say."""


def stated_by(model: ModelProto) -> dict[str, str]:
    """What an ONNX file states of itself, by key."""
    return {entry.key: entry.value for entry in model.metadata_props}


def metadata_faults(folder: ConvertedFolder, stated: Mapping[str, str]) -> Iterator[str]:
    """Where what an artefact states beside the network contradicts the files of its folder.

    Programs that have nothing but the artefact prepare images and name classes by it.
    """
    prepared = folder.preprocessing or None
    if prepared is not None and not _says(stated.get(PREPROCESSING), prepared):
        yield f"its metadata states another preprocessing than {PREPROCESSOR_NAME}"
    labels = {str(index): name for index, name in folder.config.id2label.items()}
    if not _says(stated.get(LABELS), labels):
        yield f"its metadata names other classes than {CONFIG_NAME}"


def graph_faults(folder: ConvertedFolder, model: ModelProto, graph: GraphProto) -> Iterator[str]:
    """What in an ONNX file of today's revision is not what is written today.

    The order of nodes and their documentation do not count.

    Args:
        folder: Whose artefact it is.
        model: The file, one that `graph_is_ours`; its own graph is not looked at.
        graph: Without the initialisers.
    """
    form = form_of(model, graph)
    written = _written(folder, graph, form)
    yield from differences(written, graph)
    if [(opset.domain, opset.version) for opset in model.opset_import] != [("", form.opset)]:
        yield f"the version of its operators is {NOT_WRITTEN}"


def differences(expected: GraphProto, graph: GraphProto) -> Iterator[str]:
    """In which nodes, inputs and outputs a graph is not the one that would be written."""
    ours, theirs = ({node.name: plain(node) for node in each.node} for each in (expected, graph))
    for name in dict.fromkeys((*ours, *theirs)):
        if ours.get(name) != theirs.get(name):
            yield f"the node {printable(name)} is {NOT_WRITTEN}"
    if len(theirs) != len(graph.node):
        yield f"the number of nodes of one name is {NOT_WRITTEN}"
    if (*graph.input, *graph.output) != (*expected.input, *expected.output):
        yield f"the list of inputs and outputs is {NOT_WRITTEN}"


def graph_is_ours(model: ModelProto) -> bool:
    """Whether an ONNX file says that it is of today's revision, and so can be compared."""
    return (model.producer_name, model.producer_version) == (PRODUCER, REVISION)


def form_of(model: ModelProto, graph: GraphProto) -> GraphForm:
    """In which form a file is: of its opset, sizes and types those that a form can have.

    Raises:
        ValueError: If it states blocks that cannot be.
    """
    opsets = {opset.version for opset in model.opset_import if not opset.domain}
    opset = max(opsets & set(range(OLDEST_OPSET, NEWEST_OPSET + 1)), default=OPSET)
    if not graph.input:
        return GraphForm(opset)
    kind = graph.input[0].type.tensor_type
    channels = 3 if graph.input[0].name == IMAGE else 1
    sizes = [max(0, dim.dim_value) or None for dim in kind.shape.dim]
    batch, height, width = (*sizes[:channels], *sizes[channels + 1 :], None, None, None)[:3]
    half = kind.elem_type == TensorProto.FLOAT16
    return GraphForm(
        opset,
        batch,
        height,
        width,
        precision="float16" if stated_precision(model) == "float16" else "float32",
        io_precision="float16" if half else "float32",
        stages=stated_stages(stated_by(model)),
    )


def stated_precision(model: ModelProto) -> str:
    """What a file says that it computes in; ``float32`` unless it says otherwise."""
    return stated_by(model).get(PRECISION_KEY, COMPUTED)


def _written(folder: ConvertedFolder, graph: GraphProto, form: GraphForm) -> GraphProto:
    """What is written today in a form; folded and with preprocessing where the file is."""
    folded = any(name.endswith(FOLDED_WEIGHT) for node in graph.node for name in node.input)
    written = build_graph(
        folder.config,
        classifier=folder.has_classifier,
        fold_norms=folded,
        casts=() if folded else cast_names(folder),
        form=form,
        network=folder.architecture,
    )
    prepares = any(value.name == IMAGE for value in graph.input)
    return with_preprocessing(folder, written, form) if prepares else written


def code_faults(folder: ConvertedFolder, archive: Archive) -> tuple[str, ...] | None:
    """Which entries of a TorchScript archive of today's revision are not what is written.

    Returns:
        None of an archive that does not say that it is of today's revision.
    """
    if CODE not in archive.names or not bytes(archive.entry(CODE)).startswith(MARK.encode()):
        return None
    return tuple(
        f"its {name} is {NOT_WRITTEN}"
        for name, data in program_entries(folder).items()
        if name not in archive.names or archive.entry(name) != data
    )


def _says(text: str | None, value: object) -> bool:
    """Whether JSON, where there is any, says this."""
    try:
        return text is None or bool(parse_json(text) == value)
    except ValueError:
        return False


def plain(node: NodeProto) -> bytes:
    """What a node computes, in one spelling."""
    copy = type(node)()
    copy.CopyFrom(node)
    copy.ClearField("doc_string")
    attributes = sorted(copy.attribute, key=lambda attribute: attribute.name)
    del copy.attribute[:]
    copy.attribute.extend(attributes)
    return bytes(copy.SerializeToString(deterministic=True))
