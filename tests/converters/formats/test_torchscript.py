"""TorchScript files against eager PyTorch, to the last bit."""

from __future__ import annotations

import subprocess
import sys
import tracemalloc
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from converters.checkpoint import torch_archive
from converters.errors import InputError
from converters.folder.folder import ConvertedFolder
from converters.formats.torchscript import TorchScriptRuntime, export_torchscript
from regnet.config import RegNetConfig
from regnet.files.safetensors_file import load_tensors
from regnet.model import RegNetForImageClassification, RegNetModel
from tests.converters.formats.random_folder import random_folder

SMALL: dict[str, Any] = {
    "embedding_size": 8,
    "hidden_sizes": [16, 32],
    "depths": [1, 2],
    "groups_width": 8,
    "num_labels": 7,
}
SIZES = [(64, 64), (33, 47), (96, 64)]


@dataclass(frozen=True)
class Case:
    """One network, and whether it has its classifier."""

    fields: dict[str, Any]
    classifier: bool = True

    def folder(self, path: Path) -> ConvertedFolder:
        config = RegNetConfig(**(SMALL | self.fields))
        return random_folder(path, config, classifier=self.classifier)


CASES = {
    "X": Case({"layer_type": "x"}),
    "Y": Case({"layer_type": "y"}),
    "four stages": Case({"hidden_sizes": [16, 24, 32, 40], "depths": [1, 3, 2, 1]}),
    "gelu": Case({"hidden_act": "gelu"}),
    "gelu_new": Case({"hidden_act": "gelu_new"}),
    "selu": Case({"hidden_act": "selu", "layer_type": "x"}),
    "silu": Case({"hidden_act": "silu"}),
    "stride 1 in the first stage": Case({"downsample_in_first_stage": False}),
    "a first block without projection": Case(
        {"downsample_in_first_stage": False, "embedding_size": 16}
    ),
    "one channel": Case({"num_channels": 1}),
    "no labels": Case({"num_labels": 0}),
    "headless": Case({}, classifier=False),
    "headless X": Case({"layer_type": "x"}, classifier=False),
}

RUN_ELSEWHERE = """
import sys, warnings
from pathlib import Path
sys.modules["regnet"] = sys.modules["converters"] = None  # importing them fails
import torch
warnings.simplefilter("ignore")
torch.set_num_threads(1)
for path in Path(sys.argv[1]).glob("*.pt"):
    module = torch.jit.load(path)
    runs = []
    for pixel_values in torch.load(path.with_suffix(".inputs")):
        # From the second run on, torch runs what it optimised in the first.
        runs.append([module(pixel_values) for _ in range(3)])
    torch.save(runs, path.with_suffix(".outputs"))
"""


def eager(folder: ConvertedFolder) -> RegNetForImageClassification | RegNetModel:
    """The reference model with weights in memory of its own.

    Mapped weights are not aligned as torch would align them, and it sums those in another order.
    """
    kind = RegNetForImageClassification if folder.has_classifier else RegNetModel
    tensors = load_tensors(folder.path)
    dtype = next(tensor.dtype for tensor in tensors.values() if tensor.is_floating_point())
    model = kind(folder.config).to(dtype)
    model.load_state_dict(tensors)
    return model.eval()


def load(path: Path) -> Any:
    with pytest.warns(DeprecationWarning, match=r"torch\.jit\.load"):
        return torch.jit.load(path)  # type: ignore[no-untyped-call]


def images(num_channels: int = 3, dtype: torch.dtype = torch.float32) -> list[torch.Tensor]:
    """Batches of one and of three images, of more contrast from one to the next."""
    generator = torch.Generator().manual_seed(1)
    contrast = torch.tensor([1.0, 2.0, 3.0]).reshape(3, 1, 1, 1)
    return [
        (torch.randn(batch, num_channels, *size, generator=generator) * contrast[:batch]).to(dtype)
        for batch in (1, 3)
        for size in SIZES
    ]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, ConvertedFolder]:
    root = tmp_path_factory.mktemp("folders")
    return {name: case.folder(root / name) for name, case in CASES.items()}


@pytest.fixture(scope="module")
def outputs_elsewhere(
    folders: dict[str, ConvertedFolder], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Any]:
    """What a process computes that has the files and torch, and nothing of this project."""
    root = tmp_path_factory.mktemp("elsewhere")
    for name, folder in folders.items():
        export_torchscript(folder, root / f"{name}.pt")
        torch.save(images(folder.config.num_channels), root / f"{name}.inputs")
    subprocess.run([sys.executable, "-I", "-c", RUN_ELSEWHERE, root], cwd=root, check=True)
    return {name: torch.load(root / f"{name}.outputs") for name in folders}


