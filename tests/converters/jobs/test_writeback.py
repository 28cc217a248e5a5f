"""Back again: the real frameworks load what is written for them, and nothing is lost on the way."""

from __future__ import annotations

import json
import tracemalloc
from dataclasses import dataclass, replace
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import pytest
import torch
from safetensors.torch import load_file

from converters.errors import InputError
from converters.families.known import target_named
from converters.families.options import SourceOptions
from converters.families.pycls_config import SAYS
from converters.families.words import Word
from converters.jobs.conversion import ConvertOptions
from converters.jobs.convert import convert
from converters.jobs.writeback import ReadBackError, write_back
from converters.weights.inspection import inspected
from converters.weights.stream import write_weights
from regnet import RegNetConfig, RegNetForImageClassification, RegNetModel
from regnet.design_space import NETWORKS
from regnet.image_processor import RegNetImageProcessor
from tests.oracles.loaders import load
from tests.oracles.savers import save
from tests.oracles.transformers import classifier, images, trunk

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor, nn

    from converters.families.family import Network

FRAMEWORKS = {
    "timm": "timm",
    "torchvision": "torchvision",
    "pycls": "pycls",
    "classy-vision": "classy_vision",
    "mmpretrain": "mmpretrain",
    "pytorchcv": "pytorchcv",
    "vissl": "vissl",
}
"""Name for `--to` to the module that must be there to try it."""

ON_BGR = {"pycls", "mmpretrain"}
RULED: dict[str, Any] = {
    "embedding_size": 24,
    "hidden_sizes": [16, 24, 40, 64],
    "depths": [1, 1, 1, 3],
    "groups_width": 8,
}
"""A network that follows the linear rule."""


def installed(framework: str) -> str:
    if find_spec(FRAMEWORKS[framework]) is None:
        pytest.skip(f"{framework} is not installed")
    return framework


def converted(folder: Path, network: RegNetForImageClassification | RegNetModel) -> Path:
    """Make the folder that a conversion of the network would leave."""
    network.config.architectures = [type(network).__name__]  # type: ignore[attr-defined]
    network.save_pretrained(folder)
    RegNetImageProcessor(size=64, crop_pct=64 / 72).save_pretrained(folder)
    (folder / "conversion.json").write_text("{}")
    return folder


def same_bytes(ours: Tensor, theirs: Tensor) -> bool:
    return ours.dtype == theirs.dtype and ours.numpy().tobytes() == theirs.numpy().tobytes()


def pixels_for(framework: str, pixels: Tensor) -> Tensor:
    return pixels.flip(1) if framework in ON_BGR else pixels


@torch.inference_mode()
def relative_difference(framework: str, network: nn.Module, ours: nn.Module) -> float:
    pixels = images()
    theirs = network.double()(pixels_for(framework, pixels.double()))
    expected = ours.double()(pixels.double()).logits
    network.float()
    ours.float()
    return float((theirs - expected).abs().max() / expected.abs().max())


@pytest.mark.parametrize("layer_type", ["x", "y"])
@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_the_real_framework_loads_it_strictly_and_computes_the_same(
    framework: str, layer_type: str, tmp_path: Path
) -> None:
    if (framework, layer_type) == ("mmpretrain", "y"):
        pytest.skip("OpenMMLab has RegNetX only")
    ours = classifier(**RULED, layer_type=layer_type, num_labels=7)
    folder = converted(tmp_path / "folder", ours)

    written = write_back(folder, tmp_path / "written", installed(framework))

    theirs = load(framework, written.path, ours.config)
    assert written.tensors == len(ours.state_dict())
    assert relative_difference(framework, theirs, ours) < 1e-13


def in_file(framework: str, path: Path) -> dict[str, Tensor]:
    """Names to tensors as they lie in a file of torch, in its order."""
    tree = torch.load(path, weights_only=True)
    if framework == "classy-vision":
        model = tree["classy_state_dict"]["base_model"]["model"]
        return {**model["trunk"], **model["heads"]["trunk_output"]["default_head"]}
    if framework == "vissl":
        model = tree["classy_state_dict"]["base_model"]["model"]
        return {f"{part}.{name}": t for part in model for name, t in model[part].items()}
    keys = {"pycls": "model_state", "mmpretrain": "state_dict"}
    state: dict[str, Tensor] = tree[keys[framework]] if framework in keys else tree
    return state


