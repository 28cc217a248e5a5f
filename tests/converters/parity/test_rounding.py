"""Reduced precision has its own unit: real half and int8 artefacts pass, wrong ones fail."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import pytest
import torch
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process
from onnxruntime.transformers.float16 import convert_float_to_float16
from safetensors.torch import load_file, save_file

from converters.errors import InputError
from converters.folder.folder import ConvertedFolder
from converters.formats.onnx.runtime import OnnxRuntime
from converters.formats.reference import ReferenceRuntime
from converters.parity.rounding import rounded
from converters.parity.truth import run
from converters.parity.verdict import Measurement, Verdict, judge
from regnet.config import RegNetConfig
from regnet.model import RegNetModel
from tests.converters.formats.random_folder import random_folder
from tests.converters.parity.networks import _SMALL, Network, export, random_network
from tests.converters.parity.wrong import GRAPH_MISTAKES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from numpy.typing import NDArray

    from converters.formats.runtime import Runtime

NAMES = pytest.mark.parametrize("name", ["X", "Y", "deep", "thousand classes"])


class Calibration(CalibrationDataReader):  # type: ignore[misc]
    """The network's own verification inputs."""

    def __init__(self, network: Network) -> None:
        self._batches: Iterator[dict[str, NDArray[Any]]] = iter(
            {"pixel_values": pixels} for pixels in network.truth.inputs_for("int8").values()
        )

    def get_next(self) -> dict[str, NDArray[Any]] | None:
        return next(self._batches, None)


def to_float16(path: Path, _: Network) -> None:
    model = convert_float_to_float16(onnx.load(path), keep_io_types=True)
    onnx.save(model, path)


def to_int8(path: Path, network: Network) -> None:
    prepared = path.with_suffix(".prepared.onnx")
    quant_pre_process(path, prepared, skip_symbolic_shape=True)
    quantize_static(
        prepared,
        path,
        Calibration(network),
        quant_format=QuantFormat.QDQ,
        per_channel=True,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
    )


REDUCED: dict[str, Callable[[Path, Network], None]] = {"float16": to_float16, "int8": to_int8}


MISTAKES = (
    "two tensors of equal shape swapped",
    "classes reversed",
    "another stride",
    "the BGR flip forgotten",
)


def judged(network: Network, runtime: Runtime, precision: str) -> Verdict:
    truth = network.truth
    outputs = run(runtime, truth.inputs_for(precision))
    measured = judge(outputs, truth.units(precision), truth.oracle, precision)
    return Verdict("artefact", runtime.name, precision, measured)


def worst(measurements: tuple[Measurement, ...]) -> float:
    return max(m.rms_ratio or np.inf for m in measurements)


@NAMES
@pytest.mark.parametrize("precision", REDUCED)
def test_a_real_reduced_artefact_passes_in_its_unit_and_not_in_float32s(
    name: str, precision: str, tmp_path: Path
) -> None:
    network = random_network(tmp_path, name)
    path = export(network.folder, "self-contained")
    REDUCED[precision](path, network)
    runtime = OnnxRuntime(path)
    verdict = judged(network, runtime, precision)
    assert verdict.passed, verdict.failure
    assert worst(verdict.measurements) > 0.1
    assert not judged(network, runtime, "float32").passed


@pytest.mark.parametrize("seed", [0, 1, 3])
def test_where_gates_are_shut_float16_errs_as_its_unit_says(seed: int, tmp_path: Path) -> None:
    """Numbers below float16's normal ones, and means of few values, are rounded as well."""
    config = RegNetConfig(**_SMALL | {"hidden_sizes": (8,), "depths": (1,)})
    random_folder(tmp_path / "usual", config, classifier=False, seed=seed)
    model = RegNetModel.from_pretrained(tmp_path / "usual")
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, torch.nn.Conv2d) and module.bias is not None:
                module.weight *= 30
    model.save_pretrained(tmp_path / "shut")
    network = Network.of(ConvertedFolder(tmp_path / "shut"))
    path = export(network.folder, "self-contained")
    to_float16(path, network)
    verdict = judged(network, OnnxRuntime(path), "float16")
    assert verdict.passed, verdict.failure
    assert 0.2 < worst(verdict.measurements) < 1.2


def test_a_lone_logit_that_lies_beside_one_of_float16_is_not_expected_to_be_there(
    tmp_path: Path,
) -> None:
    """All draws of a network without noise round to it; an artefact may give the one beside it."""
    network = random_network(tmp_path, "one class")
    state = load_file(tmp_path / "model.safetensors")
    state["classifier.1.weight"][:] = 0
    state["classifier.1.bias"][:] = 2.0019  # float16 has 2.00195
    save_file(state, tmp_path / "model.safetensors", {"format": "pt"})
    network = Network.of(ConvertedFolder(tmp_path))
    step = float(np.spacing(np.float16(2)))
    for named in network.truth.units("float16").values():
        assert named["logits"].rms > 0.2 * step


@pytest.mark.parametrize(
    ("precision", "mistake"),
    [
        *((p, m) for p in REDUCED for m in MISTAKES),
        ("float16", "a NaN"),  # ONNX Runtime's quantiser refuses it
    ],
)
def test_a_wrong_reduced_artefact_fails(precision: str, mistake: str, tmp_path: Path) -> None:
    network = random_network(tmp_path, "thousand classes")
    path = export(network.folder, "self-contained")
    model = onnx.load(path)
    GRAPH_MISTAKES[mistake](model, path.parent)
    onnx.save(model, path)
    REDUCED[precision](path, network)
    assert not judged(network, OnnxRuntime(path), precision).passed


@NAMES
@pytest.mark.parametrize("precision", ["float16", "bfloat16"])
def test_pytorchs_own_half_precision_passes(name: str, precision: str, tmp_path: Path) -> None:
    network = random_network(tmp_path, name)
    verdict = judged(network, Half(network, precision), precision)
    assert verdict.passed, verdict.failure


class Half:
    """The reference in PyTorch's own half precision."""

    def __init__(self, network: Network, precision: str) -> None:
        reference = ReferenceRuntime(network.folder)
        self.name, self.precision = reference.name, precision
        self._dtype: torch.dtype = getattr(torch, precision)
        self._model = reference.model.to(self._dtype)

    def __call__(self, pixel_values: NDArray[np.float32]) -> dict[str, NDArray[np.floating]]:
        with torch.inference_mode():
            logits = self._model(torch.from_numpy(pixel_values).to(self._dtype)).logits
        return {"logits": logits.float().numpy()}


def test_precisions_without_a_rule_are_refused() -> None:
    with pytest.raises(InputError, match=r"compute in int4; verify one in float32 or float16"):
        rounded("int4")
