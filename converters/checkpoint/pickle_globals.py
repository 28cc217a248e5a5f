"""What the classes and functions named in a checkpoint's pickle mean, where they are known.

Only tensors, containers and plain values are: these are built here, from our own code. Everything
else, such as a trainer's own config class, becomes an opaque note.
"""

from __future__ import annotations

from struct import calcsize, unpack
from typing import TYPE_CHECKING, cast

from converters.checkpoint.pickle_arrays import ENCODE, FROM_BUFFER, from_buffer
from converters.checkpoint.values import MAX_AXES, MAX_SIZE, Opaque, Storage, StoredTensor, Tree
from regnet.files.dtypes import ELEMENT_TYPES, OF_STORAGE

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Sequence

# torch/storage.py: an untyped storage counts bytes, and a quantised one holds integers.
STORAGE_DTYPES = {
    **OF_STORAGE,
    "UntypedStorage": "uint8",
    "QInt8Storage": "int8",
    "QUInt8Storage": "uint8",
    "QInt32Storage": "int32",
}
_STORAGE_MODULES = ("torch", "torch.storage", "torch.cuda")

MAX_KEY = 1000
"""How many values the key of a dict may consist of."""

MAX_COSTLY_KEYS = 10_000
"""Of all dicts and sets of a pickle together."""

_HASHED_AS_IS = 60
"""Bits of a whole number up to which Python's hash of it is the number itself."""

# Packages that were renamed: Python 2's, and NumPy's before 2.0.
_RENAMED = {
    "__builtin__": "builtins",
    "copy_reg": "copyreg",
    "numpy.core.multiarray": "numpy._core.multiarray",
    "numpy.core.numeric": "numpy._core.numeric",
}


def qualified_name(module: str, name: str) -> str:
    """Return ``module.name`` with today's name of the module."""
    return f"{_RENAMED.get(module, module)}.{name}"


def require_name(module: str, name: str) -> None:
    """Check that somebody can have called something so.

    Raises:
        ValueError: It is a name that no program has, and no loader finds.
    """
    if not all(part.isidentifier() for part in f"{module}.{name}".split(".")):
        raise ValueError("a name that no program has")


def storage_dtype(value: Tree) -> str:
    """Return torch's dtype name for a storage class named in a pickle.

    Raises:
        ValueError: ``value`` is not a storage class this reader knows.
    """
    if isinstance(value, Opaque) and value.args is None:
        module, _, name = value.qualified_name.rpartition(".")
        if module in _STORAGE_MODULES and name in STORAGE_DTYPES:
            return STORAGE_DTYPES[name]
        raise ValueError(f"unknown kind of storage {value.qualified_name}")
    raise ValueError("a storage without its kind")


class Keys:
    """Passes values on for use as keys of a pickle's dicts and members of its sets.

    Texts are hashed with a secret. Of other values anybody can make many with one hash, for which
    a dict compares each with all; so there may not be many of those.
    """

    def __init__(self) -> None:
        self._costly = 0

    def __call__(self, value: Tree) -> Hashable:
        """Return ``value``.

        Raises:
            TypeError: It is a dict, list or set, or a tuple or frozenset of more than a few values:
                Python hashes without a limit on depth, and would crash on a hostile file.
            ValueError: There were too many before it whose hashes may be alike.
        """
        if isinstance(value, str | Opaque):  # hashed with a secret, and by its place in memory
            return value
        if type(value) is int and value.bit_length() <= _HASHED_AS_IS:
            return value
        pending: list[Tree] = [value]
        seen = 0
        while pending:
            member = pending.pop()
            seen += len(member) if isinstance(member, tuple | frozenset) else 0
            if isinstance(member, dict | list | set | Storage) or seen > MAX_KEY:
                raise TypeError(f"a {type(value).__name__} as a key")
            if isinstance(member, tuple | frozenset):
                pending.extend(cast("tuple[Tree, ...]", tuple(member)))
        self._costly += 1
        if self._costly > MAX_COSTLY_KEYS:
            raise ValueError(f"more than {MAX_COSTLY_KEYS} keys that are no texts or small numbers")
        return cast("Hashable", value)


def build(function: Opaque, args: tuple[Tree, ...], keys: Keys) -> Tree:
    """Return what calling a global would give, or an opaque note of the call.

    Raises:
        ValueError: The arguments do not fit a function this reader knows.
        TypeError: The same, or it names something that cannot be called.
    """
    name = function.qualified_name
    if name in VALUES:
        raise TypeError(f"it calls {name}")
    if name in _KEYED_BUILDERS:
        return _KEYED_BUILDERS[name](args, keys)
    return _BUILDERS[name](args) if name in _BUILDERS else Opaque(name, args)


