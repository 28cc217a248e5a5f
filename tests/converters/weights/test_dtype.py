"""`--dtype`: weights cast as torch casts them, and artefacts right whatever a folder stores."""

from __future__ import annotations

import json
from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from safetensors.torch import load_file
from transformers import RegNetForImageClassification as TheirClassifier

from converters.errors import InputError
from converters.folder.folder import ConvertedFolder
from converters.jobs.conversion import ConvertOptions
from converters.jobs.convert import convert
from converters.jobs.writeback import write_back
from converters.parity.verify import verify_folder
from regnet import RegNetForImageClassification
from regnet.files.dtypes import DTYPES, cast
from tests.converters.demo import CHECKPOINT
from tests.oracles.loaders import load
from tests.oracles.pycls import TINY, build
from tests.oracles.savers import save

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray
    from torch import Tensor

    from regnet.files.dtypes import DType

    State = dict[str, Tensor]

BITS: dict[str, type[np.unsignedinteger[Any]]] = {
    "float64": np.uint64,
    "float32": np.uint32,
    "float16": np.uint16,
    "bfloat16": np.uint16,
}
COUNTER = "num_batches_tracked"
OTHERS = pytest.mark.parametrize("dtype", [name for name in DTYPES if name != "float32"])
WEIGHTS = "model.safetensors"


def as_torch(bits: NDArray[Any], dtype: str) -> Tensor:
    signed = bits.view(f"i{bits.itemsize}").copy()
    return torch.from_numpy(signed).view(getattr(torch, dtype))


def same_numbers(one: Tensor, other: Tensor) -> bool:
    """Whether types and bits agree, the bits of NaNs excepted: torch's depend on the processor."""
    bits = [torch.where(t.isnan(), 0, t).reshape(-1).view(torch.uint8) for t in (one, other)]
    nans = [t.isnan() for t in (one, other)]
    return one.dtype == other.dtype and torch.equal(*nans) and torch.equal(*bits)


@pytest.mark.parametrize(("dtype", "to"), list(product(DTYPES, DTYPES)))
@given(data=st.data())
def test_a_cast_is_torchs_bit_for_bit(dtype: str, to: str, data: st.DataObject) -> None:
    bits = data.draw(arrays.arrays(BITS[dtype], st.integers(1, 40)))
    floats = bits if dtype == "bfloat16" else bits.view(dtype)

    ours = cast(floats, dtype, to)

    theirs = as_torch(bits, dtype).to(getattr(torch, to))
    assert same_numbers(as_torch(ours.view(BITS[to]), to), theirs)


