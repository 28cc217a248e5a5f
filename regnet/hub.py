"""`save_pretrained` and `from_pretrained` on a local folder, in transformers' files and names."""

from __future__ import annotations

import gc
import warnings
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal, Self, overload

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from regnet.architecture import (
    BASE_PREFIX,
    BUFFER_LEAVES,
    CLASSIFIER,
    PREACTIVATION,
    Architecture,
    Conv,
    folded,
    scale_and_shift,
)
from regnet.config import RegNetConfig
from regnet.files.json_file import PREPROCESSOR_NAME, PROCESSOR_NAME
from regnet.files.loading import dtype_name, settings_of
from regnet.files.reading import MAX_BYTES
from regnet.files.safetensors_file import (
    INDEX_NAME,
    SHARD_PATTERN,
    WEIGHTS_NAME,
    TensorSpec,
    index_json,
    load_tensors,
    parse_size,
    plan_shards,
    write_file,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from torch import Tensor

    _Base = nn.Module
else:
    _Base = object

_PROCESSORS = (PROCESSOR_NAME, PREPROCESSOR_NAME)

_FACTORIES = frozenset({torch.empty, torch.zeros, torch.ones, torch.tensor})
"""With which torch's modules make their parameters and buffers."""

_FILLS = frozenset({torch.Tensor.zero_, torch.Tensor.fill_})
"""With which batch norms reset their statistics; the rest is in `torch.nn.init`."""


class PretrainedMixin(_Base):
    """Saving to and loading from a folder, for a module with a ``config``."""

    config: RegNetConfig

    _processor_files: Mapping[str, bytes] = MappingProxyType({})
    """The image processor that lay beside the weights, as files by name."""

    _is_folded: bool = False
    """Whether its convolutions have taken in batch norms, so that it is for inference alone."""

    def train(self, mode: bool = True) -> Self:
        """Switch to training or, with False, to evaluation.

        Raises:
            TypeError: If it is to be trained and was loaded with ``fold=True``.
        """
        if mode:
            self._require_norms("trained")
        return super().train(mode)

    def _require_norms(self, what: str) -> None:
        if self._is_folded:
            raise TypeError(
                f"This model's batch norms are folded into its convolutions, so that it cannot be "
                f"{what}; load it without fold=True."
            )

    def save_pretrained(  # noqa: PLR0913 -- transformers' keywords
        self,
        folder: str | Path,
        *,
        max_shard_size: str | int | None = None,
        is_main_process: bool = True,
        state_dict: Mapping[str, Tensor] | None = None,
        safe_serialization: bool = True,
        push_to_hub: bool = False,
        variant: str | None = None,
        token: object = None,
    ) -> None:
        """Write ``config.json`` and the weights, in place of the weights of an earlier save.

        The image processor of the folder that the model was loaded from is written too, where the
        new folder has none. New weights are in place before old ones are removed.

        Args:
            folder: Created if missing.
            max_shard_size: For example ``"5GB"``; more than that is split over several files with
                an index. None for one file.
            is_main_process: False writes nothing: of several processes that hold the model one is
                to save it.
            state_dict: Saved instead of the model's own, with the same names and shapes.
            safe_serialization: Has to be True: weights are written as safetensors alone.
            push_to_hub: Has to be False; `regnet push` uploads a folder.
            variant: Has to be None.
            token: Of no use, since nothing is uploaded.

        Raises:
            TypeError: If something is asked for that is not done, or the model was loaded with
                ``fold=True``.
            ValueError: If ``max_shard_size`` is no size, or ``state_dict`` is of another network.
            OSError: If a file cannot be written.
        """
        del token
        self._require_norms("saved")
        _require("safe_serialization", safe_serialization, True, "weights are safetensors alone")
        _require("push_to_hub", push_to_hub, False, "upload the folder with `regnet push`")
        _require("variant", variant, None, "save into a folder of its own")
        if not is_main_process:
            return
        folder = Path(folder)
        limit = None if max_shard_size is None else parse_size(max_shard_size)
        state = self._state_to_save(state_dict)
        first = next(name for name, tensor in state.items() if tensor.is_floating_point())
        dtype = str(state[first].dtype).removeprefix("torch.")
        name = self.config.architecture_name(classifier=hasattr(self, "classifier"))
        fields = self.config.to_dict() | {"architectures": [name], "dtype": dtype}
        fields.pop("torch_dtype", None)  # the older name of dtype
        folder.mkdir(parents=True, exist_ok=True)
        # Written beside and moved in: this model may be mapped from the files that it replaces,
        # and truncating a mapped file kills the process that reads it.
        with TemporaryDirectory(dir=folder, prefix=".saving-") as name:
            staging = Path(name)
            _write_weights(staging, state, limit)
            RegNetConfig.from_dict(fields).save_pretrained(staging)
            if not any((folder / known).exists() for known in _PROCESSORS):
                for file_name, content in self._processor_files.items():
                    (staging / file_name).write_bytes(content)
            _move_in(staging, folder)

    def _state_to_save(self, given: Mapping[str, Tensor] | None) -> dict[str, Tensor]:
        own: dict[str, Tensor] = self.state_dict()
        if given is None:
            return own
        wrong = [name for name in own if name not in given or given[name].shape != own[name].shape]
        wrong += [name for name in given if name not in own]
        if wrong:
            raise ValueError(
                f"state_dict is not of this network: {wrong[0]} is missing, too much or of another "
                f"shape ({len(wrong)} tensors); give the state_dict of the model itself."
            )
        return dict(given)

    @overload
    @classmethod
    def from_pretrained(
        cls,
        folder: str | Path,
        config: RegNetConfig | str | Path | None = ...,
        *,
        output_loading_info: Literal[True],
        **keywords: Any,
    ) -> tuple[Self, dict[str, Any]]: ...

    @overload
    @classmethod
    def from_pretrained(
        cls,
        folder: str | Path,
        config: RegNetConfig | str | Path | None = ...,
        *,
        output_loading_info: Literal[False] = ...,
        **keywords: Any,
    ) -> Self: ...

    @classmethod
    def from_pretrained(  # noqa: PLR0913 -- transformers' keywords
        cls,
        folder: str | Path,
        config: RegNetConfig | str | Path | None = None,
        *,
        dtype: str | torch.dtype | None = None,
        torch_dtype: str | torch.dtype | None = None,
        subfolder: str = "",
        ignore_mismatched_sizes: bool = False,
        output_loading_info: bool = False,
        fold: bool = False,
        **keywords: Any,
    ) -> Self | tuple[Self, dict[str, Any]]:
        """Load a model from a folder, in evaluation mode.

        Weights are mapped from the file, not read: pages come in as they are used. A classifier's
        folder loads as `RegNetModel` and a trunk's folder as `RegNetForImageClassification`; what
        the file lacks is initialised, with a warning.

        Args:
            folder: With ``config.json`` and ``model.safetensors``, or shards and their index.
            config: Instead of the folder's; a path is that of a file or its folder.
            dtype: Convert floating-point weights to this, a dtype or its name; ``"auto"`` is what
                the configuration states. By default they stay as stored.
            torch_dtype: The older name of ``dtype``, which wins.
            subfolder: Of the folder, where the files are.
            ignore_mismatched_sizes: Initialise tensors whose shape differs instead of refusing.
            output_loading_info: Whether to return a dictionary too: ``missing_keys``,
                ``unexpected_keys`` (names), ``mismatched_keys`` (names with both shapes) and
                ``error_msgs``.
            fold: For inference alone: let each convolution take in the batch norm behind it,
                computed in float64 and rounded once. What cannot be taken in stays: other norms,
                and those in front of activations. The model can be neither trained nor saved.
            **keywords: Fields of the configuration, for example ``num_labels=10``. Other keywords
                of transformers change nothing or are refused; see :mod:`regnet.files.loading`.

        Raises:
            FileNotFoundError: If a file is missing.
            TypeError: If a keyword is unknown, asks for what is not done, or is a field beside a
                whole configuration.
            ValueError: If the configuration, a file, a dtype or a tensor's shape does not fit, or a
                folded number is too large for the dtype.
        """
        folder = Path(folder) / subfolder
        wanted = torch_dtype if dtype is None else dtype
        with _no_garbage():
            if isinstance(config, RegNetConfig):
                fields = settings_of(keywords, RegNetConfig.settings(), RegNetConfig.title)
                if fields:
                    raise TypeError(
                        f"{', '.join(fields)} cannot be given beside a configuration; set it there."
                    )
            else:
                config = RegNetConfig.from_pretrained(config or folder, **keywords)
            if wanted == "auto":
                wanted = getattr(config, "dtype", None) or getattr(config, "torch_dtype", None)
            name = dtype_name(wanted)
            to = None if name is None else getattr(torch, name)
            model, info = cls._load(folder, config, to, ignore_mismatched_sizes)
            if fold:
                _fold(model, to)
            model = (model if to is None else model.to(to)).eval()
            model._processor_files = _processor_files(folder)  # noqa: SLF001 -- its own
        return (model, info) if output_loading_info else model

    @classmethod
    def _load(
        cls,
        folder: Path,
        config: RegNetConfig,
        dtype: torch.dtype | None,
        ignore_mismatched_sizes: bool,
    ) -> tuple[Self, dict[str, Any]]:
        build: Callable[[RegNetConfig], Self] = cls
        with _Blueprint():
            model = build(config)
        expected = {name: tensor.shape for name, tensor in model.state_dict().items()}
        state, unexpected = _match_names(load_tensors(folder), expected)
        mismatched = {
            (name, tuple(state[name].shape), tuple(expected[name]))
            for name in state
            if state[name].shape != expected[name]
        }
        if mismatched and not ignore_mismatched_sizes:
            name, stored, asked = min(mismatched)
            raise ValueError(
                f"{folder}: {name} has shape {stored} where the configuration asks for {asked} "
                f"({len(mismatched)} tensors differ); correct the configuration or pass "
                "ignore_mismatched_sizes=True."
            )
        info = {
            "missing_keys": expected.keys() - state.keys(),
            "unexpected_keys": set(unexpected),
            "mismatched_keys": mismatched,
            "error_msgs": [],
        }
        for name, _, _ in mismatched:
            del state[name]
        missing = [name for name in expected if name not in state]
        _warn(folder, missing, unexpected)
        if missing:
            model = build(config)
            dtype = dtype or next((t.dtype for t in state.values() if t.is_floating_point()), None)
            model = model if dtype is None else model.to(dtype)
        model.load_state_dict(state, strict=not missing, assign=True)
        return model, info


def _require(name: str, value: object, due: object, advice: str) -> None:
    if value is not due:
        raise TypeError(f"{name}={value!r} cannot be honoured here; {advice}.")


def _fold(model: PretrainedMixin, dtype: torch.dtype | None) -> None:
    """Let convolutions take in the batch norms behind them, whose places are left empty.

    The first norm of a preactivated block stays: what it reads may be a hidden state.

    Args:
        model: A whole network of the reference model.
        dtype: What to round to; as its kernel is stored, by default.
    """
    tensors = model.state_dict()
    network = Architecture.of(model.config, classifier=hasattr(model, "classifier"))
    for operation in folded(network.operations):
        if not (isinstance(operation, Conv) and operation.norm):
            continue
        norm, kernel = operation.norm, tensors[operation.slots[0].name]
        if norm.slots[0].role == PREACTIVATION:
            continue
        statistics = (tensors[slot.name].double() for slot in norm.slots if not slot.is_counter)
        scale, shift = scale_and_shift(statistics, norm.eps)
        convolution = model.get_submodule(operation.name)
        for name, exact in (
            ("weight", kernel.double() * scale.view(-1, 1, 1, 1)),
            ("bias", shift),
        ):
            rounded = exact.to(dtype or kernel.dtype)
            if torch.any(rounded.isinf() & exact.isfinite()):
                raise ValueError(
                    f"{operation.name}.{name} is too large for {rounded.dtype} with its batch norm "
                    "folded in; load with another dtype or without fold=True."
                )
            setattr(convolution, name, nn.Parameter(rounded, requires_grad=False))
        model.set_submodule(norm.name, nn.Identity())
    model.requires_grad_(requires_grad=False)
    for module in model.modules():
        if isinstance(module, PretrainedMixin):
            module._is_folded = True  # noqa: SLF001 -- its own


def _processor_files(folder: Path) -> dict[str, bytes]:
    """The files of a folder that say how pictures are prepared, unless they are absurdly large."""
    paths = (folder / name for name in _PROCESSORS)
    found = (path for path in paths if path.is_file() and path.stat().st_size <= MAX_BYTES)
    return {path.name: path.read_bytes() for path in found}


def _move_in(staging: Path, folder: Path) -> None:
    """Let the files of a save take their places, then remove what is left of an earlier one.

    Weights first, so that they are never without a place. Ctrl-C waits: half a set of shards would
    be neither the old network nor the new.
    """
    new = sorted(staging.iterdir(), key=lambda path: path.suffix != ".safetensors")
    names = {path.name for path in new}
    patterns = (WEIGHTS_NAME, INDEX_NAME, SHARD_PATTERN)
    stale = [path for pattern in patterns for path in folder.glob(pattern)]
    steps: list[Callable[[], object]] = [partial(path.replace, folder / path.name) for path in new]
    steps += [path.unlink for path in stale if path.name not in names]
    interruption: KeyboardInterrupt | None = None
    for step in steps:
        try:
            step()
        except KeyboardInterrupt as error:
            interruption = error
            with suppress(FileNotFoundError):  # it was done
                step()
    if interruption:
        raise interruption


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
    specs = [
        TensorSpec(name, str(tensor.dtype).removeprefix("torch."), tuple(tensor.shape))
        for name, tensor in state.items()
    ]
    shards = plan_shards(specs, max_shard_size)
    for shard in shards:
        # By name, as the safetensors library sorts: the files equal transformers' to the byte.
        ordered = sorted(shard.specs, key=lambda spec: spec.name)
        write_file(folder / shard.file_name, ordered, lambda spec: [_raw_bytes(state[spec.name])])
    if len(shards) > 1:
        (folder / INDEX_NAME).write_text(
            index_json(shards, BUFFER_LEAVES), encoding="utf-8", newline="\n"
        )


def _match_names(
    tensors: dict[str, Tensor], expected: dict[str, torch.Size]
) -> tuple[dict[str, Tensor], list[str]]:
    """Fit a classifier's names to a trunk or the other way round; also list what is left over."""
    stored_with_prefix = any(name.startswith(BASE_PREFIX) for name in tensors)
    wanted_with_prefix = any(name.startswith(BASE_PREFIX) for name in expected)
    state: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        if not wanted_with_prefix:
            state[name.removeprefix(BASE_PREFIX)] = tensor
        elif stored_with_prefix or name.startswith(CLASSIFIER):
            state[name] = tensor
        else:
            state[BASE_PREFIX + name] = tensor
    unexpected = [name for name in state if name not in expected]
    return {name: tensor for name, tensor in state.items() if name in expected}, unexpected


_SHOWN = 3
"""Names that a warning shows."""

_OF_CALLER = 4
"""Whose line a warning shows: whoever called ``from_pretrained``."""


def _warn(folder: Path, missing: list[str], unexpected: list[str]) -> None:
    unexpected = [name for name in unexpected if not name.startswith(CLASSIFIER)]
    if missing:
        warnings.warn(
            f"{folder} lacks {len(missing)} tensors ({_first(missing)}) in this model's shapes: "
            "they are newly initialised and the model must be trained before it predicts anything.",
            stacklevel=_OF_CALLER,
        )
    if unexpected:
        warnings.warn(
            f"{folder} holds {len(unexpected)} tensors that the model has no place for "
            f"({_first(unexpected)}); they were left out.",
            stacklevel=_OF_CALLER,
        )


def _first(names: list[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more


def _raw_bytes(tensor: Tensor) -> bytes:
    flat = tensor.detach().cpu().contiguous().reshape(-1)
    return flat.view(torch.uint8).numpy().tobytes() if flat.numel() else b""
