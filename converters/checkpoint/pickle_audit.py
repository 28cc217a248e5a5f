"""What a pickle names and calls: what a loader that does as it says would have done.

The reader refuses a pickle at the first name that runs code. Here all of it is followed, nothing is
imported, and whatever a call would return is a note. A loader imports the module of every name
before anything is called, so a name counts even where nothing is done with it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from itertools import islice
from typing import TYPE_CHECKING, Any

from converters.checkpoint.pickle_globals import BUILT, STORAGE_DTYPES, qualified_name, require_name
from converters.checkpoint.pickle_machine import (
    MAX_OPCODES,
    PickleMachine,
    changed,
    extension,
    fault_of,
    no_storage,
)
from converters.checkpoint.pickle_reader import instructions
from converters.checkpoint.refused_globals import runs_code
from converters.checkpoint.values import Opaque, Storage
from converters.errors import printable
from regnet.files.dtypes import ELEMENT_TYPES

if TYPE_CHECKING:
    from collections.abc import Iterable

    from converters.checkpoint.pickle_reader import PickleSource
    from converters.checkpoint.values import Tree

MAX_NAMES = 10_000
"""Different names in a pickle; those of checkpoints have some ten."""

KEPT = 20
"""Uses of a name that are kept; the rest is counted."""

_UNKNOWN = "a name that could not be followed"

# What is shown of a value.
_MEMBERS = 4
_LEVELS = 3
_BITS = 128
_CHARACTERS = 1000

_STORAGES = {
    *(f"{module}.{kind}" for module in ("torch", "torch.cuda") for kind in STORAGE_DTYPES),
    *("torch.storage.UntypedStorage", "torch.storage.TypedStorage"),
}
_TORCH = (
    "Tensor device nn.parameter.Parameter nn.parameter.Buffer serialization._get_layout "
    "_utils._rebuild_device_tensor_from_numpy _utils._rebuild_sparse_tensor _utils._rebuild_qtensor"
)
_DISTRIBUTED = (
    "metadata.Metadata metadata.TensorStorageMetadata metadata.BytesStorageMetadata "
    "metadata.ChunkStorageMetadata metadata.MetadataIndex metadata.StorageMeta "
    "metadata.TensorProperties metadata._MEM_FORMAT_ENCODING filesystem._StorageInfo"
)
"""What torch.distributed.checkpoint notes of a folder: data classes, of no code of their own."""
_SCRIPT = (
    "build_intlist build_tensorlist build_doublelist build_boollist build_tensor_from_id "
    "restore_type_tag"
)
"""What TorchScript's own pickles call; torch/jit/_pickle.py returns what it is given."""
_OTHERS = (
    "numpy.dtype numpy.ndarray numpy._core.multiarray._reconstruct argparse.Namespace "
    "yacs.config.CfgNode collections.deque decimal.Decimal uuid.UUID datetime.date datetime.time "
    "datetime.datetime datetime.timedelta datetime.timezone pathlib.Path pathlib.PosixPath "
    "pathlib.WindowsPath pathlib.PurePosixPath pathlib._local.PosixPath pathlib._local.WindowsPath"
)
PLAIN = frozenset({
    *BUILT,
    *_STORAGES,
    *(f"torch.{name}" for name in (*ELEMENT_TYPES, *_TORCH.split())),
    *(f"torch.jit._pickle.{name}" for name in _SCRIPT.split()),
    *(f"torch.distributed.checkpoint.{name}" for name in _DISTRIBUTED.split()),
    *_OTHERS.split(),
})  # fmt: skip
"""Names that only hold data, whatever they are called with: what honest checkpoints are made of."""


class Judgement(StrEnum):
    """What a name means to a loader that imports and calls it."""

    PLAIN = "plain"
    """It only holds data."""
    FOREIGN = "foreign"
    """It runs code of a package that is not known here."""
    UNSAFE = "unsafe"
    """In a checkpoint it is there only to run code."""


