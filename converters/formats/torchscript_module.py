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
from regnet.files.dtypes import COMPUTED, DTYPES, item_size

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from converters.checkpoint import StoredTensor

NAMESPACE = "regnet"
"""Where the classes and functions live: ``__torch__.regnet``."""

EMPTY_PICKLE = program(pickle.EMPTY_TUPLE)
"""Of an empty tuple: a module without constants outside its code."""


@dataclass(frozen=True, slots=True)
class ScriptTensor:
    """A parameter or buffer.

    Attributes:
        name: Its whole name in the state dict, by which the archive knows its elements.
        stored: Where the elements lie; contiguous.
        is_buffer: Whether it is a buffer.
    """

    name: str
    stored: StoredTensor
    is_buffer: bool

    @property
    def dtype(self) -> str:
        """What the module holds: weights are float32 there, counters and the like as stored."""
        return COMPUTED if self.stored.dtype in DTYPES else self.stored.dtype

    @property
    def nbytes(self) -> int:
        """Size of the elements in bytes, as the module holds them."""
        return self.stored.numel * item_size(self.dtype)


Attribute: TypeAlias = "ScriptModule | ScriptTensor"


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

    def modules(self) -> Iterator[ScriptModule]:
        """Every module below this one, then this one."""
        for value in self.attributes.values():
            if isinstance(value, ScriptModule):
                yield from value.modules()
        yield self

    def tensors(self) -> dict[str, ScriptTensor]:
        """The tensors of this module alone, by attribute."""
        return {
            name: value
            for name, value in self.attributes.items()
            if isinstance(value, ScriptTensor)
        }


def source_code(module: ScriptModule) -> str:
    """Declare the classes of ``module`` and of all below it, parts before wholes."""
    return "\n".join(_Classes(module).declarations.values())


class _Classes:
    """The classes of a module and of all below it; equal parts share one.

    Args:
        module: The whole.

    Attributes:
        declarations: Name of each class to its source.
    """

    def __init__(self, module: ScriptModule) -> None:
        self.declarations: dict[str, str] = {}
        self._names: dict[int, str] = {}
        for part in module.modules():
            self._names[id(part)] = self._declare(part)

    def name(self, module: ScriptModule) -> str:
        """Of the class of one of the modules: its kind, numbered where several differ."""
        return self._names[id(module)]

    def _declare(self, module: ScriptModule) -> str:
        number = 1
        while True:
            name = module.kind if number == 1 else f"{module.kind}_{number}"
            source = self._source(name, module)
            if self.declarations.setdefault(name, source) == source:
                return name
            number += 1

    def _source(self, name: str, module: ScriptModule) -> str:
        tensors = module.tensors()
        buffers = [leaf for leaf, tensor in tensors.items() if tensor.is_buffer]
        lines = [
            f"class {name}(Module):",
            f"  __parameters__ = {_quoted(leaf for leaf in tensors if leaf not in buffers)}",
            f"  __buffers__ = {_quoted(buffers)}",
            "  training : bool",
            *(self._annotation(*attribute) for attribute in module.attributes.items()),
            *(f"  {line}" for line in module.forward.splitlines()),
        ]
        return "\n".join(lines) + "\n"

    def _annotation(self, name: str, value: Attribute) -> str:
        match value:
            case ScriptModule():
                kind = f"__torch__.{NAMESPACE}.{self.name(value)}"
            case ScriptTensor():
                kind = "Tensor"
        if name.isidentifier():
            return f"  {name} : {kind}"
        return f'  __annotations__["{name}"] = {kind}'


def _quoted(names: Iterable[str]) -> str:
    return "[" + ", ".join(f'"{name}"' for name in names) + "]"


def pickled(module: ScriptModule) -> bytes:
    """The pickle that torch builds the modules from, in protocol 2.

    Its classes exist in TorchScript alone.

    Raises:
        InputError: If a tensor is of a dtype that a RegNet cannot have.
    """
    return program(_module(module, _Classes(module)))


def _module(module: ScriptModule, classes: _Classes) -> bytes:
    state = [opcodes("training"), opcodes(False)]
    for name, attribute in module.attributes.items():
        state += [opcodes(name), _attribute(attribute, classes)]
    return b"".join(
        (
            global_name(f"__torch__.{NAMESPACE}", classes.name(module)),
            pickle.EMPTY_TUPLE,
            pickle.NEWOBJ,
            pickle.EMPTY_DICT,
            pickle.MARK,
            *state,
            pickle.SETITEMS,
            pickle.BUILD,
        )
    )


def _attribute(attribute: Attribute, classes: _Classes) -> bytes:
    match attribute:
        case ScriptModule():
            return _module(attribute, classes)
        case ScriptTensor(name, stored):
            # Not asking for gradients is right: the batch norms are frozen, this is for inference.
            return opcodes(PickledTensor(name, name, stored, attribute.dtype))
