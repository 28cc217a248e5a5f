"""A network to be put in int8 for any runtime: the ranges of its values, and what stays in float.

The ranges of activations are those seen on the calibration images and on the natural batches of
verification, so that a verdict needs nothing but the folder. If all layers in int8 cost too much of
the accuracy, each layer is quantised alone, and those that cost most stay in float, as many as it
takes.

Calibration images need no labels: where float32 gives its best class the probability ``p``, and
int8's choice ``q``, that choice costs ``p - q`` of a right answer. A tie that falls to the other
side costs nothing.

It is tried as ONNX in ONNX Runtime. What other runtimes compute on the same grids is the same, but
for the rounding of sums to a step.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from onnx import ModelProto, numpy_helper

from converters.errors import InputError, first
from converters.folder.interface import NETWORK
from converters.formats.onnx.calibration import (
    calibration_pixels,
    measured,
    verification_pixels,
)
from converters.formats.onnx.export import SELF_CONTAINED_LIMIT, self_contained
from converters.formats.onnx.int8_graph import Grid, Int8Plan, layer_names
from converters.formats.runtime import softmax
from regnet.architecture import NORMALISED, PIXELS
from regnet.files.reading import parse_json

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence

    from numpy.typing import NDArray
    from onnx import GraphProto

    from converters.folder.folder import ConvertedFolder
    from converters.formats.format import ExportOptions
    from converters.formats.onnx.file import OnnxFile
    from converters.formats.onnx.form import GraphForm

    Batches = Sequence[NDArray[np.float32]]

LARGEST_LOSS = 0.005
"""Of top-1, expected on the calibration images: half a point."""

QUANTISATION_KEY = "quantisation"
"""Metadata key of int8 files: JSON, the fields of :class:`Quantisation`."""

_STEPS = 16
"""Layers are left in float a sixteenth of them at a time."""

_SHOWN = 3
"""Layers that a message names."""

_RANKED_ON = 2
"""Batches that rank the layers; more images do not change which are worst."""


@dataclass(frozen=True, slots=True)
class Quantisation:
    """How a network was quantised, as the file states.

    Attributes:
        calibration_images: How many images it was calibrated on.
        agreement: Share of them with the same best class as in float32; None without classes.
        top1_loss: Accuracy that int8 is expected to cost on them, 0 to 1; None without classes.
        float_layers: Layers that stay in float, the most sensitive first.
    """

    calibration_images: int
    agreement: float | None = None
    top1_loss: float | None = None
    float_layers: tuple[str, ...] = ()

    def in_words(self) -> str:
        """For people, on a line of its own."""
        words = f"\nint8, calibrated on {self.calibration_images} images"
        if self.agreement is not None and self.top1_loss is not None:
            words += f": {self.agreement:.1%} keep their best class, expected loss "
            words += f"{self.top1_loss:.2%} of top-1"
        if self.float_layers:
            return f"{words}; these layers stay in float32: {', '.join(self.float_layers)}."
        return f"{words}; no layer had to stay in float32."

    @property
    def text(self) -> str:
        """As files state it: JSON."""
        return json.dumps(asdict(self))

    @property
    def details(self) -> dict[str, Any]:
        """What is recorded of an int8 file beside its digest, as values for JSON."""
        return {QUANTISATION_KEY: asdict(self) | {"float_layers": list(self.float_layers)}}

    @classmethod
    def stated(cls, texts: Mapping[str, str]) -> Quantisation:
        """Read it from a file's metadata.

        Raises:
            ValueError: If there is none, or it is damaged.
        """
        try:
            fields = parse_json(texts[QUANTISATION_KEY])
            layers = tuple(map(str, fields.pop("float_layers")))
            return cls(**fields, float_layers=layers)
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"it does not state how it was quantised ({error})") from error


def details_in_words(details: Mapping[str, Any]) -> str:
    """What is recorded of an int8 file, for people, on a line of its own."""
    return Quantisation(**details["quantisation"]).in_words()


class QuantisedNetwork:
    """A network, to be quantised in part and tried on the calibration images; all in memory.

    It is tried as it is; only what :meth:`in_int8` writes in a form has the folder's interface.

    Args:
        folder: Whose.
        options: What it is calibrated on, and how much it may cost.
        instead: The format to name where int8 does not do.

    Attributes:
        weights: Those of ONNX's self-contained file, by name.
        grids: Of each value that can be computed in integers, and of the first output.

    Raises:
        InputError: If there are no images to calibrate on, or it is beyond 2 GB.
    """

    def __init__(
        self, folder: ConvertedFolder, options: ExportOptions, instead: str = "onnx-fp16"
    ) -> None:
        self._folder, self._instead = folder, instead
        self._layers = layer_names(folder)
        self._symmetric = options.symmetric
        self._progress = options.progress
        loss = options.largest_loss
        self._largest_loss = LARGEST_LOSS if loss is None else loss
        form = replace(options.form, batch=None, height=None, width=None)
        network = folder.offering(NETWORK)
        self._file = self_contained(network, form)
        if self._file.nbytes > SELF_CONTAINED_LIMIT:
            raise InputError(
                f"{folder.path} is larger than the 2 GB that can be quantised here; export it as "
                f"{instead}."
            )
        self.weights = {weight.name: weight.computed() for weight in self._file.weights}
        self._batches = calibration_pixels(network, options.calibration_images)
        seen = [*self._batches, *verification_pixels(folder)]
        graph = self._file.graph
        values = Int8Plan(graph, self._layers).values
        outputs, ranges = measured(self._model(graph, self.weights), seen, values)
        first = graph.output[0].name
        ends = min(map(np.min, outputs)), max(map(np.max, outputs))
        ranges = {first: (float(ends[0]), float(ends[1]))} | ranges
        grid = Grid.around_zero if options.symmetric else Grid.spanning
        self.grids = {name: grid(*range_) for name, range_ in ranges.items()}
        if PIXELS in self.grids:  # which an artefact may make itself
            self.grids[NORMALISED] = self.grids[PIXELS]
        self._truth = outputs[: len(self._batches)]

    def fewest_in_float(self) -> Quantisation:
        """The first that does, with more and more layers in float.

        Raises:
            InputError: If it costs too much whichever layers are left.
        """
        images = sum(map(len, self._batches))
        if not self._folder.has_classifier or self._folder.config.num_labels <= 1:
            return Quantisation(images)
        for left in self._growing():
            agreement, loss = self._compared(left)
            if loss <= self._largest_loss:
                return Quantisation(images, agreement, loss, tuple(left))
        raise InputError(
            f"int8 costs {loss:.1%} of top-1 on the {images} calibration images even with nearly "
            f"all layers in float, of which {first(left, _SHOWN)} move its logits most; calibrate "
            f"on more images that the network knows, or export it as {self._instead}."
        )

    def in_int8(self, left: Collection[str], form: GraphForm | None = None) -> ModelProto:
        """The quantised model but for some layers; with all sizes open unless a form fixes them."""
        file = self_contained(self._folder, form) if form else self._file
        plan = self._plan(file.graph, left)
        tensors = plan.initialisers(self.grids, self.weights)
        return self._model(plan.quantised(), tensors, file)

    def plan(self, left: Collection[str]) -> Int8Plan:
        """What is computed in integers if some layers are not."""
        return self._plan(self._file.graph, left)

    def _plan(self, graph: GraphProto, left: Collection[str]) -> Int8Plan:
        return Int8Plan(graph, self._layers, left, symmetric=self._symmetric)

    def _model(
        self, graph: GraphProto, tensors: Mapping[str, NDArray[Any]], file: OnnxFile | None = None
    ) -> ModelProto:
        model = ModelProto()
        model.CopyFrom((file or self._file).model)
        model.graph.CopyFrom(graph)
        model.graph.initializer.extend(
            numpy_helper.from_array(tensor, name) for name, tensor in tensors.items()
        )
        return model

    def _growing(self) -> Iterator[Sequence[str]]:
        """Layers to leave: none, then the most sensitive, then more."""
        yield ()
        layers = self._most_sensitive_first()
        step = -(-len(layers) // _STEPS)
        for count in range(step, len(layers), step):
            self._progress.step(f"int8: {count} of {len(layers)} layers in float")
            yield layers[:count]

    def _compared(self, left: Collection[str]) -> tuple[float, float]:
        """Share of images with the same best class, and the expected loss of top-1."""
        truth = np.concatenate(self._truth)
        outputs = np.concatenate(self._outputs(left, self._batches))
        probabilities = softmax(truth)
        image, ours, theirs = np.arange(len(truth)), outputs.argmax(1), truth.argmax(1)
        losses = probabilities[image, theirs] - probabilities[image, ours]
        return float((ours == theirs).mean()), round(float(losses.mean()), 6)

    def _most_sensitive_first(self) -> list[str]:
        """Layers by the error of the logits where nothing else is quantised."""
        errors = {}
        for number, layer in enumerate(self._layers, 1):
            self._progress.step(f"int8: layer {number} of {len(self._layers)} alone")
            outputs = self._outputs(set(self._layers) - {layer}, self._batches[:_RANKED_ON])
            pairs = zip(outputs, self._truth, strict=False)
            errors[layer] = sum(float(np.square(ours - truth).sum()) for ours, truth in pairs)
        return sorted(self._layers, key=lambda layer: -errors[layer])

    def _outputs(self, left: Collection[str], batches: Batches) -> Batches:
        return measured(self.in_int8(left), batches)[0]
