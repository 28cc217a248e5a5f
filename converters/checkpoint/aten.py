"""ATen's operators as nodes of a graph, whichever front end found them: torch.export, TorchScript.

A front end makes one :class:`AtenNodes`, calls :meth:`~AtenNodes.add` for each operation in the
order of computation, with its arguments in order or by name, and :meth:`~AtenNodes.finish` in the
end. It gives the nodes that `converters.families.graph_aten` reads:

- ``domain`` is ``aten`` and ``op`` the name without overload: ``add.Tensor`` is ``add``.
- ``inputs`` are the arguments that the schema has as tensors, in its order, ``""`` for those that
  are None, left out, or a number.
- Sizes are computed in the domain ``_operator``, Python's, of ``a`` and ``b``, as torch.export has
  it.
- ``attributes`` are all others by the schema's names, those alone that were given; also ``other``
  where it is a number. A list with a size that is computed holds that value's name as a text, so
  sizes alone are lists of texts; types and layouts are texts as torch names them ("float32").
- What writes in place (``relu_``, ``add_``) is the plain operator, because whoever reads what was
  overwritten afterwards, under any of its names, is refused.

Source of the schemas: ``aten/src/ATen/native/native_functions.yaml`` of torch 2.13, whose order of
arguments has not changed since 1.4.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from converters.checkpoint.graph import Attribute, Node
from converters.errors import InputError, printable

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

DOMAIN = "aten"

ON_SIZES = "_operator"
"""The domain of what is computed of sizes."""


@dataclass(frozen=True, slots=True)
class Named:
    """An argument that is a value or constant of the graph.

    Attributes:
        name: Its.
    """

    name: str


Argument = Named | Attribute

_NORM = ("input", "weight", "bias", "running_mean", "running_var")
_CONV = ("input", "weight", "bias")
_CONVOLUTION = ("stride", "padding", "dilation", "transposed", "output_padding", "groups")
_AVERAGE = (
    "kernel_size",
    "stride",
    "padding",
    "ceil_mode",
    "count_include_pad",
    "divisor_override",
)
_TO = ("pin_memory", "non_blocking", "memory_format")
_BACKENDS = ("benchmark", "deterministic", "cudnn_enabled", "allow_tf32")

SIGNATURES: Mapping[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "_adaptive_avg_pool2d": (("self",), ("output_size",)),
    "_convolution": (_CONV, _CONVOLUTION + _BACKENDS),
    "_native_batch_norm_legit": (_NORM, ("training", "momentum", "eps")),
    "_native_batch_norm_legit_no_training": (_NORM, ("momentum", "eps")),
    "_to_copy": (("self",), ("dtype", "layout", "device", *_TO)),
    "_unsafe_view": (("self",), ("size",)),
    "adaptive_avg_pool2d": (("self",), ("output_size",)),
    "add": (("self", "other"), ("alpha",)),
    "addmm": (("self", "mat1", "mat2"), ("beta", "alpha")),
    "alias": (("self",), ()),
    "avg_pool2d": (("self",), _AVERAGE),
    "batch_norm": (_NORM, ("training", "momentum", "eps", "cudnn_enabled")),
    "clone": (("self",), ("memory_format",)),
    "constant_pad_nd": (("self",), ("pad", "value")),
    "contiguous": (("self",), ("memory_format",)),
    "conv2d": (_CONV, ("stride", "padding", "dilation", "groups")),
    "convolution": (_CONV, _CONVOLUTION),
    "cudnn_batch_norm": (_NORM, ("training", "exponential_average_factor", "epsilon")),
    "detach": (("self",), ()),
    "div": (("self", "other"), ("rounding_mode",)),
    "dropout": (("input",), ("p", "train")),
    "elu": (("self",), ("alpha", "scale", "input_scale")),
    "erf": (("self",), ()),
    "expand": (("self",), ("size", "implicit")),
    "expand_as": (("self", "other"), ()),
    "flatten": (("self",), ("start_dim", "end_dim")),
    "gelu": (("self",), ("approximate",)),
    "group_norm": (_CONV, ("num_groups", "eps", "cudnn_enabled")),
    "linear": (("input", "weight", "bias"), ()),
    "matmul": (("self", "other"), ()),
    "mean": (("self",), ("dim", "keepdim", "dtype")),
    "mm": (("self", "mat2"), ()),
    "mul": (("self", "other"), ()),
    "native_batch_norm": (_NORM, ("training", "momentum", "eps")),
    "native_group_norm": (_CONV, ("N", "C", "HxW", "group", "eps")),
    "pad": (("self",), ("pad", "mode", "value")),
    "permute": (("self",), ("dims",)),
    "pow": (("self",), ("exponent",)),
    "reciprocal": (("self",), ()),
    "relu": (("self",), ()),
    "replication_pad2d": (("self",), ("padding",)),
    "reshape": (("self",), ("shape",)),
    "rsqrt": (("self",), ()),
    "selu": (("self",), ()),
    "sigmoid": (("self",), ()),
    "silu": (("self",), ()),
    "sqrt": (("self",), ()),
    "squeeze": (("self",), ("dim",)),
    "sub": (("self", "other"), ("alpha",)),
    "sym_size": (("self",), ("dim",)),
    "t": (("self",), ()),
    "tanh": (("self",), ()),
    "to": (("self",), ("dtype", "non_blocking", "copy", "memory_format")),
    "transpose": (("self",), ("dim0", "dim1")),
    "unflatten": (("self",), ("dim", "sizes")),
    "unsqueeze": (("self",), ("dim",)),
    "var": (("self",), ("dim", "unbiased", "keepdim")),
    "view": (("self",), ("size",)),
}
"""Of each operator that networks of images use: the arguments that are tensors, then the others, in
the schema's order, as which calls may give them."""

