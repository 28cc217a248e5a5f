"""TorchScript files of many exporters as sources, and programs that are no RegNet."""

from __future__ import annotations

import json
import re
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any
from zipfile import ZipFile

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from converters.errors import InputError
from converters.families.options import SourceOptions
from converters.jobs.convert import convert
from converters.weights.inspection import inspected
from regnet import RegNetConfig
from tests.converters.families.test_onnx import (
    LIMIT,
    difference,
    digests,
    images,
    output_of,
    require_folds,
)
from tests.converters.loading import load
from tests.oracles import classy_vision as in_classy_vision
from tests.oracles import pycls as in_pycls
from tests.oracles import pytorchcv as in_pytorchcv
from tests.oracles import timm as in_timm
from tests.oracles import torchvision as in_torchvision
from tests.oracles import transformers as in_transformers

if TYPE_CHECKING:
    from collections.abc import Callable

JIT: Any = torch.jit  # without types

RECORDED = Path(__file__).parents[2] / "recorded" / "torchscript"

pytestmark = pytest.mark.filterwarnings("ignore")

NETWORKS: dict[str, Callable[[], Any]] = {
    "timm-x": lambda: in_timm.build(attention=False, num_classes=5),
    "timm-y": in_timm.build,
    "torchvision-x": lambda: in_torchvision.build(attention=False),
    "torchvision-y": in_torchvision.build,
    "transformers-odd": lambda: in_transformers.twin(
        in_transformers.classifier(
            hidden_act="gelu", num_labels=7, downsample_in_first_stage=False, num_channels=4
        )
    ),
    "transformers-trunk": lambda: in_transformers.twin(
        in_transformers.trunk(hidden_act="gelu_new")
    ),
    "pycls-y": lambda: in_pycls.build(in_pycls.TINY, classes=10),
    "classy-vision-x": lambda: in_classy_vision.build(in_classy_vision.TINY_X),
    "pytorchcv-y": in_pytorchcv.build,
}

KINDS: dict[str, Callable[[Any, torch.Tensor], Any]] = {
    "traced": lambda network, pixels: JIT.trace(network, pixels, strict=False, check_trace=False),
    "scripted": lambda network, _: JIT.script(network),
    "scripted in training": lambda network, _: JIT.script(network).train(),
}

FILES = [
    *[(name, "traced") for name in NETWORKS],
    ("timm-y", "scripted"),
    ("torchvision-x", "scripted in training"),
    ("timm-x", "scripted, frozen"),
    ("torchvision-y", "scripted, frozen"),
    ("transformers-trunk", "traced, frozen"),
    ("pycls-y", "traced, frozen"),
]


@cache
def network(name: str) -> Any:
    return NETWORKS[name]().eval()


def pixels_of(name: str) -> torch.Tensor:
    channels = next(iter(network(name).parameters())).shape[1]
    return torch.randn(2, channels, 64, 64, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module")
def exports(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, str], Path]:
    """Files of torch.jit; each is made once."""
    folder = tmp_path_factory.mktemp("exports")

    def exported(name: str, kind: str) -> Path:
        path = folder / f"{name}-{kind}.pt"
        if not path.exists():
            with torch.no_grad():
                module = KINDS[kind.removesuffix(", frozen")](
                    NETWORKS[name]().eval(), pixels_of(name)
                )
                module = JIT.freeze(module) if kind.endswith("frozen") else module
            JIT.save(module, path)
        return path

    return exported


def theirs_of(name: str) -> np.ndarray:
    with torch.inference_mode():
        found = network(name)(pixels_of(name))
    output = getattr(found, "logits", getattr(found, "pooler_output", found))
    array: np.ndarray = output.flatten(1).numpy()
    return array


@pytest.mark.parametrize(("name", "kind"), FILES, ids=[" ".join(file) for file in FILES])
def test_an_export_comes_back_as_the_network_it_was_made_from(
    name: str, kind: str, exports: Callable[[str, str], Path], tmp_path: Path
) -> None:
    loaded = load(exports(name, kind), tmp_path, channel_order="rgb")

    assert loaded.source.framework == "torchscript"
    assert loaded.decision("graph").startswith("proven, ")
    if name.startswith("classy-vision"):  # whose trunk gives features, for heads
        features = loaded.network(pixels_of(name)).last_hidden_state.detach().numpy()
        assert difference(features, network(name)(pixels_of(name)).detach().numpy()) < LIMIT
    else:
        ours = output_of(loaded.network, pixels_of(name))
        assert difference(ours, theirs_of(name)) < LIMIT
    if kind.endswith("frozen"):
        require_folds(loaded.network.state_dict(), network(name).state_dict())
        assert " are in their convolutions (" in loaded.decision("batch norms")
    else:
        kept = network(name).state_dict()
        weights = [t for key, t in kept.items() if not key.endswith("tracked")]
        assert digests(loaded) == sorted(sha256(t.numpy().tobytes()).hexdigest() for t in weights)
        counted = sorted(int(t) for key, t in kept.items() if key.endswith("tracked"))
        back = loaded.network.state_dict()
        assert counted == sorted(int(t) for key, t in back.items() if key.endswith("tracked"))


