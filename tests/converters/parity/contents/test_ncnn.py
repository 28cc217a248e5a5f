"""What a certificate finds in ncnn's files: every layer, every setting, every weight."""

from __future__ import annotations

import re
import shutil
from typing import TYPE_CHECKING

import numpy as np
import pytest

from converters.folder.folder import ConvertedFolder
from converters.formats.ncnn import export_ncnn
from converters.formats.registry import FORMATS
from converters.parity.contents.tensors import certify, is_ours
from regnet.config import RegNetConfig
from tests.converters.formats.random_folder import random_folder
from tests.converters.parity.contents.tampering import BLOCK, STEM, the_clause
from tests.converters.parity.networks import _SMALL, NETWORKS, WIDER

if TYPE_CHECKING:
    from pathlib import Path

PARAM, BIN = FORMATS["ncnn"].files

_EVONORM = f"{STEM}.normalization"
_POOLER = "regnet.encoder.stages.0.layers.0.shortcut.pooler"
_FIRST = "regnet.encoder.stages.0.layers.0"

CHANGES = {
    (
        "Y",
        r"(embedder\.convolution 0=8 .*)3=2",
        r"\g<1>3=1",
    ): f"{STEM} has stride 1 where 2 belongs",
    ("Y", r"4=1 5=1 6=216", "4=0 5=1 6=216"): f"{STEM} has padding 0 where 1 belongs",
    ("Y", r"4=1 5=1 6=216", "4=-233 5=1 6=216"): f"{STEM} has padding same where 1 belongs",
    ("Y", r"4=1 5=1 6=216", "4=1 5=1 6=216 9=1"): f"{STEM} is told 9=1, which nothing needs",
    ("Y", r"4=1 5=1 6=216", "4=1 5=1 6=216 2=2"): f"{STEM} is told 2=2, which nothing needs",
    ("Y", r"0=16 1=3 3=2 4=1 5=1 6=1152 7=2", "0=16 1=3 3=2 4=1 5=1 6=1152 7=4"): (
        f"{_FIRST}.layer.1 has groups 4 where 2 belongs"
    ),
    ("Y", r"ReLU( +regnet\.embedder)", r"Swish\1"): (
        f"{STEM}.activation is silu where relu belongs"
    ),
    ("Y", r"Sigmoid ", "ReLU "): f"{_FIRST}.layer.2.attention.3 is relu where sigmoid belongs",
    ("Y", r"mul 0=2", "mul 0=0"): f"{_FIRST}.layer.2.mul is a sum where a product of two belongs",
    ("Y", r"add 0=0", "add 0=1"): f"{_FIRST}.add is a difference where a sum belongs",
    ("Y", r"pooler 0=1 4=1", "pooler 0=0 4=1"): (
        f"{_FIRST}.layer.2.pooler is the largest value of each channel where the mean of each "
        "channel belongs"
    ),
    ("Y", r"logits 0=10", "scores 0=10"): "classifier.1 makes scores where logits belongs",
    ("Y", r"1 1 pixel_values ", "1 1 pixels "): f"{STEM} reads pixels where pixel_values belongs",
    ("V, averaged shortcut", r"1=1e-05", "1=1.1e-05"): (
        f"{_FIRST}.layer.3.normalization has eps 1.1e-05 where 1e-05 belongs"
    ),
    ("V, averaged shortcut", r"padded 1=1 3=1 4=1", "padded 1=1 3=1 4=0"): (
        f"{_POOLER} has filling a constant where the last repeated belongs"
    ),
    ("V, averaged shortcut", r"padded 1=1 3=1", "padded 1=1 3=0"): (
        f"{_POOLER} has right 0 where 1 belongs"
    ),
    ("V, averaged shortcut", r"1=2 2=2 5=1", "1=2 2=2 5=0"): (
        f"{_POOLER} has ending padded to the end where of whole windows belongs"
    ),
    ("group norm", r"(GroupNorm .*)0=1 1=8", r"\g<1>0=2 1=8"): (
        f"{_EVONORM} has groups 2 where 1 belongs"
    ),
    ("Z of EvoNorm", r"1=1 2=0\.001", "1=1 2=0.0011"): (
        f"{_EVONORM} has eps 0.0011 where 0.001 belongs"
    ),
    ("Z of EvoNorm", r"UnaryOp (.*square) 0=4", r"UnaryOp \1 0=1"): (
        f"{_EVONORM} is function 1 where the square belongs"
    ),
    ("Z of EvoNorm", r"tiled 0=1 1=8", "tiled 0=0 1=8"): f"{_EVONORM} has axis 0 where 1 belongs",
}
"""A network, what is changed in its ``.param``, and what is said of it."""

DAMAGED = {
    "another magic": ("^7767517", "7767518"),
    "fewer values than there are": (r"^(.*\n\d+) \d+", r"\1 1"),
    "a layer of another kind": ("ReLU ", "Noise "),
    "a count that is none": (r" 1 1 pixel_values", " 1 -1 pixel_values"),
    "a kernel of no shape": ("6=216", "6=217"),
    "a setting that is there twice": ("6=216", "6=216 6=216"),
    "a setting of no number": ("3=2", "3=x"),
    "a name that ncnn would cut": ("pixel_values", "p" * 256),
    "a float for an integer": ("3=2", "3=2.0"),
}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, ConvertedFolder]:
    root, folders = tmp_path_factory.mktemp("networks"), {}
    for name in dict.fromkeys(name for name, _, _ in CHANGES):
        config = RegNetConfig(**_SMALL | {**NETWORKS, **WIDER}[name])
        folders[name] = random_folder(root / name, config)
        export_ncnn(folders[name], root / name / PARAM)
    return folders


