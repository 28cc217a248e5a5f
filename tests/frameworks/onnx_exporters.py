"""Has the exporters of ONNX write networks: those that need onnxscript, and optimum.

It runs in the project's own environment, beside which two others lie: ``.venv-onnx`` holds what
torch's newer exporter needs, ``.venv-optimum`` has an older transformers. Three small networks of
each exporter and one of published size: timm's by its own `onnx_export`, torchvision's by both of
`torch.onnx.export`, transformers' by its own `OnnxExporter` and by optimum; and timm's as torch
leaves the graph without its optimiser, batch norms and all.

- ``python -m tests.frameworks.onnx_exporters`` records the small ones of exporters that the
  ordinary tests cannot call. What nodes carry for debuggers, paths of the machine among it, is
  taken out. Beside the files lies what each framework computes of two images, and the digest of
  each tensor of what is not folded.
- ``... onnx_exporters EXPORTER NETWORK FOLDER`` writes ``model.onnx``, ``source`` (the weights as
  the framework saves them) and ``output.npy``, for :mod:`tests.frameworks.test_onnx_exporters`.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import torch

from converters.families.torchvision import import_torchvision

import_torchvision()

from timm.models._builder import build_model_with_cfg  # noqa: E402 -- imports torchvision
from timm.models.regnet import RegNet, RegNetCfg  # noqa: E402
from torchvision.models.regnet import RegNet as TorchvisionRegNet  # noqa: E402

from tests.frameworks.drawn import REAL  # noqa: E402
from tests.oracles import torchvision as in_torchvision  # noqa: E402
from tests.oracles import transformers as in_transformers  # noqa: E402
from tests.oracles.statistics import randomise  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import nn

ROOT = Path(__file__).parents[2]
RECORDED = ROOT / "tests" / "recorded" / "onnx"
FACTS = RECORDED / "facts.json"

SCRIPT = ROOT / ".venv-onnx"
"""Has onnxscript; what else it has yields to the project's own."""

OPTIMUM = ROOT / ".venv-optimum" / "bin" / "optimum-cli"

NETWORKS = ("x", "y", "odd")
PUBLISHED = "RegNetX-200MF"
OPEN = {0: "batch", 2: "height", 3: "width"}


def images() -> torch.Tensor:
    """Two normalised images (2, 3, 64, 64), float32."""
    steps = torch.arange(2 * 3 * 64 * 64, dtype=torch.float64)
    return (2 * torch.sin(steps * steps * 0.37)).float().reshape(2, 3, 64, 64)


def _timm(name: str) -> nn.Module:
    """Of the odd one a trunk."""
    shape = RegNetCfg(
        depth=5, w0=8, wa=8.0, wm=1.6, group_size=8, se_ratio=0.25 * float(name in {"y", "odd"})
    )
    classes = 5 * (name != "odd")
    if name == PUBLISHED:
        rule = REAL[name]
        shape.depth, shape.w0, shape.wa, shape.wm = rule.depth, rule.w_0, rule.w_a, rule.w_m
        classes = rule.classes
    network = build_model_with_cfg(
        RegNet, "regnety_002", False, model_cfg=shape, num_classes=classes
    )
    return randomise(network, seed=3)


def _torchvision(name: str) -> nn.Module:
    """The odd one has more depth and a number of classes of its own."""
    depth, slope, group, classes = (7, 5.0, 12, 7) if name == "odd" else (5, 8.0, 8, 5)
    fields: dict[str, Any] = {"depth": depth, "w_0": 8, "w_a": slope, "w_m": 1.6}
    if name == PUBLISHED:
        rule = REAL[name]
        fields = {"depth": rule.depth, "w_0": rule.w_0, "w_a": rule.w_a, "w_m": rule.w_m}
        classes = rule.classes
    shape = in_torchvision.shape_of(attention=name in {"y", "odd"}, group_width=group, **fields)
    return randomise(TorchvisionRegNet(shape, num_classes=classes), seed=4)


def _transformers(name: str) -> nn.Module:
    """The odd one computes SiLU, and its first stage does not downsample."""
    odd = {"hidden_act": "silu", "downsample_in_first_stage": False}
    return _twin(name, odd)


def _transformers4(name: str) -> nn.Module:
    """What transformers 4 builds too, whose first stage always downsamples."""
    return _twin(name, {"hidden_act": "silu", "groups_width": 4, "num_labels": 7})


def _twin(name: str, odd: dict[str, object]) -> nn.Module:
    fields: dict[str, Any] = {
        "embedding_size": 16,
        "hidden_sizes": [16, 24, 32],
        "depths": [2, 1, 1],
        "layer_type": "y" if name in {"y", "odd"} else "x",
        "num_labels": 5,
    }
    if name == "odd":
        fields |= odd
    if name == PUBLISHED:
        rule = REAL[name]
        fields |= {"embedding_size": 32, "hidden_sizes": list(rule.widths)}
        fields |= {"depths": list(rule.depths), "num_labels": rule.classes}
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


def _by_older_torch(network: nn.Module, path: Path) -> None:
    torch.onnx.export(
        network,
        (images(),),
        str(path),
        dynamo=False,
        input_names=["pixels"],
        dynamic_axes={"pixels": OPEN},
    )


def _by_optimum(network: Any, path: Path) -> None:
    with tempfile.TemporaryDirectory() as folder:
        network.save_pretrained(f"{folder}/network")
        task = ("--task", "image-classification", f"{folder}/out")
        subprocess.run(
            [OPTIMUM, "export", "onnx", "-m", f"{folder}/network", *task],
            check=True,
            capture_output=True,
            env={},
        )
        shutil.copy(f"{folder}/out/model.onnx", path)


def _by_ourselves(network: Any, path: Path) -> None:
    from converters.jobs.convert import convert

    with tempfile.TemporaryDirectory() as folder:
        network.save_pretrained(f"{folder}/network")
        convert(f"{folder}/network", f"{folder}/out", formats=("onnx",), verify=False)
        shutil.copy(f"{folder}/out/model.onnx", path)


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
    "optimum": (_transformers4, _by_optimum),
    "torch-older": (_torchvision, _by_older_torch),
    "regnet": (_transformers, _by_ourselves),
}

HERE = {"torch-older", "regnet"}
"""Those that the ordinary tests call themselves, so that nothing is recorded."""


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


@torch.inference_mode()
def write(exporter: str, network: str, folder: Path) -> None:
    """Build a network, and write its export, its weights and what it computes."""
    build, export = EXPORTERS[exporter]
    module = build(network).eval()
    export(module, folder / "model.onnx")
    save = getattr(module, "save_pretrained", None)
    if save is not None:
        save(folder / "source")
    else:
        torch.save(module.state_dict(), folder / "source")
    output = module(images())
    np.save(folder / "output.npy", getattr(output, "logits", output).numpy())


if __name__ == "__main__":
    sys.path += map(str, SCRIPT.glob("lib/python3*/site-packages"))
    if sys.argv[1:]:
        write(sys.argv[1], sys.argv[2], Path(sys.argv[3]))
        sys.exit()
    RECORDED.mkdir(parents=True, exist_ok=True)
    facts = {
        f"{exporter}-{network}": record(exporter, network)
        for exporter in EXPORTERS
        if exporter not in HERE
        for network in NETWORKS
    }
    FACTS.write_text(json.dumps(facts) + "\n", "utf-8")
