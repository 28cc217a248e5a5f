"""A package that is not installed ends a command in one sentence, with nothing left behind."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.converters.cli.running import assert_one_sentence, regnet, without_torch
from tests.converters.demo import CHECKPOINT, snapshot

if TYPE_CHECKING:
    from pathlib import Path

VERIFIED = (
    "torch is not installed, and artefacts are verified with it; install it with "
    "`pip install torch`, or leave that out with --no-verify."
)
NEEDED = "torch is not installed, and this command needs it; install it with `pip install torch`."


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("export", "out"), VERIFIED),
        (("convert", str(CHECKPOINT), "other"), VERIFIED),
        (("export", "out", "--format", "pt2", "--no-verify"), NEEDED),
        (("verify", "out"), NEEDED),
    ],
    ids=["export", "convert", "export pt2", "verify"],
)
def test_torch(arguments: tuple[str, ...], sentence: str, folder: Path, tmp_path: Path) -> None:
    folder.rename(tmp_path / "out")
    blocked = without_torch(tmp_path / "none")
    before = snapshot(tmp_path)

    finished = regnet(*arguments, "-q", cwd=tmp_path, env=blocked)

    assert assert_one_sentence(finished, 4) == sentence
    assert snapshot(tmp_path) == before


def test_artefacts_that_are_not_verified_need_no_torch(folder: Path, tmp_path: Path) -> None:
    arguments = ("export", folder, "--format", "onnx", "--no-verify", "-q")
    finished = regnet(*arguments, cwd=tmp_path, env=without_torch(tmp_path / "none"))
    assert (finished.status, finished.err) == (0, "")
