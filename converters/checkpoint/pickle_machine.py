"""The stack machine a pickle is a program for, without the parts that import and call.

Two instructions of a real one import and call whatever the file says. Here a name stays a name,
and a call is looked up in :mod:`converters.checkpoint.pickle_globals`, where it gives a tensor, a
container, or an opaque note.
"""

from __future__ import annotations

from collections.abc import Callable, Sized
from functools import partialmethod
from typing import Any, TypeAlias

from converters.checkpoint.pickle_arrays import (
    OF_STATE,
    RECONSTRUCT,
    are_elements_next,
    array_of,
)
from converters.checkpoint.pickle_globals import (
    Keys,
    build,
    made_anew,
    qualified_name,
    require_name,
    storage_dtype,
)
from converters.checkpoint.refused_globals import runs_code
from converters.checkpoint.values import Opaque, Storage, StoredTensor, Tree
from converters.errors import UnsafeInputError, printable

MAX_OPCODES = 2_000_000
"""The largest published RegNet checkpoints have fewer than 100 thousand."""

MAX_VALUES = 2_000_000
"""Counted as often as they are reached, and as often as they are copied."""

MAX_BITS = 1024
"""Of a whole number; the states of random generators have up to 256. Python takes the time of the
square of the digits to print one."""

HIGHEST_PROTOCOL = 5

ADVICE = "do not open the file elsewhere, and get the checkpoint from a source you trust"

FindStorage: TypeAlias = Callable[[str, str, int], Storage]
"""From (key, dtype, number of elements) to the storage; may raise an InputError."""


def no_storage(key: str, _dtype: str, _numel: int) -> Storage:
    """Of a pickle that has none: refuse whatever it mentions as one.

    Raises:
        ValueError: Always.
    """
    raise ValueError(f"storage {printable(key)} outside of the content")


# Instructions that push their operand.
_LITERALS = frozenset({
    "INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT",
    "STRING", "BINSTRING", "SHORT_BINSTRING",
    "UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8",
    "BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8",
})  # fmt: skip

_OF_PYTHON_2 = frozenset({"STRING", "BINSTRING", "SHORT_BINSTRING"})

# Instructions that push a fixed value, or a new container.
_NEW: dict[str, Callable[[], Tree]] = {
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
    "EMPTY_LIST": list,
    "EMPTY_TUPLE": tuple,
    "EMPTY_DICT": dict,
    "EMPTY_SET": set,
}
_PUTS = frozenset({"PUT", "BINPUT", "LONG_BINPUT"})
_GETS = frozenset({"GET", "BINGET", "LONG_BINGET"})


