"""The numbers of a giant: cheap, the same every time, and made one chunk at a time."""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from benchmarks.giants import signal
from benchmarks.giants.sparse import PAGE, zero_between
from converters.checkpoint.torch_pickle import PickledTensor
from regnet.architecture import BASE_PREFIX, CLASSIFIER, Architecture
from regnet.files.dtypes import cast, item_size

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from regnet.config import RegNetConfig

_CHUNK = 1 << 20  # elements
_BLOCK = 4_194_301  # elements, some 16 MiB; a prime, so that no row of a matrix repeats another
_OPPOSED = 9  # elements after which the opposite ones follow: a kernel of three by three
_COUNTER_LIMIT = 500_000
_ATTENTION_BIAS = 0.03
_SMALLEST_WEIGHT = 0.05
_MEAN_SPREAD = 0.1  # of a running mean, in standard deviations of what is normalised
_VARIANCE_SPREAD = 0.03


@dataclass(frozen=True, slots=True, kw_only=True)
class Part(PickledTensor):
    """A run of a tensor's elements as one file stores it, padded with zeros where it is longer.

    Attributes:
        source: The reference's name of the tensor.
        start: Index of the first element.
        flipped: Whether the second axis is reversed: a stem for BGR.
    """

    source: str
    start: int = 0
    flipped: bool = False

    @property
    def nbytes(self) -> int:
        """Of the elements and the padding."""
        return self.stored.numel * item_size(self.dtype)


class Content:
    """The numbers of one network.

    Args:
        config: The network.
        dtype: Of all but the counters, torch's name.
        seed: Another seed, other numbers.
        density: How much of a large tensor is written: of its pages in the file every n-th, where
            n is the nearest to ``1 / density``; the weights are larger to make up for the rest.

    Raises:
        ValueError: If the density is not above 0 and at most 1.
    """

    def __init__(self, config: RegNetConfig, dtype: str, seed: int = 0, density: float = 1) -> None:
        if not 0 < density <= 1:
            raise ValueError(f"density={density} must be above 0 and at most 1.")
        trunk = Architecture.of(config, classifier=False)
        self._dtype = dtype
        self._seed = seed
        self._step = round(1 / density)
        self._variances, self._features = signal.propagate(trunk.operations)
        self._stem = trunk.slots[0].name
        self._shapes = {
            name.removeprefix(BASE_PREFIX): shape
            for name, shape in Architecture.of(config).shapes.items()
        }
        self._block = self._normal_block()

    def chunks(self, part: Part, position: int) -> Iterator[bytes]:
        """Make the bytes of a part.

        Args:
            part: What a file stores.
            position: In bytes, where it begins in the file; holes depend on it.

        Yields:
            Little-endian bytes, at most some MiB at once.
        """
        name = part.source.removeprefix(BASE_PREFIX)
        sparse = self._has_holes(name)
        for begin in range(0, part.stored.numel, _CHUNK):
            stop = part.start + min(begin + _CHUNK, part.stored.numel)
            values = self._padded(name, part.start + begin, stop)
            if part.flipped:
                values = values.reshape(part.stored.shape)[:, ::-1].reshape(-1)
            if values.dtype == np.float32:
                values = cast(values, "float32", part.dtype)
            data = np.ascontiguousarray(values).view(np.uint8)
            if sparse:
                zero_between(data, position, self._step)
            position += data.size
            yield data.tobytes()

    def _padded(self, name: str, start: int, stop: int) -> NDArray[np.generic]:
        """Elements from ``start`` to ``stop``; zeros where the tensor has ended."""
        size = math.prod(self._shapes[name])
        values = self._values(name, start, min(stop, size))
        return np.pad(values, (0, stop - start - values.size)) if stop > size else values

    def _values(self, name: str, start: int, stop: int) -> NDArray[np.generic]:
        """Elements from ``start`` to ``stop``: float32, shape (stop - start,); counters int64."""
        size = math.prod(self._shapes[name])
        digest = hashlib.sha256(f"{self._seed}/{name}".encode()).digest()
        number = int.from_bytes(digest[:8], "little")
        if name.endswith("num_batches_tracked"):
            return np.array([number % _COUNTER_LIMIT + 1], np.int64)
        if len(self._shapes[name]) > 1 and name != self._stem:
            first = (number + start) % _BLOCK
            return self._block[first : first + stop - start] * self._scale(name)
        normal = np.random.default_rng(number).standard_normal(size, np.float32)
        if name == self._stem:
            return (normal * self._scale(name))[start:stop]
        return self._vector(name, normal)[start:stop].astype(np.float32, copy=False)

    def _vector(self, name: str, normal: NDArray[np.float32]) -> NDArray[np.float32]:
        """A bias, or a vector of a batch norm, made of normally distributed numbers."""
        layer, _, leaf = name.rpartition(".")
        layer, _, kind = layer.rpartition(".")
        if kind != "normalization":
            return normal * _ATTENTION_BIAS
        mean, spread = signal.NORM_WEIGHT if leaf == "weight" else signal.NORM_BIAS
        variance = self._variances[layer]
        values: dict[str, NDArray[np.float32]] = {
            "weight": np.maximum(np.abs(mean + spread * normal), _SMALLEST_WEIGHT),
            "bias": mean + spread * normal,
            "running_mean": math.sqrt(variance) * _MEAN_SPREAD * normal,
            "running_var": variance * np.exp(_VARIANCE_SPREAD * normal),
        }
        return values[leaf]

    def _scale(self, name: str) -> np.float32:
        """The standard deviation of a tensor's weights, those that holes leave."""
        gain = signal.GAIN
        if ".attention." in name:
            gain = signal.SQUEEZE_GAIN
        elif name.startswith(CLASSIFIER):
            gain = signal.LOGIT_GAIN / math.sqrt(self._features.variance)
        left = self._step if self._has_holes(name) else 1
        return np.float32(gain * math.sqrt(left / self._fan_in(name)))

    def _fan_in(self, name: str) -> int:
        return math.prod(self._shapes[name][1:])

    def _has_holes(self, name: str) -> bool:
        """Whether a tensor has them: if its filters are a page long, so that enough keep some."""
        if self._step == 1 or len(self._shapes[name]) == 1:
            return False
        return self._fan_in(name) * item_size(self._dtype) >= PAGE

    def _normal_block(self) -> NDArray[np.float32]:
        """What all large tensors are cut from, at different places: normal, in opposed runs."""
        runs = -(-_BLOCK // (2 * _OPPOSED))
        generator = np.random.default_rng(self._seed)
        block = np.empty((runs, 2, _OPPOSED), np.float32)
        block[:, 0] = generator.standard_normal((runs, _OPPOSED), np.float32)
        np.negative(block[:, 0], out=block[:, 1])
        once = block.reshape(-1)[:_BLOCK]
        return np.concatenate((once, once[:_CHUNK]))
