"""AOTInductor: the network compiled to a shared library for processors like this machine's."""

from __future__ import annotations

import os
import sys
import warnings
from shutil import copyfile, which
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any
from zipfile import ZipFile, ZipInfo

from converters.checkpoint.torch_archive import loadable
from converters.checkpoint.zip_container import EXTRA
from converters.errors import StorageError
from converters.folder.interface import NETWORK
from converters.formats.format import DEFAULTS, INTERFACE_OPTIONS, Format
from converters.formats.reference import torch_threads
from converters.formats.stated import stated_in, stated_in_archive
from converters.formats.torch_program import TorchRuntime, exported_program

if TYPE_CHECKING:
    from pathlib import Path

    from converters.folder.folder import ConvertedFolder
    from converters.formats.format import ExportOptions


def export_aotinductor(folder: ConvertedFolder, path: Path, _: ExportOptions = DEFAULTS) -> None:
    """Compile the network and write what ``torch._inductor.aoti_load_package`` opens.

    The file holds machine code: it runs on processors with the vector instructions of this one,
    under this version of torch, and two compilations need not give the same bytes.

    Raises:
        StorageError: If there is no C++ compiler, or it fails.
    """
    import torch
    from torch._inductor.cpp_builder import get_cpp_compiler
    from torch._inductor.exc import CppCompileError, InductorError, InvalidCxxCompiler
    from torch._inductor.utils import fresh_cache

    try:  # before the minutes of tracing and compiling
        get_cpp_compiler()
    except InvalidCxxCompiler as error:
        raise StorageError(
            "AOTInductor needs a C++ compiler and there is none; install g++ or name one with the "
            "variable CXX, or choose --format pt2, which needs none."
        ) from error
    program = exported_program(folder)
    with (
        TemporaryDirectory() as temporary,
        torch_threads(),
        fresh_cache(dir=temporary, delete=False),
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("ignore")  # Inductor uses what torch itself deprecates
        try:
            package = torch._inductor.aoti_compile_and_package(  # noqa: SLF001 -- its public name
                program, package_path=f"{temporary}/model.pt2"
            )
        except (CppCompileError, InductorError) as error:
            raise StorageError(
                f"The C++ compiler could not compile {path.name} ({type(error).__name__}); name "
                "another with the variable CXX, or choose --format pt2, which needs none."
            ) from error
        copyfile(package, path)
    _state(folder, path)


def _state(folder: ConvertedFolder, path: Path) -> None:
    """Put what a package states among its files, if it takes or gives more than the network."""
    if folder.interface == NETWORK:
        return
    with ZipFile(path, "a") as archive:
        root, _, _ = archive.namelist()[0].partition("/")
        for key, text in stated_in(folder).items():
            archive.writestr(ZipInfo(f"{root}/{EXTRA}{key}"), text)


class AotInductorRuntime(TorchRuntime):
    """Runs an AOTInductor package: machine code, which nothing can vouch for but its sha256."""

    library = "AOTInductor"

    def _loaded(self, path: Path) -> Any:
        from torch._inductor import aoti_load_package

        with loadable(path):
            return aoti_load_package(str(path))


def _lacks() -> str | None:
    """What Inductor takes for its compiler, unless there is one; it builds with no other."""
    compiler = os.environ.get("CXX", "clang++" if sys.platform == "darwin" else "g++")
    return None if which(compiler) else f"there is no C++ compiler ({compiler})"


AOTINDUCTOR = Format(
    name="aotinductor",
    title="AOTInductor",
    file_name="model.aoti.pt2",
    options=INTERFACE_OPTIONS,
    states=stated_in_archive,
    export=export_aotinductor,
    load=AotInductorRuntime,
    lacks=_lacks,
    usage=(
        "import torch",
        'program = torch._inductor.aoti_load_package("{file}")',
        "outputs = program(pixels)",
    ),
    traced=True,
)