def test_the_class_of_the_module_says_whose_images_it_takes(
    exports: Callable[[str, str], Path], tmp_path: Path
) -> None:
    loaded = load(exports("pycls-y", "traced"), tmp_path)

    assert loaded.decision("channel order") == "BGR, stem flipped to take RGB"
    ours = output_of(loaded.network, pixels_of("pycls-y").flip(1))
    assert difference(ours, theirs_of("pycls-y")) < LIMIT
    with inspected(exports("timm-x", "traced"), SourceOptions()) as (_, inspection):
        reasons = [made.reason for made in inspection.source.decisions]
        assert reasons.count("timm's own, whose module it is") == 2


@pytest.mark.parametrize("name", ["x", "y", "scripted"])
def test_a_file_of_torch_1_4_is_read(name: str, tmp_path: Path) -> None:
    facts = json.loads((RECORDED / "facts.json").read_text("utf-8"))[name]

    loaded = load(RECORDED / f"{name}.pt", tmp_path)

    assert difference(output_of(loaded.network, images()), np.array(facts, np.float32)) < LIMIT


def test_our_own_file_gives_the_folder_it_came_from(tmp_path: Path) -> None:
    in_transformers.classifier(num_labels=3).save_pretrained(tmp_path / "net")
    first, second = tmp_path / "first", tmp_path / "second"
    names = ("ant", "bee", "cat")
    convert(tmp_path / "net", first, formats=["torchscript"], labels=names, verify=False)

    done = convert(first / "model.torchscript.pt", second, formats=["torchscript"], verify=False)

    assert done.inspection.source.labels == names
    for name in ("model.torchscript.pt", "preprocessor_config.json"):
        assert (first / name).read_bytes() == (second / name).read_bytes()
    stored, back = (load_file(folder / "model.safetensors") for folder in (first, second))
    assert stored.keys() == back.keys()
    assert all(torch.equal(stored[name], back[name]) for name in stored)
    ours, again = (RegNetConfig.from_pretrained(folder).to_dict() for folder in (first, second))
    assert ours == again


@pytest.mark.parametrize(
    ("stated", "topics"),
    [
        ({"id2label": '{"0": "ant", "1": "bee"}'}, []),
        ({"id2label": '{"0": "ant", "1": "bee", "3": "cat"}'}, []),
        ({"id2label": "ant bee cat", "preprocessing": "[]"}, []),
        ({"id2label": '{"0": "ant", "1": "bee", "2": "cat"}'}, ["labels"]),
        ({"preprocessing": '{"size": "large"}'}, ["not understood"]),
        ({"preprocessing": '{"size": {"shortest_edge": 64}, "crop_pct": 1.0}'}, ["transform"]),
    ],
)
def test_what_whoever_saved_it_states_is_taken_where_it_is_understood(
    stated: dict[str, str], topics: list[str], tmp_path: Path
) -> None:
    scripted = JIT.trace(in_timm.build(attention=False, num_classes=3).eval(), images())
    JIT.save(scripted, tmp_path / "model.pt", _extra_files=stated)

    with inspected(tmp_path / "model.pt", SourceOptions()) as (_, inspection):
        source = inspection.source

    own = "the TorchScript file's own metadata"
    told = [made for made in source.decisions if own in made.reason]
    assert [made.topic.removeprefix("evaluation ") for made in told] == topics
    assert source.transform.resize == (64 if topics == ["transform"] else 256)


def test_weights_that_onednn_has_are_told(
    exports: Callable[[str, str], Path], tmp_path: Path
) -> None:
    scripted = JIT.load(exports("timm-x", "scripted, frozen"))
    JIT.save(JIT.optimize_for_inference(scripted), tmp_path / "model.pt")

    assert "lacks its weights, for torch.jit.optimize_for_inference" in refused(
        tmp_path / "model.pt"
    )


# Programs that are spelled otherwise, and some that are no RegNet.