def made_anew(function: Opaque, args: tuple[Tree, ...]) -> None:
    """Check that a global is a class whose ``__new__`` gives what a call of it gives.

    Raises:
        ValueError: It is a function, or a container, which ``__new__`` leaves empty.
    """
    name = function.qualified_name
    if name in BUILT - _IMMUTABLE and (args or name not in _CONTAINERS):
        raise ValueError(f"a new {name} with content")


def _tensor(args: tuple[Tree, ...], dtype: str | None = None) -> StoredTensor:
    """Build ``_rebuild_tensor(storage, storage_offset, size, stride)``, torch/_utils.py."""
    base, offset, shape, stride = args
    if not isinstance(base, StoredTensor):
        raise TypeError("a tensor without a storage")
    sizes, steps = _non_negative(shape), _non_negative(stride)
    (start,) = _non_negative((offset,))
    if len(sizes) != len(steps):
        raise ValueError(f"a tensor with {len(sizes)} sizes but {len(steps)} strides")
    kind = base.dtype if dtype is None else dtype
    # `base` may be a view of its storage itself, in files written before torch 0.4.
    tensor = StoredTensor(kind, sizes, steps, base.storage, base.storage_offset + start)
    available = base.nbytes // tensor.itemsize
    if tensor.numel and start + tensor.span > available:
        raise ValueError(
            f"a tensor of shape {list(sizes)} that needs {start + tensor.span} elements of "
            f"{base.storage.label}, which has {available}"
        )
    return tensor


def _non_negative(values: Tree) -> tuple[int, ...]:
    if not isinstance(values, tuple) or not all(type(value) is int for value in values):
        raise TypeError("a tensor whose sizes or strides are not whole numbers")
    integers = cast("tuple[int, ...]", values)
    if len(integers) > MAX_AXES or max(integers, default=0) > MAX_SIZE:
        raise ValueError("a tensor with more axes or elements than a tensor can have")
    if min(integers, default=0) < 0:
        raise ValueError(f"a tensor with a negative size, stride or offset: {list(integers)}")
    return integers


def _require_usual(requires_grad: Tree, hooks: Tree, *flags: Tree) -> None:
    """Check what says nothing of a tensor's content, and which torch is particular about."""
    usual = isinstance(requires_grad, bool) and isinstance(hooks, dict | None)
    if not usual or len(flags) > 1 or not all(isinstance(flag, dict | None) for flag in flags):
        raise TypeError("a tensor with other arguments than torch's")


def _required(tensor: Tree, requires_grad: Tree) -> Tree:
    """Return a tensor, unless it requires a gradient that a tensor of its type has not."""
    whole = isinstance(tensor, StoredTensor) and ("int" in tensor.dtype or tensor.dtype == "bool")
    if requires_grad and whole:
        raise TypeError("a tensor of whole numbers with a gradient")
    return tensor


def _tensor_v2(args: tuple[Tree, ...]) -> Tree:
    """Build ``_rebuild_tensor_v2(storage, offset, size, stride, requires_grad, hooks, flags)``."""
    *layout, requires_grad, hooks = args[:6]
    _require_usual(requires_grad, hooks, *args[6:])
    # The flags say that the stored values are to be conjugated or negated.
    if any(args[6:]):
        return Opaque("torch._utils._rebuild_tensor_v2", args)
    return _required(_tensor(tuple(layout)), requires_grad)


def _tensor_v3(args: tuple[Tree, ...]) -> Tree:
    """Build ``_rebuild_tensor_v3``: on an untyped storage, with the dtype as seventh argument."""
    *layout, requires_grad, hooks, dtype = args[:7]
    _require_usual(requires_grad, hooks, *args[7:])
    if not isinstance(dtype, Opaque) or dtype.args is not None:
        raise TypeError("a tensor without a type")
    module, _, name = dtype.qualified_name.rpartition(".")
    if module != "torch":
        raise TypeError("a tensor without a type")
    if name not in ELEMENT_TYPES or any(args[7:]):
        return Opaque("torch._utils._rebuild_tensor_v3", args)
    return _required(_tensor(tuple(layout), name), requires_grad)


