"""What a file would have done to whoever opened it with another program. Nothing is run."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass
from io import BytesIO
from typing import TYPE_CHECKING, Any

from converters.checkpoint import open_checkpoint
from converters.checkpoint.pickle_audit import PickleAudit, audit_pickle
from converters.checkpoint.pickle_reader import MAX_PICKLE, PickleSource
from converters.checkpoint.sniff import HEAD_SIZE, describe_wrong_file, looks_like_safetensors
from converters.checkpoint.source_file import SourceFile
from converters.checkpoint.values import printable
from converters.checkpoint.zip_directory import ENCRYPTED, STORED, ZIP_START, ZipDirectory
from converters.errors import ConversionError, InputError, UnsafeInputError
from converters.runtimes.onnx_places import require_readable

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from converters.checkpoint.pickle_audit import Named
    from converters.checkpoint.zip_directory import Entry

SCHEMA = 1
"""Of what `regnet inspect --security --json` prints; grows when a key changes its meaning."""

_MOST = 5
"""Pickles in a file that are followed: a legacy checkpoint begins with so many, an archive has one.

Each can keep a reader busy for some seconds, and entries of an archive can share their bytes.
"""

_PICKLE_NAMES = (".pkl", ".pickle")
_SCRIPT = ("constants.pkl", "code/")  # in a TorchScript archive only

_DOMAINS = ("", "ai.onnx", "ai.onnx.ml", "ai.onnx.training", "ai.onnx.preview.training")

_ADVICE = "do not open the file elsewhere, and get the checkpoint from a source you trust"


@dataclass(frozen=True, slots=True)
class SecurityReport:
    """What is dangerous in a file.

    Attributes:
        name: Of the file.
        kind: What the file is: ``zip``, ``torchscript``, ``pickle``, ``safetensors`` or ``onnx``.
        size: In bytes.
        pickles: What each pickle in it would do.
        notes: What else is to be known, a clause each.
        refusal: Why it is not converted; None if it can be opened.
    """

    name: str
    kind: str
    size: int
    pickles: tuple[PickleAudit, ...]
    notes: tuple[str, ...]
    refusal: ConversionError | None

    @property
    def running(self) -> list[tuple[PickleAudit, Named]]:
        """What would run code, and the pickle it is in."""
        return [(pickle, named) for pickle in self.pickles for named in pickle.running]

    @property
    def harmless(self) -> bool:
        """Whether other programs can open the file without running anything it brings."""
        return not self.running and self.refusal is None and not self._lost

    @property
    def _lost(self) -> list[PickleAudit]:
        """The pickles of which the end is not known."""
        return [pickle for pickle in self.pickles if pickle.lost is not None]

    def require_harmless(self) -> None:
        """Do nothing if the file is harmless.

        Raises:
            UnsafeInputError: It would run code in other programs, or they would disagree on it.
            InputError: It cannot be followed, so that nothing is known.
            StorageError: It cannot be read.
        """
        if self.running and self.kind != "torchscript":  # whose names are the program's own
            pickle, first = self.running[0]
            more = f" and {len(self.running) - 1} more" if len(self.running) > 1 else ""
            raise UnsafeInputError(
                f"{pickle.place}: would run code in programs that unpickle it: {first.name} at "
                f"byte {first.position}{more}; nothing was run, {_ADVICE}."
            )
        if self.refusal is not None:
            raise self.refusal
        for pickle in self._lost:
            raise InputError(
                f"{pickle.place}: cannot be followed behind {pickle.lost}, so nobody knows what it "
                "does; get the checkpoint from a source you trust."
            )

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            "schema": SCHEMA,
            "file": self.name,
            "kind": self.kind,
            "size": self.size,
            "harmless": self.harmless,
            "refusal": None if self.refusal is None else str(self.refusal),
            "notes": list(self.notes),
            "pickles": [
                {
                    "place": pickle.place,
                    "not_followed_behind": pickle.lost,
                    "names": [_name_record(named) for named in pickle.names],
                }
                for pickle in self.pickles
            ],
        }


def inspect_security(path: Path) -> SecurityReport:
    """Follow every pickle in a file, and note what else is dangerous about it.

    Pickles are looked for whatever the file seems to be, as some loaders do.

    Args:
        path: A file.

    Raises:
        InputError: There is no such file, or it is none.
        StorageError: It cannot be read.
    """
    with SourceFile(path) as file:
        kind, pickles, notes = _looked_at(file)
        file.require_unchanged()
        size = file.size
    if kind == "onnx":
        notes += _onnx_notes(path)
    return SecurityReport(
        printable(path.name), kind, size, pickles, tuple(notes), _refusal(path, kind)
    )


def _looked_at(file: SourceFile) -> tuple[str, tuple[PickleAudit, ...], list[str]]:
    """What kind of file it is, the pickles in it, and what is odd."""
    head = file.read(0, min(HEAD_SIZE, file.size))
    if head.startswith(ZIP_START):
        directory = _directory(file)
        entries = directory.entries if directory else ()
        scripted = any(entry.inside.startswith(_SCRIPT) for entry in entries)
        pickles = tuple(_zip_pickles(file, directory)) if directory else ()
        return "torchscript" if scripted else "zip", pickles, list(_zip_notes(entries))
    kind = "pickle"
    if looks_like_safetensors(head):
        kind = "safetensors"
    elif (describe_wrong_file(head) or "").startswith("is a protobuf file"):
        kind = "onnx"
    return kind, tuple(_stacked_pickles(file)), []


def _stacked_pickles(file: SourceFile) -> Iterator[PickleAudit]:
    """The pickles that a file begins with; what seems to be none and names nothing is left out."""
    source = PickleSource(file.stream, 0, file.size, file.name)
    for _ in range(_MOST):
        audit = audit_pickle(source)
        if audit.lost is None or audit.names:
            yield audit
        if audit.lost is not None or source.tell() == file.size:
            return


def _directory(file: SourceFile) -> ZipDirectory | None:
    try:
        return ZipDirectory(file)
    except (InputError, UnsafeInputError):
        return None  # the reader says more


def _zip_pickles(file: SourceFile, directory: ZipDirectory) -> Iterator[PickleAudit]:
    """Every entry that is named as a pickle; of two with one name both."""
    pickled = [e for e in directory.entries if e.name.lower().endswith(_PICKLE_NAMES)]
    for entry in pickled[:_MOST]:
        content = directory.content(entry, MAX_PICKLE)
        label = f"{file.name}, {printable(entry.name)}"
        yield audit_pickle(PickleSource(BytesIO(content), 0, len(content), label))
    if len(pickled) > _MOST:
        yield PickleAudit(file.name, (), f"its first {_MOST} pickles of {len(pickled)}")


def _zip_notes(entries: Sequence[Entry]) -> Iterator[str]:
    for name, times in Counter(entry.name for entry in entries).items():
        if times > 1:
            yield f"{times} entries are called {printable(name)}; programs take one or the other"
    for entry in entries:
        name = printable(entry.name)
        if entry.flags & ENCRYPTED:
            yield f"{name} is marked as encrypted, at which scanners stop and torch does not"
        if entry.method != STORED:
            yield f"{name} is compressed, {entry.stored} bytes to {entry.size}"


def _onnx_notes(path: Path) -> list[str]:
    """The operators that are not ONNX's own: a library must be registered to run them."""
    import onnx

    try:
        model = onnx.load(path, load_external_data=False)
    except Exception:  # noqa: BLE001 -- protobuf's own; no runtime opens it either
        return ["cannot be read as ONNX"]
    domains = sorted({opset.domain for opset in model.opset_import} - set(_DOMAINS))
    return [f"needs a library for operators of {printable(domain)}" for domain in domains]


def _refusal(path: Path, kind: str) -> ConversionError | None:
    """Why the project's own readers do not take a file."""
    try:
        if kind == "onnx":
            require_readable(path)
        else:
            open_checkpoint(path).close()
    except (InputError, UnsafeInputError) as error:
        if kind == "torchscript":
            return UnsafeInputError(
                f"{printable(path.name)}: is a TorchScript archive, a program that torch.jit.load "
                f"runs with operators that can read and write files; nothing was run, {_ADVICE}."
            )
        return error
    return None


def _name_record(named: Named) -> dict[str, Any]:
    return {
        "name": named.name,
        "judgement": str(named.judgement),
        "position": named.position,
        "used": named.used,
        "uses": [asdict(use) for use in named.uses],
    }