@pytest.mark.parametrize("name", CASES)
def test_torch_alone_computes_what_eager_does_bit_for_bit(
    name: str, folders: dict[str, ConvertedFolder], outputs_elsewhere: dict[str, Any]
) -> None:
    model = eager(folders[name])
    inputs = images(folders[name].config.num_channels)
    for pixel_values, runs in zip(inputs, outputs_elsewhere[name], strict=True):
        with torch.no_grad():
            expected = model(pixel_values).to_tuple()
        for run in runs:
            outputs = run if isinstance(run, tuple) else (run,)
            assert [output.shape for output in outputs] == [output.shape for output in expected]
            assert all(map(torch.equal, outputs, expected))


@pytest.mark.parametrize("name", CASES)
def test_outputs_tell_images_apart(name: str, outputs_elsewhere: dict[str, Any]) -> None:
    run = outputs_elsewhere[name][3][0]  # three images of 64x64
    features = (run[1] if isinstance(run, tuple) else run).flatten(1)
    assert features.std(dim=0).mean() > 0.05 * features.abs().mean()


@pytest.mark.parametrize("name", ["X", "Y", "no labels", "headless"])
def test_state_dict_is_that_of_the_reference_model(
    name: str, folders: dict[str, ConvertedFolder], tmp_path: Path
) -> None:
    export_torchscript(folders[name], tmp_path / "model.pt")
    loaded, model = load(tmp_path / "model.pt"), eager(folders[name])
    state, expected = loaded.state_dict(), model.state_dict()
    assert list(state) == list(expected)
    for key, tensor in expected.items():
        assert state[key].dtype == tensor.dtype
        assert torch.equal(state[key], tensor)
    assert [key for key, _ in loaded.named_parameters()] == [
        key for key, _ in model.named_parameters()
    ]
    assert [key for key, _ in loaded.named_buffers()] == [key for key, _ in model.named_buffers()]


def test_a_loaded_module_is_for_inference_in_either_mode(
    folders: dict[str, ConvertedFolder], tmp_path: Path
) -> None:
    export_torchscript(folders["Y"], tmp_path / "model.pt")
    module, image = load(tmp_path / "model.pt"), images()[0]
    assert not module.training
    logits = module(image)
    assert not logits.requires_grad
    assert torch.equal(module.train()(image), logits)
    assert torch.equal(module.eval()(image), logits)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_a_loaded_module_changes_its_dtype(
    dtype: torch.dtype, folders: dict[str, ConvertedFolder], tmp_path: Path
) -> None:
    export_torchscript(folders["Y"], tmp_path / "model.pt")
    module, image = load(tmp_path / "model.pt").to(dtype), images(dtype=dtype)[0]
    with torch.no_grad():
        assert torch.equal(module(image), eager(folders["Y"]).to(dtype)(image).logits)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_folders_of_other_dtypes_compute_in_float32(dtype: torch.dtype, tmp_path: Path) -> None:
    folder = CASES["Y"].folder(tmp_path / "float32")
    eager(folder).to(dtype).save_pretrained(tmp_path / "folder")
    folder = ConvertedFolder(tmp_path / "folder")
    export_torchscript(folder, tmp_path / "model.pt")
    module, image = load(tmp_path / "model.pt"), images()[0]
    model = RegNetForImageClassification(folder.config).eval()
    model.load_state_dict(load_tensors(folder.path))
    for name, tensor in module.state_dict().items():
        assert tensor.dtype == model.state_dict()[name].dtype
        assert torch.equal(tensor, model.state_dict()[name])
    with torch.no_grad():
        assert torch.equal(module(image), model(image).logits)


def test_a_dtype_that_torch_does_not_compute_in_is_refused(tmp_path: Path) -> None:
    folder = CASES["Y"].folder(tmp_path / "folder")
    state = load_file(folder.path / "model.safetensors")
    state["classifier.1.weight"] = state["classifier.1.weight"].to(torch.float8_e4m3fn)
    save_file(state, folder.path / "model.safetensors")
    with pytest.raises(InputError, match=r"classifier\.1\.weight is float8_e4m3fn"):
        export_torchscript(folder, tmp_path / "model.pt")
    assert not (tmp_path / "model.pt").exists()


@pytest.mark.parametrize("name", ["X", "headless"])
def test_equal_folders_give_equal_bytes(name: str, tmp_path: Path) -> None:
    for copy in ("here", "there"):
        export_torchscript(CASES[name].folder(tmp_path / copy), tmp_path / f"{copy}.pt")
    assert (tmp_path / "here.pt").read_bytes() == (tmp_path / "there.pt").read_bytes()


