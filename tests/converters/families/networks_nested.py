"""The published networks of ClassyVision, SWAG and VISSL."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from classy_vision.models import build_model

from tests.converters.families import test_classy_vision, test_vissl
from tests.converters.families.every_network import (
    Built,
    Family,
    Layout,
    negated,
    tree,
    wrapped,
)
from tests.converters.families.test_swag import Swag
from tests.oracles import classy_vision, pixels, vissl
from tests.oracles.statistics import randomise

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from PIL import Image
    from torch import Tensor

    from tests.converters.families.every_network import State


# ClassyVision


def _classy_build(name: str) -> Built:
    """A network with one head; what its layouts need beside it is the configuration."""
    config = {"name": name}
    with torch.device("meta"):
        width = build_model(config).trunk_output[-1][-1].f.c.out_channels
    heads = {"trunk_output": [classy_vision.head("default_head", width, 1000)]}
    return Built(name, classy_vision.build(config, heads), config)


def _save_classy(built: Built, folder: Path, *, make: Callable[[Any, Any], Any]) -> Path:
    torch.save(make(built.network, built.more), folder / "checkpoint.torch")
    return folder / "checkpoint.torch"


def _with_classy_averages(network: Any, config: Any) -> Any:
    """As its hook adds averaged weights, which are taken only when asked for."""
    state = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    network.load_state_dict(negated(state))
    hook = classy_vision.averaging_hook_state(network, network)
    network.load_state_dict(state)
    return classy_vision.checkpoint(network, config, averaging=hook)


def _two_headed(network: Any, config: Any) -> Any:
    stored = classy_vision.checkpoint(network, config)
    heads = stored["classy_state_dict"]["base_model"]["model"]["heads"]["trunk_output"]
    heads["other"] = negated(heads["default_head"])
    return stored


def _bare_trunk(network: Any, _: Any) -> Any:
    return network.get_classy_state()["model"]["trunk"]


def _classy_pixels(picture: Image.Image, _: Built, __: Path) -> Tensor:
    return pixels.classy_vision(picture)


CLASSY_VISION = Family(
    framework="classy-vision",
    build=_classy_build,
    names=tuple(n for n in test_classy_vision.PUBLISHED if not n.endswith(("128gf", "256gf"))),
    layouts={
        **{
            label: Layout(partial(_save_classy, make=make), _classy_pixels)
            for label, make in (
                *test_classy_vision.LAYOUTS.items(),
                ("averaged", _with_classy_averages),
            )
        },
        "two heads": Layout(
            partial(_save_classy, make=_two_headed),
            _classy_pixels,
            options={"head": "default_head"},
        ),
        "trunk": Layout(partial(_save_classy, make=_bare_trunk), _classy_pixels, trunk=True),
        **wrapped(_classy_pixels),
    },
)


# SWAG


def _swag_build(name: str) -> Built:
    trunk = classy_vision.build({"name": name})
    width = trunk.trunk_output[-1][-1].f.c.out_channels
    return Built(name, Swag(trunk, classy_vision.head("unused", width, 1000)).eval())


def _headless(state: State) -> State:
    return {name: tensor for name, tensor in state.items() if not name.startswith("head.")}


def _swag_pixels(picture: Image.Image, built: Built, _: Path) -> Tensor:
    """As torchvision says of the same weights."""
    builder = built.name.replace(".", "_")
    return pixels.torchvision(picture, builder, "IMAGENET1K_SWAG_E2E_V1")


SWAG = Family(
    framework="swag",
    build=_swag_build,
    names=("regnet_y_16gf", "regnet_y_32gf"),
    layouts={
        **wrapped(_swag_pixels),
        # Without its head it has the names of a bare trunk of ClassyVision's.
        "trunk": Layout(tree(_headless), _classy_pixels, trunk=True, framework="classy-vision"),
    },
)


# VISSL

_TRUNKS = {
    "16Gf": ([224, 448, 1232, 3024], [2, 4, 11, 1], 112),
    "32Gf": test_vissl.SEER["32Gf"],
    "64Gf": test_vissl.SEER["64Gf"],
}


def _trunk_settings(name: str) -> dict[str, Any]:
    widths, depths, group = _TRUNKS[name]
    return {
        "name": "anynet",
        "depths": depths,
        "widths": widths,
        "group_widths": [group] * 4,
        "bottleneck_multipliers": [1.0] * 4,
        "strides": [2] * 4,
    }


def _vissl_build(name: str) -> Built:
    trunk = vissl.unfilled_trunk(1, _trunk_settings(name))
    randomise(vissl._FirstOutput(trunk))
    network = vissl.Pooled(trunk, [vissl.mlp(_TRUNKS[name][0][-1], 1000)])
    return Built(name, network.eval())


_PARTS = ((2,), (), (9,), ())
"""Where the second version cuts the stages; only the third is in two parts."""


def _in_parts(built: Built) -> State:
    """The trunk's weights as the version whose stages are cut into parts names them."""
    with torch.device("meta"):
        names = list(vissl.unfilled_trunk(2, _trunk_settings(built.name), _PARTS).state_dict())
    return dict(zip(names, built.network.trunk.state_dict().values(), strict=True))


