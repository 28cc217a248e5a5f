"""Folders of torch.distributed.checkpoint, read as torch itself reads them."""

from __future__ import annotations

import os
import pickle
import shutil
from enum import Enum
from typing import TYPE_CHECKING, Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from converters.checkpoint import open_any
from converters.checkpoint.security import inspect_security
from converters.errors import InputError, UnsafeInputError
from converters.jobs.convert import convert
from converters.jobs.inspect import inspect
from regnet import RegNetForImageClassification
from tests.converters.checkpoint.compare import in_chunks, raw_bytes
from tests.oracles import distributed, torchvision
from tests.oracles.distributed import WHOLE, Written

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from converters.checkpoint import Checkpoint

PIXELS = torch.linspace(-2, 2, 2 * 3 * 64 * 64).reshape(2, 3, 64, 64)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What two processes wrote together."""
    folder = tmp_path_factory.mktemp("shared")
    distributed.save_by_processes(folder, 2)
    return folder


@pytest.fixture
def one(tmp_path: Path) -> Path:
    """What a single process wrote."""
    view = torch.randn(4, 2, 3, 3).to(memory_format=torch.channels_last)[1:3]
    state = {"a.weight": torch.randn(3, 5), "view": view, "n": torch.tensor(7)}
    state |= {"half": torch.randn(3).half(), "empty": torch.empty(0, 2)}
    optimiser = {"state": {"a.weight": {"step": torch.tensor(3.0)}}, "param_groups": [{"lr": 0.1}]}
    content = {"model": state, "optim": optimiser, "epoch": 3, "cfg": {"names": ["a", None]}}
    content["heads"] = [{"weight": torch.randn(2)} for _ in range(11)]
    return distributed.save(tmp_path / "one", content)


def assert_same(checkpoint: Checkpoint, ours: Any, theirs: Any) -> None:
    """Whatever is read is what torch reads."""
    if isinstance(theirs, torch.Tensor):
        assert (ours.shape, f"torch.{ours.dtype}") == (tuple(theirs.shape), str(theirs.dtype))
        assert checkpoint.array(ours).tobytes() == raw_bytes(theirs)
        assert in_chunks(checkpoint, ours, 24) == raw_bytes(theirs)
        checkpoint.verify(ours)
        axes = tuple(reversed(range(theirs.dim())))
        assert checkpoint.array(ours.permuted(axes)).tobytes() == raw_bytes(theirs.permute(axes))
    elif isinstance(theirs, list):
        assert len(ours) == len(theirs)
        for our, their in zip(ours, theirs, strict=True):
            assert_same(checkpoint, our, their)
    elif isinstance(theirs, dict):
        assert ours.keys() == theirs.keys()
        for key, value in theirs.items():
            assert_same(checkpoint, ours[key], value)
    else:
        assert ours == theirs


def test_a_folder_of_one_process_is_read_as_torch_reads_it(one: Path, tmp_path: Path) -> None:
    theirs = distributed.loaded(one, tmp_path / "theirs.pt")
    del theirs["optim"]
    with open_any(one) as checkpoint:
        assert_same(checkpoint, checkpoint.tree, theirs)
        assert checkpoint.beside.ignored == {
            "optim": "optimiser state, not needed to run the network"
        }
        assert [path.name for path in checkpoint.stamps] == [".metadata", "__0_0.distcp"]


def test_tensors_that_processes_cut_in_every_way_are_joined(shared: Path) -> None:
    with open_any(shared / "cuts") as checkpoint:
        cuts: Any = checkpoint.tree["cuts"]  # type: ignore[index, call-overload]
        assert_same(checkpoint, cuts, dict.fromkeys(("rows", "columns", "kernels", "whole"), WHOLE))
        assert {name: len(tensor.parts) for name, tensor in cuts.items()} == {
            "rows": 2, "columns": 2, "kernels": 2, "whole": 1,
        }  # fmt: skip
        assert len(cuts["rows"].runs) == 2  # which the kernel copies
        assert cuts["columns"].runs is None


def test_a_network_of_two_processes_converts_to_the_one_that_was_cut(
    shared: Path, tmp_path: Path
) -> None:
    network = torchvision.build(seed=distributed.SEED).eval()
    conversion = convert(shared / "network", tmp_path / "out", formats=("onnx",))
    assert conversion.report is not None
    assert conversion.report.passed
    assert "optimizer" in conversion.inspection.plan.skipped
    ours = RegNetForImageClassification.from_pretrained(tmp_path / "out").eval()
    with torch.inference_mode():
        torch.testing.assert_close(ours(PIXELS).logits, network(PIXELS), rtol=1e-5, atol=1e-5)


@settings(deadline=None, max_examples=40)
@given(data=st.data())
def test_any_grid_of_cuts_makes_the_tensor(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    shape = data.draw(st.lists(st.integers(1, 4), max_size=3))
    cuts = [
        sorted(data.draw(st.sets(st.integers(1, size - 1))) if size > 1 else ()) for size in shape
    ]
    whole = torch.randn(shape)
    written = Written.empty()
    written.add("t", whole, cuts)
    folder = written.save(tmp_path_factory.mktemp("written"))
    with open_any(folder) as checkpoint:
        assert_same(checkpoint, checkpoint.tree, {"t": whole})


def _without_file(_: Written, folder: Path) -> None:
    (folder / "__0_0.distcp").unlink()


def _cut_off(_: Written, folder: Path) -> None:
    os.truncate(folder / "__0_0.distcp", 2000)


def _flipped(written: Written, folder: Path) -> None:
    at = written.content.index(b"\x00\x00\x80?")  # the number 1
    with (folder / "__0_0.distcp").open("r+b") as file:
        file.seek(at)
        file.write(b"\x00\x00\x90?")


def _entry(written: Written) -> Any:
    return written.metadata.state_dict_metadata["rows"]


def _infos(written: Written) -> list[Any]:
    return list(written.metadata.storage_data.values())


def _overlapping(written: Written, _: Path) -> None:
    chunk = _entry(written).chunks[1]
    chunk.sizes = torch.Size([4, 6, 3, 3])
    _entry(written).size = torch.Size([6, 6, 3, 3])
    _moved(written, torch.Size([1, 0, 0, 0]))


def _moved(written: Written, corner: torch.Size) -> None:
    from torch.distributed.checkpoint.metadata import MetadataIndex

    stored = written.metadata.storage_data
    chunk = _entry(written).chunks[1]
    stored[MetadataIndex("rows", corner)] = stored.pop(MetadataIndex("rows", chunk.offsets))
    chunk.offsets = corner


def _outside(written: Written, _: Path) -> None:
    _entry(written).size = torch.Size([4, 6, 3, 3])


def _a_gap(written: Written, _: Path) -> None:
    _entry(written).size = torch.Size([7, 6, 3, 3])


def _other_shape(written: Written, _: Path) -> None:
    for chunk in _entry(written).chunks:
        chunk.sizes = torch.Size([chunk.sizes[0], 3, 6, 3])
        chunk.offsets = torch.Size(chunk.offsets)
    _entry(written).size = torch.Size([5, 3, 6, 3])


def _other_type(written: Written, _: Path) -> None:
    _entry(written).properties.dtype = torch.float16


def _transformed(written: Written, _: Path) -> None:
    _infos(written)[0].transform_descriptors = ["stream.zstd"]


def _elsewhere(written: Written, _: Path) -> None:
    _infos(written)[0].relative_path = "../__0_0.distcp"


def _on_a_drive(written: Written, _: Path) -> None:
    _infos(written)[0].relative_path = "C:__0_0.distcp"


def _shared_bytes(written: Written, _: Path) -> None:
    _infos(written)[-1].offset -= 1


def _negative(written: Written, _: Path) -> None:
    _infos(written)[0].offset = -1


def _nowhere(written: Written, _: Path) -> None:
    from torch.distributed.checkpoint.metadata import MetadataIndex

    del written.metadata.storage_data[MetadataIndex("rows", torch.Size([0] * 4))]


def _one_place(written: Written, _: Path) -> None:
    written.add("rows.b", torch.ones(1), ([],))
    written.metadata.planner_data = {"rows.b": ("rows", "b")}


def _other_keys(written: Written, _: Path) -> None:
    written.metadata.planner_data = {"rows": ("model", "rows")}


def _keys_of_nothing(written: Written, _: Path) -> None:
    """An object as the key, which torch cannot hash; by a stand-in that pickle writes as one."""
    written.metadata.planner_data = {Unhashed(): ("rows",)}


class Unhashed:
    """To whoever reads it, an entry's description."""

    def __reduce__(self) -> tuple[object, ...]:
        from torch.distributed.checkpoint.metadata import BytesStorageMetadata

        return BytesStorageMetadata, ()


