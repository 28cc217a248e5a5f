"""`save_pretrained` and `from_pretrained` on a local folder, in transformers' files and names."""

from __future__ import annotations

import gc
import warnings
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Self

import torch
from torch.overrides import TorchFunctionMode

from regnet.architecture import BASE_PREFIX, CLASSIFIER
from regnet.config import RegNetConfig
from regnet.mapped_file import map_tensors
from regnet.safetensors_file import (
    INDEX_NAME,
    SHARD_PATTERN,
    TORCH_TO_SAFETENSORS,
    WEIGHTS_NAME,
    TensorSpec,
    index_json,
    parse_size,
    plan_shards,
    write_file,
)
from regnet.weight_files import require_indexed, shards_of, weight_files

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from torch import Tensor, nn

    _Base = nn.Module
else:
    _Base = object

_FACTORIES = frozenset({torch.empty, torch.zeros, torch.ones, torch.tensor})
"""With which torch's modules make their parameters and buffers."""

_FILLS = frozenset({torch.Tensor.zero_, torch.Tensor.fill_})
"""With which batch norms reset their statistics; the rest is in `torch.nn.init`."""


class PretrainedMixin(_Base):
    """Saving to and loading from a folder, for a module with a ``config``."""

    config: RegNetConfig

    def save_pretrained(self, folder: str | Path, max_shard_size: str | int | None = None) -> None:
        """Write ``config.json`` and the weights, in place of the weights of an earlier save.

        Args:
            folder: Created if missing.
            max_shard_size: For example ``"5GB"``; more than that is split over several files with
                an index. None for one file.

        Raises:
            ValueError: If ``max_shard_size`` is no size.
            OSError: If a file cannot be written.
        """
        folder = Path(folder)
        limit = None if max_shard_size is None else parse_size(max_shard_size)
        dtype = str(next(self.parameters()).dtype).removeprefix("torch.")
        fields = self.config.to_dict() | {"architectures": [type(self).__name__], "dtype": dtype}
        folder.mkdir(parents=True, exist_ok=True)
        # Written beside and moved in: this model may be mapped from the files that it replaces,
        # and truncating a mapped file kills the process that reads it.
        with TemporaryDirectory(dir=folder, prefix=".saving-") as name:
            staging = Path(name)
            RegNetConfig.from_dict(fields).save_pretrained(staging)
            _write_weights(staging, self.state_dict(), limit)
            for pattern in (WEIGHTS_NAME, INDEX_NAME, SHARD_PATTERN):
                for stale in folder.glob(pattern):
                    stale.unlink()
            for path in staging.iterdir():
                path.replace(folder / path.name)

    @classmethod
    def from_pretrained(
        cls,
        folder: str | Path,
        config: RegNetConfig | None = None,
        *,
        dtype: torch.dtype | None = None,
        ignore_mismatched_sizes: bool = False,
        **overrides: Any,
    ) -> Self:
        """Load a model from a folder, in evaluation mode.

        Weights are mapped from the file, not read: pages come in as they are used. A classifier's
        folder loads as `RegNetModel` and a trunk's folder as `RegNetForImageClassification`; what
        the file lacks is initialised, with a warning.

        Args:
            folder: With ``config.json`` and ``model.safetensors``, or shards and their index.
            config: Instead of the folder's.
            dtype: Convert floating-point weights to this; by default they stay as stored.
            ignore_mismatched_sizes: Initialise tensors whose shape differs instead of refusing.
            **overrides: Fields of the configuration, for example ``num_labels=10``.

        Raises:
            FileNotFoundError: If a file is missing.
            ValueError: If the configuration, a file or a tensor's shape does not fit.
        """
        folder = Path(folder)
        with _no_garbage():
            config = config or RegNetConfig.from_pretrained(folder, **overrides)
            return cls._load(folder, config, dtype, ignore_mismatched_sizes)

    @classmethod
    def _load(
        cls,
        folder: Path,
        config: RegNetConfig,
        dtype: torch.dtype | None,
        ignore_mismatched_sizes: bool,
    ) -> Self:
        build: Callable[[RegNetConfig], Self] = cls
        with _Blueprint():
            model = build(config)
        expected = {name: tensor.shape for name, tensor in model.state_dict().items()}
        state, unexpected = _match_names(load_tensors(folder), expected)
        mismatched = [name for name in state if state[name].shape != expected[name]]
        if mismatched and not ignore_mismatched_sizes:
            name = mismatched[0]
            raise ValueError(
                f"{folder}: {name} has shape {tuple(state[name].shape)} where the configuration "
                f"asks for {tuple(expected[name])} ({len(mismatched)} tensors differ); correct the "
                "configuration or pass ignore_mismatched_sizes=True."
            )
        state = {name: tensor for name, tensor in state.items() if name not in mismatched}
        missing = [name for name in expected if name not in state]
        _warn(folder, missing, unexpected)
        if missing:
            model = build(config)
            dtype = dtype or next((t.dtype for t in state.values() if t.is_floating_point()), None)
        model.load_state_dict(state, strict=not missing, assign=True)
        return (model if dtype is None else model.to(dtype)).eval()


