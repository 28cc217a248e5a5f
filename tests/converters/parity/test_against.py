"""A folder against the real network of the framework that its checkpoint comes from."""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import replace
from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file
from safetensors.torch import save_file as save_torch

from converters.checkpoint import StoredTensor, reader
from converters.cli.verify import verify_command
from converters.errors import StorageError
from converters.families import timm
from converters.families.known import FAMILIES
from converters.families.options import SourceOptions
from converters.folder.folder import ConvertedFolder
from converters.folder.inputs import verification_inputs
from converters.jobs.convert import convert
from converters.parity import loaded
from converters.parity.against import judge_source
from converters.parity.contents.source import certify_source
from converters.parity.report import Report
from converters.parity.truth import Truth
from converters.parity.verify import verify_folder
from converters.weights.inspection import inspected
from tests.converters.parity.wrong import STATE_MISTAKES
from tests.oracles.savers import save
from tests.oracles.transformers import classifier, trunk, twin

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from numpy.typing import NDArray

    from converters.families.keymap import Keymap
    from converters.parity.verdict import Verdict

    State = dict[str, NDArray[Any]]

BGR = ("pycls", "mmpretrain")
RGB = ("timm", "torchvision", "classy-vision", "transformers", "pytorchcv")
CLASSES = 10


def require(framework: str) -> None:
    package = FAMILIES[framework].family.package
    if find_spec(package) is None:
        pytest.skip(f"{package} is not installed")


def saved(framework: str, folder: Path, layer_type: str = "x") -> Path:
    """A checkpoint that the real framework saved."""
    require(framework)
    if framework != "transformers":
        return save(framework, folder, layer_type, CLASSES)[1]
    twin(classifier(layer_type=layer_type, num_labels=CLASSES)).save_pretrained(folder / "theirs")
    return folder / "theirs"


def converted(checkpoint: Path, **options: Any) -> ConvertedFolder:
    out = checkpoint.with_name("out")
    dtype, force = options.pop("dtype", None), options.pop("force", False)
    convert(checkpoint, out, **options, dtype=dtype, formats=(), force=force, verify=False)
    return ConvertedFolder(out)


def verdict_on(folder: ConvertedFolder, checkpoint: Path, **options: Any) -> Verdict:
    truth = Truth(folder, verification_inputs(folder.config.num_channels, 48))
    return judge_source(folder, truth, checkpoint, SourceOptions(**options) if options else None)


def outputs_failed(verdict: Verdict) -> bool:
    return any(measurement.failure for measurement in verdict.measurements)


def changed(folder: ConvertedFolder, change: Callable[[State], None]) -> ConvertedFolder:
    path = folder.path / "model.safetensors"
    state = load_file(path)
    change(state)
    save_file(state, path)
    return ConvertedFolder(folder.path)


@pytest.mark.parametrize("layer_type", ["x", "y"])
@pytest.mark.parametrize("framework", [*BGR, *RGB])
def test_a_folder_passes_against_the_real_network(
    framework: str, layer_type: str, tmp_path: Path
) -> None:
    if (framework, layer_type) == ("mmpretrain", "y"):
        pytest.skip("mmpretrain has no RegNetY")
    checkpoint = saved(framework, tmp_path, layer_type)

    verdict = verdict_on(converted(checkpoint), checkpoint)

    assert verdict.passed, verdict.reason
    assert verdict.artefact == checkpoint.name
    assert verdict.runtime.startswith(f"{FAMILIES[framework].family.package} ")
    assert 0 < verdict.worst("rms_ratio") < 4
    assert verdict.tensors is not None
    assert verdict.tensors.identical > 100


def flat_file(framework: str, folder: Path) -> Path:
    """A file of tensors alone, so that the network must be built from their shapes."""
    require(framework)
    network, _ = save(framework, folder, "y", CLASSES)
    torch.save(network.state_dict(), folder / "flat.pth")
    return folder / "flat.pth"


def without_counters(folder: Path) -> Path:
    """As files from before torch 0.4.1 are."""
    state = torch.load(flat_file("timm", folder))
    kept = {name: t for name, t in state.items() if not name.endswith("num_batches_tracked")}
    torch.save(kept, folder / "flat.pth")
    return folder / "flat.pth"


def timm_of_a_published_size(folder: Path) -> Path:
    import timm

    from tests.oracles.statistics import randomise

    network = randomise(timm.create_model("regnetx_002", num_classes=CLASSES))
    torch.save(network.state_dict(), folder / "flat.pth")
    return folder / "flat.pth"


def trunk_of_transformers(folder: Path) -> Path:
    twin(trunk()).save_pretrained(folder / "theirs")
    return folder / "theirs"


