"""The real VISSL 0.1.6 as oracle: its own trunks, heads and FSDP, on the processor.

Run as ``python -m tests.oracles.vissl RANK WORLD FOLDER FLATTEN`` it is one process of a training
run that saves its shard; :func:`save_shards` starts them all.
"""

from __future__ import annotations

import os
import subprocess
import sys
import warnings
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest.mock import MagicMock, patch

import torch
from torch import nn

import tests.conftest  # noqa: F401 -- declares torchvision's operators in a process of its own
from tests.oracles.statistics import randomise

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # torchvision's deprecated video transforms, and others
    from fairscale.nn.data_parallel import auto_wrap_bn
    from vissl.config import AttrDict
    from vissl.models.base_ssl_model import BaseSSLMultiInputOutputModel
    from vissl.models.heads.linear_eval_mlp import FSDPLinearEvalMLP, LinearEvalMLP
    from vissl.models.heads.mlp import MLP, MLP_FSDP
    from vissl.models.heads.swav_prototypes_head import SwAVPrototypesHead
    from vissl.models.trunks.regnet import RegNet
    from vissl.models.trunks.regnet_fsdp import RegNetFSDP, RegNetV2
    from vissl.utils.checkpoint import (
        CheckpointLoader,
        CheckpointWriter,
        SlicedCheckpointLoader,
        get_checkpoint_model_state_dict,
    )

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

TINY: dict[str, Any] = {"depth": 4, "w_0": 16, "w_a": 8.0, "w_m": 1.6, "group_width": 8}
"""A network of three stages (16, 24, 40 channels) for tests that need no published one."""

WIDTH = 40
PARTS = [[1], [1], []]
"""Where :data:`TINY`'s stages are cut; its second has two blocks, in a part each."""

_WHOLE = "whole.torch"
"""What the processes of a training run start from."""


def settings(regnet: dict[str, Any], **fsdp: Any) -> Any:
    """What VISSL's trunks and heads read of its configuration."""
    return AttrDict(
        {
            "INPUT_TYPE": "rgb",
            "_MODEL_INIT_SEED": 0,
            "ACTIVATION_CHECKPOINTING": {
                "USE_ACTIVATION_CHECKPOINTING": False,
                "NUM_ACTIVATION_CHECKPOINTING_SPLITS": 2,
            },
            "TRUNK": {"NAME": "regnet", "REGNET": dict(regnet)},
            "HEAD": {
                "BATCHNORM_EPS": 1e-5,
                "BATCHNORM_MOMENTUM": 0.1,
                "PARAMS_MULTIPLIER": 1.0,
                "PARAMS": [],
            },
            "MULTI_INPUT_HEAD_MAPPING": [],
            "FEATURE_EVAL_SETTINGS": {"EVAL_MODE_ON": False},
            "WEIGHTS_INIT": {"STATE_DICT_KEY_NAME": "classy_state_dict"},
            "FSDP_CONFIG": {"AUTO_WRAP_THRESHOLD": 0, **fsdp},
        }
    )


class Pooled(nn.Module):
    """A trunk and the heads on its pooled output, run as `BaseSSLMultiInputOutputModel` does."""

    trunk: Any
    heads: Any

    def __init__(self, trunk: Any, heads: Sequence[Any] = ()) -> None:
        super().__init__()
        self.trunk = trunk
        self.heads = nn.ModuleList(heads)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """The first head's logits, or the trunk's last feature map."""
        if not self.heads:
            feature_map: torch.Tensor = self.trunk(images, ["res4"])[0]
            return feature_map
        logits: torch.Tensor = self.heads[0](self.trunk(images)[0])
        return logits


@contextmanager
def without_cuda() -> Iterator[None]:
    """Let VISSL and fairscale believe in a device that they never come to use."""
    with (
        patch.object(nn.Module, "cuda", lambda module, *_: module),
        patch.object(torch.cuda, "Stream", MagicMock()),
        patch.object(torch.cuda, "current_stream", MagicMock()),
        patch.object(torch.cuda, "current_device", lambda: torch.device("cpu")),
        patch.object(torch.cuda, "synchronize", MagicMock()),
        patch(
            "fairscale.nn.data_parallel.fully_sharded_data_parallel._get_default_cuda_device",
            lambda *_: torch.device("cpu"),
        ),
    ):
        yield