def copied(folder: ConvertedFolder, path: Path) -> ConvertedFolder:
    return ConvertedFolder(shutil.copytree(folder.path, path))


def change(folder: ConvertedFolder, old: str, new: str) -> None:
    path = folder.path / PARAM
    text = path.read_text()
    changed = re.sub(old, new, text, count=1)
    assert changed != text
    path.write_text(changed)


@pytest.mark.parametrize("name", ["Y", "V, averaged shortcut", "group norm", "Z of EvoNorm"])
def test_a_right_artefact_is_proven_whole(name: str, folders: dict[str, ConvertedFolder]) -> None:
    folder = folders[name]
    found = certify(folder, "ncnn", folder.path / PARAM)
    assert (found.wrong, found.graph_compared) == ((), True)
    kept = [slot for slot in folder.architecture.slots if not slot.is_counter]
    assert 0 < found.identical + found.recomputed <= len(kept)
    assert is_ours(folder, "ncnn", folder.path / PARAM)


@pytest.mark.parametrize(("name", "old", "new"), CHANGES)
def test_a_changed_layer_is_named(
    name: str, old: str, new: str, folders: dict[str, ConvertedFolder], tmp_path: Path
) -> None:
    folder = copied(folders[name], tmp_path / "changed")
    change(folder, old, new)
    found = certify(folder, "ncnn", folder.path / PARAM)
    assert CHANGES[name, old, new] in found.wrong
    assert not is_ours(folder, "ncnn", folder.path / PARAM)


@pytest.mark.parametrize("fault", DAMAGED)
def test_a_damaged_list_of_layers_is_not_read(
    fault: str, folders: dict[str, ConvertedFolder], tmp_path: Path
) -> None:
    folder = copied(folders["Y"], tmp_path / "damaged")
    change(folder, *DAMAGED[fault])
    clause = the_clause(certify(folder, "ncnn", folder.path / PARAM))
    assert clause.startswith("its tensors cannot be read (")


def test_a_value_that_two_layers_read_is_named(
    folders: dict[str, ConvertedFolder], tmp_path: Path
) -> None:
    folder = copied(folders["Y"], tmp_path / "changed")
    change(folder, "activation_splitncnn_1 regnet", "activation_splitncnn_0 regnet")
    assert certify(folder, "ncnn", folder.path / PARAM).wrong == (
        f"{STEM}.activation_splitncnn_0 is read 2 times without a Split",
    )


def test_a_missing_layer_is_named(folders: dict[str, ConvertedFolder], tmp_path: Path) -> None:
    folder = copied(folders["Y"], tmp_path / "changed")
    change(folder, r"(ReLU +)regnet\.embedder\.embedder\.activation", r"\1other")
    assert certify(folder, "ncnn", folder.path / PARAM).wrong == (
        "other is a layer that nothing needs",
        f"{STEM}.activation has no layer {STEM}.activation",
    )


def test_a_flipped_bit_has_a_name(folders: dict[str, ConvertedFolder], tmp_path: Path) -> None:
    folder = copied(folders["Y"], tmp_path / "changed")
    weights = np.fromfile(folder.path / BIN, np.uint32)
    assert weights[0] == 0
    for place, name in (
        (1, f"{STEM}.folded_weight differs from"),
        (-1, "classifier.1.bias differs"),
    ):
        weights[place] ^= 1 << 12
        weights.tofile(folder.path / BIN)
        assert the_clause(certify(folder, "ncnn", folder.path / PARAM)).startswith(name)
        weights[place] ^= 1 << 12


def test_weights_that_are_rounded_cut_off_or_too_many_are_found(
    folders: dict[str, ConvertedFolder], tmp_path: Path
) -> None:
    folder = copied(folders["Y"], tmp_path / "changed")
    right = (folder.path / BIN).read_bytes()

    def clause(content: bytes) -> str:
        (folder.path / BIN).write_bytes(content)
        return the_clause(certify(folder, "ncnn", folder.path / PARAM))

    half = (0x01306B47).to_bytes(4, "little")
    stored = "is said to be stored otherwise than in float32"
    assert clause(half + right[4:]) == f"{STEM}.folded_weight {stored}"
    assert clause(right[:-4]).startswith("its tensors cannot be read (it ends at byte ")
    assert clause(right + bytes(4)) == (
        f"the weights end at byte {len(right)}, and the file at {len(right) + 4}"
    )


def test_kernels_of_one_shape_that_are_exchanged_are_both_named(
    folders: dict[str, ConvertedFolder], tmp_path: Path
) -> None:
    folder = copied(folders["Y"], tmp_path / "changed")
    text = (folder.path / PARAM).read_text()
    lines = text.splitlines()
    one, other = (
        next(
            i
            for i, line in enumerate(lines)
            if line.split()[1:2] == [f"{BLOCK}.layer.{n}.convolution"]
        )
        for n in (0, 3)
    )
    lines[one], lines[other] = lines[other], lines[one]
    (folder.path / PARAM).write_text("\n".join(lines) + "\n")
    wrong = certify(folder, "ncnn", folder.path / PARAM).wrong
    named = {clause.partition(" differs from")[0] for clause in wrong}
    leaves = ("folded_weight", "folded_bias")
    assert named >= {f"{BLOCK}.layer.{n}.{leaf}" for n in (0, 3) for leaf in leaves}
