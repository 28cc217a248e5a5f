"""Programs of strangers end within their bounds, and touch nothing."""

from __future__ import annotations

import io
import subprocess
import time
import warnings
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper

from converters.errors import InputError, UnsafeInputError
from converters.formats.confined import Allowance, ConfinedProgram
from converters.formats.confined.program import ProgramError
from converters.formats.confined.wire import MalformedMessageError, receive, send
from converters.formats.memory import MemoryShortError

PIXELS = np.ones((1, 3, 8, 8), np.float32)
ENOUGH = Allowance(start=60, rate=0, memory=3 * 10**9)
SHORT = Allowance(start=3, rate=0, memory=3 * 10**9)
SERVED = "converters.formats.confined.runtime:load"


@pytest.fixture(autouse=True)
def started(monkeypatch: pytest.MonkeyPatch) -> None:
    """As users' programs are."""
    monkeypatch.setattr("converters.formats.confined.program.subprocess", subprocess)


def echo(allowance: Allowance = ENOUGH) -> ConfinedProgram:
    return ConfinedProgram("tests.converters.echo:Echo", (), ("name",), allowance)


def torchscript(path: Path, module: torch.nn.Module) -> ConfinedProgram:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # TorchScript is deprecated, and what people have
        torch.jit.script(module).save(path)
    return ConfinedProgram(SERVED, ("torchscript", str(path), ["logits"], 1), (), ENOUGH)


def test_arrays_and_plain_values_come_and_go() -> None:
    program = echo()
    assert program.attributes == {"name": "echo"}
    answer = program.call("__call__", PIXELS)
    assert answer["sum"] == PIXELS.sum()
    np.testing.assert_array_equal(answer["pixels"], PIXELS)
    assert answer["pixels"].dtype == np.float32
    assert len(program.call("many", PIXELS, repetitions=3)) == 3
    program.close()


def test_it_writes_nothing_but_into_its_scratch_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(Path.cwd()))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "kept").write_text("kept")
    program = echo()
    if not program.confined:
        pytest.skip("this kernel has no Landlock")
    outcomes = program.call("write", PIXELS)
    assert outcomes.pop("shell") == "done"  # the shell starts, and is forbidden the same
    assert set(outcomes.values()) == {"PermissionError"}, outcomes
    assert [file.name for file in tmp_path.iterdir()] == ["kept"]
    assert (tmp_path / "kept").read_text() == "kept"
    scratch = program.call("scratch", PIXELS)
    left = Path(scratch["path"])
    assert left.is_file()
    assert left.parent == Path(scratch["cache"])
    program.close()
    assert not left.parent.exists()


def test_a_folder_of_lookalikes_is_not_imported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(Path.cwd()))
    for name in ("numpy", "json", "converters"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit(1)")
    monkeypatch.chdir(tmp_path)
    assert echo().call("__call__", PIXELS)["sum"] == PIXELS.sum()


def test_errors_are_what_they_are_and_harmless_to_print() -> None:
    program = echo()
    with pytest.raises(UnsafeInputError) as caught:
        program.call("refuse", PIXELS)
    assert "\x1b" not in str(caught.value)
    with pytest.raises(MemoryShortError, match="needs more"):
        program.call("short", PIXELS)
    with pytest.raises(ProgramError, match="no attribute 'nothing'"):
        program.call("nothing", PIXELS)
    with pytest.raises(ProgramError, match="ended by signal 9"):
        program.call("end", PIXELS)
    with pytest.raises(ProgramError):
        program.call("__call__", PIXELS)


def test_what_cannot_be_opened_leaves_no_process() -> None:
    with pytest.raises(ProgramError, match="nowhere"):
        ConfinedProgram(
            SERVED,
            ("torchscript", "/nowhere", ["logits"], 1),
            (),
            ENOUGH,
        )


class Loops(torch.nn.Module):
    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        while bool((pixels > -1).all()):
            pixels = pixels + 1
        return pixels.mean((2, 3))


class Allocates(torch.nn.Module):
    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        return pixels.mean((2, 3)) + torch.ones([40000, 50000])[0, 0]


class Saves(torch.nn.Module):
    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        torch.save(pixels, "written")
        return pixels.mean((2, 3))


def test_a_torchscript_that_loops_is_ended(tmp_path: Path) -> None:
    program = torchscript(tmp_path / "model.pt", Loops())
    program._allowance = SHORT
    begin = time.monotonic()
    with pytest.raises(ProgramError, match="not done within 3 seconds"):
        program.call("__call__", PIXELS)
    assert time.monotonic() - begin < 20


def test_a_torchscript_that_takes_memory_is_refused_it(tmp_path: Path) -> None:
    program = torchscript(tmp_path / "model.pt", Allocates())
    with pytest.raises(ProgramError, match=r"(?i)alloc|memory"):
        program.call("__call__", PIXELS)


def test_a_torchscript_that_writes_writes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(Path.cwd()))
    monkeypatch.chdir(tmp_path)
    program = torchscript(tmp_path / "model.pt", Saves())
    if not program.confined:
        pytest.skip("this kernel has no Landlock")
    program.call("__call__", PIXELS)
    assert [file.name for file in tmp_path.iterdir()] == ["model.pt"]


