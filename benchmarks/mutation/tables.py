"""What became of the mutants, as the Markdown of docs/mutation.md."""

from __future__ import annotations

from typing import TYPE_CHECKING

from benchmarks.mutation.contenders import Notice
from benchmarks.mutation.folders import EXPLAINED

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from benchmarks.mutation.equivalents import Shown
    from benchmarks.mutation.judging import Outcome

TARGET = 0.995
"""Share of the mutants that the whole verdict is meant to kill."""

_HEAD = """\
| fault | mutants | numbers | + tensors | + structure | ONNX mutants | optimum | torch.onnx |
|---|---|---|---|---|---|---|---|"""


def kinds_table(outcomes: Sequence[Outcome]) -> Iterator[str]:
    """A row for each kind, then the totals."""
    yield _HEAD
    by_kind: dict[str, list[Outcome]] = {}
    for outcome in outcomes:
        by_kind.setdefault(outcome.kind, []).append(outcome)
    for kind, found in by_kind.items():
        yield _row(kind, found)
    yield _row("**all**", outcomes)


def _row(title: str, outcomes: Sequence[Outcome]) -> str:
    onnx = [outcome for outcome in outcomes if outcome.optimum is not None]
    counts = (
        len(outcomes),
        sum(outcome.numbers for outcome in outcomes),
        sum(outcome.numbers or outcome.tensors for outcome in outcomes),
        sum(outcome.killed for outcome in outcomes),
        len(onnx),
        sum(outcome.optimum != Notice.NOTHING for outcome in onnx),
        sum(outcome.torch_onnx != Notice.NOTHING for outcome in onnx),
    )
    return f"| {title} | {' | '.join(map(str, counts))} |"


def forms_table(outcomes: Sequence[Outcome]) -> Iterator[str]:
    """A row for each form of artefact and network."""
    yield "| form | network | mutants | numbers | + tensors | + structure |"
    yield "|---|---|---|---|---|---|"
    by_place: dict[tuple[str, str], list[Outcome]] = {}
    for outcome in outcomes:
        by_place.setdefault((outcome.form, outcome.subject), []).append(outcome)
    for (form, subject), found in by_place.items():
        numbers = sum(outcome.numbers for outcome in found)
        tensors = sum(outcome.numbers or outcome.tensors for outcome in found)
        killed = sum(outcome.killed for outcome in found)
        yield f"| {form} | {subject} | {len(found)} | {numbers} | {tensors} | {killed} |"


def totals(outcomes: Sequence[Outcome], right: Sequence[Outcome]) -> Iterator[str]:
    """The kill rates in words, and whether the target is met.

    Args:
        outcomes: Of the mutants.
        right: Of the right artefacts; where a rule rejects one, what it says of others is worth
            nothing.
    """
    killed = sum(outcome.killed for outcome in outcomes)
    without = sum(outcome.numbers or outcome.tensors for outcome in outcomes)
    rate = killed / len(outcomes)
    met = "met" if rate >= TARGET else "not met"
    yield f"{killed} of {len(outcomes)} mutants killed, {rate:.2%}; target {TARGET:.1%}: {met}."
    yield (
        f"{without} of them, {without / len(outcomes):.2%}, by numbers and tensors alone, which "
        "do not ask what the exporter writes."
    )
    onnx = [outcome for outcome in outcomes if outcome.optimum is not None]
    yield f"Of {len(onnx)} ONNX mutants:\n"
    for title, rule in (("optimum's rule", "optimum"), ("torch.onnx's", "torch_onnx")):
        notices = [getattr(outcome, rule) for outcome in onnx]
        quiet = {
            (each.subject, each.form) for each in right if getattr(each, rule) == Notice.NOTHING
        }
        fair = [
            getattr(outcome, rule) != Notice.NOTHING
            for outcome in onnx
            if (outcome.subject, outcome.form) in quiet
        ]
        yield (
            f"- {title} says something of {len(notices) - notices.count(Notice.NOTHING)}, of "
            f"{sum(fair)} of the {len(fair)} whose right artefact it says nothing of; the command "
            f"fails for {notices.count(Notice.STOP)}."
        )


def survivors(outcomes: Iterable[Outcome]) -> Iterator[str]:
    """By kind, where they are and the reason that the code gives."""
    by_kind: dict[str, list[Outcome]] = {}
    for outcome in outcomes:
        if not outcome.killed:
            by_kind.setdefault(f"{outcome.kind} ({outcome.form})", []).append(outcome)
    for kind, found in by_kind.items():
        names = "; ".join(dict.fromkeys(outcome.subject for outcome in found))
        yield f"- {kind}, in {names}: {explanation(found[0]) or 'UNEXPLAINED'}."


def explanation(outcome: Outcome) -> str | None:
    """Why a mutant may survive; None if it must not."""
    if outcome.form.endswith("int8") and outcome.kind == "folded in float32":
        return (
            "a weight lies in the middle of two steps to within their own rounding, so the "
            "certificate takes either integer for its nearest"
        )
    if outcome.form != "folder, exported again":
        return None
    return next((why for start, why in EXPLAINED.items() if outcome.kind.startswith(start)), None)


def equivalents_table(shown: Sequence[Shown]) -> Iterator[str]:
    """A row for each change that is no fault."""
    yield "| change that is no fault | why | planted | same bits | numbers | whole verdict |"
    yield "|---|---|---|---|---|---|"
    for title in dict.fromkeys(each.title for each in shown):
        found = [each for each in shown if each.title == title]
        identical, numbers, passed = (
            sum(getattr(each, name) for each in found)
            for name in ("identical", "numbers", "passed")
        )
        whole = f"{passed} pass" if found[0].holds else f"{passed} pass, other weights"
        reason = found[0].reason
        yield f"| {title} | {reason} | {len(found)} | {identical} | {numbers} pass | {whole} |"


def alarms_table(right: Sequence[Outcome]) -> Iterator[str]:
    """How many right artefacts each rule rejects, by network."""
    yield "| right artefacts of | how many | ours rejects | ONNX | optimum | torch.onnx |"
    yield "|---|---|---|---|---|---|"
    for name in dict.fromkeys(outcome.subject for outcome in right):
        found = [outcome for outcome in right if outcome.subject == name]
        onnx = [outcome for outcome in found if outcome.optimum is not None]
        counts = (
            len(found),
            sum(outcome.killed for outcome in found),
            len(onnx),
            sum(outcome.optimum != Notice.NOTHING for outcome in onnx),
            sum(outcome.torch_onnx != Notice.NOTHING for outcome in onnx),
        )
        yield f"| {name} | {' | '.join(map(str, counts))} |"