class Properties:
    """To whoever reads it, a tensor's properties with something wrong in their state."""

    def __init__(self, state: tuple[object, ...]) -> None:
        self.state = state

    def __reduce__(self) -> tuple[object, ...]:
        from torch.distributed.checkpoint.metadata import TensorProperties

        return TensorProperties, (), self.state


def _six_properties(written: Written, _: Path) -> None:
    entry = _entry(written)
    entry.properties = Properties((*entry.properties.__getstate__(), False))


def _of_no_order(written: Written, _: Path) -> None:
    entry = _entry(written)
    state = list(entry.properties.__getstate__())
    state[3] = state[1]
    entry.properties = Properties(tuple(state))


class _MEM_FORMAT_ENCODING(Enum):  # noqa: N801 -- as torch's
    """One of another package."""

    TORCH_CONTIGUOUS_FORMAT = 0


def _order_of_another(written: Written, _: Path) -> None:
    entry = _entry(written)
    state = list(entry.properties.__getstate__())
    state[3] = _MEM_FORMAT_ENCODING.TORCH_CONTIGUOUS_FORMAT
    entry.properties = Properties(tuple(state))


def _same_place(written: Written, _: Path) -> None:
    written.add("other.b", torch.ones(1), ([],))
    written.metadata.planner_data = {"other.b": ("other", "b")}
    described = written.metadata.state_dict_metadata
    described["other"] = described.pop("other")


