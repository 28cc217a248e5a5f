"""The TorchScript exporter: written from the configuration, not traced, and without torch.

Tracing runs the model, holds all its weights, and leaves names that change from run to run and the
paths of the machine inside. A RegNet is a dozen small classes; here they are written as a person
would, so that ``unzip -p model.torchscript.pt regnet/code/__torch__/regnet.py`` is good reading.
Modules, names in the state dict, and operators in their order are those of :mod:`regnet.model`.

The file, a zip::

    regnet/version                    of the operators that the code calls
    regnet/byteorder                  of the tensors
    regnet/code/__torch__/regnet.py   the classes
    regnet/constants.pkl              an empty tuple, since constants stand in the code
    regnet/data.pkl                   the modules: what each attribute holds
    regnet/extra/KEY                  what is stated of classes and images, for ``_extra_files``
    regnet/data/NAME                  the elements of one tensor, by its name in the state dict
"""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import groupby
from textwrap import indent
from typing import TYPE_CHECKING, Any

from converters.checkpoint import open_checkpoint
from converters.checkpoint.quiet import ignoring
from converters.checkpoint.torch_archive import TorchArchive, loadable
from converters.checkpoint.torch_pickle import PickledTensor
from converters.checkpoint.zip_container import EXTRA
from converters.folder.folder import TORCHSCRIPT_NAME
from converters.formats.format import DEFAULTS, INTERFACE_OPTIONS, Format
from converters.formats.stated import stated_in, stated_in_archive
from converters.formats.torch_program import TorchRuntime
from converters.formats.torchscript_module import (
    EMPTY_PICKLE,
    NAMESPACE,
    Attribute,
    ScriptModule,
    source_and_pickle,
)
from regnet.architecture import (
    Act,
    Add,
    AveragePool,
    Conv,
    EvoNorm,
    GroupNorm,
    Norm,
    Normalise,
    Softmax,
)
from regnet.files.dtypes import COMPUTED, DTYPES, cast_pieces, item_size

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence
    from pathlib import Path

    from converters.checkpoint import Checkpoint, StoredTensor
    from converters.folder.folder import ConvertedFolder
    from converters.formats.format import ExportOptions
    from regnet.architecture import Operation

OPERATOR_VERSION = b"3\n"
"""That of torch 1.6: later ones read it, and know which operators have changed since (gelu)."""

ACTIVATIONS = {
    "relu": "torch.relu(hidden)",
    "gelu": "torch.gelu(hidden)",
    "gelu_new": "0.5 * hidden * (1.0 + torch.tanh("
    f"{math.sqrt(2.0 / math.pi)} * (hidden + 0.044715 * torch.pow(hidden, 3.0))))",
    "selu": "torch.selu(hidden)",
    "silu": "torch.silu(hidden)",
}
"""TorchScript of each ``hidden_act``."""

REVISION = "2"
"""Of the programs written here, kept in each file. Raise it with every change of what is written
for a configuration: a file of another revision is not held to the programs of this one."""

MARK = f"# A RegNet, written from its configuration by regnet-converters, revision {REVISION}."
"""How the code of an archive begins that this revision wrote."""

_PREAMBLE = """\
{mark}
# data/ holds each tensor under its name in the state dict.

def activation(hidden: Tensor) -> Tensor:
  return {activation}

"""

CODE = f"code/__torch__/{NAMESPACE}.py"
"""The entry with the classes, below the root of the archive."""

# In batch_norm: never in training, whatever self.training says; momentum is unused; cuDNN may help.
_BODIES = {
    "PointwiseConv2d": """
return torch.conv2d(hidden, self.weight, self.bias)
""",
    "BatchNorm2d": """
mean, variance = self.running_mean, self.running_var
return torch.batch_norm(
    hidden, self.weight, self.bias, mean, variance, False, 0.1, {eps}, True)
""",
    "Attention": """
hidden = torch.{act}(getattr(self, "0").forward(hidden))
return torch.sigmoid(getattr(self, "2").forward(hidden))
""",
    "Linear": """
return torch.linear(hidden, self.weight, self.bias)
""",
    "RegNetConvLayer": """
hidden = self.normalization.forward(self.convolution.forward(hidden))
return __torch__.regnet.activation(hidden)
""",
    "RegNetLinearConvLayer": """
return self.normalization.forward(self.convolution.forward(hidden))
""",
    "RegNetSELayer": """
gate = self.attention.forward(torch.adaptive_avg_pool2d(hidden, [1, 1]))
return hidden * gate
""",
    "RegNetBlock": """
return __torch__.regnet.activation(self.layer.forward(hidden) + hidden)
""",
    "RegNetProjectionBlock": """
hidden = self.layer.forward(hidden) + self.shortcut.forward(hidden)
return __torch__.regnet.activation(hidden)
""",
    "RegNetEmbeddings": """
return self.embedder.forward(hidden)
""",
    "RegNetEncoder": """
return self.stages.forward(hidden)
""",
    "RegNetModel": """
hidden = self.encoder.forward(self.embedder.forward(pixel_values))
return hidden, torch.adaptive_avg_pool2d(hidden, [1, 1])
""",
    "RegNetForImageClassification": """
last_hidden_state, pooler_output = self.regnet.forward(pixel_values)
return self.classifier.forward(torch.flatten(pooler_output, 1))
""",
    "RegNetWithoutLabels": """
last_hidden_state, pooler_output = self.regnet.forward(pixel_values)
return torch.flatten(pooler_output, 1)
""",
}
"""What the forward method of each class does; sequences and convolutions are made where they are
needed. Braces stand for what the operation says."""

