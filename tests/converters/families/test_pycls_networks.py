"""From a checkpoint that the real pycls saved to a folder that computes what the real network does.

All 24 published networks and a few odd ones, with statistics like those of trained networks. The
real network sees BGR pixels, as pycls feeds it, and ours the same pixels as RGB.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch
from safetensors.torch import load_file
from torch import nn
from transformers import RegNetForImageClassification as TheirClassifier

from converters.jobs.convert import convert
from regnet.design_space import NETWORKS
from regnet.model import RegNetForImageClassification
from tests.oracles.pycls import TINY, TINY_X, build, published, save
from tests.oracles.statistics import randomise

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor

CHECKOUT = Path(__file__).parents[3]
STEM = "stem.conv.weight"
THEIR_STEM = "regnet.embedder.embedder.convolution.weight"
QUICK = ("RegNetX-200MF", "RegNetY-200MF")
SMALL_IMAGES: dict[str, Any] = {"TEST__IM_SIZE": 72, "TRAIN__IM_SIZE": 64}
ANYNET = {"MODEL__TYPE": "anynet", "ANYNET__SE_ON": True} | {
    f"ANYNET__{key}": value
    for key, value in {
        "DEPTHS": [1, 2, 1],
        "WIDTHS": [32, 48, 64],
        "STRIDES": [1, 2, 2],
        "BOT_MULS": [1.0, 1.0, 1.0],
        "GROUP_WS": [16, 16, 16],
    }.items()
}


@dataclass(frozen=True)
class Case:
    """A network of pycls.

    Attributes:
        regnet: The settings of its REGNET section.
        others: Further settings of its cfg, in the words of :mod:`tests.oracles.pycls`.
        activation: In place of every ReLU, as a later pycls has by `MODEL.ACTIVATION_FUN`.
    """

    regnet: dict[str, Any]
    others: dict[str, Any]
    activation: type[nn.Module] | None = None

    def build(self) -> nn.Module:
        network = build(self.regnet, **self.others)
        if self.activation is not None:
            replace_activations(network, self.activation)
            randomise(network)
        return network


def replace_activations(network: nn.Module, activation: type[nn.Module]) -> None:
    for module in list(network.modules()):
        for name, child in module.named_children():
            if isinstance(child, nn.ReLU):
                setattr(module, name, activation())


ODD = {
    # As in RegNetX-8.0GF, the first stage is narrower than a group.
    "narrow first stage": Case(TINY_X | {"GROUP_W": 20, "DEPTH": 7}, SMALL_IMAGES),
    "five stages": Case(TINY | {"DEPTH": 12, "WA": 20.0, "WM": 1.7}, SMALL_IMAGES),
    "one block": Case(TINY | {"DEPTH": 1, "GROUP_W": 16}, SMALL_IMAGES),
    "wide stem": Case(TINY | {"STEM_W": 48}, SMALL_IMAGES),
    "first stage at full size": Case({}, SMALL_IMAGES | ANYNET),
}
CASES = {name: Case(published(name), {}) for name in NETWORKS} | ODD


@dataclass(frozen=True)
class Converted:
    """A real network, the checkpoint that pycls saved of it, and what became of that."""

    network: nn.Module
    checkpoint: Path
    out: Path

    @property
    def source(self) -> dict[str, Tensor]:
        state: dict[str, Tensor] = self.network.state_dict()
        return state


@pytest.fixture(
    scope="module",
    params=[
        pytest.param(name, marks=() if name in ODD or name in QUICK else pytest.mark.slow)
        for name in CASES
    ],
)
def converted(request: pytest.FixtureRequest, workspace: Path) -> Iterator[Converted]:
    """Every network once; legacy and zip containers take turns."""
    case = CASES[request.param]
    legacy = list(CASES).index(request.param) % 2 == 0
    folder = workspace / request.param
    folder.mkdir()
    network = case.build()
    path = save(folder / "net.pyth", network, case.regnet, legacy=legacy, **case.others)
    convert(path, folder / "out")
    yield Converted(network, path, folder / "out")
    shutil.rmtree(folder)


def images(*size: int) -> Tensor:
    """Make two normalised RGB images of noise (2, 3, height, width)."""
    return torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(7))


@torch.inference_mode()
def relative_difference(network: nn.Module, folder: Path, dtype: torch.dtype) -> float:
    """Compare the real network's logits on BGR pixels with ours on RGB pixels.

    In float32 the images are large: on the 2 x 3 pixels that small ones leave in the last stage,
    PyTorch's own rounding errors, against float64, are up to 5e-5; the mean over more evens them
    out.

    Returns:
        The largest difference, in units of the largest logit.
    """
    model = RegNetForImageClassification.from_pretrained(folder, dtype=dtype)
    pixels = images(320, 320) if dtype == torch.float32 else images(64, 80).to(dtype)
    real = network.to(dtype)(pixels.flip(1))
    network.float()
    return float((model(pixels).logits - real).abs().max() / real.abs().max())


@pytest.mark.parametrize(("dtype", "limit"), [(torch.float32, 1e-5), (torch.float64, 1e-12)])
def test_the_logits_are_those_of_the_real_network(
    converted: Converted, dtype: torch.dtype, limit: float
) -> None:
    assert relative_difference(converted.network, converted.out, dtype) < limit


def test_every_tensor_but_the_stem_has_the_bytes_of_the_source(converted: Converted) -> None:
    source = converted.source
    written = load_file(converted.out / "model.safetensors")
    plan = json.loads((converted.out / "conversion.json").read_text(encoding="utf-8"))["plan"]

    assert sorted(step["source"] for step in plan) == sorted(source)
    assert sorted(step["target"] for step in plan) == sorted(written)
    for step in plan:
        name, tensor = step["source"], written[step["target"]]
        expected = source[name].flip(1) if name == STEM else source[name]
        assert tensor.dtype == expected.dtype
        assert tensor.numpy().tobytes() == expected.contiguous().numpy().tobytes(), name


def test_a_forgotten_flip_would_show(converted: Converted) -> None:
    wrong = converted.out.with_name("wrong")
    convert(converted.checkpoint, wrong, channel_order="rgb", formats=(), verify=False)

    assert relative_difference(converted.network, wrong, torch.float64) > 1e-2


@torch.inference_mode()
def test_transformers_misses_nothing_and_computes_the_same_bits(converted: Converted) -> None:
    theirs, report = TheirClassifier.from_pretrained(converted.out, output_loading_info=True)
    ours = RegNetForImageClassification.from_pretrained(converted.out)

    assert not any(report.values())
    assert torch.equal(theirs(images(64, 80)).logits, ours(images(64, 80)).logits)


def test_an_activation_that_only_a_later_pycls_has_is_computed(tmp_path: Path) -> None:
    case = Case(TINY_X, SMALL_IMAGES, nn.SiLU)
    network = case.build()
    path = save(tmp_path / "net.pyth", network, case.regnet, **case.others)
    tree = torch.load(path)
    tree["cfg"] = tree["cfg"].replace("MODEL:\n", "MODEL:\n  ACTIVATION_FUN: silu\n")
    torch.save(tree, path)

    convert(path, tmp_path / "out")

    assert relative_difference(network, tmp_path / "out", torch.float64) < 1e-12


def test_a_network_trained_on_rgb_takes_rgb(tmp_path: Path) -> None:
    network = build(TINY, **SMALL_IMAGES)
    path = save(tmp_path / "net.pyth", network, TINY, **SMALL_IMAGES)
    tree = torch.load(path)
    tree["cfg"] += "\nDATA_LOADER:\n  MODE: ffcv\n"
    torch.save(tree, path)

    convert(path, tmp_path / "out", formats=(), verify=False)

    stem = load_file(tmp_path / "out" / "model.safetensors")[THEIR_STEM]
    assert torch.equal(stem, network.state_dict()[STEM])


CONVERT_TWO_WAYS = """
import sys
from pathlib import Path
from converters.jobs.convert import convert

