"""Faults in the code of a TorchScript archive; a class is shared, so each fault is everywhere."""

from __future__ import annotations

import re
from functools import partial
from typing import TYPE_CHECKING, Any

from benchmarks.mutation.artefact import ScriptArtefact
from benchmarks.mutation.graphs import other_configurations
from benchmarks.mutation.mutant import Mutant
from converters.folder.folder import ConvertedFolder
from converters.formats.torchscript import CODE, program_entries

if TYPE_CHECKING:
    from collections.abc import Iterator

    from benchmarks.mutation.artefact import Artefact

_ACTIVATION = "def activation(hidden: Tensor) -> Tensor:\n  return "
_RELU = f"{_ACTIVATION}torch.relu(hidden)"
_GATE = "return hidden * gate"
_SUM = "self.layer.forward(hidden) + hidden"
_SQUEEZED = "torch.adaptive_avg_pool2d(hidden, [1, 1]))"
_POOLED = "return hidden, torch.adaptive_avg_pool2d(hidden, [1, 1])"
_STEM = "self.embedder.forward(pixel_values)"
_NORM = "mean, variance, False, 0.1, 1e-05, True)"

_CONV = r"hidden, self\.weight, None, (\[\d+, \d+\]), \[1, 1\], \[1, 1\], (\d+)\)"
"""The arguments of a 3x3 convolution: its stride and its groups vary."""


def _padded(sizes: str) -> str:
    """The same arguments for padded values: left, right, top, bottom."""
    padded = f"torch.constant_pad_nd(hidden, [{sizes}])"
    return rf"{padded}, self.weight, None, \1, [0, 0], [1, 1], \2)"


CONVOLUTION_FAULTS = {
    "stride 1 for 2": (r"None, \[2, 2\],", "None, [1, 1],"),
    "padding at the end": (_CONV, _padded("0, 2, 0, 2")),
    "padding at the beginning": (_CONV, _padded("2, 0, 2, 0")),
    "dilation 2": (_CONV, r"hidden, self.weight, None, \1, [2, 2], [2, 2], \2)"),
    "one group more": (_CONV, r"hidden, self.weight, None, \1, [1, 1], [1, 1], \2 + 1)"),
}
"""Patterns that stand in the code of convolutions, and what stands there instead."""

CODE_FAULTS = {
    "epsilon 1e-3": (_NORM, _NORM.replace("1e-05", "1e-03")),
    "epsilon 2e-5": (_NORM, _NORM.replace("1e-05", "2e-05")),
    "epsilon 1.1e-5": (_NORM, _NORM.replace("1e-05", "1.1e-05")),
    "batch norm in training": (_NORM, _NORM.replace("False", "True")),
    "ReLU missing": (_RELU, f"{_ACTIVATION}hidden"),
    "ReLU6 for ReLU": (_RELU, f"{_ACTIVATION}torch.clamp(hidden, 0., 6.)"),
    "ReLU clipped at float16's largest": (
        _RELU,
        f"{_ACTIVATION}torch.clamp(hidden, 0., 65504.)",
    ),
    "LeakyReLU for ReLU": (_RELU, f"{_ACTIVATION}torch.leaky_relu(hidden, 0.01)"),
    "ELU for ReLU": (_RELU, f"{_ACTIVATION}torch.elu(hidden)"),
    "hard sigmoid for the gate": ("torch.sigmoid(", "torch.hardsigmoid("),
    "tanh for the gate": ("torch.sigmoid(", "torch.tanh("),
    "squeeze without ReLU": (
        'torch.relu(getattr(self, "0").forward(hidden))',
        'getattr(self, "0").forward(hidden)',
    ),
    "largest value squeezed": (_SQUEEZED, "torch.amax(hidden, [2, 3], True))"),
    "gate missing": (_GATE, "return hidden"),
    "gate added": (_GATE, "return hidden + gate"),
    "residual missing": (_SUM, "self.layer.forward(hidden)"),
    "shortcut twice": (_SUM, "hidden + hidden"),
    "difference for sum": (_SUM, _SUM.replace("+", "-")),
    "largest value for the mean": (_POOLED, "return hidden, torch.amax(hidden, [2, 3], True)"),
    "outputs exchanged": (_POOLED, "return torch.adaptive_avg_pool2d(hidden, [1, 1]), hidden"),
    "height and width exchanged": (
        _STEM,
        _STEM.replace("pixel_values", "torch.transpose(pixel_values, 2, 3)"),
    ),
    "input clipped": (_STEM, _STEM.replace("pixel_values", "torch.clamp(pixel_values, -2.1, 2.6)")),
    "input rescaled again": (_STEM, _STEM.replace("pixel_values", "pixel_values / 255.")),
    "BGR stem": (_STEM, _STEM.replace("pixel_values", "torch.flip(pixel_values, [1])")),
    "values rounded to float16": (_STEM, f"torch.to(torch.to({_STEM}, 5), 6)"),
    "values rounded to bfloat16": (_STEM, f"torch.to(torch.to({_STEM}, 15), 6)"),
    "softmax added": (
        "return self.classifier.forward(torch.flatten(pooler_output, 1))",
        "return torch.softmax(self.classifier.forward(torch.flatten(pooler_output, 1)), 1)",
    ),
    "classifier bias lost": (
        "torch.linear(hidden, self.weight, self.bias)",
        "torch.linear(hidden, self.weight)",
    ),
}
"""What stands in the code, and what stands there instead; 5, 6 and 15 are torch's dtypes."""