@pytest.mark.parametrize("framework", [name for name in FRAMEWORKS if name != "timm"])
def test_the_order_is_that_of_the_real_state_dict(framework: str, tmp_path: Path) -> None:
    ours = classifier(**RULED, layer_type="x", num_labels=7)
    path = tmp_path / "written"
    write_back(converted(tmp_path / "folder", ours), path, installed(framework))

    network = load(framework, path, ours.config)

    if framework == "classy-vision":
        network.clear_heads()  # type: ignore[operator]
        expected = [*network.state_dict(), "fc.weight", "fc.bias"]
    else:
        expected = list(network.state_dict())
    assert list(in_file(framework, path)) == expected


def cases() -> list[Any]:
    every = [(name, kind) for name in FRAMEWORKS for kind in "xy"]
    return [pytest.param(case, id="-".join(case)) for case in every if case != ("mmpretrain", "y")]


@dataclass(frozen=True)
class Origin:
    """A network of a real framework, what it saved, and the folder we made of that."""

    framework: str
    network: nn.Module
    path: Path
    folder: Path


@pytest.fixture(scope="module", params=cases())
def origin(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Origin:
    framework, layer_type = request.param
    place = tmp_path_factory.mktemp(f"{framework}-{layer_type}")
    network, path = save(installed(framework), place, layer_type)
    convert(path, place / "folder", formats=(), verify=False)
    return Origin(framework, network, path, place / "folder")


def test_from_a_framework_and_back_every_tensor_has_the_same_bytes(
    origin: Origin, tmp_path: Path
) -> None:
    written = write_back(origin.path, tmp_path / "written", origin.framework)

    config = RegNetConfig.from_pretrained(origin.folder)
    theirs = load(origin.framework, written.path, config).state_dict()
    source = origin.network.state_dict()
    assert written.report is not None
    assert written.report.passed
    assert list(theirs) == list(source)
    assert [name for name in source if not same_bytes(source[name], theirs[name])] == []


@pytest.mark.parametrize("other", FRAMEWORKS)
def test_through_another_framework_every_tensor_has_the_same_bytes(
    origin: Origin, other: str, tmp_path: Path
) -> None:
    if other == "mmpretrain" and RegNetConfig.from_pretrained(origin.folder).layer_type == "y":
        pytest.skip("OpenMMLab has RegNetX only")

    written = write_back(origin.folder, tmp_path / "written", other)

    with inspected(written.path, SourceOptions()) as (checkpoint, inspection):
        write_weights(checkpoint, inspection.plan, tmp_path)
        assert inspection.source.framework == other
    weights = "model.safetensors"
    assert (tmp_path / weights).read_bytes() == (origin.folder / weights).read_bytes()


def test_a_forgotten_flip_would_show(tmp_path: Path) -> None:
    ours = classifier(**RULED, layer_type="x")
    write_back(converted(tmp_path / "folder", ours), tmp_path / "written", "pycls")

    theirs = load("pycls", tmp_path / "written", ours.config)

    assert relative_difference("as if on RGB", theirs, ours) > 1e-2


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_it_has_the_same_bytes_every_time(framework: str, tmp_path: Path) -> None:
    folder = converted(tmp_path / "folder", classifier(**RULED, layer_type="x"))
    outs = [tmp_path / "one", tmp_path / "another-place"]
    for out in outs:
        write_back(folder, out, framework)

    first, second = (
        {file.name: file.read_bytes() for file in out.iterdir()}
        if out.is_dir()
        else {"": out.read_bytes()}
        for out in outs
    )

    assert first == second
    assert not [name for name, content in first.items() if str(tmp_path).encode() in content]


@pytest.mark.parametrize(
    ("framework", "fields", "words"),
    [
        ("mmpretrain", {"layer_type": "y"}, "it is a RegNetY, and mmpretrain has RegNetX only"),
        ("pycls", {"num_channels": 1}, "it takes 1 channels, and the stem of pycls takes three"),
        ("torchvision", {"num_channels": 4}, "it takes 4 channels"),
        ("classy-vision", {"num_channels": 4}, "it takes 4 channels"),
        ("timm", {"hidden_act": "selu"}, "its activation is selu, which no timm file can say"),
        ("timm", {"hidden_act": "silu", "layer_type": "y"}, "its activation is silu"),
        ("timm", {"downsample_in_first_stage": False}, "first stage does not downsample"),
        ("mmpretrain", {"hidden_act": "silu"}, "its activation is silu"),
        ("classy-vision", {"hidden_act": "gelu"}, "its activation is gelu"),
        ("pytorchcv", {"hidden_act": "silu"}, "its activation is silu"),
        ("pytorchcv", {"downsample_in_first_stage": False}, "first stage does not downsample"),
        ("pytorchcv", {"embedding_size": 27, "layer_type": "y"}, "27 channels squeezes to 7"),
        ("vissl", {"num_channels": 1}, "the stem of vissl takes three"),
        ("vissl", {"hidden_act": "silu"}, "its activation is silu"),
        ("vissl", {"downsample_in_first_stage": False}, "first stage does not downsample"),
        ("mlx-image", {"num_channels": 1}, "the stem of mlx-image takes three"),
        ("mlx-image", {"hidden_act": "silu"}, "its activation is silu"),
        ("mlx-image", {"downsample_in_first_stage": False}, "first stage does not downsample"),
        ("keras", {"embedding_size": 48}, "stem has 48 channels, that of keras 32"),
        ("keras", {"embedding_size": 32, "hidden_act": "silu"}, "its activation is silu"),
        ("keras", {"embedding_size": 32, "depths": [3, 1, 1, 1]}, "gives no widths 16/24/40/64"),
        ("pycls", {"hidden_act": "selu"}, "its activation is selu, which no pycls file can say"),
        ("pycls", {"hidden_act": "silu", "layer_type": "y"}, "its se_act is relu, which no pycls"),
        ("torchvision", {"downsample_in_first_stage": False}, "first stage does not downsample"),
        (
            "timm",
            {"hidden_sizes": [16, 24, 40], "depths": [1, 2, 1]},
            "3 stages, and timm builds 4",
        ),
        (
            "mmpretrain",
            {"hidden_sizes": [8, 16, 24, 32, 40], "depths": [1] * 5},
            "5 stages, and mmpretrain builds 1 to 4",
        ),
        ("timm", {"depths": [3, 1, 1, 1]}, "linear rule, which gives no widths 16/24/40/64"),
        ("timm", {"hidden_sizes": [64, 40, 24, 16]}, "gives no widths 64/40/24/16 at depths"),
    ],
)
def test_a_network_that_the_framework_cannot_be_is_refused_by_name(
    framework: str, fields: dict[str, Any], words: str, tmp_path: Path
) -> None:
    ours = classifier(**RULED | {"layer_type": "x"} | fields)
    folder = converted(tmp_path / "folder", ours)

    with pytest.raises(InputError, match=words) as caught:
        write_back(folder, tmp_path / "written", framework)

    assert str(caught.value).startswith(f"folder cannot be written for {framework}: ")
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]


