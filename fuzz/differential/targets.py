"""What is changed, who reads it, and when two readings are a disagreement.

The rule. What we refuse is no finding. What we read, every reader of such files that takes it must
find, too. What we read whole and no other reader takes is a finding, unless all of them refuse for
one of the reasons in :data:`BY_DESIGN`; where we left an object unread, such as a trainer's config,
others may well refuse because of it.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from converters.checkpoint.sniff import HDF5_START
from converters.errors import ConversionError, InputError, StorageError, UnsafeInputError
from converters.parity.contents.pt2 import read_pt2
from converters.parity.contents.torchscript import read_torchscript
from fuzz.differential import (
    archives,
    array_changes,
    distributed_changes,
    graph_changes,
    json_changes,
    legacy_changes,
    named_changes,
    ours,
    pickles,
    safetensors_changes,
    seeds,
)
from fuzz.differential.archive_changes import Changes
from fuzz.differential.reading import EndlessError, Reading, are_close, difference, path_of, tensor

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path
    from random import Random

    from converters.folder.folder import ConvertedFolder
    from converters.parity.contents.held import Contents
    from fuzz.differential.library import Library

BY_DESIGN = (
    "'torch.storage.UntypedStorage' has no attribute 'dtype'",  # torch saves such, and fails
    "not enough values to unpack (expected 5, got 4)",  # a legacy file without a word on views
    "'utf-8' codec can't decode",  # text of Python 2, which torch reads with encoding="latin1"
    "__init__() missing ",  # a class that is called, where pickle makes objects without it
    "NotImplementedError: zip file version",  # which zipfile has not, and nobody else cares about
    "Weights only load failed",  # an object, or an instruction, that the other readers take
)
"""Parts of the words in which other readers refuse what we may read."""

_BY_LIBHDF5 = ("hdf5", "keras")
"""Kinds that we read in a process of its own."""

_REFUSALS = tuple(f"{error.__name__}:" for error in (InputError, StorageError, UnsafeInputError))

_CHANGES = (1, 1, 1, 2, 2, 2, 3, 3, 4, 5, 7)
"""How many changes a file gets."""


@dataclass(frozen=True, slots=True)
class Finding:
    """A disagreement.

    Attributes:
        kind: ``differs``, ``only ours``, ``names`` or ``error``.
        words: What it is.
    """

    kind: str
    words: str


@dataclass(frozen=True, slots=True)
class Target:
    """A kind of file.

    Attributes:
        make: Makes a changed file.
        judge: Has it read by all, and says where they disagree; the second value says whether we
            read it, and the third whether others did.
    """

    make: Callable[[Random], bytes]
    judge: Callable[[Path, Library], tuple[Finding | None, bool, bool]]


def _changed_hdf5(content: bytes, rng: Random) -> bytes:
    if not content.startswith(HDF5_START):
        return pickles.changed_bytes(content, rng)
    return named_changes.changed_hdf5([content], rng)


_FIT: dict[bytes, Callable[[bytes, Random], bytes]] = {
    b".pkl": pickles.change,
    b".pt": pickles.change,
    b".py": graph_changes.changed_code,
    b".h5": _changed_hdf5,
    b".npy": array_changes.changed,
    b".json": json_changes.changed,
}
"""What changes the content of an entry, by how its name ends."""


def _edit(name: bytes, content: bytes, rng: Random) -> bytes:
    """Change the content of an entry as is fit for its kind."""
    lower = name.lower()
    fit = next((change for ending, change in _FIT.items() if lower.endswith(ending)), None)
    if fit is not None and rng.randrange(8):
        return fit(content, rng)
    if lower.endswith((b".py", b".json", b"version", b"byteorder", b"archive_format")):
        digits = [at for at, byte in enumerate(content) if 0x30 <= byte <= 0x39]  # noqa: PLR2004
        if digits and rng.randrange(3):
            at = rng.choice(digits)
            return content[:at] + str(rng.randrange(10)).encode() + content[at + 1 :]
    return pickles.changed_bytes(content, rng)


def _archive_maker(files: list[bytes]) -> Callable[[Random], bytes]:
    def make(rng: Random) -> bytes:
        def other() -> archives.Archive:
            return archives.parsed(rng.choice(files))

        archive = other()
        changes = Changes(rng, other, _edit)
        for _ in range(rng.choice(_CHANGES)):
            changes.change(archive)
        data = archives.written(archive)
        return pickles.changed_bytes(data, rng) if rng.randrange(20) == 0 else data

    return make


def _pickle_maker(files: list[bytes]) -> Callable[[Random], bytes]:
    """Archives of which the pickle alone is changed."""

    def make(rng: Random) -> bytes:
        archive = archives.parsed(rng.choice(files))
        (content,) = (
            part
            for part in archive
            if isinstance(part, archives.Local) and part.name.endswith(b"/data.pkl")
        )
        other = archives.parsed(rng.choice(files))
        theirs = next(p.content for p in other if isinstance(p, archives.Local))
        for _ in range(rng.choice((1, 1, 2, 3))):
            content.content = pickles.change(content.content, rng, theirs)
        return archives.written(archive)

    return make


def _legacy_maker(files: list[bytes], path: Path) -> Callable[[Random], bytes]:
    def make(rng: Random) -> bytes:
        legacy = legacy_changes.parsed(rng.choice(files), path)
        other = legacy_changes.parsed(rng.choice(files), path).pickles[3]
        for _ in range(rng.choice((1, 1, 2, 3))):
            legacy_changes.change(legacy, rng, other)
        data = legacy_changes.written(legacy)
        return pickles.changed_bytes(data, rng) if rng.randrange(20) == 0 else data

    return make


def _reading(read: Callable[[], Reading]) -> tuple[Reading | None, Finding | None]:
    """What we read; None if we refuse."""
    try:
        return read(), None
    except ConversionError:
        return None, None
    except EndlessError:
        return None, None
    except Exception as error:  # noqa: BLE001 -- which is what is looked for
        return None, Finding("error", f"{type(error).__name__}: {str(error)[:300]}")


def _said(answer: dict[str, Any] | None) -> tuple[Reading | None, Finding | None]:
    """What we read in the other process; None if we refuse, or it died as our own would."""
    if answer is None or answer["readings"]:
        return answer and answer["readings"]["ours"], None
    (why,) = answer["refusals"].values()
    return None, None if why.startswith(_REFUSALS) else Finding("error", why)


def _compared(
    reading: Reading | None, finding: Finding | None, answer: dict[str, Any] | None
) -> tuple[Finding | None, bool, bool]:
    taken = answer is not None and bool(answer["readings"])
    if reading is None or finding is not None:
        return finding, False, taken
    whole = all(leaf[0] != "unread" for leaf in reading.values())
    if answer is None:
        return Finding("only ours", "the library's process died") if whole else None, True, False
    for name, theirs in answer["readings"].items():
        words = difference(reading, theirs)
        if words is not None:
            return Finding("differs", f"{name}: {words}"), True, True
    if not taken and whole:
        words = "; ".join(f"{name}: {why}" for name, why in answer["refusals"].items())
        if not all(any(r in why for r in BY_DESIGN) for why in answer["refusals"].values()):
            return Finding("only ours", words), True, False
    return None, True, taken


def _checkpoints(kind: str) -> Callable[[Path, Library], tuple[Finding | None, bool, bool]]:
    def judge(path: Path, library: Library) -> tuple[Finding | None, bool, bool]:
        reading, finding = _reading(lambda: ours.checkpoint(path))
        answer = library.read(kind, path)
        found, read, taken = _compared(reading, finding, answer)
        if found and found.kind == "only ours" and not ours.understood(path):
            found = None
        if found is None and answer is not None and kind != "safetensors":
            found = _unnamed(path, set(answer["named"]))
        return found, read, taken

    return judge


def _named(kind: str) -> Callable[[Path, Library], tuple[Finding | None, bool, bool]]:
    def judge(path: Path, library: Library) -> tuple[Finding | None, bool, bool]:
        if kind in _BY_LIBHDF5:
            reading, finding = _said(library.read("ours", path))
        else:
            reading, finding = _reading(lambda: ours.named(path))
        if reading is None and finding is None:
            return None, False, False
        return _compared(reading, finding, library.read(kind, path))

    return judge


def _networks(kind: str) -> Callable[[Path, Library], tuple[Finding | None, bool, bool]]:
    """Of an exported file as a source: the network in it computes what the file does.

    What its own library refuses computes nothing else. Torch, for one, checks types in the code of
    TorchScript, of which nothing is read here.
    """

    def judge(path: Path, library: Library) -> tuple[Finding | None, bool, bool]:
        reading, finding = _reading(lambda: ours.computed(path))
        if reading is None:
            return finding, False, False
        answer = library.read(kind, path)
        if answer is None or not answer["readings"]:
            return None, True, False
        for name, theirs in answer["readings"].items():
            expected = theirs["computed"]
            if not any(are_close(found, expected) for found in reading.values()):
                words = f"{name}: ours computes {reading}, theirs {expected}"
                return Finding("differs", words), True, True
        return None, True, True

    return judge


def _judge_distributed(path: Path, library: Library) -> tuple[Finding | None, bool, bool]:
    folder = path.with_name("folder")
    distributed_changes.unpacked(path.read_bytes(), folder)
    reading, finding = _reading(lambda: ours.checkpoint(folder))
    return _compared(reading, finding, library.read("distributed", folder))


def _unnamed(path: Path, named: set[str]) -> Finding | None:
    """What a trusting program would import of a file that is said to be harmless."""
    try:
        known = ours.names(path)
    except ConversionError:
        return None
    except Exception as error:  # noqa: BLE001 -- which is what is looked for
        return Finding("error", f"security, {type(error).__name__}: {str(error)[:300]}")
    if known is None or named <= known:
        return None
    return Finding("names", f"harmless, but torch looks up {sorted(named - known)}")


def _certificates(
    kind: str, made: list[ConvertedFolder], name: str
) -> Callable[[Path, Library], tuple[Finding | None, bool, bool]]:
    readers = {"torchscript": read_torchscript, "pt2": read_pt2}
    honest: dict[int, dict[str, Any]] = {}

    def judge(path: Path, library: Library) -> tuple[Finding | None, bool, bool]:
        answer = library.read(kind, path)
        findings: list[Finding] = []
        certified = False
        for index, folder in enumerate(made):
            if index not in honest:
                first = library.read(kind, folder.path / name)
                assert first is not None  # noqa: S101
                (honest[index],) = first["readings"].values()
            contents = _contents(readers[kind], folder, path)
            if contents is None:
                continue
            certified = True
            finding = _against_certificate(contents, answer, honest[index])
            findings += [finding] if finding else []
        taken = answer is not None and bool(answer["readings"])
        return (findings[0] if findings else None), certified, taken

    return judge


def _contents(
    read: Callable[[ConvertedFolder, Path], Contents], folder: ConvertedFolder, path: Path
) -> Contents | None:
    """The certificate's reading; None if it finds a fault, however."""
    try:
        contents = read(folder, path)
    except Exception:  # noqa: BLE001 -- any is a failed verdict
        return None
    faulty = contents.faults or any(held.fault for held in contents.tensors)
    return None if faulty else contents


