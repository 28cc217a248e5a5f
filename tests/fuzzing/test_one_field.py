"""A valid checkpoint with one field changed: the same weights, or refused, never a third thing.

What names another valid checkpoint (another storage of the same size, say) has to be read as its
own framework reads it: then torch, or the safetensors library, loads the file and saves it anew.
"""

from __future__ import annotations

import random
import shutil
import zipfile
from functools import partial
from io import BytesIO
from typing import TYPE_CHECKING

import pytest
import torch
from safetensors.torch import load as load_safetensors
from safetensors.torch import save as save_safetensors
from torch.utils._pytree import tree_flatten, tree_map_only, tree_unflatten

from converters.errors import ConversionError
from converters.jobs.convert import convert
from fuzz.guard import require_sentence
from fuzz.seeds import content_of
from regnet import RegNetImageProcessor
from tests.converters.checkpoint.files import zip_of
from tests.fuzzing import fields
from tests.oracles.pycls import build, save
from tests.oracles.statistics import randomise

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from tests.fuzzing.fields import Changed

DENSE = torch.contiguous_format

QUICK, LONG = 40, 1500
"""How many of up to ten thousand a test takes."""


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("one-field")


@pytest.fixture(scope="module")
def trained(workspace: Path) -> Path:
    """What pycls itself saves of a small network of its own, in the container it had then."""
    stages = {"DEPTH": 2, "W0": 8, "WA": 8.0, "WM": 2.0, "GROUP_W": 8}
    network = build(stages, classes=3)
    return save(workspace / "trained.pyth", network, stages, classes=3)


def weights(path: Path, out: Path) -> bytes | None:
    """The weights that a checkpoint converts to, or None if it is refused."""
    try:
        convert(path, out, formats=(), verify=False, force=True)
    except ConversionError as error:
        require_sentence(str(error))
        return None
    return (out / "model.safetensors").read_bytes()


def judge(
    original: bytes,
    changed: Iterable[Changed],
    folder: Path,
    reread: Callable[[Path], bytes] | None = None,
    inside: str = "",
) -> None:
    """Convert every changed file.

    Args:
        original: The weights without a change.
        changed: The files.
        folder: Where they are put, one after another.
        reread: Loads a file with its own library and saves it anew; what the library can read must
            convert to the same then. Without it no change may lead to other weights.
        inside: The file's name, if the folder is what is converted.
    """
    outcomes = {"same": 0, "refused": 0, "as its own library reads it": 0}
    path, out = folder / (inside or "model.pyth"), folder.with_name("out")
    for field, content in changed:
        path.write_bytes(content)
        got = weights(folder if inside else path, out)
        if got is None:
            outcomes["refused"] += 1
            continue
        outcomes["same" if got == original else "as its own library reads it"] += 1
        anew = reread_or_none(reread, path) if reread else None
        if anew is not None:
            (folder / "anew").write_bytes(anew)
            assert got == weights(folder / "anew", out), f"not as its own library reads it: {field}"
        else:
            assert got == original, f"other weights for {field}"
    assert outcomes["refused"], outcomes
    assert outcomes["same"], outcomes


def reread_or_none(reread: Callable[[Path], bytes], path: Path) -> bytes | None:
    """The file saved anew, or None if its own library does not read it, for whatever reason."""
    try:
        return reread(path)
    except Exception:  # noqa: BLE001 -- torch raises what comes
        return None


def reread_by_torch(path: Path) -> bytes:
    """Every tensor alone in its storage: strides and offsets are torch's to read, not ours."""
    tree = torch.load(path, weights_only=True)
    tree = tree_map_only(torch.Tensor, partial(torch.clone, memory_format=DENSE), tree)
    torch.save(tree, buffer := BytesIO())
    return buffer.getvalue()


