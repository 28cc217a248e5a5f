"""Keras' RegNets of kimm and kecam, beyond what recorded files tell."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import h5py
import numpy as np
import pytest
import torch

from converters.errors import InputError
from converters.families.known import FAMILIES
from converters.families.options import SourceOptions
from converters.jobs.writeback import write_back
from converters.weights.inspection import inspected
from regnet import RegNetConfig, RegNetForImageClassification
from tests.converters.checkpoint.keras_files import (
    Arrays,
    arrays_in,
    entries,
    functional,
    hdf5,
    keras,
    layer,
    read_here,
)
from tests.converters.families.conversion import converted, refusal, source_of
from tests.frameworks.drawn import SMALL, images
from tests.frameworks.environments import RECORDED
from tests.frameworks.test_recorded import difference, recorded_logits

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from regnet.files.dtypes import DType

KERNEL, NORM = ("kernel", "bias"), ("gamma", "beta", "moving_mean", "moving_variance")
SEED = {"layers/dropout/seed_generator/vars/0": np.zeros(2, np.uint32)}


@pytest.fixture(autouse=True)
def here(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is confined is proven in `test_hdf5`."""
    read_here(monkeypatch)


def network_of(network: str = "y") -> tuple[dict[str, Any], Arrays]:
    """Description and weights of a recorded archive, the weights by their places alone."""
    content = entries(RECORDED / "keras" / f"{network}.keras")
    return json.loads(content["config.json"]), arrays_in(content["model.weights.h5"])


def weights_of(path: Path) -> dict[str, bytes]:
    """What a file holds of its network, by names."""
    with inspected(path, SourceOptions()) as (checkpoint, inspection):
        tensors = inspection.source.tensors
        return {name: checkpoint.array(tensor).tobytes() for name, tensor in tensors.items()}


def written(folder: Path, content: bytes, name: str = "net.keras") -> Path:
    (folder / name).write_bytes(content)
    return folder / name


@pytest.mark.parametrize("network", SMALL)
def test_archives_that_state_no_names_are_read_by_kimms_order(network: str, tmp_path: Path) -> None:
    """As Keras before 3.6 wrote them, such as those that kimm published."""
    config, arrays = network_of(network)
    path = written(tmp_path, keras(config, hdf5(arrays | SEED)))

    assert weights_of(path) == weights_of(RECORDED / "keras" / f"{network}.keras")


def test_weights_alone_are_read_by_the_names_of_their_layers(tmp_path: Path) -> None:
    recorded = RECORDED / "keras" / "odd.keras"
    path = written(tmp_path, entries(recorded)["model.weights.h5"], "net.weights.h5")

    assert weights_of(path) == weights_of(recorded)
    assert source_of(path).transform.std[0] == pytest.approx(0.229**0.5)


def test_weights_alone_without_names_are_refused(tmp_path: Path) -> None:
    path = written(tmp_path, hdf5(network_of()[1]), "net.weights.h5")

    message = refusal(lambda: source_of(path), "net.weights.h5")

    assert "by their layers' places, and nothing says which layers these are" in message


@pytest.mark.parametrize("changes", [{"class_name": "ResNet50"}, {"module": "kimmy.models"}])
def test_places_of_another_network_are_refused(changes: dict[str, str], tmp_path: Path) -> None:
    config, arrays = network_of()
    path = written(tmp_path, keras(config | changes, hdf5(arrays)))

    message = refusal(lambda: source_of(path), "net.keras")

    assert f"says of the class {changes.get('class_name', 'RegNet')} alone" in message


@pytest.mark.parametrize("described", [True, False])
def test_a_network_in_another_is_refused(described: bool, tmp_path: Path) -> None:
    config, arrays = network_of()
    below = {f"layers/reg_net/{place}": array for place, array in arrays.items()}
    outer = functional(config, layer("Dense", "head")) if described else config
    path = written(tmp_path, keras(outer, hdf5(below)))

    message = refusal(lambda: source_of(path), "net.keras")

    assert "give a .keras file of the network alone" in message


