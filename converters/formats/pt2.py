"""`.pt2`: the reference model through torch.export, the successor of TorchScript."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from converters.checkpoint.torch_archive import loadable
from converters.errors import InputError, UnsafeInputError, printable
from converters.formats.format import DEFAULTS, INTERFACE_OPTIONS, Format
from converters.formats.stated import stated_in, stated_in_archive
from converters.formats.torch_program import TorchRuntime, exported_program
from regnet.files.reading import parse_json

if TYPE_CHECKING:
    from pathlib import Path

    from converters.checkpoint.zip_directory import ZipDirectory
    from converters.folder.folder import ConvertedFolder
    from converters.formats.format import ExportOptions

_TABLE = "_config.json"
"""How the names of tables of tensors end: of weights, and of constants."""

_INPUTS = "data/sample_inputs/"

_PICKLED = (".pt", ".pth", ".pkl")
"""How the names of entries end that older versions of torch.export wrote by torch.save."""

_PLAIN = ("weight_", "tensor_")
"""How the entries that a table names begin; others hold objects, which are unpickled."""

_MACHINE_CODE = "data/aotinductor/"


def export_pt2(folder: ConvertedFolder, path: Path, _: ExportOptions = DEFAULTS) -> None:
    """Write a program that ``torch.export.load`` opens, with the weights under their names.

    The same version of torch writes the same bytes: no path of the machine is in the file, and no
    example input, which would be a pickle.
    """
    import torch

    program = exported_program(folder)
    program.example_inputs = None
    with path.open("wb") as file:  # given a path, torch would put the file's name into the archive
        torch.export.save(program, file, extra_files=stated_in(folder))


class Pt2Runtime(TorchRuntime):
    """Runs a file of torch.export.

    ``torch.export.load`` unpickles, with all that a pickle can do, what a file marks as pickled,
    and loads machine code that lies beside it; such files are refused. What is left is still a
    program: load files whose sha256 you know.
    """

    library = "torch.export"

    def _loaded(self, path: Path) -> Any:
        import torch

        with loadable(path) as directory, path.open("rb") as file:
            _require_no_pickles(path, directory)
            return torch.export.load(file).module()


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


PT2 = Format(
    name="pt2",
    title="torch.export",
    file_name="model.pt2",
    export=export_pt2,
    load=Pt2Runtime,
    options=INTERFACE_OPTIONS,
    states=stated_in_archive,
    certificate="converters.parity.contents.pt2:read_pt2",
    usage=(
        "import torch",
        'program = torch.export.load("{file}").module()',
        "outputs = program(pixels)",
    ),
    traced=True,
)
