"""`.pt2` and AOTInductor packages, in torch on the CPU."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING
from zipfile import ZipFile

from converters.errors import UnsafeInputError
from converters.runtimes.memory import require_memory
from converters.runtimes.reference import torch_threads
from converters.runtimes.torch_runtime import TorchRuntime

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

_TABLE = "_config.json"
"""How the names of tables of tensors end: of weights, and of constants."""

_INPUTS = "data/sample_inputs/"

_COPIES = 2
"""How many times the file's size loading takes: the bytes that are read, and the tensors."""


class Pt2Runtime(TorchRuntime):
    """Runs a file of torch.export.

    ``torch.export.load`` unpickles, with all that a pickle can do, what a file marks as pickled;
    such files are refused. What is left is still a program: load files whose sha256 you know.

    Args:
        path: The file.
        output_names: Of what it returns, in order.
        threads: How many compute.

    Raises:
        MemoryShortError: If the file would not fit into memory.
        UnsafeInputError: If something in it is pickled.
    """

    def __init__(
        self, path: Path, output_names: Sequence[str] = ("logits",), threads: int = 1
    ) -> None:
        import torch

        require_memory(_COPIES * path.stat().st_size)
        _require_no_pickles(path)
        with path.open("rb") as file:
            program = torch.export.load(file)
        super().__init__("torch.export", program.module(), output_names, threads)


class AotInductorRuntime(TorchRuntime):
    """Runs an AOTInductor package.

    A package is machine code, which nothing can vouch for but its sha256.

    Args:
        path: The file.
        output_names: Of what it returns, in order.
        threads: How many compute.

    Raises:
        MemoryShortError: If the file would not fit into memory.
        RuntimeError: From torch, if it is no such package.
    """

    def __init__(
        self, path: Path, output_names: Sequence[str] = ("logits",), threads: int = 1
    ) -> None:
        from torch._inductor import aoti_load_package

        require_memory(_COPIES * path.stat().st_size)
        with torch_threads(threads):
            package = aoti_load_package(str(path))
        super().__init__("AOTInductor", package, output_names, threads)


def _require_no_pickles(path: Path) -> None:
    """Refuse a file of torch.export of which loading would unpickle something."""
    with ZipFile(path) as archive:
        for entry in archive.infolist():
            name = entry.filename.partition("/")[2]
            inputs = name.startswith(_INPUTS) and entry.file_size > 0
            if inputs or (name.endswith(_TABLE) and _has_pickles(archive.read(entry))):
                raise UnsafeInputError(
                    f"{path.name} holds a pickle ({name}), which can run any code when it is "
                    "loaded; export it again with `regnet export --format pt2`."
                )


def _has_pickles(table: bytes) -> bool:
    return any(entry["use_pickle"] for entry in json.loads(table)["config"].values())
