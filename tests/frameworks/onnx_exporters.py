"""Records ONNX files of the exporters that need onnxscript.

Run: PYTHONPATH=FOLDER python -m tests.frameworks.onnx_exporters, in the project's own environment
and with a folder that holds onnxscript and onnx_ir. Three small networks of each: timm's by its own
`onnx_export`, torchvision's by `torch.onnx.export(dynamo=True)`, transformers' by its own
`OnnxExporter`; and timm's as torch leaves the graph without its optimiser, batch norms and all.

What nodes carry for debuggers, paths of the machine among it, is taken out. Beside the files lies
what each framework computes of two images, and the digest of each tensor of what is not folded.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING

import onnx
import torch

from converters.families.torchvision import import_torchvision

import_torchvision()

from timm.models._builder import build_model_with_cfg  # noqa: E402 -- imports torchvision
from timm.models.regnet import RegNet, RegNetCfg  # noqa: E402
from torchvision.models.regnet import RegNet as TorchvisionRegNet  # noqa: E402

from tests.oracles import torchvision as in_torchvision  # noqa: E402
from tests.oracles import transformers as in_transformers  # noqa: E402
from tests.oracles.statistics import randomise  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import nn

RECORDED = Path(__file__).parents[1] / "recorded" / "onnx"
FACTS = RECORDED / "facts.json"

NETWORKS = ("x", "y", "odd")
OPEN = {0: "batch", 2: "height", 3: "width"}


def images() -> torch.Tensor:
    """Two normalised images (2, 3, 64, 64), float32."""
    steps = torch.arange(2 * 3 * 64 * 64, dtype=torch.float64)
    return (2 * torch.sin(steps * steps * 0.37)).float().reshape(2, 3, 64, 64)


def _timm(name: str) -> nn.Module:
    """Of the odd one a trunk."""
    shape = RegNetCfg(
        depth=5, w0=8, wa=8.0, wm=1.6, group_size=8, se_ratio=0.25 * float(name != "x")
    )
    network = build_model_with_cfg(
        RegNet, "regnety_002", False, model_cfg=shape, num_classes=5 * (name != "odd")
    )
    return randomise(network, seed=3)


def _torchvision(name: str) -> nn.Module:
    """The odd one has more depth and a number of classes of its own."""
    depth, slope, group, classes = (7, 5.0, 12, 7) if name == "odd" else (5, 8.0, 8, 5)
    shape = in_torchvision.shape_of(
        attention=name != "x", depth=depth, w_0=8, w_a=slope, w_m=1.6, group_width=group
    )
    return randomise(TorchvisionRegNet(shape, num_classes=classes), seed=4)


def _transformers(name: str) -> nn.Module:
    """The odd one computes SiLU, and its first stage does not downsample."""
    fields = {
        "embedding_size": 16,
        "hidden_sizes": [16, 24, 32],
        "depths": [2, 1, 1],
        "layer_type": "x" if name == "x" else "y",
        "num_labels": 5,
    }
    if name == "odd":
        fields |= {"hidden_act": "silu", "downsample_in_first_stage": False}
    network: nn.Module = in_transformers.twin(in_transformers.classifier(seed=5, **fields))
    return network


def _by_timm(network: nn.Module, path: Path) -> None:
    from timm.utils.onnx import onnx_export

    onnx_export(network, str(path), images(), use_dynamo=True, dynamic_size=True, check=False)


def _unoptimised(network: nn.Module, path: Path) -> None:
    torch.onnx.export(
        network, (images(),), str(path), dynamo=True, optimize=False, external_data=False
    )


def _by_torch(network: nn.Module, path: Path) -> None:
    torch.onnx.export(
        network, (images(),), str(path), dynamo=True, external_data=False, dynamic_shapes=(OPEN,)
    )


def _by_transformers(network: nn.Module, path: Path) -> None:
    import onnx_ir
    from transformers.exporters.exporter_onnx import OnnxConfig, OnnxExporter

    program, _ = OnnxExporter().export_program(network, {"pixel_values": images()}, OnnxConfig())
    onnx_ir.save(program, str(path))


EXPORTERS: dict[str, tuple[Callable[[str], nn.Module], Callable[[nn.Module, Path], None]]] = {
    "timm": (_timm, _by_timm),
    "torch-plain": (_timm, _unoptimised),
    "torchvision": (_torchvision, _by_torch),
    "transformers": (_transformers, _by_transformers),
}


def without_notes(path: Path) -> None:
    """Take out of a file what is for debuggers."""
    model = onnx.load(path)
    parts = [model.graph, *model.graph.node, *model.graph.value_info, *model.graph.initializer]
    for part in [*parts, *model.graph.input, *model.graph.output]:
        part.ClearField("metadata_props")
        part.ClearField("doc_string")
    model.graph.ClearField("value_info")
    path.write_bytes(model.SerializeToString())


@torch.inference_mode()
def record(exporter: str, network: str) -> dict[str, object]:
    """Export a small network, unless its file is there; what is known of it."""
    build, export = EXPORTERS[exporter]
    module = build(network).eval()
    path = RECORDED / f"{exporter}-{network}.onnx"
    if not path.exists():
        export(module, path)
        without_notes(path)
    output = module(images())
    facts: dict[str, object] = {"output": getattr(output, "logits", output).tolist()}
    if exporter == "torch-plain":  # the others' weights are computed with
        facts["sha256"] = {
            name: hashlib.sha256(tensor.numpy().tobytes()).hexdigest()
            for name, tensor in module.state_dict().items()
        }
    return facts


if __name__ == "__main__":
    RECORDED.mkdir(parents=True, exist_ok=True)
    facts = {
        f"{exporter}-{network}": record(exporter, network)
        for exporter in EXPORTERS
        for network in NETWORKS
    }
    FACTS.write_text(json.dumps(facts) + "\n", "utf-8")