class PickleMachine:
    """Executes the instructions of one pickle, protocols 0 to 5, except those without a use here.

    Args:
        label: What messages call the pickle.
        find_storage: Told of every storage the pickle mentions.
        has_views: Whether a mention may end with a view of the storage, as in legacy files.
        of_script: Whether it may end with None, as in TorchScript of torch 1.4 and 1.5.
    """

    def __init__(
        self,
        label: str,
        find_storage: FindStorage,
        *,
        has_views: bool = False,
        of_script: bool = False,
    ) -> None:
        self._label = label
        self._has_views = has_views
        self._no_view: list[Tree] = [None] if of_script else []
        self._find_storage = find_storage
        self._stack: list[Tree] = []
        self._below: list[list[Tree]] = []  # what was on the stack at each open mark
        self._memo: dict[int, Tree] = {}
        self._arrays: dict[int, list[int]] = {}  # where arrays without their elements are kept
        self._position = 0
        self._steps = 0
        self._copied = 0
        self._keys = Keys()
        self._dtypes: dict[str, str] = {}
        self._views: dict[str, tuple[str, int, int]] = {}

    def step(self, name: str, argument: Any, position: int) -> None:
        """Execute one instruction, named and with an argument as :mod:`pickletools` has it.

        Raises:
            UnsafeInputError: It names something that only runs code.
            LookupError: It takes a value from the stack or memo that is not there.
            TypeError: It takes a value of another kind than it needs.
            ValueError: It has no place in a checkpoint, or asks for too much.
        """
        self._position = position
        self._steps += 1
        if self._steps > MAX_OPCODES:
            raise ValueError(f"more than {MAX_OPCODES} instructions")
        if name in _LITERALS:
            text = name in _OF_PYTHON_2
            self._stack.append(_decoded(argument) if text else _literal(argument))
        elif name in _NEW:
            self._stack.append(_NEW[name]())
        elif name in _PUTS:
            if argument > MAX_OPCODES:  # for which the unpickler in C would make room
                raise ValueError(f"a value kept as number {argument}")
            self._keep(argument)
        elif name in _GETS:
            self._stack.append(self._memo[argument])
        else:
            handler = getattr(self, f"_op_{name.lower()}", None)
            if handler is None:
                raise ValueError(f"{name} has no place in a checkpoint")
            handler(argument)

    def expects_elements(self) -> bool:
        """Whether a string that is pushed next holds the elements of an array."""
        return are_elements_next(self._stack, self._below[-1] if self._below else [])

    def result(self) -> Tree:
        """Return what STOP leaves on the stack.

        Raises:
            LookupError: It leaves nothing.
            ValueError: It leaves more than one value, of which nobody writes the others.
        """
        result = self._stack.pop()
        if self._stack or self._below:
            raise ValueError("values left over at the end")
        return result

    def _op_proto(self, version: int) -> None:
        if version > HIGHEST_PROTOCOL:
            raise ValueError(f"pickle protocol {version}")

    def _op_frame(self, _: int) -> None:
        """Do nothing: a frame only announces how many bytes to read at once."""

    _op_stop = _op_frame  # where the stream of instructions ends

    # Stack and memo.

    def _op_mark(self, _: None) -> None:
        self._below.append(self._stack)
        self._stack = []

    def _since_mark(self) -> list[Tree]:
        """Take off the values above the topmost mark, and the mark; replaces ``self._stack``."""
        values, self._stack = self._stack, self._below.pop()
        return values

    def _op_pop(self, _: None) -> None:
        # On a mark with nothing above it, POP takes the mark.
        if self._stack:
            self._stack.pop()
        else:
            self._since_mark()

    def _op_pop_mark(self, _: None) -> None:
        self._since_mark()

    def _op_dup(self, _: None) -> None:
        self._stack.append(self._stack[-1])

    def _op_memoize(self, _: None) -> None:
        self._keep(len(self._memo))

    def _keep(self, number: int) -> None:
        value = self._memo[number] = self._stack[-1]
        if isinstance(value, Opaque) and value.qualified_name == RECONSTRUCT:
            self._arrays.setdefault(id(value), []).append(number)

    # Containers.

    def _op_tuple(self, _: None) -> None:
        values = tuple(self._since_mark())
        self._stack.append(values)

    def _tuple_of(self, count: int, _: None) -> None:
        values = [self._stack.pop() for _ in range(count)]
        self._stack.append(tuple(reversed(values)))

    _op_tuple1 = partialmethod(_tuple_of, 1)
    _op_tuple2 = partialmethod(_tuple_of, 2)
    _op_tuple3 = partialmethod(_tuple_of, 3)

    def _op_list(self, _: None) -> None:
        values = self._since_mark()
        self._stack.append(values)

    def _op_dict(self, _: None) -> None:
        values = self._since_mark()
        self._stack.append({})
        self._set_items(values)

    def _op_frozenset(self, _: None) -> None:
        values = frozenset(map(self._keys, self._since_mark()))
        self._stack.append(values)

    def _op_append(self, _: None) -> None:
        self._extend([self._stack.pop()])

    def _op_appends(self, _: None) -> None:
        self._extend(self._since_mark())

    def _extend(self, values: list[Tree]) -> None:
        target = self._stack[-1]
        if isinstance(target, Opaque) and target.args is not None:
            target.elements.extend(values)
        elif isinstance(target, list):
            target.extend(values)
        else:
            raise TypeError(f"it appends to {_kind(target)}")

    def _op_additems(self, _: None) -> None:
        values = self._since_mark()
        target = self._stack[-1]
        if not isinstance(target, set):
            raise TypeError(f"it adds members to {_kind(target)}")
        target.update(map(self._keys, values))

    def _op_setitem(self, _: None) -> None:
        value, key = self._stack.pop(), self._stack.pop()
        self._set_items([key, value])

    def _op_setitems(self, _: None) -> None:
        self._set_items(self._since_mark())

    def _set_items(self, values: list[Tree]) -> None:
        target = self._stack[-1]
        if isinstance(target, Opaque) and target.args is not None:
            target = target.items
        if not isinstance(target, dict):
            raise TypeError(f"it sets items of {_kind(target)}")
        if len(values) % 2:
            raise ValueError("a key without a value")
        for key, value in zip(values[::2], values[1::2], strict=True):
            target[self._keys(key)] = value

    # Names, calls and objects.

    def _op_global(self, both: str) -> None:
        module, _, name = both.partition(" ")
        self._name(module, name)

    def _op_stack_global(self, _: None) -> None:
        name, module = self._stack.pop(), self._stack.pop()
        if not isinstance(module, str) or not isinstance(name, str):
            raise TypeError("a name that is not text")
        self._name(module, name)

    def _name(self, module: str, name: str) -> None:
        if runs_code(module, name):
            raise self._unsafe(f"{module}.{name}")
        require_name(module, name)
        self._stack.append(Opaque(qualified_name(module, name)))

    def _op_ext1(self, code: int) -> None:
        raise self._unsafe(extension(code))

    _op_ext2 = _op_ext4 = _op_ext1

    def _unsafe(self, what: str) -> UnsafeInputError:
        return UnsafeInputError(
            f"{self._label}: would run code in other programs, for at byte {self._position} it "
            f"names {printable(what)}; nothing was run, {ADVICE}."
        )

    def _op_reduce(self, _: None) -> None:
        args, function = self._stack.pop(), self._stack.pop()
        self._call(function, args)

    def _op_newobj(self, _: None) -> None:
        args, function = self._stack.pop(), self._stack.pop()
        self._new(function, args)

    def _new(self, function: Tree, args: Tree) -> None:
        """Make an object by its class's ``__new__``, which is not told apart from a call."""
        if isinstance(function, Opaque) and function.args is None and isinstance(args, tuple):
            made_anew(function, args)
        self._call(function, args)

    def _op_inst(self, both: str) -> None:
        args = tuple(self._since_mark())
        self._op_global(both)
        self._call(self._stack.pop(), args)

    def _op_obj(self, _: None) -> None:
        function, *args = self._since_mark()
        self._call(function, tuple(args))

    def _op_newobj_ex(self, _: None) -> None:
        kwargs, args, function = self._stack.pop(), self._stack.pop(), self._stack.pop()
        self._new(function, args)
        made = self._stack[-1]
        if not isinstance(kwargs, dict):
            raise TypeError("arguments by name that are no dict")
        if isinstance(made, Opaque):
            made.kwargs = kwargs
        elif kwargs:
            raise ValueError(f"arguments by name for {_kind(function)}")

    def _call(self, function: Tree, args: Tree) -> None:
        if not isinstance(args, tuple):
            raise TypeError("a call whose arguments are not a tuple")
        if not isinstance(function, Opaque):
            raise TypeError(f"it calls {_kind(function)}")
        if function.args is not None:
            raise self._unsafe(f"a call of what {function.qualified_name} returns")
        self._copied += sum(len(value) for value in args if isinstance(value, Sized))
        if self._copied > MAX_VALUES:
            raise ValueError("the same values copied again and again")
        self._stack.append(build(function, args, self._keys))

    def _op_build(self, _: None) -> None:
        state, target = self._stack.pop(), self._stack[-1]
        if isinstance(target, Opaque):
            if target.args is None:  # which changes what every other object is made by
                raise self._unsafe(changed(target.qualified_name))
            if target.qualified_name in OF_STATE and target.state is not None:
                raise ValueError(f"it sets the state of {target.qualified_name} twice")
            target.state = state
            self._finish_array(target)
        elif not isinstance(target, dict):
            # The attributes of an OrderedDict (torch's `_metadata`) are left out. Those of a tensor
            # could be another storage.
            raise TypeError(f"it sets the state of {_kind(target)}")

    def _finish_array(self, note: Opaque) -> None:
        """Put an array that was given its elements in the place of the note of its making."""
        tensor = array_of(note)
        if tensor is None:
            return
        self._stack[-1] = tensor
        for number in self._arrays.pop(id(note), ()):
            if self._memo[number] is note:
                self._memo[number] = tensor

    def _op_binpersid(self, _: None) -> None:
        match self._stack.pop():
            case ("module", Opaque() as module, *_):
                # Before 1.6, torch.save stored the source text of pickled modules beside them.
                self._stack.append(module)
            case ("storage", kind, str(key), str(), int(numel), *view):
                stored = self._storage(storage_dtype(kind), key, numel, view)
                # Integers that stand for other numbers are no tensor, unless `_rebuild_qtensor` of
                # torch is told for which.
                name = _kind(kind)
                quantised = name.rpartition(".")[2].startswith(("QInt", "QUInt"))
                self._stack.append(Opaque(name, ()) if quantised else stored)
            case _:
                raise ValueError("a reference that is neither a storage nor a module")

    def _storage(self, dtype: str, key: str, numel: int, view: list[Tree]) -> StoredTensor:
        if numel < 0:
            raise ValueError(f"a storage of {numel} elements")
        if view and not self._has_views and view != self._no_view:
            raise ValueError("a view of a storage, which only legacy files have")
        if numel and self._dtypes.setdefault(key, dtype) != dtype:
            # torch takes the type with which a storage is mentioned first.
            raise ValueError(f"a storage of both {self._dtypes[key]} and {dtype}")
        if key in self._views:
            raise ValueError("a storage with the name of a view")
        storage = self._find_storage(key, dtype, numel)
        match view:
            case [] | [None]:
                start, length = 0, numel
            case [(str(name), int(start), int(length))] if 0 <= start <= start + length <= numel:
                same = self._views.setdefault(name, (key, start, length)) == (key, start, length)
                if not same or name in self._dtypes:
                    raise ValueError("a view with the name of another, or of a storage")
            case _:
                raise ValueError("a view that does not lie inside its storage")
        return StoredTensor(dtype, (length,), (1,), storage, start)


def fault_of(error: LookupError | TypeError | ValueError) -> str:
    """Why an instruction could not be executed, as a clause for people."""
    return "it takes what is not there" if isinstance(error, LookupError) else printable(str(error))


def extension(code: int) -> str:
    """What EXT1, EXT2 and EXT4 name: whatever the program that loads has registered for them."""
    return f"extension {code} of the program that loads it"


def changed(name: str) -> str:
    """What a state for a class or function itself does: it is one for all that use it."""
    return f"{name}, which it changes"


def _literal(value: Tree | bytearray) -> Tree:
    if isinstance(value, int) and value.bit_length() > MAX_BITS:
        raise ValueError(f"a number of {value.bit_length()} bits")
    return bytes(value) if isinstance(value, bytearray) else value


def _decoded(text: str) -> str:
    """What pickletools took for Latin-1, as torch does: in UTF-8, unless the file is in neither.

    Such a file torch refuses, but for ``encoding="latin1"``.
    """
    try:
        return text.encode("latin-1").decode()
    except UnicodeDecodeError:
        return text


def _kind(value: Tree) -> str:
    if isinstance(value, Opaque):
        return value.qualified_name
    return f"a value of type {type(value).__name__}"
