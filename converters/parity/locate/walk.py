"""The reference model one module at a time: what each value is computed from, and by what.

This is the table by which the values inside an artefact are compared with the reference model's. A
value is called like the module of the reference model that computes it. An operation without a
module of its own has its name appended: ``...layers.1.add`` is the residual sum. Where a
convolution has taken in its batch norm, both together are one value, called like the module around
them: ``...layer.0`` for ``...layer.0.convolution`` and ``...layer.0.normalization``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from regnet.architecture import Act, Add, Conv, Norm, Scale
from regnet.architecture import folded as with_norms_folded

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from converters.folder.folder import ConvertedFolder
    from regnet.architecture import Operation
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
    operations = folder.architecture.operations
    if folded:
        operations = with_norms_folded(operations)
    made: dict[str, str] = {}
    steps, outputs = [], []
    for operation in operations:
        inputs = tuple(made.get(value, value) for value in operation.inputs)
        step = _step(operation, inputs)
        made[operation.output] = step.module
        steps.append(step)
        if operation.output != operation.name:
            outputs.append(Step(operation.output, (step.module,), ()))
    return (*steps, *outputs)


def _step(operation: Operation, inputs: tuple[str, ...]) -> Step:
    match operation:
        case Conv(norm=Norm() as norm):
            return Step(operation.around, inputs, (operation.name, norm.name))
        case Add():
            applied = _ADD
        case Scale():
            applied = _MULTIPLY
        case Act() if operation.name.endswith(".activation"):  # not the modules in a gate
            applied = _ACTIVATE
        case _:
            applied = (operation.name,)
    return Step(operation.name, inputs, applied)