def in_one_storage(path: Path) -> bytes:
    """Every tensor of float32 a view of the same storage, so that another offset is valid too."""
    tree = torch.load(path, weights_only=True)
    leaves, structure = tree_flatten(tree)
    floats = [index for index, leaf in enumerate(leaves) if isinstance(leaf, torch.FloatTensor)]
    storage, offset = torch.cat([leaves[index].flatten() for index in floats]), 0
    for index in floats:
        shape = leaves[index].shape
        leaves[index] = storage[offset : offset + shape.numel()].view(shape)
        offset += shape.numel()
    torch.save(tree_unflatten(leaves, structure), buffer := BytesIO())
    return buffer.getvalue()


def reread_by_safetensors(path: Path) -> bytes:
    return save_safetensors(load_safetensors(path.read_bytes()))


def some(changed: Iterable[Changed], how_many: int) -> list[Changed]:
    every = list(changed)
    return random.Random(0).sample(every, min(how_many, len(every)))  # noqa: S311


HOW_MANY = pytest.mark.parametrize(
    "how_many", [QUICK, pytest.param(LONG, marks=pytest.mark.slow)], ids=["few", "many"]
)


@HOW_MANY
def test_one_field_of_a_zip_archive(how_many: int, trained: Path, tmp_path: Path) -> None:
    original = weights(trained, tmp_path / "original")
    assert original
    content = reread_by_torch(trained)
    judge(original, some(fields.of_zip(content), how_many), tmp_path)


@HOW_MANY
@pytest.mark.parametrize("container", ["zip", "one storage", "legacy"])
def test_one_argument_of_an_instruction(
    container: str, how_many: int, trained: Path, tmp_path: Path
) -> None:
    original = weights(trained, tmp_path / "original")
    assert original
    if container != "legacy":
        content = (
            in_one_storage(trained) if container == "one storage" else reread_by_torch(trained)
        )
        changed = [
            (field, with_content(content, pickled))
            for field, pickled in some(fields.of_pickle(content_of(content)), how_many)
        ]
    else:
        content = trained.read_bytes()
        start = content.index(content_of(content))
        changed = some(fields.of_pickle(content, start), how_many)
    judge(original, [*changed, ("none", content)], tmp_path, reread_by_torch)


@HOW_MANY
@pytest.mark.parametrize("name", ["config.json", "preprocessor_config.json"])
def test_one_setting_of_a_folder(
    name: str, how_many: int, folder_of_transformers: Path, tmp_path: Path
) -> None:
    original = weights(folder_of_transformers, tmp_path / "out")
    assert original
    folder = shutil.copytree(folder_of_transformers, tmp_path / "folder")
    if name == "preprocessor_config.json":
        RegNetImageProcessor(size=64).save_pretrained(folder)
    changed = fields.of_settings((folder / name).read_bytes())
    judge(original, some(changed, how_many), folder, inside=name)


def with_content(checkpoint: bytes, content: bytes) -> bytes:
    """A zip archive with another pickle, whose checksum is right."""
    with zipfile.ZipFile(BytesIO(checkpoint)) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    (name,) = (name for name in entries if name.endswith("/data.pkl"))
    return zip_of(entries | {name: content})


@pytest.fixture(scope="module")
def folder_of_transformers(workspace: Path) -> Path:
    transformers = pytest.importorskip("transformers")
    config = transformers.RegNetConfig(
        depths=[1, 1], hidden_sizes=[8, 16], groups_width=8, embedding_size=8, layer_type="x"
    )
    network = randomise(transformers.RegNetForImageClassification(config))
    network.save_pretrained(workspace / "transformers")
    return workspace / "transformers"


@HOW_MANY
def test_one_value_of_a_safetensors_header(
    how_many: int, folder_of_transformers: Path, tmp_path: Path
) -> None:
    path = folder_of_transformers / "model.safetensors"
    original = weights(path, tmp_path / "original")
    assert original
    changed = some(fields.of_safetensors(path.read_bytes()), how_many)
    judge(original, [*changed, ("none", path.read_bytes())], tmp_path, reread_by_safetensors)