def in_parts(
    regnet: dict[str, Any] = TINY, parts: Sequence[Sequence[int]] = PARTS
) -> dict[str, Any]:
    """Settings of the second version's trunk, which appends to the lists of a stage's ends."""
    return regnet | {"stage_checkpoints": [list(ends) for ends in parts]}


def unfilled_trunk(
    version: int, regnet: dict[str, Any] = TINY, parts: Sequence[Sequence[int]] = PARTS
) -> nn.Module:
    """A trunk as VISSL initialises it; version 2 has its stages cut into parts."""
    kind, given = (RegNet, regnet) if version == 1 else (RegNetV2, in_parts(regnet, parts))
    with without_cuda():
        made: nn.Module = kind(settings(given), "regnet")
    return made.eval()


def trunk(version: int = 1, *, seed: int = 0) -> nn.Module:
    """A small trunk with weights like a trained one's, in evaluation mode."""
    made = unfilled_trunk(version)
    randomise(_FirstOutput(made), seed=seed)
    return made.eval()


class _FirstOutput(nn.Module):
    """A trunk that returns a tensor instead of a list, as calibration needs it."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        outputs: list[torch.Tensor] = self.inner(images)
        return outputs[0]


def mlp(*dims: int, **options: Any) -> nn.Module:
    """VISSL's head of linear layers."""
    made: nn.Module = MLP(settings(TINY), list(dims), **options)
    return made.eval()


def eval_mlp(width: int, *dims: int) -> Any:
    """VISSL's head for linear evaluation, its batch norm like a trained one's."""
    return _with_statistics(settings(TINY), width, list(dims)).eval()


def swav(width: int) -> nn.Module:
    """SwAV's head."""
    made: nn.Module = SwAVPrototypesHead(settings(TINY), [width, 24, 16], True, [30])
    return made.eval()


def _with_statistics(*arguments: Any, **options: Any) -> Any:
    """VISSL's class of that head, with a batch norm like a trained one's."""
    head = LinearEvalMLP(*arguments, **options)
    generator = torch.Generator().manual_seed(5)
    norm = head.channel_bn
    for tensor in (norm.weight.data, norm.running_var):
        tensor.uniform_(0.2, 3.0, generator=generator)
    for tensor in (norm.bias.data, norm.running_mean):
        tensor.normal_(0, 1, generator=generator)
    norm.num_batches_tracked.fill_(1234)
    return head


def consolidated(trunk_state: Any, heads: Any = None, **others: Any) -> dict[str, Any]:
    """What VISSL saves of a training run in one process, and its converters of any."""
    model = {"trunk": trunk_state, "heads": {} if heads is None else heads}
    return {
        "phase_idx": 99,
        "iteration": 124500,
        "loss": 0.1,
        "iteration_num": 124500,
        "train_phase_idx": 99,
        "type": "consolidated",
        "classy_state_dict": {"base_model": {"model": model, "meta": {"trunk": {}}}, **others},
    }


def network(regnet: dict[str, Any], classes: int) -> Pooled:
    """A trunk of the first version and a linear head, with weights like trained ones."""
    trunk = unfilled_trunk(1, regnet)
    with torch.no_grad():
        width = trunk(torch.zeros(1, 3, 32, 32))[0].shape[1]
    made = Pooled(trunk, [mlp(width, classes)])
    randomise(made)
    return made.eval()


def loaded(path: Path, regnet: dict[str, Any], *dims: int) -> Pooled:
    """Let VISSL build its whole model, and initialise and resume it from a file as it does.

    Initialising is lenient, so every tensor must be in the file and nothing else; resuming is
    strict for the trunk.

    Args:
        path: Of a consolidated checkpoint.
        regnet: The trunk's settings.
        dims: Of the head, a single ``mlp``; nothing if there is none.
    """
    config = AttrDict({"MODEL": settings(regnet)})
    config.MODEL.HEAD.PARAMS = [["mlp", {"dims": list(dims)}]] if dims else []
    model = BaseSSLMultiInputOutputModel(config.MODEL, AttrDict({}))
    checkpoint = CheckpointLoader.load_and_broadcast_init_weights(str(path), torch.device("cpu"))
    stored = get_checkpoint_model_state_dict(config, checkpoint["classy_state_dict"])
    assert list(stored) == list(model.state_dict())
    model.init_model_from_weights_params_file(config, checkpoint)
    initialised = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    model.set_classy_state(checkpoint["classy_state_dict"]["base_model"])
    assert all(torch.equal(initialised[name], t) for name, t in model.state_dict().items())
    return Pooled(model.trunk, model.heads).eval()