def _too_deep(written: Written, _: Path) -> None:
    keys = ("a",) * 65
    written.add(".".join(keys), torch.ones(1), ([],))
    written.metadata.planner_data = {".".join(keys): keys}


def _hidden(written: Written, _: Path) -> None:
    _infos(written)[0].relative_path = ".metadata"


def _two_places(written: Written, _: Path) -> None:
    """Which only a dict can have whose keys were changed."""
    written.put("again", torch.Size([0]), torch.arange(3.0))
    (index,) = [key for key in written.metadata.storage_data if key.fqn == "again"]
    object.__setattr__(index, "fqn", "other")


def _a_cell_twice(written: Written, _: Path) -> None:
    written.add("cells", torch.ones(2, 2), ([1], [1]))
    chunks = written.metadata.state_dict_metadata["cells"].chunks
    chunks[3] = chunks[1]


def _a_view(written: Written, _: Path) -> None:
    written.put("rows", _entry(written).chunks[0].offsets, WHOLE[:2])


class Metadata:
    """One of another package."""


def _another_class(written: Written, _: Path) -> None:
    other = Metadata()
    vars(other).update(vars(written.metadata))
    written.metadata = other


def _of_what(written: Written, _: Path) -> None:
    del written.metadata.state_dict_metadata["other"]


def _one_list(written: Written, _: Path) -> None:
    described = written.metadata.state_dict_metadata
    described |= {f"t{number}": _entry(written) for number in range(9)}