def trunk_of_timm(folder: Path) -> Path:
    from tests.oracles.timm import build

    torch.save(build(num_classes=0).state_dict(), folder / "flat.pth")
    return folder / "flat.pth"


def backbone_of(framework: str, head: str, folder: Path) -> Path:
    """The tensors of a real network without those of its head."""
    require(framework)
    network, _ = save(framework, folder, "x", CLASSES)
    state = {name: t for name, t in network.state_dict().items() if not name.startswith(head)}
    torch.save(state, folder / "flat.pth")
    return folder / "flat.pth"


def of_vissl(folder: Path, head: str | None) -> Path:
    pytest.importorskip("vissl")
    from tests.oracles import vissl

    tensors: dict[str, Any] = {}
    if head is not None:
        kinds: dict[str, Callable[[], Any]] = {
            "linear": lambda: vissl.mlp(vissl.WIDTH, CLASSES),
            "behind a batch norm": lambda: vissl.eval_mlp(vissl.WIDTH, vissl.WIDTH, CLASSES),
        }
        tensors = {f"0.{name}": tensor for name, tensor in kinds[head]().state_dict().items()}
    state = vissl.trunk(version=2).state_dict()
    torch.save(vissl.consolidated(state, tensors), folder / "vissl.torch")
    return folder / "vissl.torch"


def of_swag(folder: Path) -> Path:
    pytest.importorskip("classy_vision")
    from tests.converters.families.test_swag import Swag
    from tests.oracles.classy_vision import TINY, build, head

    torch.save(Swag(build(TINY), head("unused", 40, CLASSES)).state_dict(), folder / "swag.torch")
    return folder / "swag.torch"


FILES: dict[str, Callable[[Path], Path]] = {
    "pycls without cfg": lambda folder: flat_file("pycls", folder),
    "timm without config.json": lambda folder: flat_file("timm", folder),
    "timm without counters of batches": without_counters,
    "timm of a published size": timm_of_a_published_size,
    "a trunk of transformers": trunk_of_transformers,
    "a trunk of timm": trunk_of_timm,
    "a trunk of pycls": lambda folder: backbone_of("pycls", "head.", folder),
    "a trunk of torchvision": lambda folder: backbone_of("torchvision", "fc.", folder),
    "a trunk of pytorchcv": lambda folder: backbone_of("pytorchcv", "output.", folder),
    "a trunk of mmpretrain": lambda folder: backbone_of("mmpretrain", "head.", folder),
    "a trunk of ClassyVision": lambda folder: backbone_of("classy-vision", "_heads.", folder),
    "a trunk of VISSL": lambda folder: of_vissl(folder, None),
    "VISSL's linear head": lambda folder: of_vissl(folder, "linear"),
    "VISSL's head with a batch norm": lambda folder: of_vissl(folder, "behind a batch norm"),
    "SWAG": of_swag,
}


@pytest.mark.parametrize("kind", FILES)
def test_every_kind_of_file_meets_its_real_network(kind: str, tmp_path: Path) -> None:
    checkpoint = FILES[kind](tmp_path)

    verdict = verdict_on(converted(checkpoint), checkpoint)

    assert verdict.passed, verdict.reason
    assert verdict.measurements


FAULTS = [name for name in STATE_MISTAKES if "2e-5" not in name]
"""An epsilon twice as large is lost in the rounding of a small network's outputs."""


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("framework", [*BGR, *RGB])
def test_wrong_weights_fail_by_what_they_compute_and_by_their_tensors(
    framework: str, fault: str, tmp_path: Path
) -> None:
    checkpoint = saved(framework, tmp_path)
    folder = changed(converted(checkpoint), STATE_MISTAKES[fault])

    verdict = verdict_on(folder, checkpoint)

    assert not verdict.passed
    assert outputs_failed(verdict)
    assert verdict.tensors is not None
    assert "differs from the checkpoint's" in str(verdict.tensors.failure)


KEYMAPS = {
    "pycls": ("converters.families.pycls", "PYCLS"),
    "timm": ("converters.families.timm", "TIMM"),
    "torchvision": ("converters.families.torchvision", "TORCHVISION"),
    "mmpretrain": ("converters.families.openmmlab", "OPENMMLAB"),
    "classy-vision": ("converters.families.classy_vision", "CLASSY_VISION"),
    "pytorchcv": ("converters.families.pytorchcv", "PYTORCHCV"),
}


