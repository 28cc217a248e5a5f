"""transformers' files of TensorFlow and Flax, beyond what each framework's recorded files tell."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import h5py
import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from converters.errors import InputError, UnsafeInputError
from regnet import RegNetConfig, RegNetForImageClassification
from tests.converters.checkpoint.test_msgpack import leaves, packed, theirs
from tests.converters.families.conversion import converted, source_of
from tests.frameworks.drawn import images
from tests.frameworks.environments import RECORDED
from tests.frameworks.test_recorded import LIMIT, difference, logits_of, recorded_logits
from tests.oracles.statistics import randomise

if TYPE_CHECKING:
    from collections.abc import Callable

NAMES = {"tensorflow": "tf_model.h5", "flax": "flax_model.msgpack"}
FILES = {"tensorflow": RECORDED / "tensorflow" / "y.h5", "flax": RECORDED / "flax" / "y.msgpack"}
EACH = pytest.mark.parametrize("framework", NAMES)

CONFIG = {
    "model_type": "regnet",
    "embedding_size": 32,
    "hidden_sizes": [8, 16, 24, 32],
    "depths": [1, 1, 1, 2],
    "groups_width": 8,
    "layer_type": "y",
    "id2label": {str(index): f"class {index}" for index in range(10)},
    "transformers_version": "4.45.2",
}
PROCESSOR = {
    "image_processor_type": "ConvNextImageProcessor",
    "crop_pct": 0.95,
    "image_mean": [0.5, 0.4, 0.3],
    "image_std": [0.2, 0.2, 0.2],
    "resample": 2,
    "size": {"shortest_edge": 192},
}


def folder_of(framework: str, folder: Path, **changes: Any) -> Path:
    """A folder as transformers leaves it on the Hub."""
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copy(FILES[framework], folder / NAMES[framework])
    (folder / "config.json").write_text(json.dumps(CONFIG | changes))
    (folder / "preprocessor_config.json").write_text(json.dumps(PROCESSOR))
    return folder


@EACH
@pytest.mark.parametrize("named", [True, False])
def test_what_lies_beside_the_weights_is_read(framework: str, named: bool, tmp_path: Path) -> None:
    folder = folder_of(framework, tmp_path / "theirs")

    done = converted(folder / NAMES[framework] if named else folder)

    assert done.framework == framework
    assert done.config.id2label[3] == "class 3"
    assert done.processor.size == {"shortest_edge": 192}
    assert done.processor.image_mean == (0.5, 0.4, 0.3)
    assert difference(logits_of(done.out), recorded_logits(framework, "y")) < LIMIT


@EACH
def test_a_configuration_of_another_network_is_refused(framework: str, tmp_path: Path) -> None:
    folder = folder_of(framework, tmp_path / "theirs", depths=[1, 1, 2, 1])

    with pytest.raises(InputError, match=r"its config\.json says depths"):
        source_of(folder)


def test_weights_are_taken_from_the_file_that_transformers_takes(tmp_path: Path) -> None:
    """Torch's first, then TensorFlow's, then Flax's."""
    folder = tmp_path / "theirs"
    for framework in NAMES:
        folder_of(framework, folder)

    source = source_of(folder)
    assert source.framework == "tensorflow"
    assert source.skipped["flax_model.msgpack"] == (
        "the weights are read from tf_model.h5, where transformers looks first"
    )
    done = converted(folder)
    shutil.copy(done.out / "model.safetensors", folder)
    assert source_of(folder).framework == "transformers"


def as_trunk(framework: str, path: Path) -> None:
    """Rename a network's tensors to what the class without a head calls them."""
    if framework == "flax":
        tree = theirs(path.read_bytes())
        path.write_bytes(packed({kind: variables["regnet"] for kind, variables in tree.items()}))
        return
    with h5py.File(path, "r+") as file:
        del file["classifier.1"], file["flatten"]
        file.attrs["layer_names"] = [b"regnet"]
        group = file["regnet"]
        inner = "tf_reg_net_for_image_classification"
        names = [
            str(name).replace(inner, "tf_reg_net_model") for name in group.attrs["weight_names"]
        ]
        group.attrs["weight_names"] = names
        group.move(inner, "tf_reg_net_model")


