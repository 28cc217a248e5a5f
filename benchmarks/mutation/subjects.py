"""The networks that faults are planted in, with their right artefacts."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from safetensors.numpy import load_file, save_file

from benchmarks.mutation.artefact import OnnxArtefact, ScriptArtefact
from benchmarks.mutation.contenders import Contenders
from benchmarks.mutation.coreml import CoreMlArtefact
from benchmarks.mutation.int8 import OPENED as OPENED_INT8
from benchmarks.mutation.litert import LiteRtArtefact
from benchmarks.mutation.ncnn import NcnnArtefact
from benchmarks.parity_ratios import FORMS as COMPARED
from converters.checkpoint.digests import sha256_of
from converters.folder.folder import ONNX_NAME, ConvertedFolder
from converters.folder.inputs import verification_inputs
from converters.formats.format import DEFAULTS, ExportOptions
from converters.formats.onnx.calibration import CALIBRATION_FOLDER
from converters.formats.registry import FORMATS
from converters.parity.artefact import judge_artefact
from converters.parity.golden import write_golden
from converters.parity.truth import Truth, run
from regnet import RegNetForImageClassification, RegNetImageProcessor
from regnet.config import RegNetConfig
from regnet.design_space import NETWORKS
from regnet.files.safetensors_file import WEIGHTS_NAME
from tests.converters.demo import sample_images
from tests.converters.formats.random_folder import random_folder
from tests.converters.parity.networks import _SMALL
from tests.converters.parity.networks import WIDER as ALL_WIDER
from tests.oracles.statistics import randomise

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from benchmarks.mutation.artefact import Artefact
    from converters.parity.metrics import Outputs
    from converters.parity.verdict import Verdict

_IN_INT8 = ExportOptions(largest_loss=1.0)
"""No layer stays in float."""

FORMS = {
    **COMPARED,
    "LiteRT": ("litert", DEFAULTS),
    "ncnn": ("ncnn", DEFAULTS),
    "Core ML": ("coreml", ExportOptions(open_sizes=True)),
    "ONNX, int8": ("onnx-int8", _IN_INT8),
    "LiteRT, int8": ("litert-int8", _IN_INT8),
}
"""What faults are planted in: key of the list of formats, and how it is written."""

_OPENED: dict[str, Callable[[Path, ConvertedFolder], Artefact]] = {
    "onnx": OnnxArtefact,
    "torchscript": ScriptArtefact,
    "litert": LiteRtArtefact,
    "ncnn": NcnnArtefact,
    "coreml": CoreMlArtefact,
    **OPENED_INT8,
}
"""What takes an artefact of each kind apart."""

_PICTURES = 12
"""How many int8's ranges are measured on, beside the natural batches of verification."""

WIDER = ("V, averaged shortcut", "Z of EvoNorm")
"""Small networks that transformers does not have, with norms that no convolution takes in."""

SMALL = {
    "X": {"layer_type": "x"},
    "Y": {"layer_type": "y"},
    "X, gelu": {"layer_type": "x", "hidden_act": "gelu"},
    "Y, silu": {"layer_type": "y", "hidden_act": "silu"},
    "Y, trunk": {"layer_type": "y"},
    **{name: ALL_WIDER[name] for name in WIDER},
}
"""Fields of small networks: wide enough for every kind of fault to have a place."""

DEAD = "X, dead layer"
"""A small network one of whose norms has the weight zero, as some trainings begin."""

PUBLISHED = ("RegNetX-200MF", "RegNetY-400MF")

SUBJECTS = (*SMALL, *PUBLISHED)

_SIZES = {"small": 48, "published": 64}
"""Native height and width, in pixels."""


@dataclass(frozen=True)
class Subject:
    """A network.

    Attributes:
        name: Of :data:`SUBJECTS`.
        folder: Its folder, with golden vectors.
        truth: What its artefacts are measured against.
        contenders: The rules of other tools, on its float32 outputs.
        right: Form to the path of the right artefact.
        digests: Of the weights files, by name.
    """

    name: str
    folder: ConvertedFolder
    truth: Truth
    contenders: Contenders
    right: dict[str, Path]
    digests: dict[str, str]

    @classmethod
    def build(cls, name: str, path: Path, seed: int = 0, forms: Collection[str] = FORMS) -> Subject:
        """Make the network, its truth and its right artefacts.

        Args:
            name: Of :data:`SUBJECTS`, or of a published network.
            path: Of its folder; created.
            seed: Of the weights.
            forms: Of :data:`FORMS` those that are written.
        """
        folder, size = _saved(name, path, seed)
        RegNetImageProcessor(size={"shortest_edge": size}).save_pretrained(path)
        inputs = verification_inputs(folder.config.num_channels, size)
        truth = Truth(folder, inputs)
        write_golden(path, inputs, truth.oracle)
        sample_images(path / CALIBRATION_FOLDER, _PICTURES)
        folder = ConvertedFolder(path)  # with its image processor
        right = {}
        for form in forms:
            kind, options = FORMS[form]
            right[form] = path / f"{form}, {Path(FORMATS[kind].file_name).name}"
            FORMATS[kind].export(folder, right[form], options)
        digests = {file.name: sha256_of(file) for file in folder.weight_files}
        return cls(name, folder, truth, Contenders(folder), right, digests)

    def artefact(self, form: str) -> Artefact:
        """The right artefact, taken apart."""
        return _OPENED[kind_of(form)](self.right[form], self.folder)

    def planted(self, form: str) -> Path:
        """Where an artefact with a fault is written: beside the weights that it may share."""
        return self.folder.path / f"mutant-{Path(FORMATS[kind_of(form)].file_name).name}"

    def verdict(self, form: str, path: Path) -> Verdict:
        """Judge an artefact as a folder's verification does, without any checksum."""
        kind = kind_of(form)
        return judge_artefact(self.folder, self.truth, kind, path, self.digests, found=False)

    def outputs(self, form: str, path: Path) -> dict[str, Outputs]:
        """What an artefact computes on every batch."""
        runtime = FORMATS[kind_of(form)].load(path, self.folder.output_names)
        return run(runtime, self.truth.fitted(runtime.sizes).inputs)

    def copy(self, path: Path) -> None:
        """A whole folder with golden vectors and an ONNX file, but no record of checksums."""
        path.mkdir()
        for file in self.folder.path.iterdir():
            if file.suffix in {".json", ".safetensors"}:
                shutil.copy(file, path)
        shutil.copy(self.right["ONNX"], path / ONNX_NAME)


def kind_of(form: str) -> str:
    """Key of :data:`converters.formats.registry.FORMATS`."""
    return FORMS[form][0]


def _saved(name: str, path: Path, seed: int) -> tuple[ConvertedFolder, int]:
    """A network of random weights in a folder, and its size in pixels."""
    if name == DEAD or name in SMALL:
        config = RegNetConfig(**_SMALL | SMALL.get(name, SMALL["X"]))
        folder = random_folder(path, config, classifier=not name.endswith("trunk"), seed=seed)
        if name == DEAD:
            _kill_a_layer(path / WEIGHTS_NAME)
        return folder, _SIZES["small"]
    model = RegNetForImageClassification(NETWORKS[name].config())
    randomise(model, seed=seed)
    model.save_pretrained(path)
    return ConvertedFolder(path), _SIZES["published"]


def _kill_a_layer(weights: Path) -> None:
    """Set the weight of the last norm of the first block to zero."""
    state = load_file(weights)
    state["regnet.encoder.stages.0.layers.0.layer.2.normalization.weight"][:] = 0
    save_file(state, weights)