WRONG: tuple[tuple[Callable[[Written, Path], None], str], ...] = (
    (_without_file, "__0_0.distcp, which its .metadata names, is missing; copy the whole folder"),
    (_cut_off, "__0_0.distcp: is truncated, it has 2000 bytes and rows ends at byte"),
    (_overlapping, "rows: has pieces that overlap"),
    (_outside, r"rows: has a piece at \[2, 0, 0, 0\] that lies outside of its \[4, 6, 3, 3\]"),
    (_a_gap, "rows: has pieces of 270 elements together where it has 378"),
    (_other_shape, r"is float32 of shape \[2, 6, 3, 3\] where .metadata says float32 of shape"),
    (_other_type, "is float32 of shape .* where .metadata says float16"),
    (_transformed, r"pieces were transformed when they were written \(stream.zstd\)"),
    (_elsewhere, "a file that is not named by its name alone"),
    (_on_a_drive, "a file that is not named by its name alone"),
    (_shared_bytes, "two pieces that share byte"),
    (_negative, "sizes that cannot be"),
    (_nowhere, "rows: does not say where a piece of it lies"),
    (_one_place, "rows.b: has the place of another"),
    (_other_keys, "keys that do not lead to rows"),
    (_keys_of_nothing, "keys of an entry without a name"),
    (_six_properties, "too many values to unpack"),
    (_of_no_order, "a tensor of no order in memory"),
    (_order_of_another, "a tensor of no order in memory"),
    (_same_place, "other: has the place of another"),
    (_too_deep, "keys that are none"),
    (_hidden, "a hidden file"),
    (_two_places, "two places of one piece"),
    (_a_cell_twice, "cells: has pieces that overlap, or are no cells of a grid"),
    (_a_view, r"is float32 of shape \[2, 6, 3, 3\], and more where .metadata says"),
    (_another_class, "no Metadata where one belongs"),
    (_of_what, "a place of other, which is no entry"),
    (_one_list, "more pieces of tensors than places"),
)


@pytest.mark.parametrize(
    ("change", "says"), WRONG, ids=lambda value: getattr(value, "__name__", "")
)
def test_what_is_wrong_is_said_in_one_sentence(
    change: Callable[[Written, Path], None], says: str, tmp_path: Path
) -> None:
    written = Written.empty()
    written.add("rows", WHOLE, ([2], [], [], []))
    written.add("other", torch.arange(3.0), ([],))
    folder = tmp_path / "folder"
    written.save(folder)
    change(written, folder)
    if change not in (_without_file, _cut_off):
        written.save(folder)
    with pytest.raises(InputError, match=says) as caught:
        open_any(folder)
    assert str(caught.value).endswith(".")
    assert inspect_security(folder).refusal is not None


def test_a_flipped_bit_is_found_by_the_checksum_of_the_piece(tmp_path: Path) -> None:
    written = Written.empty()
    written.add("rows", WHOLE, ([2], [], [], []))
    _flipped(written, written.save(tmp_path / "folder"))
    with open_any(tmp_path / "folder") as checkpoint:
        (tensor,) = checkpoint.tree.values()  # type: ignore[union-attr]
        with pytest.raises(InputError, match="rows, archive/data/0: is damaged, its bytes"):
            checkpoint.array(tensor)  # type: ignore[arg-type]


class Evil:
    """Runs a command in whoever unpickles it."""

    def __reduce__(self) -> tuple[object, ...]:
        return os.system, ("true",)


def test_nothing_in_a_folder_may_run_code(one: Path, tmp_path: Path) -> None:
    from torch.distributed.checkpoint.metadata import BytesStorageMetadata

    inside, outside, behind = Written.empty(), Written.empty(), Written.empty()
    inside.metadata.planner_data = {"t": Evil()}
    for written in (outside, behind):
        name = "optim.lr" if written is behind else "lr"
        written.metadata.state_dict_metadata[name] = BytesStorageMetadata()
        written.put(name, None, Evil())
    for written in (inside, outside, behind):
        folder = written.save(tmp_path / "folder")
        with pytest.raises(UnsafeInputError, match=r"would run code .*posix.system"):
            open_any(folder)
        report = inspect_security(folder)
        assert not report.harmless
        with pytest.raises(UnsafeInputError, match=r"posix.system"):
            report.require_harmless()
    report = inspect_security(one)
    assert report.harmless
    assert report.notes == ("20 pickles in its pieces were followed",)