@pytest.mark.parametrize(
    ("one", "other"), [("conv2d_12", "conv2d_11"), ("conv2d_2", "conv2d_1"), ("conv2d_3", "conv2d")]
)
def test_exchanged_layers_are_seen(one: str, other: str, tmp_path: Path) -> None:
    """Stages' widths differ from one another, so that no shortcut passes for a body's layer."""
    config, arrays = network_of()
    swapped = {one: other, other: one}

    def moved(place: str) -> str:
        levels = place.split("/")
        return "/".join(swapped.get(level, level) for level in levels)

    path = written(tmp_path, keras(config, hdf5({moved(place): a for place, a in arrays.items()})))

    refusal(lambda: source_of(path), "net.keras")


@pytest.mark.parametrize("other", ["conv2d_03", "conv2d_0", "conv2d_30", "conv2d_3_1"])
def test_a_layer_that_keras_would_not_look_for_is_not_taken(other: str, tmp_path: Path) -> None:
    config, arrays = network_of()
    more = {f"layers/{other}/vars/0": arrays["layers/conv2d_3/vars/0"] + 1}
    path = written(tmp_path, keras(config, hdf5(arrays | more)))

    refusal(lambda: source_of(path), "net.keras")


@pytest.mark.parametrize("gone", ["conv2d_7", "conv2d_29", "batch_normalization_3", "dense"])
def test_what_lacks_a_layer_is_refused(gone: str, tmp_path: Path) -> None:
    config, arrays = network_of()
    left = {place: array for place, array in arrays.items() if f"/{gone}/vars/0" not in place}
    path = written(tmp_path, keras(config, hdf5(left)))

    refusal(lambda: source_of(path), "net.keras")


@pytest.mark.parametrize(
    ("changes", "std", "crop"),
    [
        ({}, [0.229**0.5, 0.224**0.5, 0.225**0.5], 40),
        (
            {"include_preprocessing": False, "input_shape": [None, None, 3]},
            [0.229, 0.224, 0.225],
            224,
        ),
        ({"include_preprocessing": False, "input_shape": "?"}, [0.229, 0.224, 0.225], 224),
    ],
)
def test_images_are_normalised_as_kimm_does(
    changes: dict[str, Any], std: list[float], crop: int, tmp_path: Path
) -> None:
    config, arrays = network_of("x")
    config["config"].update(changes)
    source = source_of(written(tmp_path, keras(config, hdf5(arrays))))

    assert source.transform.std == pytest.approx(std)
    assert source.transform.mean == pytest.approx([0.485, 0.456, 0.406])
    assert (source.transform.crop, source.transform.resize) == (crop, round(crop / 0.875))


@pytest.mark.parametrize(("end", "told"), [("softmax", True), ("linear", False), (None, False)])
def test_the_end_of_a_network_that_is_left_out_is_told_of(
    end: str | None, told: bool, tmp_path: Path
) -> None:
    config, arrays = network_of("x")
    config["config"]["classifier_activation"] = end
    source = source_of(written(tmp_path, keras(config, hdf5(arrays))))

    assert any(decision.topic == "output" for decision in source.decisions) == told


def test_a_trunk_has_no_classifier(tmp_path: Path) -> None:
    config, arrays = network_of("x")
    config["config"]["include_top"] = False
    trunk = {place: array for place, array in arrays.items() if "dense" not in place}
    source = source_of(written(tmp_path, keras(config, hdf5(trunk))))

    assert not source.has_classifier
    assert not any(decision.topic == "output" for decision in source.decisions)


def ours(folder: Path, dtype: DType = "float32") -> Path:
    """A converted folder."""
    path = written(folder, (RECORDED / "keras" / "y.keras").read_bytes())
    return converted(path, dtype=dtype).out


