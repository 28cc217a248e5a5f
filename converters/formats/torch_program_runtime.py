"""`.pt2` and AOTInductor packages, in torch on the CPU."""

from __future__ import annotations

from typing import TYPE_CHECKING

from converters.checkpoint.torch_places import loadable
from converters.errors import InputError, UnsafeInputError, printable
from converters.formats.memory import require_memory
from converters.formats.reference import torch_threads
from converters.formats.torch_runtime import TorchRuntime
from regnet.files.json_text import parse_json

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from converters.checkpoint.zip_directory import ZipDirectory

_TABLE = "_config.json"
"""How the names of tables of tensors end: of weights, and of constants."""

_INPUTS = "data/sample_inputs/"

_PICKLED = (".pt", ".pth", ".pkl")
"""How the names of entries end that older versions of torch.export wrote by torch.save."""

_PLAIN = ("weight_", "tensor_")
"""How the entries that a table names begin; others hold objects, which are unpickled."""

_MACHINE_CODE = "data/aotinductor/"

_COPIES = 2
"""How many times the file's size loading takes: the bytes that are read, and the tensors."""


class Pt2Runtime(TorchRuntime):
    """Runs a file of torch.export.

    ``torch.export.load`` unpickles, with all that a pickle can do, what a file marks as pickled,
    and loads machine code that lies beside it; such files are refused. What is left is still a
    program: load files whose sha256 you know.

    Args:
        path: The file.
        output_names: Of what it returns, in order.
        threads: How many compute.

    Raises:
        InputError: If torch.export did not write it.
        MemoryShortError: If the file would not fit into memory.
        RuntimeError: If it is damaged.
        UnsafeInputError: If something in it is pickled or machine code, programs may find other
            entries in it, or it inflates.
    """

    def __init__(
        self, path: Path, output_names: Sequence[str] = ("logits",), threads: int = 1
    ) -> None:
        import torch

        require_memory(_COPIES * path.stat().st_size)
        with loadable(path) as directory:
            _require_no_pickles(path, directory)
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
        UnsafeInputError: If programs may find other entries in it, or it inflates.
        RuntimeError: If it is damaged; from torch, if it is no such package.
    """

    def __init__(
        self, path: Path, output_names: Sequence[str] = ("logits",), threads: int = 1
    ) -> None:
        from torch._inductor import aoti_load_package

        require_memory(_COPIES * path.stat().st_size)
        with loadable(path), torch_threads(threads):
            package = aoti_load_package(str(path))
        super().__init__("AOTInductor", package, output_names, threads)


def _require_no_pickles(path: Path, directory: ZipDirectory) -> None:
    """Refuse a file of torch.export of which loading would unpickle something or link code."""
    for entry in directory.entries:
        name = entry.inside
        pickled = entry.size > 0 and (name.startswith(_INPUTS) or name.endswith(_PICKLED))
        table = name.endswith(_TABLE) and directory.content(entry, entry.size)
        machine_code = name.startswith(_MACHINE_CODE)
        if pickled or machine_code or (table and _has_pickles(path, table)):
            what = "machine code" if machine_code else "a pickle"
            raise UnsafeInputError(
                f"{path.name} holds {what} ({printable(name)}), which can run any code when it is "
                "loaded; export it again with `regnet export --format pt2`."
            )


def _has_pickles(path: Path, table: bytes) -> bool:
    try:
        return any(
            entry["use_pickle"] or not entry["path_name"].startswith(_PLAIN)
            for entry in parse_json(table)["config"].values()
        )
    except (AttributeError, LookupError, TypeError, ValueError) as error:
        raise InputError(
            f"{path.name}: has a table of tensors that torch.export did not write; export it again "
            "with `regnet export --format pt2`."
        ) from error
