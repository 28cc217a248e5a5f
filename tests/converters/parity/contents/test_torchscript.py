"""What a tensor certificate finds in TorchScript archives."""

from __future__ import annotations

import zipfile
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
import torch

from converters.parity.contents.tensors import certify
from tests.converters.parity.contents.tampering import (
    KERNEL,
    STEM,
    artefact,
    certificate,
    change_zip,
    kernel_name,
    saved_by_torch,
    the_clause,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from converters.folder.folder import ConvertedFolder


def _swap_squares(traced: Any) -> None:
    first, second = (traced.get_parameter(kernel_name("torchscript", layer)) for layer in (0, 3))
    first.data, second.data = second.data, first.data


def _stale_norm(traced: Any) -> None:
    traced.get_buffer(f"{STEM}.normalization.running_mean").zero_()


def _count(traced: Any) -> None:
    traced.get_buffer(f"{STEM}.normalization.num_batches_tracked").add_(1)


def _replace_kernel(traced: Any, change: Callable[[torch.Tensor], torch.Tensor]) -> None:
    parameter = traced.get_parameter(KERNEL)
    parameter.data = change(parameter.data)


_halve = partial(_replace_kernel, change=torch.Tensor.half)
_flatten = partial(_replace_kernel, change=lambda kernel: kernel.flatten(1))
_stride = partial(
    _replace_kernel, change=lambda kernel: kernel.transpose(0, 1).contiguous().transpose(0, 1)
)


@pytest.mark.parametrize(
    ("change", "clauses"),
    [
        (_swap_squares, [f"{kernel_name('', 0)} differs", f"{kernel_name('', 3)} differs"]),
        (_stale_norm, [f"{STEM}.normalization.running_mean differs"]),
        (_count, [f"{STEM}.normalization.num_batches_tracked differs from the weights in 1 of 1 "]),
        (_halve, [f"{KERNEL} is float16 where float32 belongs"]),
        (_flatten, [f"{KERNEL} has shape [24, 24] where [24, 24, 1, 1] belongs"]),
        (_stride, [f"{KERNEL} does not lie in row-major order"]),
    ],
)
def test_what_torch_saved_with_a_fault_is_named(
    change: Callable[[Any], None],
    clauses: list[str],
    network: ConvertedFolder,
    tmp_path: Path,
) -> None:
    def changed(traced: Any) -> Any:
        change(traced)
        return traced

    path = saved_by_torch(network, tmp_path / "traced.pt", changed)
    wrong = certify(network, "torchscript", path).wrong
    assert len(wrong) == len(clauses)
    for clause, start in zip(wrong, clauses, strict=True):
        assert clause.startswith(start)


def test_a_kernel_in_the_middle_of_a_storage_is_certified(
    network: ConvertedFolder, tmp_path: Path
) -> None:
    def embed(traced: Any) -> Any:
        _replace_kernel(traced, lambda kernel: torch.cat((kernel * 0, kernel))[len(kernel) :])
        return traced

    path = saved_by_torch(network, tmp_path / "traced.pt", embed)
    assert certify(network, "torchscript", path).wrong == ()


def test_weights_that_torch_made_constants_of_the_program_are_found(
    network: ConvertedFolder, tmp_path: Path
) -> None:
    path = saved_by_torch(network, tmp_path / "frozen.pt", torch.jit.freeze)
    wrong = certify(network, "torchscript", path).wrong
    assert "constants.0 is no tensor that belongs there" in wrong
    assert "classifier.1.weight is missing" in wrong


def _compress(path: Path) -> None:
    with zipfile.ZipFile(path) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in entries.items():
            archive.writestr(name, data)


def _write_twice(path: Path) -> None:
    with zipfile.ZipFile(path, "a") as archive, pytest.warns(UserWarning, match="Duplicate"):
        archive.writestr("regnet/data.pkl", archive.read("regnet/data.pkl"))


def _in_capitals(path: Path) -> None:
    """Torch looks for names in any case."""
    change_zip(
        path,
        lambda entries: entries.update(
            {"regnet/DATA.PKL": entries["regnet/data.pkl"]}
            | {"regnet/data.pkl": entries.pop("regnet/data.pkl")}
        ),
    )


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (_compress, "its tensors cannot be read (data.pkl is compressed)"),
        (_write_twice, "has two entries called 'regnet/data.pkl'"),
        (_in_capitals, "has two entries called 'regnet/data.pkl'"),
    ],
)
def test_an_archive_that_readers_may_disagree_on_is_not_certified(
    damage: Callable[[Path], None], reason: str, copy: ConvertedFolder
) -> None:
    damage(artefact(copy, "torchscript"))
    assert reason in the_clause(certificate(copy, "torchscript"))