def test_what_is_written_is_the_same_every_time(tmp_path: Path) -> None:
    folder = ours(tmp_path)
    for name in ("a.keras", "b.keras"):
        write_back(folder, tmp_path / name, "keras")

    assert (tmp_path / "a.keras").read_bytes() == (tmp_path / "b.keras").read_bytes()
    assert list(entries(tmp_path / "a.keras")) == [
        "metadata.json",
        "config.json",
        "model.weights.h5",
    ]
    assert not list(tmp_path.glob("*.h5"))


def test_what_hdf5_cannot_hold_is_refused(tmp_path: Path) -> None:
    folder = ours(tmp_path, dtype="bfloat16")

    with pytest.raises(InputError, match="cannot be written for keras in bfloat16"):
        write_back(folder, tmp_path / "back.keras", "keras")
    assert not (tmp_path / "back.keras").exists()


# kecam

ORDER = ("deep_1", "deep_2", "deep_2_se_1", "deep_2_se_2", "shortcut", "deep_3")
"""A block's convolutions in the order of kecam's layers, unlike kimm's."""

EXTRA: dict[str, Any] = {"epsilon": 1e-5, "padding": "valid", "activation": "linear"}


def kecam_archive(arrays: Mapping[str, np.ndarray], **changes: Any) -> bytes:
    """What `model.save` makes of kecam's weights, which are by name in an ``.h5``."""
    layers: dict[str, Arrays] = {}
    for place, array in arrays.items():
        name, leaf = place.split("/")
        layers.setdefault(name, {})[leaf.removesuffix(":0")] = array
    short = {name.replace("_GC", ""): name for name in layers}
    blocks = sorted({name.rpartition("_deep_1_conv")[0] for name in layers} - {""})
    order = ["stem_conv", "stem_bn"]
    order += [f"{block}_{name}_conv" for block in blocks for name in ORDER]
    order += [
        f"{block}_{name}_bn" for block in blocks for name in ("deep_1", "deep_2", "shortcut", "3")
    ]
    places, listed, seen = {}, [], {"conv2d": 0, "batch_normalization": 0, "dense": 0}
    for name in [short[name] for name in [*order, "predictions"] if name in short]:
        kind, class_name, leaves = "dense", "Dense", KERNEL
        if name.endswith("_conv"):
            kind, class_name = "conv2d", "Conv2D"
        elif name.endswith("_bn"):
            kind, class_name, leaves = "batch_normalization", "BatchNormalization", NORM
        group = f"layers/{kind}" + (f"_{seen[kind]}" if seen[kind] else "")
        seen[kind] += 1
        listed.append(layer(class_name, name, **EXTRA | changes))
        for leaf, array in layers[name].items():
            places[f"{group}/vars/{leaves.index(leaf)}"] = array
    return keras(functional(*listed), hdf5(places))


def kecams(network: str = "y") -> Arrays:
    """Kecam's weights, by the names of layers and tensors."""
    arrays = arrays_in((RECORDED / "kecam" / f"{network}.h5").read_bytes())
    return {place.partition("/")[2]: array for place, array in arrays.items()}


def test_kecams_archives_are_placed_by_their_description(tmp_path: Path) -> None:
    path = written(tmp_path, kecam_archive(kecams()))

    assert source_of(path).framework == "kecam"
    assert weights_of(path) == weights_of(RECORDED / "kecam" / "y.h5")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"epsilon": 1e-3}, "its layer stem_bn has the epsilon 0.001, which no RegNet"),
        ({"activation": "swish"}, "its layer stem_conv has the activation swish"),
        ({"padding": "same", "strides": [2, 2]}, "has padding 'same' at strides [2, 2]"),
    ],
)
def test_what_kecams_description_says_and_kecam_does_not_build_is_refused(
    changes: dict[str, Any], words: str, tmp_path: Path
) -> None:
    path = written(tmp_path, kecam_archive(kecams(), **changes))

    assert words in refusal(lambda: source_of(path), "net.keras")


