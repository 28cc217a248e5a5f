"""Runs a batch as a user does, and holds every outcome to what it must be."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryFile
from typing import TYPE_CHECKING, Any

from tests.converters.cli.running import BIN
from tests.converters.jobs.batch.files import converted_mark

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.converters.jobs.batch.files import Made


@dataclass
class Ran:
    """What a batch left, and how much memory its parent process had while folders appeared.

    Attributes:
        status: Exit status.
        record: What ``--json`` printed.
        err: What stderr got.
        resident: Number of folders to MB of the parent then.
    """

    status: int
    record: dict[str, Any]
    err: str
    resident: dict[int, float] = field(default_factory=dict)


def run_batch(made: Sequence[Made], out: Path, *options: str) -> Ran:
    """Convert a batch with `regnet convert --out-dir`."""
    command = [BIN / "regnet", "convert", *(each.path for each in made)]
    resident = {}
    with TemporaryFile("w+") as printed, TemporaryFile("w+") as said:
        process = subprocess.Popen(
            [*command, "--out-dir", out, "--json", *options], stdout=printed, stderr=said
        )
        while process.poll() is None:
            folders = len(list(out.iterdir())) if out.is_dir() else 0
            megabytes = _megabytes(process.pid)
            if megabytes is not None:
                resident[folders] = megabytes
            time.sleep(0.2)
        printed.seek(0)
        said.seek(0)
        return Ran(process.returncode, json.load(printed), said.read(), resident)


def require_right(made: Sequence[Made], ran: Ran, out: Path, result: str = "converted") -> None:
    """Check the outcome of each checkpoint, what is in the folders, and the exit status."""
    outcomes = {outcome["checkpoint"]: outcome for outcome in ran.record["checkpoints"]}
    assert list(outcomes) == [str(each.path) for each in made]
    sentences = ran.err.splitlines()
    for each in made:
        outcome = outcomes[str(each.path)]
        assert outcome["status"] == each.status, outcome
        if each.status:
            assert outcome["result"] == "failed"
            assert re.search(each.reason, outcome["error"]), outcome
            assert outcome["error"] in sentences
        else:
            assert (outcome["result"], outcome["error"]) == (result, None)
            assert converted_mark(out / outcome["folder"]) == each.mark
    good = {outcome["folder"] for outcome in outcomes.values() if outcome["status"] == 0}
    assert {path.name for path in out.iterdir()} == good
    assert ran.status == ran.record["status"] == max(each.status for each in made)
    bad = len(made) - len(good)
    assert len(sentences) == (bad + 1 if bad else 0)
    assert sum(ran.record["counts"].values()) == len(made)


def _megabytes(process: int) -> float | None:
    """Resident memory; None of a process that has ended and was not waited for yet."""
    if sys.platform != "linux":
        return None
    status = Path(f"/proc/{process}/status").read_text()
    found = re.search(r"VmRSS:\s+(\d+) kB", status)
    return int(found[1]) / 1000 if found else None
