"""What is in an HDF5 file, found out by h5py in a process that can do nothing else.

libhdf5 is C code of which somebody finds a weakness every year, and a checkpoint is a stranger's.
So it runs here, in a process that has one open file, no right to open another or to write, little
memory and little time, and that hands back JSON (:func:`serve`). No element of a tensor is read.

Source: Keras ``saving/legacy/hdf5_format.py`` and ``saving/saving_lib.py`` (how files are laid
out), transformers ``modeling_tf_utils.py`` (likewise).
"""

from __future__ import annotations

import json
import os
import sys
from dataclasses import dataclass, field
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

from converters.checkpoint.keras_config import MAX_CONFIG, require_no_code
from converters.checkpoint.source_file import stream_of
from converters.errors import ConversionError, InputError, UnsafeInputError, in_words, printable
from regnet.files.system import give_up_rights, read_at

if TYPE_CHECKING:
    from collections.abc import Iterator

    import h5py

    from converters.checkpoint.source_file import ReadableAt

MAX_MEMBERS = 1 << 16
"""Groups and datasets; a RegNet of 128GF with its optimiser has 3,000."""

MAX_DEPTH = 32
"""Levels of groups; those of a RegNet are a dozen."""

MAX_NAME = 1 << 10
"""Bytes of a name with all its levels."""

MAX_NAMES = 1 << 24
"""Bytes of an attribute that lists names."""

MEMORY = 1 << 30
"""Bytes of data that the process may hold."""

OPTIMISER = ("optimizer_weights", "optimizer")
"""The groups at the top that Keras keeps its optimiser in."""

TOP_LEVEL = "top_level_model_weights"
"""A layer that Keras does not list among the others."""

_VARIABLES = "/vars/"
"""The group of a layer's tensors in files of Keras 3, of which it has the layer's name."""

_DATASET = ":0"
"""How TensorFlow's name of a tensor ends, and no layer's."""

WEIGHTS, LAYERS = "weight_names", "layer_names"
"""Attributes: of a layer's group its weights, of a model's its layers, of a shard its tensors."""

_CONFIGS = ("model_config", "training_config")
"""Attributes of a file: what Keras builds of it."""


@dataclass(frozen=True)
class Region:
    """A run of bytes in an open file, as if it were a file."""

    descriptor: int
    start: int
    size: int
    name: str

    @property
    def origin(self) -> tuple[Path, int]:
        """The file, by its name alone, and where the bytes begin in it."""
        return Path(self.name), self.start

    def read(self, offset: int, length: int) -> bytes:
        """Return the ``length`` bytes at ``offset``, or those that there are."""
        length = max(min(length, self.size - offset), 0)
        return read_at(self.descriptor, length, self.start + offset)


def serve() -> None:
    """Describe the file that is standard input; its name, start and size are arguments."""
    name, start, size = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    out = os.fdopen(os.dup(1), "w", encoding="ascii")
    os.dup2(2, 1)
    import h5py  # noqa: F401 -- before the right to open files is gone

    give_up_rights(None, MEMORY)
    try:
        answer: dict[str, Any] = {"tensors": described(Region(0, start, size, name))}
    except ConversionError as error:
        answer = {"error": type(error).__name__, "words": str(error)}
    json.dump(answer, out)
    out.flush()
    os._exit(0)  # what libhdf5 does at its end is not waited for


def described(file: ReadableAt) -> list[dict[str, Any]]:
    """Find the datasets of a file.

    Returns:
        Of each its ``name``, levels joined by dots; ``within``, the name of the mapping that it is
        in, if not the outermost; ``dtype``, as torch calls it; ``shape``; ``offset``, in bytes from
        the beginning of the file, of elements that lie one behind another, little-endian; and
        ``layer``, the name of its layer, where Keras 3 states it.

    Raises:
        InputError: It is damaged, or a dataset is of a kind that is not read.
        UnsafeInputError: It leads to other files, programs may disagree on what it holds, or Keras
            would run code for it.
    """
    import h5py

    try:
        with h5py.File(stream_of(file), "r") as root:
            found = _File(file.name)
            found.require_no_code(root)
            return list(found.datasets(root, "", ""))
    except (OSError, RuntimeError, ValueError, KeyError, TypeError, AttributeError) as error:
        quoted = isinstance(error, KeyError)  # which shows its words in quotes
        why = in_words(str(error.args[0]) if quoted else error)
        raise InputError(
            f"{file.name}: is truncated or damaged, it cannot be read as HDF5 ({why}); download or "
            "copy it again."
        ) from error


