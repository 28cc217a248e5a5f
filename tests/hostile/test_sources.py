"""52 to 55: files with a known name, configurations with a plan, cards, and the same bytes."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from converters.families.manifest import manifest
from tests.converters.cli.running import regnet
from tests.converters.demo import CHECKPOINT, snapshot

if TYPE_CHECKING:
    from pathlib import Path

    import torch

    from tests.hostile.victim import Victim


def test_52_other_bytes_under_the_name_of_a_release(victim: Victim) -> None:
    known = next(p for p in manifest() if p.url and p.sha256)
    name = str(known.url).rpartition("/")[2]
    shutil.copy(CHECKPOINT, name)
    victim.refused(2, "convert", name, "out", "-q")


CONFIGS: tuple[tuple[int, dict[str, Any]], ...] = (
    (3, {"auto_map": {"AutoModel": "evil/repo--modeling.Evil"}}),
    (2, {"depths": [10**9] * 4}),
    (2, {"hidden_sizes": [10**15] * 4}),
    (2, {"id2label": None, "label2id": None, "num_labels": 10**12}),
)


def test_53_a_configuration_that_asks_for_code_or_for_all_memory(
    victim: Victim, proven: Path
) -> None:
    folder = victim.folder / "theirs"
    folder.mkdir()
    shutil.copy(proven / "model.safetensors", folder)
    config = json.loads((proven / "config.json").read_text())
    for status, changes in CONFIGS:
        (folder / "config.json").write_text(json.dumps(config | changes))
        victim.refused(status, "convert", "theirs", "out", "-q")
    (folder / "config.json").write_text('{"a":' * 100_000)
    victim.refused(2, "convert", "theirs", "out", "-q")


def test_54_text_that_would_break_out_of_the_model_card(
    victim: Victim, state: dict[str, torch.Tensor]
) -> None:
    import torch

    evil = "x\n---\nlicense: mit\n---\n# Owned <script>alert(1)</script> | pass |"
    torch.save({evil: state}, "model.pyth")
    card = (victim.converted() / "README.md").read_text(encoding="utf-8")
    front_matter = yaml.safe_load(card.split("---\n")[1])
    assert "license" not in front_matter
    assert card.count("---\n") == 2
    assert "<script>" not in card
    assert "\n# Owned" not in card


@pytest.mark.filterwarnings("default")
def test_55_other_locales_zones_seeds_and_threads_give_the_same_bytes(
    victim: Victim, tmp_path: Path
) -> None:
    worlds = (
        {"LC_ALL": "C", "TZ": "UTC", "PYTHONHASHSEED": "0", "OMP_NUM_THREADS": "1"},
        {"LC_ALL": "C.UTF-8", "TZ": "Asia/Tokyo", "PYTHONHASHSEED": "7", "OMP_NUM_THREADS": "2"},
    )
    made = []
    for world in worlds:
        out = tmp_path / world["TZ"].replace("/", "")
        finished = regnet("convert", CHECKPOINT, out, "-q", cwd=tmp_path, env=world)
        assert finished.status == 0, finished.err
        made.append(snapshot(out))
    assert made[0] == made[1]
    victim.note("0: the same bytes")
