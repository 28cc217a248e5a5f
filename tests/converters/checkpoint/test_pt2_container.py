"""Programs of torch.export that are damaged or made to harm: refused with a sentence."""

from __future__ import annotations

import io
import json
import re
from typing import TYPE_CHECKING, Any

import pytest
import torch

from converters.checkpoint import open_checkpoint, pt2_container
from converters.errors import InputError, UnsafeInputError
from tests.converters.checkpoint.programs import GRAPH, WEIGHTS, changed, entries_of, packed

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

pytestmark = pytest.mark.filterwarnings(
    "ignore:No complete tensor", "ignore::FutureWarning", "ignore::DeprecationWarning"
)


class Layer(torch.nn.Module):
    """A convolution whose result is scaled by a constant, and a view of its kernel."""

    def __init__(self) -> None:
        super().__init__()
        layer: Any = torch.nn.Conv2d(3, 4, 3)
        self.layer = layer.to(memory_format=torch.channels_last)
        self.tied = self.layer.bias
        self.register_buffer("factor", torch.tensor(0.5), persistent=False)

    def forward(self, x: torch.Tensor) -> Any:
        return self.layer(x) * self.factor


class Harmful:
    """Runs a command where it is unpickled."""

    def __reduce__(self) -> Any:
        import os

        return os.system, ("touch ran",)


@pytest.fixture(scope="module")
def model() -> Layer:
    torch.manual_seed(0)
    return Layer().eval()


