"""Folders that torch.distributed.checkpoint wrote, of one process and of several.

``python -m tests.oracles.distributed FOLDER PROCESSES`` runs the latter, which talk by gloo.
"""

from __future__ import annotations

import pickle
import subprocess
import sys
import warnings
from dataclasses import dataclass, field
from itertools import product
from typing import TYPE_CHECKING, Any

import torch

import tests.conftest  # noqa: F401 -- declares what torchvision's wheel lacks

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

SEED = 3
WHOLE = torch.arange(5.0 * 6 * 3 * 3).reshape(5, 6, 3, 3)
"""What the processes cut in every way."""


def save(folder: Path, content: dict[str, Any]) -> Path:
    """Save as a single process does."""
    import torch.distributed.checkpoint

    dcp: Any = torch.distributed.checkpoint
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that there is a single one
        dcp.save(content, checkpoint_id=folder, no_dist=True)
    return folder


def loaded(folder: Path, file: Path) -> Any:
    """What torch itself makes of a folder, by its own tool."""
    from torch.distributed.checkpoint.format_utils import dcp_to_torch_save

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        dcp_to_torch_save(folder, file)
    return torch.load(file, weights_only=False)


def save_by_processes(folder: Path, processes: int) -> None:
    """Have processes write ``network``, cut by FSDP, and ``cuts``, cut in every way."""
    module = [sys.executable, "-W", "ignore", "-m", "tests.oracles.distributed"]
    arguments = [str(folder), str(processes)]
    subprocess.run([*module, *arguments], check=True, timeout=300, capture_output=True)


@dataclass
class Written:
    """A folder made without processes, from torch's own classes, to be changed before it is saved.

    Attributes:
        metadata: What `.metadata` is to hold.
        content: Of `__0_0.distcp`.
    """

    metadata: Any
    content: bytearray = field(default_factory=bytearray)

    @classmethod
    def empty(cls) -> Written:
        """A checkpoint without entries."""
        from torch.distributed.checkpoint.metadata import Metadata

        return cls(Metadata({}, planner_data={}, storage_data={}))

    def add(self, name: str, whole: torch.Tensor, cuts: Sequence[Sequence[int]]) -> None:
        """Add a tensor, cut along each axis at some indices."""
        from torch.distributed.checkpoint import metadata as kinds

        bounds = [
            list(zip([0, *cut], [*cut, size], strict=True))
            for cut, size in zip(cuts, whole.shape, strict=True)
        ]
        chunks = []
        for cell in product(*bounds):
            corner = torch.Size([start for start, _ in cell])
            block = whole[tuple(slice(*bound) for bound in cell)].clone()
            self.put(name, corner, block)
            chunks.append(kinds.ChunkStorageMetadata(corner, block.shape))
        properties = kinds.TensorProperties.create_from_tensor(whole)
        self.metadata.state_dict_metadata[name] = kinds.TensorStorageMetadata(
            properties, whole.shape, chunks
        )

    def put(self, name: str, corner: torch.Size | None, value: object) -> None:
        """Add the bytes of a piece."""
        import io

        from torch.distributed.checkpoint.filesystem import _StorageInfo
        from torch.distributed.checkpoint.metadata import MetadataIndex

        buffer = io.BytesIO()
        torch.save(value, buffer)
        info = _StorageInfo("__0_0.distcp", len(self.content), len(buffer.getvalue()))
        self.metadata.storage_data[MetadataIndex(name, corner)] = info
        self.content += buffer.getvalue()

    def save(self, folder: Path) -> Path:
        """Write the folder."""
        folder.mkdir(exist_ok=True)
        (folder / "__0_0.distcp").write_bytes(self.content)
        (folder / ".metadata").write_bytes(pickle.dumps(self.metadata))
        return folder


def _process(rank: int, folder: str, processes: int) -> None:
    import torch.distributed as dist
    import torch.distributed.checkpoint
    from torch.distributed.checkpoint.state_dict import get_model_state_dict
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard
    from torch.distributed.tensor import distribute_tensor

    from tests.oracles.torchvision import build

    dcp: Any = torch.distributed.checkpoint
    torch.set_num_threads(1)
    method = f"file://{folder}/rendezvous"
    dist.init_process_group("gloo", init_method=method, rank=rank, world_size=processes)
    mesh = init_device_mesh("cpu", (processes,))
    network: Any = fully_shard(build(seed=SEED), mesh=mesh)
    state = get_model_state_dict(network)
    moments = {f"exp_avg.{name}": value for name, value in state.items()}
    content = {"model": state, "optimizer": moments, "epoch": 7}
    dcp.save(content, checkpoint_id=f"{folder}/network")
    cuts = {
        name: distribute_tensor(WHOLE, mesh, [placement])
        for name, placement in _placements().items()
    }
    dcp.save({"cuts": cuts}, checkpoint_id=f"{folder}/cuts")
    if rank == 0:
        torch.save(cuts, f"{folder}/part.pt")
    dist.destroy_process_group()


def _placements() -> dict[str, Any]:
    from torch.distributed.tensor import Replicate, Shard

    return {"rows": Shard(0), "columns": Shard(1), "kernels": Shard(3), "whole": Replicate()}


if __name__ == "__main__":
    starting: Any = torch.multiprocessing
    starting.start_processes(
        _process, (sys.argv[1], int(sys.argv[2])), nprocs=int(sys.argv[2]), start_method="fork"
    )
