"""What every test needs, some of it before it imports anything."""

from __future__ import annotations

import gc
import sys
from typing import TYPE_CHECKING

import pytest
import torch

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

try:
    import torchvision  # noqa: F401
except RuntimeError:  # its wheel needs two operators that a CPU build of torch does not bring
    LIBRARY = torch.library.Library("torchvision", "DEF")
    LIBRARY.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    LIBRARY.define("qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Keep what the frameworks' modules consist of, a million objects, from being garbage's cost.

    Nothing of it is ever freed, and walking it took a sixth of the time of tests that export.
    """
    gc.disable()
    try:
        return (yield)
    finally:
        gc.collect()
        gc.freeze()
        gc.set_threshold(10_000, *gc.get_threshold()[1:])
        gc.enable()


@pytest.fixture(autouse=True, scope="session")
def server_of_forks() -> None:
    """Begin it before any test: that takes another working folder, which all threads have."""
    if forks := sys.modules.get("tests.converters.forks"):
        forks.begin()


@pytest.fixture(autouse=True, scope="session")
def one_thread() -> Iterator[None]:
    """Compute on one thread: several that wait for each other on a busy machine take far longer."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
