"""58 and 59: folders of torch.distributed.checkpoint."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from tests.oracles.distributed import Written

if TYPE_CHECKING:
    from tests.hostile.victim import Victim

CONVERT = ("convert", "folder", "out", "-q")
INSPECT = ("inspect", "folder", "--security", "-q")


class Call:
    """Calls a function in whoever unpickles it."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, ("touch ran",)


def written() -> Written:
    """A tensor of two pieces."""
    found = Written.empty()
    found.add("rows", torch.arange(12.0).reshape(4, 3), ([2], []))
    return found


def test_58_a_distributed_checkpoint_that_calls_os_system(victim: Victim) -> None:
    from torch.distributed.checkpoint.metadata import BytesStorageMetadata

    described, value = written(), written()
    described.metadata.planner_data = {"rows": Call()}
    value.metadata.state_dict_metadata["optim.lr"] = BytesStorageMetadata()
    value.put("optim.lr", None, Call())
    for evil in (described, value):
        evil.save(victim.folder / "folder")
        victim.refused(3, *CONVERT)
        victim.refused(3, *INSPECT)
    assert not Path("ran").exists()


def test_59_pieces_that_overlap_lie_outside_or_are_not_there(victim: Victim) -> None:
    from torch.distributed.checkpoint.metadata import MetadataIndex

    folder = victim.folder / "folder"

    def described(found: Written) -> Any:
        return found.metadata.state_dict_metadata["rows"]

    def info(found: Written, start: int) -> Any:
        return found.metadata.storage_data[MetadataIndex("rows", torch.Size([start, 0]))]

    overlapping, outside, gap, beyond = written(), written(), written(), written()
    described(overlapping).chunks[1].sizes = torch.Size([2, 3])
    described(overlapping).chunks[0].sizes = torch.Size([3, 3])
    described(outside).size = torch.Size([3, 3])
    described(gap).size = torch.Size([2**40, 3])
    info(beyond, 2).length = 2**62
    shared, elsewhere = written(), written()
    info(shared, 2).offset -= 8
    info(elsewhere, 0).relative_path = "../../etc/passwd"
    repeated = written()
    many = {f"t{number}": described(repeated) for number in range(1000)}
    repeated.metadata.state_dict_metadata |= many
    for broken in (overlapping, outside, gap, beyond, shared, elsewhere, repeated):
        broken.save(folder)
        victim.refused(2, *CONVERT)
    cut = written().save(folder) / "__0_0.distcp"
    os.truncate(cut, cut.stat().st_size - 1)
    victim.refused(2, *CONVERT)
    victim.refused(2, "convert", "folder/__0_0.distcp", "out", "-q")
    cut.unlink()
    victim.refused(2, *CONVERT)
