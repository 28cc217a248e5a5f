"""Plan and stream: every tensor accounted for, every byte as torch would have it, little memory."""

from __future__ import annotations

import hashlib
import json
import tracemalloc
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import RegNetForImageClassification as TheirClassifier

from converters.errors import InputError
from converters.families.options import SourceOptions
from converters.weights.inspection import inspected
from converters.weights.stream import write_weights
from regnet.config import RegNetConfig
from regnet.model import RegNetForImageClassification, RegNetModel
from tests.converters.stored import in_pycls_words
from tests.oracles.pycls import TINY, build

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor

    from converters.weights.plan import Plan, Step

State = dict[str, "Tensor"]
STEM = "stem.conv.weight"
THEIR_STEM = "regnet.embedder.embedder.convolution.weight"
COUNTER = "num_batches_tracked"
CLASSES = 10


@cache
def _network() -> State:
    state: State = build(TINY, classes=CLASSES).state_dict()
    return state


def state() -> State:
    return dict(_network())


@dataclass(frozen=True)
class Written:
    """What streaming made of a state."""

    folder: Path
    plan: Plan
    digests: dict[str, str]
    reported: int

    @property
    def tensors(self) -> State:
        merged: State = {}
        for name in self.digests:
            merged |= load_file(self.folder / name)
        return merged

    def step(self, source_name: str) -> Step:
        return next(step for step in self.plan.steps if step.source_name == source_name)


def stream(
    tree: Any, folder: Path, *, max_shard_size: int | None = None, legacy: bool = False
) -> Written:
    """Save a checkpoint, write its weights and config into ``folder / "out"``."""
    path, out = folder / "net.pyth", folder / "out"
    out.mkdir(parents=True)
    torch.save(tree, path, _use_new_zipfile_serialization=not legacy)
    reported: list[int] = []
    with inspected(path, SourceOptions()) as (checkpoint, inspection):
        written = write_weights(
            checkpoint,
            inspection.plan,
            out,
            max_shard_size=max_shard_size,
            allow_nonfinite=True,  # casts are tested with every kind of number
            advance=reported.append,
        )
        inspection.output_config().save_pretrained(out)
    return Written(out, inspection.plan, dict(written.weights), sum(reported))


def refusal(tree: Any, folder: Path) -> str:
    torch.save(tree, folder / "net.pyth")
    with pytest.raises(InputError) as caught, inspected(folder / "net.pyth", SourceOptions()):
        pass
    message = str(caught.value)
    assert message.startswith("net.pyth")
    assert message.endswith(".")
    assert str(folder) not in message
    return message


def same_bytes(one: Tensor, other: Tensor) -> bool:
    """Whether dtype, shape and every bit agree, which ``==`` does not say of NaN and zero."""
    bits = [t.contiguous().reshape(-1).view(torch.uint8) for t in (one, other)]
    return one.dtype == other.dtype and one.shape == other.shape and torch.equal(*bits)


def test_every_source_tensor_is_used_once_and_every_target_filled(tmp_path: Path) -> None:
    written = stream({"model_state": state()}, tmp_path)
    model = RegNetForImageClassification(RegNetConfig.from_pretrained(written.folder))

    assert sorted(str(step.source_name) for step in written.plan.steps) == sorted(state())
    assert [step.target.name for step in written.plan.steps] == list(model.state_dict())
    assert set(written.tensors) == set(model.state_dict())


def test_only_the_stem_is_touched_and_every_byte_is_reported(tmp_path: Path) -> None:
    written = stream({"model_state": state()}, tmp_path)

    for step in written.plan.steps:
        source = state()[str(step.source_name)]
        expected = source.flip(1) if step.source_name == STEM else source
        assert same_bytes(written.tensors[step.target.name], expected), step.source_name
        assert step.action == ("flip channels" if step.source_name == STEM else "copy")
    assert written.reported == written.plan.nbytes


