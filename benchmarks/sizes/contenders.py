"""Who takes part: a command line each, and the source that it reads."""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.sizes.sources import BIN, CONSOLIDATED, FOLDER, LEGACY, SHARDS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from benchmarks.sizes.sources import MadeSource, Source

_CONVERT = "regnet convert {source} {out} --quiet --no-verify --format onnx --share-weights"
"""The weights, and of artefacts the smallest: a graph that points into them."""

_PROGRAM = "python -m benchmarks.sizes.programs"

_FLOPS = re.compile(r"RegNet(?P<layer>[XY])-(?P<number>[\d.]+)(?P<unit>[MG])F")

_SHARDS = 7
"""Splits into eight: tensors are not cut, so every shard but the last stays below its limit."""


@dataclass(frozen=True, slots=True)
class Contender:
    """A command that takes part.

    Attributes:
        title: What it does, in Markdown.
        source: What it reads.
        line: With the places ``{folder}``, ``{source}``, ``{out}``, ``{shard}`` and ``{timm}``.
        room: Disk that it needs, in sizes of the source.
        plotted: Whether it is in the plot of growth with size.
    """

    title: str
    source: Source
    line: str
    room: float = 1.0
    plotted: bool = False

    @property
    def is_ours(self) -> bool:
        """Whether it must come to its end."""
        return self.line.startswith("regnet ")


def _copy(source: Source, *, plotted: bool = False) -> Contender:
    line = "cp --recursive --sparse=never {folder} {out}"
    return Contender("`cp --sparse=never`", source, line, plotted=plotted)


CONTENDERS = (
    _copy(CONSOLIDATED, plotted=True),
    Contender("`sha256sum`, which writes nothing", CONSOLIDATED, "sha256sum {source}", room=0),
    Contender("`regnet convert`", CONSOLIDATED, _CONVERT, plotted=True),
    Contender("`regnet convert --dtype bfloat16`", CONSOLIDATED, f"{_CONVERT} --dtype bfloat16"),
    Contender(
        "`regnet convert --max-shard-size`, 8 shards",
        CONSOLIDATED,
        _CONVERT + " --max-shard-size {shard}",
    ),
    Contender(
        "safetensors' conversion",
        CONSOLIDATED,
        _PROGRAM + " safetensors {source} {out}",
        plotted=True,
    ),
    Contender(
        "`torch.load(mmap=True)`, `save_file`",
        CONSOLIDATED,
        _PROGRAM + " mapped {source} {out}",
        plotted=True,
    ),
    Contender(
        "timm's filter, `save_file`",
        CONSOLIDATED,
        _PROGRAM + " timm {source} {out} {timm}",
        plotted=True,
    ),
    _copy(LEGACY),
    Contender("`regnet convert`", LEGACY, _CONVERT),
    _copy(SHARDS),
    Contender("`regnet convert`", SHARDS, _CONVERT),
    _copy(BIN),
    Contender("`regnet convert`", BIN, _CONVERT),
    Contender(
        "transformers' `from_pretrained`, `save_pretrained`",
        BIN,
        _PROGRAM + " transformers {source} {out}",
        plotted=True,
    ),
    _copy(FOLDER),
    Contender(
        "`regnet export --format onnx`", FOLDER, "regnet export {source} --format onnx --no-verify"
    ),
    Contender(
        "`regnet export --format onnx --share-weights`",
        FOLDER,
        "regnet export {source} --format onnx --share-weights --no-verify",
        room=0,
    ),
    Contender(
        "`optimum-cli export onnx`",
        FOLDER,
        "optimum-cli export onnx --model {source} --task image-classification {out}",
    ),
    Contender("`torch.onnx.export(dynamo=True)`", FOLDER, _PROGRAM + " dynamo {source} {out}"),
)
"""In the order of the tables; of those that read a source, the first is the one to compare with."""


def programs(optimum_cli: Path) -> dict[str, str]:
    """First word of a command line to the program that it means."""
    scripts = Path(sys.executable).parent
    return {
        "python": sys.executable,
        "regnet": str(scripts / "regnet"),
        "optimum-cli": str(optimum_cli),
    }


def command_of(
    contender: Contender, network: str, source: MadeSource, out: Path, found: Mapping[str, str]
) -> list[str] | None:
    """Give a contender's program and arguments; None if it has no such network.

    Args:
        contender: Who.
        network: A published name.
        source: What it reads.
        out: What it makes, unless it writes into the source's folder.
        found: First word to program.
    """
    timm = timm_name(network)
    if "{timm}" in contender.line and timm is None:
        return None
    places = {
        "{folder}": str(source.folder),
        "{source}": str(source.path),
        "{out}": str(out),
        "{shard}": str(source.size // _SHARDS),
        "{timm}": timm or "",
    }
    program, *arguments = contender.line.split()
    return [found.get(program, program), *(places.get(word, word) for word in arguments)]


def timm_name(network: str) -> str | None:
    """Give timm's name of a network, which tells FLOPs in units of 100 million.

    Returns:
        For example ``regnety_040``; None for the networks that timm lacks.
    """
    match = _FLOPS.fullmatch(network)
    if match is None:
        return None
    scale = 10 if match["unit"] == "G" else 0.01
    return f"regnet{match['layer'].lower()}_{round(float(match['number']) * scale):03d}"
