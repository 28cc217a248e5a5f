"""Results that appear whole or not at all, whatever happens while they are made."""

from converters.staging.staged import (
    require_place,
    require_space,
    staged_file,
    staged_folder,
    staged_update,
    storage_errors,
    working_folder,
)
from converters.staging.unfinished import partial_name

__all__ = [
    "partial_name",
    "require_place",
    "require_space",
    "staged_file",
    "staged_folder",
    "staged_update",
    "storage_errors",
    "working_folder",
]
