"""Converting RegNet checkpoints: read, recognise, plan, stream, export, verify, publish.

The front door. Everything here takes paths as ``str`` or ``os.PathLike``, keywords with defaults,
and a :class:`Progress` where it takes time; ``import converters`` loads nothing until it is asked
for. What cannot be done is told by an error of :class:`ConversionError`, in one sentence.

>>> import converters
>>> conversion = converters.convert("RegNetY-FashionMNIST.pyth", "new", formats=["onnx"])
>>> conversion.report.passed
True
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from converters.errors import ConversionError, InputError, StorageError, UnsafeInputError
    from converters.folder.folder import ConvertedFolder
    from converters.folder.images import UnreadableImagesError
    from converters.jobs.bench import bench
    from converters.jobs.compare import compare
    from converters.jobs.convert import convert
    from converters.jobs.doctor import doctor
    from converters.jobs.evaluate import evaluate
    from converters.jobs.export import export
    from converters.jobs.inspect import inspect
    from converters.jobs.predict import predict
    from converters.jobs.verify import verify
    from converters.parity.compare.comparison import DifferentError
    from converters.parity.report import VerificationError
    from converters.progress import Progress, Silent
    from converters.testing import assert_parity
    from regnet import __version__

__all__ = [
    "ConversionError",
    "ConvertedFolder",
    "DifferentError",
    "InputError",
    "Progress",
    "Silent",
    "StorageError",
    "UnreadableImagesError",
    "UnsafeInputError",
    "VerificationError",
    "__version__",
    "assert_parity",
    "bench",
    "compare",
    "convert",
    "doctor",
    "evaluate",
    "export",
    "inspect",
    "predict",
    "verify",
]

_JOBS = (
    *("bench", "compare", "convert", "doctor", "evaluate", "export", "inspect", "predict"),
    "verify",
)
"""A function each, in a module called like it."""

_HOMES = {
    "converters.errors": ("ConversionError", "InputError", "StorageError", "UnsafeInputError"),
    "converters.folder.folder": ("ConvertedFolder",),
    "converters.folder.images": ("UnreadableImagesError",),
    **{f"converters.jobs.{job}": (job,) for job in _JOBS},
    "converters.parity.compare.comparison": ("DifferentError",),
    "converters.parity.report": ("VerificationError",),
    "converters.progress": ("Progress", "Silent"),
    "converters.testing": ("assert_parity",),
    "regnet": ("__version__",),
}
"""Where each name comes from, imported when it is first asked for."""


def __getattr__(name: str) -> object:
    for home, names in _HOMES.items():
        if name in names:
            return getattr(import_module(home), name)
    raise AttributeError(f"module 'converters' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