def pixels_to_logits(
    nodes: list[onnx.NodeProto], functions: list[onnx.FunctionProto]
) -> onnx.ModelProto:
    image = helper.make_tensor_value_info("pixel_values", TensorProto.FLOAT, [1, 3, 8, 8])
    logits = helper.make_tensor_value_info("logits", TensorProto.FLOAT, None)
    imports = [helper.make_opsetid("", 17), helper.make_opsetid("own", 1)]
    graph = helper.make_graph(nodes, "network", [image], [logits])
    return helper.make_model(graph, opset_imports=imports, functions=functions, ir_version=8)


def test_an_onnx_of_functions_that_call_twice_is_ended(tmp_path: Path) -> None:
    imports = [helper.make_opsetid("", 17), helper.make_opsetid("own", 1)]
    functions = [
        helper.make_function(
            "own",
            f"twice{depth}",
            ["x"],
            ["y"],
            [
                helper.make_node(
                    f"twice{depth - 1}" if depth else "Relu",
                    [x],
                    [y],
                    domain="own" if depth else "",
                )
                for x, y in (("x", "t"), ("t", "y"))
            ],
            imports,
        )
        for depth in range(31)
    ]
    model = pixels_to_logits(
        [helper.make_node("twice30", ["pixel_values"], ["logits"], domain="own")], functions
    )
    onnx.save(model, tmp_path / "model.onnx")
    arguments = ("onnx", str(tmp_path / "model.onnx"), ["logits"], 1)
    with pytest.raises(ProgramError):
        ConfinedProgram(SERVED, arguments, (), SHORT)


def test_an_onnx_that_loops_is_ended(tmp_path: Path) -> None:
    ints, truth = TensorProto.INT64, TensorProto.BOOL
    body = helper.make_graph(
        [
            helper.make_node("Identity", ["go"], ["going"]),
            helper.make_node("Relu", ["x"], ["y"]),
        ],
        "body",
        [
            helper.make_tensor_value_info("count", ints, []),
            helper.make_tensor_value_info("go", truth, []),
            helper.make_tensor_value_info("x", TensorProto.FLOAT, None),
        ],
        [
            helper.make_tensor_value_info("going", truth, []),
            helper.make_tensor_value_info("y", TensorProto.FLOAT, None),
        ],
    )
    times = helper.make_node(
        "Constant", [], ["times"], value=helper.make_tensor("t", ints, [], [1 << 62])
    )
    loop = helper.make_node("Loop", ["times", "", "pixel_values"], ["logits"], body=body)
    onnx.save(pixels_to_logits([times, loop], []), tmp_path / "model.onnx")
    arguments = ("onnx", str(tmp_path / "model.onnx"), ["logits"], 1)
    program = ConfinedProgram(SERVED, arguments, (), ENOUGH)
    program._allowance = SHORT
    with pytest.raises(ProgramError, match="not done within 3 seconds"):
        program.call("__call__", PIXELS)


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", "int64", "uint8", "bool"])
def test_messages_keep_every_array(dtype: str) -> None:
    arrays = {"a": np.arange(6).reshape(2, 3).astype(dtype), "empty": np.zeros((0, 4), dtype)}
    arrays["turned"] = arrays["a"].T
    arrays["one"] = np.array(1, dtype)
    stream = io.BytesIO()
    send(stream, {"text": "ü\n"}, arrays)
    stream.seek(0)
    head, received = receive(stream, 1000)
    assert head == {"text": "ü\n"}
    assert received.keys() == arrays.keys()
    for name, array in arrays.items():
        np.testing.assert_array_equal(received[name], array)
        assert (received[name].dtype, received[name].shape) == (array.dtype, array.shape)


@pytest.mark.parametrize(
    "head",
    [
        "[" * 100_000,
        "{}",
        '{"head": 1, "arrays": []}',
        '{"head": {}, "arrays": [["a", "object", [1]]]}',
        '{"head": {}, "arrays": [["a", "U8", [1]]]}',
        '{"head": {}, "arrays": [["a", "float32", [-1]]]}',
        '{"head": {}, "arrays": [["a", "float32", [true]]]}',
        '{"head": {}, "arrays": [["a", "float32", [1000]]]}',
        '{"head": {}, "arrays": [[1, "float32", [1]]]}',
        '{"head": {}, "arrays": [["a", "float32", [2]]]}',
        '{"head": {}, "arrays": [["a", "no such", [2]]]}',
    ],
)
def test_malformed_messages_are_refused(head: str) -> None:
    message = len(head).to_bytes(8, "little") + head.encode() + b"1234"
    with pytest.raises(MalformedMessageError):
        receive(io.BytesIO(message), 1000)


def test_a_head_of_absurd_length_takes_no_memory() -> None:
    with pytest.raises(MalformedMessageError, match="a head of"):
        receive(io.BytesIO(b"\xff" * 64), 1000)


def test_input_errors_of_the_child_are_input_errors(tmp_path: Path) -> None:
    path = tmp_path / "model.pt2"
    path.write_bytes(b"no archive")
    with pytest.raises((InputError, UnsafeInputError, ProgramError)):
        ConfinedProgram(SERVED, ("pt2", str(path), ["logits"], 1), (), ENOUGH)
