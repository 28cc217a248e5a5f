"""Recognising and planning a checkpoint, from headers alone."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from converters.checkpoint import open_any
from converters.errors import InputError, first, printable
from converters.families.family import Found
from converters.families.known import FAMILIES
from converters.families.labels import names_in
from converters.families.manifest import named_file, network_like
from converters.families.normalising import normalised
from converters.families.recognise import refusal
from converters.families.source import Decision
from converters.families.unnamed import averages_in
from converters.families.wrapping import all_tensors, find_state_dicts
from converters.weights.plan import make_plan
from regnet.config import RegNetConfig
from regnet.files.dtypes import DEFAULT

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from converters.checkpoint import Checkpoint
    from converters.families.options import SourceOptions
    from converters.families.source import Source, StateDict
    from converters.weights.plan import Plan
    from regnet.files.dtypes import DType


UNFIT = (ArithmeticError, AttributeError, LookupError, TypeError, ValueError)
"""What Python raises where a value is of another type or size than a framework writes."""


@dataclass(frozen=True)
class Inspection:
    """What is known of a checkpoint before a weight is read.

    Attributes:
        path: The file or folder.
        files: The files that hold the weights.
        container: ``zip``, ``legacy``, ``safetensors``, ``onnx``, ``torchscript`` or ``folder``.
        size: Of the files, in bytes.
        source: Framework, architecture, decisions.
        plan: What a conversion would do.
    """

    path: Path
    files: tuple[Path, ...]
    container: str
    size: int
    source: Source
    plan: Plan

    @property
    def network_name(self) -> str | None:
        """The published network with this architecture, or None."""
        return network_like(self.source.config)

    def output_config(self, labels: Sequence[str] | None = None) -> RegNetConfig:
        """The converted folder's ``config.json``, with these names of its classes if any are given.

        Raises:
            InputError: If there are more or fewer labels than classes, or two are equal.
        """
        source = self.source
        fields = source.config.to_dict()
        kind = source.config.architecture_name(classifier=source.has_classifier)
        fields |= {"architectures": [kind], "dtype": self.plan.dtype}
        if labels is None:
            labels = source.labels if source.has_classifier else None
        else:
            classes = source.config.num_labels if source.has_classifier else 0
            if len(labels) != classes or len(set(labels)) != classes:
                raise InputError(
                    f"The labels are {len(set(labels))} different names where {self.path.name} "
                    f"has {classes} classes; give one name per class, in the order of the classes."
                )
        if labels is not None:
            fields |= {"id2label": dict(enumerate(labels)), "label2id": None}
        return RegNetConfig.from_dict(fields)


@contextmanager
def inspected(
    path: Path, options: SourceOptions, dtype: DType | None = None
) -> Iterator[tuple[Checkpoint, Inspection]]:
    """Open, recognise and plan a checkpoint; it stays open inside the block.

    Args:
        path: The file.
        options: What the user decided.
        dtype: What to store the weights in; None is float32.

    Raises:
        InputError: If it cannot be used.
        UnsafeInputError: If it would run code.
        StorageError: If it cannot be read.
    """
    with open_any(path) as checkpoint:
        states = _states(checkpoint, options.framework)
        source = _labelled(_read(checkpoint, states, options), checkpoint)
        asked_order = options.channel_order
        if options.published:
            source = options.published.describe(source, asked_order)
        elif path.is_file():
            says_all = FAMILIES[source.family].family.states_evaluation
            has_words = bool(states[0].path) and says_all
            source = named_file(path.name, source, asked_order, has_words=has_words) or source
        source = normalised(source, checkpoint)
        source = replace(source, skipped={**source.skipped, **checkpoint.beside.ignored})
        source = source.decided(*_module_decisions(checkpoint))
        plan = make_plan(source, path.name, dtype or DEFAULT)
        source = replace(source, decisions=source.decisions + _dtype_decisions(plan, dtype))
        files, container = tuple(checkpoint.stamps), checkpoint.container
        yield checkpoint, Inspection(path, files, container, checkpoint.size, source, plan)


def _module_decisions(checkpoint: Checkpoint) -> tuple[Decision, ...]:
    """What was pickled whole instead of a state dict."""
    reason = "pickled whole; its parameters and buffers were read, and its code was not run"
    classes = {printable(name): None for name in checkpoint.modules.values()}
    return (Decision("module", first(list(classes)), reason),) if classes else ()


def _dtype_decisions(plan: Plan, asked: DType | None) -> tuple[Decision, ...]:
    """What weights are cast to, and why; nothing where the source stores them so already."""
    stored = " and ".join(plan.cast_from)
    if not stored:
        return ()
    reason = "as asked for with --dtype" if asked else "the default; --dtype chooses another"
    return (Decision("dtype", f"{plan.dtype}, cast from {stored}", reason),)


def _read(checkpoint: Checkpoint, states: list[StateDict], options: SourceOptions) -> Source:
    """Have the framework's reader find out all that the checkpoint says.

    What stands beside the tensors may be of any type; a reader takes it to be what its framework
    writes.
    """
    family = FAMILIES[states[0].framework].family
    try:
        return family.read(Found(family, checkpoint, states, options))
    except UNFIT as error:
        raise InputError(
            f"{checkpoint.path.name} is not as {family.title} writes it "
            f"({str(error).rstrip('.')}); give the file or folder that the training run saved."
        ) from error


def _labelled(source: Source, checkpoint: Checkpoint) -> Source:
    """The source with the names of classes that any trainer saved beside the weights."""
    found = names_in(checkpoint.tree, source.config.num_labels) if source.has_classifier else None
    if found is None or source.labels is not None:
        return source
    names, place = found
    return source.labelled(names, f"the file's {place}")


def _states(checkpoint: Checkpoint, framework: str | None) -> list[StateDict]:
    """The RegNets in a checkpoint, of the framework asked for, else of the only one."""
    if checkpoint.graph is not None:
        from converters.families.exported import graph_state  # knows every exporter's dialect

        found = [graph_state(checkpoint)]
    else:
        found = find_state_dicts(checkpoint.tree)
    wanted = framework or (found[0].framework if found else None)
    states = [state for state in found if state.framework == wanted]
    if not states:
        tensors = all_tensors(checkpoint.tree)
        if not tensors and any(averages_in(checkpoint.tree)):
            raise InputError(
                f"{checkpoint.path.name} holds averaged weights without names; give the file that "
                "holds the network's state_dict() beside them."
            )
        raise refusal(framework, found, tensors, checkpoint.path.name)
    if len(states) < len(found) and not framework:
        places = ", ".join(f"{state.framework}'s at {state.place}" for state in found)
        raise InputError(
            f"{checkpoint.path.name} holds networks of several frameworks ({places}); choose one "
            "with --from."
        )
    return states