path, out = map(Path, sys.argv[1:])
convert(path, out / "one")
convert(path, out / "two", share_weights=True, labels=[f"é{i}" for i in range(10)])
"""


def convert_elsewhere(path: Path, out: Path, folder: Path, **environment: str) -> dict[str, bytes]:
    """Convert in a process of its own; return every output file with its content."""
    inherited = {
        name: os.environ[name] for name in ("PATH", "LD_LIBRARY_PATH") if name in os.environ
    }
    subprocess.run(
        [sys.executable, "-c", CONVERT_TWO_WAYS, path, out],
        check=True,
        cwd=folder,
        env=inherited | {"PYTHONPATH": str(CHECKOUT)} | environment,
    )
    absolute = folder / out
    return {
        str(file.relative_to(absolute)): file.read_bytes()
        for file in sorted(absolute.rglob("*"))
        if file.is_file()
    }


def test_every_file_has_the_same_bytes_wherever_and_by_whomever_it_is_made(tmp_path: Path) -> None:
    places = [tmp_path / name for name in ("here", "somewhere-else")]
    for place in places:
        (place / "home-of-zaphod").mkdir(parents=True)
    network = build(TINY, classes=10, **SMALL_IMAGES)
    path = save(places[0] / "net.pyth", network, TINY, classes=10, **SMALL_IMAGES)
    shutil.copy(path, places[1])

    first = convert_elsewhere(
        path,
        places[0] / "out",
        CHECKOUT,
        PYTHONHASHSEED="1",
        TZ="UTC",
        LC_ALL="C",
        OMP_NUM_THREADS="1",
        HOME=str(places[0] / "home-of-zaphod"),
        USER="zaphod",
        LOGNAME="zaphod",
    )
    second = convert_elsewhere(
        Path("net.pyth"),
        Path("results"),
        places[1],
        PYTHONHASHSEED="2",
        TZ="Pacific/Chatham",
        LC_ALL="C.UTF-8",
        OMP_NUM_THREADS="2",
        HOME=str(places[1] / "home-of-zaphod"),
        USER="trillian",
        LOGNAME="trillian",
    )

    assert first.keys() == second.keys()
    assert [name for name in first if first[name] != second[name]] == []
    names = [CHECKOUT, tmp_path, Path.home(), Path(sys.prefix), "zaphod", "trillian"]
    for name, content in first.items():
        told = [str(secret) for secret in names if str(secret).encode() in content]
        assert not told, f"{name} tells {told}"
