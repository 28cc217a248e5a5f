"""What makes a naive converter silently wrong: one test per trap, by its number.

Traps 7, 14 to 17 and 31 are set by ClassyVision and VISSL alone: test_traps_of_vissl.py.
"""

from __future__ import annotations

import argparse
import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import load_file
from torch import nn
from torchvision.models import get_model
from transformers import RegNetConfig as TheirConfig
from transformers import RegNetModel as TheirModel

from converters.jobs.publish import prepare
from converters.weights.plan import make_plan
from regnet.architecture import Architecture
from regnet.config import RegNetConfig
from regnet.image_processor import RegNetImageProcessor, crop_pct_for
from tests.converters.families.conversion import (
    LIMIT,
    converted,
    difference,
    noise,
    refusal,
    source_of,
    source_of_headers,
)
from tests.converters.stored import headers, stored
from tests.frameworks.environments import RECORDED
from tests.oracles import pycls, timm, torchvision
from tests.oracles import transformers as transformers_oracle

if TYPE_CHECKING:
    from pathlib import Path

SHAPE = {"DEPTH": 5, "W0": 16, "WA": 12.0, "WM": 1.6, "GROUP_W": 8, "SE_ON": True}


def save_pycls(path: Path, **others: Any) -> nn.Module:
    """Save a small network with pycls' own function; return it."""
    network = pycls.build(SHAPE, classes=10)
    pycls.save(path, network, SHAPE, classes=10, **others)
    return network


def edit(path: Path, **changes: Any) -> Path:
    """Change entries of a saved checkpoint."""
    tree = torch.load(path, weights_only=True)
    torch.save(tree | changes, path)
    return path


def save_hub(folder: Path, **stated: Any) -> Path:
    """Write timm's Hub folder of a small network; ``stated`` goes into its pretrained_cfg."""
    timm.save_hub_folder(folder, timm.build())
    path = folder / "config.json"
    config = json.loads(path.read_text())
    config["pretrained_cfg"] |= stated
    path.write_text(json.dumps(config))
    return folder


def save_transformers(folder: Path, **fields: Any) -> Any:
    model = transformers_oracle.twin(transformers_oracle.classifier(**{"num_labels": 10} | fields))
    model.save_pretrained(folder)
    return model


@torch.inference_mode()
def logits(network: nn.Module, pixels: torch.Tensor) -> torch.Tensor:
    output: torch.Tensor = network(pixels)
    return output


def test_trap_01_bgr_stem(tmp_path: Path) -> None:
    network = save_pycls(tmp_path / "net.pyth")
    expected = logits(network, noise().flip(1))

    assert difference(converted(tmp_path / "net.pyth").logits(noise()), expected) < LIMIT
    unflipped = converted(tmp_path / "net.pyth", channel_order="rgb")
    assert difference(unflipped.logits(noise()), expected) > 1e-2


def test_trap_02_rgb_pycls(tmp_path: Path) -> None:
    network = save_pycls(tmp_path / "net.pyth")
    text = torch.load(tmp_path / "net.pyth", weights_only=True)["cfg"]
    edit(tmp_path / "net.pyth", cfg=text + "\nDATA_LOADER:\n  MODE: ffcv\n")

    ours = converted(tmp_path / "net.pyth")

    assert difference(ours.logits(noise()), logits(network, noise())) < LIMIT


