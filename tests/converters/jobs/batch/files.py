"""Any number of checkpoints, most of them good, each with the outcome it must have."""

from __future__ import annotations

import itertools
import os
import pickle
import shutil
import struct
import zipfile
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import load_file, save_file
from timm.models.resnet import BasicBlock, ResNet

from tests.oracles import savers, transformers

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    Breaker = Callable[[Path], object]

CLASSES = 5
"""No other tensor of the networks has as many elements as their classifiers' biases."""

FEW = ("pycls", "timm", "torchvision", "transformers")
MANY = (*FEW, "classy-vision", "mmpretrain")


@dataclass(frozen=True)
class Made:
    """A checkpoint of a batch.

    Attributes:
        path: The file or folder.
        mark: What the first bias of its classifier is; it tells the networks of a batch apart.
        status: What `regnet convert` must end on.
        reason: In the sentence, if it does not convert.
    """

    path: Path
    mark: float
    status: int = 0
    reason: str = ""


class _Payload:
    """What unpickling would run: it makes a folder."""

    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, ("the code ran",)


def _halve(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def _flip_a_bit(path: Path) -> None:
    """In the storage of a weight, where nothing but the checksum can tell."""
    torch.save(torch.load(path, weights_only=False), path)
    with zipfile.ZipFile(path) as archive:
        entry = next(e for e in archive.infolist() if "/data/" in e.filename and e.file_size > 1000)
    content = bytearray(path.read_bytes())
    name, extra = struct.unpack_from("<HH", content, entry.header_offset + 26)
    content[entry.header_offset + 30 + name + extra + 500] ^= 1
    path.write_bytes(content)


def _lose_a_number(path: Path) -> None:
    tree = torch.load(path, weights_only=False)
    set_bias(tree, float("nan"))
    torch.save(tree, path)


def _save_code(path: Path) -> None:
    tree = torch.load(path, weights_only=False)
    torch.save(tree | {"extra": _Payload()}, path)


def _save_resnet(path: Path) -> None:
    torch.save(ResNet(BasicBlock, (1, 1, 1, 1), num_classes=CLASSES).state_dict(), path)


def _leave_out_a_tensor(path: Path) -> None:
    tree = torch.load(path, weights_only=False)
    state = tree.get("model_state", tree)
    del state[next(name for name in state if name.endswith("running_var"))]
    torch.save(tree, path)


_PAGE = "<!DOCTYPE html>\n<html><body>404: Not Found</body></html>\n"
_LFS = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a21\nsize 83590140\n"

BROKEN: dict[str, tuple[Breaker, int, str]] = {
    "truncated": (_halve, 2, "truncated|incomplete|cut short|ends"),
    "a flipped bit": (_flip_a_bit, 2, "checksum"),
    "NaN": (_lose_a_number, 2, "NaN"),
    "code": (_save_code, 3, "mkdir"),
    "a bare call": (lambda path: path.write_bytes(pickle.dumps(_Payload())), 3, "mkdir"),
    "another network": (_save_resnet, 2, "no RegNet|ResNet"),
    "a tensor too few": (_leave_out_a_tensor, 2, "running_var"),
    "a web page": (lambda path: path.write_text(_PAGE), 2, "is a web page"),
    "a pointer": (lambda path: path.write_text(_LFS), 2, "git lfs pull"),
    "empty": (lambda path: os.truncate(path, 0), 2, "is empty"),
    "missing": (os.unlink, 2, "there is no such file"),
}
"""What is done to a good file, and the exit status and reason that it must then get."""


def set_bias(tree: Any, value: float) -> None:
    """Set the first bias of the classifier, wherever in a nest it lies."""
    if isinstance(tree, torch.Tensor):
        if tree.shape == (CLASSES,):
            tree.data[0] = value
    elif isinstance(tree, dict):
        for entry in tree.values():
            set_bias(entry, value)


def make_batch(
    folder: Path, count: int, *, frameworks: Sequence[str] = FEW, broken: int
) -> list[Made]:
    """Save networks, no two of them alike, and break every so many of them.

    Args:
        folder: Where to.
        count: How many.
        frameworks: Who saves them, in turn; networks with and without attention.
        broken: How many, spread evenly, of each kind alike.
    """
    (folder / "bases").mkdir(parents=True)
    bases = itertools.cycle(list(_bases(folder / "bases", frameworks)))
    breaks = itertools.cycle(BROKEN.items())
    victims = {round((number + 0.5) * count / broken) for number in range(broken)}
    made = []
    for number in range(count):
        mark = 1 + number / 1024  # exact in float32
        if number not in victims:
            made.append(_variant(folder, f"net-{number:04}", next(bases), mark))
            continue
        kind, (damage, status, reason) = next(breaks)
        name = f"net-{number:04}-{kind.replace(' ', '-')}"
        path = _variant(folder, name, _as_file(folder / "bases"), mark).path
        damage(path)
        made.append(Made(path, mark, status, reason))
    shutil.rmtree(folder / "bases")
    return made


def converted_mark(out: Path) -> float:
    """The first bias of a converted folder's classifier, read with the library."""
    return float(load_file(out / "model.safetensors")["classifier.1.bias"][0])


def _bases(folder: Path, frameworks: Sequence[str]) -> Iterator[Path]:
    for framework in frameworks:
        for layer_type in "x" if framework == "mmpretrain" else "xy":
            place = folder / f"{framework}-{layer_type}"
            place.mkdir()
            if framework == "transformers":
                network = transformers.classifier(layer_type=layer_type, num_labels=CLASSES)
                transformers.twin(network).save_pretrained(place)
                yield place
            else:
                yield savers.save(framework, place, layer_type, CLASSES)[1]


def _as_file(folder: Path) -> Path:
    """The good file that others are broken from: pycls' own, where a pickle surrounds weights."""
    return next(folder.glob("pycls-y/*.pyth"))


def _variant(folder: Path, name: str, base: Path, mark: float) -> Made:
    """A copy of a checkpoint under another name and with another bias."""
    if base.is_dir():
        path = shutil.copytree(base, folder / name)
        (weights,) = (file for file in path.iterdir() if file.suffix in {".safetensors", ".bin"})
    else:
        path = weights = shutil.copy(base, folder / f"{name}{base.suffix}")
    if weights.suffix == ".safetensors":
        tree = load_file(weights)
        set_bias(tree, mark)
        save_file(tree, weights, {"format": "pt"})
    else:
        tree = torch.load(weights, weights_only=False)
        set_bias(tree, mark)
        torch.save(tree, weights)
    return Made(path, mark)
