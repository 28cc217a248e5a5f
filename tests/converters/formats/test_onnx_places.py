"""Where an ONNX file may read its weights, wherever in it a tensor stands."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from converters.checkpoint import onnx_places
from converters.checkpoint.onnx_places import open_onnx, require_readable
from converters.errors import InputError, UnsafeInputError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from onnx import ModelProto

VALUES = np.arange(6, dtype=np.float32).reshape(2, 3)


def tensor(location: str) -> TensorProto:
    made = TensorProto(name="w", dims=VALUES.shape, data_type=TensorProto.FLOAT)
    made.data_location = TensorProto.EXTERNAL
    for key, value in (("location", location), ("offset", "8"), ("length", "24")):
        made.external_data.add(key=key, value=value)
    return made


def empty() -> ModelProto:
    value = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1])
    graph = helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], "g", [value], [])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)


def _initialiser(location: str) -> ModelProto:
    model = empty()
    model.graph.initializer.append(tensor(location))
    return model


def _sparse(location: str) -> ModelProto:
    model = empty()
    model.graph.sparse_initializer.add().values.CopyFrom(tensor(location))
    return model


def _constant(location: str) -> ModelProto:
    model = empty()
    model.graph.node.append(helper.make_node("Constant", [], ["c"], value=tensor(location)))
    return model


def _nested(location: str) -> ModelProto:
    inner, outer = _constant(location).graph, empty()
    outer.graph.node.append(helper.make_node("If", ["x"], ["z"], then_branch=inner))
    return outer


def _function(location: str) -> ModelProto:
    model = empty()
    function = model.functions.add(name="f", domain="d")
    function.node.append(helper.make_node("Constant", [], ["c"], value=tensor(location)))
    return model


def _function_default(location: str) -> ModelProto:
    model = empty()
    default = helper.make_attribute("value", tensor(location))
    model.functions.add(name="f", domain="d").attribute_proto.append(default)
    return model


def _training(location: str) -> ModelProto:
    model = empty()
    model.training_info.add().initialization.CopyFrom(_constant(location).graph)
    return model


PLACES: dict[str, Callable[[str], ModelProto]] = {
    "an initialiser": _initialiser,
    "a sparse initialiser": _sparse,
    "a constant": _constant,
    "a graph in a node": _nested,
    "a function": _function,
    "a default of a function": _function_default,
    "training": _training,
}


@pytest.mark.parametrize("location", ["../w", "/etc/w", "a/../../w", "C:\\w"])
@pytest.mark.parametrize("place", PLACES)
def test_weights_elsewhere_are_refused(place: str, location: str, tmp_path: Path) -> None:
    onnx.save(PLACES[place](location), tmp_path / "m.onnx")
    for opened in (require_readable, open_onnx):
        with pytest.raises(UnsafeInputError, match=r"^m\.onnx reads its weights from .*trust\.$"):
            opened(tmp_path / "m.onnx")


@pytest.mark.parametrize("place", PLACES)
def test_weights_beside_it_are_read(place: str, tmp_path: Path) -> None:
    onnx.save(PLACES[place]("w.bin"), tmp_path / "m.onnx")
    (tmp_path / "w.bin").write_bytes(bytes(8) + VALUES.tobytes())
    os.link(tmp_path / "w.bin", tmp_path / "second")
    model = open_onnx(tmp_path / "m.onnx", weights=True)
    (found,) = (
        onnx_places._tensors(model)
        if place != "a sparse initialiser"
        else [model.graph.sparse_initializer[0].values]
    )
    assert np.array_equal(numpy_helper.to_array(found), VALUES)
    require_readable(tmp_path / "m.onnx")


def test_a_large_file_that_points_elsewhere_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(onnx_places, "_READ", 10)
    onnx.save(_initialiser("../w"), tmp_path / "m.onnx")
    with pytest.raises(UnsafeInputError):
        require_readable(tmp_path / "m.onnx")


@pytest.mark.parametrize("fault", ["missing", "short", "a link out"])
def test_weights_that_are_not_there_are_said_to_be(fault: str, tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    onnx.save(_initialiser("w.bin"), folder / "m.onnx")
    (tmp_path / "outside").write_bytes(bytes(100))
    if fault == "short":
        (folder / "w.bin").write_bytes(bytes(20))
    elif fault == "a link out":
        (folder / "w.bin").symlink_to(tmp_path / "outside")
    with pytest.raises(ValueError, match=r"^the weights that it needs from w\.bin are not there$"):
        open_onnx(folder / "m.onnx", weights=True)


def test_what_is_no_onnx_or_newer_is_refused(tmp_path: Path) -> None:
    (tmp_path / "m.onnx").write_bytes(b"\xff" * 20)
    require_readable(tmp_path / "m.onnx")  # the runtime says more
    with pytest.raises(ValueError, match="cannot be read as ONNX"):
        open_onnx(tmp_path / "m.onnx")
    newer = empty()
    newer.ir_version = 99
    onnx.save(newer, tmp_path / "n.onnx")
    with pytest.raises(InputError, match="newer than the installed"):
        open_onnx(tmp_path / "n.onnx")
