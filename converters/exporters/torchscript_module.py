"""TorchScript modules as source code and as a pickle, without torch.

A module is an object of a class; the class is declared by what its objects hold, so the two cannot
disagree. The forms are those that torch's ``torch/csrc/jit/serialization`` reads: the classes in
``import_source.cpp``, the objects in ``import.cpp`` and ``unpickler.cpp``.
"""

from __future__ import annotations

import pickle  # for the names of its opcodes; nothing is unpickled
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from converters.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from converters.checkpoint import StoredTensor

NAMESPACE = "regnet"
"""Where the classes and functions live: ``__torch__.regnet``."""

STORAGES = {
    "float64": "DoubleStorage",
    "float32": "FloatStorage",
    "float16": "HalfStorage",
    "bfloat16": "BFloat16Storage",
    "int64": "LongStorage",
}
"""torch's name of a storage, for every dtype that the tensors of a RegNet can have."""

EMPTY_PICKLE = pickle.PROTO + b"\x02" + pickle.EMPTY_TUPLE + pickle.STOP
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


Attribute: TypeAlias = "ScriptModule | ScriptTensor | int"


@dataclass(frozen=True, slots=True)
class ScriptModule:
    """A module and all below it.

    Attributes:
        kind: Its class. Modules of one kind have attributes of the same names and types.
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
    classes = {part.kind: _class(part) for part in module.modules()}
    return "\n".join(classes.values())


def _class(module: ScriptModule) -> str:
    tensors = module.tensors()
    lines = [
        f"class {module.kind}(Module):",
        f"  __parameters__ = {_quoted(name for name in tensors if not tensors[name].is_buffer)}",
        f"  __buffers__ = {_quoted(name for name in tensors if tensors[name].is_buffer)}",
        "  training : bool",
        *(_annotation(name, value) for name, value in module.attributes.items()),
        *(f"  {line}" for line in module.forward.splitlines()),
    ]
    return "\n".join(lines) + "\n"


def _quoted(names: Iterator[str]) -> str:
    return "[" + ", ".join(f'"{name}"' for name in names) + "]"


def _annotation(name: str, value: Attribute) -> str:
    match value:
        case ScriptModule():
            kind = f"__torch__.{NAMESPACE}.{value.kind}"
        case ScriptTensor():
            kind = "Tensor"
        case int():
            kind = "int"
    return f"  {name} : {kind}" if name.isidentifier() else f'  __annotations__["{name}"] = {kind}'


def pickled(module: ScriptModule) -> bytes:
    """The pickle that torch builds the modules from, in protocol 2.

    The standard library cannot write it: the classes exist in TorchScript alone.

    Raises:
        InputError: If a tensor is of a dtype that a RegNet cannot have.
    """
    return pickle.PROTO + b"\x02" + _module(module) + pickle.STOP


def _module(module: ScriptModule) -> bytes:
    state = [_plain("training"), _plain(False)]
    for name, value in module.attributes.items():
        state += [_plain(name), _attribute(value)]
    return b"".join(
        (
            _global(f"__torch__.{NAMESPACE}", module.kind),
            pickle.EMPTY_TUPLE,
            pickle.NEWOBJ,
            pickle.EMPTY_DICT,
            pickle.MARK,
            *state,
            pickle.SETITEMS,
            pickle.BUILD,
        )
    )


def _attribute(value: Attribute) -> bytes:
    match value:
        case ScriptModule():
            return _module(value)
        case ScriptTensor():
            return _tensor(value)
        case int():
            return _plain(value)


def _tensor(tensor: ScriptTensor) -> bytes:
    """A call of ``torch._utils._rebuild_tensor_v2``; the storage is named, its bytes lie outside.

    No gradient is asked for: the batch norms are frozen, so the module is for inference.
    """
    stored = tensor.stored
    storage = _tuple(
        _plain("storage"),
        _global("torch", _storage_class(tensor)),
        _plain(tensor.name),
        _plain("cpu"),
        _plain(stored.numel),
    )
    no_hooks = _global("collections", "OrderedDict") + pickle.EMPTY_TUPLE + pickle.REDUCE
    arguments = _tuple(
        storage + pickle.BINPERSID,
        _plain(0),
        _tuple(*map(_plain, stored.shape)),
        _tuple(*map(_plain, stored.stride)),
        _plain(False),
        no_hooks,
    )
    return _global("torch._utils", "_rebuild_tensor_v2") + arguments + pickle.REDUCE


def _storage_class(tensor: ScriptTensor) -> str:
    try:
        return STORAGES[tensor.stored.dtype]
    except KeyError:
        raise InputError(
            f"{tensor.stored.storage.path.name}: {tensor.name} is {tensor.stored.dtype}, which "
            "TorchScript cannot run; convert the checkpoint again with `--dtype float32`."
        ) from None


def _global(module: str, name: str) -> bytes:
    return pickle.GLOBAL + f"{module}\n{name}\n".encode()


def _tuple(*items: bytes) -> bytes:
    return pickle.MARK + b"".join(items) + pickle.TUPLE


def _plain(value: str | int) -> bytes:
    if isinstance(value, bool):
        return pickle.NEWTRUE if value else pickle.NEWFALSE
    if isinstance(value, str):
        text = value.encode()
        return pickle.BINUNICODE + len(text).to_bytes(4, "little") + text
    if value < 1 << 31:
        return pickle.BININT + value.to_bytes(4, "little")
    # torch reads a long integer of eight bytes and no other.
    return pickle.LONG1 + b"\x08" + value.to_bytes(8, "little")