@dataclass(frozen=True, slots=True)
class Use:
    """Something done with a name.

    Attributes:
        instruction: As :mod:`pickletools` calls it: ``REDUCE``, ``NEWOBJ``, ``INST``, ``BUILD``.
        position: Where it is, in bytes from the beginning of the pickle's file or entry.
        arguments: What it is called with or given as state, bounded and printable.
    """

    instruction: str
    position: int
    arguments: str


@dataclass(slots=True)
class Named:
    """A class or function that a pickle names; filled in while the pickle is followed.

    Attributes:
        name: Module and name as the pickle spells them, printable.
        judgement: What it means.
        position: Where it is named first, in bytes.
        spelled: Whether the pickle spells it out; else it stands for what cannot be known.
        used: How often it is called or given a state.
        uses: The first :data:`KEPT` of those.
    """

    name: str
    judgement: Judgement
    position: int
    spelled: bool = True
    used: int = 0
    uses: list[Use] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class PickleAudit:
    """What one pickle would do.

    Attributes:
        place: The entry of the archive or the file it is in.
        names: In the order in which they are named first.
        lost: Where and why the pickle could not be followed any further; None if it was to its end.
        marked: Whether it begins with its protocol, as those of protocol 2 and later do.
        instructions: How many were read.
    """

    place: str
    names: tuple[Named, ...]
    lost: str | None
    marked: bool = False
    instructions: int = 0

    @property
    def running(self) -> list[Named]:
        """The names that run code."""
        return [named for named in self.names if named.judgement is not Judgement.PLAIN]


def audit_pickle(source: PickleSource, most: int = MAX_OPCODES) -> PickleAudit:
    """Follow one pickle, leaving ``source`` behind its end.

    Behind an instruction that cannot be followed names are still collected: a loader may get
    further, and has in any case done what stands before. ``most`` instructions are read.
    """
    machine = _AuditMachine(source.label)
    lost = None
    marked = False
    count = 0
    steps = instructions(source, machine.expects_elements)
    try:
        for count, (name, argument, at) in enumerate(steps):
            marked |= count == 0 and name == "PROTO"
            if count == most:
                lost = lost or f"byte {at}: more than {most} instructions"
                break
            if lost is None:
                lost = machine.follow(name, argument, at)
            else:
                machine.collect(name, argument, at)
    except (LookupError, TypeError, ValueError) as error:
        lost = lost or f"byte {source.tell()}: {printable(str(error))}"
    return PickleAudit(source.label, tuple(machine.names.values()), lost, marked, count)