@pytest.mark.parametrize("name", ["features_conv", "stem_1_conv", "stack1_block1_3_evo_norm"])
def test_what_kecams_regnetz_alone_has_is_refused_beside_shortcuts(
    name: str, tmp_path: Path
) -> None:
    other = {f"{name}/kernel:0": np.ones((1, 1, 8, 8), np.float32)}
    path = written(tmp_path, hdf5(kecams() | other), "net.h5")

    assert f"has {name}.kernel, as kecam's RegNetZ alone has" in refusal(
        lambda: source_of(path), "net.h5"
    )


Z_FIELDS: dict[str, dict[str, Any]] = {
    "z.h5": {"hidden_act": "relu", "se_act": "silu", "output_act": True, "strides": [1, 2, 2, 2]},
    "evo.keras": {
        "hidden_act": "relu",
        "se_act": "silu",
        "output_act": True,
        "strides": [2, 2, 2, 2],
        "stem_strides": [2, 2, 1],
        "norm_group_size": 8,
        "norm_eps": 1e-2,
    },
}
"""Of each recorded RegNetZ the fields that no shape shows, with another value."""

IN_EVO_NORM = "hidden_act"
"""What EvoNorm computes with itself, whatever the configuration says."""


@torch.inference_mode()
@pytest.mark.parametrize("network", Z_FIELDS)
def test_a_wrong_field_of_kecams_regnetz_is_seen(network: str, tmp_path: Path) -> None:
    content = (RECORDED / "kecam" / network).read_bytes()
    folder = converted(written(tmp_path, content, network))
    assert folder.config.expansion == 3
    assert folder.config.se_divisor == 8
    theirs = recorded_logits("kecam", network)

    for field, value in Z_FIELDS[network].items():
        wrong = RegNetConfig.from_dict(folder.config.to_dict() | {field: value})
        assert wrong.to_dict() != folder.config.to_dict(), field
        model = RegNetForImageClassification(wrong).eval()
        model.load_state_dict(folder.classifier.state_dict())
        error = difference(model(torch.from_numpy(images())).logits.numpy(), theirs)
        is_seen = error > 1e-3
        assert is_seen or (field == IN_EVO_NORM and network == "evo.keras"), field


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"num_groups": 3}, "has the number of groups 3, which no RegNet of kecam has"),
        ({"epsilon": 1e-5}, "has the epsilon 1e-05"),
    ],
)
def test_another_evo_norm_is_refused(changes: dict[str, Any], words: str, tmp_path: Path) -> None:
    content = entries(RECORDED / "kecam" / "evo.keras")
    config = json.loads(content["config.json"])
    for each in config["config"]["layers"]:
        if each["config"]["name"] == "stack1_block1_3_evo_norm":
            each["config"].update(changes)
    path = written(tmp_path, keras(config, content["model.weights.h5"]))

    assert words in refusal(lambda: source_of(path), "net.keras")


def listed(path: Path) -> list[tuple[str, str, tuple[int, ...], bytes]]:
    """Layer, name, shape and bytes of each weight, in the order in which Keras loads them."""
    with h5py.File(path) as file:
        return [
            (np.bytes_(layer).decode(), np.bytes_(name).decode(), array.shape, array.tobytes())
            for layer in file.attrs["layer_names"]
            for name in file[layer].attrs["weight_names"]
            if (array := file[layer][name][...]).size
        ]


@pytest.mark.parametrize("network", ["x", "y", "odd", "z"])
def test_what_is_written_for_kecam_is_what_kecam_lists(network: str, tmp_path: Path) -> None:
    recorded = RECORDED / "kecam" / f"{network}.h5"
    folder = converted(written(tmp_path, recorded.read_bytes(), "net.h5")).out
    for name in ("a.h5", "b.h5"):
        write_back(folder, tmp_path / name, "kecam")

    assert listed(tmp_path / "a.h5") == listed(recorded)
    assert (tmp_path / "a.h5").read_bytes() == (tmp_path / "b.h5").read_bytes()