def test_a_checkpoint_is_refused_before_it_is_converted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, path = save("timm", tmp_path, "y")
    monkeypatch.setattr("converters.jobs.writeback.run_conversion", None)

    with pytest.raises(InputError, match="it is a RegNetY"):
        write_back(path, tmp_path / "written", "mmpretrain")


@pytest.mark.parametrize("framework", ["pycls", "torchvision", "pytorchcv"])
def test_a_trunk_is_refused_where_every_network_has_a_classifier(
    framework: str, tmp_path: Path
) -> None:
    folder = converted(tmp_path / "folder", trunk(**RULED))

    with pytest.raises(InputError, match=f"every RegNet of {framework} has one"):
        write_back(folder, tmp_path / "written", framework)


@pytest.mark.parametrize("framework", ["timm", "classy-vision", "mmpretrain", "vissl"])
def test_a_trunk_is_written_where_there_are_trunks(framework: str, tmp_path: Path) -> None:
    ours = trunk(**RULED, layer_type="x")
    folder = converted(tmp_path / "folder", ours)

    written = write_back(folder, tmp_path / "written", installed(framework))

    theirs = load(framework, written.path, ours.config).state_dict()
    assert len(theirs) == len(ours.state_dict()) == written.tensors


@pytest.mark.parametrize("channels", [1, 4, 5])
@pytest.mark.parametrize("framework", ["timm", "mmpretrain", "pytorchcv"])
def test_other_input_channels_are_kept_as_they_are(
    framework: str, channels: int, tmp_path: Path
) -> None:
    ours = classifier(**RULED, layer_type="x", num_channels=channels)
    folder = converted(tmp_path / "folder", ours)

    written = write_back(folder, tmp_path / "written", installed(framework))

    theirs = load(framework, written.path, ours.config)
    pixels = images(channels=channels)
    with torch.inference_mode():
        assert torch.equal(theirs(pixels), ours(pixels).logits)


