"""Real networks that transformers does not have, as their own frameworks save them."""

from __future__ import annotations

import shutil
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import timm
import torch
from PIL import Image
from timm.models._builder import build_model_with_cfg
from timm.models.regnet import RegNet, RegNetCfg
from torch.nn import functional

from regnet import RegNetImageProcessor
from tests.converters.families import test_pycls_anynet as in_pycls
from tests.frameworks.environments import RECORDED
from tests.oracles import pycls_head
from tests.oracles.pycls import halve_branches
from tests.oracles.statistics import randomise, used_to
from tests.oracles.timm import WIDER
from tests.photographs import NAMES, photograph

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import nn

    Saved = Callable[[Path], Path]

IMAGE_SIZE = 64
"""Of the networks' images, in pixels."""

_SMALL_V = RegNetCfg(
    depth=5,
    w0=16,
    wa=12.0,
    wm=1.6,
    group_size=8,
    preact=True,
    act_layer="silu",
    downsample="avg",
)
"""A RegNetV-6.4GF in small."""

_ENDS = (".conv3", ".conv3.bn", ".conv3_1x1.bn")
"""Of the names of what timm's blocks end with."""

_RECORDED = (
    "keras-applications/x.h5",
    "keras-applications/y.h5",
    "keras-applications/odd.h5",
    "kecam/z.h5",
    "kecam/evo.keras",
)
"""What Keras saved."""


def _natural() -> torch.Tensor:
    """Photographs, and the patches and ramps that verification has among its natural images."""
    processor = RegNetImageProcessor(size={"shortest_edge": IMAGE_SIZE})
    images = [Image.open(photograph(name)) for name in NAMES]
    pixels: torch.Tensor = processor(images, return_tensors="pt")["pixel_values"]
    patches = torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    ramp = torch.linspace(-2, 2, IMAGE_SIZE**2).view(IMAGE_SIZE, IMAGE_SIZE)
    ramps = torch.linspace(1, -1, 3).view(-1, 1, 1) * torch.stack((ramp, -ramp)).unsqueeze(1)
    return torch.cat((pixels, functional.interpolate(patches, IMAGE_SIZE), ramps))


def _of_timm(folder: Path, build: Callable[[], nn.Module]) -> Path:
    network = used_to(halve_branches(randomise(build()), _ENDS), _natural())
    torch.save(network.state_dict(), folder / "net.pth")
    return folder / "net.pth"


def _of_pycls(folder: Path, case: str) -> Path:
    values = in_pycls.CASES.get(case, in_pycls.REGNETZ_500MF)
    network = used_to(pycls_head.build(values), _natural())
    return pycls_head.save(folder / "net.pyth", network, values)


def _of_classy_vision(folder: Path, case: str) -> Path:
    from tests.converters.families import test_classy_vision_anynet as in_classy_vision

    return in_classy_vision.saved(*in_classy_vision.CASES[case], folder)[1]


def _of_keras(folder: Path, name: str) -> Path:
    return Path(shutil.copy(RECORDED / name, folder))


NETWORKS: dict[str, Saved] = {
    "a small RegNetV": partial(
        _of_timm,
        build=partial(
            build_model_with_cfg, RegNet, "regnetv_064", False, model_cfg=_SMALL_V, num_classes=10
        ),
    ),
    **{name: partial(_of_keras, name=name) for name in _RECORDED},
    **{
        f"pycls, {case}": partial(_of_pycls, case=case)
        for case in ("groups of each stage", "CIFAR's stem", "RegNetZ-500MF")
    },
    "ClassyVision, narrow bottlenecks": partial(_of_classy_vision, case="narrow bottlenecks"),
    **{name: partial(_of_timm, build=partial(timm.create_model, name)) for name in WIDER},
}
"""How each is saved into a folder: all of timm, RegNetZ of pycls, AnyNets whose stages have groups
of several widths, a stem for CIFAR, those of Keras. Small ones come first."""