def _require_harmless_state(state: Tree) -> None:
    """Check the attributes of a tensor, which torch sets one by one."""
    parts = state if isinstance(state, tuple) else (state,)
    for part in parts:
        if part is None:
            continue
        if not isinstance(part, dict) or not all(isinstance(name, str) for name in part):
            raise TypeError("a tensor with attributes that have no names")
        if not _SET_CONTENT.isdisjoint(part):
            raise ValueError("a tensor whose attributes replace what it holds")


def _parameter_with_state(args: tuple[Tree, ...]) -> Tree:
    """Build ``_rebuild_parameter_with_state(data, requires_grad, hooks, state)``."""
    *parameter, state = args
    _require_harmless_state(state)
    return _parameter(tuple(parameter))


def _parameter(args: tuple[Tree, ...]) -> Tree:
    """Build ``_rebuild_parameter(data, requires_grad, hooks)``."""
    data, requires_grad, hooks = args
    _require_usual(requires_grad, hooks)
    if not isinstance(data, StoredTensor | Opaque):
        raise TypeError("a parameter that is no tensor")
    return _required(data, requires_grad)


def _from_type(args: tuple[Tree, ...]) -> Tree:
    """Build ``_rebuild_from_type_v2(function, type, args, state)``: a tensor with attributes."""
    function, _, inner, state = args
    _require_harmless_state(state)
    if isinstance(function, Opaque) and function.args is None and isinstance(inner, tuple):
        builder = _TENSOR_BUILDERS.get(function.qualified_name)
        if builder is not None:
            return builder(inner)
    return Opaque("torch._tensor._rebuild_from_type_v2", args)


def _of_device(args: tuple[Tree, ...]) -> Tree:
    """Build ``_rebuild_device_tensor_from_numpy(data, dtype, device, gradient)``, or its twin.

    Tensors of a TPU are stored as an array, or as a tensor of the CPU; bfloat16, which NumPy lacks,
    as float32 of the same numbers.
    """
    data, dtype, _, requires_grad = args
    if not isinstance(requires_grad, bool):
        raise TypeError("a tensor with other arguments than torch's")
    if isinstance(data, StoredTensor) and isinstance(dtype, Opaque) and dtype.args is None:
        stated = dtype.qualified_name.removeprefix("torch.")
        if stated == data.dtype or (stated, data.dtype) == ("bfloat16", "float32"):
            return _required(data, requires_grad)
    return Opaque("torch._utils._rebuild_device_tensor_from_numpy", args)


def _encoded(args: tuple[Tree, ...]) -> Tree:
    """Build ``_codecs.encode(text, "latin1")``, which is how protocol 2 spells bytes."""
    text, encoding = args
    if isinstance(text, Storage) and text.is_text and encoding in ("latin1", "latin-1"):
        return text
    if not isinstance(text, str) or encoding not in ("latin1", "latin-1"):
        raise ValueError("bytes in an unknown encoding")
    return text.encode("latin-1")


# NumPy's type codes as struct spells them.
_STRUCT_CODES = {
    "b1": "?", "i1": "b", "u1": "B", "i2": "h", "u2": "H", "i4": "i", "u4": "I",
    "i8": "q", "u8": "Q", "f2": "e", "f4": "f", "f8": "d",
}  # fmt: skip


def _numpy_scalar(args: tuple[Tree, ...]) -> Tree:
    """Build ``scalar(dtype, bytes)`` as a Python number.

    Source: numpy/_core/src/multiarray, where descriptor.c has the state of a plain dtype.
    """
    match args[:2]:
        case (Opaque("numpy.dtype", (str(kind), *_), state=state), bytes(data)):
            match state:
                case (3, "<" | ">" | "|" | "=" as order, None, None, None, -1, -1, 0):
                    code = (">" if order == ">" else "<") + _STRUCT_CODES.get(kind, "")
                    if kind in _STRUCT_CODES and calcsize(code) == len(data):
                        return cast("int | float | bool", unpack(code, data)[0])
    return Opaque("numpy._core.multiarray.scalar", args)


def _reconstructed(args: tuple[Tree, ...]) -> Tree:
    """Build ``copyreg._reconstructor(class, base, state)`` of protocols 0 and 1 as a note."""
    if not isinstance(args[0], Opaque):
        raise TypeError("an object without a class")
    return Opaque(args[0].qualified_name, args[2:])