_RETURNED = {
    "RegNetModel": "Tuple[Tensor, Tensor]",
    "RegNetForImageClassification": "Tensor",
    "RegNetWithoutLabels": "Tensor",
}
"""What those give that take an image."""

# Numbers and not attributes, as torch writes them too: coremltools and pnnx want constants.
_CONVOLUTION = """
return torch.conv2d(
    hidden, self.weight, None, [{stride}, {stride}], [{padding}, {padding}], [1, 1], {groups})
"""

# As regnet.layers.same_padded has it.
_SAME_PADDED = """
height, width = torch.size(hidden, 2), torch.size(hidden, 3)
vertical = ops.prim.max((height - 1) // {stride} * {stride} + {size} - height, 0)
horizontal = ops.prim.max((width - 1) // {stride} * {stride} + {size} - width, 0)
left, top = horizontal // 2, vertical // 2
hidden = torch.constant_pad_nd(hidden, [left, horizontal - left, top, vertical - top], 0.0)
"""

_AVERAGE = "hidden = torch.avg_pool2d(hidden, [2, 2], [{stride}, {stride}], [0, 0], True, False)"

_GROUP_NORM = """
return torch.group_norm(hidden, {groups}, self.weight, self.bias, {eps}, True)
"""

_EVONORM = """
size = torch.size(hidden)
grouped = torch.reshape(hidden, [size[0], {groups}, -1, size[2], size[3]])
deviation = torch.sqrt(torch.var(grouped, [2, 3, 4], False, True) + {eps})
deviation = torch.reshape(torch.expand_as(deviation, grouped), size)
hidden = {activated} / deviation
return hidden * torch.view(self.weight, [-1, 1, 1]) + torch.view(self.bias, [-1, 1, 1])
"""

# In the type and on the device of the images; constants of the archive would be on the CPU alone.
# `/` was another operator in this version, for which torch would put a branch.
_NORMALISED = """
kind, device = ops.prim.dtype(pixel_values), ops.prim.device(pixel_values)
mean = torch.view(torch.tensor({mean}, dtype=kind, device=device), [-1, 1, 1])
std = torch.view(torch.tensor({std}, dtype=kind, device=device), [-1, 1, 1])
pixel_values = torch.true_divide(pixel_values - mean, std)
"""

_EVONORM_ACTIVATED = "hidden * torch.sigmoid(hidden * torch.view(self.v, [-1, 1, 1]))"


def export_torchscript(folder: ConvertedFolder, path: Path, _: ExportOptions = DEFAULTS) -> None:
    """Write a folder's network as a TorchScript file, which ``torch.jit.load`` alone can run.

    Its ``forward(pixel_values)`` takes (N, num_channels, H, W) in float32, any N, H and W, and
    returns the logits (N, num_labels); of a headless folder, ``last_hidden_state``
    (N, C, H/32, W/32) and ``pooler_output`` (N, C, 1, 1). Weights that the folder stores in another
    dtype are float32 here; they pass through memory in pieces. Batch norms use their running
    statistics even in training mode. Equal folders give equal bytes.

    Raises:
        InputError: Also if a tensor's dtype is not one torch computes in.
        StorageError: If the weights cannot be read or change meanwhile.
    """
    program = program_entries(folder)
    with TorchArchive(path, NAMESPACE) as archive:
        for name, data in program.items():
            archive.add(name, len(data), [data])
        for key, text in stated_in(folder).items():
            archive.add(EXTRA + key, len(text.encode()), [text.encode()])
        for file in folder.weight_files:
            with open_checkpoint(file) as weights:
                for slot in folder.architecture.slots:
                    stored = folder.tensors[slot.name]
                    if stored.storage.path == file:
                        size = stored.numel * item_size(_held_as(stored))
                        archive.add(f"data/{slot.name}", size, _elements(weights, stored))