def edited(path: Path, folder: Path, *swaps: tuple[str, str]) -> Path:
    """A copy of a file whose code has other texts in the place of some."""
    left = {old for old, _ in swaps}
    with ZipFile(path) as source, ZipFile(folder / "edited.pt", "w") as target:
        for entry in source.infolist():
            content = source.read(entry)
            if entry.filename.endswith(".py"):
                text = content.decode()
                for old, new in swaps:
                    left -= {old} if old in text else set()
                    text = text.replace(old, new)
                content = text.encode()
            target.writestr(entry.filename, content)
    assert not left
    return folder / "edited.pt"


def refused(path: Path) -> str:
    with pytest.raises(InputError) as caught, inspected(path, SourceOptions()):
        pass
    return str(caught.value)


SCRIPTED, FROZEN = ("timm-y", "scripted"), ("torchvision-y", "scripted, frozen")
NORM = "torch.batch_norm(input, weight, bias, running_mean, running_var, training, momentum, eps"
STEM, FIRST = "c1, [2, 2], [1, 1])", "x0 = torch.relu_(input)"
GROUPED = "[1, 1], [1, 1], 2)"
GATE, SUM = "torch.sigmoid(scale2)", "(input0, input6)"
LAST = "x2 = (fc).forward(x1, )"
HEAD = "class ClassifierHead(Module):"
MORE = """\
  return __torch__.torch.nn.functional.more(result, )
def more(x: Tensor) -> Tensor:
  return torch.mul(x, 2)
"""
SIZE = "    if torch.gt(torch.size(x, 2), 9):\n      {}\n    else:\n      {}\n    " + FIRST
RAISE = 'ops.prim.RaiseException("AssertionError: ")'

SPELLINGS: dict[str, tuple[tuple[str, str], tuple[str, str]]] = {
    "a value is read that was written over": (
        FROZEN,
        ("(x0, CONSTANTS.c2", "(input, CONSTANTS.c2"),
    ),
    "tensors exchanged": (
        SCRIPTED,
        (NORM, NORM.replace("weight, bias, running_mean", "bias, weight, running_mean")),
    ),
    "images of a size alone are taken": (FROZEN, ("    " + FIRST, SIZE.format("pass", RAISE))),
    "a view is read for what it is of": (SCRIPTED, (LAST, "x2 = (fc).forward(torch.detach(x1), )")),
    "images are counted": (
        SCRIPTED,
        ("(flatten).forward(x0, )", "torch.view(x0, [torch.size(x0, 0), -1])"),
    ),
    "an object of another name": (FROZEN, ("forward(self:", "forward(this:")),
    "arithmetic": (FROZEN, (f"torch.add{SUM}", "input6 + input0")),
    "names by keyword": (
        FROZEN,
        (GROUPED, "[1, 1], groups=int(torch.add(1, 1)), dilation=[1, 1])"),
    ),
    "a loop": (
        FROZEN,
        ("    " + FIRST, f"    x0 = input\n    for i in range(1):\n      {FIRST}"),
    ),
}


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_a_network_is_read_however_it_is_spelled(
    spelling: str, exports: Callable[[str, str], Path], tmp_path: Path
) -> None:
    file, swap = SPELLINGS[spelling]
    path = edited(exports(*file), tmp_path, swap)

    loaded = load(path, tmp_path / "out")

    with torch.inference_mode():
        theirs = JIT.load(path).eval()(pixels_of(file[0])).numpy()
    assert difference(output_of(loaded.network, pixels_of(file[0])), theirs) < LIMIT


