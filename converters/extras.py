"""Packages that only some formats need, and the sentence for whoever lacks one."""

from __future__ import annotations

from importlib.metadata import version
from importlib.util import find_spec

from converters.errors import StorageError


def require_extra(
    package: str, extra: str, need: str = "this format is written and run with it"
) -> str:
    """Make sure of a package before it is imported.

    Args:
        package: What is imported.
        extra: The extra of this project that brings it.
        need: What for, as a clause.

    Returns:
        Its version, without what follows a plus or minus sign, which names the build.

    Raises:
        StorageError: If it is not installed.
    """
    if find_spec(package) is None:
        raise StorageError(
            f"{package} is not installed, and {need}; install it "
            f'with `pip install "regnet-converters[{extra}]"`.'
        )
    return version(package).partition("+")[0].partition("-")[0]
