"""ONNX files that are damaged or made to harm: refused with a sentence, within bounds."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from converters.checkpoint import open_checkpoint
from converters.checkpoint.onnx_container import MAX_PARTS
from converters.checkpoint.protobuf import ProtobufReader
from converters.checkpoint.source_file import Found
from converters.errors import InputError, UnsafeInputError
from converters.families.options import SourceOptions
from converters.weights.inspection import inspected

if TYPE_CHECKING:
    from collections.abc import Callable

    from onnx import ModelProto

RECORDED = Path(__file__).parents[2] / "recorded" / "onnx" / "timm-x.onnx"


def model(*tensors: TensorProto) -> ModelProto:
    image = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3, 8, 8])
    graph = helper.make_graph([], "g", [image], [], initializer=list(tensors))
    return helper.make_model(graph, producer_name="somebody", producer_version="3")


def saved(content: ModelProto | bytes, folder: Path) -> Path:
    path = folder / "model.onnx"
    path.write_bytes(content if isinstance(content, bytes) else content.SerializeToString())
    return path


def tensor(name: str = "w", shape: tuple[int, ...] = (2, 3), dtype: str = "float32") -> TensorProto:
    return numpy_helper.from_array(np.arange(np.prod(shape)).reshape(shape).astype(dtype), name)


def external(name: str, location: str, **place: object) -> TensorProto:
    found = TensorProto(name=name, data_type=TensorProto.FLOAT, dims=[2, 3])
    found.data_location = TensorProto.EXTERNAL
    for key, value in {"location": location, **place}.items():
        entry = found.external_data.add()
        entry.key, entry.value = key, str(value)
    return found


def refused(path: Path, kind: type[Exception] = InputError) -> str:
    with pytest.raises(kind) as caught, open_checkpoint(path):
        pass
    return str(caught.value)


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "int64", "int32"])
@pytest.mark.parametrize("raw", [True, False], ids=["bytes", "numbers"])
def test_a_tensor_is_read_where_it_lies(dtype: str, raw: bool, tmp_path: Path) -> None:
    whole = tensor(dtype=dtype)
    if not raw:
        array = numpy_helper.to_array(whole)
        whole = helper.make_tensor("w", whole.data_type, array.shape, array.ravel().tolist())

    with open_checkpoint(saved(model(whole), tmp_path)) as checkpoint:
        assert checkpoint.container == "onnx"
        assert checkpoint.graph is not None
        assert checkpoint.graph.producer == "somebody 3"
        constant = checkpoint.graph.constants["w"]
        assert (constant.dtype, constant.shape) == (dtype, (2, 3))
        if constant.tensor is not None:
            array = checkpoint.array(constant.tensor)
            assert (array == numpy_helper.to_array(whole)).all()
        elif dtype != "float16":
            assert constant.numbers == tuple(range(6))


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda t: t.dims.__setitem__(0, -2), "has sizes that cannot be"),
        (lambda t: t.dims.__setitem__(0, 1 << 62), "has sizes that cannot be"),
        (lambda t: t.dims.extend([1] * 70), "more than 64 numbers stand"),
        (lambda t: t.dims.__setitem__(0, 3), "has 24 bytes where its shape and type need 36"),
        (lambda t: setattr(t, "raw_data", t.raw_data[:-1]), "has 23 bytes where"),
        (lambda t: t.float_data.append(1), "holds its elements twice"),
        (lambda t: setattr(t.segment, "begin", 1), "is a segment of another"),
    ],
)
def test_a_tensor_that_cannot_be_is_refused(
    edit: Callable[[TensorProto], None], message: str, tmp_path: Path
) -> None:
    wrong = tensor()
    edit(wrong)

    assert message in refused(saved(model(wrong), tmp_path))


@pytest.mark.parametrize(
    "location",
    [
        *("../w", "/etc/hostname", "a/../../w"),
        *("C:\\w", "a\\w", "C:w", "..\\w", "\\\\server\\w", "//server/w", "w:stream"),
    ],
)
def test_data_outside_of_the_folder_is_not_looked_at(location: str, tmp_path: Path) -> None:
    path = saved(model(external("w", location)), tmp_path)

    assert "outside of its folder; nothing was read there" in refused(path, UnsafeInputError)


def test_a_link_to_data_elsewhere_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").write_bytes(bytes(24))
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "w.data").symlink_to(tmp_path / "elsewhere")

    assert "which is not beside it" in refused(saved(model(external("w", "w.data")), folder))


@pytest.mark.parametrize(
    ("place", "message"),
    [
        ({"offset": 8}, "ends at byte 24, where tensor 'w' of model.onnx goes on"),
        ({"offset": 8, "length": 24}, "ends at byte 24, where"),
        ({"offset": -4, "length": 24}, "ends at byte 24, where"),
        ({"length": 1 << 70}, "ends at byte 24, where"),
        ({"offset": "x"}, "lies at no place of a file"),
        ({"length": 8}, "has 8 bytes where its shape and type need 24"),
    ],
)
def test_data_that_ends_too_early_is_refused(
    place: dict[str, object], message: str, tmp_path: Path
) -> None:
    (tmp_path / "w.data").write_bytes(bytes(24))
    if "length" not in place and place.get("offset") == 8:
        message = "has 16 bytes where its shape and type need 24"

    assert message in refused(saved(model(external("w", "w.data", **place)), tmp_path))


def test_missing_data_is_named(tmp_path: Path) -> None:
    said = refused(saved(model(external("w", "w.data")), tmp_path))

    assert said.startswith("model.onnx: its tensor 'w' lies in 'w.data', which is not beside it")


def test_tensors_may_be_one_but_not_overlap(tmp_path: Path) -> None:
    (tmp_path / "w.data").write_bytes(bytes(100))
    first = external("a", "w.data", offset=0, length=24)
    same = external("b", "w.data", offset=0, length=24)
    over = external("b", "w.data", offset=4, length=24)

    with open_checkpoint(saved(model(first, same), tmp_path)) as checkpoint:
        assert {path.name for path in checkpoint.stamps} == {"model.onnx", "w.data"}
    assert "lies partly in another tensor" in refused(saved(model(first, over), tmp_path))


def test_two_tensors_of_one_name_are_refused(tmp_path: Path) -> None:
    assert "holds the tensor 'w' twice" in refused(saved(model(tensor(), tensor()), tmp_path))


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda m: m.functions.add(), "has functions of its own"),
        (lambda m: m.training_info.add(), "has training information"),
        (lambda m: m.graph.sparse_initializer.add(), "has sparse constants"),
        (lambda m: m.ClearField("graph"), "with 0 graphs of ONNX where one belongs"),
    ],
)
def test_what_no_exporter_of_a_regnet_writes_is_refused(
    edit: Callable[[ModelProto], None], message: str, tmp_path: Path
) -> None:
    wrong = model(tensor())
    edit(wrong)

    assert message in refused(saved(wrong, tmp_path))


def test_two_graphs_are_refused(tmp_path: Path) -> None:
    """Which protobuf would join to one."""
    whole = model(tensor()).SerializeToString()
    more = onnx.ModelProto(graph=helper.make_graph([], "g", [], [])).SerializeToString()

    assert "with 2 graphs of ONNX" in refused(saved(whole + more, tmp_path))


def test_a_cycle_is_named(tmp_path: Path) -> None:
    wrong = onnx.load(RECORDED)
    first = wrong.graph.node[0]
    first.input[0] = wrong.graph.node[-1].output[0]
    path = saved(wrong, tmp_path)

    words = rf"its node Conv '{re.escape(first.name)}' reads '.*', which nothing before it makes"
    with pytest.raises(InputError, match=words), inspected(path, SourceOptions()):
        pass


@pytest.mark.parametrize("at", range(0, 70_000, 3301))
def test_a_file_cut_short_is_refused(at: int, tmp_path: Path) -> None:
    path = saved(RECORDED.read_bytes()[:at], tmp_path)

    with (
        pytest.raises((InputError, UnsafeInputError)) as caught,
        inspected(path, SourceOptions()),
    ):
        pass
    assert str(caught.value).startswith("model.onnx")


def test_more_parts_than_a_network_has_are_not_counted_to_their_end(tmp_path: Path) -> None:
    node = b"\x0a\x00" * (MAX_PARTS + 1)
    length = b""
    size = len(node)
    while size > 127:
        length, size = length + bytes([size & 127 | 128]), size >> 7
    content = b"\x08\x08\x3a" + length + bytes([size]) + node

    assert f"it has more than {MAX_PARTS} parts" in refused(saved(content, tmp_path))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\x0b", "a field of the unknown kind 3"),
        (b"\x08" + b"\xff" * 12, "ends inside a number"),
        (b"\x08", "ends inside a number"),
        (b"\x0a\x05ab", "inside a field of 5 bytes"),
        (b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", "inside a field of 18446744073709551615"),
        (b"\x0dab", "inside a field of 4 bytes"),
    ],
)
def test_what_is_no_protobuf_is_refused(content: bytes, message: str) -> None:
    reader = ProtobufReader(Found("file", content))

    with pytest.raises(InputError, match=re.escape(message)):
        reader.message(reader.whole)


def test_protobuf_is_read_as_its_own_library_reads_it() -> None:
    info = onnx.load(RECORDED)
    reader = ProtobufReader(Found("file", RECORDED.read_bytes()))
    message = reader.message(reader.whole)

    assert reader.integer(message[1][0]) == info.ir_version
    assert reader.text(message[2][0]) == info.producer_name
    graph = reader.message(message[7][0])
    assert len(graph[1]) == len(info.graph.node)
    assert [reader.text(reader.message(t)[8][0]) for t in graph[5]] == [
        tensor.name for tensor in info.graph.initializer
    ]
