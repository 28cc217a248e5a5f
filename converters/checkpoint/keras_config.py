"""What a Keras file says of its network, and whether Keras would run code for it.

``load_model`` builds the layers that a text in JSON describes. A ``Lambda`` among them brings its
function as bytecode, and of an object of any module the module is imported. Versions differ in what
of it they run, by ``safe_mode`` and for HDF5; what one of them runs is refused. Source: Keras 2.15
and 3.15, ``saving/serialization_lib.py`` (``deserialize_keras_object``), ``layers/core/
lambda_layer.py`` and ``layers/preprocessing/index_lookup.py``.
"""

from __future__ import annotations

import builtins
import json

from converters.checkpoint.pickle_machine import ADVICE
from converters.checkpoint.refused_globals import runs_code
from converters.errors import InputError, UnsafeInputError, printable

MAX_CONFIG = 1 << 24
"""Bytes; those of the largest RegNet are two millions."""

_FUNCTION_TYPE = "function_type"  # of Keras 2; also with "output_shape_" or "mask_" before it
_BYTECODE = ("lambda", "__lambda__")
_NAMES = ("config", "registered_name", "class_name")

_OF_KERAS = frozenset({"get_file", "enable_unsafe_deserialization"})
"""Keras' own functions that files have been made with to do harm."""

Members = tuple[tuple[str, object], ...]
"""Of an object in JSON, in which keys may occur twice."""


def require_no_code(where: str, text: str | bytes) -> None:
    """Check the description of a network.

    Args:
        where: What messages call it, such as ``"net.h5, model_config"``.
        text: The JSON.

    Raises:
        UnsafeInputError: Keras would run bytecode that it brings, or a function that runs code.
        InputError: It is no JSON, so that nobody knows.
    """
    try:
        decoded = text if isinstance(text, str) else text.decode()  # and of no other encoding
        pending: list[object] = [json.loads(decoded, object_pairs_hook=tuple)]
    except (ValueError, RecursionError) as error:
        raise InputError(
            f"{where}: cannot be read as JSON, so nobody knows what Keras does with it; save the "
            "network's weights alone."
        ) from error
    while pending:
        value = pending.pop()
        if isinstance(value, tuple):
            _require_plain(where, value)
            pending.extend(member for _, member in value)
        elif isinstance(value, list):
            pending.extend(value)


def _require_plain(where: str, members: Members) -> None:
    """Check one object."""
    texts = [(key, value) for key, value in members if isinstance(value, str)]
    for key, value in texts:
        if key == "class_name" and value == "Lambda":
            raise _unsafe(where, "has a layer Lambda, whose function Keras would run")
        if (key == "class_name" or key.endswith(_FUNCTION_TYPE)) and value in _BYTECODE:
            raise _unsafe(where, "has a function as bytecode, which Keras would run")
        if key == "vocabulary":
            raise _unsafe(where, f"has Keras open the file {printable(value)}")
    for module in (value for key, value in texts if key == "module"):
        for name in (value for kind in _NAMES for key, value in texts if key == kind):
            if _runs_code(module, name):
                what = printable(f"{module}.{name}")
                raise _unsafe(where, f"names {what}, which Keras would call")


def _runs_code(module: str, name: str) -> bool:
    if module == "builtins":  # which stands for Keras' own, too
        return hasattr(builtins, name) and runs_code(module, name)
    return name in _OF_KERAS or runs_code(module, name)


def _unsafe(where: str, what: str) -> UnsafeInputError:
    return UnsafeInputError(f"{where}: {what}; nothing was run, {ADVICE}.")
