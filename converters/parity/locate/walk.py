"""Every value of the network by its name: what an artefact's are compared with.

A value is called like the module of the reference model that computes it, as the operations of
:mod:`regnet.architecture` are. Where a convolution has taken in its batch norm, both together are
one value, called like the module around them: ``...layer.0`` for ``...layer.0.convolution`` and
``...layer.0.normalization``.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from regnet.architecture import Conv, Operation
from regnet.architecture import folded as with_norms_folded

if TYPE_CHECKING:
    from converters.folder.folder import ConvertedFolder
    from regnet.architecture import Operations


@dataclass(frozen=True, slots=True)
class Output(Operation):
    """A value once more, under the name by which the network returns it."""


def values_of(folder: ConvertedFolder, *, folded: bool) -> Operations:
    """List what makes each value of a folder's network, in execution order; the outputs come last.

    Args:
        folder: Whose network.
        folded: Whether convolutions have taken in their batch norms.
    """
    operations = folder.architecture.operations
    if folded:
        operations = with_norms_folded(operations)
    names: dict[str, str] = {}
    made: list[Operation] = []
    for operation in operations:
        takes_norm = isinstance(operation, Conv) and operation.norm
        name = operation.around if takes_norm else operation.name
        inputs = tuple(names.get(value, value) for value in operation.inputs)
        names[operation.output] = name
        made.append(replace(operation, name=name, inputs=inputs, output=name))
    return (*made, *(Output(value, (names[value],), value) for value in folder.output_names))