def test_a_sharded_folder_gives_the_same_bytes(
    folders: dict[str, ConvertedFolder], tmp_path: Path
) -> None:
    eager(folders["Y"]).save_pretrained(tmp_path / "shards", max_shard_size="40KB")
    sharded = ConvertedFolder(tmp_path / "shards")
    assert len(sharded.weight_files) > 1
    export_torchscript(sharded, tmp_path / "sharded.pt")
    export_torchscript(folders["Y"], tmp_path / "whole.pt")
    assert (tmp_path / "sharded.pt").read_bytes() == (tmp_path / "whole.pt").read_bytes()


def test_nothing_of_this_machine_is_inside(
    folders: dict[str, ConvertedFolder], tmp_path: Path
) -> None:
    export_torchscript(folders["Y"], tmp_path / "model.pt")
    content = (tmp_path / "model.pt").read_bytes()
    checkout = Path(__file__).parents[3]
    for path in (checkout, Path.home(), Path(sys.prefix), folders["Y"].path, tmp_path):
        assert bytes(path) not in content
    with ZipFile(tmp_path / "model.pt") as archive:
        assert not [name for name in archive.namelist() if name.endswith(".debug_pkl")]


def data_offsets(path: Path) -> list[int]:
    """Where the data of each entry begins, having checked that it is there, sound and stored."""
    offsets = []
    content = path.read_bytes()
    with ZipFile(path) as archive:
        assert archive.testzip() is None
        for info in archive.infolist():
            name_and_extra = np.frombuffer(content, "<u2", 2, offset=info.header_offset + 26)
            start = info.header_offset + 30 + int(name_and_extra.sum())
            assert content[start : start + info.file_size] == archive.read(info)
            offsets.append(start)
    return offsets


def test_every_tensor_is_aligned(folders: dict[str, ConvertedFolder], tmp_path: Path) -> None:
    export_torchscript(folders["Y"], tmp_path / "model.pt")
    assert not [offset for offset in data_offsets(tmp_path / "model.pt") if offset % 64]


def test_entries_with_sizes_for_gigabytes_are_aligned_and_read_by_torch(
    folders: dict[str, ConvertedFolder], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    export_torchscript(folders["Y"], tmp_path / "small.pt")
    monkeypatch.setattr(torch_archive, "_ZIP64_FROM", 0)
    export_torchscript(folders["Y"], tmp_path / "large.pt")
    assert data_offsets(tmp_path / "large.pt") != data_offsets(tmp_path / "small.pt")
    assert not [offset for offset in data_offsets(tmp_path / "large.pt") if offset % 64]
    image = images()[0]
    assert torch.equal(load(tmp_path / "large.pt")(image), load(tmp_path / "small.pt")(image))


def test_memory_stays_at_a_few_chunks_whatever_the_size(tmp_path: Path) -> None:
    wide = {"hidden_sizes": [32, 2048], "depths": [1, 1], "groups_width": 64, "layer_type": "x"}
    folder = Case(wide).folder(tmp_path / "folder")
    export_torchscript(folder, tmp_path / "model.pt")  # imports happen here
    tracemalloc.start()
    try:
        export_torchscript(ConvertedFolder(folder.path), tmp_path / "model.pt")
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert (tmp_path / "model.pt").stat().st_size > 16e6
    assert peak < 4e6


def test_exporting_needs_no_torch(folders: dict[str, ConvertedFolder], tmp_path: Path) -> None:
    program = (
        "import sys; sys.path.insert(0, sys.argv[1]); sys.modules['torch'] = None\n"
        "from pathlib import Path\n"
        "from converters.formats.torchscript import export_torchscript\n"
        "from converters.folder.folder import ConvertedFolder\n"
        "export_torchscript(ConvertedFolder(Path(sys.argv[2])), Path(sys.argv[3]))\n"
    )
    checkout, path = Path(__file__).parents[3], tmp_path / "model.pt"
    subprocess.run(
        [sys.executable, "-I", "-c", program, checkout, folders["Y"].path, path], check=True
    )
    assert path.stat().st_size > folders["Y"].weight_files[0].stat().st_size


@pytest.mark.parametrize(
    ("name", "output_names"),
    [("Y", ["logits"]), ("headless", ["last_hidden_state", "pooler_output"])],
)
def test_the_runtime_names_its_outputs_and_keeps_quiet(
    name: str, output_names: list[str], folders: dict[str, ConvertedFolder], tmp_path: Path
) -> None:
    export_torchscript(folders[name], tmp_path / "model.pt")
    image = images()[0]
    read_only = image.numpy().copy()
    read_only.setflags(write=False)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        runtime = TorchScriptRuntime(tmp_path / "model.pt", output_names)
        outputs = runtime(read_only)
    assert not caught
    with torch.no_grad():
        expected = eager(folders[name])(image)
    assert list(outputs) == output_names
    for key, output in outputs.items():
        np.testing.assert_array_equal(output, expected[key].numpy())
    assert runtime.name == f"torch.jit {torch.__version__.split('+')[0]}"
    assert runtime.precision == "float32"
