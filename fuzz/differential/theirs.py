"""What other people's libraries find in a file: runs in a process of its own, which may die.

Nothing that a file names is run: where torch is asked to unpickle like a program that trusts the
file, names beyond its own harmless builders are classes that do nothing.
"""

from __future__ import annotations

import pickle
import warnings
from contextlib import suppress
from functools import partial
from importlib import import_module
from types import ModuleType, SimpleNamespace
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import onnxruntime
import torch
from safetensors import safe_open

from fuzz.differential import named_readers, ours
from fuzz.differential.reading import (
    MAX_DEPTH,
    UNREAD,
    Leaf,
    Reading,
    path_of,
    taken_apart,
    tensor,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

_REAL = {
    "builtins": ("set", "frozenset", "list", "tuple", "dict", "bytes", "bytearray", "complex"),
    "collections": ("OrderedDict", "Counter", "defaultdict"),
    "copyreg": ("_reconstructor",),
    "_codecs": ("encode",),
    "torch": ("Size", "Tensor", "device"),
    "torch.storage": ("UntypedStorage",),
    "torch.nn.parameter": ("Parameter", "Buffer"),
    "torch._utils": (
        "_rebuild_tensor",
        "_rebuild_tensor_v2",
        "_rebuild_tensor_v3",
        "_rebuild_parameter",
        "_rebuild_parameter_with_state",
    ),
    "torch._tensor": ("_rebuild_from_type_v2",),
    "torch.nn.modules.container": ("Sequential",),
    "torch.nn.modules.conv": ("Conv2d",),
    "torch.nn.modules.batchnorm": ("BatchNorm2d",),
    "torch.nn.modules.linear": ("Linear",),
    "numpy": ("dtype", "ndarray"),
    "numpy._core.multiarray": ("scalar", "_reconstruct"),
    "numpy.core.multiarray": ("scalar", "_reconstruct"),
    "numpy._core.numeric": ("_frombuffer",),
    "numpy.core.numeric": ("_frombuffer",),
}
"""What builds data and nothing else; torch's storages and dtypes besides."""

_OLD_MODULES = {"__builtin__": "builtins", "copy_reg": "copyreg"}


class Note:
    """Stands for an object of any class that is not torch's own."""

    def __new__(cls, *_: object, **__: object) -> Self:
        """Take any arguments."""
        return super().__new__(cls)

    def __init__(self, *_: object, **__: object) -> None:
        pass

    def __setstate__(self, _: object) -> None:
        pass

    def __setitem__(self, _: object, __: object) -> None:
        pass

    def append(self, _: object) -> None:
        """Take an element, as a subclass of list does."""

    def extend(self, _: object) -> None:
        """Take elements, as a subclass of list does."""

    def __call__(self, *_: object, **__: object) -> Note:
        """Be a function, too."""
        return Note()


class _Unpickler(pickle.Unpickler):
    """CPython's own, which imports nothing and keeps a list of what it was to import."""

    named: set[str]

    def find_class(self, module: str, name: str) -> Any:
        self.named.add(f"{module}.{name}")
        module = _OLD_MODULES.get(module, module)
        if name in _REAL.get(module, ()):
            return getattr(__import__(module, fromlist=[name]), name)
        if module == "torch" and isinstance(getattr(torch, name, None), torch.dtype):
            return getattr(torch, name)
        if module in ("torch", "torch.cuda") and name.endswith("Storage"):
            return getattr(torch, name)
        return type(name if name.isidentifier() else "Note", (Note,), {})


def _unpickling_module(named: set[str]) -> ModuleType:
    """A module that `torch.load` takes for the standard library's."""
    module = ModuleType("restricted")
    unpickler = type("Unpickler", (_Unpickler,), {"named": named})

    def load(file: Any, **options: Any) -> object:
        return unpickler(file, **options).load()

    vars(module).update(Unpickler=unpickler, load=load)
    return module


_ARRAYS = {np.dtype(kind).str: kind for kind in (
    "bool", "int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64", "float16",
    "float32", "float64", "complex64", "complex128",
)}  # fmt: skip
"""What the elements of an array may be to be compared, by NumPy's code."""

_UNBUILT = (type, torch.dtype, torch.device, np.ndarray, np.dtype, Note)


def _leaf(value: object) -> Leaf | None:
    match value:
        case torch.Tensor():
            usual = value.layout is torch.strided and not (value.is_quantized or value.is_meta)
            return _tensor(value.detach()) if usual else UNREAD
        case torch.storage.TypedStorage():
            flat = torch.tensor([], dtype=value.dtype).set_(value._untyped_storage)  # noqa: SLF001
            return _tensor(flat)
        case torch.UntypedStorage():
            return _tensor(torch.tensor([], dtype=torch.uint8).set_(value))
        case np.ndarray() if value.dtype.str in _ARRAYS:
            stride = tuple(step // value.itemsize for step in value.strides)
            kind = _ARRAYS[value.dtype.str]
            return tensor(kind, value.shape, stride, value.nbytes, value.tobytes)
        case np.generic():
            return ["plain", f"{type(value.item()).__name__} {value.item()!r}"]
    return UNREAD if isinstance(value, _UNBUILT) or callable(value) else None


def _tensor(value: torch.Tensor) -> Leaf:
    """Make a leaf of a tensor.

    Raises:
        ValueError: It has no memory. `torch.jit.load` believes a pickle about the size of a storage
            whose entry is empty, and whoever reads the tensor crashes.
    """
    if value.numel() and not value.untyped_storage().data_ptr():
        raise ValueError("a tensor without memory")

    def data() -> bytes:
        # As they are: a copy of booleans would make other bytes than 0 and 1 to those.
        raw = value.view(torch.uint8) if value.dtype is torch.bool else value
        dense = torch.empty(value.shape, dtype=raw.dtype).copy_(raw)
        return bytes(dense.reshape(-1).view(torch.uint8).numpy().tobytes())

    shape, stride = tuple(value.shape), tuple(value.stride())
    nbytes = value.numel() * value.element_size()
    return tensor(str(value.dtype).removeprefix("torch."), shape, stride, nbytes, data)


def _with_state_dicts(value: Any, depth: int = 0) -> Any:
    """The same with state dicts in the place of modules, in mappings alone, as we take them."""
    if isinstance(value, torch.nn.Module):
        return dict(value.state_dict())
    if not isinstance(value, dict) or depth > MAX_DEPTH:
        return value
    return {key: _with_state_dicts(member, depth + 1) for key, member in value.items()}


def _data_only(path: Path) -> Reading:
    return taken_apart(torch.load(path, weights_only=True, map_location="cpu"), _leaf)


def _mapped(path: Path) -> Reading:
    return taken_apart(torch.load(path, weights_only=True, mmap=True, map_location="cpu"), _leaf)


def _trusting(path: Path, named: set[str]) -> Reading:
    module = _unpickling_module(named)
    tree = torch.load(path, pickle_module=module, weights_only=False, map_location="cpu")
    return taken_apart(_with_state_dicts(tree), _leaf)


def _pickled(path: Path, named: set[str]) -> Reading:
    with path.open("rb") as file:
        reader = type("Unpickler", (_Unpickler,), {"named": named})(file, encoding="latin1")
        return taken_apart(reader.load(), _leaf)


def _numpy(path: Path) -> Reading:
    """As `numpy.load` reads arrays that have names; one that it refuses may be no tensor to us."""
    tree: dict[str, Any] = {}
    loaded: Any = np.load(path, allow_pickle=False)
    for name in loaded.files:
        tree[name.replace("/", ".")] = Note()
        with suppress(Exception):
            tree[name.replace("/", ".")] = loaded[name]
    return taken_apart(tree, _leaf)


def _safetensors(path: Path) -> Reading:
    with safe_open(path, "pt") as file:
        reading = {path_of(name): _tensor(file.get_tensor(name)) for name in file.keys()}  # noqa: SIM118
        reading["metadata"] = ["plain", repr(sorted((file.metadata() or {}).items()))]
    reading[""] = ["plain", f"dict of {len(reading) - 1}"]
    return reading


_OF_DISTRIBUTED = (
    "Metadata", "MetadataIndex", "TensorStorageMetadata", "BytesStorageMetadata",
    "ChunkStorageMetadata", "TensorProperties", "_MEM_FORMAT_ENCODING", "StorageMeta",
    "_StorageInfo",
)  # fmt: skip


class _MetadataUnpickler(_Unpickler):
    """Builds what `.metadata` is made of, too."""

    def find_class(self, module: str, name: str) -> Any:
        if module.startswith("torch.distributed.checkpoint.") and name in _OF_DISTRIBUTED:
            return getattr(__import__(module, fromlist=[name]), name)
        if (module, name) == ("torch.serialization", "_get_layout"):
            return getattr(torch.serialization, name)
        return super().find_class(module, name)


def _distributed(folder: Path, named: set[str]) -> Reading:
    """As `dcp_to_torch` reads it, but that pickles build nothing else than they should."""
    from torch.distributed.checkpoint.api import CheckpointException
    from torch.distributed.checkpoint.state_dict_loader import _load_state_dict

    of_torch = "torch.distributed.checkpoint."
    filesystem: Any = import_module(of_torch + "filesystem")
    planner: Any = import_module(of_torch + "default_planner")

    def load(file: Any) -> object:
        return type("Unpickler", (_MetadataUnpickler,), {"named": named})(file).load()

    def plain(*arguments: Any, **options: Any) -> object:
        return torch.load(*arguments, **options | {"weights_only": True})

    filesystem.pickle = SimpleNamespace(load=load)
    planner.torch = _Torch(plain)
    tree: dict[str, Any] = {}
    try:
        _load_state_dict(
            tree,
            storage_reader=filesystem.FileSystemReader(folder),
            planner=planner._EmptyStateDictLoadPlanner(),  # noqa: SLF001
            no_dist=True,
        )
    except CheckpointException as error:  # which is no Exception
        raise ValueError("; ".join(repr(why[0]) for why in error.failures.values())) from error
    return taken_apart(tree, _leaf)


class _Torch:
    """Torch with another function that loads."""

    def __init__(self, load: Callable[..., object]) -> None:
        self.load = load

    def __getattr__(self, name: str) -> Any:
        return getattr(torch, name)


def _torchscript(path: Path) -> Reading:
    load: Callable[..., torch.jit.ScriptModule] = torch.jit.load
    module = load(str(path), map_location="cpu")
    reading = taken_apart(dict(module.state_dict()), _leaf)
    reading["program"] = ["plain", str(module.inlined_graph)]
    with torch.inference_mode():
        output = module(ours.IMAGE)
    reading["output"], reading["computed"] = _tensor(output), ours.numbers(output)
    return reading


def _exported(path: Path) -> Reading:
    program = torch.export.load(path)
    return taken_apart(dict(program.state_dict), _leaf)


def _program(path: Path) -> Reading:
    program: Any = torch.export.load(path).module()
    with torch.inference_mode():
        return {"computed": ours.numbers(program(ours.IMAGE))}


def _onnx(path: Path) -> Reading:
    """As ONNX Runtime computes, without its passes, in which it may be wrong itself."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(path.read_bytes(), options)
    (image,) = session.get_inputs()
    output, *_ = session.run(None, {image.name: ours.IMAGE.numpy()})
    return {"computed": ours.numbers(torch.from_numpy(output))}


def read(kind: str, path: Path) -> dict[str, Any]:
    """Read a file with every library that takes files of its kind.

    Args:
        kind: ``torch``, ``zip`` (which is mapped too), ``arrays``, ``safetensors``,
            ``numpy``, ``torchscript``, ``pt2``, ``hdf5``, ``keras``, ``msgpack``, ``mindspore`` or
            ``distributed``; ``program`` and ``onnx``, which are run; or ``ours``, which reads HDF5
            and Keras' archives as we do.
        path: The file, or the folder.

    Returns:
        ``readings`` by reader, of those that took it; ``refusals`` by reader, in words; ``named``:
        what a trusting program would have imported.
    """
    named: set[str] = set()
    readers: dict[str, dict[str, Callable[[Path], Reading]]] = {
        "torch": {"weights_only": _data_only, "trusting": partial(_trusting, named=named)},
        "arrays": {"pickle": partial(_pickled, named=named)},
        "safetensors": {"safetensors": _safetensors},
        "torchscript": {"torch.jit.load": _torchscript},
        "pt2": {"torch.export.load": _exported},
        "program": {"torch.export.load": _program},
        "onnx": {"onnxruntime": _onnx},
        "distributed": {"dcp_to_torch": partial(_distributed, named=named)},
        "hdf5": {"h5py": named_readers.hdf5},
        "keras": {"zipfile and h5py": named_readers.keras},
        "ours": {"ours": ours.named_here},
        "numpy": {"numpy.load": _numpy},
        "msgpack": {"flax": named_readers.flax},
        "mindspore": {"mindspore": named_readers.mindspore},
    }
    readers["zip"] = readers["torch"] | {"mapped": _mapped}
    answer = SimpleNamespace(readings={}, refusals={})
    for name, reader in readers[kind].items():
        try:
            with warnings.catch_warnings(action="ignore"):
                answer.readings[name] = reader(path)
        except Exception as error:  # noqa: BLE001 -- whatever it is, it is a refusal
            answer.refusals[name] = f"{type(error).__name__}: {str(error)[:300]}"
    return vars(answer) | {"named": sorted(named)}