def program_entries(folder: ConvertedFolder) -> dict[str, bytes]:
    """Everything of a folder's archive but the tensors: entry below its root to content.

    Raises:
        InputError: If the folder is incomplete, or a tensor's dtype is not one torch computes in.
    """
    operations = folder.architecture.operations
    inside = [each for each in operations if not isinstance(each, Normalise | Softmax)]
    network = _module(folder, inside)
    network = replace(network, forward=_with_ends(network.forward, operations))
    code, objects = source_and_pickle(network)
    preamble = _PREAMBLE.format(mark=MARK, activation=ACTIVATIONS[folder.config.hidden_act])
    return {
        "version": OPERATOR_VERSION,
        "byteorder": b"little",
        CODE: (preamble + code).encode(),
        "constants.pkl": EMPTY_PICKLE,
        "data.pkl": objects,
    }


def _with_ends(forward: str, operations: Sequence[Operation]) -> str:
    """The method of the whole network, which may normalise what it is given, or return more."""
    head, *lines = forward.splitlines()
    *lines, last = (line.removeprefix("  ") for line in lines)
    if isinstance(first := operations[0], Normalise):
        numbers = {"mean": list(first.mean), "std": list(first.std)}
        lines = [*_NORMALISED.format(**numbers).strip().splitlines(), *lines]
    if isinstance(operations[-1], Softmax):
        last = f"return torch.softmax({last.removeprefix('return ')}, 1)"
    return "\n".join((head, indent("\n".join((*lines, last)), "  ")))


def _held_as(stored: StoredTensor) -> str:
    """The dtype in the archive: weights are float32 there, counters and the like as stored."""
    return COMPUTED if stored.dtype in DTYPES else stored.dtype


def _elements(weights: Checkpoint, stored: StoredTensor) -> Iterable[bytes]:
    """A tensor's bytes in pieces, as they are where its dtype is that of the archive."""
    if stored.dtype == _held_as(stored):
        return weights.chunks(stored)
    pieces = cast_pieces(weights.array(stored), stored.dtype, _held_as(stored))
    return (piece.tobytes() for _, piece in pieces)


_KINDS = {
    ("convolution", "normalization"): "RegNetLinearConvLayer",
    ("convolution", "normalization", "activation"): "RegNetConvLayer",
    ("pooler", "attention", "mul"): "RegNetSELayer",
    ("layer", "add", "activation"): "RegNetBlock",
    ("shortcut", "layer", "add", "activation"): "RegNetProjectionBlock",
    ("embedder",): "RegNetEmbeddings",
    ("stages",): "RegNetEncoder",
}
"""The class of a module by what it calls, in order."""

_SEQUENCES = {
    "layer": "BlockLayers",
    "layers": "Stage{0}Layers",
    "stages": "Stages",
    "classifier": "Classifier",
}
"""That of a sequence by its name; the number is the stage's."""


def _module(  # noqa: PLR0911 -- one for each kind
    folder: ConvertedFolder, operations: Sequence[Operation], depth: int = 0
) -> ScriptModule:
    """Nest operations as their names say.

    Args:
        folder: Whose tensors they hold.
        operations: Those whose names begin with the module's, in order.
        depth: How many parts the module's name has.
    """
    whole = operations[0].name.split(".")
    if len(whole) == depth:
        return _leaf(folder, operations[0])
    below = {
        part: list(group)
        for part, group in groupby(operations, lambda operation: operation.name.split(".")[depth])
    }
    parts = {
        part: _module(folder, group, depth + 1)
        for part, group in below.items()
        if any(operation.slots for operation in group)
    }
    match whole[:depth]:
        case [] if folder.has_classifier:
            labelled = "classifier" in parts
            kind = "RegNetForImageClassification" if labelled else "RegNetWithoutLabels"
            return _script(kind, parts)
        case [] | ["regnet"]:
            return _script("RegNetModel", parts, _trunk(parts, below))
        case [*_, "embedder"] if "0" in below:
            return _script("Stem", parts, _sequence(parts))
        case [*_, "stages", number]:
            return _script(f"RegNetStage{number}", parts, "return self.layers.forward(hidden)")
        case [*above, last] if last in _SEQUENCES:
            return _script(_SEQUENCES[last].format(*above[-1:]), parts, _sequence(parts))
    if tuple(below) in _KINDS:
        return _script(_KINDS[tuple(below)], parts)
    if whole[depth - 1] == "attention":
        body = _BODIES["Attention"].format(act=getattr(below["1"][0], "function", ""))
        return _script("Attention", parts, body)
    kind = "RegNetBlock" if "layer" in below else "RegNetConvLayer"
    return _script(kind, parts, _in_order(below))


