"""StableHLO: the network as JAX exports it, for whatever XLA compiles for.

Each of torch's functions that the reference model calls has its spelling in JAX here; which of them
an operation takes says :mod:`converters.formats.operations`, as it does for the oracle.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from converters.errors import InputError, require_extra
from converters.formats.format import DEFAULTS, INTERFACE_OPTIONS, Format
from converters.formats.memory import require_memory
from converters.formats.runtime import ArtefactRuntime
from converters.formats.stated import state_behind, stated_behind

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    import numpy as np
    from jax import Array
    from numpy.typing import NDArray

    from converters.folder.folder import ConvertedFolder
    from converters.formats.format import ExportOptions

    Spelling = Callable[..., Array]

LARGEST = 2**31 - 1
"""Bytes of a file, which is a flatbuffer."""

_PLATFORMS = ("cpu", "cuda", "rocm", "tpu")

_COPIES = 4
"""How many times its size a file takes to run: bytes, module, program and constants."""

_LAYOUT = ("NCHW", "OIHW", "NCHW")
_PIXELS = (2, 3)
"""The axes of height and width."""


def export_stablehlo(folder: ConvertedFolder, path: Path, _: ExportOptions = DEFAULTS) -> None:
    """Write the network in float32, batch norms folded; batch and image size are open.

    All of the weights are in memory, some times over. The same versions of JAX and torch write the
    same bytes.

    Raises:
        InputError: If the weights are larger than a file can be.
    """
    require_extra("jax", "jax")
    if sum(tensor.nbytes for tensor in folder.tensors.values()) > LARGEST:
        raise InputError(
            f"{folder.path} is larger than the 2 GB of a StableHLO file; export it as onnx."
        )
    import jax
    from jax import export

    shape = export.symbolic_shape(f"batch, {folder.config.num_channels}, height, width")
    with _without_places():
        trace = export.export(jax.jit(_network(folder)), platforms=_PLATFORMS)
        program = trace(jax.ShapeDtypeStruct(shape, "float32"))
        path.write_bytes(program.serialize())
        state_behind(folder, path)


@contextmanager
def _without_places() -> Iterator[None]:
    """Leave out where in this package each operation was traced: that is a path of the machine."""
    import jax

    before = jax.config.jax_traceback_in_locations_limit
    jax.config.update("jax_traceback_in_locations_limit", 0)
    try:
        yield
    finally:
        jax.config.update("jax_traceback_in_locations_limit", before)


def _network(folder: ConvertedFolder) -> Spelling:
    """What computes the outputs, in their order, of pixels (N, num_channels, H, W)."""
    import torch

    from converters.formats.lockstep import Arithmetic
    from converters.formats.operations import computed
    from converters.formats.reference import reference_model
    from regnet.architecture import PIXELS, folded

    stored = reference_model(folder).state_dict()
    arithmetic = Arithmetic(torch.float32, folded=True)
    spellings = _spellings()

    def call(function: Callable[..., Any], *arguments: Any) -> Array:
        own = (a.numpy() if isinstance(a, torch.Tensor) else a for a in arguments)
        return spellings[function](*own)

    def network(pixels: Array) -> tuple[Array, ...]:
        values = {PIXELS: pixels}
        for operation in folded(folder.architecture.operations):
            held = arithmetic.held(operation, stored)
            inputs = [values[name] for name in operation.inputs]
            values[operation.output] = computed(operation, inputs, held, call)
        return tuple(values[name] for name in folder.output_names)

    return network


def _spellings() -> dict[Callable[..., Any], Spelling]:
    """Function of torch to what computes the same in JAX, given the same arguments."""
    import torch
    from jax import nn
    from jax import numpy as jnp
    from torch.nn import functional

    from converters.formats.operations import normalised
    from regnet.layers import group_deviation, same_padded

    return {
        normalised: lambda pixels, mean, std: (pixels - mean) / std,
        torch.softmax: nn.softmax,
        torch.conv2d: _conv2d,
        same_padded: _same_padded,
        functional.linear: lambda value, weight, bias: value @ weight.T + bias,
        functional.batch_norm: _batch_norm,
        functional.group_norm: _group_norm,
        group_deviation: _group_deviation,
        functional.adaptive_avg_pool2d: lambda value, _: value.mean(_PIXELS, keepdims=True),
        functional.avg_pool2d: _avg_pool2d,
        torch.flatten: lambda value, _: value.reshape(value.shape[0], -1),
        torch.add: jnp.add,
        torch.mul: jnp.multiply,
        torch.div: jnp.divide,
        torch.pow: lambda value, power: value ** int(power),
        torch.tanh: jnp.tanh,
        torch.sigmoid: nn.sigmoid,
        functional.relu: nn.relu,
        functional.silu: nn.silu,
        functional.selu: nn.selu,
        functional.gelu: lambda value: nn.gelu(value, approximate=False),
    }


def _conv2d(
    value: Array, kernel: NDArray[np.float32], bias: NDArray[np.float32] | None, *geometry: int
) -> Array:
    from jax import lax

    stride, padding, _, groups = geometry
    convolved = lax.conv_general_dilated(
        value,
        kernel,
        (stride, stride),
        [(padding, padding)] * 2,
        dimension_numbers=_LAYOUT,
        feature_group_count=groups,
    )
    return convolved if bias is None else convolved + _per_channel(bias)


def _same_padded(value: Array, size: int, stride: int) -> Array:
    """Put zeros on all sides, and cut off the first where an image of this size has none there.

    Paddings must be known, sizes need not be.
    """
    from jax import lax
    from jax import numpy as jnp

    if size <= stride:  # nothing is missing
        return value
    most = size // 2
    extents = [(pixels - 1) // stride * stride + size for pixels in value.shape[2:]]
    before = [
        (extent - pixels) // 2 for extent, pixels in zip(extents, value.shape[2:], strict=True)
    ]
    padded = jnp.pad(value, ((0, 0), (0, 0), (most, most), (most, most)))
    starts = (0, 0, *(most - zeros for zeros in before))
    return lax.dynamic_slice(padded, starts, (*value.shape[:2], *extents))


def _batch_norm(value: Array, *arguments: Any) -> Array:
    """Of one that no convolution has taken in; its tensors in torch's order."""
    mean, variance, weight, bias, _, _, eps = arguments
    scale = weight * (variance.astype("float64") + eps) ** -0.5
    shift = bias - mean * scale
    return value * _per_channel(scale) + _per_channel(shift)


