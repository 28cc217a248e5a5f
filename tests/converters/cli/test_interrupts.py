"""Ctrl-C, at imports, twice, and at the end; and memory that a limit takes away."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest

from converters.errors import is_short_of_memory
from tests.converters.cli.running import run
from tests.converters.demo import CHECKPOINT

if TYPE_CHECKING:
    from pathlib import Path

SENTENCE = "Interrupted; the next run takes up whatever is left.\n"

_WATCHED = """
import sys, threading, signal, os, time
from converters.cli import main

class Watch:  # sends Ctrl-C to its own process when a module is about to be imported
    def find_spec(self, name, path=None, target=None):
        if name == {module!r}:
            for _ in range({times}):
                os.kill(os.getpid(), signal.SIGINT)
                time.sleep({pause})
        return None

sys.meta_path.insert(0, Watch())
sys.argv = ["regnet", "verify", {folder!r}, "--locate", "-q"]
main.run()
"""

_AT_EVERY_STEP = """
import faulthandler, signal, sys, threading, time
from pathlib import Path
from converters.cli import interrupts
from converters.formats.beside import Beside
from converters.weights.weights_file import Follower

faulthandler.dump_traceback_later(100, exit=True)  # a lock that is left hangs
left = 0

def watch(frame, event, argument):  # sends Ctrl-C after so many steps of the library's
    global left
    if event != "c_call" and frame.f_code.co_filename in interrupts._LOCKING:
        left -= 1
        if left == 0:
            sys.setprofile(None)
            signal.raise_signal(signal.SIGINT)

def without_watch(signal, frame):
    while frame is not None and frame.f_code.co_filename == "<string>":
        frame = frame.f_back
    interrupts._LISTENER(signal, frame)

def work():
    with Beside(2) as others, Follower() as follower:
        begun = [others.begin(time.sleep, 0.0005) for _ in range(3)]
        follower.do(time.sleep, 0.0005)
        follower.finish()
        for result in begun:
            result()

met = 0
for steps in range(1, 600):
    interrupts.listen()
    signal.signal(signal.SIGINT, without_watch)
    left = steps
    try:
        sys.setprofile(watch)
        work()
        sys.setprofile(None)
        if left > 0:
            break
        time.sleep(0.1)
    except KeyboardInterrupt:
        met += 1
    for thread in threading.enumerate()[1:]:
        thread.join()
print(met)
"""


def interrupted(
    module: str, folder: Path, times: int = 1, pause: float = 0.0
) -> subprocess.CompletedProcess[str]:
    code = _WATCHED.format(module=module, folder=str(folder), times=times, pause=pause)
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False
    )


@pytest.mark.parametrize("times", [1, 3])
@pytest.mark.parametrize("module", ["typer", "torch", "onnxruntime"])
def test_ctrl_c_at_an_import_is_one_sentence(module: str, times: int, demo_folder: Path) -> None:
    finished = interrupted(module, demo_folder, times)
    assert (finished.returncode, finished.stderr) == (130, SENTENCE)


@pytest.mark.parametrize("seconds", [0.02, 0.2, 0.6, 1.5])
@pytest.mark.parametrize("pause", [None, 0.004])
def test_ctrl_c_whenever_and_twice_is_one_sentence(
    seconds: float, pause: float | None, tmp_path: Path
) -> None:
    # What comes before is Python's own beginning, which nobody can listen in.
    code = "from converters.cli import main; print('listens', flush=True); main.run()"
    process = subprocess.Popen(
        [sys.executable, "-c", code, "convert", CHECKPOINT, "out", "-q"],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "listens\n"
    time.sleep(seconds)
    process.send_signal(signal.SIGINT)
    if pause is not None:
        time.sleep(pause)
        process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode in {0, 130}  # on a fast machine it may be done
    assert "Traceback" not in said
    assert said.endswith(SENTENCE) == (process.returncode == 130)
    assert (process.returncode == 0) == (tmp_path / "out").exists()


def test_ctrl_c_at_any_step_of_a_lock_leaves_no_thread_waiting() -> None:
    done = subprocess.run(
        [sys.executable, "-c", _AT_EVERY_STEP], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert int(done.stdout) > 50


def test_what_was_interrupted_before_it_was_whole_is_destroyed_in_silence() -> None:
    code = (
        "import os, signal\n"
        "from converters.cli import interrupts\n"
        "class Half:\n"
        "    def __init__(self): os.kill(os.getpid(), signal.SIGINT); self.whole = True\n"
        "    def __del__(self): self.whole\n"
        "interrupts.listen()\n"
        "try: Half()\n"
        "except KeyboardInterrupt: print('interrupted')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("interrupted\n", "")


def test_a_second_ctrl_c_much_later_ends_what_does_not_end() -> None:
    code = (
        "import os, signal, time\n"
        "from converters.cli import interrupts\n"
        "interrupts._PATIENCE = 0.05\n"
        "interrupts.listen()\n"
        "try:\n    os.kill(os.getpid(), signal.SIGINT); time.sleep(9)\n"
        "except KeyboardInterrupt:\n    time.sleep(0.1)\n"
        "    os.kill(os.getpid(), signal.SIGINT)\n    time.sleep(9)\n"
    )
    stuck = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=8, check=False
    )
    assert (stuck.returncode, stuck.stderr) == (130, SENTENCE)


def test_a_process_that_is_to_ignore_ctrl_c_ignores_it(tmp_path: Path) -> None:
    code = (
        "import os, signal\n"
        "signal.signal(signal.SIGINT, signal.SIG_IGN)\n"
        "from converters.cli import interrupts\n"
        "interrupts.listen()\n"
        "os.kill(os.getpid(), signal.SIGINT)\n"
    )
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True)


# Just short of what torch needs (here some 600), CPython itself may end: "cannot recover".
@pytest.mark.parametrize("megabytes", [300, 450])
def test_a_limit_on_memory_is_one_sentence(
    megabytes: int, demo_folder: Path, tmp_path: Path
) -> None:
    limit = megabytes << 20
    finished = run(
        "regnet",
        *("predict", demo_folder, tmp_path / "none.png", "--runtime", "torch"),
        cwd=tmp_path,
        before=lambda: resource.setrlimit(resource.RLIMIT_AS, (limit, limit)),
        env={"OPENBLAS_NUM_THREADS": "1"},
    )
    assert finished.status == 4
    assert finished.err.startswith("There is not enough memory; ")
    assert finished.err.count("\n") == 1


def test_an_error_that_python_lost_is_a_lack_of_memory_where_that_is_limited(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    lost = SystemError("<function f at 0x7f> returned NULL without setting an exception")
    unlimited = (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
    monkeypatch.setattr(resource, "getrlimit", lambda _: unlimited)
    assert not is_short_of_memory(lost)
    monkeypatch.setattr(resource, "getrlimit", lambda _: (600 << 20, resource.RLIM_INFINITY))
    assert is_short_of_memory(lost)
    assert not is_short_of_memory(SystemError("bad argument to internal function"))