@pytest.mark.parametrize(
    ("framework", "fields"),
    [
        ("timm", {"hidden_act": "silu"}),
        ("timm", {"hidden_act": "gelu"}),
        ("classy-vision", {"downsample_in_first_stage": False}),
        ("mmpretrain", {"downsample_in_first_stage": False}),
    ],
)
def test_what_no_tensor_shows_is_said_in_the_framework_s_words(
    framework: str, fields: dict[str, Any], tmp_path: Path
) -> None:
    ours = classifier(**RULED | fields, layer_type="x", num_labels=7)
    folder = converted(tmp_path / "folder", ours)

    written = write_back(folder, tmp_path / "written", installed(framework))

    theirs = load(framework, written.path, ours.config)
    assert relative_difference(framework, theirs, ours) < 1e-13
    plain = classifier(**RULED, layer_type="x", num_labels=7)
    assert relative_difference(framework, theirs, plain) > 1e-3


def test_a_network_that_reads_back_with_another_activation_is_not_published(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    silent = Word("MODEL.ACTIVATION_FUN", {"relu": "silu"}, "relu")
    monkeypatch.setattr("converters.families.pycls.SAYS", {**SAYS, "hidden_act": silent})
    folder = converted(tmp_path / "folder", classifier(**RULED, layer_type="x", hidden_act="silu"))

    with pytest.raises(ReadBackError, match=r"another network .*\(hidden_act is relu\)"):
        write_back(folder, tmp_path / "written", "pycls")


@pytest.mark.parametrize("activation", ["silu", "gelu"])
def test_pycls_is_told_the_activation_and_the_strides(activation: str, tmp_path: Path) -> None:
    fields = {"hidden_act": activation, "downsample_in_first_stage": False}
    ours = classifier(**RULED | fields, layer_type="x")
    folder = converted(tmp_path / "folder", ours)

    written = write_back(folder, tmp_path / "written", "pycls")

    with inspected(written.path, SourceOptions()) as (_, inspection):
        config = inspection.source.config
    assert (config.hidden_act, config.downsample_in_first_stage) == (activation, False)


@pytest.mark.parametrize("framework", ["timm", "pycls"])
def test_the_evaluation_transform_goes_along(framework: str, tmp_path: Path) -> None:
    folder = converted(tmp_path / "folder", classifier(**RULED, layer_type="x"))

    written = write_back(folder, tmp_path / "written", framework)

    with inspected(written.path, SourceOptions()) as (_, inspection):
        transform = inspection.source.transform
    assert (transform.resize, transform.crop) == (72, 64)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_other_dtypes_are_written_as_they_are(
    framework: str, dtype: torch.dtype, tmp_path: Path
) -> None:
    ours = classifier(**RULED, layer_type="x").to(dtype)
    folder = converted(tmp_path / "folder", ours)

    written = write_back(folder, tmp_path / "written", framework)

    if framework == "timm":
        state = load_file(written.path / "model.safetensors")
    else:
        state = in_file(framework, written.path)
    counters = {name for name in state if name.endswith("num_batches_tracked")}
    assert {state[name].dtype for name in counters} == {torch.int64}
    assert {state[name].dtype for name in state.keys() - counters} == {dtype}


def test_the_shards_of_a_folder_are_read_as_one(tmp_path: Path) -> None:
    ours = classifier(**RULED, layer_type="x")
    folder = converted(tmp_path / "folder", ours)
    (folder / "model.safetensors").unlink()
    ours.save_pretrained(folder, max_shard_size="50KB")

    written = write_back(folder, tmp_path / "written", "torchvision")

    theirs = load("torchvision", written.path, ours.config)
    assert len(list(folder.glob("model-*"))) > 2
    assert relative_difference("torchvision", theirs, ours) < 1e-13


def test_what_cannot_be_read_back_is_not_published(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def only_the_stem(path: Path, network: Network) -> None:
        network.save(path, {"stem.0.weight": network.state_dict()["stem.0.weight"]})

    folder = converted(tmp_path / "folder", classifier(**RULED))
    target = replace(target_named("torchvision"), write=only_the_stem)
    monkeypatch.setattr("converters.jobs.writeback.target_named", lambda _: target)

    with pytest.raises(ReadBackError, match=r"torchvision cannot be read back .*; nothing was"):
        write_back(folder, tmp_path / "written", "torchvision")

    assert [path.name for path in tmp_path.iterdir()] == ["folder"]


def test_wrong_bytes_are_found_when_it_is_read_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = target_named("torchvision")

    def flipped(path: Path, network: Network) -> None:
        bgr = replace(target.preprocessing, channel_order="bgr")
        replace(network, target=replace(target, preprocessing=bgr)).write(path)

    folder = converted(tmp_path / "folder", classifier(**RULED))
    wrong = replace(target, write=flipped)
    monkeypatch.setattr("converters.jobs.writeback.target_named", lambda _: wrong)

    with pytest.raises(ReadBackError, match=r"differs .* in 1 tensors, first regnet\.embedder"):
        write_back(folder, tmp_path / "written", "torchvision")

    assert ReadBackError.exit_status == 1
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]


def test_what_exists_is_replaced_only_when_asked(tmp_path: Path) -> None:
    folder = converted(tmp_path / "folder", classifier(**RULED))
    file, place = tmp_path / "net.pth", tmp_path / "place"
    file.write_text("mine")
    place.mkdir()
    (place / "mine").touch()

    for out, framework in ((file, "torchvision"), (place, "timm")):
        with pytest.raises(InputError, match="exists already"):
            write_back(folder, out, framework)
        write_back(folder, out, framework, ConvertOptions(force=True))
    with pytest.raises(InputError, match="is a folder, and torchvision loads a file"):
        write_back(folder, place, "torchvision", ConvertOptions(force=True))
    with pytest.raises(InputError, match="is no folder; make it"):
        write_back(folder, tmp_path / "missing" / "net.pth", "torchvision")
    with pytest.raises(InputError, match="caffe is not among pycls, timm, "):
        write_back(folder, tmp_path / "net.h5", "caffe")

    assert sorted(path.name for path in place.iterdir()) == ["config.json", "model.safetensors"]
    assert set(tmp_path.iterdir()) == {folder, file, place}


def test_memory_stays_at_one_tensor_whatever_the_size(tmp_path: Path) -> None:
    wide: dict[str, Any] = {"hidden_sizes": [32, 1024], "depths": [1, 3], "groups_width": 64}
    folder = converted(tmp_path / "folder", classifier(**wide))
    write_back(folder, tmp_path / "warm", "torchvision")  # imports happen here

    tracemalloc.start()
    try:
        write_back(folder, tmp_path / "written", "torchvision")
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert (tmp_path / "written").stat().st_size > 20e6
    assert peak < 6e6


def test_a_published_network_gets_its_name_and_its_rule(tmp_path: Path) -> None:
    config = NETWORKS["RegNetX-200MF"].config(num_labels=3)
    folder = converted(tmp_path / "folder", RegNetForImageClassification(config))

    write_back(folder, tmp_path / "timm-net", "timm")
    write_back(folder, tmp_path / "net.pyth", "pycls")

    hub = json.loads((tmp_path / "timm-net" / "config.json").read_text(encoding="utf-8"))
    cfg = torch.load(tmp_path / "net.pyth", weights_only=True)["cfg"]
    assert hub["architecture"] == "regnetx_002"
    assert "model_args" not in hub
    assert "WM: 2.49" in cfg
    assert load("timm", tmp_path / "timm-net", config).num_classes == 3