@pytest.mark.parametrize("to", ["float16", "bfloat16"])
def test_numbers_between_two_are_rounded_as_torch_rounds_them(to: DType) -> None:
    """Float64s a hair beside the middle of two numbers of 16 bits, which float32 moves onto it."""
    middles = np.random.default_rng(0).standard_normal(10_000).astype(np.float32).view(np.uint32)
    kept = {"float16": 0xFFFFE000, "bfloat16": 0xFFFF0000}[to]
    half = ((middles & kept) | (~kept & 0xFFFFFFFF) // 2 + 1).view(np.float32).astype(np.float64)
    numbers = np.concatenate([half, half * (1 + 2.0**-40), half * (1 - 2.0**-40)])

    ours = cast(numbers, "float64", to)

    theirs = torch.from_numpy(numbers).to(getattr(torch, to))
    assert same_numbers(as_torch(ours.view(np.uint16), to), theirs)


def state(dtype: torch.dtype = torch.float32) -> State:
    """What a small pycls network saves, in ``dtype`` but for its counters."""
    tensors: State = build(TINY, classes=10).state_dict()
    return {n: t.to(dtype) if t.is_floating_point() else t for n, t in tensors.items()}


def saved(folder: Path, tensors: State) -> Path:
    torch.save({"model_state": tensors}, folder / "net.pyth")
    return folder / "net.pyth"


@pytest.mark.parametrize(
    ("stored", "to", "value", "words"),
    [
        ("float32", "float16", 7e4, "holds 70000, which is too large for float16"),
        ("float32", "float16", -65520.0, "--dtype float32 or bfloat16 or float64"),
        ("bfloat16", "float16", 1e38, "--dtype float32 or bfloat16 or float64"),
        ("float32", "bfloat16", 3.4e38, "too large for bfloat16; .* --dtype float32 or float64"),
        ("float64", "float32", 1e300, r"holds 1e\+300, .* float32; .* --dtype float64\."),
        ("float64", None, -1e39, r"holds -1e\+39, .* float32; .* --dtype float64\."),
    ],
)
def test_a_number_that_would_become_infinite_is_refused(
    stored: str, to: DType | None, value: float, words: str, tmp_path: Path
) -> None:
    tensors = state(getattr(torch, stored))
    tensors["s2.b1.bn.running_var"][3] = value

    with pytest.raises(InputError, match=words) as caught:
        convert(saved(tmp_path, tensors), tmp_path / "out", dtype=to)

    assert str(caught.value).startswith("net.pyth: s2.b1.bn.running_var holds ")
    assert [path.name for path in tmp_path.iterdir()] == ["net.pyth"]


def test_the_largest_number_of_a_type_is_none_too_large(tmp_path: Path) -> None:
    tensors = state()
    tensors["s2.b1.bn.running_var"][:2] = torch.tensor([65504.0, 65519.0])

    convert(saved(tmp_path, tensors), tmp_path / "out", dtype="float16", formats=(), verify=False)

    written = load_file(tmp_path / "out" / WEIGHTS)
    assert any(tensor.max() == 65504 for tensor in written.values())


@OTHERS
@pytest.mark.parametrize("share", [False, True], ids=["self-contained", "sharing"])
def test_a_folder_of_any_dtype_passes_with_every_artefact(
    dtype: DType, share: bool, tmp_path: Path
) -> None:
    out = tmp_path / "out"

    convert(CHECKPOINT, out, dtype=dtype, share_weights=share)

    report = verify_folder(ConvertedFolder(out))
    assert report.passed
    assert {verdict.precision for verdict in report.verdicts[1:]} == {"float32"}
    assert json.loads((out / "config.json").read_text())["dtype"] == dtype
    onnx.checker.check_model(str(out / "model.onnx"), full_check=True)
    for file in ("conversion.json", "README.md"):
        assert f"{dtype}, cast from float32" in (out / file).read_text()


@OTHERS
@pytest.mark.parametrize("limit", [None, 300_000], ids=["one file", "shards"])
def test_ours_and_transformers_load_the_folder_with_equal_bytes(
    dtype: DType, limit: int | None, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    convert(CHECKPOINT, out, formats=(), verify=False)
    expected = RegNetForImageClassification.from_pretrained(out).to(getattr(torch, dtype))

    options: dict[str, Any] = {"dtype": dtype, "max_shard_size": limit, "verify": False}
    plan = convert(CHECKPOINT, out, formats=(), force=True, **options).inspection.plan

    theirs, loading = TheirClassifier.from_pretrained(out, output_loading_info=True)
    ours = RegNetForImageClassification.from_pretrained(out)
    assert not any(loading.values())
    for name, tensor in expected.state_dict().items():
        assert same_numbers(theirs.state_dict()[name], tensor), name
        assert same_numbers(ours.state_dict()[name], tensor), name
    size = sum(path.stat().st_size for path in out.glob("model*.safetensors"))
    assert (len(list(out.glob("model-*.safetensors"))) > 1) == (limit is not None)
    assert plan.nbytes < size < 1.2 * plan.nbytes


@OTHERS
def test_there_and_back_no_byte_of_the_sources_dtype_is_lost(dtype: DType, tmp_path: Path) -> None:
    source = state(getattr(torch, dtype))

    conversion = convert(
        saved(tmp_path, source), tmp_path / "out", dtype=dtype, formats=(), verify=False
    )
    write_back(tmp_path / "out", tmp_path / "back.pyth", "pycls")

    actions = {step.action for step in conversion.inspection.plan.steps}
    assert actions == {"copy", "flip channels"}
    assert "dtype" not in {d.topic for d in conversion.inspection.source.decisions}
    back = torch.load(tmp_path / "back.pyth", weights_only=True)["model_state"]
    assert back.keys() == source.keys()
    assert all(same_numbers(back[name], source[name]) for name in source)


def test_without_being_asked_a_folder_is_float32_and_says_from_what(tmp_path: Path) -> None:
    path = saved(tmp_path, state(torch.float16))

    inspection = convert(path, tmp_path / "out", formats=(), verify=False).inspection

    (decision,) = [made for made in inspection.source.decisions if made.topic == "dtype"]
    assert decision.value == "float32, cast from float16"
    assert decision.reason == "the default; --dtype chooses another"


@pytest.mark.parametrize("converted", [False, True], ids=["a checkpoint", "a converted folder"])
@pytest.mark.parametrize(
    "framework",
    ["timm", "torchvision", "pycls", "classy-vision", "mmpretrain", "pytorchcv", "vissl"],
)
def test_any_framework_loads_strictly_what_is_written_in_half(
    framework: str, converted: bool, tmp_path: Path
) -> None:
    pytest.importorskip(framework.replace("-", "_"))
    network, source = save(framework, tmp_path, "x")
    if converted:
        convert(source, tmp_path / "folder", formats=(), verify=False)
        source = tmp_path / "folder"
    options = ConvertOptions(dtype="float16")

    written = write_back(source, tmp_path / "written", framework, options)

    assert written.report is not None
    assert written.report.passed
    folder = tmp_path / "again"
    inspection = convert(written.path, folder, dtype="float16", formats=(), verify=False).inspection
    assert not inspection.plan.cast_from
    theirs = load(framework, written.path, ConvertedFolder(folder).config).state_dict()
    for name, tensor in network.state_dict().items():
        expected = tensor.half().float() if tensor.is_floating_point() else tensor
        assert torch.equal(theirs[name], expected), name


def test_a_converted_folder_keeps_its_dtype_unless_another_is_asked_for(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    convert(CHECKPOINT, folder, dtype="bfloat16", formats=(), verify=False)

    asked: DType | None
    for asked in (None, "bfloat16", "float64"):
        dtype = asked or "bfloat16"
        options = ConvertOptions(dtype=asked, force=True)
        written = write_back(folder, tmp_path / "net.pth", "torchvision", options)

        found = {t.dtype for n, t in torch.load(written.path).items() if COUNTER not in n}
        assert found == {getattr(torch, dtype)}
        assert (written.report is None) == (dtype == "bfloat16")
