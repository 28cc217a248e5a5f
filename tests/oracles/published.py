"""Every published RegNet of every framework, as its own code builds it, without memory for weights.

Frameworks that are not installed have none.
"""

from __future__ import annotations

from functools import cache
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

import pycls.core.builders as pycls_builders
import timm
import torch
from torchvision.models import list_models, regnet

from regnet.design_space import NETWORKS
from tests.oracles.loaders import mmpretrain_models
from tests.oracles.pycls import published, settings
from tests.oracles.pytorchcv import model as pytorchcv_model
from tests.oracles.pytorchcv import name_of as pytorchcv_name

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import nn

_MMPRETRAIN = ("400mf", "800mf", "1.6gf", "3.2gf", "4.0gf", "6.4gf", "8.0gf", "12gf")
_CLASSY_VISION = (
    *(f"regnet_x_{size}" for size in ("400mf", "800mf", "1.6gf", "3.2gf", "8gf", "16gf", "32gf")),
    *(f"regnet_y_{size}" for size in ("400mf", "800mf", "1.6gf", "3.2gf", "8gf", "16gf", "32gf")),
    *(f"regnet_y_{size}" for size in ("64gf", "128gf", "256gf")),
)


@cache
def published_names() -> dict[str, tuple[str, ...]]:
    """Framework to the names of its RegNets, X and Y."""
    names = {
        "pycls": tuple(NETWORKS),
        "timm": tuple(n for n in timm.list_models("regnet[xy]_*") if not n.endswith("_sgn")),
        "torchvision": tuple(name for name in list_models() if name.startswith("regnet")),
    }
    if find_spec("pytorchcv"):
        names["pytorchcv"] = tuple(map(pytorchcv_name, NETWORKS))
    if find_spec("mmpretrain"):
        names["mmpretrain"] = _MMPRETRAIN
    if find_spec("classy_vision"):
        names["classy-vision"] = _CLASSY_VISION
    return names


def published_network(framework: str, name: str) -> nn.Module:
    """Build one of :func:`published_names` on the meta device, with 1000 classes."""
    builders: dict[str, Callable[[str], nn.Module]] = {
        "pycls": _pycls,
        "timm": lambda name: _on_meta(timm.create_model, name),
        "torchvision": _torchvision,
        "mmpretrain": _mmpretrain,
        "classy-vision": _classy_vision,
        "pytorchcv": lambda name: _on_meta(pytorchcv_model, name),
    }
    return builders[framework](name)


def _on_meta(build: Callable[..., Any], *arguments: Any, **options: Any) -> nn.Module:
    with torch.device("meta"):
        network: nn.Module = build(*arguments, **options)
    return network


def _pycls(name: str) -> nn.Module:
    with settings(published(name)):
        return _on_meta(pycls_builders.build_model)


def _torchvision(name: str) -> nn.Module:
    """Its builders compute stages with tensors, so only the network itself can be on meta."""
    real = regnet.RegNet

    def build(*arguments: Any, **options: Any) -> nn.Module:
        return _on_meta(real, *arguments, **options)

    with patch.object(regnet, "RegNet", build):
        network: nn.Module = getattr(regnet, name)()
    return network


def _mmpretrain(name: str) -> nn.Module:
    backbone = {"type": "RegNet", "arch": f"regnetx_{name}"}
    width = mmpretrain_models().build(backbone).feat_dim
    head = {"type": "LinearClsHead", "num_classes": 1000, "in_channels": width}
    return _on_meta(
        mmpretrain_models().build, {"type": "ImageClassifier", "backbone": backbone, "head": head}
    )


def _classy_vision(name: str) -> nn.Module:
    from classy_vision.models import build_model  # type: ignore[import-not-found]

    return _on_meta(build_model, {"name": name})