def _against_certificate(
    contents: Contents, answer: dict[str, Any] | None, honest: Reading
) -> Finding | None:
    if answer is None:
        return Finding("only ours", "the library's process died")
    certified = {
        path_of(held.name): tensor(
            held.dtype, held.shape, _row_major(held.shape), held.data.nbytes, held.data.tobytes
        )
        for held in contents.tensors
        if not held.name.startswith("constants")
    }
    for theirs in answer["readings"].values():
        got = {path: leaf for path, leaf in theirs.items() if path.startswith("/")}
        words = difference(certified, got)
        if words is not None:
            return Finding("differs", words)
        if not contents.graph_compared:  # which every report says
            continue
        same = {path: leaf for path, leaf in honest.items() if path.startswith("/")} == got
        for what in ("program", *(("output",) if same else ())):
            if theirs.get(what) != honest.get(what):
                return Finding("differs", f"another {what}")
    return None


def _row_major(shape: tuple[int, ...]) -> tuple[int, ...]:
    strides, step = [], 1
    for size in reversed(shape):
        strides.append(step)
        step *= max(size, 1)
    return tuple(reversed(strides))


def make_targets(place: Path, names: Sequence[str]) -> dict[str, Target]:
    """Make the seeds of some targets.

    Args:
        place: A folder for what is converted.
        names: Of :data:`NAMES`.
    """
    return {name: _MAKERS[name](place, name) for name in names}