def of_value(content: bytes, folder: Path) -> Path:
    """A folder of a single value, whose bytes are not torch's."""
    from torch.distributed.checkpoint.metadata import BytesStorageMetadata

    written = Written.empty()
    written.metadata.state_dict_metadata["lr"] = BytesStorageMetadata()
    written.put("lr", None, 0)
    _infos(written)[0].length, written.content = len(content), bytearray(content)
    return written.save(folder)


def test_a_value_that_is_no_archive_is_left_out_and_may_not_run_code(tmp_path: Path) -> None:
    with open_any(of_value(b"nothing", tmp_path / "folder")) as checkpoint:
        said = checkpoint.beside.ignored
    assert said == {"lr": "is no tensor, and of no kind that is read"}

    with pytest.raises(UnsafeInputError, match=r"would run code .*posix.system"):
        open_any(of_value(pickle.dumps(Evil()), tmp_path / "folder"))


def test_keys_with_a_gap_are_no_list(tmp_path: Path) -> None:
    written = Written.empty()
    for index in (0, 2):
        written.add(f"heads.{index}", torch.ones(2), ([],))
        written.metadata.planner_data[f"heads.{index}"] = ("heads", index)

    with open_any(written.save(tmp_path / "folder")) as checkpoint:
        heads: Any = checkpoint.tree["heads"]  # type: ignore[index, call-overload]
    assert list(heads) == [0, 2]


def test_a_metadata_that_goes_on_or_is_too_large_is_refused(one: Path) -> None:
    content = (one / ".metadata").read_bytes()
    for more, says in (
        (b"\0", "goes on behind its end"),
        (bytes(3_800_000), "of more pieces than"),
    ):
        (one / ".metadata").write_bytes(content + more)
        with pytest.raises(InputError, match=says):
            open_any(one)


def test_a_folder_that_has_weights_of_its_own_is_one_of_those(one: Path) -> None:
    save_file({"weight": torch.ones(2)}, one / "model.safetensors")

    with open_any(one) as checkpoint:
        assert checkpoint.container == "folder"


def test_what_lies_in_the_folder_that_was_named_says_what_it_is(one: Path, tmp_path: Path) -> None:
    shutil.copytree(one, tmp_path / "checkpoint-5" / "pytorch_model_fsdp_0")
    (tmp_path / "checkpoint-5" / "config.json").write_text('{"model_type": "regnet"}')

    with open_any(tmp_path / "checkpoint-5") as checkpoint:
        assert checkpoint.beside.config == {"model_type": "regnet"}


def test_a_folder_of_accelerate_has_the_network_beneath_it(one: Path, tmp_path: Path) -> None:
    shutil.copytree(one, tmp_path / "checkpoint-5" / "pytorch_model_fsdp_0")
    with open_any(tmp_path / "checkpoint-5") as checkpoint:
        assert "model" in checkpoint.tree  # type: ignore[operator]
        assert checkpoint.path.name == "checkpoint-5"


def test_parts_of_a_folder_name_what_to_give(one: Path) -> None:
    for name in ("__0_0.distcp", ".metadata"):
        with pytest.raises(InputError, match=r"is a part of a checkpoint .* give its folder, one"):
            open_any(one / name)
    (one / ".metadata").unlink()
    with pytest.raises(InputError, match=r"lacks .metadata, .* copy the whole folder"):
        open_any(one)


def test_what_one_process_saved_of_a_tensor_is_named(shared: Path, tmp_path: Path) -> None:
    parts = torch.load(shared / "part.pt", weights_only=False)
    state = dict(torchvision.build().state_dict())
    torch.save(state | {"fc.weight": parts["rows"]}, tmp_path / "model.pt")
    with pytest.raises(InputError, match=r"fc.weight is stored as a DTensor.*get_model_state_dict"):
        inspect(tmp_path / "model.pt")