_ORDER = {"group_norm": ("input", "num_groups", "weight", "bias", "eps", "cudnn_enabled")}
"""The schema's order of all arguments where tensors do not come first."""

_CHECKS = {"_assert_tensor_metadata"}
"""Operators that refuse what is of another type, and compute nothing."""

_VIEWS = {
    "_unsafe_view",
    "alias",
    "contiguous",
    "detach",
    "dropout",
    "expand",
    "expand_as",
    "flatten",
    "permute",
    "reshape",
    "squeeze",
    "t",
    "to",
    "transpose",
    "unflatten",
    "unsqueeze",
    "view",
}
"""Of these, those whose result may be the memory of what they read."""


class AtenNodes:
    """Collects the operations of a graph in the order of computation.

    Args:
        where: What messages call the file.
        given: Names of the constants and inputs of the graph, which nothing may overwrite.
    """

    def __init__(self, where: str, given: Iterable[str]) -> None:
        self._where = where
        self._nodes: list[Node] = []
        self._given = frozenset(given)
        self._memory = {name: name for name in self._given}
        self._names: dict[str, list[str]] = defaultdict(list)
        self._overwritten: dict[str, str] = {}

    def add(
        self,
        name: str,
        operator: str,
        arguments: Sequence[Argument] | Mapping[str, Argument],
        outputs: Sequence[str],
    ) -> None:
        """Append an operation.

        Args:
            name: Its own; may be empty.
            operator: With its domain, as ``aten::add_.Tensor`` or ``aten.add_.Tensor``.
            arguments: In the order of the schema, or by its names.
            outputs: Names of the values that it makes, "" for those without one.

        Raises:
            InputError: If it reads what another one has overwritten, overwrites what is given to
                the graph, or has more arguments than are known; it is named.
        """
        domain, _, spelled = operator.replace("::", ".", 1).partition(".")
        op = spelled.partition(".")[0]
        if domain == DOMAIN and op in _CHECKS:
            return
        writes = domain == DOMAIN and op.endswith("_") and op.removesuffix("_") in SIGNATURES
        if writes:
            op = op.removesuffix("_")
        tensors = SIGNATURES.get(op, ((), ()))[0] if domain == DOMAIN else ()
        if not isinstance(arguments, Mapping):
            count, known = len(arguments), argument_names(op if domain == DOMAIN else "")
            if len(known) < count:
                known += tuple(f"argument {index}" for index in range(len(known), count))
            arguments = dict(zip(known, arguments, strict=False))
        inputs = [_name_of(arguments.get(tensor)) for tensor in tensors]
        attributes: dict[str, Attribute] = {}
        for key, value in arguments.items():
            if not isinstance(value, Named):
                if value is not None or key not in tensors:
                    attributes[key] = value
            elif op in SIGNATURES and key not in tensors:
                attributes[key] = f"the value {value.name}"  # which no handler takes
            elif key not in tensors:
                inputs.append(value.name)
        node = Node(name, op, domain, tuple(inputs), tuple(outputs), attributes)
        self._follow(node, writes=writes)
        self._nodes.append(node)

    def finish(self, outputs: Iterable[str]) -> tuple[Node, ...]:
        """The nodes.

        Args:
            outputs: Names of the values that the graph gives.

        Raises:
            InputError: If one of those was overwritten before.
        """
        given = tuple(outputs)
        for name in given:
            self._require_fresh(Node("", "output", "", given, ()), name)
        return tuple(self._nodes)

    def _follow(self, node: Node, *, writes: bool) -> None:
        """Which memory a node reads and writes, and that nothing it reads was overwritten."""
        for name in node.inputs:
            self._require_fresh(node, name)
        memory = ""
        if node.inputs and (writes or node.op in _VIEWS):
            memory = self._memory.get(node.inputs[0], "")
        if writes:
            if memory in self._given:
                raise self._unfit(node, f"overwrites '{printable(memory)}'")
            self._overwritten |= dict.fromkeys(self._names.pop(memory, ()), node.label)
        for name in filter(None, node.outputs):
            self._memory[name] = memory or name
            self._names[memory or name].append(name)

    def _require_fresh(self, node: Node, name: str) -> None:
        if name in self._overwritten:
            raise self._unfit(
                node, f"reads '{printable(name)}', which {self._overwritten[name]} has overwritten"
            )

    def _unfit(self, node: Node, what: str) -> InputError:
        return InputError(
            f"{self._where}: its node {node.label} {what}; export an unmodified RegNet, or name "
            "the checkpoint it was made from."
        )


def argument_names(op: str) -> tuple[str, ...]:
    """Of an operator's arguments, in the schema's order; of one that is not known, none."""
    tensors, others = SIGNATURES.get(op, ((), ()))
    return _ORDER.get(op, (*tensors, *others))


def _name_of(argument: Argument) -> str:
    return argument.name if isinstance(argument, Named) else ""
