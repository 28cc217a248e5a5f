"""ClassyVision: a file as its checkpoint hook saves it, trunk and head apart.

Source: ClassyVision ``models/classy_model.py`` and ``models/anynet.py``. ``input_args`` hold the
configuration from which ``build_model`` makes the network.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING

from converters.families.classy_vision_keymap import CLASSY_VISION
from converters.families.source import EvalTransform
from converters.families.target import Target

if TYPE_CHECKING:
    from pathlib import Path

    from converters.checkpoint.torch_pickle import Value
    from converters.families.written import Network

_HEAD = "fc."
_FORK_BLOCK = "trunk_output"
_HEAD_ID = "default_head"


def _write(path: Path, network: Network) -> None:
    state = network.state_dict()
    head = OrderedDict(item for item in state.items() if item[0].startswith(_HEAD))
    trunk = OrderedDict(item for item in state.items() if item[0] not in head)
    heads: dict[str, Value] = {_FORK_BLOCK: {_HEAD_ID: head}} if head else {}
    model: dict[str, Value] = {"model": {"trunk": trunk, "heads": heads}}
    tree: dict[str, Value] = {
        "input_args": {
            "config": {
                "model": _config(network, has_head=bool(head)),
                "dataset": {"test": {"name": "image_path", "transforms": _test(network.transform)}},
            }
        },
        "classy_state_dict": {"base_model": model},
    }
    network.save(path, tree)


def _config(network: Network, *, has_head: bool) -> dict[str, Value]:
    config = network.config
    model: dict[str, Value] = {
        "name": "anynet",
        "depths": config.depths,
        "widths": config.hidden_sizes,
        "group_widths": network.group_widths,
        "bottleneck_multipliers": [1] * len(config.depths),
        "strides": [2] * len(config.depths),
        "stem_width": config.embedding_size,
        "use_se": config.layer_type == "y",
    }
    if has_head:
        head: dict[str, Value] = {
            "name": "fully_connected",
            "unique_id": _HEAD_ID,
            "num_classes": config.num_labels,
            "fork_block": _FORK_BLOCK,
            "in_plane": config.hidden_sizes[-1],
        }
        model["heads"] = [head]
    return model


def _test(transform: EvalTransform) -> list[Value]:
    """The steps of the test, in torchvision's names."""
    crop = transform.crop
    size: Value = [crop, crop] if transform.squash else transform.resize
    steps: list[Value] = [{"name": "Resize", "size": size, "interpolation": transform.resample}]
    if not transform.squash:
        steps.append({"name": "CenterCrop", "size": crop})
    steps.append({"name": "ToTensor"})
    if transform.mean:
        numbers = {"mean": list(transform.mean), "std": list(transform.std)}
        steps.append({"name": "Normalize", **numbers})
    return [{"name": "apply_transform_to_key", "key": "input", "transforms": steps}]


TARGET = Target(CLASSY_VISION, _write, headless=True, says=EvalTransform.fields())
