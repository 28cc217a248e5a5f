"""42 to 44: ONNX files too large, that read elsewhere, or of the future."""

from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING

import onnx

from converters.formats.onnx import export as exporter

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

    from tests.hostile.victim import Victim


def test_42_a_graph_beyond_protobuf_s_limit(
    victim: Victim, saved: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exporter, "SELF_CONTAINED_LIMIT", 50_000)
    shutil.copy(saved, "model.pyth")
    out = victim.converted("model.pyth", "--format", "onnx")
    model = onnx.load(out / "model.onnx", load_external_data=False)
    places = {
        e.value for t in model.graph.initializer for e in t.external_data if e.key == "location"
    }
    assert places == {"model.safetensors"}


def relocate(path: Path, location: str) -> None:
    """Let every tensor of an ONNX file that lies outside lie elsewhere."""
    model = onnx.load(path, load_external_data=False)
    for tensor in model.graph.initializer:
        for stated in tensor.external_data:
            if stated.key == "location":
                stated.value = location
    path.write_bytes(model.SerializeToString())


def test_43_external_data_that_lies_outside_is_a_link_or_is_short(
    victim: Victim, proven: Path
) -> None:
    outside = victim.folder / "outside"
    shutil.copy(proven / "model.safetensors", outside)
    for location in ("../outside", "/etc/hostname", "C:\\x"):
        out = shutil.copytree(proven, victim.folder / "out", dirs_exist_ok=True)
        relocate(out / "model.onnx", location)
        victim.refused(3, "verify", "out", "-q")
    shutil.copy(proven / "model.onnx", out / "model.onnx")
    (out / "model.safetensors").unlink()
    (out / "model.safetensors").symlink_to("../outside")
    victim.broken("verify", "out", "-q")
    victim.said[-1] = "1: the link is refused, in the runtime's own words"
    (out / "model.safetensors").unlink()
    shutil.copy(proven / "model.safetensors", out)
    os.truncate(out / "model.safetensors", 50_000)
    victim.broken("verify", "out", "-q")


def test_44_an_opset_and_a_format_that_no_runtime_reads_yet(victim: Victim, proven: Path) -> None:
    out = shutil.copytree(proven, victim.folder / "out")
    for version in ("opset", "IR"):
        model = onnx.load(proven / "model.onnx", load_external_data=False)
        if version == "opset":
            model.opset_import[0].version = 99
        else:
            model.ir_version = 99
        (out / "model.onnx").write_bytes(model.SerializeToString())
        victim.refused(2, "verify", "out", "-q")
