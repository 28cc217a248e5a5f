"""The second process: the same results to the last bit, and nothing lost where it does nothing."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING, Self

import numpy as np
import pytest

from converters.folder.folder import ConvertedFolder
from converters.formats import beside as module
from converters.formats import torch_process
from converters.formats.beside import Beside, beside, expect_torch, torch_beside
from converters.formats.registry import FORMATS
from converters.formats.runtime_apart import RuntimeApart
from converters.formats.torch_process import NotDoneError, TorchProcess
from converters.parity.truth import Truth, run
from converters.parity.verify import fresh_inputs
from tests.converters.demo import CHECKPOINT
from tests.converters.forks import CHECKOUT

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

SECONDS = 20
"""In which any of these is done, or never will be."""


@pytest.fixture(scope="module")
def process() -> Iterator[TorchProcess]:
    with TorchProcess() as begun:
        yield begun


def is_there(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def require_gone(pid: int) -> None:
    deadline = time.monotonic() + SECONDS
    while is_there(pid):
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_functions_are_called_there_several_at_once(process: TorchProcess) -> None:
    there = process.call("os:getpid")
    assert there != os.getpid()
    with Beside(4) as others:
        begin = time.monotonic()
        waiting = [others.begin(process.call, "time:sleep", 0.3) for _ in range(2)]
        sums = [others.begin(process.call, "operator:add", n, np.arange(3)) for n in range(9)]
        assert [list(added()) for added in sums] == [[n, n + 1, n + 2] for n in range(9)]
        assert [wait() for wait in waiting] == [None, None]
        assert time.monotonic() - begin < SECONDS


@pytest.mark.parametrize(
    ("place", "argument"),
    [("operator:index", "no number"), ("no_such_module:x", 1), ("sys:exit", 3)],
)
def test_what_raises_there_is_not_done(process: TorchProcess, place: str, argument: object) -> None:
    with pytest.raises(NotDoneError):
        process.call(place, argument)
    with pytest.raises(NotDoneError):
        process.call("operator:index", threading.Lock())  # which cannot be sent
    assert process.call("operator:index", 7) == 7


def test_who_waits_hears_of_the_end() -> None:
    ending = TorchProcess()
    with Beside(2) as others:
        waiting = others.begin(ending.call, "time:sleep", 1000)
        ending.call("operator:index", 7)  # it has begun
        ending.close()
        with pytest.raises(NotDoneError):
            waiting()
        with pytest.raises(NotDoneError):
            ending.call("operator:index", 7)


def test_a_result_that_cannot_be_sent_ends_it_and_the_first_does_it() -> None:
    with Beside(2, TorchProcess()) as others:
        assert isinstance(others.with_torch("threading:Lock"), type(threading.Lock()))
        assert others.with_torch("os:getpid") == os.getpid()


def test_the_end_of_work_ends_it_and_what_waits_for_it(process: TorchProcess) -> None:
    done = []
    ending = TorchProcess()
    pid = ending.call("os:getpid")
    with Beside(2, ending) as others:
        others.begin(lambda: done.append(others.with_torch("time:sleep", 1000)))
    require_gone(pid)
    assert done == []  # nor did the first begin to sleep
    assert process.call("operator:index", 7) == 7


@pytest.mark.parametrize("computes", [False, True])
def test_it_goes_with_the_first_and_does_not_hear_ctrl_c(computes: bool) -> None:
    code = (
        "from threading import Thread; import sys, time\n"
        "from converters.formats.torch_process import TorchProcess\n"
        "process = TorchProcess()\n"
        "print(process.call('os:getpid'), flush=True)\n"
        "sleeping = Thread(target=process.call, args=('time:sleep', 1000), daemon=True)\n"
        f"if {computes}: sleeping.start()\n"
        "print(process.call('operator:index', 7), flush=True)\n"
        "sys.stdin.readline()\n"
        "print(process.call('operator:index', 8), flush=True)\n"
        "sys.stdin.readline()\n"
    )
    first = subprocess.Popen(
        [sys.executable, "-c", code],
        cwd=CHECKOUT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert first.stdin
    assert first.stdout
    pid = int(first.stdout.readline())
    assert first.stdout.readline() == "7\n"
    os.kill(pid, signal.SIGINT)
    first.stdin.write("\n")
    first.stdin.flush()
    assert first.stdout.readline() == "8\n"
    first.kill()
    first.communicate()
    require_gone(pid)


def test_outputs_and_units_are_those_of_this_process(
    process: TorchProcess, demo_folder: Path
) -> None:
    folder = ConvertedFolder(demo_folder)
    inputs = fresh_inputs(folder)
    here, there = Truth(folder, inputs), Truth(folder, inputs, Beside(0, process))
    assert there.runtime == here.runtime
    for own, other in ((here.oracle, there.oracle), (here.eager, there.eager)):
        assert own.keys() == other.keys()
        for batch in own:
            np.testing.assert_array_equal(own[batch]["logits"], other[batch]["logits"])
            assert own[batch]["logits"].dtype == other[batch]["logits"].dtype
    for precision in ("float32", "float16"):
        assert here.units(precision) == there.units(precision)
    kind = FORMATS["torchscript"]
    path, names = demo_folder / kind.file_name, folder.output_names
    ours, apart = kind.load(path, names), RuntimeApart(process, kind.name, path, names)
    assert (apart.name, apart.precision, apart.sizes) == (ours.name, ours.precision, ours.sizes)
    outputs = run(ours, inputs)
    for batch, found in run(apart, inputs).items():
        np.testing.assert_array_equal(found["logits"], outputs[batch]["logits"])
        np.testing.assert_array_equal(apart(inputs[batch])["logits"], found["logits"])


def test_there_is_one_where_torch_is_not_yet_and_there_is_room(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    running: set[object] = set()

    class Process:
        def __init__(self) -> None:
            running.add(self)

        def close(self) -> None:
            running.discard(self)

        def __enter__(self) -> Self:
            return self

        def __exit__(self, *_: object) -> None:
            self.close()

    monkeypatch.setattr(module, "TorchProcess", Process)
    monkeypatch.setattr(module, "usable_cores", lambda: 2)
    monkeypatch.setattr(module, "is_limited", lambda: False)
    with torch_beside() as process:  # these tests have torch
        assert process is None
    monkeypatch.delitem(sys.modules, "torch")
    with torch_beside() as process:
        assert running == {process}
    expect_torch()
    expected = set(running)
    with torch_beside() as process, beside(1, process) as others:
        assert running == expected == {process} == {others.torch}
    assert running == set()
    with torch_beside() as process:
        assert beside(1 << 60, process).torch is None
        assert running == set()  # which leaves memory to the first
    for name, value in (("usable_cores", 1), ("is_limited", True), ("available_memory", 1 << 20)):
        with monkeypatch.context() as lacking:
            lacking.setattr(module, name, lambda value=value: value)
            with torch_beside() as process:
                assert process is None
    for name, value in (("executable", ""), ("frozen", True)):
        with monkeypatch.context() as embedded:
            embedded.setattr(sys, name, value, raising=False)
            with torch_beside() as process:
                assert process is None
    monkeypatch.setattr(module, "TorchProcess", _not_begun)
    with torch_beside() as process:
        assert process is None


def _not_begun() -> None:
    raise OSError("there are too many processes")


_COMMAND = """
import sys
from converters.cli import main
from converters.formats import beside, torch_process

