"""Faults in the weights, planted in the tensors that an artefact holds."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.mutation.mutant import Mutant, spread
from benchmarks.mutation.numbers import BIAS_CHANGES, KERNEL_CHANGES
from regnet.architecture import CLASSIFIER, Conv, EvoNorm, GroupNorm, Norm, folded

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from numpy.typing import NDArray

    from benchmarks.mutation.artefact import Artefact
    from converters.folder.folder import ConvertedFolder

    Array = NDArray[Any]
    Changed = Mapping[str, Array]
    ModuleChange = Callable[["Weights", str, np.random.Generator], Changed]

_FOLDED = ".folded_weight"
_KERNEL = ".convolution.weight"
_STEM = "embedder.embedder"


@dataclass(frozen=True)
class Weights:
    """The tensors of a right artefact, by what they belong to.

    Attributes:
        artefact: Not to be changed.
        folder: Whose it is.
    """

    artefact: Artefact
    folder: ConvertedFolder

    @property
    def folded(self) -> bool:
        """Whether convolutions have taken in their batch norm."""
        return any(name.endswith(_FOLDED) for name in self.artefact.names())

    def kernels(self) -> list[str]:
        """Names of all kernels, in the order of the network."""
        names = self.artefact.names()
        return [name for name in names if self.artefact.array(name).ndim > 1]

    @cached_property
    def norms(self) -> Mapping[str, Norm]:
        """The batch norm behind each convolution that has one, by what holds the convolution."""
        steps = folded(self.folder.architecture.operations)
        return {step.around: step.norm for step in steps if isinstance(step, Conv) and step.norm}

    def modules(self) -> list[str]:
        """Names of what holds a convolution with a batch norm behind it."""
        return list(self.norms)

    def kept_norms(self) -> list[str]:
        """Names of the norms that no convolution takes in."""
        steps = folded(self.folder.architecture.operations)
        return [step.name for step in steps if isinstance(step, Norm | GroupNorm | EvoNorm)]

    def norm(self, module: str, leaf: str) -> Array:
        """A vector of a batch norm, as the folder has it."""
        return np.asarray(self.folder.array(f"{self.norms[module].name}.{leaf}"))

    def with_norm(self, module: str, **leaves: Array) -> Changed:
        """The tensors of a module whose batch norm has other leaves, folded as one would."""
        if not self.folded:
            name = self.norms[module].name
            return {f"{name}.{leaf}": array for leaf, array in leaves.items()}
        return self.fold(module, np.float64, self.norms[module].eps, leaves)

    def fold(
        self, module: str, dtype: type[np.floating], eps: float, leaves: Changed | None = None
    ) -> Changed:
        """A kernel and its bias after the fold, computed in a type of float."""
        names = ("weight", "bias", "running_mean", "running_var")
        norm = {leaf: self.norm(module, leaf) for leaf in names} | dict(leaves or {})
        weight, bias, mean, variance = (norm[leaf].astype(dtype) for leaf in names)
        kernel = self.folder.array(module + _KERNEL).astype(dtype)
        slope = weight / np.sqrt(variance + dtype(eps))
        return {
            module + _FOLDED: (kernel * slope.reshape(-1, 1, 1, 1)).astype(np.float32),
            f"{module}.folded_bias": (bias - mean * slope).astype(np.float32),
        }


def next_alike(names: list[str], name: str, shape: Callable[[str], Any]) -> str | None:
    """The next name with the same shape, around the end; None if there is no other."""
    start = names.index(name) + 1
    others = [*names[start:], *names[: start - 1]]
    return next((other for other in others if shape(other) == shape(name)), None)


def weight_mutants(weights: Weights, count: int, random: np.random.Generator) -> Iterator[Mutant]:
    """Every kind of fault in ``count`` places each."""
    array = weights.artefact.array
    kernels = weights.kernels()
    for kind, change in KERNEL_CHANGES.items():
        # Where a change leaves a tensor as it is (a transposed row, say) there is no fault.
        places = [name for name in kernels if _differs(change(array(name), random), array(name))]
        for name in spread(places, count, random):
            yield _mutant(f"kernel {kind}", name, {name: change(array(name), random)})
    biases = [name for name in map(_bias, kernels) if name in weights.artefact.names()]
    for kind, change in BIAS_CHANGES.items():
        for name in spread(biases, count, random):
            yield _mutant(kind, name, {name: change(array(name), random)})
    for kind, module_change in _MODULE_CHANGES.items():
        for module in spread(weights.modules(), count, random):
            changed = module_change(weights, module, random)
            if any(_differs(value, array(name)) for name, value in changed.items()):
                yield _mutant(kind, module, changed)
    for norm in spread(weights.kept_norms(), count, random):
        yield from _norm_mutants(weights, norm)
    yield from _swaps(weights, count, random)
    yield from _whole(weights, random)


def _norm_mutants(weights: Weights, norm: str) -> Iterator[Mutant]:
    """Faults in what a norm holds that no convolution takes in."""
    held = {
        name.rpartition(".")[2].removeprefix("folded_"): name
        for name in weights.artefact.names()
        if _is_of(name, norm)
    }
    weight, bias = (weights.artefact.array(held[leaf]) for leaf in ("weight", "bias"))
    exchanged = {held["weight"]: bias, held["bias"]: weight}
    yield _mutant("weight and bias of a norm exchanged", norm, exchanged)
    for leaf in held.keys() & {"v", "running_var"}:
        ones = np.ones_like(weights.artefact.array(held[leaf]))
        yield _mutant(f"a norm's {leaf} left at one", norm, {held[leaf]: ones})


def _is_of(name: str, module: str) -> bool:
    return name.rpartition(".")[0] == module


def _differs(changed: Array, array: Array) -> bool:
    return changed.tobytes() != array.tobytes()


def _mutant(kind: str, place: str, changed: Changed) -> Mutant:
    def plant(artefact: Artefact) -> None:
        for name, array in changed.items():
            artefact.replace(name, array)

    return Mutant(kind, place, plant, in_weights=True)


def _bias(kernel: str) -> str:
    if kernel.endswith(_FOLDED):
        return kernel.removesuffix(_FOLDED) + ".folded_bias"
    if kernel.endswith(_KERNEL):
        return kernel.removesuffix(_KERNEL) + ".normalization.bias"
    return kernel.removesuffix("weight") + "bias"


def _stale(weights: Weights, module: str, _: np.random.Generator) -> Changed:
    mean = weights.norm(module, "running_mean")
    return weights.with_norm(
        module, running_mean=np.zeros_like(mean), running_var=np.ones_like(mean)
    )


def _of_another(weights: Weights, module: str, _: np.random.Generator) -> Changed:
    """The statistics of the next batch norm of the same width."""
    other = next_alike(weights.modules(), module, lambda name: weights.norm(name, "bias").shape)
    if other is None:
        return {}
    mean, variance = (weights.norm(other, leaf) for leaf in ("running_mean", "running_var"))
    return weights.with_norm(module, running_mean=mean, running_var=variance)


def _deviation(weights: Weights, module: str, _: np.random.Generator) -> Changed:
    return weights.with_norm(module, running_var=np.sqrt(weights.norm(module, "running_var")))


def _weight_for_bias(weights: Weights, module: str, _: np.random.Generator) -> Changed:
    weight, bias = weights.norm(module, "weight"), weights.norm(module, "bias")
    return weights.with_norm(module, weight=bias, bias=weight)


def _folded_with(weights: Weights, module: str, _: np.random.Generator, eps: float) -> Changed:
    return weights.fold(module, np.float64, eps) if weights.folded else {}


def _folded_in_float32(weights: Weights, module: str, _: np.random.Generator) -> Changed:
    return weights.fold(module, np.float32, weights.norms[module].eps) if weights.folded else {}


def _not_folded(weights: Weights, module: str, _: np.random.Generator) -> Changed:
    if not weights.folded:
        return {}
    kernel = np.asarray(weights.folder.array(module + _KERNEL))
    return {module + _FOLDED: kernel, f"{module}.folded_bias": np.zeros(len(kernel), np.float32)}


def _groups_permuted(weights: Weights, module: str, _: np.random.Generator) -> Changed:
    """Every group computes what its neighbour should."""
    operations = weights.folder.architecture.operations
    layers = {step.around: step for step in operations if isinstance(step, Conv)}
    layer = layers[module]
    if layer.groups == 1:
        return {}
    name = module + (_FOLDED if weights.folded else _KERNEL)
    width = layer.slots[0].shape[0] // layer.groups
    return {name: np.roll(weights.artefact.array(name), width, axis=0)}


def _counted(weights: Weights, module: str, _: np.random.Generator) -> Changed:
    name = f"{weights.norms[module].name}.num_batches_tracked"
    if name not in weights.artefact.names():
        return {}
    return {name: weights.artefact.array(name) + 1}


_OTHER_EPSILONS: dict[str, ModuleChange] = {
    "folded with an epsilon of 1e-3": partial(_folded_with, eps=1e-3),
    "folded with an epsilon of 2e-5": partial(_folded_with, eps=2e-5),
}

_MODULE_CHANGES: dict[str, ModuleChange] = {
    "stale batch norm (mean 0, variance 1)": _stale,
    "batch norm statistics of another layer": _of_another,
    "variance taken for deviation": _deviation,
    "batch norm weight and bias exchanged": _weight_for_bias,
    "batch norm not folded": _not_folded,
    "folded in float32": _folded_in_float32,
    **_OTHER_EPSILONS,
    "groups permuted": _groups_permuted,
    "batch counter off by one": _counted,
}
"""The last changes no output; but training would go on from it, and the archive promises the
source's state dict."""


