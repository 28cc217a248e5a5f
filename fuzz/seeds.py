"""The seed corpora: small files of real frameworks, and what must lie beside an input.

They are made anew in seconds (``python -m fuzz.seeds FOLDER``) and are not committed. What a
framework wrote that is not installed is left out; the layouts of :mod:`benchmarks.giants` need
none.
"""

from __future__ import annotations

import argparse
import io
import json
import pickle
import shutil
import sys
import warnings
import zipfile
from collections import OrderedDict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from benchmarks.giants.make import Recipe, make
from converters.families.manifest import MANIFEST
from regnet.config import RegNetConfig

if TYPE_CHECKING:
    from collections.abc import Iterator

NETWORK = RegNetConfig(
    depths=(1, 1),
    hidden_sizes=(8, 16),
    groups_width=8,
    embedding_size=8,
    layer_type="x",
    num_labels=3,
)

_SAVERS = ("timm", "torchvision", "pycls", "classy-vision", "mmpretrain", "pytorchcv")
_GIANTS = ("pycls", "classy-vision", "mmpretrain", "torchvision", "vissl", "transformers")

_EXPORTED = Path(__file__).parents[1] / "tests" / "recorded" / "onnx"
"""What exporters wrote."""

_CFGS = (
    """\
BN: {EPS: 1.0e-05}
DATA_LOADER: {MODE: ffcv}
MODEL: {TYPE: regnet, NUM_CLASSES: 3}
REGNET: {DEPTH: 2, W0: 8, WA: 8.0, WM: 2.0, GROUP_W: 8, SE_ON: false, STRIDE: 2}
TEST: {IM_SIZE: 256}
TRAIN: {IM_SIZE: 224, DATASET: imagenet}
""",
    """\
MODEL:
  TYPE: anynet
  ACTIVATION_FUN: silu
ANYNET:
  BLOCK_TYPE: res_bottleneck_block
  BOT_MULS: [1.0, 1.0]
  STEM_TYPE: simple_stem_in
  STRIDES:
  - 1
  - 2
""",
)


class Corpus:
    """The folder of all corpora.

    Args:
        root: Gets ``TARGET/seeds`` and ``TARGET/beside`` for each target; what there was in them
            is removed.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        for old in (*root.glob("*/seeds"), *root.glob("*/beside")):
            shutil.rmtree(old)

    def add(self, content: bytes | str, *targets: str) -> None:
        """Add one seed to some targets."""
        data = content.encode() if isinstance(content, str) else content
        for target in targets:
            folder = self._root / target / "seeds"
            folder.mkdir(parents=True, exist_ok=True)
            (folder / f"{len([*folder.iterdir()]):03}").write_bytes(data)

    def beside(self, target: str, *paths: Path) -> None:
        """Put files and folders where a target's inputs are placed."""
        folder = self._root / target / "beside"
        folder.mkdir(parents=True, exist_ok=True)
        for path in paths:
            if path.is_dir():
                shutil.copytree(path, folder / path.name)
            else:
                shutil.copy(path, folder)


def make_corpora(root: Path) -> None:
    """Make every target's seeds, and what lies beside its inputs; see :class:`Corpus`."""
    corpus = Corpus(root)
    with TemporaryDirectory() as work:
        _add_networks(corpus, Path(work))
        _add_lists(corpus, Path(work))
        _add_folders(corpus, Path(work))
        _add_distributed(corpus, Path(work) / "distributed")
        _add_program(corpus, Path(work))
        _add_script(corpus, Path(work))
        _add_keras(corpus, Path(work))
    _add_plain(corpus)
    for text in _CFGS:
        corpus.add(text, "pycls-cfg")
    for path in sorted(_EXPORTED.glob("*-[xy].onnx")):
        corpus.add(path.read_bytes(), "onnx")
    rows = MANIFEST.read_text(encoding="utf-8").split("\n[")
    corpus.add("\n[".join(rows[:4]), "manifest")
    corpus.add("\n[".join([*rows[:2], *rows[-2:]]), "manifest")


