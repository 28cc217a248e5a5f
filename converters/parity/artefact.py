"""The verdict on one artefact: what it holds, and what it computes."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from converters.errors import (
    ConversionError,
    InputError,
    UnsafeInputError,
    in_words,
    is_short_of_memory,
    said,
)
from converters.formats.beside import stop_if_told
from converters.formats.confined.runtime import ConfinedRuntime
from converters.formats.memory import MemoryShortError
from converters.formats.registry import FORMATS, offered_by, run_by
from converters.formats.runtime import ArtefactRuntime
from converters.formats.runtime_apart import RuntimeApart
from converters.formats.torch_process import NotDoneError
from converters.parity.compare.foreign import ONNX, TORCHSCRIPT, ConfinedForeign
from converters.parity.compare.sides import kind_of
from converters.parity.contents.found import Proof, prove
from converters.parity.contents.tensors import certify
from converters.parity.truth import FLOAT32, run
from converters.parity.verdict import NOT_RUN, PROVEN, Measurement, Verdict, judge

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    from converters.folder.folder import ConvertedFolder
    from converters.formats.format import OtherRuntime
    from converters.parity.metrics import Outputs
    from converters.parity.truth import Truth


_PT2 = "pt2"

_NO_TEXT = "its path is no text in this locale; rename what is on the way, or set PYTHONUTF8=1"


class _Foreign(ArtefactRuntime):
    """Another tool's artefact, with the outputs of a folder's network.

    A trunk of other frameworks returns its pooled features alone, (N, width).
    """

    def __init__(self, folder: ConvertedFolder, kind: str, path: Path) -> None:
        self._inside = ConfinedForeign(kind, path)
        self._is_trunk = not folder.has_classifier
        self.name, self.precision = self._inside.name, self._inside.precision
        batch, _, height, width = self._inside.layout
        self.sizes = (batch, height, width)

    def __call__(self, pixel_values: NDArray[np.float32]) -> Outputs:
        outputs = self._inside(pixel_values)
        if self._is_trunk and "logits" in outputs:
            return {"pooler_output": outputs["logits"][:, :, None, None]}
        return outputs


def format_of(path: Path) -> str:
    """Which format a file is judged as that lies anywhere: by its content, and of ONNX its name.

    Raises:
        InputError: If it is of no format that can be judged so.
        StorageError: If it cannot be read.
    """
    if not path.is_file():
        raise InputError(f"{path} is no file; name the artefact that is to be verified.")
    tag = kind_of(path)
    if tag == ONNX:
        names = {kind.file_name.rpartition("/")[2]: name for name, kind in FORMATS.items()}
        own = names.get(path.name, ONNX)
        return own if FORMATS[own].tag == ONNX else ONNX
    if tag == TORCHSCRIPT:
        return TORCHSCRIPT
    if path.suffix == f".{_PT2}":
        return _PT2
    raise InputError(
        f"{path.name} is no ONNX, TorchScript or .pt2 file; compare checkpoints and folders with "
        "`regnet compare`."
    )


def judge_artefact(  # noqa: PLR0913 -- what is known of it already is an option each
    folder: ConvertedFolder,
    truth: Truth,
    name: str,
    path: Path,
    weights_sha256: Mapping[str, str] | None = None,
    *,
    found: bool,
    shown: str | None = None,
) -> Verdict:
    """Run one artefact; one that cannot be loaded or run fails with the runtime's own words.

    One that does not fit into memory is not run: its tensors alone decide, and without proof of
    them nothing does. Of one that was found its graph must have been compared as well.

    Args:
        folder: Whose network it is said to be.
        truth: Of the folder.
        name: Key of :data:`converters.formats.registry.FORMATS`.
        path: The file.
        weights_sha256: Digests of the weights files by name, where they are known.
        found: Whether it may be anybody's, instead of having been written by this process; then
            only what is written for the folder runs here, and everything else in a process of its
            own.
        shown: What the verdict calls it; None is its name in the folder.

    Raises:
        ConversionError: If the folder cannot be used, or what was found is unsafe.
    """
    return begin_artefact(folder, truth, name, path, weights_sha256, found, shown)()


def begin_artefact(  # noqa: PLR0913, PLR0917 -- those of what it begins
    folder: ConvertedFolder,
    truth: Truth,
    name: str,
    path: Path,
    weights_sha256: Mapping[str, str] | None,
    found: bool,
    shown: str | None = None,
) -> Callable[[], Verdict]:
    """Do of :func:`judge_artefact` what can be done beside other work.

    Returns:
        What gives the verdict, once the truth is known.
    """
    kind = FORMATS[name]
    folder = offered_by(folder, name, path)
    truth = truth.offering(folder)
    proof = Proof(None)
    if kind.certificate is not None:
        proof = (
            prove(folder, name, path, weights_sha256)
            if found
            else Proof(certify(folder, name, path, weights_sha256=weights_sha256))
        )
    tensors, verdict = proof.tensors, _unrun(shown or kind.file_name, proof)
    is_known = tensors is not None and tensors.graph_compared and not tensors.wrong
    confined = kind.apart or (found and not (is_known and proof.graph is None))
    is_foreign = confined and not (proof.is_ours or kind.prepares_images)

    artefact = _Artefact(folder, truth, name, path, verdict, proof, found, confined, is_foreign)
    return artefact.begun()


@dataclass(frozen=True, slots=True)
class _Artefact:
    """What is known of an artefact that is to be run.

    Attributes:
        folder: Whose network it is said to be.
        truth: Of the folder.
        name: Key of :data:`converters.formats.registry.FORMATS`.
        path: The file.
        verdict: On what it holds.
        proof: Likewise.
        found: As of :func:`judge_artefact`.
        confined: Whether it runs in a process of its own.
        is_foreign: Whether another tool wrote it.
    """

    folder: ConvertedFolder
    truth: Truth
    name: str
    path: Path
    verdict: Verdict
    proof: Proof
    found: bool
    confined: bool
    is_foreign: bool

    def begun(self) -> Callable[[], Verdict]:
        """Run it; what comes back completes the verdict, and waits for the truth."""
        try:
            runtime, measured = self._run()
            prepared = self._prepared()
        except Exception as error:  # noqa: BLE001 -- every runtime has classes of its own
            failed = self._failed(error)
            return lambda: failed
        verdict = replace(
            self.verdict,
            runtime=runtime.name,
            precision=runtime.precision,
            not_run=runtime.not_run,
        )

        def judged() -> Verdict:
            try:
                return replace(verdict, measurements=(*measured(), *prepared))
            except Exception as error:  # noqa: BLE001 -- for the truth memory may be short
                return self._failed(error)

        return judged

    def _run(self) -> tuple[ArtefactRuntime, Callable[[], tuple[Measurement, ...]]]:
        process = self.truth.beside.torch
        if process is not None and FORMATS[self.name].in_torch and not self.confined:
            with suppress(NotDoneError):  # what is wrong is found out here
                apart = RuntimeApart(process, self.name, self.path, self.folder.output_names)
                return apart, _measured(self.truth, apart, partly=False)
            stop_if_told()
        runtime = self._loaded()
        return runtime, _measured(self.truth, runtime, partly=self.is_foreign)

    def _loaded(self) -> ArtefactRuntime:
        kind = FORMATS[self.name]
        if self.is_foreign and kind.tag in {ONNX, TORCHSCRIPT}:
            return _Foreign(self.folder, kind.tag, self.path)
        if self.confined:
            return ConfinedRuntime(self.folder, self.name, self.path)
        return kind.load(self.path, self.folder.output_names)

    def _prepared(self) -> tuple[Measurement, ...]:
        """What it makes of images, where it is what prepares them."""
        if not FORMATS[self.name].prepares_images:
            return ()
        from converters.parity.preprocessing import measure_preprocessing

        return tuple(measure_preprocessing(self.folder, self.path, confined=self.confined))

    def _failed(self, error: Exception) -> Verdict:
        """The verdict on what could not be run, unless nothing can be said of it."""
        verdict = self.verdict
        if isinstance(error, MemoryShortError):
            return replace(verdict, not_run=str(error), found=self.found)
        if isinstance(error, UnsafeInputError) and self.proof.graph == PROVEN:
            why = said(error).removeprefix(self.path.name).partition(";")[0].strip()
            return replace(verdict, not_run=f"it {why}", found=self.found)
        is_foreign_input = self.is_foreign and type(error) is InputError
        if isinstance(error, ConversionError) and not is_foreign_input:
            raise error
        if not self.confined and is_short_of_memory(error):
            return replace(verdict, not_run="there is not enough memory", found=self.found)
        if not _is_text(self.path):
            return replace(verdict, not_run=_NO_TEXT, found=self.found)
        return _not_runnable(verdict, self.name, error)


def judge_in_other(  # noqa: PLR0913 -- as many as what it follows has
    folder: ConvertedFolder,
    truth: Truth,
    verdict: Verdict,
    other: OtherRuntime,
    path: Path,
    *,
    found: bool,
) -> Verdict:
    """Run an artefact in another runtime.

    Args:
        folder: Whose network it is said to be.
        truth: Of the folder.
        verdict: On the artefact, which says what of it is proven.
        other: Of its format.
        path: The file.
        found: As of :func:`judge_artefact`.

    Raises:
        ConversionError: If a package is missing, or what was found is unsafe.
    """
    folder = offered_by(folder, run_by(other.name).name, path)
    truth = truth.offering(folder)
    judged = replace(
        verdict,
        artefact=f"{verdict.artefact} ({other.name})",
        runtime=NOT_RUN,
        precision=FLOAT32,
        measurements=(),
        not_run=None,
    )
    try:
        runtime: ArtefactRuntime = (
            ConfinedRuntime(folder, other.name, path)
            if found or not other.always
            else other.load(path, folder.output_names)
        )
        measured = _measured(truth, runtime, partly=False)()
    except MemoryShortError as error:
        return replace(judged, not_run=str(error), found=found)
    except ConversionError:
        raise
    except Exception as error:  # noqa: BLE001 -- every runtime has classes of its own
        if not _is_text(path):
            return replace(judged, not_run=_NO_TEXT, found=found)
        return _not_runnable(judged, other.name, error)
    return replace(judged, runtime=runtime.name, precision=runtime.precision, measurements=measured)


def _is_text(path: Path) -> bool:
    """Whether a runtime can be told a path: it was bytes that the locale has no letters for."""
    try:
        str(path).encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def _not_runnable(verdict: Verdict, name: str, error: Exception) -> Verdict:
    failed = Measurement("all", "all", (), failure=f"it cannot be run ({in_words(error)})")
    return replace(verdict, runtime=name, precision="unknown", measurements=(failed,))


def _measured(
    truth: Truth, runtime: ArtefactRuntime, *, partly: bool
) -> Callable[[], tuple[Measurement, ...]]:
    """Run; what comes back judges, and waits for the truth.

    Args:
        truth: On any batches.
        runtime: Runs the artefact; it is not kept.
        partly: Whether to judge by those outputs alone that there are.
    """
    truth = truth.fitted(runtime.sizes)
    if runtime.takes_bytes:
        truth = truth.in_bytes
    precision = runtime.precision
    outputs = run(runtime, truth.inputs_for(precision))

    def judged() -> tuple[Measurement, ...]:
        units = truth.units(precision)
        if partly:
            units = {
                batch: {name: unit for name, unit in by_output.items() if name in outputs[batch]}
                for batch, by_output in units.items()
            }
        return judge(outputs, units, truth.oracle, precision)

    return judged


def _unrun(shown: str, proof: Proof) -> Verdict:
    """The verdict on an artefact that is to be run yet."""
    left = "graph" if proof.tensors else "tensors and graph"
    compared = proof.tensors is not None and proof.tensors.graph_compared
    return Verdict(
        shown,
        NOT_RUN,
        FLOAT32,
        (),
        proof.tensors,
        not_compared=None if compared else left,
        graph=proof.graph,
    )