@pytest.mark.parametrize("framework", KEYMAPS)
def test_a_keymap_that_confuses_two_layers_is_seen_by_the_real_network_alone(
    framework: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint = saved(framework, tmp_path)
    place, name = KEYMAPS[framework]
    module = import_module(place)
    right: Keymap = getattr(module, name)
    rows = dict(right.rows)
    rows["reduce.norm"], rows["grouped.norm"] = rows["grouped.norm"], rows["reduce.norm"]
    wrong = replace(right, rows=rows)
    monkeypatch.setattr(module, name, wrong)
    monkeypatch.setattr(module, "FAMILY", replace(module.FAMILY, keymap=wrong))
    if framework == "timm":  # which chooses among several
        monkeypatch.setattr(module, "dialect_of", lambda _: (wrong, {}))

    verdict = verdict_on(converted(checkpoint), checkpoint)

    assert outputs_failed(verdict)
    assert verdict.tensors is not None
    assert not verdict.tensors.wrong  # they went where the plan says, and the plan is wrong


@pytest.mark.parametrize("framework", BGR)
def test_a_folder_converted_for_the_wrong_channel_order_fails(
    framework: str, tmp_path: Path
) -> None:
    checkpoint = saved(framework, tmp_path)
    folder = converted(checkpoint, channel_order="rgb")

    assert outputs_failed(verdict_on(folder, checkpoint))
    assert verdict_on(folder, checkpoint, channel_order="rgb").passed


@pytest.mark.parametrize("framework", BGR)
def test_a_folder_is_verified_by_the_choices_it_was_converted_with(
    framework: str, tmp_path: Path
) -> None:
    checkpoint = saved(framework, tmp_path)
    folder = converted(checkpoint, channel_order="rgb")

    report = verify_folder(folder, against=checkpoint)
    assert report.passed, report.failures
    said = "the source was read as conversion.json says that it was asked for: channel order rgb"
    assert said in report.not_checked
    own = SourceOptions()
    assert outputs_failed(
        verify_folder(folder, against=checkpoint, source_options=own).verdicts[-1]
    )


def test_strict_wants_the_framework(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoint = saved("timm", tmp_path)
    folder = converted(checkpoint)
    monkeypatch.setattr(timm, "FAMILY", replace(timm.FAMILY, package="timm_of_nowhere"))
    verify_command(folder.path, against=checkpoint, quiet=True)
    with pytest.raises(StorageError, match=r"was not run \(timm_of_nowhere is not installed"):
        verify_command(folder.path, against=checkpoint, strict=True, quiet=True)


def test_the_raw_weights_fail_where_the_framework_takes_the_averaged_ones(tmp_path: Path) -> None:
    checkpoint = saved("pycls", tmp_path)
    content = torch.load(checkpoint, weights_only=False)
    raw = content["model_state"]
    averaged = {name: t * 1.01 if t.is_floating_point() else t for name, t in raw.items()}
    content |= {"ema_state": averaged, "test_err": 30.0, "ema_err": 20.0}
    torch.save(content, checkpoint)

    assert outputs_failed(verdict_on(converted(checkpoint, weights="raw"), checkpoint))


@pytest.mark.parametrize(
    ("field", "value"), [("hidden_act", "silu"), ("downsample_in_first_stage", False)]
)
@pytest.mark.parametrize(
    "framework", ["pycls", "timm", "torchvision", "classy-vision", "pytorchcv"]
)
def test_a_configuration_that_no_tensor_contradicts_fails(
    framework: str, field: str, value: object, tmp_path: Path
) -> None:
    checkpoint = saved(framework, tmp_path)
    path = converted(checkpoint).path
    config = json.loads((path / "config.json").read_text("utf-8")) | {field: value}
    (path / "config.json").write_text(json.dumps(config), "utf-8")

    verdict = verdict_on(ConvertedFolder(path), checkpoint)

    assert outputs_failed(verdict)
    assert verdict.tensors is not None
    assert not verdict.tensors.wrong


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float64"])
def test_a_folder_in_another_type_is_judged_by_what_rounding_to_it_costs(
    dtype: Any, tmp_path: Path
) -> None:
    checkpoint = saved("timm", tmp_path)
    folder = converted(checkpoint, dtype=dtype)

    verdict = verdict_on(folder, checkpoint)

    assert verdict.passed, verdict.reason
    assert verdict.tensors is not None
    assert verdict.tensors.recomputed > 100


def flat(framework: str, folder: Path, container: str) -> Path:
    """The tensors of a real network in one of the containers, its convolutions channels last."""
    require(framework)
    network, _ = save(framework, folder, "x", CLASSES)
    state = network.to(memory_format=torch.channels_last).state_dict()
    path = folder / f"flat.{container}"
    if container == "safetensors":
        save_torch({name: tensor.contiguous() for name, tensor in state.items()}, path)
    else:
        torch.save(state, path, _use_new_zipfile_serialization=container == "zip")
    return path


def strides_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(StoredTensor, "is_contiguous", True)


def two_tensors_exchanged(monkeypatch: pytest.MonkeyPatch) -> None:
    def exchanged(file: Any) -> Any:
        tree, metadata = read(file)
        if file.name.startswith("flat"):  # and not the folder's own weights
            one, other = (f"s1.b1.conv{layer}.bn.running_var" for layer in (1, 2))
            assert tree[one].shape == tree[other].shape
            tree[one], tree[other] = tree[other], tree[one]
        return tree, metadata

    read = reader.read_safetensors
    monkeypatch.setattr(reader, "read_safetensors", exchanged)


@pytest.mark.parametrize("container", ["zip", "legacy", "safetensors"])
def test_a_fault_of_our_own_reader_is_seen(
    container: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint = flat("timm", tmp_path, container)
    right = verdict_on(converted(checkpoint), checkpoint)
    assert right.passed, right.reason
    assert right.not_compared is None
    (two_tensors_exchanged if container == "safetensors" else strides_ignored)(monkeypatch)

    wrong = verdict_on(converted(checkpoint, force=True), checkpoint)

    assert wrong.tensors is not None
    assert "differs from the checkpoint's" in str(wrong.tensors.failure)
    assert outputs_failed(wrong)


def test_a_file_that_torch_cannot_load_safely_is_read_by_our_reader_which_is_said(
    tmp_path: Path,
) -> None:
    checkpoint = saved("pycls", tmp_path)
    content = torch.load(checkpoint, weights_only=False)
    torch.save(content | {"args": argparse.Namespace(lr=0.1)}, checkpoint)

    verdict = verdict_on(converted(checkpoint), checkpoint)

    assert verdict.passed, verdict.reason
    assert "read by this project's own reader, for torch.load(weights_only=True)" in str(
        verdict.not_compared
    )


def test_a_tensor_that_its_own_library_reads_otherwise_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint = flat("timm", tmp_path, "zip")
    folder = converted(checkpoint)
    monkeypatch.setattr(loaded, "_found_in", lambda _: lambda _: torch.zeros(3))

    verdict = verdict_on(folder, checkpoint)

    assert not verdict.passed
    assert "its own library finds stem.conv.weight to be float32 of shape [3]" in verdict.reason


def test_surplus_tensors_and_other_types_are_named(tmp_path: Path) -> None:
    checkpoint = saved("timm", tmp_path)
    folder = changed(converted(checkpoint), lambda state: state.update(extra=np.ones(3)))

    with inspected(checkpoint, SourceOptions(), "float16") as (opened, inspection):
        proof = certify_source(folder, opened, inspection.plan)

    assert proof.wrong[0].endswith("is float32 where the plan has float16")
    assert proof.wrong[-1] == "extra is no tensor of the checkpoint"


def test_a_framework_that_is_not_installed_is_said_and_no_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint = saved("timm", tmp_path)
    folder = converted(checkpoint)
    monkeypatch.setattr(timm, "FAMILY", replace(timm.FAMILY, package="timm_of_nowhere"))

    verdict = verdict_on(folder, checkpoint)

    why = "timm_of_nowhere is not installed (pip install timm-of-nowhere)"
    assert verdict.outcome == "not run"
    assert verdict.not_run == why
    assert verdict.reason == f"its tensors are proven; not run: {why}"
    assert Report((verdict,)).passed
    wrong = changed(folder, STATE_MISTAKES["the BGR flip forgotten"])
    assert not verdict_on(wrong, checkpoint).passed


def test_a_framework_that_cannot_be_imported_is_said_and_no_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint = saved("timm", tmp_path)
    monkeypatch.setitem(sys.modules, "torchvision", None)
    torch.save(torch.load(checkpoint / "pytorch_model.bin"), tmp_path / "flat.pth")

    verdict = verdict_on(converted(tmp_path / "flat.pth"), tmp_path / "flat.pth")

    assert verdict.passed
    assert verdict.not_run
    assert verdict.not_run.startswith("timm cannot be imported (")


def test_a_network_that_its_framework_cannot_load_fails_in_words(tmp_path: Path) -> None:
    checkpoint = saved("timm", tmp_path)
    folder = converted(checkpoint)
    stated = json.loads((checkpoint / "config.json").read_text("utf-8"))
    stated["architecture"] = "resnet18"
    stated.pop("model_args")
    (checkpoint / "config.json").write_text(json.dumps(stated), "utf-8")

    verdict = verdict_on(folder, checkpoint)

    assert not verdict.passed
    assert "its own framework cannot run it" in str(verdict.failure)