_VARIANCE = "torch.var(grouped, [2, 3, 4], False, True) + 0.001"
_MEAN_OF_FOUR = "[0, 0], True, False)"
_SLOPED = "torch.sigmoid(hidden * torch.view(self.v, [-1, 1, 1]))"

WIDER_CODE_FAULTS = {
    "a norm's epsilon 1.1e-3": (_VARIANCE, _VARIANCE.replace("0.001", "0.0011")),
    "unbiased variance in a norm": (_VARIANCE, _VARIANCE.replace("False", "True")),
    "variance of a channel for that of its group": (
        _VARIANCE,
        _VARIANCE.replace("2, 3, 4", "3, 4"),
    ),
    "v lost": (_SLOPED, "torch.sigmoid(hidden)"),
    "hard sigmoid in an EvoNorm": (_SLOPED, _SLOPED.replace("sigmoid", "hardsigmoid")),
    "no ceiling in a mean of 2x2": (_MEAN_OF_FOUR, "[0, 0], False, False)"),
    "padding counted in a mean of 2x2": (_MEAN_OF_FOUR, "[1, 1], False, True)"),
}
"""Likewise in networks that transformers does not have."""


def script_mutants(artefact: ScriptArtefact, folder: ConvertedFolder) -> Iterator[Mutant]:
    """Every kind of fault whose place is in the code, and the code of other configurations."""
    code = artefact.entries[CODE].decode()
    for kind, (old, new) in {**CODE_FAULTS, **WIDER_CODE_FAULTS}.items():
        if old in code and (kind != "outputs exchanged" or not folder.has_classifier):
            yield Mutant(kind, "everywhere", partial(replace_code, old=old, new=new))
    for kind, (pattern, new) in CONVOLUTION_FAULTS.items():
        if re.search(pattern, code):
            yield Mutant(kind, "everywhere", partial(_replace_pattern, pattern=pattern, new=new))
    for fields in other_configurations(folder):
        (kind,) = fields
        plant = partial(_plant_program, folder=folder, fields=fields)
        yield Mutant(f"another {kind}", str(fields[kind]), plant)


def _replace_pattern(artefact: Artefact, pattern: str, new: str) -> None:
    if isinstance(artefact, ScriptArtefact):
        artefact.entries[CODE] = re.sub(pattern, new, artefact.entries[CODE].decode()).encode()


def replace_code(artefact: Artefact, old: str, new: str) -> None:
    """Let the code say something else.

    Raises:
        TypeError: If it is no TorchScript archive.
    """
    if not isinstance(artefact, ScriptArtefact):
        raise TypeError(f"{artefact} is no TorchScript archive.")
    artefact.entries[CODE] = artefact.entries[CODE].decode().replace(old, new).encode()


def _plant_program(artefact: Artefact, folder: ConvertedFolder, fields: dict[str, Any]) -> None:
    """The program of another configuration, around the same weights."""
    other = ConvertedFolder(folder.path)
    for key, value in fields.items():
        setattr(other.config, key, value)
    if isinstance(artefact, ScriptArtefact):
        artefact.entries.update(program_entries(other))