WRONG: list[tuple[tuple[str, str], tuple[str, str], str]] = [
    (
        FROZEN,
        (STEM, "c1, [2, 1], [1, 1])"),
        r"conv2d 'torchvision/models/regnet.py:6' has strides 2, 1",
    ),
    (FROZEN, (STEM, "c1, [2, 2])"), r"has padding 0, 0 where 1, 1 belongs"),
    (FROZEN, (GROUPED, "[1, 1], [2, 2], 2)"), r"has dilation 2, 2 where"),
    (FROZEN, (GROUPED, "[1, 1], [1, 1], 1)"), r"has group 1 where"),
    (FROZEN, ("CONSTANTS.c2,", "CONSTANTS.c2000,"), r"the constant c2000, which is missing"),
    (FROZEN, (GATE, "torch.relu(scale2)"), r"computes relu in squeeze-and-excitation"),
    (FROZEN, (GATE, "torch.hardsigmoid(scale2)"), r"aten.hardsigmoid '.*' is of a kind"),
    (FROZEN, (SUM, "(input0, input6, alpha=2)"), r"aten.add '.*' has alpha 2 where 1"),
    (FROZEN, (SUM, "(input0, input6, out=x0)"), r"line 25: .* with arguments that no RegNet"),
    (FROZEN, (SUM, "(torch.add(input0, 1), input6)"), r"aten.add '.*' ends in no activation"),
    (FROZEN, (SUM, "(x0, input6)"), r"aten.add '.*' stands where a block"),
    (FROZEN, ("(x, CONSTANTS.c0", "(torch.div(x, 255), CONSTANTS.c0"), r"div '.*' ends in no"),
    (FROZEN, (FIRST, "x0 = torch.tanh_(input)"), r"aten.tanh '.*' ends in no activation"),
    (FROZEN, (FIRST, "x0 = torch.selu(input)"), r"and a RegNet has one"),
    (
        FROZEN,
        (FIRST, f"_ = torch.mul_(CONSTANTS.c2, 2)\n    {FIRST}"),
        r"overwrites 'CONSTANTS.c2'",
    ),
    (FROZEN, (FIRST, f"y = torch.detach(input)\n    {FIRST}\n    x0 = y"), r"has overwritten"),
    (FROZEN, ("x: Tensor)", "x: Tensor, y: Tensor)"), r"line 4: takes x, y where a RegNet takes"),
    (FROZEN, ("pass", "x0 = torch.neg(x0)"), r"aten.neg '.*' is of a kind that no RegNet has"),
    (FROZEN, ("    " + FIRST, SIZE.format("x = x", "x = input")), r"line 7: computes differently"),
    (SCRIPTED, (NORM, NORM.replace("eps", "2.")), r"'stem.bn in .*' has epsilon 2"),
    (SCRIPTED, (NORM, NORM.replace("training", "True")), r"'stem.bn in .*' has training True"),
    (
        SCRIPTED,
        ("result = torch.relu(input)", "result = torch.relu(torch.relu(input))"),
        r"aten.relu 's1.b1.act3 in .*' ends in no activation",
    ),
    (
        SCRIPTED,
        (
            "  return result\n",
            MORE,
        ),
        r"aten.mul 'stem.bn.act in .*' ends in no activation",
    ),
    (
        SCRIPTED,
        ("  return result\n", "  return result\ndef relu(x: Tensor) -> Tensor:\n  return x\n"),
        r"functional.py, line \d+: defines relu twice",
    ),
    (
        SCRIPTED,
        (HEAD, f"{HEAD}\n  def forward(self, x: Tensor) -> Tensor:\n    return x"),
        r"line \d+: defines forward twice in ClassifierHead",
    ),
    (SCRIPTED, (HEAD, f'{HEAD}\n  __forward_hooks__ = ["h", ]'), r"calls a module with hooks"),
    (
        SCRIPTED,
        ("training = self.training\n    return", "training = True\n    return"),
        r"train True",
    ),
    (SCRIPTED, (LAST, f"self.fc = self.drop\n      {LAST}"), r"changes something else than"),
    (SCRIPTED, (LAST, f"self.fc.weight = x1\n      {LAST}"), r"changes something else than"),
    (SCRIPTED, (LAST, f"torch = self.fc\n      {LAST}"), r"calls a variable torch, which means"),
    (SCRIPTED, (LAST, f"with x1:\n        {LAST}"), r"is a statement that no RegNet needs"),
    (SCRIPTED, (LAST, f"\t{LAST}"), r"has characters that torch does not write"),
    (SCRIPTED, (LAST, "x2 = (fc).forward(torch.neg(x1), )"), r"aten.neg 'head in .*' is of a kind"),
    (SCRIPTED, (LAST, "x2 = (fc).forward(-x1, )"), r"has a form that torch does not write"),
    (SCRIPTED, (LAST, "x2 = (fc).forward(x1 if True else x, )"), r"has a form that torch does"),
    (SCRIPTED, (LAST, "x2 = (fc).forward(x1.mul(2), )"), r"calls a method of what is no module"),
    (SCRIPTED, (LAST, "x2 = x1 if 0 < 1 < 2 else x1"), r"has a form that torch does not write"),
]


@pytest.mark.parametrize(
    ("file", "swap", "message"), WRONG, ids=[f"{swap[1]!a}" for _, swap, _ in WRONG]
)
def test_what_is_no_regnet_is_refused_by_its_place(
    file: tuple[str, str],
    swap: tuple[str, str],
    message: str,
    exports: Callable[[str, str], Path],
    tmp_path: Path,
) -> None:
    said = refused(edited(exports(*file), tmp_path, swap))

    assert said.startswith("edited.pt")
    assert re.search(message, said)
