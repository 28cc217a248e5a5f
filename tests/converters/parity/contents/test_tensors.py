"""Tensor certificates: right artefacts have one, and a changed element is named."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from converters.errors import InputError
from converters.folder.folder import ConvertedFolder
from converters.parity.contents.tensors import TensorCertificate, certify
from converters.parity.verdict import Verdict
from regnet.wider import NORM_EPS
from tests.converters.formats.onnx_helpers import recast, reference
from tests.converters.parity.contents.tampering import (
    ALL_FORMS,
    BLOCK,
    KERNEL,
    OWN_WEIGHTS,
    STEM,
    artefact,
    certificate,
    change_bytes,
    held_names,
    refold,
    saved_by_torch,
    small,
    the_clause,
)
from tests.converters.parity.networks import FORMS, NETWORKS, export

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from numpy.typing import NDArray

    Array = NDArray[np.float32]


@ALL_FORMS
@pytest.mark.parametrize("classifier", [True, False], ids=["classifier", "trunk"])
@pytest.mark.parametrize("name", NETWORKS)
def test_every_artefact_of_every_network_is_certified(
    name: str, classifier: bool, form: str, tmp_path: Path
) -> None:
    folder = small(tmp_path / "folder", name, classifier=classifier)
    state = reference(folder).state_dict()
    norms = sum(name.endswith("running_mean") for name in state)
    held = {
        "torchscript": (len(state), 0),
        "sharing": (len(state) - norms, 0),  # without the counters
        "self-contained": (len(state) - 6 * norms, 2 * norms),
    }
    result = certify(folder, FORMS[form][0], export(folder, form))
    assert (result.identical, result.recomputed) == held[form]
    assert result.ulps <= 1
    assert result.wrong == ()
    assert result.failure is None


@ALL_FORMS
def test_artefacts_of_a_folder_of_several_shards_are_certified(form: str, tmp_path: Path) -> None:
    single = small(tmp_path / "single", "Y")
    reference(single).save_pretrained(tmp_path / "shards", max_shard_size="20KB")  # type: ignore[operator]
    folder = ConvertedFolder(tmp_path / "shards")
    assert len(folder.weight_files) > 2
    assert certify(folder, FORMS[form][0], export(folder, form)).wrong == ()


@ALL_FORMS
def test_a_classifier_without_labels_is_certified(form: str, tmp_path: Path) -> None:
    folder = small(tmp_path / "folder", "X", num_labels=0)
    assert certify(folder, FORMS[form][0], export(folder, form)).wrong == ()


@ALL_FORMS
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64], ids=str)
def test_artefacts_of_weights_of_another_type_are_certified(
    dtype: torch.dtype, form: str, network: ConvertedFolder, tmp_path: Path
) -> None:
    folder = recast(network, tmp_path / "recast", dtype)
    result = certify(folder, FORMS[form][0], export(folder, form))
    assert result.wrong == ()
    assert result.ulps <= 1
    assert (result.recomputed > 0) == (form != "sharing")  # which points at them as they are


def test_an_archive_that_torch_itself_wrote_is_certified(
    network: ConvertedFolder, tmp_path: Path
) -> None:
    result = certify(network, "torchscript", saved_by_torch(network, tmp_path / "traced.pt"))
    assert result == TensorCertificate(len(network.tensors), 0, 0)


def test_the_fold_of_torch_in_float64_is_certified(copy: ConvertedFolder) -> None:
    refold(copy, torch.float64, NORM_EPS)
    result = certificate(copy, "self-contained")
    assert result.wrong == ()
    assert result.ulps <= 1


def test_digests_that_are_known_are_not_computed(network: ConvertedFolder) -> None:
    path = artefact(network, "sharing")
    known = {"model.safetensors": "0" * 64}
    assert "sha256" in the_clause(certify(network, "onnx", path, weights_sha256=known))


def test_a_certificate_is_plain_values_in_json() -> None:
    result = TensorCertificate(3, 2, 1, ("a is missing", "b is missing", "c is missing"))
    assert result.failure == "a is missing (and 2 more)"
    verdict = Verdict("model.onnx", "onnxruntime", "float32", (), result)
    assert json.loads(json.dumps(verdict.to_dict()))["tensors"] == {
        "identical": 3,
        "recomputed": 2,
        "ulps": 1,
        "wrong": ["a is missing", "b is missing", "c is missing"],
        "graph_compared": False,
    }


@pytest.mark.parametrize(
    ("dtype", "epsilon"),
    [(torch.float64, 2e-5), (torch.float32, NORM_EPS)],
    ids=["an epsilon of 2e-5", "float32 arithmetic"],
)
def test_another_fold_is_found_in_every_layer(
    dtype: torch.dtype, epsilon: float, copy: ConvertedFolder
) -> None:
    refold(copy, dtype, epsilon)
    result = certificate(copy, "self-contained")
    kernels = [
        clause for clause in result.wrong if ".folded_weight differs from the fold" in clause
    ]
    assert len(kernels) == sum(name.endswith("convolution.weight") for name in copy.tensors)


def test_a_bias_that_cancels_may_be_off_by_what_float64_lost(tmp_path: Path) -> None:
    folder = small(tmp_path / "folder", "X")
    model: Any = reference(folder)
    _cancel(model.get_submodule(f"{STEM}.normalization"))
    model.save_pretrained(folder.path)
    folder = ConvertedFolder(folder.path)
    path = artefact(folder, "self-contained")
    export(folder, "self-contained").rename(path)
    assert certificate(folder, "self-contained").wrong == ()
    refold(folder, torch.float64, NORM_EPS)
    result = certificate(folder, "self-contained")
    assert result.wrong == ()
    assert result.ulps > 1
    refold(folder, torch.float32, NORM_EPS)
    wrong = certificate(folder, "self-contained").wrong
    assert f"{STEM}.folded_bias" in {clause.split()[0] for clause in wrong}


def _cancel(norm: Any) -> None:
    """Give each channel the scale whose product with its mean is nearest to a float32: its bias."""
    scales = torch.linspace(1, 2, 1 << 18)
    for channel, (mean, variance) in enumerate(
        zip(norm.running_mean, norm.running_var, strict=True)
    ):
        products = scales.double() * mean.double() / (variance.double() + NORM_EPS).sqrt()
        best = (products - products.float()).abs().argmin()
        norm.weight.data[channel] = scales[best]
        norm.bias.data[channel] = products[best]


@OWN_WEIGHTS
def test_the_lowest_bit_of_one_value_of_any_tensor_is_found(
    form: str, copy: ConvertedFolder
) -> None:
    path = artefact(copy, form)
    right = path.read_bytes()
    for name in held_names(copy, form):
        change_bytes(path, name, _flip_bit_0_of_the_last_value)
        clause = the_clause(certificate(copy, form))
        assert clause.startswith(f"{name} differs from the ")
        assert " in 1 of " in clause
        path.write_bytes(right)


def _flip_bit_0_of_the_last_value(data: bytearray) -> None:
    item = 8 if len(data) == 8 else 4  # a counter has one value of eight bytes
    data[-item] ^= 1


@OWN_WEIGHTS
@settings(deadline=None, max_examples=100)
@given(st.data())
def test_any_flipped_bit_is_found_in_exactly_its_tensor(
    form: str, network: ConvertedFolder, data: st.DataObject
) -> None:
    name = data.draw(st.sampled_from(held_names(network, form)))
    path = artefact(network, form)
    right = path.read_bytes()

    def flip(content: bytearray) -> None:
        bit = data.draw(st.integers(0, 8 * len(content) - 1))
        old = bytes(content)
        content[bit // 8] ^= 1 << bit % 8
        if "folded" in name:  # zeros of either sign compute the same
            assume(not np.array_equal(np.frombuffer(old, "<f4"), np.frombuffer(content, "<f4")))

    try:
        change_bytes(path, name, flip)
        clause = the_clause(certificate(network, form))
    finally:
        path.write_bytes(right)
    assert clause.startswith(f"{name} differs from the ")


def test_the_place_of_the_first_difference_is_told(copy: ConvertedFolder) -> None:
    def change(data: bytearray) -> None:
        for flat in (27, 100):  # of a kernel of shape [8, 3, 3, 3]
            data[4 * flat] ^= 1

    change_bytes(artefact(copy, "self-contained"), f"{STEM}.folded_weight", change)
    assert the_clause(certificate(copy, "self-contained")) == (
        f"{STEM}.folded_weight differs from the fold recomputed in float64 in 2 of 216 values, "
        "first at [1, 0, 0, 0]"
    )


@pytest.mark.parametrize(
    ("form", "name", "shape"),
    [
        ("torchscript", "classifier.1.weight", (10, 40)),
        ("self-contained", f"{STEM}.folded_weight", (8, 3, 3, 3)),
    ],
)
def test_all_differences_are_counted_over_several_blocks(
    form: str,
    name: str,
    shape: tuple[int, ...],
    copy: ConvertedFolder,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("converters.parity.contents.elements._BLOCK", 60)
    changed = (100, 101, 201)

    def change(data: bytearray) -> None:
        for flat in changed:
            data[4 * flat] ^= 1

    change_bytes(artefact(copy, form), name, change)
    first = [int(axis) for axis in np.unravel_index(changed[0], shape)]
    clause = the_clause(certificate(copy, form))
    assert clause.endswith(f" in 3 of {np.prod(shape)} values, first at {first}")


CHANGES: dict[str, Callable[[Array], Array]] = {
    "a NaN": lambda array: np.where(array == array.flat[0], np.float32("nan"), array),
    "zeros": np.zeros_like,
    "negated": np.negative,
    "channels reversed": lambda array: array[:, ::-1],
    "rows reversed": np.flipud,
    "transposed": lambda array: np.swapaxes(array, 0, 1),
    "rounded to float16": lambda array: array.astype(np.float16).astype(np.float32),
    "one unit further": lambda array: np.nextafter(array, np.float32(np.inf), dtype=np.float32),
}
"""Of a square kernel of 24 channels."""


@pytest.mark.parametrize("change", CHANGES)
@OWN_WEIGHTS
def test_a_changed_kernel_is_named(form: str, change: str, copy: ConvertedFolder) -> None:
    name = KERNEL if form == "torchscript" else f"{BLOCK}.layer.0.folded_weight"

    def apply(data: bytearray) -> None:
        array = np.frombuffer(bytes(data), "<f4").reshape(24, 24, 1, 1)
        data[:] = np.ascontiguousarray(CHANGES[change](array)).tobytes()

    change_bytes(artefact(copy, form), name, apply)
    assert the_clause(certificate(copy, form)).startswith(f"{name} differs from the ")


def test_a_nan_that_the_weights_hold_themselves_is_wrong_in_a_fold_only(tmp_path: Path) -> None:
    folder = small(tmp_path / "folder", "X")
    model = reference(folder)
    with torch.no_grad():
        model.get_parameter(f"{STEM}.convolution.weight")[0] = torch.nan
    model.save_pretrained(folder.path)  # type: ignore[operator]
    folder = ConvertedFolder(folder.path)
    for form in ("torchscript", "sharing"):
        assert certify(folder, FORMS[form][0], export(folder, form)).wrong == ()
    result = certify(folder, "onnx", export(folder, "self-contained"))
    assert the_clause(result).startswith(f"{STEM}.folded_weight differs")


@ALL_FORMS
@pytest.mark.parametrize("kept", [0, 1, 30, 1000, 0.5, 0.99], ids=str)
def test_a_truncated_artefact_is_not_certified(
    form: str, kept: float, copy: ConvertedFolder
) -> None:
    path = artefact(copy, form)
    data = path.read_bytes()
    path.write_bytes(data[: int(kept * len(data) if isinstance(kept, float) else kept)])
    assert the_clause(certificate(copy, form)).startswith("its tensors cannot be read (")


@OWN_WEIGHTS
@settings(deadline=None, max_examples=50)
@given(st.data())
def test_no_damage_ends_in_an_exception(
    form: str, network: ConvertedFolder, data: st.DataObject
) -> None:
    right = bytearray(artefact(network, form).read_bytes())
    path = artefact(network, form).with_name(f"damaged {form}")
    for position in data.draw(st.lists(st.integers(0, len(right) - 1), min_size=1, max_size=9)):
        right[position] = data.draw(st.integers(0, 255))
    path.write_bytes(right)
    certify(network, FORMS[form][0], path)


@ALL_FORMS
def test_an_artefact_that_is_not_there_is_not_certified(
    form: str, network: ConvertedFolder
) -> None:
    result = certify(network, FORMS[form][0], network.path / "none")
    reason = re.fullmatch(r"its tensors cannot be read \((.*)\)", the_clause(result))
    assert reason
    assert "o such file" in reason[1]


def test_a_folder_that_cannot_be_used_is_an_error(copy: ConvertedFolder) -> None:
    path = artefact(copy, "torchscript")
    (copy.path / "model.safetensors").unlink()
    with pytest.raises(InputError, match=r"has neither model\.safetensors nor"):
        certify(copy, "torchscript", path)
