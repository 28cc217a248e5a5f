"""Every value inside ncnn's files: each operation has a layer, whose value is had by its name.

One image goes through at a time, and ncnn keeps what it computes on the way.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from converters.errors import in_words
from converters.formats.ncnn import open_net, values_of
from converters.parity.locate.intermediates import Intermediates
from converters.parity.locate.walk import values_of as named
from regnet.architecture import Flatten, Linear, Softmax, folded

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from converters.folder.folder import ConvertedFolder

_FLAT = 2
"""Axes of a batch of what ncnn gives one axis: behind a mean of all pixels."""


def run_ncnn(folder: ConvertedFolder, path: Path, pixels: NDArray[np.float32]) -> Intermediates:
    """Run ncnn's files and keep the value of every operation.

    Arguments are those of `run_with_intermediates`. What a layer says to do otherwise than it
    should, the certificate tells.
    """
    operations = folded(folder.architecture.operations)
    try:
        net = open_net(path)
        made = [operation.output for operation in operations]
        images = [values_of(net, image, made, keeps=True) for image in pixels]
    except RuntimeError as error:
        return Intermediates({}, folded=True, differences={}, failure=in_words(error))
    values = {}
    for called, operation in zip(named(folder, folded=True), operations, strict=False):
        value = np.stack([image[operation.output] for image in images])
        if value.ndim == _FLAT and not isinstance(operation, Flatten | Linear | Softmax):
            value = value[:, :, None, None]
        values[called.name] = value
        if operation.output in folder.output_names:
            values[operation.output] = value
    return Intermediates(values, folded=True, differences={})