def _zip_target(_: Path, name: str) -> Target:
    files = seeds.saved(is_zip=True)
    maker = _archive_maker(files) if name == "zip" else _pickle_maker(files)
    return Target(maker, _checkpoints("zip"))


def _legacy_target(place: Path, _: str) -> Target:
    return Target(_legacy_maker(seeds.saved(is_zip=False), place), _checkpoints("torch"))


def _arrays_target(_: Path, name: str) -> Target:
    files = seeds.pickled()
    return Target(
        lambda rng: pickles.change(rng.choice(files), rng, rng.choice(files)), _checkpoints(name)
    )


def _safetensors_target(_: Path, name: str) -> Target:
    files = seeds.safetensors()
    return Target(
        lambda rng: safetensors_changes.changed(rng.choice(files), rng), _checkpoints(name)
    )


def _numpy_target(_: Path, name: str) -> Target:
    """Archives of arrays, of which mostly the arrays are changed; and single ones."""
    files = array_changes.files()
    archive = _archive_maker(files[:-1])

    def make(rng: Random) -> bytes:
        if rng.randrange(20) == 0:
            return array_changes.changed(files[-1], rng)
        if rng.randrange(3) == 0:
            return archive(rng)
        parts = archives.parsed(rng.choice(files[:-1]))
        members = [part for part in parts if isinstance(part, archives.Local)]
        for member in rng.sample(members, rng.choice((1, 1, 1, 2))):
            member.content = array_changes.changed(member.content, rng)
        return archives.written(parts)

    return Target(make, _checkpoints(name))


