"""What Keras would run of the description of a network; the names are those of real attacks."""

from __future__ import annotations

import json
from typing import Any

import pytest

from converters.checkpoint.keras_config import require_no_code
from converters.errors import InputError, UnsafeInputError


def model(*layers: Any) -> str:
    return json.dumps({"class_name": "Functional", "config": {"name": "n", "layers": [*layers]}})


def function(module: str, name: str) -> dict[str, Any]:
    """A function as Keras 3 writes it."""
    said = {"module": module, "class_name": "function", "config": name}
    return {"class_name": "Dense", "config": {"activation": said | {"registered_name": name}}}


HONEST = {
    "layers": {"module": "keras.layers", "class_name": "Conv2D", "config": {"name": "os"}},
    "a function of Keras": function("builtins", "relu"),
    "a metric": function("builtins", "mean_squared_error"),
    "a class of a package": {"module": "kimm._src.models.regnet", "class_name": "RegNetY200MF"},
    "an operation": {"class_name": "TFOpLambda", "config": {"function": "math.multiply"}},
    "a vocabulary": {"class_name": "StringLookup", "config": {"vocabulary": ["a", "b"]}},
    "nothing": {"module": None, "config": None, "vocabulary": None},
}
UNSAFE = {
    "a Lambda": ({"class_name": "Lambda", "config": {"function": ["4wEA"]}}, "has a layer Lambda"),
    "a lambda of Keras 3": ({"class_name": "__lambda__", "config": {"code": "4w"}}, "as bytecode"),
    "a lambda of Keras 2": ({"function_type": "lambda"}, "has a function as bytecode"),
    "the shape of its output": ({"output_shape_function_type": "lambda"}, "as bytecode"),
    "a function of the system": (function("os", "system"), "names os.system, which Keras would"),
    "a built-in": (function("builtins", "exec"), "names builtins.exec"),
    "a download": (function("keras.utils", "get_file"), "names keras.utils.get_file"),
    "the end of safe mode": (
        function("keras.config", "enable_unsafe_deserialization"),
        "names keras.config.enable_unsafe_deserialization",
    ),
    "a file": ({"config": {"vocabulary": "/etc/passwd"}}, "has Keras open the file /etc/passwd"),
}


@pytest.mark.parametrize("layer", HONEST.values(), ids=HONEST)
def test_what_builds_layers_is_harmless(layer: Any) -> None:
    require_no_code("net.h5", model(layer, [layer]))


@pytest.mark.parametrize(("layer", "expected"), UNSAFE.values(), ids=UNSAFE)
def test_what_runs_code_is_named(layer: Any, expected: str) -> None:
    with pytest.raises(UnsafeInputError, match=expected):
        require_no_code("net.h5, model_config", model({"deep": [[layer]]}))


def test_a_key_that_occurs_twice_hides_nothing() -> None:
    with pytest.raises(UnsafeInputError, match="Lambda"):
        require_no_code("net.h5", '{"class_name": "Lambda", "class_name": "Dense"}')


@pytest.mark.parametrize("text", ["", "{", b"\xff", "[" * 100_000])
def test_what_is_no_json_is_refused(text: str | bytes) -> None:
    with pytest.raises(InputError, match="cannot be read as JSON, so nobody knows what Keras"):
        require_no_code("net.h5", text)
