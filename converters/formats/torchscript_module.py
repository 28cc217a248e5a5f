"""TorchScript modules as source code and as a pickle, without torch.

A module is an object of a class; the class is declared by what its objects hold, so the two cannot
disagree. The forms are those that torch's ``torch/csrc/jit/serialization`` reads: the classes in
``import_source.cpp``, the objects in ``import.cpp`` and ``unpickler.cpp``.
"""

from __future__ import annotations

import pickle  # for the names of its opcodes; nothing is unpickled
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from converters.checkpoint.torch_pickle import PickledTensor, global_name, opcodes, program
from regnet.architecture import BUFFER_LEAVES

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

NAMESPACE = "regnet"
"""Where the classes and functions live: ``__torch__.regnet``."""

EMPTY_PICKLE = program(pickle.EMPTY_TUPLE)
"""Of an empty tuple: a module without constants outside its code."""

Attribute: TypeAlias = "ScriptModule | PickledTensor"
"""Tensors ask for no gradients: the batch norms are frozen, this is for inference."""


@dataclass(frozen=True, slots=True)
class ScriptModule:
    """A module and all below it.

    Attributes:
        kind: What it is; modules of one kind whose code or attributes differ get classes of their
            own.
        attributes: By name, in the order of the state dict; a number is a name as well.
        forward: Source of the method, in TorchScript's subset of Python, flush left.
    """

    kind: str
    attributes: Mapping[str, Attribute]
    forward: str


def source_and_pickle(module: ScriptModule) -> tuple[str, bytes]:
    """Write a module and all below it.

    Returns:
        The classes, parts before wholes, of which equal parts share one; and the pickle that torch
        builds the objects from, in protocol 2.

    Raises:
        InputError: If a tensor is of a dtype that a RegNet cannot have.
    """
    classes: dict[str, str] = {}
    _, content = _written(module, classes)
    return "\n".join(classes.values()), program(content)


def _written(module: ScriptModule, classes: dict[str, str]) -> tuple[str, bytes]:
    """The class of a module, which is declared behind those of its parts, and its opcodes."""
    annotations, state = [], [opcodes("training"), opcodes(False)]
    for name, value in module.attributes.items():
        match value:
            case ScriptModule():
                part, content = _written(value, classes)
                kind = f"__torch__.{NAMESPACE}.{part}"
            case PickledTensor():
                kind, content = "Tensor", opcodes(value)
        spelled = f"{name} :" if name.isidentifier() else f'__annotations__["{name}"] ='
        annotations.append(f"{spelled} {kind}")
        state += [opcodes(name), content]
    own = _declared(module, annotations, classes)
    parts = (
        global_name(f"__torch__.{NAMESPACE}", own),
        pickle.EMPTY_TUPLE,
        pickle.NEWOBJ,
        pickle.EMPTY_DICT,
        pickle.MARK,
        *state,
        pickle.SETITEMS,
        pickle.BUILD,
    )
    return own, b"".join(parts)


def _declared(module: ScriptModule, annotations: Sequence[str], classes: dict[str, str]) -> str:
    """The name of a module's class: its kind, numbered where several differ."""
    held = [name for name, value in module.attributes.items() if isinstance(value, PickledTensor)]
    body = (
        f"__parameters__ = {_quoted(name for name in held if name not in BUFFER_LEAVES)}",
        f"__buffers__ = {_quoted(name for name in held if name in BUFFER_LEAVES)}",
        "training : bool",
        *annotations,
        *module.forward.splitlines(),
    )
    number = 1
    while True:
        name = module.kind if number == 1 else f"{module.kind}_{number}"
        source = "\n  ".join((f"class {name}(Module):", *body)) + "\n"
        if classes.setdefault(name, source) == source:
            return name
        number += 1


def _quoted(names: Iterable[str]) -> str:
    return "[" + ", ".join(f'"{name}"' for name in names) + "]"
