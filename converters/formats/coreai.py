"""Core AI: what follows Core ML on Apple's systems of version 27, and runs on Linux too."""

from __future__ import annotations

import json
from contextlib import redirect_stdout
from io import StringIO
from typing import TYPE_CHECKING, Any

from converters.checkpoint.digests import sha256_of
from converters.checkpoint.quiet import ignoring
from converters.errors import require_extra
from converters.formats.format import DEFAULTS, INTERFACE_OPTIONS, Format
from converters.formats.memory import require_memory
from converters.formats.runtime import ArtefactRuntime
from converters.formats.stated import stated_in
from converters.formats.torch_program import exported_program
from regnet.architecture import PIXELS
from regnet.files.reading import json_object

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    from converters.folder.folder import ConvertedFolder
    from converters.formats.format import ExportOptions

_PACKAGE, _EXTRA = "coreai_torch", "coreai"
_PROGRAM, _DIGEST, _METADATA = "main.mlirb", "main.hash", "metadata.json"
_STATED = "creatorDefinedMetadata"
"""The key of what whoever made the asset states in it."""

_MOST_PADDING = 8
"""Zeros on each side of which some are cut off, where their number depends on the image's size."""

_COPIES = 3
"""How many times its size a program takes to run: read, compiled, and loaded."""


def export_coreai(folder: ConvertedFolder, path: Path, _: ExportOptions = DEFAULTS) -> None:
    """Write the network in float32; batch and image size are open.

    The same versions of torch and Apple's two packages write the same bytes.
    """
    require_extra(_PACKAGE, _EXTRA)
    with ignoring(), redirect_stdout(StringIO()):  # of warnings, that 2.13.0+cpu is not 2.13.0
        from coreai_torch import TorchConverter, get_decomp_table

        spellings = get_decomp_table()
        for operator, spelling in _spelled_out().items():
            spellings[operator] = spelling
        program = exported_program(folder).run_decompositions(spellings)
        converter = TorchConverter(mode=TorchConverter.Mode.RELEASE)
        converter.add_exported_program(
            program, input_names=[PIXELS], output_names=folder.output_names
        )
        converter.to_coreai().save_asset(path)
    # It holds the time of day, in an order of keys that changes from run to run.
    metadata = json_object(path / _METADATA) | {_STATED: stated_in(folder)}
    del metadata["creationDate"]
    text = json.dumps(metadata, indent=2, sort_keys=True, ensure_ascii=False)
    (path / _METADATA).write_text(f"{text}\n", encoding="utf-8", newline="\n")


def _spelled_out() -> dict[Any, Callable[..., Any]]:
    """Operators that `coreai-torch` lacks, or lacks where sizes are open, by others."""
    import torch

    def variance(
        value: torch.Tensor, dim: list[int], *, correction: float, keepdim: bool = False
    ) -> torch.Tensor:
        if correction:
            raise NotImplementedError("no network here divides by one less")
        return (value - value.mean(dim, keepdim=True)).pow(2).mean(dim, keepdim=keepdim)

    def padded(pixels: torch.Tensor, pad: list[int], value: float = 0.0) -> torch.Tensor:
        if all(type(each) is int for each in pad):
            known: torch.Tensor = NotImplemented
            return known
        left, right, top, bottom = pad
        height, width = pixels.shape[2:]
        around = torch.constant_pad_nd(pixels, [_MOST_PADDING] * 4, value)
        rows = around[:, :, _MOST_PADDING - top : _MOST_PADDING + height + bottom]
        return rows[:, :, :, _MOST_PADDING - left : _MOST_PADDING + width + right]

    aten = torch.ops.aten
    return {aten.var.correction: variance, aten.constant_pad_nd.default: padded}


def _stated(path: Path) -> Mapping[str, str]:
    """What an asset states beside the network.

    Raises:
        ValueError: If it cannot be read.
    """
    stated = json_object(path / _METADATA).get(_STATED)
    return {key: str(text) for key, text in stated.items()} if isinstance(stated, dict) else {}


class CoreAiRuntime(ArtefactRuntime):
    """Runs an asset: compiled and computed by `coreai-core`, or from macOS 27 on by the system.

    Its threads may still give back Python's objects when a call has returned. If Python ends then,
    `coreai-core` 1.0.0b3 aborts the process; so it is run in one that is ended from outside.
    """

    def __init__(self, path: Path, output_names: Sequence[str] = ("logits",), _: int = 1) -> None:
        require_extra(_PACKAGE, _EXTRA)
        from importlib.metadata import version

        self.name = f"coreai-core {version('coreai-core')}"
        require_memory(_COPIES * (path / _PROGRAM).stat().st_size)
        _require_digest(path)
        self._output_names = tuple(output_names)
        import asyncio

        self._function = asyncio.run(_loaded(path))

    def __call__(self, pixel_values: NDArray[np.float32]) -> dict[str, NDArray[np.float32]]:
        """Compute every output."""
        import asyncio

        from coreai.runtime import NDArray as Array

        outputs = asyncio.run(self._function({PIXELS: Array(pixel_values)}))
        return {name: outputs[name].numpy().copy() for name in self._output_names}


def _require_digest(path: Path) -> None:
    """Compare the program with the digest beside it, which Core AI does not.

    Raises:
        ValueError: If it is another one's.
    """
    digest = path / _DIGEST
    if not digest.is_file() or sha256_of(path / _PROGRAM) != digest.read_bytes().hex():
        raise ValueError(f"{_PROGRAM} is not the program that {_DIGEST} is of")


async def _loaded(path: Path) -> Any:
    """Compile an asset into files that are mapped, and gone when this returns."""
    from coreai.authoring import AIModelAsset
    from coreai.runtime import SpecializationOptions

    # Where Apple's system runs it, other units than the processor may compute in float16.
    own = SpecializationOptions.cpu_only() if SpecializationOptions.is_supported() else None
    async with AIModelAsset.load(path).executable(own) as model:
        return model.load_function("main")


_RUN = (
    'outputs = asyncio.run(model.load_function("main")({{"pixel_values": '
    "runtime.NDArray(pixels.numpy())}}))"
)

COREAI = Format(
    name="coreai",
    title="Core AI",
    file_name="model.aimodel",
    members=(_PROGRAM, _DIGEST, _METADATA),
    extra=_EXTRA,
    package=_PACKAGE,
    options=INTERFACE_OPTIONS,
    states=_stated,
    export=export_coreai,
    load=CoreAiRuntime,
    apart=True,
    usage=(
        "import asyncio, coreai.authoring as authoring, coreai.runtime as runtime",
        'model = asyncio.run(authoring.AIModelAsset.load("{file}").executable().__aenter__())',
        _RUN,
    ),
    traced=True,
)
