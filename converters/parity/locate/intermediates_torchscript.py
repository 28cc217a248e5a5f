"""Every value inside a TorchScript file: its graph, inlined, with all of them as outputs.

Inlining leaves on each operator the path of modules it was called through, which names its value.
What a module computes itself, and not by a module below it, is told by its order; what a module of
tensors computes is the last value that it makes.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from typing import TYPE_CHECKING, Any

from converters.errors import InputError, in_words
from converters.formats.reference import torch_threads
from converters.formats.torchscript import TorchScriptRuntime
from converters.parity.locate.intermediates import Intermediates
from converters.parity.locate.walk import values_of
from regnet.architecture import Flatten

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

    from converters.folder.folder import ConvertedFolder

_ACTIVATION = "activation"
_HEAD = "head"
"""Whose activation stands in the trunk, where there is no other layer in it."""

_TENSOR = "Tensor"
_FUNCTION = "UNKNOWN_INSTANCE"
"""Last in the path of an operator inside a function: ours has but one, the activation."""

_OF_NORMALISATION = ("aten::tensor", "aten::view", "aten::sub")
"""What the whole network computes on the way to normalised images."""

_MODULE = re.compile(r"([^.()]+)\(")
"""Name of a module; its class follows."""


def run_torchscript(
    folder: ConvertedFolder, path: Path, pixels: NDArray[np.float32]
) -> Intermediates:
    """Run a TorchScript file and keep the value of every operator.

    Arguments are those of `run_with_intermediates`.

    Raises:
        InputError: If this project's exporter did not write it, or not in float32.
        RuntimeError: From torch, if it is no TorchScript file.
    """
    import torch

    module = TorchScriptRuntime(path).program
    dtypes = {tensor.dtype for tensor in module.parameters()}
    if dtypes != {torch.float32}:
        raise InputError(
            f"{path.name} holds {', '.join(sorted(map(str, dtypes)))}, and errors are told in "
            "units of float32's; convert with `--dtype float32` to locate a fault."
        )
    graph = module.graph.copy()
    torch._C._jit_pass_inline(graph)  # noqa: SLF001 -- TorchScript has no public way in
    nodes = _values(graph, folder)
    modules = {operation.name for operation in values_of(folder, folded=False)}
    if 2 * len(nodes.keys() & modules) < len(modules):
        raise InputError(
            f"{path.name} calls its modules otherwise than this project's exporter, so that none "
            "can be told; export it with `regnet export`."
        )
    try:
        with torch.inference_mode(), torch_threads():
            computed = _run(module, graph, list(nodes.values()), torch.tensor(pixels))
    except RuntimeError as error:
        return Intermediates({}, folded=False, differences={}, failure=in_words(error))
    names = (*nodes, *folder.output_names)
    values = {name: tensor.numpy() for name, tensor in zip(names, computed, strict=True)}
    return Intermediates(values, folded=False, differences={})


def _run(module: Any, graph: Any, nodes: list[Any], pixels: Tensor) -> list[Tensor]:
    """The values of ``nodes``, then the outputs."""
    import torch

    for node in nodes:
        graph.registerOutput(node.output())
    graph.makeMultiOutputIntoTuple()
    function = torch._C._create_function_from_graph("intermediates", graph)  # noqa: SLF001
    outputs, *inner = function(module._c, pixels)  # noqa: SLF001
    return [*inner, *((outputs,) if isinstance(outputs, torch.Tensor) else outputs)]


def _values(graph: Any, folder: ConvertedFolder) -> dict[str, Any]:
    """The operators by the names of their values, in execution order."""
    own = _own_values(folder)
    modules = {operation.name for operation in folder.architecture.operations}
    found: dict[str, Any] = {}
    seen: Counter[str] = Counter()
    for node in graph.nodes():
        if not node.kind().startswith("aten::") or str(node.output().type()) != _TENSOR:
            continue
        path = _MODULE.findall(node.getModuleHierarchy())
        if path and path[-1] == _FUNCTION:
            name = ".".join((*path[:-1], _ACTIVATION))
            name = name if name in modules else ".".join((*path[:-1], _HEAD, _ACTIVATION))
            found[name] = node  # the last operator of several
            continue
        if not path and node.kind() in _OF_NORMALISATION:
            continue
        module = ".".join(path)
        names = own.get(module)
        if names is None:
            found[module] = node  # likewise
        elif seen[module] < len(names):
            found[names[seen[module]]] = node
            seen[module] += 1
    return found


def _own_values(folder: ConvertedFolder) -> dict[str, list[str]]:
    """Values of a module that are no module's below it, in order; of others it is the module's.

    There is a module below it for what holds tensors alone.
    """
    own = defaultdict(list)
    for operation in folder.architecture.operations:
        if not operation.slots and not operation.name.endswith(_ACTIVATION):
            own["" if isinstance(operation, Flatten) else operation.around].append(operation.name)
    return own