def _named_target(_: Path, name: str) -> Target:
    make: Callable[[Random], bytes]
    if name == "keras":
        make = _archive_maker(named_changes.keras_files())
    elif name == "hdf5":
        make = partial(named_changes.changed_hdf5, named_changes.hdf5_files())
    elif name == "msgpack":
        make = partial(named_changes.changed_msgpack, named_changes.msgpack_files())
    else:
        make = partial(named_changes.changed_mindspore, named_changes.mindspore_entries())
    return Target(make, _named(name))


def _distributed_target(_: Path, __: str) -> Target:
    return Target(distributed_changes.changed, _judge_distributed)


def _artefact_target(place: Path, name: str) -> Target:
    (place / name).mkdir()
    folders = seeds.folders(place / name, name)
    files = [(folder.path / _FILES[name]).read_bytes() for folder in folders]
    return Target(_archive_maker(files), _certificates(name, folders, _FILES[name]))


def _source_target(place: Path, name: str) -> Target:
    """An artefact of ours, or of torch's own exporter, as a checkpoint."""
    kind = name.removesuffix("-source")
    (place / name).mkdir()
    folders = seeds.folders(place / name, kind)
    files = [(folder.path / _FILES[kind]).read_bytes() for folder in folders]
    if kind == "onnx":
        return Target(
            lambda rng: graph_changes.changed_onnx(rng.choice(files), rng), _networks(kind)
        )
    files += seeds.exported(kind, folders[1:])
    return Target(_content_maker(files), _networks("program" if kind == "pt2" else kind))


def _content_maker(files: list[bytes]) -> Callable[[Random], bytes]:
    """Archives of which what says what is computed is changed, and now and then something else."""
    whole = _archive_maker(files)

    def make(rng: Random) -> bytes:
        if rng.randrange(8) == 0:
            return whole(rng)
        archive = archives.parsed(rng.choice(files))
        texts = [
            part
            for part in archive
            if isinstance(part, archives.Local) and part.name.endswith((b".py", b"model.json"))
        ]
        for text in rng.choices(texts, k=rng.choice((1, 1, 1, 2, 3))):
            text.content = _edit(text.name, text.content, rng)
        return archives.written(archive)

    return make


_FILES = {
    "torchscript": "model.torchscript.pt",
    "pt2": "model.pt2",
    "onnx": "model.onnx",
}

_MAKERS: dict[str, Callable[[Path, str], Target]] = {
    "zip": _zip_target,
    "pickle": _zip_target,
    "legacy": _legacy_target,
    "arrays": _arrays_target,
    "safetensors": _safetensors_target,
    "torchscript": _artefact_target,
    "pt2": _artefact_target,
    "torchscript-source": _source_target,
    "pt2-source": _source_target,
    "onnx-source": _source_target,
    "distributed": _distributed_target,
    "numpy": _numpy_target,
    "hdf5": _named_target,
    "keras": _named_target,
    "msgpack": _named_target,
    "mindspore": _named_target,
}

NAMES = tuple(_MAKERS)
"""Of all targets."""
