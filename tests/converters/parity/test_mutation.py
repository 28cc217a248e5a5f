"""The checker is checked: what is planted on purpose is found, and what is no fault passes.

One small network here; ``python -m benchmarks.mutation`` does it for all.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from benchmarks.mutation import tables
from benchmarks.mutation.artefact import OnnxArtefact
from benchmarks.mutation.contenders import Notice, optimum_rule, torch_onnx_rule
from benchmarks.mutation.coreml import WIDER_OPERATION_FAULTS
from benchmarks.mutation.equivalents import EQUIVALENTS, shown
from benchmarks.mutation.folders import EXPLAINED, folder_outcomes
from benchmarks.mutation.graphs import MODEL_FAULTS, NODE_FAULTS, WIDER_NODE_FAULTS
from benchmarks.mutation.judging import Outcome, mutants, outcomes
from benchmarks.mutation.litert import OPERATOR_FAULTS
from benchmarks.mutation.mutant import spread
from benchmarks.mutation.ncnn import LAYER_FAULTS, WIDER_LAYER_FAULTS
from benchmarks.mutation.scripts import (
    CODE_FAULTS,
    CONVOLUTION_FAULTS,
    WIDER_CODE_FAULTS,
    replace_code,
)
from benchmarks.mutation.subjects import DEAD, FORMS, WIDER, Subject
from converters.parity.contents.written import NOT_WRITTEN
from tests.converters.parity.networks import OPENS_COREML

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    SubjectOf = Callable[[str], Subject]

BELOW_ROUNDING = {
    "kernel one lowest mantissa bit flipped",
    "kernel one middle mantissa bit flipped",
    "bias of one channel one ulp off",
    "folded in float32",
}
"""What float32 itself does as badly, so that no output can tell."""

WITHOUT_EFFECT_HERE = {"ReLU clipped at float16's largest", "batch counter off by one"}
"""What no input of ours shows: no activation is as large, and counters count in training alone."""

IN_INTEGERS = ("ONNX, int8", "LiteRT, int8")
"""Forms whose numbers cannot tell a step from none: there the certificate must."""

OF_INTEGERS = {
    *("one integer one more", "a bias one step more", "one size of steps for all channels"),
    *("1 % larger steps, and all that depends on them", "kernel 1 % larger"),
    *("a grid's zero in the middle", "a grid that ends at nine tenths of the range"),
    *("a grid of 1 % larger steps", "hard sigmoid for the gate", "mean of rows alone"),
}

SAMPLED: dict[str, set[str]] = {
    "Core ML": {
        *("kernel one lowest mantissa bit flipped", "bias of another layer", "ELU for ReLU"),
        *("values rounded to float16", "shortcut from before the activation", "fixed size"),
    },
    "ONNX, int8": OF_INTEGERS,
    "LiteRT, int8": OF_INTEGERS,
}
"""Forms that take their time, and what is planted in them in any case."""


def opened(forms: Iterable[str]) -> list[Any]:
    """Parameters of a test that plants something in forms."""
    return [pytest.param(form, marks=OPENS_COREML if form == "Core ML" else ()) for form in forms]


QUICK = [
    pytest.param(*each.values, marks=[*each.marks, *[pytest.mark.slow] * (form in SAMPLED)])
    for form, each in zip(FORMS, opened(FORMS), strict=True)
]

CANNOT_RUN = {
    *("one group more", "fixed batch", "fixed size", "dilated", "SAME for VALID"),
    *("output under another name", "an operation that nobody knows", "kernel stored in float16"),
    *("mean of channels", "mean without its axes", "a zero that is not 0"),
    *("kernel one highest exponent bit flipped",),
    *("a grid's zero at the other end", "a grid's zero 16 steps higher"),
    "a grid's zero in the middle",
}
"""What needs no judge: the runtime refuses it."""


@pytest.fixture(scope="module")
def subject_of(tmp_path_factory: pytest.TempPathFactory) -> SubjectOf:
    subjects: dict[str, Subject] = {}

    def build(name: str) -> Subject:
        if name not in subjects:
            subjects[name] = Subject.build(name, tmp_path_factory.mktemp("subject") / "folder")
        return subjects[name]

    return build


@pytest.fixture(scope="module")
def found_in(subject_of: SubjectOf) -> Callable[[str], list[Outcome]]:
    """Every kind of fault in one place of an artefact."""
    return cache(lambda form: list(outcomes(subject_of("Y"), form, 1, seed=1)))


@pytest.mark.parametrize("form", QUICK)
def test_every_mutant_is_killed(form: str, found_in: Callable[[str], list[Outcome]]) -> None:
    assert len(found_in(form)) > 50
    assert [outcome for outcome in found_in(form) if not outcome.killed] == []


@pytest.mark.parametrize("form", opened(SAMPLED))
def test_what_numbers_hardly_show_is_killed(form: str, subject_of: SubjectOf) -> None:
    found = list(outcomes(subject_of("Y"), form, 1, 0, SAMPLED[form]))
    assert len({outcome.kind for outcome in found}) >= len(SAMPLED[form]) - 2
    assert [outcome for outcome in found if not outcome.killed] == []
    assert any(not outcome.numbers for outcome in found)


@pytest.mark.parametrize("form", QUICK)
def test_numbers_alone_kill_all_that_rounding_does_not_hide(
    form: str, found_in: Callable[[str], list[Outcome]]
) -> None:
    lives = {outcome.kind for outcome in found_in(form) if not outcome.numbers}
    if form == "Core ML":  # one value in float16 makes it an artefact of float16
        lives -= {"values rounded to float16", "fixed size"}
    if form not in IN_INTEGERS:
        assert lives <= BELOW_ROUNDING | WITHOUT_EFFECT_HERE


@pytest.mark.parametrize("form", QUICK)
def test_hardly_a_mutant_dies_of_being_refused(
    form: str, found_in: Callable[[str], list[Outcome]]
) -> None:
    refused = {outcome.kind for outcome in found_in(form) if "cannot be run" in outcome.reason}
    assert refused <= CANNOT_RUN


def test_every_kind_of_fault_has_a_place(found_in: Callable[[str], list[Outcome]]) -> None:
    """But those that need another network: of another activation, or without a classifier."""
    kinds = {
        form: {outcome.kind for outcome in found_in(form)} for form in FORMS if form not in SAMPLED
    }
    elsewhere = {"hard sigmoid in a SiLU", "tanh for erf in a GELU", "outputs exchanged"}
    assert {*NODE_FAULTS, *MODEL_FAULTS} - set().union(*kinds.values()) <= elsewhere
    assert {*CODE_FAULTS, *CONVOLUTION_FAULTS} - kinds["TorchScript"] <= elsewhere
    assert {*OPERATOR_FAULTS} - kinds["LiteRT"] == {"pixels left out of an average"}
    no_faults = {"not flat", "ReLU part of a convolution"}  # where they change no output
    assert {*LAYER_FAULTS} - kinds["ncnn"] <= elsewhere | no_faults


@pytest.mark.slow
def test_every_mutant_of_networks_that_transformers_does_not_have_is_killed(
    subject_of: SubjectOf,
) -> None:
    found = [
        outcome
        for name in WIDER
        for form in FORMS
        for outcome in outcomes(subject_of(name), form, 1, seed=1)
    ]
    assert [outcome for outcome in found if not outcome.killed] == []
    planted = {outcome.kind for outcome in found}
    assert {*WIDER_NODE_FAULTS, *WIDER_CODE_FAULTS, "pixels left out of an average"} <= planted
    assert {*WIDER_LAYER_FAULTS, *WIDER_OPERATION_FAULTS} <= planted


@pytest.mark.parametrize("name", WIDER)
@pytest.mark.parametrize("form", FORMS)
def test_right_artefacts_of_such_networks_pass(name: str, form: str, subject_of: SubjectOf) -> None:
    subject = subject_of(name)
    assert subject.verdict(form, subject.right[form]).passed


def test_a_folder_with_a_fault_fails_without_any_checksum(
    subject_of: SubjectOf, tmp_path: Path
) -> None:
    kinds = ("config.json", "weights: BGR", "weights: middle", "preprocessor_config.json")
    found = list(folder_outcomes(subject_of("Y"), tmp_path / "copy", kinds))
    lives = [outcome for outcome in found if not outcome.killed]
    assert {outcome.form for outcome in lives} == {"folder, exported again"}
    assert all(map(tables.explanation, lives))
    assert {outcome.kind.split(":")[0] for outcome in lives} <= {
        start.split(":")[0] for start in EXPLAINED
    }


@pytest.mark.parametrize("name", ["Y", DEAD])
@pytest.mark.parametrize("form", opened(FORMS))
def test_what_is_no_fault_is_shown_to_be_none_and_passes(
    name: str, form: str, subject_of: SubjectOf
) -> None:
    found = list(shown(subject_of(name), form))
    assert [each for each in found if not each.right] == []
    expected = {title for title, each in EQUIVALENTS.items() if form in each.forms}
    if name != DEAD:
        expected -= {"zeros negated"}
    assert {each.title for each in found} == expected


def test_a_change_without_effect_is_named_under_our_own_mark(subject_of: SubjectOf) -> None:
    subject = subject_of("Y")
    artefact = subject.artefact("ONNX")
    assert isinstance(artefact, OnnxArtefact)
    NODE_FAULTS["ReLU clipped at float16's largest"][1](
        artefact.model, next(node for node in artefact.model.graph.node if node.op_type == "Relu")
    )
    path = subject.planted("ONNX")
    artefact.save(path)
    tensors = subject.verdict("ONNX", path).tensors
    assert tensors
    (name, *scalars) = (clause.removesuffix(f" is {NOT_WRITTEN}") for clause in tensors.wrong)
    assert name == "the node regnet.embedder.embedder.activation"
    assert len(scalars) == 2
    assert all(scalar.startswith(f"{name}.scalar") for scalar in scalars)


def test_code_that_is_not_ours_under_our_mark_is_named(subject_of: SubjectOf) -> None:
    subject = subject_of("Y")
    artefact = subject.artefact("TorchScript")
    replace_code(artefact, "1e-05", "0.00001")
    path = subject.planted("TorchScript")
    artefact.save(path)
    tensors = subject.verdict("TorchScript", path).tensors
    assert tensors
    assert tensors.wrong == (f"its code/__torch__/regnet.py is {NOT_WRITTEN}",)


def _logits(*values: float) -> dict[str, Any]:
    return {"logits": np.array([values], np.float32)}


@pytest.mark.parametrize(
    ("outputs", "optimum", "torch_onnx"),
    [
        (_logits(1, 2), Notice.NOTHING, False),
        (_logits(1.00001, 2), Notice.NOTHING, False),  # atol, and a relative 1e-5 on top
        (_logits(1.001, 2), Notice.MESSAGE, False),
        (_logits(1.006, 2), Notice.MESSAGE, True),
        (_logits(np.nan, np.nan), Notice.MESSAGE, False),
        ({"output": _logits(1, 2)["logits"]}, Notice.MESSAGE, False),
        (_logits(1, 1, 1), Notice.STOP, None),
    ],
)
def test_the_rules_of_other_tools_are_theirs(
    outputs: dict[str, Any], optimum: Notice, torch_onnx: bool | None
) -> None:
    assert optimum_rule(_logits(1, 2), outputs) is optimum
    if torch_onnx is None:
        with pytest.raises(RuntimeError, match="must match the size"):
            torch_onnx_rule(_logits(1, 2), outputs)
    else:
        assert torch_onnx_rule(_logits(1, 2), outputs) is torch_onnx


@pytest.mark.parametrize(
    "kind", ["", "classes reversed", "kernel one NaN", "output under another name", "fixed batch"]
)
def test_optimum_itself_says_what_its_rule_says(kind: str, subject_of: SubjectOf) -> None:
    convert = pytest.importorskip("optimum.exporters.onnx.convert")
    assert_optimum_agrees(kind, subject_of("Y"), convert)


def assert_optimum_agrees(kind: str, subject: Subject, convert: Any) -> None:
    """Both judge one file on one batch."""
    from transformers import RegNetForImageClassification

    configs = pytest.importorskip("optimum.exporters.onnx.model_configs")
    artefact = subject.artefact("ONNX")
    assert isinstance(artefact, OnnxArtefact)
    if kind:
        planted = mutants(subject, "ONNX", 1, np.random.default_rng(0))
        next(mutant for mutant in planted if mutant.kind == kind).plant(artefact)
    for axis in artefact.model.graph.output[0].type.tensor_type.shape.dim:
        if axis.dim_param:
            axis.dim_param = "batch_size"  # as optimum calls it
    path = subject.planted("ONNX")
    artefact.save(path)
    model = RegNetForImageClassification.from_pretrained(subject.folder.path).eval()
    config = configs.RegNetOnnxConfig(model.config, task="image-classification")
    batch = torch.from_numpy(subject.contenders.uniform)
    config.generate_dummy_inputs = lambda **_: {"pixel_values": batch}
    names = [output.name for output in artefact.model.graph.output]
    try:
        convert._run_validation(config, model, path, names)
        said = Notice.NOTHING
    except (convert.AtolError, convert.OutputMatchError):
        said = Notice.MESSAGE
    except Exception:  # noqa: BLE001 -- whatever else it is, the command ends with it
        said = Notice.STOP
    assert subject.contenders.optimum(path) is said


@pytest.mark.parametrize(
    ("places", "count", "drawn"), [(0, 2, 0), (1, 2, 1), (2, 2, 2), (7, 4, 4), (9, 1, 1)]
)
def test_places_are_spread_over_the_network(places: int, count: int, drawn: int) -> None:
    chosen = spread(range(places), count, np.random.default_rng(0))
    assert len(set(chosen)) == drawn
    assert chosen == sorted(chosen)
    if drawn > 1:
        stretches = Counter(place * count // places for place in chosen)
        assert set(stretches.values()) == {1}


def _outcome(form: str = "ONNX", *, killed: bool = True, kind: str = "a fault") -> Outcome:
    notice = Notice.MESSAGE if form == "ONNX" else None
    return Outcome(kind, "Y", form, "stem", killed, False, False, "", notice, notice)


def test_the_tables_count_what_was_found() -> None:
    found = [_outcome(), _outcome("TorchScript"), _outcome(killed=False)]
    assert list(tables.kinds_table(found))[1:] == [
        "| a fault | 3 | 2 | 2 | 2 | 2 | 2 | 2 |",
        "| **all** | 3 | 2 | 2 | 2 | 2 | 2 | 2 |",
    ]
    assert list(tables.forms_table(found))[2:] == [
        "| ONNX | Y | 2 | 1 | 1 | 1 |",
        "| TorchScript | Y | 1 | 1 | 1 | 1 |",
    ]
    assert next(tables.totals(found, [])) == "2 of 3 mutants killed, 66.67%; target 99.5%: not met."
    other = tables.totals([*found, _outcome()], [_outcome(killed=False)])
    assert next(line for line in other if "optimum" in line) == (
        "- optimum's rule says something of 3, of 0 of the 0 whose right artefact it says nothing "
        "of; the command fails for 0."
    )
    assert list(tables.survivors(found)) == ["- a fault (ONNX), in Y: UNEXPLAINED."]


def test_a_survivor_is_explained_only_where_everything_was_rewritten() -> None:
    kind = "preprocessor_config.json: size"
    assert tables.explanation(_outcome("folder", killed=False, kind=kind)) is None
    again = _outcome("folder, exported again", killed=False, kind=kind)
    assert "checksums" in (tables.explanation(again) or "")


@pytest.mark.slow
@pytest.mark.timeout(3600)  # seven minutes of a processor that it may have to share
def test_the_whole_suite_ends_well(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "benchmarks.mutation", "--json", str(tmp_path / "all.json")]
    finished = subprocess.run(command, capture_output=True, text=True, check=False)
    assert finished.returncode == 0, finished.stdout
    assert len(json.loads((tmp_path / "all.json").read_text())["mutants"]) > 300