def test_trap_03_squeeze_width_from_the_block_input() -> None:
    tensors = headers(timm.build())
    squeeze = "s2.b1.se.fc1.weight"
    assert tensors[squeeze].shape[0] == 16 // 4  # the block takes 16 channels and gives 24

    assert source_of_headers(tensors).config.layer_type == "y"
    of_its_own_width = tensors | {squeeze: stored((24 // 4, 24, 1, 1))}
    assert "which no rule of squeeze-and-excitation gives" in refusal(
        lambda: source_of_headers(of_its_own_width), "net"
    )


@pytest.mark.parametrize(("width", "squeezed"), [(746, 186), (11110, 2778)])
def test_trap_04_half_to_even(width: int, squeezed: int) -> None:
    shape: dict[str, Any] = {"hidden_sizes": [width] * 2, "depths": [1, 1], "groups_width": width}
    with torch.device("meta"):
        theirs = TheirModel(TheirConfig(**shape)).state_dict()
    name = "encoder.stages.1.layers.0.layer.2.attention.0.weight"

    assert Architecture.of(RegNetConfig(**shape), classifier=False).shapes[name] == (
        squeezed,
        width,
        1,
        1,
    )
    assert theirs[name].shape[0] == squeezed


@pytest.mark.parametrize(
    ("name", "widths"),
    [
        ("regnet_x_400mf", [32, 64, 160, 400]),
        ("regnet_y_800mf", [64, 144, 320, 784]),
        ("regnet_y_8gf", [224, 448, 896, 2016]),
    ],
)
def test_trap_05_torchvision_snaps_otherwise(name: str, widths: list[int]) -> None:
    assert source_of_headers(headers(get_model(name))).config.hidden_sizes == widths


def test_trap_06_group_width_above_the_stage_width() -> None:
    source = source_of_headers(headers(get_model("regnet_x_8gf")))

    assert (source.config.hidden_sizes[0], source.config.groups_width) == (80, 120)
    assert make_plan(source, "net").steps


def test_trap_08_names_are_reused(tmp_path: Path) -> None:
    torch.save(timm.build().state_dict(), tmp_path / "RegNetY-4.0GF_dds_8gpu.pyth")

    source = source_of(tmp_path / "RegNetY-4.0GF_dds_8gpu.pyth")

    assert (source.framework, source.config.hidden_sizes) == ("timm", [16, 24, 40, 64])


def test_trap_09_downsample_in_first_stage(tmp_path: Path) -> None:
    model = save_transformers(tmp_path / "net", downsample_in_first_stage=False)
    save_pycls(tmp_path / "net.pyth")

    ours = converted(tmp_path / "net")

    assert ours.config.downsample_in_first_stage is False
    assert ours.decision("stride of the first stage")[0] == "1"
    with torch.inference_mode():
        assert difference(ours.logits(noise()), model(noise()).logits) < LIMIT
    assert source_of(tmp_path / "net.pyth").config.downsample_in_first_stage


def test_trap_10_ema_or_raw(tmp_path: Path) -> None:
    state, averaged = (timm.build(seed=seed).state_dict() for seed in (0, 1))
    torch.save({"state_dict": state, "state_dict_ema": averaged}, tmp_path / "net.pth")

    ours = converted(tmp_path / "net.pth")

    assert ours.decision("weights") == ("ema", "what timm itself takes")
    assert ours.record["skipped"] == {"state_dict": "the weights that were not chosen"}
    weight = load_file(ours.out / "model.safetensors")["classifier.1.weight"]
    assert torch.equal(weight, averaged["head.fc.weight"])


def test_trap_11_the_best_file_of_pycls_mixes_epochs(tmp_path: Path) -> None:
    raw = save_pycls(tmp_path / "model.pyth").state_dict()
    averaged = pycls.build(SHAPE, classes=10, seed=1).state_dict()
    edit(tmp_path / "model.pyth", ema_state=averaged, epoch=7, test_err=20.5, ema_err=20.0)

    ours = converted(tmp_path / "model.pyth")

    assert ours.decision("weights")[0] == "ema"
    assert "epoch" not in (ours.out / "conversion.json").read_text()
    weight = load_file(ours.out / "model.safetensors")["classifier.1.weight"]
    assert torch.equal(weight, averaged["head.fc.weight"])
    assert not torch.equal(weight, raw["head.fc.weight"])


@pytest.mark.parametrize(("attention", "last"), [(True, 3), (False, 2)])
def test_trap_12_the_last_convolution_moves_behind_se(attention: bool, last: int) -> None:
    plan = make_plan(source_of_headers(headers(timm.build(attention=attention))), "net")

    (step,) = [step for step in plan.steps if step.source_name == "s1.b1.conv3.conv.weight"]

    assert step.target.name.endswith(f"stages.0.layers.0.layer.{last}.convolution.weight")


def test_trap_13_order_of_execution_does_not_matter(tmp_path: Path) -> None:
    network = torchvision.build()
    state = network.state_dict()
    shuffled = np.random.default_rng(0).permutation(list(state))
    torch.save({name: state[name] for name in map(str, shuffled)}, tmp_path / "net.pth")

    ours = converted(tmp_path / "net.pth")

    assert difference(ours.logits(noise()), logits(network, noise())) < LIMIT


def test_trap_18_counters_that_are_not_there(tmp_path: Path) -> None:
    network = save_pycls(tmp_path / "net.pyth")
    state = {n: t for n, t in network.state_dict().items() if "num_batches" not in n}
    torch.save({"model": state}, tmp_path / "net.pyth")

    ours = converted(tmp_path / "net.pyth")

    written = load_file(ours.out / "model.safetensors")
    counters = [tensor for name, tensor in written.items() if "num_batches" in name]
    assert len(counters) == sum(isinstance(m, nn.BatchNorm2d) for m in network.modules())
    assert all(torch.equal(counter, torch.tensor(0)) for counter in counters)
    TheirModel.from_pretrained(ours.out)


def test_trap_19_convolutions_have_no_bias_and_se_has() -> None:
    tensors = headers(timm.build())

    targets = {step.target.name for step in make_plan(source_of_headers(tensors), "net").steps}
    assert not any(name.endswith("convolution.bias") for name in targets)
    assert any(name.endswith("attention.0.bias") for name in targets)
    with_bias = source_of_headers(tensors | {"s1.b1.conv1.conv.bias": stored((16,))})
    assert "s1.b1.conv1.conv.bias" in refusal(lambda: make_plan(with_bias, "net"), "net")


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64], ids=str)
def test_trap_20_other_precisions(tmp_path: Path, dtype: torch.dtype) -> None:
    state = timm.build().to(dtype).state_dict()
    torch.save(state, tmp_path / "net.pth")

    written = load_file(converted(tmp_path / "net.pth").out / "model.safetensors")

    norm = "regnet.embedder.embedder.normalization"
    assert torch.equal(written[f"{norm}.running_var"], state["stem.bn.running_var"].float())
    counter = written[f"{norm}.num_batches_tracked"]
    assert counter.dtype == torch.int64
    assert torch.equal(counter, state["stem.bn.num_batches_tracked"])


def test_trap_21_another_epsilon(tmp_path: Path) -> None:
    save_pycls(tmp_path / "net.pyth")
    values = yaml.safe_load(torch.load(tmp_path / "net.pyth", weights_only=True)["cfg"])
    values["BN"]["EPS"] = 1e-3
    edit(tmp_path / "net.pyth", cfg=yaml.safe_dump(values))
    arguments = argparse.Namespace(model="regnety_002", bn_eps=1e-3)
    torch.save({"state_dict": timm.build().state_dict(), "args": arguments}, tmp_path / "net.pth")

    assert source_of(tmp_path / "net.pyth").config.norm_eps == 1e-3
    assert "bn_eps 0.001" in refusal(lambda: source_of(tmp_path / "net.pth"), "net.pth")


def test_trap_22_another_activation(tmp_path: Path) -> None:
    folder = save_hub(tmp_path / "net")
    config = json.loads((folder / "config.json").read_text())
    config["model_args"] = {"act_layer": "silu"}
    (folder / "config.json").write_text(json.dumps(config))

    config = source_of(folder).config
    assert (config.hidden_act, config.se_act) == ("silu", "silu")


def test_trap_23_labels_that_nobody_stated(tmp_path: Path) -> None:
    torch.save(torchvision.build(classes=1000).state_dict(), tmp_path / "net.pth")
    names = {str(index): f"class {index}" for index in range(10)}
    transformers_oracle.twin(transformers_oracle.trunk()).save_pretrained(tmp_path / "headless")
    config = json.loads((tmp_path / "headless" / "config.json").read_text()) | {"id2label": names}
    (tmp_path / "headless" / "config.json").write_text(json.dumps(config))

    assert source_of(tmp_path / "net.pth").labels is None
    assert "id2label" not in (converted(tmp_path / "headless").out / "config.json").read_text()


@pytest.mark.parametrize(
    ("resize", "crop"), [(256, 224), (232, 224), (235, 224), (225, 192), (424, 320), (438, 384)]
)
def test_trap_24_a_crop_pct_gives_the_resize_it_claims(resize: int, crop: int) -> None:
    assert int(crop / crop_pct_for(resize, crop)) == resize


def test_trap_25_from_384_on_nothing_is_squashed_that_was_cropped(tmp_path: Path) -> None:
    folder = save_hub(tmp_path / "net", input_size=[3, 384, 384], crop_pct=1.0)
    black_between_white = np.full((600, 1200, 3), 255, np.uint8)
    black_between_white[:, 280:920] = 0

    pixels = converted(folder).processor(black_between_white, return_tensors="np")["pixel_values"]

    assert pixels.shape == (1, 3, 384, 384)
    assert np.ptp(pixels, axis=(0, 2, 3)).max() == 0


def test_trap_26_a_missing_preprocessor_is_not_the_default_of_the_class(tmp_path: Path) -> None:
    save_transformers(tmp_path / "net")

    processor = converted(tmp_path / "net").processor

    assert processor.image_mean == (0.485, 0.456, 0.406)
    assert processor.size == {"shortest_edge": 224}


@pytest.mark.parametrize("size", [192, {"shortest_edge": 192}])
@pytest.mark.parametrize("key", ["feature_extractor_type", "image_processor_type"])
def test_trap_27_old_and_new_preprocessors(tmp_path: Path, size: Any, key: str) -> None:
    save_transformers(tmp_path / "net")
    kind = "ConvNextFeatureExtractor" if key.startswith("feature") else "ConvNextImageProcessor"
    keys = {key: kind, "size": size, "crop_pct": 0.875, "image_mean": [0.5] * 3}
    (tmp_path / "net" / "preprocessor_config.json").write_text(json.dumps(keys))

    written = converted(tmp_path / "net").out / "preprocessor_config.json"

    assert json.loads(written.read_text())["size"] == {"shortest_edge": 192}
    assert json.loads(written.read_text())["image_processor_type"] == "ConvNextImageProcessor"


def test_trap_28_a_quotient_is_truncated(tmp_path: Path) -> None:
    source = source_of(save_hub(tmp_path / "net", crop_pct=0.95))  # 224 / 0.95 is 235.79

    assert source.transform.resize == 235
    assert RegNetImageProcessor(**source.preprocessor_fields()).crop_pct == 224 / 235


def test_trap_29_pickles_from_before_the_zip(tmp_path: Path) -> None:
    network = save_pycls(tmp_path / "net.pyth", legacy=True)
    with pytest.raises(RuntimeError, match="mmap"):
        torch.load(tmp_path / "net.pyth", mmap=True)

    ours = converted(tmp_path / "net.pyth")

    assert ours.record["source"]["container"] == "legacy"
    assert difference(ours.logits(noise()), logits(network, noise().flip(1))) < LIMIT


def test_trap_30_what_weights_only_refuses(tmp_path: Path) -> None:
    tree = {"state_dict": timm.build().state_dict(), "args": argparse.Namespace(img_size=192)}
    torch.save(tree, tmp_path / "net.pth")
    with pytest.raises(Exception, match="Weights only load failed"):
        torch.load(tmp_path / "net.pth", weights_only=True)

    assert source_of(tmp_path / "net.pth").transform.crop == 192


def test_trap_32_default_tags_move(tmp_path: Path) -> None:
    ours = converted(save_hub(tmp_path / "net", tag="ra3_in1k"))

    assert ours.decision("evaluation transform")[1].endswith("tag ra3_in1k")


def test_trap_33_the_licence_is_the_sources(tmp_path: Path) -> None:
    stated = converted(save_hub(tmp_path / "net", license="cc-by-nc-4.0"))
    assert stated.decision("licence") == ("cc-by-nc-4.0", "the folder's pretrained_cfg")
    assert '\nlicense: "cc-by-nc-4.0"\n' in (stated.out / "README.md").read_text()
    assert prepare(stated.out, "somebody/regnet").licence == "cc-by-nc-4.0"

    torch.save(timm.build().state_dict(), tmp_path / "net.pth")
    assert "licen" not in (converted(tmp_path / "net.pth").out / "README.md").read_text().lower()


def test_trap_34_one_activation_for_the_whole_network(tmp_path: Path) -> None:
    network, shared = torchvision.build(), nn.ReLU()
    for module in list(network.modules()):
        for name, child in module.named_children():
            if isinstance(child, nn.ReLU):
                setattr(module, name, shared)
    torch.save(network.state_dict(), tmp_path / "net.pth")

    ours = converted(tmp_path / "net.pth")

    assert difference(ours.logits(noise()), logits(network, noise())) < LIMIT


def test_trap_35_a_loss_that_writes_into_the_configuration(tmp_path: Path) -> None:
    fresh = save_transformers(tmp_path / "fresh" / "net")
    fresh(noise(), labels=torch.tensor([1, 2])).loss.backward()
    fresh.save_pretrained(tmp_path / "trained" / "net")

    before, after = (
        converted(tmp_path / which / "net").config.to_dict() for which in ("fresh", "trained")
    )

    assert after.pop("problem_type") == "single_label_classification"
    assert before.pop("problem_type") is None
    assert before == after


def test_trap_36_keras_pads_otherwise() -> None:
    source = source_of(RECORDED / "keras-applications" / "x.h5")

    assert source.framework == "keras-applications"
    assert source.config.padding == "same"
