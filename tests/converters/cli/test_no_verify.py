"""`regnet convert --no-verify`: published at once, says so everywhere, and verifies later."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from tests.converters.cli.running import regnet, run, without_torch
from tests.converters.demo import CHECKPOINT, FILES, LABELS, WARNED, snapshot

if TYPE_CHECKING:
    from pathlib import Path


def test_it_converts_without_torch_and_says_that_nothing_was_verified(tmp_path: Path) -> None:
    blocked = without_torch(tmp_path / "blocked")

    done = run("convert-pycls", CHECKPOINT, "out", "--no-verify", cwd=tmp_path, env=blocked)

    assert (done.status, done.err) == (0, WARNED)
    assert done.out.endswith("out is not verified; run: regnet verify out\n")
    assert "pass" not in done.out
    files = snapshot(tmp_path / "out")
    assert set(FILES) - set(files) == {"golden.safetensors"}
    record = json.loads(files["conversion.json"] or b"")
    assert record["verification"] == {"passed": None, "changed_files": [], "verdicts": []}
    assert b"Not verified: converted with `--no-verify`." in (files["README.md"] or b"")


def test_what_was_not_verified_is_what_would_have_been(folder: Path, tmp_path: Path) -> None:
    """All but the report, the card and the golden vectors."""
    regnet("convert", CHECKPOINT, "out", "--no-verify", "--labels", LABELS, cwd=tmp_path)

    for name in ("model.safetensors", "model.torchscript.pt", "preprocessor_config.json"):
        assert (tmp_path / "out" / name).read_bytes() == (folder / name).read_bytes(), name


def test_verify_makes_its_own_inputs_and_finds_what_was_changed(tmp_path: Path) -> None:
    regnet("convert", CHECKPOINT, "out", "--no-verify", cwd=tmp_path)

    done = regnet("verify", "out", cwd=tmp_path)
    assert (done.status, done.err) == (0, "")
    assert done.out.count(" pass ") == 3

    weights = tmp_path / "out" / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[len(content) // 2] ^= 1
    weights.write_bytes(content)
    done = regnet("verify", "out", cwd=tmp_path)
    assert done.status == 1
    assert "model.safetensors was changed" in done.err


def test_another_frameworks_file_is_still_read_back(tmp_path: Path) -> None:
    done = regnet(
        *("convert", CHECKPOINT, "net.pth", "--to", "torchvision", "--no-verify", "--json"),
        cwd=tmp_path,
        env=without_torch(tmp_path / "blocked"),
    )

    assert (done.status, done.err) == (0, WARNED)
    assert json.loads(done.out) == {
        "schema": 1,
        "path": "net.pth",
        "framework": "torchvision",
        "tensors": 208,
        "transform_not_said": "short side to 48, centre crop 48, bilinear",
    }