@pytest.mark.parametrize("kind", ["trunk", "classifier"])
def test_what_is_written_loads_without_a_warning(tmp_path: Path, kind: str) -> None:
    tensors = state()
    if kind == "trunk":
        tensors = {name: t for name, t in tensors.items() if not name.startswith("head.")}

    written = stream({"model_state": tensors}, tmp_path)

    model = RegNetModel if kind == "trunk" else RegNetForImageClassification
    loaded = model.from_pretrained(written.folder).state_dict()  # warnings are errors here
    assert len(loaded) == len(tensors)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            lambda s: s.pop("s3.b1.f.b.weight"),
            "block 1 of stage 3 has no grouped.conv",
        ),
        (lambda s: s.pop("s1.b1.f.a_bn.bias"), ": 1 missing (s1.b1.f.a_bn.bias); give"),
        (lambda s: s.pop("head.fc.bias"), ": 1 missing (head.fc.bias); give"),
        (
            lambda s: [s.pop(n) for n in list(s) if n.endswith("running_var")],
            "s1.b1.f.b_bn.running_var, s1.b1.f.c_bn.running_var and 11 more); give the complete",
        ),
        (
            lambda s: s.update({"s1.b1.f.a.bias": torch.zeros(16)}),
            ": 1 unknown (s1.b1.f.a.bias); give",
        ),
        (
            lambda s: s.update({"ema.decay": torch.zeros(())}),
            ": 1 unknown (ema.decay); give",
        ),
        (
            lambda s: s.update({"s2.b1.bn.runing_mean": s.pop("s2.b1.bn.running_mean")}),
            "1 missing (s2.b1.bn.running_mean) and 1 unknown (s2.b1.bn.runing_mean; the first may",
        ),
        (
            lambda s: s.update({"head.fc.weights": s.pop("head.fc.weight")}),
            "1 unknown (head.fc.weights; the first may be meant for head.fc.weight)",
        ),
        (
            lambda s: s.update({"bad\nname\x1b[31m": torch.zeros(1)}),
            r": 1 unknown (bad\nname\x1b[31m); give",
        ),
        (
            lambda s: s.update({"s2.b1.bn.weight": torch.ones(23)}),
            ": s2.b1.bn.weight has shape (23,) where the rest of the network asks for (24,)",
        ),
        (
            lambda s: s.update({"head.fc.weight": torch.ones(CLASSES, 39)}),
            ": head.fc.weight has shape (10, 39) where the rest of the network asks for (10, 40)",
        ),
        (
            lambda s: s.update({"s1.b1.f.se.f_ex.2.weight": torch.ones(16, 8)}),
            ": s1.b1.f.se.f_ex.2.weight has shape (16, 8), which no weight of a RegNet has",
        ),
        (
            lambda s: s.update({"stem.bn.num_batches_tracked": torch.zeros(2, dtype=torch.int64)}),
            "bn.num_batches_tracked has shape (2,) where the rest of the network asks for ()",
        ),
    ],
)
def test_what_does_not_add_up_is_refused_with_counts_and_names(
    tmp_path: Path, change: Any, words: str
) -> None:
    tensors = state()
    change(tensors)

    assert words in refusal({"model_state": tensors}, tmp_path)


@pytest.mark.parametrize(
    ("name", "dtype"),
    [
        ("s1.b1.f.a.weight", torch.int8),
        ("s1.b1.f.a.weight", torch.uint8),
        ("s1.b1.f.a.weight", torch.int64),
        ("head.fc.bias", torch.complex64),
        ("head.fc.bias", torch.bool),
        ("stem.bn.running_var", torch.float8_e4m3fn),
        ("stem.bn.num_batches_tracked", torch.complex64),
        ("stem.bn.num_batches_tracked", torch.float8_e4m3fn),
    ],
)
def test_numbers_that_are_no_weights_are_refused(
    tmp_path: Path, name: str, dtype: torch.dtype
) -> None:
    tensors = state()
    tensors[name] = torch.ones(tensors[name].shape).to(dtype)

    message = refusal({"model_state": tensors}, tmp_path)

    assert f"{name} is stored as {str(dtype).removeprefix('torch.')}" in message


def test_counters_are_made_where_they_are_missing_and_widened_where_they_are_short(
    tmp_path: Path,
) -> None:
    kept, short = "s1.b1.bn.num_batches_tracked", "s2.b1.bn.num_batches_tracked"
    tensors = {n: t for n, t in state().items() if COUNTER not in n or n in {kept, short}}
    tensors[short] = tensors[short].to(torch.int32)

    written = stream({"model_state": tensors}, tmp_path)

    for step in written.plan.steps:
        counter = written.tensors[step.target.name]
        if step.source_name is None:
            assert step.action == "make zeros"
            assert COUNTER in step.target.name
            assert same_bytes(counter, torch.zeros((), dtype=torch.int64))
    for name in (kept, short):
        assert same_bytes(written.tensors[written.step(name).target.name], state()[name])
    assert written.step(short).action == "cast"


@pytest.mark.parametrize(
    "dtype", [torch.float64, torch.bfloat16, torch.int16, torch.uint8], ids=str
)
def test_counters_of_any_type_and_of_shape_one_become_what_batch_norms_count_in(
    tmp_path: Path, dtype: torch.dtype
) -> None:
    tensors = state()
    counters = [name for name in tensors if COUNTER in name]
    tensors |= {name: torch.full((1,), 7, dtype=dtype) for name in counters}

    written = stream({"model_state": tensors}, tmp_path)

    assert counters
    for name in counters:
        counter = written.tensors[written.step(name).target.name]
        assert same_bytes(counter, torch.tensor(7, dtype=torch.int64))