class Watch:
    def find_spec(self, name, path=None, target=None):
        if name == "torch._C":
            print("torch is imported", file=sys.stderr)
        return None

beside.usable_cores = lambda: {cores}
torch_process._START = {start!r} or torch_process._START
sys.meta_path.insert(0, Watch())
sys.argv = ["regnet", *sys.argv[1:]]
main.run()
"""


def command(
    folder: Path, *arguments: str | Path, cores: int = 2, start: str = "", check: bool = True
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", _COMMAND.format(cores=cores, start=start), *arguments, "-q"],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(CHECKOUT), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=check,
    )


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_commands_import_no_torch_beside_it_and_write_the_same_bytes(tmp_path: Path) -> None:
    imported = "torch is imported\n"
    assert command(tmp_path, "convert", CHECKPOINT, "alone", cores=1).stderr == imported
    assert command(tmp_path, "convert", CHECKPOINT, "out").stderr == ""
    assert files(tmp_path / "out") == files(tmp_path / "alone")
    lost = command(tmp_path, "convert", CHECKPOINT, "lost", start="raise SystemExit(1)")
    assert lost.stderr == imported
    assert files(tmp_path / "lost") == files(tmp_path / "alone")

    assert command(tmp_path, "verify", "out").stderr == ""
    assert command(tmp_path, "verify", "out", start="raise SystemExit(1)").stderr == imported
    assert command(tmp_path, "export", "out", "--format", "onnx-fp16").stderr == ""
    assert command(tmp_path, "export", "alone", "--format", "onnx-fp16", cores=1).stderr == imported
    assert files(tmp_path / "out") == files(tmp_path / "alone")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "imports"), [("coreml", False), ("pt2", True), ("executorch", True), ("ncnn", False)]
)
def test_torch_is_imported_here_where_it_traces_what_is_written(
    name: str, imports: bool, demo_folder: Path, tmp_path: Path
) -> None:
    shutil.copytree(demo_folder, tmp_path / "out")
    done = command(tmp_path, "export", "out", "--format", name)
    assert ("torch is imported\n" in done.stderr) == imports == FORMATS[name].traced


def _flip(path: Path) -> None:
    """A bit in the middle of what stands in the second half: a weight."""
    data = bytearray(path.read_bytes())
    data[len(data) * 3 // 4] ^= 0x40
    path.write_bytes(data)


def _cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        ("model.torchscript.pt", _flip),
        pytest.param("model.torchscript.pt", _cut, marks=pytest.mark.slow),
        pytest.param("model.onnx", _flip, marks=pytest.mark.slow),
        pytest.param("model.safetensors", _flip, marks=pytest.mark.slow),
        ("model.safetensors", _cut),
    ],
)
def test_what_is_wrong_is_said_as_without_it(
    name: str, damage: Callable[[Path], None], demo_folder: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    shutil.copytree(demo_folder, out)
    (out / "conversion.json").unlink()  # else digests would say all
    damage(out / name)
    alone = command(tmp_path, "verify", "out", cores=1, check=False)
    beside_it = command(tmp_path, "verify", "out", check=False)
    assert alone.returncode != 0
    assert beside_it.returncode == alone.returncode
    imported = "torch is imported\n"
    assert beside_it.stderr.removeprefix(imported) == alone.stderr.removeprefix(imported)
    assert beside_it.stdout == alone.stdout


def test_it_has_torch_when_it_is_asked(process: TorchProcess) -> None:
    """And all of this program: what is asked then takes no time to be imported."""
    loaded = process.call("builtins:eval", "set(__import__('sys').modules)")
    assert {"torch", torch_process.TORCH_USERS, "converters.formats.registry"} <= loaded