@EACH
def test_a_trunk_stays_one(framework: str, tmp_path: Path) -> None:
    path = folder_of(framework, tmp_path / "theirs") / NAMES[framework]
    as_trunk(framework, path)

    done = converted(tmp_path / "theirs")

    whole = converted(folder_of(framework, tmp_path / "whole" / "theirs"))
    trunk, expected = (load_file(one.out / "model.safetensors") for one in (done, whole))
    assert done.config.architectures == ["RegNetModel"]
    assert {f"regnet.{name}" for name in trunk} == {n for n in expected if "classifier" not in n}
    assert all(torch.equal(tensor, expected[f"regnet.{name}"]) for name, tensor in trunk.items())


def flax_tree(model: torch.nn.Module, order: Callable[[np.ndarray], np.ndarray]) -> bytes:
    """A model of ours as Flax would save it, where ``order`` is right."""
    leaves = {"running_mean": "mean", "running_var": "var"}
    tree: dict[str, Any] = {"params": {}, "batch_stats": {}}
    for name, tensor in model.state_dict().items():
        *levels, leaf = name.split(".")
        if leaf == "num_batches_tracked":
            continue
        if leaf == "weight":
            leaf = "scale" if tensor.ndim == 1 else "kernel"
        at = tree["batch_stats" if leaf in leaves else "params"]
        for level in levels:
            at = at.setdefault(level, {})
        at[leaves.get(leaf, leaf)] = order(tensor.numpy())
    return packed(tree)


def last(array: np.ndarray) -> np.ndarray:
    order = {4: (2, 3, 1, 0), 2: (1, 0)}.get(array.ndim, (0,))
    return np.ascontiguousarray(array.transpose(order))


def test_shapes_that_tell_no_order_are_read_in_the_right_one(tmp_path: Path) -> None:
    """A stem of 3x3x3x3 and a square classifier fit any order."""
    config = RegNetConfig(
        embedding_size=3,
        hidden_sizes=[8, 16],
        depths=[1, 1],
        groups_width=8,
        num_labels=16,
        layer_type="y",
    )
    model = randomise(RegNetForImageClassification(config)).eval()
    path = tmp_path / "net.msgpack"
    path.write_bytes(flax_tree(model, last))

    with torch.inference_mode():
        expected = model(torch.from_numpy(images())).logits.numpy()
    assert difference(logits_of(converted(path).out), expected) < LIMIT


def test_torchs_order_under_these_names_is_refused(tmp_path: Path) -> None:
    config = RegNetConfig(hidden_sizes=[8, 16], depths=[1, 1], groups_width=8, num_labels=7)
    path = tmp_path / "net.msgpack"
    path.write_bytes(flax_tree(RegNetForImageClassification(config), lambda array: array))

    with pytest.raises(InputError, match=r"^net\.msgpack"):
        source_of(path)


def test_a_state_of_a_training_run_leaves_its_optimiser_out(tmp_path: Path) -> None:
    tree = theirs(FILES["flax"].read_bytes())
    tree |= {"step": 9, "opt_state": {"0": {"mu": tree["params"], "count": np.int32(9)}}}
    path = tmp_path / "state.msgpack"
    path.write_bytes(packed(tree))

    source = source_of(path)

    assert source.framework == "flax"
    assert any("optimiser" in reason for reason in source.skipped.values())
    assert difference(logits_of(converted(path).out), recorded_logits("flax", "y")) < LIMIT


def test_another_network_is_called_what_it_begins_with(tmp_path: Path) -> None:
    (tmp_path / "net.msgpack").write_bytes(packed({"params": {"Dense_0": {"kernel": np.ones(3)}}}))

    with pytest.raises(InputError, match=r"its first parameter is Dense_0\.kernel"):
        source_of(tmp_path / "net.msgpack")


# In shards.


def sharded(framework: str, folder: Path) -> Path:
    """What transformers saved in three shards, with an index."""
    return Path(shutil.copytree(RECORDED / framework / "sharded", folder / "theirs"))


def index_of(folder: Path) -> Path:
    return next(folder.glob("*.index.json"))


NAMED = [
    *[("flax", named) for named in ("", "*.index.json", "*-00002-of-00003.*", "config.json")],
    ("tensorflow", "*-00002-of-00003.*"),
]


