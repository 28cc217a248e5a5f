"""``python -m benchmarks.giants NETWORK OUT --framework ...``: see :mod:`benchmarks.giants`."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

from benchmarks.giants.containers import CONTAINERS
from benchmarks.giants.layouts import LAYOUTS
from benchmarks.giants.make import Recipe, make
from benchmarks.giants.networks import published_names
from converters.errors import ConversionError
from regnet.files.dtypes import DEFAULT, DTYPES


def main() -> None:
    """Make one giant."""
    parser = _parser()
    fields = vars(parser.parse_args())
    network, out = fields.pop("network"), fields.pop("out")
    begin = time.perf_counter()
    try:
        make(network, out, Recipe(**fields))
    except (ConversionError, OSError, ValueError) as error:
        parser.error(str(error))
    sys.stderr.write(f"{out} made in {time.perf_counter() - begin:.1f} s\n")


def _parser() -> argparse.ArgumentParser:
    layouts = sorted({layout for some in LAYOUTS.values() for layout in some})
    parser = argparse.ArgumentParser(prog="python -m benchmarks.giants", description=main.__doc__)
    parser.add_argument("network", metavar="NETWORK", help=", ".join(published_names()))
    parser.add_argument("out", metavar="OUT", type=Path, help="the file, list or folder to make")
    parser.add_argument("--framework", choices=LAYOUTS, required=True)
    parser.add_argument(
        "--layout", choices=layouts, default="", help="default: the framework's own"
    )
    parser.add_argument("--container", choices=CONTAINERS, default="zip")
    parser.add_argument("--classes", type=int, default=1000, help="0 for a trunk alone")
    parser.add_argument("--dtype", choices=DTYPES, default=DEFAULT)
    parser.add_argument(
        "--density", type=float, default=1.0, help="0.25 writes every fourth page of large tensors"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--ranks", type=int, default=2, help="number of shards")
    return parser


if __name__ == "__main__":
    main()
