"""A folder against its source: the real network of the framework that saved the checkpoint.

The oracle is the reference model with the folder's own weights, so whatever went wrong before they
were written is in the oracle too: two tensors of one shape swapped by a mapping, a forgotten flip,
another epsilon, the wrong set of weights. The framework's own code knows nothing of our mapping. It
is an honest float32 PyTorch network, so its outputs must lie as near to the oracle as those of any
artefact; if they do not, the folder is another network than the checkpoint.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from converters.errors import ConversionError, in_words
from converters.families.options import SourceOptions
from converters.families.real_network import NotRunError
from converters.parity.contents.source import certify_source
from converters.parity.loaded import LoadedTensors, NotLoadedError, ReadingError
from converters.parity.source_runtime import SourceRuntime
from converters.parity.truth import run
from converters.parity.verdict import NOT_RUN, Measurement, Verdict, judge
from converters.weights.inspection import inspected
from regnet.files.dtypes import COMPUTED, DTYPES

if TYPE_CHECKING:
    from pathlib import Path

    from converters.checkpoint import AnyCheckpoint
    from converters.folder.folder import ConvertedFolder
    from converters.parity.loaded import Tensors
    from converters.parity.truth import Truth
    from converters.weights.inspection import Inspection
    from regnet.files.dtypes import DType

_CANNOT_RUN = "its own framework cannot run it"

_ROUNDED = ("float16", "bfloat16")
"""What weights may have been rounded to when they were converted."""


def judge_source(
    folder: ConvertedFolder,
    truth: Truth,
    checkpoint: Path,
    options: SourceOptions | None = None,
) -> Verdict:
    """Judge a folder by the checkpoint it was converted from.

    Every tensor is compared with the checkpoint's, as its own library loads it where that is safe;
    else the verdict says that our reader read it (:mod:`converters.parity.loaded`). Then the
    framework's own network, where it is installed, runs on the truth's inputs and must be within
    the limits of an artefact. Where the folder stores float16 or bfloat16, which the source was
    rounded to, the unit is that of the precision.

    Args:
        folder: The converted folder.
        truth: Of the folder.
        checkpoint: The file or folder it was converted from.
        options: What the user decided when it was converted, as `Record.source_options` has it;
            by default nothing, so that the source's own choice of weights and channel order counts.

    Returns:
        A verdict named after the checkpoint; ``not_run`` says why, if the framework is not there.

    Raises:
        InputError: If the checkpoint cannot be used.
        UnsafeInputError: If it would run code.
        StorageError: If it cannot be read.
    """
    options = options or SourceOptions()
    with inspected(checkpoint, options, _dtype(folder)) as (opened, inspection):
        return _judge(folder, truth, opened, inspection)


def _dtype(folder: ConvertedFolder) -> DType:
    return next(dtype for dtype in DTYPES if dtype == folder.dtype)


def _judge(
    folder: ConvertedFolder, truth: Truth, checkpoint: AnyCheckpoint, inspection: Inspection
) -> Verdict:
    """Run the real network; one that its own framework cannot load fails with torch's words."""
    name = inspection.path.name
    precision = folder.dtype if folder.dtype in _ROUNDED else COMPUTED
    loaded, not_compared = _loaded(checkpoint)
    tensors = None
    try:
        tensors = certify_source(folder, loaded, inspection.plan)
        runtime = SourceRuntime(inspection.source, checkpoint, loaded)
        units = truth.units(precision)
        outputs = run(runtime, truth.inputs_for(precision))
        measured = judge(outputs, units, truth.oracle, precision)
    except NotRunError as error:
        return Verdict(name, NOT_RUN, COMPUTED, (), tensors, str(error), not_compared)
    except ConversionError:
        raise
    except Exception as error:  # noqa: BLE001 -- frameworks raise classes of their own
        words = in_words(error)
        what = words if isinstance(error, ReadingError) else f"{_CANNOT_RUN} ({words})"
        failed = Measurement("all", "all", (), failure=what)
        framework = inspection.source.framework
        return Verdict(name, framework, COMPUTED, (failed,), tensors, None, not_compared)
    return Verdict(name, runtime.name, runtime.precision, measured, tensors, None, not_compared)


def _loaded(checkpoint: AnyCheckpoint) -> tuple[Tensors, str | None]:
    """The tensors as the file's own library loads them; else our reader's, and that they are."""
    try:
        return LoadedTensors(checkpoint), None
    except NotLoadedError as error:
        return checkpoint, f"read by this project's own reader, for {error}; another reading"