def _sequence(args: tuple[Tree, ...]) -> Sequence[Tree]:
    if not args:
        return ()
    if not isinstance(args[0], list | tuple | str | bytes):
        raise TypeError("a container made from something that is none")
    return args[0]


def _size(args: tuple[Tree, ...]) -> Tree:
    """Build ``torch.Size(numbers)``, which makes whole numbers of booleans."""
    sizes = tuple(_sequence(args))
    if not all(type(size) is int for size in sizes):
        raise TypeError("a torch.Size of other values than whole numbers")
    return sizes


def _dict(args: tuple[Tree, ...], keys: Keys) -> Tree:
    """Build ``OrderedDict(pairs)`` or ``dict(mapping)``."""
    if args and isinstance(args[0], dict):
        return dict(args[0])
    pairs = cast("Sequence[Sequence[Tree]]", _sequence(args))
    return {keys(key): value for key, value in pairs}


def _counter(args: tuple[Tree, ...], keys: Keys) -> Tree:
    """Build ``Counter(mapping)``; of a list it would count the members."""
    if args and not isinstance(args[0], dict):
        raise TypeError("a Counter of something else than counts")
    return _dict(args, keys)


_TENSOR_BUILDERS: dict[str, Callable[[tuple[Tree, ...]], Tree]] = {
    "torch._utils._rebuild_tensor": _tensor,
    "torch._utils._rebuild_tensor_v2": _tensor_v2,
    "torch._utils._rebuild_tensor_v3": _tensor_v3,
    "torch._utils._rebuild_parameter": _parameter,
    "torch._utils._rebuild_parameter_with_state": _parameter_with_state,
}

_BUILDERS = _TENSOR_BUILDERS | {
    "torch._tensor._rebuild_from_type_v2": _from_type,
    "torch._utils._rebuild_device_tensor_from_numpy": _of_device,
    "torch._utils._rebuild_device_tensor_from_cpu_tensor": _of_device,
    "torch.Size": _size,
    "builtins.list": lambda args: list(_sequence(args)),
    "builtins.tuple": lambda args: tuple(_sequence(args)),
    "builtins.bytes": lambda args: bytes(cast("Sequence[int]", _sequence(args))),
    "builtins.bytearray": lambda args: bytes(cast("Sequence[int]", _sequence(args))),
    "builtins.complex": lambda args: complex(*cast("tuple[float, float]", args)),
    ENCODE: _encoded,
    "numpy._core.multiarray.scalar": _numpy_scalar,
    FROM_BUFFER: from_buffer,
    "copyreg._reconstructor": _reconstructed,
}

_KEYED_BUILDERS: dict[str, Callable[[tuple[Tree, ...], Keys], Tree]] = {
    "collections.OrderedDict": _dict,
    "collections.Counter": _counter,
    "collections.defaultdict": lambda args, keys: _dict(args[1:], keys),
    "builtins.dict": _dict,
    "builtins.set": lambda args, keys: {keys(member) for member in _sequence(args)},
    "builtins.frozenset": lambda args, keys: frozenset(keys(m) for m in _sequence(args)),
}

_CONTAINERS = frozenset(_KEYED_BUILDERS) | {"builtins.list", "builtins.bytearray"}
_IMMUTABLE = frozenset({
    *("builtins.tuple", "builtins.frozenset", "builtins.bytes", "builtins.complex", "torch.Size"),
})  # fmt: skip

_SET_CONTENT = frozenset({"data", "real", "imag", "__dict__", "__class__"})
"""Attributes of a tensor whose setters change what it holds or is."""

VALUES = frozenset({
    *(f"{module}.{kind}" for module in _STORAGE_MODULES for kind in STORAGE_DTYPES),
    *(f"torch.{dtype}" for dtype in (*ELEMENT_TYPES, *STORAGE_DTYPES.values())),
    *(f"torch.{dtype}" for dtype in ("qint8", "quint8", "qint32", "quint4x2", "quint2x4")),
    *(f"torch.{layout}" for layout in ("strided", "sparse_coo", "sparse_csr", "sparse_csc")),
    *("torch.per_tensor_affine", "torch.per_channel_affine", "torch.contiguous_format"),
})  # fmt: skip
"""Names of values: torch puts no class in the place of a kind of storage (`StorageType`), and a
dtype, a layout or a scheme of quantisation is one object."""

BUILT = frozenset(_BUILDERS) | frozenset(_KEYED_BUILDERS)
"""The names whose calls are understood: each gives a tensor, a container or a plain value."""