def _sequence(parts: Iterable[str]) -> str:
    """What a module does whose parts are numbered."""
    calls = [f'hidden = getattr(self, "{name}").forward(hidden)' for name in parts]
    return "\n".join([*calls, "return hidden"])


def _trunk(parts: Collection[str], below: Collection[str]) -> str:
    """What the trunk does; empty if it is that of a RegNetX or RegNetY."""
    if "head" not in below:
        return ""
    head = "self.head.forward" if "head" in parts else "__torch__.regnet.activation"
    features, pooled = _BODIES["RegNetModel"].strip().splitlines()
    return "\n".join([features, f"hidden = {head}(hidden)", pooled])


def _in_order(below: Mapping[str, Sequence[Operation]]) -> str:
    """What a module of no RegNetX or RegNetY does: what is in it, one after another."""
    lines = []
    for part, operations in below.items():
        match operations:
            case [AveragePool(stride=stride)]:
                lines.append(_AVERAGE.format(stride=stride))
            case [Act()]:
                lines.append("hidden = __torch__.regnet.activation(hidden)")
            case [Add()]:
                lines.append("hidden = hidden + shortcut")
            case _ if part == "shortcut":
                lines.append("shortcut = self.shortcut.forward(hidden)")
            case _:
                if part == "layer" and "add" in below and "shortcut" not in below:
                    lines.append("shortcut = hidden")
                lines.append(f"hidden = self.{part}.forward(hidden)")
    return "\n".join([*lines, "return hidden"])


def _leaf(folder: ConvertedFolder, operation: Operation) -> ScriptModule:
    """A module of tensors."""
    tensors = {}
    for slot in operation.slots:
        stored = folder.tensors[slot.name]
        tensors[slot.leaf] = PickledTensor(slot.name, slot.name, stored, _held_as(stored))
    match operation:
        case Conv(slots=[_], stride=stride, kernel_size=size, groups=groups, padding=padding):
            body = _CONVOLUTION.format(
                stride=stride, padding=size // 2 if padding == "symmetric" else 0, groups=groups
            )
            if padding == "same":
                body = _SAME_PADDED.format(stride=stride, size=size).rstrip() + body
            return _script("Conv2d", tensors, body)
        case Conv():
            return _script("PointwiseConv2d", tensors)
        case Norm(eps=eps):
            return _script("BatchNorm2d", tensors, _BODIES["BatchNorm2d"].format(eps=eps))
        case GroupNorm(groups=groups, eps=eps):
            return _script("GroupNorm", tensors, _GROUP_NORM.format(groups=groups, eps=eps))
        case EvoNorm(groups=groups, eps=eps):
            activated = _EVONORM_ACTIVATED if "v" in tensors else "hidden"
            body = _EVONORM.format(groups=groups, eps=eps, activated=activated)
            return _script("EvoNormS0a", tensors, body)
    return _script("Linear", tensors)


def _script(kind: str, attributes: Mapping[str, Attribute], body: str = "") -> ScriptModule:
    """A module; what its method does stands in :data:`_BODIES` unless it is given."""
    argument, returns = "hidden", "Tensor"
    if kind in _RETURNED:
        argument, returns = "pixel_values", _RETURNED[kind]
    head = f"def forward(self, {argument}: Tensor) -> {returns}:\n"
    return ScriptModule(kind, attributes, head + indent((body or _BODIES[kind]).strip(), "  "))


class TorchScriptRuntime(TorchRuntime):
    """Runs a TorchScript file, which torch reads whole, packing a tensor at a time."""

    library = "torch.jit"
    copies = 1.25

    def _loaded(self, path: Path) -> Any:
        import torch

        # TorchScript is deprecated, and written nevertheless because users' runtimes want it.
        said = ignoring(DeprecationWarning, FutureWarning, message=r"`torch\.jit\.load` is")
        with loadable(path), said:
            module = torch.jit.load(path, map_location="cpu")  # type: ignore[no-untyped-call]
        return module.eval()


TORCHSCRIPT = Format(
    name="torchscript",
    title="TorchScript",
    file_name=TORCHSCRIPT_NAME,
    export=export_torchscript,
    load=TorchScriptRuntime,
    options=INTERFACE_OPTIONS,
    states=stated_in_archive,
    certificate="converters.parity.contents.torchscript:read_torchscript",
    intermediates="converters.parity.locate.intermediates_torchscript:run_torchscript",
    usage=("import torch", 'program = torch.jit.load("{file}")', "outputs = program(pixels)"),
    runs_beside=True,
    in_torch=True,
)