def _add_program(corpus: Corpus, work: Path) -> None:
    """A program of torch.export, without the lines of code that it came from."""
    import torch

    from regnet.model import RegNetForImageClassification

    network = RegNetForImageClassification(NETWORK).eval()
    torch.set_num_threads(1)
    images = torch.zeros(1, 3, 32, 32)
    with warnings.catch_warnings(action="ignore"):  # of torch, about its own code
        program = torch.export.export(network, (images,), {"return_dict": False})
        for node in program.graph.nodes:
            node.meta = {key: value for key, value in node.meta.items() if key == "val"}
        torch.export.save(program, work / "traced.pt2")
        torch.export.save(program.run_decompositions(), work / "whole.pt2")
    for name in ("traced", "whole"):
        with zipfile.ZipFile(work / f"{name}.pt2") as archive:
            corpus.add(archive.read(f"{name}/models/model.json"), "pt2")
    corpus.beside("pt2", work / "whole.pt2")


def _add_script(corpus: Corpus, work: Path) -> None:
    """The code of a network that was traced and frozen, beside its weights."""
    import torch

    from regnet.model import RegNetForImageClassification

    network = RegNetForImageClassification(NETWORK).eval()
    trace: Any = torch.jit.trace
    with warnings.catch_warnings(action="ignore"):  # of torch, about its own code
        layers = torch.nn.Sequential(network.regnet.embedder, network.regnet.encoder.stages[0])
        layers.extend((network.regnet.encoder.stages[1], network.regnet.pooler))
        layers.extend(network.classifier)
        frozen = torch.jit.freeze(trace(layers.eval(), torch.zeros(1, 3, 32, 32)))
        torch.jit.save(frozen, work / "whole.pt")
    with zipfile.ZipFile(work / "whole.pt") as archive:
        (code,) = (name for name in archive.namelist() if name.endswith(".py"))
        corpus.add(archive.read(code), "torchscript")
    corpus.beside("torchscript", work / "whole.pt")


def _add_networks(corpus: Corpus, work: Path) -> None:
    """Whole networks: their pickles, and the files that hold them."""
    for path in (*_saved(work), *_giants(work)):
        data = path.read_bytes()
        corpus.add(data, "inspect-file")
        corpus.add(content_of(data), "pickle", "inspect")


def _saved(work: Path) -> Iterator[Path]:
    """What the installed frameworks saved."""
    import torch

    import tests.conftest  # noqa: F401 -- declares what torchvision's wheel lacks
    from tests.oracles import savers

    torch.set_num_threads(1)
    for framework in _SAVERS:
        folder = work / f"saved-{framework}"
        folder.mkdir()
        try:
            _, path = savers.save(framework, folder, "x", 3)
        except ImportError:
            continue
        yield path / "pytorch_model.bin" if path.is_dir() else path


def _giants(work: Path) -> Iterator[Path]:
    for framework in _GIANTS:
        path = work / f"made-{framework}"
        layout = "flat" if framework == "transformers" else ""
        make(NETWORK, path, Recipe(framework, layout, classes=3))
        yield path


def content_of(checkpoint: bytes) -> bytes:
    """The pickle of a checkpoint in either container of torch."""
    if checkpoint.startswith(b"PK"):
        with zipfile.ZipFile(io.BytesIO(checkpoint)) as archive:
            (name,) = (name for name in archive.namelist() if name.endswith("/data.pkl"))
            return archive.read(name)
    stream = io.BytesIO(checkpoint)
    for _ in range(3):
        pickle.load(stream)  # noqa: S301 -- plain numbers, which the line above here has written
    start = stream.tell()
    return checkpoint[start : _end_of_pickle(checkpoint, start)]


def _end_of_pickle(data: bytes, start: int) -> int:
    from pickletools import genops

    stream = io.BytesIO(data)
    stream.seek(start)
    for _ in genops(stream):
        pass
    return stream.tell()


def _add_lists(corpus: Corpus, work: Path) -> None:
    """VISSL's lists beside the files that they name."""
    for layout, target in (("shards", "shard-list"), ("slices", "slice-list")):
        folder = work / layout
        folder.mkdir()
        make(NETWORK, folder / "list", Recipe("vissl", layout, classes=3))
        corpus.add(content_of((folder / "list").read_bytes()), target)
        others = [path for path in folder.iterdir() if path.name != "list"]
        corpus.beside(target, *others)
    shard, *others = sorted(
        (work / "shards").iterdir(), key=lambda path: path.name != "list_shard0"
    )
    corpus.add(content_of(shard.read_bytes()), "shard")
    corpus.beside("shard", *others)