# NaN, infinities, the two zeros, and numbers beyond and below what the narrower type can hold.
SPECIAL = torch.tensor(
    [torch.nan, torch.inf, -torch.inf, 0.0, -0.0, 3e38, -3e38, 1e-40, 1e-310, 65504.0, 6e-8],
    dtype=torch.float64,
)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("legacy", [True, False], ids=["legacy", "zip"])
def test_other_floats_become_float32_exactly_as_torch_casts_them(
    tmp_path: Path,
    dtype: torch.dtype,
    legacy: bool,
) -> None:
    tensors = {n: t.to(dtype) if t.is_floating_point() else t for n, t in state().items()}
    special = tensors["s2.b1.bn.bias"].clone()
    special[: len(SPECIAL)] = SPECIAL.to(dtype)
    tensors["s2.b1.bn.bias"] = special

    written = stream({"model_state": tensors}, tmp_path, legacy=legacy)

    for step in written.plan.steps:
        source = tensors[str(step.source_name)]
        cast = source.float() if source.is_floating_point() else source
        expected = cast.flip(1) if step.source_name == STEM else cast
        assert same_bytes(written.tensors[step.target.name], expected), step.source_name
    assert written.step(STEM).action == "flip channels and cast"


def test_tensors_that_do_not_lie_in_order_are_put_in_order(tmp_path: Path) -> None:
    tensors = state()
    tensors[STEM] = tensors[STEM].to(memory_format=torch.channels_last)
    tensors["head.fc.weight"] = tensors["head.fc.weight"].t().contiguous().t()
    both = torch.stack([tensors["stem.bn.weight"], tensors["stem.bn.bias"]])
    tensors["stem.bn.weight"], tensors["stem.bn.bias"] = both.unbind()
    assert not tensors[STEM].is_contiguous()

    assert stream({"model_state": tensors}, tmp_path / "strided").tensors.keys()
    strided = (tmp_path / "strided" / "out" / "model.safetensors").read_bytes()
    stream({"model_state": state()}, tmp_path / "plain")

    assert strided == (tmp_path / "plain" / "out" / "model.safetensors").read_bytes()


@pytest.mark.parametrize("limit", [None, 20_000], ids=["one file", "shards"])
def test_the_same_input_gives_the_same_bytes_and_the_digests_are_those_of_the_files(
    tmp_path: Path, limit: int | None
) -> None:
    tree = {"model_state": state()}
    runs = [stream(tree, tmp_path / run, max_shard_size=limit) for run in ("first", "second")]

    contents = [{path.name: path.read_bytes() for path in run.folder.iterdir()} for run in runs]
    assert contents[0] == contents[1]
    for name, digest in runs[0].digests.items():
        assert hashlib.sha256(contents[0][name]).hexdigest() == digest


def test_shards_load_in_transformers_and_here_as_one_file_does(tmp_path: Path) -> None:
    whole = stream({"model_state": state()}, tmp_path / "whole")
    sharded = stream({"model_state": state()}, tmp_path / "sharded", max_shard_size=20_000)
    index = json.loads((sharded.folder / "model.safetensors.index.json").read_text())

    theirs, report = TheirClassifier.from_pretrained(sharded.folder, output_loading_info=True)
    ours = RegNetForImageClassification.from_pretrained(sharded.folder)

    assert len(sharded.digests) > 3
    assert index["metadata"]["total_size"] == sharded.plan.nbytes
    assert set(index["weight_map"].values()) == set(sharded.digests)
    assert not any(report.values())
    for name, tensor in whole.tensors.items():
        assert same_bytes(theirs.state_dict()[name], tensor), name
        assert same_bytes(ours.state_dict()[name], tensor), name


@pytest.mark.parametrize("legacy", [True, False], ids=["legacy", "zip"])
def test_a_hundred_megabytes_pass_through_sixteen(workspace: Path, legacy: bool) -> None:
    config = RegNetConfig(depths=(1, 1, 1), hidden_sizes=(256, 1024, 3712), layer_type="x")
    tensors = {
        name: torch.zeros(shape, dtype=torch.int64 if COUNTER in name else torch.float32)
        for name, shape in in_pycls_words(config).items()
    }
    path, out = workspace / f"large-{legacy}.pyth", workspace / f"large-{legacy}"
    torch.save({"model_state": tensors}, path, _use_new_zipfile_serialization=not legacy)
    out.mkdir()
    largest = max(tensor.nbytes for tensor in tensors.values())
    assert path.stat().st_size > 100e6
    assert largest > 40e6

    tracemalloc.start()
    try:
        with inspected(path, SourceOptions()) as (checkpoint, inspection):
            write_weights(checkpoint, inspection.plan, out)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert (out / "model.safetensors").stat().st_size > 100e6
    assert peak < 16e6
