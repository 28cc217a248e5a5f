"""The reference model one module at a time: what each value is computed from, and by what.

This is the table by which the values inside an artefact are compared with the reference model's. A
value is called like the module of the reference model that computes it. An operation without a
module of its own has its name appended: ``...layers.1.add`` is the residual sum. Where a
convolution has taken in its batch norm, both together are one value, called like the module around
them: ``...layer.0`` for ``...layer.0.convolution`` and ``...layer.0.normalization``.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from regnet.architecture import BASE_PREFIX, CLASSIFIER
from regnet.dataflow import Dataflow

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from converters.folder.folder import ConvertedFolder
    from regnet.architecture import ConvNorm, SqueezeExcite
    from regnet.model import RegNetForImageClassification, RegNetModel

_ADD = ("add",)
_MULTIPLY = ("mul",)
_ACTIVATE = ("activation",)
"""What computes a value where no module of the reference model does."""


@dataclass(frozen=True, slots=True)
class Step:
    """One value of the network.

    Attributes:
        module: Its name.
        inputs: The values it is computed from, by name; ``pixel_values`` is the image.
        applied: Modules of the reference model to apply one after another, or one of the operations
            ``add``, ``mul`` and ``activation``. Empty for an output, which is its input.
    """

    module: str
    inputs: tuple[str, ...]
    applied: tuple[str, ...]

    @property
    def is_activation(self) -> bool:
        """Whether it is the network's activation, which is no module of the reference model."""
        return self.applied == _ACTIVATE

    @property
    def modules(self) -> tuple[str, ...]:
        """Modules of the reference model to apply; none of an operation."""
        return () if self.applied in {_ADD, _MULTIPLY, _ACTIVATE} else self.applied

    def compute(
        self, model: RegNetModel | RegNetForImageClassification, inputs: Sequence[Tensor]
    ) -> Tensor:
        """Compute the value as the reference model does, in the precision of ``inputs``.

        Raises:
            RuntimeError: From torch, if the shapes of the inputs do not fit.
        """
        if self.applied == _ADD:
            return inputs[0] + inputs[1]
        if self.applied == _MULTIPLY:
            return inputs[0] * inputs[1]
        if self.applied == _ACTIVATE:
            from regnet.model import ACTIVATIONS

            return ACTIVATIONS[model.config.hidden_act](inputs[0])
        value = inputs[0]
        for name in self.applied:
            value = model.get_submodule(name)(value)
        return value


def steps_of(folder: ConvertedFolder, *, folded: bool) -> tuple[Step, ...]:
    """List every value of a folder's network, in execution order; the outputs come last.

    Args:
        folder: Whose network.
        folded: Whether convolutions have taken in their batch norms.
    """
    table = _Table(BASE_PREFIX if folder.has_classifier else "", folded)
    last = table.trunk(folder.blocks)
    pooled = table.add(f"{table.prefix}pooler", last)
    if not folder.has_classifier:
        outputs: tuple[str, ...] = (last, pooled)
    else:
        sequential, _, _ = CLASSIFIER.rpartition(".")
        value = table.add(f"{sequential}.0", pooled)
        outputs = (table.add(CLASSIFIER, value) if folder.config.num_labels else value,)
    for name, value in zip(folder.output_names, outputs, strict=True):
        table.steps.append(Step(name, (value,), ()))
    return tuple(table.steps)


@dataclass
class _Table(Dataflow):
    """Collects the steps; every method returns the name of the value it has described."""

    prefix: str
    folded: bool
    steps: list[Step] = field(default_factory=list)

    def add(self, module: str, *inputs: str, applied: tuple[str, ...] = ()) -> str:
        self.steps.append(Step(module, inputs, applied or (module,)))
        return module

    def residual(self, name: str, value: str, shortcut: str) -> str:
        return self.activation(name, self.add(f"{name}.add", value, shortcut, applied=_ADD))

    def conv_norm(self, layer: ConvNorm, value: str) -> str:
        name = self.prefix + layer.name
        parts = (f"{name}.convolution", f"{name}.normalization")
        if self.folded:
            value = self.add(name, value, applied=parts)
        else:
            for part in parts:
                value = self.add(part, value)
        return self.activation(name, value) if layer.activation else value

    def activation(self, module: str, value: str) -> str:
        return self.add(f"{module}.activation", value, applied=_ACTIVATE)

    def squeeze_excite(self, layer: SqueezeExcite, value: str) -> str:
        name = self.prefix + layer.name
        gate = self.add(f"{name}.pooler", value)
        for index in range(4):  # squeeze, ReLU, excite, sigmoid
            gate = self.add(f"{name}.attention.{index}", gate)
        return self.add(f"{name}.mul", value, gate, applied=_MULTIPLY)