def _save_vissl(built: Built, folder: Path, *, make: Callable[[Any], Any]) -> Path:
    torch.save(make(built.network), folder / "model_final.torch")
    return folder / "model_final.torch"


def _save_in_parts(built: Built, folder: Path) -> Path:
    heads = test_vissl.as_list(built.network)
    torch.save(vissl.consolidated(_in_parts(built), heads), folder / "model_conso.torch")
    return folder / "model_conso.torch"


def _save_slices(built: Built, folder: Path) -> Path:
    path = folder / "model_final.torch"
    model = {
        "trunk": vissl.save_slices(path, _in_parts(built)),
        "heads": vissl.save_slices(path, built.network.heads.state_dict()),
    }
    content = {"type": "slice_list", "classy_state_dict": {"base_model": {"model": model}}}
    torch.save(content, path)
    return path


def _save_shards(built: Built, folder: Path) -> Path:
    """The real FSDP's, of two processes."""
    regnet = vissl.in_parts(_trunk_settings(built.name), _PARTS)
    model = {"trunk": _in_parts(built), "heads": test_vissl.as_list(built.network)}
    return vissl.save_shards(folder, 2, regnet, model, flatten=True)


def _linear_evaluation(built: Built) -> Any:
    """The same trunk with a batch norm before its classifier, the same at every call."""
    width = built.network.heads[0].clf[0].in_features
    with torch.random.fork_rng():
        torch.manual_seed(7)
        return vissl.Pooled(built.network.trunk, [vissl.eval_mlp(width, width, 1000)]).eval()


def _save_linear_evaluation(built: Built, folder: Path) -> Path:
    network = _linear_evaluation(built)
    torch.save(test_vissl.LAYOUTS["frozen trunk"](network), folder / "model_final.torch")
    return folder / "model_final.torch"


def _pre_trained(network: Any) -> Any:
    head = vissl.swav(network.heads[0].clf[0].in_features)
    return test_vissl.LAYOUTS["heads in a dict"](vissl.Pooled(network.trunk, [head]))


def _vissl_averages(network: Any) -> Any:
    content = test_vissl.LAYOUTS["heads in a dict"](network)
    model = {
        "trunk": negated(network.trunk.state_dict()),
        "heads": negated(network.heads.state_dict()),
    }
    content["classy_state_dict"]["ema_model"] = {"model": model, "meta": {}}
    return content


def _fine_tuned(picture: Image.Image, _: Built, __: Path) -> Tensor:
    """SEER's fine-tuning at 384; the released configurations hold no such file."""
    return pixels.vissl(picture, 384, size=384, interpolation=3)


def _linear(picture: Image.Image, _: Built, __: Path) -> Tensor:
    """`benchmark/linear_image_classification/imagenet1k`."""
    return pixels.vissl(picture, 224, size=256)


VISSL = Family(
    framework="vissl",
    build=_vissl_build,
    names=tuple(_TRUNKS),
    layouts={
        **{
            label: Layout(partial(_save_vissl, make=make), _fine_tuned)
            for label, make in (*test_vissl.LAYOUTS.items(), ("averaged", _vissl_averages))
        },
        "parts": Layout(_save_in_parts, _fine_tuned),
        "slices": Layout(_save_slices, _fine_tuned),
        "shards": Layout(_save_shards, _fine_tuned),
        "linear evaluation": Layout(_save_linear_evaluation, _linear, network=_linear_evaluation),
        "SwAV": Layout(partial(_save_vissl, make=_pre_trained), _linear, trunk=True),
        "bare trunk": Layout(
            partial(_save_vissl, make=lambda network: network.trunk.state_dict()),
            _linear,
            trunk=True,
        ),
        "float64": wrapped(_fine_tuned)["float64"],
    },
)