def _add_folders(corpus: Corpus, work: Path) -> None:
    """Folders of transformers and timm, of which one JSON file is the input."""
    from regnet.image_processor import RegNetImageProcessor

    folder = work / "transformers"
    make(NETWORK, folder, Recipe("transformers", "folder", classes=3))
    config = (folder / "config.json").read_bytes()
    processor = RegNetImageProcessor(size=64).to_json_string()
    corpus.add(config, "config")
    corpus.add(processor, "preprocessor")
    corpus.beside("config", folder / "pytorch_model.bin")
    corpus.beside("preprocessor", folder / "pytorch_model.bin", folder / "config.json")
    names = ("a.safetensors", "b.safetensors")
    for name in names:
        (work / name).write_bytes(_safetensors({name[0]: 3}))
    corpus.add(json.dumps({"weight_map": dict(zip("ab", names, strict=True))}), "index")
    corpus.beside("index", *(work / name for name in names))
    timm = work / "saved-timm"
    for path in timm.rglob("config.json"):
        corpus.add(path.read_bytes(), "timm-config")
        corpus.beside("timm-config", path.with_name("pytorch_model.bin"))


def _add_distributed(corpus: Corpus, folder: Path) -> None:
    """Folders of torch.distributed.checkpoint, of which `.metadata` is the input."""
    import torch

    from tests.oracles.distributed import Written

    written = Written.empty()
    written.add("model.rows", torch.arange(12.0).reshape(4, 3), ([1, 2], []))
    written.add("model.cells", torch.arange(12.0).reshape(4, 3), ([1], [2]))
    written.metadata.planner_data = {
        name: tuple(name.split(".")) for name in written.metadata.state_dict_metadata
    }
    written.save(folder)
    for protocol in (2, 4):
        corpus.add(pickle.dumps(written.metadata, protocol), "distributed")
    corpus.beside("distributed", folder / "__0_0.distcp")


def _safetensors(sizes: dict[str, int]) -> bytes:
    import torch
    from safetensors.torch import save

    return save({name: torch.arange(float(size)) for name, size in sizes.items()}, {"format": "pt"})


def _add_plain(corpus: Corpus) -> None:
    """Small trees of everything that checkpoints are made of, in every container."""
    import numpy as np
    import torch

    base = torch.arange(6.0).reshape(2, 3)
    settings = argparse.Namespace(lr=0.1, names=["a", None], crop=(224, True))
    plain: dict[str, Any] = {
        "epoch": 3, "big": 1 << 70, "text": "line\n", "bytes": b"\x00\xff", "set": {1, "a"},
        "frozen": frozenset({2.5}), "complex": 1 + 2j, "scalar": np.float32(1.5), "args": settings,
        "order": OrderedDict(a=1), "size": torch.Size([1, 2]), "dtype": torch.float16,
    }  # fmt: skip
    for protocol in range(6):
        corpus.add(pickle.dumps(plain, protocol), "pickle", "inspect", "shard-list", "legacy")
    trees = (
        {"weight": base, "view": base.t(), "same": base, "half": base.half(), **plain},
        OrderedDict(a=base.long(), b=torch.nn.Parameter(base), c=base.bool(), d=base[:, 1]),
    )
    for tree in trees:
        for protocol in (2, 4):
            for is_zip in (True, False):
                buffer = io.BytesIO()
                torch.save(
                    tree, buffer, pickle_protocol=protocol, _use_new_zipfile_serialization=is_zip
                )
                corpus.add(buffer.getvalue(), "zip" if is_zip else "legacy", "inspect-file")
                corpus.add(content_of(buffer.getvalue()), "pickle")
    np.savez(buffer := io.BytesIO(), a=np.ones((2, 3), "f4"), b=np.array("text"), c=np.array(7))
    corpus.add(buffer.getvalue(), "zip", "npz", "inspect-file")
    arrays: dict[str, Any] = {"a/b": np.ones((2, 3), "f2", order="F"), "c": np.ones(0)}
    np.savez(buffer := io.BytesIO(), **arrays)
    corpus.add(buffer.getvalue(), "npz")
    corpus.add(_safetensors({"a": 2, "b": 0}), "safetensors")
    _add_mindspore(corpus)
    corpus.add(_safetensors({"stem.conv.weight": 1}), "safetensors", "inspect-file")
    _add_flax_and_keras(corpus)


