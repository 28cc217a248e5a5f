"""A folder against its source: the real network of the framework that saved the checkpoint.

The oracle is the reference model with the folder's own weights, so whatever went wrong before they
were written is in the oracle too: two tensors of one shape swapped by a mapping, a forgotten flip,
another epsilon, the wrong set of weights. The framework's own code knows nothing of our mapping. It
is an honest float32 PyTorch network, so its outputs must lie as near to the oracle as those of any
artefact; if they do not, the folder is another network than the checkpoint.
"""

from __future__ import annotations

import warnings
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

import torch

from converters.errors import ConversionError, in_words, is_installed
from converters.families.known import FAMILIES
from converters.families.options import SourceOptions
from converters.families.real_network import NotRunError
from converters.families.reparametrised import Reparametrised
from converters.formats.reference import torch_threads
from converters.parity.contents.source import certify_source
from converters.parity.loaded import LoadedTensors, NotLoadedError, ReadingError
from converters.parity.verdict import NOT_RUN, Measurement, Verdict, judge
from converters.weights.inspection import inspected
from regnet.architecture import COUNTER
from regnet.files.dtypes import COMPUTED, DTYPES, cast, widened

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    from converters.checkpoint import Checkpoint, StoredTensor
    from converters.families.real_network import RealNetwork
    from converters.families.source import Source
    from converters.folder.folder import ConvertedFolder
    from converters.parity.loaded import Tensors
    from converters.parity.metrics import Outputs
    from converters.parity.truth import Truth
    from converters.weights.inspection import Inspection

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
    dtype = next(dtype for dtype in DTYPES if dtype == folder.dtype)
    with inspected(checkpoint, options or SourceOptions(), dtype) as (opened, inspection):
        return _judge(folder, truth, opened, inspection)


def _judge(
    folder: ConvertedFolder, truth: Truth, checkpoint: Checkpoint, inspection: Inspection
) -> Verdict:
    """Run the real network; one that its own framework cannot load fails with torch's words."""
    source = inspection.source
    precision = folder.dtype if folder.dtype in _ROUNDED else COMPUTED
    loaded, not_compared = _loaded(checkpoint)
    runtime, tensors, not_run = source.framework, None, None
    measured: tuple[Measurement, ...] = ()
    try:
        tensors = certify_source(folder, loaded, inspection.plan)
        with torch_threads():
            network = _built(source, checkpoint)
            _load(network, source, loaded)
        units, inputs = truth.units(precision), truth.inputs_for(precision)
        outputs = {batch: _run(network, source, pixels) for batch, pixels in inputs.items()}
        measured = judge(outputs, units, truth.oracle, precision)
        runtime = _with_version(FAMILIES[source.family].family.package)
    except NotRunError as error:
        runtime, not_run = NOT_RUN, str(error)
    except ConversionError:
        raise
    except Exception as error:  # noqa: BLE001 -- frameworks raise classes of their own
        words = in_words(error)
        what = words if isinstance(error, ReadingError) else f"{_CANNOT_RUN} ({words})"
        measured = (Measurement("all", "all", (), failure=what),)
    name = inspection.path.name
    return Verdict(name, runtime, COMPUTED, measured, tensors, not_run, not_compared)


def _loaded(checkpoint: Checkpoint) -> tuple[Tensors, str | None]:
    """The tensors as the file's own library loads them; else our reader's, and that they are."""
    try:
        return LoadedTensors(checkpoint), None
    except NotLoadedError as error:
        return checkpoint, f"read by this project's own reader, for {error}; another reading"


def _built(source: Source, checkpoint: Checkpoint) -> RealNetwork:
    """The framework's own network of a checkpoint, its weights not loaded yet.

    Raises:
        NotRunError: If the framework is missing, cannot be imported, or has no such network.
    """
    family = FAMILIES[source.family].family
    package = family.package
    if family.build is None:
        raise NotRunError(f"nothing here builds the networks of {family.title}")
    if not is_installed(package):
        raise NotRunError(f"{package} is not installed ({family.how_to_install})")
    try:
        with warnings.catch_warnings(action="ignore"):  # of what old frameworks still use
            return family.build(source, checkpoint)
    except ImportError as error:
        raise NotRunError(f"{package} cannot be imported ({in_words(error)})") from error


def _load(network: RealNetwork, source: Source, tensors: Tensors) -> None:
    """Put every tensor of a checkpoint where it belongs, and leave no place without one.

    Counters of batches, which old files lack, may be missing.

    Raises:
        RuntimeError: Also from torch, if a tensor has no place there or another shape.
    """
    stored = {
        network.spell(name): tensor
        for name, tensor in source.tensors.items()
        if source.keymap.parse(name)
    }
    stored |= {network.norm + leaf: tensor for leaf, tensor in source.classifier_norm.items()}
    state = {name: torch.from_numpy(_numbers(tensors, tensor)) for name, tensor in stored.items()}
    missing, unexpected = network.module.load_state_dict(state, strict=False)
    missing = [name for name in missing if not name.endswith(COUNTER)]
    for what, names in (("gets no tensor for", missing), ("has no place for", unexpected)):
        if names:
            raise RuntimeError(f"the framework's network {what} {', '.join(names[:3])}")
    network.module.eval()


def _numbers(tensors: Tensors, tensor: StoredTensor) -> NDArray[Any]:
    """What a tensor holds, as torch takes it; float64 of one that the file holds in parts."""
    if isinstance(tensor, Reparametrised):
        return tensor.apply(tensor, lambda t: cast(tensors.array(t), t.dtype, "float64"))
    return widened(tensors.array(tensor), tensor.dtype)


def _run(network: RealNetwork, source: Source, pixel_values: NDArray[np.float32]) -> Outputs:
    """Outputs by the reference model's names; what was trained on BGR takes RGB turned round."""
    with torch.inference_mode(), torch_threads():
        images = torch.tensor(pixel_values)
        images = images.flip(1) if source.flips_stem else images
        outputs = network.outputs(images, has_classifier=source.has_classifier)
    return {name: output.contiguous().numpy() for name, output in outputs.items()}


def _with_version(package: str) -> str:
    """A package with its version, such as ``timm 1.0.31``."""
    try:
        return f"{package} {version(package)}"
    except PackageNotFoundError:  # run from a folder
        return package
