"""Mistakes that converters make, to be planted in ONNX graphs and in state dicts."""

from __future__ import annotations

from functools import partial
from itertools import combinations
from typing import TYPE_CHECKING, Any

import numpy as np

from regnet.wider import NORM_EPS
from tests.converters.parity.faults import becomes, replace_tensor, sets

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from numpy.typing import NDArray
    from onnx import ModelProto, NodeProto

    GraphMistake = Callable[[ModelProto, Path], None]
    State = dict[str, NDArray[Any]]
    StateMistake = Callable[[State], None]


def _nodes(model: ModelProto, operator: str) -> Iterator[NodeProto]:
    return (node for node in model.graph.node if node.op_type == operator)


def _swap_equal_tensors(model: ModelProto, _: Path) -> None:
    kernels = [tensor for tensor in model.graph.initializer if len(tensor.dims) == 4]
    first, second = next((a, b) for a, b in combinations(kernels, 2) if a.dims == b.dims)
    first.name, second.name = second.name, first.name


def _drop_bias(model: ModelProto, folder: Path) -> None:
    """Of the first batch norm, or of the convolution that has taken it in."""
    node = next(node for node in model.graph.node if len(node.input) > 2)
    replace_tensor(model, folder, node.input[2], np.zeros_like)


def _drop_classifier_bias(model: ModelProto, folder: Path) -> None:
    replace_tensor(model, folder, next(_nodes(model, "Gemm")).input[2], np.zeros_like)


def _reverse_classes(model: ModelProto, folder: Path) -> None:
    for name in next(_nodes(model, "Gemm")).input[1:]:
        replace_tensor(model, folder, name, np.flip if name.endswith("bias") else np.flipud)


def _flip_channels(model: ModelProto, folder: Path) -> None:
    stem = next(_nodes(model, "Conv")).input[1]
    replace_tensor(model, folder, stem, partial(np.flip, axis=1))


def _plant_nan(model: ModelProto, folder: Path) -> None:
    def change(array: NDArray[Any]) -> NDArray[Any]:
        array = array.copy()
        array.flat[0] = np.nan
        return array

    replace_tensor(model, folder, next(_nodes(model, "Conv")).input[1], change)


def _change_stride(model: ModelProto, _: Path) -> None:
    sets(strides=[1, 1])(next(_nodes(model, "Conv")))


def _change_padding(model: ModelProto, _: Path) -> None:
    """As other frameworks pad: all at the end, which leaves every shape as it is."""
    sets(pads=[0, 0, 2, 2])(next(_nodes(model, "Conv")))


def _forget_activation(model: ModelProto, _: Path, which: int) -> None:
    list(_nodes(model, "Relu"))[which].op_type = "Identity"


def _forget_gate(model: ModelProto, _: Path) -> None:
    """Of squeeze-and-excitation, or where there is none the residual sum."""
    node = next(_nodes(model, "Mul"), None) or next(_nodes(model, "Add"))
    becomes("Identity")(node)


def set_epsilon(model: ModelProto, value: float, which: slice) -> None:
    """In the batch norms of a sharing file."""
    for node in list(_nodes(model, "BatchNormalization"))[which]:
        sets(epsilon=value)(node)


GRAPH_MISTAKES: dict[str, GraphMistake] = {
    "two tensors of equal shape swapped": _swap_equal_tensors,
    "a bias dropped": _drop_bias,
    "the classifier's bias dropped": _drop_classifier_bias,
    "classes reversed": _reverse_classes,
    "the BGR flip forgotten": _flip_channels,
    "a NaN": _plant_nan,
    "another stride": _change_stride,
    "another padding": _change_padding,
    "the stem's ReLU missing": partial(_forget_activation, which=0),
    "the last ReLU missing": partial(_forget_activation, which=-1),
    "a gate or a shortcut missing": _forget_gate,
}


def _first(state: State, end: str) -> str:
    return next(name for name in state if name.endswith(end))


def _swap_kernels(state: State) -> None:
    kernels = [name for name, array in state.items() if array.ndim == 4]
    first, second = next(
        (a, b) for a, b in combinations(kernels, 2) if state[a].shape == state[b].shape
    )
    state[first], state[second] = state[second], state[first]


def _zero_bias(state: State) -> None:
    state[_first(state, "normalization.bias")][:] = 0


def _reverse_rows(state: State) -> None:
    for name in ("classifier.1.weight", "classifier.1.bias"):
        state[name] = np.ascontiguousarray(state[name][::-1])


def _reverse_stem(state: State) -> None:
    name = _first(state, "embedder.convolution.weight")
    state[name] = np.ascontiguousarray(state[name][:, ::-1])


def _set_nan(state: State) -> None:
    state[_first(state, "convolution.weight")].flat[0] = np.nan


def _as_if_epsilon_were(state: State, epsilon: float) -> None:
    for name in state:
        if name.endswith("running_var"):
            state[name] += np.float32(epsilon - NORM_EPS)


STATE_MISTAKES: dict[str, StateMistake] = {
    "two tensors of equal shape swapped": _swap_kernels,
    "a bias dropped": _zero_bias,
    "classes reversed": _reverse_rows,
    "the BGR flip forgotten": _reverse_stem,
    "a NaN": _set_nan,
    "an epsilon of 1e-3": partial(_as_if_epsilon_were, epsilon=1e-3),
    "an epsilon of 2e-5": partial(_as_if_epsilon_were, epsilon=2e-5),
}