@pytest.fixture(scope="module")
def whole(model: Layer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path: Path = tmp_path_factory.mktemp("program") / "model.pt2"
    torch.export.save(torch.export.export(model, (torch.ones(1, 3, 8, 8),)), path)
    return path


def refused(path: Path, kind: type[Exception] = InputError) -> str:
    with pytest.raises(kind) as caught, open_checkpoint(path):
        pass
    message = str(caught.value)
    assert message.startswith(path.name)
    assert message.endswith(".")
    return message


def test_weights_are_views_of_the_file(whole: Path, model: Layer) -> None:
    with open_checkpoint(whole) as checkpoint:
        tree: Any = checkpoint.tree
        arrays = {name: checkpoint.array(tensor) for name, tensor in tree.items()}

    assert checkpoint.container == "pt2"
    assert set(arrays) == {"layer.weight", "layer.bias", "tied", "factor"}
    for name, array in arrays.items():
        expected = model.get_buffer(name) if name == "factor" else model.get_parameter(name)
        assert array.tobytes() == expected.detach().contiguous().numpy().tobytes()
    assert tree["layer.weight"].stride == model.layer.weight.stride() != (27, 9, 3, 1)
    assert tree["tied"].storage == tree["layer.bias"].storage


def test_the_graph_is_read_as_it_stands(whole: Path) -> None:
    with open_checkpoint(whole) as checkpoint:
        graph = checkpoint.graph

    assert graph is not None
    assert [(node.domain, node.op) for node in graph.nodes] == [("aten", "conv2d"), ("aten", "mul")]
    assert graph.inputs[0].shape == (1, 3, 8, 8)
    assert graph.constants["b_factor"].numbers == (0.5,)
    assert graph.constants["p_layer_weight"].numbers is None
    assert graph.producer == f"torch {torch.__version__}"


def config(name: str, **fields: Any) -> Callable[[Any], None]:
    return lambda table: table["config"][name].update(fields)


def meta(name: str, **fields: Any) -> Callable[[Any], None]:
    return lambda table: table["config"][name]["tensor_meta"].update(fields)


HUGE = [{"as_int": 1 << 62}] * 4
TABLE_EDITS: list[tuple[Callable[[Any], object], str]] = [
    (meta("layer.bias", sizes=[{"as_int": 5}]), "has 16 bytes where its shape and type need more"),
    (meta("layer.bias", storage_offset={"as_int": 1}), "has 16 bytes where its shape"),
    (meta("layer.bias", strides=[{"as_int": 2}]), "has 16 bytes where its shape"),
    (meta("layer.bias", dtype=8), "has 16 bytes where its shape"),
    (meta("layer.weight", sizes=HUGE), "has 432 bytes where its shape"),
    (meta("layer.bias", sizes=[]), "as many strides as axes"),
    (meta("layer.bias", dtype=9), "has a type that is not read"),
    (meta("layer.bias", dtype=[]), "is not as torch.export writes it"),
    (meta("layer.bias", layout=1), "has a type that is not read"),
    (meta("layer.bias", sizes=[{"as_int": -4}]), "is not as torch.export writes it"),
    (meta("layer.bias", sizes=[{"as_int": True}]), "is not as torch.export writes it"),
    (meta("layer.bias", sizes=[{"as_expr": {"expr_str": "4"}}]), "is not as torch.export writes"),
    (config("layer.bias", path_name="weight_9"), "data/weights/weight_9: is missing"),
    (config("layer.bias", path_name="../../version"), "data/weights/../../version: is missing"),
    (lambda table: table["config"].pop("layer.bias"), "is not as torch.export writes it"),
    (lambda _: [1], "is not as torch.export writes it"),
    (lambda _: "text", "is not as torch.export writes it"),
]


@pytest.mark.parametrize(("edit", "message"), TABLE_EDITS)
def test_a_table_that_does_not_fit_its_bytes_is_refused(
    edit: Callable[[Any], object], message: str, whole: Path, tmp_path: Path
) -> None:
    assert message in refused(changed(whole, tmp_path / "model.pt2", edit, WEIGHTS))


def spec(index: int, **fields: Any) -> Callable[[Any], None]:
    def edit(program: Any) -> None:
        program["graph_module"]["signature"]["input_specs"][index] = fields

    return edit


def output(**fields: Any) -> Callable[[Any], None]:
    return lambda program: program["graph_module"]["signature"]["output_specs"].append(fields)


def node(**fields: Any) -> Callable[[Any], None]:
    return lambda program: program["graph_module"]["graph"]["nodes"][0].update(fields)


GRAPH_EDITS: list[tuple[Callable[[Any], object], str]] = [
    (lambda p: p["schema_version"].update(major=9), "is a program of version 9, and those of 8"),
    (lambda p: p["schema_version"].update(major=True), "is a program of version True"),
    (lambda p: p.pop("graph_module"), "is not as torch.export writes it"),
    (spec(0, custom_obj={"arg": {"name": "c"}}), "neither an image nor a weight (custom_obj)"),
    (spec(0, parameter={"arg": {"name": "p"}, "parameter_name": "no"}), "is not as torch.export"),
    (output(buffer_mutation={"arg": {"name": "b"}}), "as in training"),
    (output(loss_output={"arg": {"name": "b"}}), "(loss_output), as in training"),
    (node(target=3), "is not as torch.export writes it"),
    (node(inputs=[{"name": "x", "arg": {}}]), "is not as torch.export writes it"),
    (node(inputs=[{"name": "x", "arg": {"as_ints": [[]]}}]), "is not as torch.export writes it"),
    (node(inputs=[{"name": 1, "arg": {"as_int": 1}}]), "is not as torch.export writes it"),
]


@pytest.mark.parametrize(("edit", "message"), GRAPH_EDITS)
def test_a_description_that_torch_does_not_write_is_refused(
    edit: Callable[[Any], object], message: str, whole: Path, tmp_path: Path
) -> None:
    message = message.replace("those of 8", "those of version 8")
    assert message in refused(changed(whole, tmp_path / "model.pt2", edit))


def test_several_programs_are_refused(whole: Path, tmp_path: Path) -> None:
    entries = entries_of(whole)
    entries["models/other.json"] = entries[GRAPH]

    assert "holds 2 programs" in refused(packed(tmp_path / "model.pt2", entries))
    del entries["models/other.json"], entries[GRAPH]
    assert "holds 0 programs" in refused(packed(tmp_path / "model.pt2", entries))


def test_compiled_code_is_unsafe(whole: Path, tmp_path: Path) -> None:
    for entries in (entries_of(whole), {"archive_format": b"pt2"}):
        path = packed(
            tmp_path / "model.pt2", {**entries, "data/aotinductor/model/m.so": b"\x7fELF"}
        )
        message = refused(path, UnsafeInputError)
        assert "holds machine code that AOTInductor compiled, which runs when it is l" in message


def test_pickles_that_run_code_are_unsafe(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save(Harmful(), content := io.BytesIO())
    for name in ("data/sample_inputs/model.pt", "data/weights/model.pt", "extra/any.txt"):
        entries = {**entries_of(whole), name: content.getvalue()}
        message = refused(packed(tmp_path / "model.pt2", entries), UnsafeInputError)
        assert "posix.system" in message
    assert not (tmp_path / "ran").exists()


def test_pickled_weights_and_objects_are_unsafe(whole: Path, tmp_path: Path) -> None:
    for edit in (config("layer.bias", use_pickle=True), config("layer.bias", tensor_meta=None)):
        path = changed(whole, tmp_path / "model.pt2", edit, WEIGHTS)
        assert "is a pickle of an object" in refused(path, UnsafeInputError)


def test_a_program_that_is_a_checkpoint_as_well_is_unsafe(whole: Path, tmp_path: Path) -> None:
    entries = {**entries_of(whole), "data.pkl": b"\x80\x02}."}

    assert ".pt2" in refused(packed(tmp_path / "model.pt2", entries), UnsafeInputError)


def test_a_big_endian_program_is_refused(whole: Path, tmp_path: Path) -> None:
    path = packed(tmp_path / "model.pt2", {**entries_of(whole), "byteorder": b"big"})

    assert "was saved on a big-endian machine" in refused(path)


def test_a_description_without_bound_is_refused(
    whole: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pt2_container, "MAX_JSON", 1000)

    assert "too many for the graph of a RegNet" in refused(whole)


def test_bytes_that_changed_are_found(whole: Path, tmp_path: Path) -> None:
    data = bytearray(whole.read_bytes())
    at = data.index(b"torch.ops.aten.conv2d")
    data[at + 20] ^= 1
    path = tmp_path / "model.pt2"
    path.write_bytes(data)
    assert "do not have the checksum the file states" in refused(path)

    data[at + 20] ^= 1
    with open_checkpoint(whole) as checkpoint:
        tree: Any = checkpoint.tree
    data[tree["layer.weight"].storage.offset] ^= 1
    path.write_bytes(data)
    with open_checkpoint(path) as checkpoint:
        tree = checkpoint.tree
        with pytest.raises(InputError, match="checksum"):
            checkpoint.array(tree["layer.weight"])


def test_compressed_entries_are_refused(whole: Path, tmp_path: Path) -> None:
    import zipfile

    path = tmp_path / "model.pt2"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in entries_of(whole).items():
            archive.writestr(f"model/{name}", content)

    assert re.search(r"model/models/model\.json: is compressed", refused(path))


@pytest.mark.parametrize("part", range(0, 100, 9))
def test_a_file_cut_short_is_refused(part: int, whole: Path, tmp_path: Path) -> None:
    data = whole.read_bytes()
    path = tmp_path / "model.pt2"
    path.write_bytes(data[: len(data) * part // 100])

    with pytest.raises((InputError, UnsafeInputError)), open_checkpoint(path):
        pass


def test_names_of_a_stranger_are_printed_as_such(whole: Path, tmp_path: Path) -> None:
    entries = entries_of(whole)
    table = json.loads(entries[WEIGHTS])
    table["config"]["\x1b[2J"] = {**table["config"]["tied"], "use_pickle": True}
    entries[WEIGHTS] = json.dumps(table).encode()

    message = refused(packed(tmp_path / "model.pt2", entries), UnsafeInputError)
    assert message.isprintable()