Z: dict[str, Any] = {
    "hidden_sizes": [48, 96, 192, 288],
    "depths": [2, 6, 12, 2],
    "embedding_size": 32,
    "groups_width": 16,
    "layer_type": "y",
    "hidden_act": "silu",
    "expansion": 3.0,
    "expansion_of": "input",
    "se_of": "bottleneck",
    "se_divisor": 8,
    "shortcut": "none",
    "output_act": False,
    "head_size": 1536,
}
"""Its RegNetZ-B16."""

DEEP = {"stem_strides": [2, 1, 2], "strides": [1, 2, 2, 2]}
D8 = {**DEEP, "stem_sizes": [24, 32, 64], "hidden_sizes": [64, 128, 256, 384], "groups_width": 8}
E8 = {**D8, "hidden_sizes": [96, 192, 384, 512], "expansion": 4.0}
EVO = {**D8, "stem_sizes": [64] * 3, "expansion": 4.0, "norm": "evonorm-s0a", "norm_eps": 1e-3}


def require_expressible(config: RegNetConfig) -> None:
    FAMILIES["kecam"].family.require_expressible(config, "net", has_classifier=True)


@pytest.mark.parametrize("fields", [{}, {"expansion": 4.0}, E8, EVO])
def test_kecams_own_regnetz_are_written(fields: dict[str, Any]) -> None:
    require_expressible(RegNetConfig(**Z | fields))


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"hidden_act": "relu"}, "its hidden_act is relu"),
        ({"output_act": True}, "its output_act is True"),
        ({"se_act": "silu"}, "its se_act is silu"),
        ({"expansion_of": "output"}, "its expansion_of is output"),
        ({"se_of": "input"}, "its se_of is input"),
        ({"se_divisor": 1}, "its se_divisor is 1"),
        ({"norm_eps": 1e-3}, "its norm_eps is 0.001"),
        ({**EVO, "norm_eps": 1e-5}, "its norm_eps is 1e-05"),
        ({"head_size": 0, "final_act": True}, "its final_act is True"),
        ({"downsample_in_first_stage": False}, "its downsample_in_first_stage is False"),
        ({"strides": [2, 2, 2, 1]}, r"its strides is \[2, 2, 2, 1\]"),
        ({"stem_sizes": [32, 32, 32]}, r"its stem_sizes are \[32, 32, 32\]"),
        ({**D8, "stem_sizes": [24, 40, 64]}, r"its stem_sizes are \[24, 40, 64\]"),
        ({"hidden_sizes": [24, 96, 192, 288], "groups_width": 8}, "24 channels squeezes to 16"),
        ({"hidden_sizes": [48, 96, 192], "depths": [1, 1, 1]}, "it has 3 stages, and kecam"),
    ],
)
def test_what_no_regnetz_of_kecam_has_is_refused_by_name(
    fields: dict[str, Any], words: str
) -> None:
    with pytest.raises(InputError, match=words):
        require_expressible(RegNetConfig(**Z | fields))


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"hidden_act": "silu"}, "its hidden_act is silu"),
        ({"head_size": 64}, "its head_size is 64, as of kecam's networks RegNetZ's alone is"),
        ({"norm": "evonorm-s0a", "norm_eps": 1e-3}, "its norm is evonorm-s0a, as of kecam"),
        ({"expansion": 2.0}, "its expansion is 2.0, as of kecam"),
        ({"embedding_size": 34}, "34 channels squeezes to 8, and one of kecam to 9"),
        ({"padding": "same"}, "its padding is same, that of kecam symmetric"),
    ],
)
def test_what_no_other_regnet_of_kecam_has_is_refused_by_name(
    fields: dict[str, Any], words: str
) -> None:
    usual: dict[str, Any] = {
        "hidden_sizes": [16, 32, 64, 96],
        "depths": [1, 1, 1, 2],
        "groups_width": 8,
    }
    require_expressible(RegNetConfig(**usual))

    with pytest.raises(InputError, match=words):
        require_expressible(RegNetConfig(**usual | {"layer_type": "y"} | fields))
