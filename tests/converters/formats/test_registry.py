"""What the list of formats names is there, and no two formats write the same file."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter

import pytest

from converters.formats.format import SPELLED, ExportOptions, Format
from converters.formats.registry import FORMATS, OTHER_RUNTIMES, artefact_names
from regnet.files.late import imported


@pytest.mark.parametrize("kind", FORMATS.values(), ids=list(FORMATS))
def test_what_judges_a_format_is_where_it_says(kind: Format) -> None:
    for place in (kind.certificate, kind.intermediates):
        if place is not None:
            assert place.startswith("converters.parity.")
            assert callable(imported(place))


def test_formats_write_files_of_their_own_and_take_options_that_there_are() -> None:
    files = Counter(name for kind in FORMATS.values() for name in kind.files)
    assert set(files.values()) == {1}
    assert set(files) == artefact_names()
    assert SPELLED.keys() == {option for kind in FORMATS.values() for option in kind.options}
    assert not ExportOptions().given
    assert not set(OTHER_RUNTIMES) & {"torch", *FORMATS}
    assert all(kind.may_equal is None or kind.may_equal in FORMATS for kind in FORMATS.values())


def test_the_list_of_formats_imports_none_of_their_libraries() -> None:
    code = (
        "import sys, converters.formats.registry; "
        "print(sorted({'torch', 'numpy', 'onnx', 'onnxruntime', 'openvino', 'executorch', "
        "'ncnn', 'ai_edge_litert'} & sys.modules.keys()))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout == "[]\n"