def _swaps(weights: Weights, count: int, random: np.random.Generator) -> Iterator[Mutant]:
    """Two kernels of equal shape in each other's place."""
    kernels, array = weights.kernels(), weights.artefact.array
    pairs = [(name, next_alike(kernels, name, lambda n: array(n).shape)) for name in kernels]
    for first, second in spread([pair for pair in pairs if pair[1]], count, random):
        if second:
            swapped = {first: array(second), second: array(first)}
            yield _mutant("two kernels of equal shape swapped", f"{first}, {second}", swapped)


def _whole(weights: Weights, random: np.random.Generator) -> Iterator[Mutant]:
    """Faults with a place of their own: the stem, the classifier, everywhere."""
    array = weights.artefact.array
    stem = next(name for name in weights.kernels() if _STEM in name)
    yield _mutant("BGR stem", stem, {stem: array(stem)[:, ::-1]})
    if weights.folded:
        for kind in ("folded in float32", *_OTHER_EPSILONS):
            change = _MODULE_CHANGES[kind]
            folds = (change(weights, module, random) for module in weights.modules())
            everywhere = {name: value for fold in folds for name, value in fold.items()}
            yield _mutant(kind, "everywhere", everywhere)
    if not weights.folder.has_classifier:
        return
    names = [f"{CLASSIFIER}.{leaf}" for leaf in ("weight", "bias")]
    order = random.permutation(len(array(names[1])))
    orders = {
        "classes permuted": order,
        "classes reversed": np.arange(len(order))[::-1],
        "classes off by one": np.roll(np.arange(len(order)), 1),
    }
    for kind, ordered in orders.items():
        yield _mutant(kind, CLASSIFIER, {name: array(name)[ordered] for name in names})
    yield _mutant("classifier bias lost", CLASSIFIER, {names[1]: np.zeros_like(array(names[1]))})
