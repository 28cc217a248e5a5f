"""Changes that are no faults, planted on purpose: they are shown to be none, and must pass.

Each comes with the reason why it changes no output whatever the input, and its outputs are compared
bit by bit with those of the right artefact. What rewrites graph or code is signed by another tool,
as such tools do: under our own mark it would not be what we write.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from onnx import ModelProto, helper, numpy_helper

from benchmarks.mutation.artefact import ScriptArtefact
from benchmarks.mutation.graphs import (
    ACTIVATION,
    POOLER,
    SUM,
    clipped,
    feed_through,
    model_of,
    nodes_where,
)
from benchmarks.mutation.judging import content_of, reasons, same_bits
from benchmarks.mutation.scripts import replace_code
from converters.formats.torchscript import CODE, MARK
from regnet.architecture import BASE_PREFIX
from regnet.wider import NORM_EPS
from tests.converters.parity.faults import sets

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from onnx import NodeProto

    from benchmarks.mutation.artefact import Artefact
    from benchmarks.mutation.graphs import NodeFault
    from benchmarks.mutation.subjects import Subject

    Plant = Callable[[Artefact, Subject], None]

_LARGEST = float(np.finfo(np.float32).max)
_NEXT_EPS = float(np.nextafter(np.float32(NORM_EPS), np.float32(1)))
_ONNX = ("ONNX", "ONNX, sharing")


@dataclass(frozen=True, slots=True)
class Equivalent:
    """A change that is no fault.

    Attributes:
        forms: Artefacts that it is planted in.
        reason: Why no output changes, whatever the input.
        plant: Makes the change.
        holds: Whether the artefact still holds the very tensors of the folder. If not, its
            certificate must say so though its numbers pass.
    """

    forms: tuple[str, ...]
    reason: str
    plant: Plant
    holds: bool = True


@dataclass(frozen=True, slots=True)
class Shown:
    """What was found about an equivalent mutant.

    Attributes:
        title: What was changed.
        subject: The network.
        form: The artefact.
        reason: Why no output changes.
        identical: Whether all outputs on all batches have the bits of the right artefact's.
        numbers: Whether the numbers passed.
        passed: Whether the whole verdict passed.
        holds: Whether it should have.
        verdict: The reason that the verdict gives.
    """

    title: str
    subject: str
    form: str
    reason: str
    identical: bool
    numbers: bool
    passed: bool
    holds: bool
    verdict: str

    @property
    def right(self) -> bool:
        """Whether everything is as it should be."""
        return self.identical and self.numbers and self.passed == self.holds


def shown(subject: Subject, form: str) -> Iterator[Shown]:
    """Plant every equivalent that the artefact has a place for, and judge it."""
    path = subject.planted(form)
    subject.artefact(form).save(path)
    right, outputs = content_of(path), subject.outputs(form, path)
    for title, equivalent in EQUIVALENTS.items():
        if form not in equivalent.forms:
            continue
        artefact = subject.artefact(form)
        equivalent.plant(artefact, subject)
        artefact.save(path)
        if content_of(path) == right:
            continue
        verdict = subject.verdict(form, path)
        yield Shown(
            title,
            subject.name,
            form,
            equivalent.reason,
            same_bits(subject.outputs(form, path), outputs),
            not reasons(verdict)[0],
            verdict.passed,
            equivalent.holds,
            verdict.reason,
        )


def _rewritten(where: str, *faults: NodeFault) -> Plant:
    """Changes of the first node of an operator and name, in a file signed by another tool."""

    def plant(artefact: Artefact, _: Subject) -> None:
        model = model_of(artefact)
        found = nodes_where(model, where)
        for node in found[:1]:
            model.producer_name = "another tool"
            for fault in faults:
                fault(model, node)

    return plant


def _summands_exchanged(_: ModelProto, node: NodeProto) -> None:
    node.input[:] = [*node.input][::-1]


def _documented(artefact: Artefact, _: Subject) -> None:
    model = model_of(artefact)
    model.doc_string = model.graph.doc_string = "Written for a test."
    model.model_version = 9
    stated = {entry.key: entry.value for entry in model.metadata_props}
    helper.set_model_props(model, stated | {"author": "a test"})
    for node in model.graph.node:
        node.doc_string = f"This is a {node.op_type}."


def _reordered(artefact: Artefact, _: Subject) -> None:
    """Attributes and initialisers backwards."""
    graph = model_of(artefact).graph
    for messages in (graph.initializer, *(node.attribute for node in graph.node)):
        copies = [type(message).FromString(message.SerializeToString()) for message in messages]
        del messages[:]
        messages.extend(copies[::-1])


def _as_numbers(artefact: Artefact, _: Subject) -> None:
    for tensor in model_of(artefact).graph.initializer:
        values = numpy_helper.to_array(tensor).ravel()
        tensor.ClearField("raw_data")
        tensor.float_data.extend(values.tolist())


def _taken_in(artefact: Artefact, _: Subject) -> None:
    for name in artefact.names():
        artefact.replace(name, artefact.array(name))


def _zeros_negated(artefact: Artefact, _: Subject) -> None:
    """Where the whole kernel is zero, as behind a norm whose weight is zero."""
    for name in artefact.names():
        if not artefact.array(name).any():
            artefact.replace(name, -artefact.array(name))


def _next_epsilon(artefact: Artefact, subject: Subject) -> None:
    """The next float32 up, in norms where no variance plus epsilon changes by it."""
    model = model_of(artefact)
    for node in model.graph.node:
        if node.op_type == "BatchNormalization":
            variance = np.asarray(subject.folder.array(f"{node.name}.running_var"))
            if np.array_equal(variance + np.float32(NORM_EPS), variance + np.float32(_NEXT_EPS)):
                model.producer_name = "another tool"
                sets(epsilon=_NEXT_EPS)(node)


def _scaled_around_relu(artefact: Artefact, subject: Subject) -> None:
    """A first layer and what follows it in the last block, by two and by a half."""
    if subject.folder.config.hidden_act != "relu":
        return
    prefix = BASE_PREFIX if subject.folder.has_classifier else ""
    stage, block = len(subject.folder.config.depths) - 1, subject.folder.config.depths[-1] - 1
    layers = f"{prefix}encoder.stages.{stage}.layers.{block}.layer"
    first, second = f"{layers}.0", f"{layers}.1"
    folded = f"{first}.folded_weight" in artefact.names()
    leaves = ("folded_weight", "folded_bias")
    norms = ("normalization.weight", "normalization.bias")
    for leaf in leaves if folded else norms:
        name = f"{first}.{leaf}"
        artefact.replace(name, artefact.array(name) * np.float32(2))
    kernel = f"{second}.{leaves[0] if folded else 'convolution.weight'}"
    artefact.replace(kernel, artefact.array(kernel) * np.float32(0.5))


def _repacked(artefact: Artefact, _: Subject) -> None:
    """Entries backwards."""
    if isinstance(artefact, ScriptArtefact):
        artefact.entries = dict(reversed(artefact.entries.items()))


def _recoded(old: str, new: str) -> Plant:
    """Other code of one meaning, without the line that says who wrote it."""

    def plant(artefact: Artefact, _: Subject) -> None:
        if isinstance(artefact, ScriptArtefact) and old.encode() in artefact.entries[CODE]:
            replace_code(artefact, MARK, "# Written by another tool.")
            replace_code(artefact, old, new)

    return plant


_transpose = feed_through("Transpose", perm=[0, 1, 3, 2])
_RELU = "return torch.relu(hidden)"

EQUIVALENTS: dict[str, Equivalent] = {
    "documentation, file version, more metadata": Equivalent(
        _ONNX, "no operator reads them", _documented
    ),
    "attributes and initialisers reordered": Equivalent(
        _ONNX, "both are looked up by name", _reordered
    ),
    "elements as numbers, not bytes": Equivalent(("ONNX",), "the values are the same", _as_numbers),
    "shared weights copied into the file": Equivalent(
        ("ONNX, sharing",), "the bytes are the same", _taken_in
    ),
    "a permutation undone": Equivalent(
        _ONNX, "two transpositions move each value back", _rewritten(SUM, _transpose, _transpose)
    ),
    "doubled and halved": Equivalent(
        _ONNX,
        "a power of two changes nothing but exponents, below an overflow at 1.7e38",
        _rewritten(SUM, feed_through("Mul", 0, 2.0), feed_through("Mul", 0, 0.5)),
    ),
    "negated twice": Equivalent(
        _ONNX,
        "the sign bit flips twice",
        _rewritten(POOLER, feed_through("Neg"), feed_through("Neg")),
    ),
    "a dropout": Equivalent(
        _ONNX, "it does nothing outside of training", _rewritten(SUM, feed_through("Dropout"))
    ),
    "ReLU twice": Equivalent(
        _ONNX, "max(max(x, 0), 0) is max(x, 0)", _rewritten(ACTIVATION, feed_through("Relu"))
    ),
    "ReLU as a clip at the largest float32": Equivalent(
        _ONNX, "nothing finite is larger", _rewritten(ACTIVATION, clipped(0, _LARGEST))
    ),
    "clipped at the largest float32": Equivalent(
        _ONNX,
        "nothing finite is larger",
        _rewritten(SUM, feed_through("Clip", 0, -_LARGEST, _LARGEST)),
    ),
    "summands exchanged": Equivalent(
        _ONNX,
        "addition commutes, in floating point as well",
        _rewritten(SUM, _summands_exchanged),
    ),
    "the next epsilon up": Equivalent(
        ("ONNX, sharing",),
        "each variance plus it rounds to the same float32",
        _next_epsilon,
    ),
    "zeros negated": Equivalent(
        ("ONNX",), "both zeros times anything finite add nothing to a bias", _zeros_negated
    ),
    "an archive packed otherwise": Equivalent(
        ("TorchScript",), "entries are looked up by name", _repacked
    ),
    "code that doubles and halves": Equivalent(
        ("TorchScript",),
        "a power of two changes nothing but exponents, below an overflow at 1.7e38",
        _recoded(_RELU, "return torch.relu(hidden * 2.) * 0.5"),
    ),
    "code of a ReLU twice": Equivalent(
        ("TorchScript",),
        "max(max(x, 0), 0) is max(x, 0)",
        _recoded(_RELU, "return torch.relu(torch.relu(hidden))"),
    ),
    "code with the epsilon spelled out": Equivalent(
        ("TorchScript",), "1e-05 is 0.00001", _recoded("1e-05", "0.00001")
    ),
    "weights doubled before a ReLU, halved behind it": Equivalent(
        (*_ONNX, "TorchScript", "LiteRT", "ncnn", "Core ML"),
        "ReLU(2 x) / 2 is ReLU(x), and powers of two are exact",
        _scaled_around_relu,
        holds=False,
    ),
}
