"""`regnet export` and `converters.export`: artefacts for a folder that is already converted."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace
from typing import TYPE_CHECKING

from converters.errors import InputError, require_torch
from converters.folder.folder import CARD_NAME, REPORT_NAME, ConvertedFolder
from converters.folder.interface import PIXEL_RANGES, Interface
from converters.folder.record import Record
from converters.formats.beside import Beside, torch_beside
from converters.formats.format import ExportOptions
from converters.formats.onnx.form import DEFAULT_FORM, with_sizes
from converters.formats.registry import (
    DEFAULT_FORMATS,
    FORMATS,
    are_traced,
    beside_verifying,
    require_writable,
    write_artefacts,
)
from converters.parity.recording import with_files, with_verdicts
from converters.progress import SILENT
from converters.published.located import paths
from converters.reports.card import is_ours, read_card, updated_card
from converters.staging.staged import staged_update

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from converters.folder.interface import Largest
    from converters.parity.report import Report
    from converters.progress import Progress
    from converters.published.located import Place


def export(  # noqa: PLR0913 -- one keyword per option
    folder: Place,
    formats: Sequence[str] = DEFAULT_FORMATS,
    *,
    share_weights: bool = False,
    opset: int | None = None,
    dynamic: Sequence[str] | None = None,
    shape: tuple[int, ...] | None = None,
    io_float16: bool = False,
    external_data: bool = False,
    calibration_images: Place | Iterable[Place] = (),
    largest_loss: float | None = None,
    symmetric: bool = False,
    normalize: Largest | None = None,
    softmax: bool = False,
    image_input: bool = False,
    block: int | None = None,
    verify: bool = True,
    progress: Progress = SILENT,
) -> Report | None:
    """Write artefacts of a converted folder, again or in another form, all or none.

    They are recorded in ``conversion.json``.

    >>> export("out", ["onnx-fp16"]).passed
    True

    Args:
        folder: What :func:`convert` or transformers wrote.
        formats: Artefacts to write, as `--format` spells them.
        share_weights: Whether ONNX points into ``model.safetensors``.
        opset: Version of ONNX's operators; None is the one that every runtime takes.
        dynamic: ONNX, Core ML: of ``batch``, ``height`` and ``width`` those whose size stays open;
            None is all, or with ``shape`` none, and of Core ML none.
        shape: ONNX, Core ML: (batch, channels, height, width) of what does not stay open.
        io_float16: Whether ``onnx-fp16`` takes and gives float16 too.
        external_data: Whether ``onnx-web`` and ``onnx-fp16`` put their weights into another file.
        calibration_images: What int8 is calibrated on: files, folders, patterns.
        largest_loss: How much of top-1 int8 may be expected to cost, 0 to 1; None for half a point.
        symmetric: Whether int8 has zero points of 0 and biases in floats, as TensorRT asks for.
        normalize: Which value white has in images that artefacts are to take and normalise
            themselves, 255 or 1; None if they take normalised ones.
        softmax: Whether artefacts give probabilities instead of logits.
        image_input: Whether Core ML packages take pictures, as with ``normalize`` 255, and name
            the classes that they give probabilities of.
        block: How many channels the runtime of ``onnx-tuned`` computes together; None to time what
            is fastest on this machine.
        verify: Whether to verify first; if one artefact fails, none is replaced.
        progress: Who wants to know how far it is.

    Returns:
        The verdicts, or None without ``verify``.

    Raises:
        InputError: If the folder or the options cannot be used.
        StorageError: If a package is missing or a file cannot be written.
        VerificationError: If a verdict is fail.
    """
    if normalize not in {None, *PIXEL_RANGES}:
        raise InputError(f"--normalize {normalize} is no range of pixels; give 255 or 1.")
    if image_input and normalize == 1:
        raise InputError("--image-input takes pixels from 0 to 255; leave out --normalize 1.")
    form = DEFAULT_FORM if opset is None else replace(DEFAULT_FORM, opset=opset)
    if dynamic is not None or shape is not None:
        form = with_sizes(form, ConvertedFolder(folder), dynamic, shape)
    options = ExportOptions(
        share_weights=share_weights,
        form=form,
        open_sizes=dynamic is not None and not form.fixed,
        io_float16=io_float16,
        external_data=external_data,
        calibration_images=paths(calibration_images),
        largest_loss=largest_loss,
        symmetric=symmetric,
        interface=Interface(normalize, softmax),
        image_input=image_input,
        block=block,
    )
    require_writable(formats, options)
    if verify:
        require_torch()
    opened = ConvertedFolder(folder)
    opened.config  # noqa: B018 -- a folder that is none is refused before anything is staged
    if image_input:
        has_classes = opened.has_classifier and opened.config.num_labels > 0
        options = replace(options, interface=Interface(255, softmax or has_classes))
    return _export(opened, formats, options, progress, verify=verify)


def _export(
    folder: ConvertedFolder,
    formats: Sequence[str],
    options: ExportOptions,
    progress: Progress,
    *,
    verify: bool,
) -> Report | None:
    path = folder.path
    record, card = Record.read(path), read_card(path)
    if card is not None and not is_ours(card):
        card = None
    options = replace(options, weights_sha256=_recorded_sha256(folder, record))
    folder.tensors  # noqa: B018 -- what cannot be used is refused under its own name
    kinds = [FORMATS[name] for name in formats]
    names = [name for kind in kinds for name in reversed(kind.files)]
    described = [CARD_NAME] * (card is not None) + [REPORT_NAME] * (record is not None)
    with (
        torch_beside() if verify and not are_traced(formats) else nullcontext() as torch,
        staged_update(path, [*names, *described]) as staging,
        beside_verifying(folder, torch) if verify else Beside() as others,
    ):
        staged = {name: staging / kind.file_name for name, kind in zip(formats, kinds, strict=True)}
        write_artefacts(ConvertedFolder(staging), staged, options, progress)
        report = _verify(folder, record, staged, others, progress) if verify else None
        artefacts = [kind.file_name for kind in kinds]
        if record is not None:
            verdicts = report.to_dict()["verdicts"] if report else []
            record = with_verdicts(with_files(record, staging, names), verdicts, artefacts)
        if card is not None:
            text = updated_card(card, ConvertedFolder(staging), record, artefacts)
            (staging / CARD_NAME).write_text(text, encoding="utf-8", newline="\n")
        if record is not None:
            with_files(record, staging, [CARD_NAME] * (card is not None)).write(staging)
    return report


def _verify(
    folder: ConvertedFolder,
    record: Record | None,
    staged: Mapping[str, Path],
    others: Beside,
    progress: Progress,
) -> Report:
    """Judge artefacts by the network that was converted, unless another lies there now."""
    from converters.parity.report import Report
    from converters.parity.truth import Truth
    from converters.parity.verify import fresh_inputs, of_the_oracle, verify_artefacts

    progress.step("checksums")
    changed, digests = record.changed_files(folder.path, others.begin) if record else ((), {})
    if changed := of_the_oracle(changed):
        report = Report((), changed)
    else:
        progress.step("the oracle in float64")
        truth = Truth(folder, fresh_inputs(folder), others)
        report = verify_artefacts(
            folder, truth, staged, progress, beside=others, weights_sha256=digests
        )
    report.require_pass(f"Nothing in {folder.path} was replaced")
    return report


def changed_network(folder: Path) -> Report | None:
    """What a verification would begin with: that the network is not the recorded one, if so."""
    from converters.parity.report import Report

    record = Record.read(folder)
    if record is None:
        return None
    names = ConvertedFolder(folder).network_files
    files = {name: entry for name, entry in record.files.items() if name in names}
    changed, _ = Record({**record.fields, "files": files}).changed_files(folder)
    return Report((), changed) if changed else None


def _recorded_sha256(folder: ConvertedFolder, record: Record | None) -> dict[str, str]:
    """Digests of the weights files as recorded when they were written.

    They name the weights that an artefact belongs to; whether the files are still those is what
    `regnet verify` finds out.
    """
    files = record.files if record else {}
    return {
        path.name: files[path.name]["sha256"]
        for path in folder.weight_files
        if path.name in files and files[path.name].get("size") == path.stat().st_size
    }
