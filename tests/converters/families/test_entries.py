"""Every entry of a state dict is placed, or left out for a reason, or an error."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import nn

from tests.converters.families.conversion import (
    LIMIT,
    converted,
    difference,
    noise,
    refusal,
    source_of,
    theirs,
)
from tests.oracles import pycls, timm, torchvision
from tests.oracles import transformers as transformers_oracle

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from converters.families.source import Source

CLASSES = 5
MEAN, STD = (0.4914, 0.4822, 0.4465), (0.247, 0.243, 0.261)


class Around(nn.Module):
    """A network within another module, with whatever else that holds."""

    def __init__(self, backbone: nn.Module, **others: nn.Module | torch.Tensor) -> None:
        super().__init__()
        for name, other in others.items():
            if isinstance(other, nn.Module):
                self.add_module(name, other)
            else:
                self.register_buffer(name, other)
        self.backbone = backbone


class Behind(nn.Module):
    """A network with more layers behind it."""

    def __init__(self, backbone: nn.Module, **layers: nn.Module) -> None:
        super().__init__()
        self.backbone = backbone
        for name, layer in layers.items():
            self.add_module(name, layer)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """Run one behind the other."""
        for layer in self.children():
            pixels = layer(pixels)
        return pixels


class Normalise(nn.Module):
    """Subtracts and divides, under any two names."""

    def __init__(
        self, mean: str, std: str, *, shape: tuple[int, ...] = (1, 3, 1, 1), scale: float = 1
    ) -> None:
        super().__init__()
        self.names = mean, std
        for name, values in ((mean, MEAN), (std, STD)):
            self.register_buffer(name, torch.tensor(values).mul(scale).view(shape))

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """Normalise pixels (N, 3, H, W)."""
        mean, std = (self.get_buffer(name).view(1, 3, 1, 1) for name in self.names)
        return (pixels - mean) / std


def headless() -> nn.Module:
    network = torchvision.build(classes=CLASSES)
    network.fc = nn.Identity()
    return network


def width() -> int:
    """How many features a trunk gives."""
    classifier = torchvision.build(classes=CLASSES).get_submodule("fc")
    assert isinstance(classifier, nn.Linear)
    return classifier.in_features


def saved(network: nn.Module, path: Path, **beside: Any) -> Path:
    state = network.state_dict()
    torch.save({"model": state, **beside} if beside else state, path)
    return path


def read(network: nn.Module, tmp_path: Path, **options: Any) -> Source:
    return source_of(saved(network, tmp_path / "net.pth"), **options)


def refused(network: nn.Module, tmp_path: Path, **options: Any) -> str:
    return refusal(lambda: read(network, tmp_path, **options), "net.pth")


# Entries that cannot be read.

KINDS: dict[str, Callable[[torch.Tensor], Any]] = {
    "sparse": lambda tensor: tensor.to_sparse(),
    "sparse rows": lambda tensor: tensor.view(len(tensor), -1).to_sparse_csr(),
    "meta": lambda tensor: tensor.to("meta"),
    "NumPy in another order": lambda tensor: tensor.numpy().astype(">f4"),
    "NumPy objects": lambda tensor: tensor.numpy().astype(object),
    "quantised": lambda tensor: torch.quantize_per_tensor(tensor, 0.1, 0, torch.qint8),
    "in a list": lambda tensor: [tensor],
    "None": lambda _: None,
    "a number": lambda tensor: float(tensor.sum()),
}

HEADS = {
    "torchvision": (lambda: torchvision.build(classes=CLASSES), "fc.weight"),
    "timm": (lambda: timm.build(num_classes=CLASSES), "head.fc.weight"),
    "pycls": (lambda: pycls.build(pycls.TINY, classes=CLASSES), "head.fc.weight"),
    "transformers": (
        lambda: transformers_oracle.twin(transformers_oracle.classifier(num_labels=CLASSES)),
        "classifier.1.weight",
    ),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.filterwarnings("ignore:Sparse CSR", "ignore:.*quantize_per_tensor")
def test_a_head_that_cannot_be_read_is_never_dropped(tmp_path: Path, kind: str) -> None:
    state = torchvision.build(classes=CLASSES).state_dict()
    state["fc.weight"] = KINDS[kind](state["fc.weight"])
    del state["fc.bias"]
    torch.save(state, tmp_path / "net.pth")

    message = refusal(lambda: source_of(tmp_path / "net.pth"), "net.pth")

    assert "fc.weight is stored as" in message


@pytest.mark.parametrize("framework", HEADS)
def test_a_head_that_cannot_be_read_is_named_in_every_framework(
    tmp_path: Path, framework: str
) -> None:
    build, name = HEADS[framework]
    state = {f"module.{n}": t for n, t in build().state_dict().items()}
    state[f"module.{name}"] = state[f"module.{name}"].to_sparse()
    torch.save({"state_dict": state}, tmp_path / "net.pth")

    message = refusal(lambda: source_of(tmp_path / "net.pth"), "net.pth")

    assert f"{name} is stored as a sparse tensor" in message


def test_a_network_that_cannot_be_read_at_all_is_named_so(tmp_path: Path) -> None:
    network = torchvision.build(classes=CLASSES)
    state = {n: t.numpy().astype(">f4") for n, t in network.state_dict().items()}
    torch.save(state, tmp_path / "net.pth")

    message = refusal(lambda: source_of(tmp_path / "net.pth"), "net.pth")

    assert "stem.0.weight is stored as a NumPy array of a big-endian machine" in message


def test_notes_among_the_tensors_and_counters_of_another_kind_do_no_harm(tmp_path: Path) -> None:
    state: dict[str, Any] = dict(torchvision.build(classes=CLASSES).state_dict())
    state |= {"epoch": 3, "args": {"lr": 0.1}, "_extra_state": None, "names": ["a"]}
    state["stem.1.num_batches_tracked"] = 7
    torch.save(state, tmp_path / "net.pth")

    assert source_of(tmp_path / "net.pth").config.num_labels == CLASSES


# What normalises images in front of the network.


@pytest.mark.parametrize(
    ("mean", "std", "form"),
    [
        ("mean", "std", {}),
        ("pixel_mean", "pixel_std", {"shape": (3, 1, 1), "scale": 255}),
        ("new_mean", "new_std", {"shape": (3,)}),
        ("image_mean", "image_std", {}),
        ("mu", "sigma", {"shape": (1, 3)}),
        ("_mean", "_std", {}),
        ("mean_rgb", "std_rgb", {}),
        ("means", "sds", {}),
    ],
)
def test_a_network_that_normalises_computes_the_same_behind_the_folders_processor(
    tmp_path: Path, mean: str, std: str, form: dict[str, Any]
) -> None:
    network = nn.Sequential(Normalise(mean, std, **form), torchvision.build(classes=CLASSES)).eval()
    pixels = torch.rand(2, 3, 64, 64)

    ours = converted(saved(network, tmp_path / "net.pth"))

    processor = ours.processor
    assert processor.image_mean == pytest.approx(MEAN, rel=1e-6)
    assert f"0.{mean}" in ours.decision("normalisation")[1]
    stated = [torch.tensor(v).view(1, 3, 1, 1) for v in (processor.image_mean, processor.image_std)]
    logits = ours.logits((pixels - stated[0]) / stated[1])
    expected = theirs(network, pixels * form.get("scale", 1))
    assert difference(logits, expected) < LIMIT


@pytest.mark.parametrize("place", ["buffers of the module", "behind it in the file", "elsewhere"])
def test_a_normaliser_is_found_wherever_it_is_kept(tmp_path: Path, place: str) -> None:
    network = torchvision.build(classes=CLASSES)
    path = tmp_path / "net.pth"
    mean, std = torch.tensor(MEAN), torch.tensor(STD)
    if place == "elsewhere":
        saved(network, path, normalizer={"mean": mean, "std": std})
    elif place == "behind it in the file":
        saved(Behind(network, normalise=Normalise("mean", "std")), path)
    else:
        saved(Around(network, mean=mean, std=std), path)

    assert source_of(path).transform.mean == pytest.approx(MEAN)


def test_numbers_for_bgr_are_turned_with_the_stem(tmp_path: Path) -> None:
    network = nn.Sequential(Normalise("mean", "std"), pycls.build(pycls.TINY, classes=CLASSES))

    source = read(network, tmp_path)

    assert source.flips_stem
    assert source.transform.mean == MEAN[::-1]
    assert source.transform.std == STD[::-1]


def test_a_network_named_twice_in_a_file_is_one(tmp_path: Path) -> None:
    network = torchvision.build(classes=CLASSES)  # as adversarial training wraps it
    attacker = nn.ModuleDict({"normalize": Normalise("new_mean", "new_std"), "model": network})
    wrapped = nn.ModuleDict(
        {"normalizer": Normalise("new_mean", "new_std"), "model": network, "attacker": attacker}
    )

    source = read(wrapped, tmp_path)

    assert source.skipped == {"attacker.model": "the very tensors of model"}
    assert source.transform.mean == pytest.approx(MEAN)


@pytest.mark.parametrize(
    "front",
    {
        "an affine layer": lambda: {"shift": torch.zeros(3)},
        "a batch norm": lambda: {"bn0": nn.BatchNorm2d(3)},
        "a convolution of four bands": lambda: {"adapt": nn.Conv2d(4, 3, 1)},
        "a pattern that is added": lambda: {"prompt": torch.zeros(1, 3, 224, 224)},
        "two that differ": lambda: {
            "a": Normalise("mean", "std"),
            "b": Normalise("mean", "std", scale=0.5),
        },
        "a deviation of nothing": lambda: {"mean": torch.zeros(3), "std": torch.zeros(3)},
    }.items(),
    ids=lambda pair: pair[0],
)
def test_whatever_else_may_change_the_images_is_refused(
    tmp_path: Path, front: tuple[str, Callable[[], Any]]
) -> None:
    message = refused(Around(torchvision.build(classes=CLASSES), **front[1]()), tmp_path)

    assert "images" in message or "pixels" in message


# Classifiers outside the network's own names.


def outside(classes: int = CLASSES) -> nn.Linear:
    return nn.Linear(width(), classes)


@pytest.mark.parametrize(
    "layers",
    {
        "a linear layer": lambda: {"classifier": outside()},
        "behind dropout": lambda: {"head": nn.Sequential(nn.Dropout(), outside())},
    }.items(),
    ids=lambda pair: pair[0],
)
def test_a_linear_layer_outside_the_trunk_is_its_classifier(
    tmp_path: Path, layers: tuple[str, Callable[[], dict[str, nn.Module]]]
) -> None:
    network = Behind(headless(), **layers[1]()).eval()

    ours = converted(saved(network, tmp_path / "net.pth"))

    assert ours.config.num_labels == CLASSES
    assert ours.decision("head")[1] == "the only classifier in the file"
    assert difference(ours.logits(noise()), theirs(network, noise())) < LIMIT


IN_PLACE: dict[str, Callable[[], nn.Module]] = {
    "dropout in front": lambda: nn.Sequential(nn.Dropout(0.2), outside()),
    "more in front that does nothing": lambda: nn.Sequential(
        nn.Flatten(), nn.ReLU(), nn.Dropout(), outside()
    ),
    "alone": lambda: nn.Sequential(outside()),
    "by name": lambda: nn.ModuleDict({"drop": nn.Dropout(), "linear": outside()}),
}


@pytest.mark.parametrize("head", IN_PLACE)
@pytest.mark.parametrize("framework", HEADS)
def test_a_linear_layer_below_the_classifier_s_name_is_the_classifier(
    tmp_path: Path, head: str, framework: str
) -> None:
    build, name = HEADS[framework]
    network = build()
    *above, leaf = name.rpartition(".")[0].split(".")
    features = network.get_submodule(".".join((*above, leaf))).in_features
    layer = IN_PLACE[head]()
    linear = next(n for n, module in layer.named_modules() if isinstance(module, nn.Linear))
    layer.set_submodule(linear, nn.Linear(int(features), 3))
    network.get_submodule(".".join(above)).add_module(leaf, layer)

    source = source_of(saved(network, tmp_path / "net.pth"))

    assert source.config.num_labels == 3
    assert ("head", f"{name.rpartition('.')[0]}.{linear}") in {
        (decision.topic, decision.value) for decision in source.decisions
    }


def test_dropout_in_front_of_the_classifier_computes_the_same(tmp_path: Path) -> None:
    network = torchvision.build(classes=CLASSES)
    network.fc = nn.Sequential(nn.Dropout(0.2), outside())
    network.eval()

    ours = converted(saved(network, tmp_path / "net.pth"))

    assert difference(ours.logits(noise()), theirs(network, noise())) < LIMIT


def test_a_classifier_of_another_name_on_the_network_itself_is_its_own(tmp_path: Path) -> None:
    network = headless()
    network.add_module("classifier", outside())

    assert read(network, tmp_path).config.num_labels == CLASSES


def test_more_than_a_linear_layer_below_the_classifier_s_name_is_refused(tmp_path: Path) -> None:
    network = headless()
    for head in (
        nn.Sequential(outside(48), nn.ReLU(), nn.Linear(48, CLASSES)),
        nn.Sequential(nn.BatchNorm1d(width()), outside()),
    ):
        network.fc = head

        assert "--head" in refused(network, tmp_path)


def test_half_a_classifier_is_said_to_lack_the_other_half(tmp_path: Path) -> None:
    state = torchvision.build(classes=CLASSES).state_dict()
    del state["fc.weight"]
    torch.save(state, tmp_path / "net.pth")

    message = refusal(lambda: source_of(tmp_path / "net.pth"), "net.pth")

    assert "1 missing (fc.weight);" in message


@pytest.mark.parametrize("profiler", ["thop", "torchstat"])
def test_what_profilers_count_is_left_out(tmp_path: Path, profiler: str) -> None:
    network = torchvision.build(classes=CLASSES)
    for module in network.modules():
        if profiler == "thop":
            module.register_buffer("total_ops", torch.zeros(1, dtype=torch.float64))
            module.register_buffer("total_params", torch.ones(1, dtype=torch.float64))
        elif not list(module.children()):
            for name, size in (("input_shape", 3), ("output_shape", 3), ("Memory", 2)):
                module.register_buffer(name, torch.zeros(size).int())
            for name in ("parameter_quantity", "inference_memory", "MAdd", "Flops"):
                module.register_buffer(name, torch.zeros(1).long())
            module.register_buffer("duration", torch.zeros(1))
    plain = list(torchvision.build(classes=CLASSES).state_dict())

    source = read(network, tmp_path)

    assert list(source.tensors) == plain
    assert set(source.skipped.values()) == {"a counter, which nothing is computed with"}


def test_a_classifier_in_a_mapping_of_its_own_is_the_networks(tmp_path: Path) -> None:
    trunk, classifier = headless(), outside()
    path = saved(trunk, tmp_path / "net.pth", head=classifier.state_dict(), epoch=3)

    ours = converted(path)

    assert difference(ours.logits(noise()), classifier(trunk(noise())).detach()) < LIMIT


BEHIND: dict[str, Callable[[], nn.Module]] = {
    "a classifier behind the old one": lambda: Behind(
        torchvision.build(classes=20), classifier=nn.Linear(20, CLASSES)
    ),
    "two layers": lambda: Behind(
        headless(), head=nn.Sequential(outside(48), nn.ReLU(), nn.Linear(48, CLASSES))
    ),
    "two layers side by side": lambda: Behind(
        headless(), fc1=outside(48), fc2=nn.Linear(48, CLASSES)
    ),
    "a norm in front of the classifier": lambda: Behind(
        headless(), norm=nn.BatchNorm1d(width()), fc=outside()
    ),
    "a temperature": lambda: Around(
        torchvision.build(classes=CLASSES), temperature=torch.tensor([1.5])
    ),
    "an attention that is called like an average": lambda: Behind(
        headless(), ema=nn.Conv1d(1, 1, 3), fc=outside()
    ),
    "no bias": lambda: Behind(headless(), fc2=nn.Linear(width(), CLASSES, bias=False)),
    "a square layer between": lambda: Behind(headless(), projection=outside(width()), fc=outside()),
}


@pytest.mark.parametrize("behind", BEHIND)
def test_what_may_change_the_classes_is_refused_and_the_trunk_can_be_had(
    tmp_path: Path, behind: str
) -> None:
    network = BEHIND[behind]()

    assert "--head" in refused(network, tmp_path)
    assert not read(network, tmp_path, head="none").has_classifier


@pytest.mark.parametrize(("asked", "classes"), [("fc", 20), ("classifier", CLASSES)])
def test_of_an_old_and_a_new_classifier_the_one_asked_for_is_taken(
    tmp_path: Path, asked: str, classes: int
) -> None:
    network = Behind(torchvision.build(classes=20), classifier=outside())

    assert "2 heads (fc, classifier)" in refused(network, tmp_path)
    assert read(network, tmp_path, head=asked).config.num_labels == classes
    assert "has no head 'x'" in refused(network, tmp_path, head="x")


@pytest.mark.parametrize(
    ("name", "layer"),
    [
        ("criterion", lambda: nn.Linear(3, 3)),
        ("loss_fn", lambda: nn.CrossEntropyLoss(weight=torch.ones(3))),
        ("train_acc", lambda: nn.Linear(2, 2)),
        ("teacher", lambda: nn.Conv2d(3, 8, 3)),
        ("model_ema", lambda: nn.Linear(40, 3)),
        ("projector", lambda: nn.Sequential(nn.Linear(40, 16), nn.ReLU(), nn.Linear(16, 8))),
    ],
)
def test_what_only_the_training_ran_is_left_out_with_its_reason(
    tmp_path: Path, name: str, layer: Callable[[], nn.Module]
) -> None:
    source = read(Around(torchvision.build(classes=3), **{name: layer()}), tmp_path)

    assert source.config.num_labels == 3
    assert len(source.skipped[name]) > 10


def test_heads_of_pretraining_leave_a_trunk(tmp_path: Path) -> None:
    for projector in (nn.Sequential(outside(48), nn.ReLU(), nn.Linear(48, 8)), outside(48)):
        source = read(Behind(headless(), projector=projector), tmp_path)

        assert not source.has_classifier
        assert source.skipped == {"projector": "a head of pre-training, which gives no classes"}


def test_networks_of_two_frameworks_in_one_file_are_chosen_among(tmp_path: Path) -> None:
    both = nn.ModuleDict(
        {"a": torchvision.build(classes=CLASSES), "b": timm.build(num_classes=CLASSES)}
    )

    assert "torchvision's at a, timm's at b" in refused(both, tmp_path).replace(
        "timm's at b, torchvision's at a", "torchvision's at a, timm's at b"
    )
    assert read(both, tmp_path, framework="timm").framework == "timm"