class _Blueprint(TorchFunctionMode):
    """Modules built here have parameters without memory, and nothing is drawn into them.

    That is ``torch.device("meta")``, except that there every initialiser runs, and all that it
    calls: building a RegNetY-4.0GF took twice as long.
    """

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        if func in _FACTORIES:
            return func(*args, **kwargs | {"device": "meta"})
        if func in _FILLS or getattr(func, "__module__", None) == torch.nn.init.__name__:
            return args[0] if args else kwargs["tensor"]
        return func(*args, **kwargs)


@contextmanager
def _no_garbage() -> Iterator[None]:
    """Let Python not look for garbage.

    A model is thousands of objects and none of them garbage, but to find that out Python visits
    those of all libraries too: 0.1 s in a process that has imported torch, longer than loading.
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _write_weights(folder: Path, state: dict[str, Tensor], max_shard_size: int | None) -> None:
    shards = plan_shards([_spec(name, tensor) for name, tensor in state.items()], max_shard_size)
    for shard in shards:
        # By name, as the safetensors library sorts: the files equal transformers' to the byte.
        specs = sorted(shard.specs, key=lambda spec: spec.name)
        write_file(folder / shard.file_name, specs, lambda spec: [_raw_bytes(state[spec.name])])
    if len(shards) > 1:
        (folder / INDEX_NAME).write_text(index_json(shards), encoding="utf-8")


def load_tensors(folder: Path) -> dict[str, Tensor]:
    """Map the tensors of a folder's safetensors file or shards.

    Args:
        folder: With ``model.safetensors``, or ``model.safetensors.index.json`` and its shards.

    Returns:
        Name to CPU tensor; writing to one does not change the file.

    Raises:
        FileNotFoundError: If a file is missing.
        ValueError: If a file cannot be read as safetensors.
    """
    held = {path.name: map_tensors(path) for path in weight_files(folder)}
    if WEIGHTS_NAME not in held:
        require_indexed(folder / INDEX_NAME, shards_of(folder / INDEX_NAME), held)
    return {name: tensor for tensors in held.values() for name, tensor in tensors.items()}


def _match_names(
    tensors: dict[str, Tensor], expected: dict[str, torch.Size]
) -> tuple[dict[str, Tensor], list[str]]:
    """Fit a classifier's names to a trunk or the other way round; also list what is left over."""
    stored_with_prefix = any(name.startswith(BASE_PREFIX) for name in tensors)
    wanted_with_prefix = any(name.startswith(BASE_PREFIX) for name in expected)
    state: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        if stored_with_prefix and not wanted_with_prefix:
            state[name.removeprefix(BASE_PREFIX)] = tensor
        elif wanted_with_prefix and not stored_with_prefix and not name.startswith(CLASSIFIER):
            state[BASE_PREFIX + name] = tensor
        else:
            state[name] = tensor
    unexpected = [name for name in state if name not in expected]
    return {name: tensor for name, tensor in state.items() if name in expected}, unexpected


def _warn(folder: Path, missing: list[str], unexpected: list[str]) -> None:
    unexpected = [name for name in unexpected if not name.startswith(CLASSIFIER)]
    if missing:
        warnings.warn(
            f"{folder} lacks {len(missing)} tensors ({', '.join(missing[:3])}, ...): they are "
            "newly initialised and the model must be trained before it predicts anything.",
            stacklevel=3,
        )
    if unexpected:
        warnings.warn(
            f"{folder} holds {len(unexpected)} tensors that the model has no place for "
            f"({', '.join(unexpected[:3])}, ...); they were left out.",
            stacklevel=3,
        )


def _spec(name: str, tensor: Tensor) -> TensorSpec:
    dtype = TORCH_TO_SAFETENSORS[str(tensor.dtype).removeprefix("torch.")]
    return TensorSpec(name, dtype, tuple(tensor.shape))


def _raw_bytes(tensor: Tensor) -> bytes:
    flat = tensor.detach().cpu().contiguous().reshape(-1)
    return flat.view(torch.uint8).numpy().tobytes() if flat.numel() else b""
