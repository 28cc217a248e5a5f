"""The RegNets of keras.applications, beyond what recorded files tell."""

from __future__ import annotations

import io
import json
from typing import TYPE_CHECKING, Any

import h5py
import pytest
import torch

from converters.errors import InputError
from converters.families.known import FAMILIES
from converters.families.source import EvalTransform
from converters.jobs.writeback import write_back
from regnet import RegNetConfig, RegNetForImageClassification
from regnet.design_space import NETWORKS
from tests.converters.checkpoint.keras_files import (
    Arrays,
    arrays_in,
    entries,
    hdf5,
    keras,
    read_here,
)
from tests.converters.families.conversion import Converted, converted, refusal, source_of
from tests.frameworks.drawn import SMALL, images
from tests.frameworks.environments import RECORDED
from tests.frameworks.test_recorded import difference, recorded_logits

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

FILES = RECORDED / "keras-applications"

UNIT = EvalTransform(256, 224, 2, (0.0,) * 3, (1.0,) * 3)
"""What the network in Keras does to pixels, which is to divide them by 255."""


@pytest.fixture(autouse=True)
def here(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is confined is proven in `test_hdf5`."""
    read_here(monkeypatch)


def written(folder: Path, content: bytes, name: str = "net.h5") -> Path:
    (folder / name).write_bytes(content)
    return folder / name


def arrays_of(network: str) -> Arrays:
    """Its weights, by the names of layers and tensors."""
    arrays = arrays_in((FILES / f"{network}.h5").read_bytes())
    return {place.partition("/")[2]: array for place, array in arrays.items()}


def folder_of(network: str, place: Path) -> Converted:
    """A recorded network, converted."""
    return converted(written(place, (FILES / f"{network}.h5").read_bytes()))


def described(change: Callable[[list[dict[str, Any]]], object]) -> bytes:
    """The recorded archive with other words of its layers."""
    content = entries(FILES / "y.keras")
    config = json.loads(content["config.json"])
    change(config["config"]["layers"])
    return keras(config, content["model.weights.h5"])


def setting(layer: str, **values: Any) -> Callable[[list[dict[str, Any]]], object]:
    """Changes the settings of the layers whose names end so."""

    def change(layers: list[dict[str, Any]]) -> None:
        for each in layers:
            if each["config"]["name"].endswith(layer):
                each["config"].update(values)

    return change


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Converted:
    return folder_of("odd", tmp_path_factory.mktemp("odd"))


@torch.inference_mode()
@pytest.mark.parametrize("wrong", ["padding", "pixels"])
def test_another_padding_or_normalisation_is_seen_in_the_logits(
    wrong: str, folder: Converted
) -> None:
    pixels = torch.from_numpy(images())
    fields = folder.config.to_dict()
    assert fields["padding"] == "same"
    if wrong == "padding":
        fields["padding"] = "symmetric"
    else:
        mean, std = torch.tensor([[0.485, 0.456, 0.406], [0.229, 0.224, 0.225]])
        pixels = (pixels - mean[:, None, None]) / std[:, None, None]
    model = RegNetForImageClassification(RegNetConfig.from_dict(fields)).eval()
    model.load_state_dict(folder.classifier.state_dict())

    logits = model(pixels).logits.numpy()

    assert difference(logits, recorded_logits("keras-applications", "odd")) > 1e-3


def test_pixels_are_divided_by_255_alone(folder: Converted) -> None:
    assert source_of(FILES / "x.h5").transform == UNIT
    assert folder.processor.rescale_factor == 1 / 255
    assert (list(folder.processor.image_mean), list(folder.processor.image_std)) == (
        [0] * 3,
        [1] * 3,
    )


def test_the_folder_is_none_that_transformers_would_take(folder: Converted) -> None:
    stated = json.loads((folder.out / "config.json").read_text("utf-8"))

    assert stated["model_type"] == "anynet"
    assert stated["padding"] == "same"


@pytest.mark.parametrize(("model", "head"), [("regnetx002_", "7"), ("mine_2_", ""), ("stem_", "1")])
def test_models_of_any_name_are_read(model: str, head: str, tmp_path: Path) -> None:
    def named(level: str) -> str:
        if level.endswith("head_dense"):
            return f"{head}head_dense"
        return model + level.removeprefix("regnetx_") if level.startswith("regnetx_") else level

    renamed = {"/".join(map(named, at.split("/"))): a for at, a in arrays_of("x").items()}
    source = source_of(written(tmp_path, hdf5(renamed)))

    assert source.framework == "keras-applications"
    assert source.tensors.keys() == source_of(FILES / "x.h5").tensors.keys()


def test_a_file_without_the_top_is_a_trunk(tmp_path: Path) -> None:
    left = {place: array for place, array in arrays_of("y").items() if "head" not in place}
    source = source_of(written(tmp_path, hdf5(left)))

    assert not source.has_classifier
    assert source.config.layer_type == "y"


def test_a_file_that_lacks_a_layer_is_refused(tmp_path: Path) -> None:
    left = {at: a for at, a in arrays_of("y").items() if "Stage_3_YBlock_1_conv_3x3/" not in at}
    path = written(tmp_path, hdf5(left))

    assert "has no grouped.conv" in refusal(lambda: source_of(path), "net.h5")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (setting("_stem_conv", padding="valid"), "regnety_stem_conv has padding 'valid'"),
        (setting("Stage_1_YBlock_0_conv_3x3", padding="valid"), "has padding 'valid'"),
        (setting("_stem_bn", epsilon=1e-3), "regnety_stem_bn has the epsilon 0.001"),
        (setting("_squeeze", activation="swish"), "squeeze has the activation swish"),
        (setting("_stem_relu", max_value=6.0), "has a ReLU with a limit or a slope"),
        (setting("_rescaling", scale=1 / 127.5, offset=-1), "and the offset -1"),
    ],
)
def test_what_a_description_says_and_keras_does_not_build_is_refused(
    change: Callable[[list[dict[str, Any]]], object], words: str, tmp_path: Path
) -> None:
    path = written(tmp_path, described(change), "net.keras")

    message = refusal(lambda: source_of(path), "net.keras")

    assert words in message
    assert "which no RegNet of keras.applications has" in message


@pytest.mark.parametrize("inside", [True, False])
def test_a_network_that_does_not_divide_pixels_itself_says_so(inside: bool, tmp_path: Path) -> None:
    def change(layers: list[dict[str, Any]]) -> None:
        if not inside:
            layers[:] = [each for each in layers if each["class_name"] != "Rescaling"]

    source = source_of(written(tmp_path, described(change), "net.keras"))

    reason = next(d.reason for d in source.decisions if d.topic == "evaluation transform")
    assert ("nothing says how images are made" in reason) is not inside
    assert source.transform == UNIT


def test_places_alone_say_nothing_of_padding_and_are_refused(tmp_path: Path) -> None:
    path = written(tmp_path, entries(FILES / "y.keras")["model.weights.h5"], "net.weights.h5")

    assert "nothing says which layers these are" in refusal(
        lambda: source_of(path), "net.weights.h5"
    )


def listed(content: bytes) -> list[tuple[str, list[str]]]:
    """Layers with weights in the order in which Keras loads them, without the model's name."""
    with h5py.File(io.BytesIO(content)) as file:
        layers = [
            (name, list(file[name].attrs["weight_names"])) for name in file.attrs["layer_names"]
        ]

    def short(name: bytes | str) -> str:
        text = name.decode() if isinstance(name, bytes) else name
        return "/".join(level[level.find("_") + 1 :] for level in text.split("/"))

    return [
        (short(name), [short(weight) for weight in weights]) for name, weights in layers if weights
    ]


@pytest.mark.parametrize("network", SMALL)
def test_what_is_written_lists_layers_as_keras_does(network: str, tmp_path: Path) -> None:
    """Its loader goes by their order."""
    out = folder_of(network, tmp_path).out
    for name in ("a.h5", "b.h5"):
        write_back(out, tmp_path / name, "keras-applications")

    content = (tmp_path / "a.h5").read_bytes()
    assert listed(content) == listed((FILES / f"{network}.h5").read_bytes())
    assert content == (tmp_path / "b.h5").read_bytes()


@pytest.mark.parametrize("name", NETWORKS)
def test_published_networks_have_the_names_that_keras_gives_them(name: str) -> None:
    known = FAMILIES["keras-applications"].family.knows
    config = NETWORKS[name].config(padding="same")
    size = name.partition("-")[2]
    number = float(size[:-2]) * (10 if size.endswith("GF") else 0.01)

    assert known(config) == f"regnet{config.layer_type}{number:03.0f}"
    assert known(RegNetConfig(padding="same", depths=[1, 1, 1, 1])) == "regnet"


def test_networks_of_the_other_padding_are_not_written(folder: Converted, tmp_path: Path) -> None:
    theirs = RECORDED / "kecam" / "x.h5"

    with pytest.raises(
        InputError, match="its padding is symmetric, that of keras-applications sam"
    ):
        write_back(theirs, tmp_path / "back.h5", "keras-applications")
    with pytest.raises(InputError, match="its padding is same, that of timm symmetric"):
        write_back(folder.out, tmp_path / "back", "timm")


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"hidden_act": "silu"}, "its activation is silu"),
        ({"embedding_size": 48}, "its stem has 48 channels, that of keras-applications 32"),
        ({"downsample_in_first_stage": False}, "its first stage does not downsample"),
        ({"layer_type": "y", "hidden_sizes": [30, 32, 64, 64]}, "30 channels squeezes to 8"),
        ({"head_size": 64}, "its head_size is 64, and no keras-applications network"),
        ({"hidden_sizes": [32, 64], "depths": [1, 1]}, "it has 2 stages, and keras-applications"),
    ],
)
def test_what_keras_cannot_build_is_refused(fields: dict[str, Any], words: str) -> None:
    usual = {"hidden_sizes": [8, 16, 24, 32], "depths": [1, 1, 1, 2], "groups_width": 2}
    family = FAMILIES["keras-applications"].family
    config = RegNetConfig(padding="same", num_labels=3, **usual)

    family.require_expressible(config, "net", has_classifier=True)
    other = RegNetConfig.from_dict(config.to_dict() | fields)
    with pytest.raises(InputError, match=words):
        family.require_expressible(other, "net", has_classifier=True)