def _group_norm(
    value: Array, groups: int, weight: NDArray[np.float32], bias: NDArray[np.float32], eps: float
) -> Array:
    grouped = value.reshape(value.shape[0], groups, -1)
    centred = grouped - grouped.mean(2, keepdims=True)
    normed = centred / _deviation(grouped, eps)
    return normed.reshape(value.shape) * _per_channel(weight) + _per_channel(bias)


def _group_deviation(value: Array, groups: int, eps: float) -> Array:
    from jax import numpy as jnp

    batch, channels = value.shape[:2]
    deviation = _deviation(value.reshape(batch, groups, -1), eps)
    return jnp.repeat(deviation, channels // groups, axis=1).reshape(batch, channels, 1, 1)


def _deviation(grouped: Array, eps: float) -> Array:
    """Of (N, groups, rest): (N, groups, 1)."""
    from jax import numpy as jnp

    return jnp.sqrt(grouped.var(2, keepdims=True) + eps)


def _avg_pool2d(value: Array, size: int, stride: int, *_: Any) -> Array:
    """The last row and column are repeated, which leaves the mean of fewer pixels what it is."""
    from jax import lax
    from jax import numpy as jnp

    repeated = jnp.pad(value, ((0, 0), (0, 0), (0, 1), (0, 1)), mode="edge")
    window, strides = (1, 1, size, size), (1, 1, stride, stride)
    return lax.reduce_window(repeated, 0.0, lax.add, window, strides, "VALID") / size**2


def _per_channel(numbers: NDArray[np.floating]) -> NDArray[np.float32]:
    return numbers.astype("float32").reshape(-1, 1, 1)


class StableHloRuntime(ArtefactRuntime):
    """Runs a file of `jax.export` on the CPU, on as many threads as XLA likes.

    It is compiled anew for every size of pixels.
    """

    def __init__(self, path: Path, output_names: Sequence[str] = ("logits",), _: int = 1) -> None:
        self.name = f"jax {require_extra('jax', 'jax')}"
        require_memory(_COPIES * path.stat().st_size)
        import jax
        from jax import export

        self._program = jax.jit(export.deserialize(bytearray(path.read_bytes())).call)
        self._device = jax.devices("cpu")[0]
        self._output_names = tuple(output_names)

    def __call__(self, pixel_values: NDArray[np.float32]) -> dict[str, NDArray[np.float32]]:
        """Compute every output."""
        import jax
        import numpy as np

        outputs = self._program(jax.device_put(pixel_values, self._device))
        return dict(zip(self._output_names, map(np.asarray, outputs), strict=True))


STABLEHLO = Format(
    name="stablehlo",
    title="StableHLO",
    file_name="model.stablehlo",
    extra="jax",
    options=INTERFACE_OPTIONS,
    states=stated_behind,
    export=export_stablehlo,
    load=StableHloRuntime,
    usage=(
        "import pathlib, jax.export",
        'program = jax.export.deserialize(bytearray(pathlib.Path("{file}").read_bytes()))',
        "outputs = program.call(pixels.numpy())",
    ),
    traced=True,
)