@dataclass
class _File:
    """Goes through a file.

    Attributes:
        name: What messages call it.
        members: How many groups and datasets were met.
        seen: The names of tensors, and the mappings that they are in.
    """

    name: str
    members: int = 0
    seen: set[tuple[str, str]] = field(default_factory=set)

    def require_no_code(self, root: h5py.Group) -> None:
        """Check what the file says of the network that Keras is to build.

        Raises:
            UnsafeInputError: Keras would run code for it.
        """
        for attribute in _CONFIGS:
            if attribute in root.attrs:
                text = root.attrs[attribute]
                if not isinstance(text, str | bytes) or len(text) > MAX_CONFIG:
                    raise self._refused("/", f"has an attribute {attribute} that is no short text")
                require_no_code(f"{self.name}, {attribute}", text)

    def datasets(self, group: h5py.Group, path: str, model: str) -> Iterator[dict[str, Any]]:
        """The datasets of a group that is no layer's.

        Args:
            group: It.
            path: Its levels, each followed by a slash.
            model: Those of the model that it belongs to.
        """
        layers = self._listed(group, LAYERS)
        if layers and not path and all(name.endswith(_DATASET) for name in layers):
            yield from self._layer(group, path, path, layers)  # of a shard, which lists tensors
            return
        layer = self._stated(group) if path.endswith(_VARIABLES) else {}
        if layers is not None:
            model = path
        for name, member in self._members(group, path):
            weights = self._listed(member, WEIGHTS) if _is_group(member) else None
            listed = {*(layers or ()), TOP_LEVEL, *OPTIMISER}
            if weights and layers is not None and name not in listed:
                raise self._ambiguous(f"its {LAYERS} leave out {printable(name)}")
            if weights is not None:
                yield from self._layer(member, f"{path}{name}/", model, weights)
            elif _is_group(member):
                yield from self.datasets(member, f"{path}{name}/", model)
            else:
                yield self._dataset(member, path + name, path + name) | layer

    def _layer(
        self, group: h5py.Group, path: str, model: str, weights: list[str]
    ) -> Iterator[dict[str, Any]]:
        """The weights of a layer, whose names do not have its group's."""
        found = list(self._below(group, path))
        names = [inside.removeprefix(path) for inside, _ in found]
        if sorted(names) != sorted(weights):
            whose, listed = (path[:-1], WEIGHTS) if path else ("the file", LAYERS)
            what = f"its {listed} are not the datasets of {printable(whose)}"
            raise self._ambiguous(what)
        top = path.split("/", maxsplit=1)[0]
        before = path if top in OPTIMISER else model
        for name, (inside, dataset) in zip(names, found, strict=True):
            yield self._dataset(dataset, before + name, inside)

    def _below(self, group: h5py.Group, path: str) -> Iterator[tuple[str, h5py.Dataset]]:
        for name, member in self._members(group, path):
            if _is_group(member):
                yield from self._below(member, f"{path}{name}/")
            else:
                yield path + name, member

    def _members(
        self, group: h5py.Group, path: str
    ) -> Iterator[tuple[str, h5py.Group | h5py.Dataset]]:
        import h5py

        for name in group:
            self.members += 1
            inside = f"{path}{name}"
            if self.members > MAX_MEMBERS or inside.count("/") > MAX_DEPTH:
                most = f"{MAX_MEMBERS} groups and datasets"
                if inside.count("/") > MAX_DEPTH:
                    most = f"{MAX_DEPTH} levels of groups"
                raise InputError(
                    f"{self.name}: holds more than {most}, which no RegNet needs; save the "
                    "network's weights alone."
                )
            if len(inside) > MAX_NAME:
                raise self._refused(inside, "has a longer name than a network needs")
            link = group.get(name, getlink=True)
            if isinstance(link, h5py.SoftLink):
                raise self._refused(inside, "is a link to another place in the file")
            if not isinstance(link, h5py.HardLink):
                raise self._outside(inside, "is a link to another file")
            member = group[name]
            if not isinstance(member, h5py.Group | h5py.Dataset):
                raise self._refused(inside, "is neither a group nor a dataset")
            yield name, member

    def _dataset(self, dataset: h5py.Dataset, name: str, place: str) -> dict[str, Any]:
        import h5py

        properties = dataset.id.get_create_plist()
        layout = properties.get_layout()
        if layout == h5py.h5d.VIRTUAL or properties.get_external_count():
            raise self._outside(place, "lies in other files")
        dtype = self._dtype(dataset, place)
        if properties.get_nfilters():
            raise self._refused(place, "is compressed")
        if layout != h5py.h5d.CONTIGUOUS:
            raise self._refused(place, "is stored in pieces")
        shape = dataset.shape
        if shape is None:
            raise self._refused(place, "holds nothing")
        offset = dataset.id.get_offset()
        if offset is None and dataset.size:
            raise self._refused(place, "was never written")
        within, _, rest = name.partition("/")
        if within not in OPTIMISER:
            within, rest = "", name
        rest = rest.removesuffix(_DATASET).replace("/", ".")
        if (within, rest) in self.seen:
            raise self._ambiguous(f"it has the tensor {printable(rest)} twice")
        self.seen.add((within, rest))
        described = {"name": rest, "within": within, "dtype": dtype, "shape": list(shape)}
        return described | {"offset": offset or 0}

    def _dtype(self, dataset: h5py.Dataset, place: str) -> str:
        """The type of a dataset's elements, to the bit as torch has it."""
        import h5py

        known = {
            "float32": h5py.h5t.IEEE_F32LE,
            "float16": h5py.h5t.IEEE_F16LE,
            "float64": h5py.h5t.IEEE_F64LE,
            "int64": h5py.h5t.STD_I64LE,
            "int32": h5py.h5t.STD_I32LE,
            "int16": h5py.h5t.STD_I16LE,
            "int8": h5py.h5t.STD_I8LE,
            "uint64": h5py.h5t.STD_U64LE,
            "uint32": h5py.h5t.STD_U32LE,
            "uint16": h5py.h5t.STD_U16LE,
            "uint8": h5py.h5t.STD_U8LE,
        }
        stored = dataset.id.get_type()
        for name, kind in known.items():
            if stored.equal(kind):
                return name
        kinds = {
            h5py.h5t.STRING: "text",
            h5py.h5t.VLEN: "lists of any length",
            h5py.h5t.REFERENCE: "references to objects",
            h5py.h5t.COMPOUND: "records",
        }
        raise self._refused(
            place, f"holds {kinds.get(stored.get_class(), 'numbers of a rare type')}"
        )

    def _listed(self, group: h5py.Group, attribute: str) -> list[str] | None:
        """The names that an attribute lists, of which long ones are cut in pieces; or None."""
        import h5py

        pieces = [attribute] if attribute in group.attrs else []
        while not pieces or pieces[-1] != attribute:
            piece = f"{attribute}{len(pieces)}"
            if piece not in group.attrs:
                break
            pieces.append(piece)
        if not pieces:
            return None
        names: list[str] = []
        for piece in pieces:
            value = h5py.h5a.open(group.id, piece.encode())
            empty = 0 in value.shape
            if not empty and value.get_type().get_class() != h5py.h5t.STRING:
                raise self._refused(
                    group.name, f"has an attribute {piece} that is no list of names"
                )
            many = prod(value.shape) > MAX_MEMBERS
            if not empty and (many or value.get_storage_size() > MAX_NAMES):
                raise self._refused(group.name, f"has an attribute {piece} of too many names")
            stored = [] if empty else list(group.attrs[piece])
            names += [s.decode() if isinstance(s, bytes) else str(s) for s in stored]
        return names

    def _stated(self, group: h5py.Group) -> dict[str, str]:
        """The name of the layer whose tensors a group holds, if there is one of sensible length."""
        import h5py

        if "name" not in group.attrs:
            return {}
        value = h5py.h5a.open(group.id, b"name")
        if value.get_type().get_class() != h5py.h5t.STRING or value.shape:
            return {}
        name = group.attrs["name"]
        return {"layer": name} if isinstance(name, str) and 0 < len(name) <= MAX_NAME else {}

    def _refused(self, place: str, what: str) -> InputError:
        return InputError(
            f"{self.name}, {printable(place)}: {what}, which is not read; load the network in its "
            "framework and save its weights again, as the framework does by itself."
        )

    def _outside(self, place: str, what: str) -> UnsafeInputError:
        return UnsafeInputError(
            f"{self.name}, {printable(place)}: {what}, which no checkpoint needs; nothing was "
            "opened, get the checkpoint from a source you trust."
        )

    def _ambiguous(self, what: str) -> UnsafeInputError:
        return UnsafeInputError(
            f"{self.name}: {what}, so that programs may disagree on its content; get the "
            "checkpoint from a source you trust."
        )


def _is_group(member: h5py.Group | h5py.Dataset) -> bool:
    import h5py

    return isinstance(member, h5py.Group)