@pytest.mark.parametrize(("framework", "named"), NAMED)
def test_shards_are_read_together_whichever_is_named(
    framework: str, named: str, tmp_path: Path
) -> None:
    folder = sharded(framework, tmp_path)
    whole = source_of(FILES[framework])

    source = source_of(next(folder.glob(named)) if named else folder)

    assert source.framework == framework
    assert source.config.to_dict().items() >= {"depths": [1, 1, 1, 2], "layer_type": "y"}.items()
    shapes, expected = (
        {name: tensor.shape for name, tensor in one.tensors.items()} for one in (source, whole)
    )
    assert shapes == expected


@EACH
def test_a_shard_that_is_missing_is_named(framework: str, tmp_path: Path) -> None:
    folder = sharded(framework, tmp_path)
    missing = next(folder.glob("*-00003-of-00003.*"))
    missing.unlink()

    with pytest.raises(InputError, match=rf"1 of 3 shards are missing, first '{missing.name}'"):
        source_of(folder)


@EACH
def test_a_shard_without_its_index_is_refused(framework: str, tmp_path: Path) -> None:
    folder = sharded(framework, tmp_path)
    index_of(folder).unlink()
    shard = next(folder.glob("*-00001-of-00003.*"))

    with pytest.raises(InputError) as caught:
        source_of(shard)
    assert str(caught.value) == (
        f"{shard.name}: is one of 3 shards, and no index beside it names it; get the whole folder, "
        "with its index."
    )


@EACH
def test_an_index_that_says_otherwise_than_its_shards_is_refused(
    framework: str, tmp_path: Path
) -> None:
    index = index_of(sharded(framework, tmp_path))
    said = json.loads(index.read_text())
    first = min(said["weight_map"])
    said["weight_map"][first] = next(v for v in said["weight_map"].values() if "00002" in v)
    index.write_text(json.dumps(said))

    with pytest.raises(InputError, match="index and shards are not of one download"):
        source_of(index.parent)


def test_a_shard_of_statistics_alone_is_read(tmp_path: Path) -> None:
    """Where Flax's parameters fill the shards before."""
    tree = theirs(FILES["flax"].read_bytes())
    for kind, name in (("params", "one"), ("batch_stats", "other")):
        (tmp_path / f"{name}.msgpack").write_bytes(packed({kind: tree[kind]}))
    names = {
        f"{kind}/{key.replace('.', '/')}": f"{file}.msgpack"
        for kind, file in (("params", "one"), ("batch_stats", "other"))
        for key in leaves(tree[kind])
    }
    (tmp_path / "flax_model.msgpack.index.json").write_text(json.dumps({"weight_map": names}))

    assert source_of(tmp_path).tensors.keys() == source_of(FILES["flax"]).tensors.keys()


def test_a_shard_that_holds_more_than_it_lists_is_refused(tmp_path: Path) -> None:
    """Transformers reads what is listed, and other programs all that is there."""
    folder = sharded("tensorflow", tmp_path)
    shard = folder / "tf_model-00003-of-00003.h5"
    with h5py.File(shard, "r+") as file:
        file.attrs["layer_names"] = file.attrs["layer_names"][:1]

    with pytest.raises(UnsafeInputError, match="its layer_names are not the datasets of the file"):
        source_of(folder)


def test_of_several_files_it_is_said_which_was_taken(tmp_path: Path) -> None:
    done = converted(folder_of("flax", tmp_path / "flax"))
    folder = sharded("flax", tmp_path)
    shutil.copy(FILES["tensorflow"], folder / "tf_model.h5")
    shutil.copy(FILES["flax"], folder / "flax_model.msgpack")
    shutil.copy(done.out / "model.safetensors", folder / "model.safetensors")
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")

    source = source_of(folder)

    others = {
        "pytorch_model.bin",
        "tf_model.h5",
        "flax_model.msgpack",
        "flax_model.msgpack.index.json",
    }
    why = "the weights are read from model.safetensors, where transformers looks first"
    assert source.skipped == dict.fromkeys(others, why)


def test_names_that_become_one_are_refused(tmp_path: Path) -> None:
    """Of which transformers would read one and other programs the other."""
    tensors = {"regnet/x/kernel:0": torch.ones(1), "regnet.x.kernel": torch.ones(1)}
    save_file(tensors, tmp_path / "net.safetensors", {"format": "tf"})

    with pytest.raises(InputError, match=r"regnet\.x\.kernel twice, in levels and with dots"):
        source_of(tmp_path / "net.safetensors")