def save_slices(path: Path, weights: dict[str, torch.Tensor]) -> dict[str, str]:
    """Save each tensor in a file of its own as VISSL does; name to absolute path."""
    return {
        name: SlicedCheckpointLoader.save_slice(str(path), name, tensor)
        for name, tensor in weights.items()
    }


def save_shards(
    folder: Path, world: int, regnet: dict[str, Any], model: dict[str, Any], *, flatten: bool
) -> Path:
    """Shard a network under FSDP in as many processes, each of which saves its shard.

    Args:
        folder: Exists.
        world: Number of processes.
        regnet: The trunk's settings, of :func:`in_parts`.
        model: State dicts as VISSL nests them: ``trunk``, of the second version, and a list of
            ``heads``, each an :func:`mlp` or :func:`eval_mlp` of one layer.
        flatten: Whether FSDP joins the parameters of a block before it cuts them.

    Returns:
        The path of the list of shards.
    """
    whole = folder / _WHOLE
    torch.save({"regnet": regnet, "model": model}, whole)
    command = [sys.executable, "-m", "tests.oracles.vissl"]
    processes = [
        subprocess.Popen([*command, str(rank), str(world), str(folder), str(int(flatten))])
        for rank in range(world)
    ]
    try:
        assert [process.wait(timeout=300) for process in processes] == [0] * world
    finally:
        for process in processes:  # one waits for the others in vain when they have failed
            process.kill()
        whole.unlink()
    (path,) = folder.glob("model_final_checkpoint_phase0.torch")
    return path


def _save_shard(rank: int, world: int, folder: Path, *, flatten: bool) -> None:
    """Save this rank's shard of the network that :func:`save_shards` was given."""
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{folder / 'store'}", rank=rank, world_size=world
    )
    given = torch.load(folder / _WHOLE, mmap=True, weights_only=True)
    wrapping = {"flatten_parameters": flatten, "mixed_precision": False}
    wrapped_trunk, heads = _sharded(settings(given["regnet"], **wrapping), given["model"])
    state = {
        "model": {
            "trunk": wrapped_trunk.local_state_dict(),
            "heads": [head.local_state_dict() for head in heads],
        },
        "meta": {
            "trunk": wrapped_trunk.local_metadata_dict(),
            "heads": [head.local_metadata_dict() for head in heads],
        },
    }
    writer = CheckpointWriter(str(folder), True, "phase", 0, "disk")
    writer.save_sharded_checkpoint({"classy_state_dict": {"base_model": state}}, rank, world)


def _sharded(config: Any, model: dict[str, Any]) -> tuple[Any, list[Any]]:
    """VISSL's trunk and heads under FSDP, each piece filled before it is cut.

    FSDP cuts a block as soon as VISSL has made it, so no process ever holds the whole network. The
    wrapping of its batch norms comes just before, and gets a piece with all of its weights.
    """
    weights = chain(*(state.items() for state in (model["trunk"], *model["heads"])))

    def fill_and_wrap(piece: nn.Module, **options: Any) -> nn.Module:
        for name, tensor in piece.state_dict().items():
            full_name, value = next(weights)
            assert full_name.endswith(name)
            tensor.copy_(value)
        wrapped: nn.Module = auto_wrap_bn(piece, **options)
        return wrapped

    with without_cuda(), patch("vissl.utils.fsdp_utils.fairscale_auto_wrap_bn", fill_and_wrap):
        wrapped_trunk = RegNetFSDP(config, "regnet")
        heads = [_sharded_head(config, state) for state in model["heads"]]
    assert not list(weights)
    return wrapped_trunk, heads


def _sharded_head(config: Any, state: dict[str, torch.Tensor]) -> Any:
    """The head that has such weights."""
    if "channel_bn.weight" in state:
        classes, width = state["clf.clf.0.weight"].shape
        return FSDPLinearEvalMLP(config, width, [width, classes])
    classes, width = state["clf.0.weight"].shape
    return MLP_FSDP(config, [width, classes])


if __name__ == "__main__":
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    torch.set_num_threads(1)
    given_rank, given_world, given_folder, given_flatten = sys.argv[1:]
    _save_shard(
        int(given_rank),
        int(given_world),
        Path(given_folder),
        flatten=bool(int(given_flatten)),
    )