def _add_flax_and_keras(corpus: Corpus) -> None:
    """A tree as Flax packs it, and what is said of an HDF5 file."""
    import msgpack
    import numpy as np

    def array(*shape: int, dtype: str = "float32") -> msgpack.ExtType:
        elements = np.ones(shape, dtype).tobytes()
        return msgpack.ExtType(1, msgpack.packb((shape, dtype, elements)))

    chunks = {"0": array(4), "1": array(2)}
    chunked = {"__msgpack_chunked_array__": True, "shape": {"0": 2, "1": 3}, "chunks": chunks}
    plain: dict[str, Any] = {"step": 70_000, "rate": 0.1, "none": None, "list": [1, -1, "a"]}
    batch_norm = {"mean": array(3), "var": array(3, dtype="float16")}
    parameters = {"conv": {"kernel": array(3, 3, 3, 8), "bias": array(8)}, "large": chunked}
    tree = {"params": parameters, "batch_stats": {"norm": batch_norm}, **plain}
    corpus.add(msgpack.packb(tree), "msgpack", "inspect-file")
    corpus.add(msgpack.packb({"a": {"b": array(2)}, "raw": b"abc"}), "msgpack")
    said = {"name": "a.kernel", "within": "", "dtype": "float32", "shape": [2, 3], "offset": 96}
    within = said | {"within": "optimizer", "dtype": "int64", "shape": [], "offset": 0}
    placed = said | {"name": "layers.conv2d_1.vars.0", "offset": 128, "layer": "stem"}
    corpus.add(json.dumps({"tensors": [said, within, placed]}), "hdf5-answer")
    corpus.add(json.dumps({"error": "UnsafeInputError", "words": "No."}), "hdf5-answer")


def _add_keras(corpus: Corpus, work: Path) -> None:
    """Archives of networks whose weights lie in one place, and what h5py says of these."""
    import numpy as np

    from converters.checkpoint.hdf5_child import described
    from converters.checkpoint.source_file import Found
    from tests.converters.checkpoint.keras_files import functional, hdf5, keras, layer

    places = ("conv2d", "conv2d_1", "functional/layers/conv2d", "dense")
    weights = hdf5({f"layers/{place}/vars/0": np.ones((2, 3), "f4") for place in places})
    inner = functional(layer("Conv2D", "c"), name="inner")
    for listed in ([layer("Conv2D", "a"), layer("Conv2D", "b"), inner], [layer("Dense", "d")]):
        corpus.add(keras(functional(*listed), weights), "keras")
    corpus.add(keras(layer("RegNet", "net", depths=[1, 2]), weights), "keras")
    answer = work / "answer.json"
    answer.write_text(json.dumps({"tensors": described(Found("weights", weights))}))
    corpus.beside("keras", answer)


def _add_mindspore(corpus: Corpus) -> None:
    """Entries as MindSpore writes them: of every kind, in pieces, with a checksum behind them."""
    import zlib

    import numpy as np

    from tests.converters.checkpoint.mindspore_files import entry, of_array, tensor

    plain = of_array("stem.conv.weight", np.arange(54, dtype=np.float32).reshape(2, 3, 3, 3))
    plain += of_array("steps", np.array([3], np.int64)) + of_array("lr", np.array(0.5, np.float32))
    pieces = b"".join(entry("head.fc.weight", tensor((2, 2))) for _ in range(2))
    text = entry("note", tensor((0,), "str", "é".encode("utf-32-le")))
    checksum = b"crc_num" + zlib.crc32(plain).to_bytes(10, "big")
    for content in (plain, pieces + text, plain + pieces, plain + checksum):
        corpus.add(content, "mindspore", "inspect-file")


if __name__ == "__main__":
    make_corpora(Path(sys.argv[1]))
