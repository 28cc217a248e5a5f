"""What bears our mark is held to what is written today, if it is of today's revision."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from converters.formats.format import DEFAULTS
from converters.formats.registry import FORMATS
from converters.formats.torchscript import CODE, MARK, REVISION
from converters.parity.contents.tensors import certify
from converters.parity.contents.written import NOT_WRITTEN
from regnet import RegNetImageProcessor
from tests.converters.parity.contents.tampering import (
    ALL_FORMS,
    BLOCK,
    artefact,
    certificate,
    change_bytes,
    change_onnx,
    change_zip,
    kernel_name,
)
from tests.converters.parity.networks import Network

if TYPE_CHECKING:
    from pathlib import Path

    from onnx import ModelProto

    from converters.folder.folder import ConvertedFolder

EARLIER = "0"
SUM = f"{BLOCK}.add"


def spell_differently(path: Path) -> None:
    """Change how a network is written, and nothing that it computes."""

    def exchange_summands(model: ModelProto) -> None:
        (node,) = (node for node in model.graph.node if node.name == SUM)
        node.input[:] = reversed(node.input)

    def spell_out_epsilon(entries: dict[str, bytes]) -> None:
        code = f"regnet/{CODE}"
        assert b"1e-05" in entries[code]
        entries[code] = entries[code].replace(b"1e-05", b"0.00001")

    if path.suffix == ".onnx":
        change_onnx(path, exchange_summands)
    else:
        change_zip(path, spell_out_epsilon)


@pytest.mark.parametrize("kind", ["torchscript", "pt2"])
@pytest.mark.parametrize(
    ("key", "fault"),
    [
        ("id2label", "its metadata names other classes than config.json"),
        (
            "preprocessing",
            "its metadata states another preprocessing than preprocessor_config.json",
        ),
    ],
)
def test_what_an_archive_states_of_classes_and_images_is_held_to_the_folder(
    kind: str, key: str, fault: str, copy: ConvertedFolder
) -> None:
    RegNetImageProcessor().save_pretrained(copy.path)
    path = copy.path / FORMATS[kind].file_name
    FORMATS[kind].export(copy, path, DEFAULTS)
    assert not certify(copy, kind, path).wrong

    def change(entries: dict[str, bytes]) -> None:
        (name,) = (name for name in entries if name.endswith(f"/extra/{key}"))
        entries[name] = b'{"0": "other"}'

    change_zip(path, change)
    assert certify(copy, kind, path).wrong == (fault,)


def date_back(path: Path) -> None:
    """Mark an artefact as one of an earlier revision."""

    def date_back_model(model: ModelProto) -> None:
        model.producer_version = EARLIER

    def date_back_code(entries: dict[str, bytes]) -> None:
        code = f"regnet/{CODE}"
        earlier = MARK.replace(f"revision {REVISION}", f"revision {EARLIER}")
        entries[code] = entries[code].replace(MARK.encode(), earlier.encode())
        assert entries[code].startswith(earlier.encode())

    if path.suffix == ".onnx":
        change_onnx(path, date_back_model)
    else:
        change_zip(path, date_back_code)


@ALL_FORMS
def test_another_spelling_fails_in_this_revision_only(form: str, copy: ConvertedFolder) -> None:
    path, network = artefact(copy, form), Network.of(copy)
    spell_differently(path)
    (clause,) = certificate(copy, form).wrong
    assert clause.endswith(NOT_WRITTEN)
    assert not network.report(form, path).passed
    date_back(path)
    assert certificate(copy, form).wrong == ()
    assert network.report(form, path).failures == []


@pytest.mark.parametrize("form", ["self-contained", "torchscript"])
def test_a_flipped_bit_fails_in_any_revision(form: str, copy: ConvertedFolder) -> None:
    path = artefact(copy, form)
    date_back(path)

    def flip(data: bytearray) -> None:
        data[0] ^= 1

    change_bytes(path, kernel_name(form), flip)
    (clause,) = certificate(copy, form).wrong
    assert clause.startswith(kernel_name(form))