class _AuditMachine(PickleMachine):
    """A pickle machine on which every name and call leaves a note and none is refused."""

    def __init__(self, label: str) -> None:
        super().__init__(label, no_storage)  # _op_binpersid asks for none
        self.names: dict[str, Named] = {}
        self._instruction = ""

    def follow(self, name: str, argument: Any, position: int) -> str | None:
        """Execute one instruction; return where and why that was not possible, or None."""
        self._instruction = name
        try:
            self.step(name, argument, position)
        except (LookupError, TypeError, ValueError) as error:
            if name != "STACK_GLOBAL":  # whose name, if there is one, is known by now
                self.collect(name, argument, position)
            return f"byte {position}: {fault_of(error)}"
        return None

    def collect(self, name: str, argument: Any, position: int) -> None:
        """Take a name from an instruction that is not executed."""
        self._position = position
        if name in {"GLOBAL", "INST"}:
            self._op_global(argument)
        elif name in {"EXT1", "EXT2", "EXT4"}:
            self._op_ext1(argument)
        elif name == "STACK_GLOBAL":
            self._unknown(_UNKNOWN)

    def _op_stack_global(self, _: None) -> None:
        if any(isinstance(value, Opaque) for value in self._stack[-2:]):  # what a call returns
            self._unknown(_UNKNOWN)
            self._stack[-2:] = [Opaque(_UNKNOWN)]
        else:
            super()._op_stack_global(None)

    def _name(self, module: str, name: str) -> None:
        plain = qualified_name(module, name)
        if runs_code(module, name):
            judgement = Judgement.UNSAFE
        elif plain in PLAIN or plain.startswith("builtins."):
            judgement = Judgement.PLAIN
        else:
            require_name(module, name)
            judgement = Judgement.FOREIGN
        self._named(f"{module}.{name}", judgement)
        self._stack.append(Opaque(f"{module}.{name}"))

    def _call(self, function: Tree, args: Tree) -> None:
        if not isinstance(function, Opaque):
            raise TypeError(f"it calls a value of type {type(function).__name__}")
        name = function.qualified_name
        if function.args is not None:
            name = f"what {name} returns"
            self._unknown(name)
        self._use(name, args)
        self._stack.append(Opaque(name, ()))

    def _op_build(self, _: None) -> None:
        state, target = self._stack.pop(), self._stack[-1]
        if isinstance(target, Opaque):
            self._use(target.qualified_name, state)
            if target.args is None and target.qualified_name in self.names:
                self._named(changed(target.qualified_name), Judgement.UNSAFE)

    def _op_binpersid(self, _: None) -> None:
        # The loader's own function makes these: of a torch loader, a storage.
        self._stack[-1] = Opaque("a storage", ())

    def _op_persid(self, _: str) -> None:
        self._stack.append(Opaque("a storage", ()))

    def _op_next_buffer(self, _: None) -> None:
        self._stack.append(Opaque("a buffer", ()))

    def _op_readonly_buffer(self, _: None) -> None:
        """Do nothing: what it makes of a buffer is one."""

    def _op_ext1(self, code: int) -> None:
        self._unknown(extension(code))
        self._stack.append(Opaque(extension(code)))

    _op_ext2 = _op_ext4 = _op_ext1

    def _unknown(self, name: str) -> None:
        self._named(name, Judgement.UNSAFE, spelled=False)

    def _named(self, name: str, judgement: Judgement, *, spelled: bool = True) -> None:
        if name not in self.names:
            if len(self.names) == MAX_NAMES:
                raise ValueError(f"more than {MAX_NAMES} names")
            self.names[name] = Named(printable(name), judgement, self._position, spelled)

    def _use(self, name: str, arguments: Tree) -> None:
        named = self.names.get(name)
        if named is None:  # a storage
            return
        named.used += 1
        if len(named.uses) < KEPT:
            named.uses.append(Use(self._instruction, self._position, shown(arguments)))


def shown(value: object, levels: int = _LEVELS) -> str:
    """A value of a pickle for people: bounded, on one line, without control characters."""
    match value:
        case Opaque() | Storage():
            return _noted(value)
        case str() | bytes():
            return printable(repr(value[:_CHARACTERS]))
        case bool() | float() | complex() | None:
            return repr(value)
        case int():
            return repr(value) if value.bit_length() <= _BITS else "a large number"
        case dict():
            pairs = (f"{shown(k, levels - 1)}: {shown(v, levels - 1)}" for k, v in value.items())
            return f"{{{_members(pairs, len(value), levels)}}}"
        case list() | tuple() | set() | frozenset():
            members = (shown(member, levels - 1) for member in value)
            text = _members(members, len(value), levels)
            return f"[{text}]" if isinstance(value, list) else f"({text})"
    raise TypeError(type(value))  # _op_binpersid leaves no tensor


def _noted(value: Opaque | Storage) -> str:
    """What is not in memory: the elements of an array, or what a name stands for."""
    if isinstance(value, Storage):
        return f"{value.length} bytes"
    return printable(value.qualified_name) + ("" if value.args is None else "(...)")


def _members(members: Iterable[str], count: int, levels: int) -> str:
    """The first members, as far as levels are left to go down."""
    first = list(islice(members, _MEMBERS)) if levels else []
    return ", ".join(first + (["..."] if count > len(first) else []))
