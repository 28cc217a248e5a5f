"""The keywords of `from_pretrained`: settings, what is for loading alone, and what is refused.

Programs hand over whatever they hand to transformers. A keyword of loading must never end up as a
setting, and so in a saved file, where a token would be read by everybody; what cannot be done is
refused by name instead of being ignored.
"""

from __future__ import annotations

from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

from regnet.files.dtypes import DTYPES

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

WITHOUT_EFFECT = frozenset(
    {
        *("cache_dir", "code_revision", "force_download", "local_files_only", "mirror", "proxies"),
        *("resume_download", "revision", "token", "use_auth_token"),  # of fetching
        *("disable_mmap", "low_cpu_mem_usage", "trust_remote_code", "use_fast", "weights_only"),
    }
)
"""Which change nothing about a local folder: it is not fetched, holds no code, and weights are
always mapped. transformers ignores them there too."""

_IN_OTHER_WAYS = "load without it"
_REFUSED: Mapping[str, tuple[tuple[Any, ...], str]] = {
    "adapter_kwargs": ((None,), _IN_OTHER_WAYS),
    "attn_implementation": ((None, "eager"), "a RegNet has no attention"),
    "device_map": ((None, "cpu"), "load, then move the model with model.to(device)"),
    "device_mesh": ((None,), _IN_OTHER_WAYS),
    "distributed_config": ((None,), _IN_OTHER_WAYS),
    "from_flax": ((None, False), "convert the checkpoint with `regnet convert` first"),
    "from_tf": ((None, False), "convert the checkpoint with `regnet convert` first"),
    "generation_config": ((None,), "a RegNet generates nothing"),
    "gguf_file": ((None,), "convert the checkpoint with `regnet convert` first"),
    "key_mapping": ((None,), "convert the checkpoint with `regnet convert` first"),
    "max_memory": ((None,), _IN_OTHER_WAYS),
    "offload_buffers": ((None, False), _IN_OTHER_WAYS),
    "offload_folder": ((None,), _IN_OTHER_WAYS),
    "offload_state_dict": ((None, False), _IN_OTHER_WAYS),
    "quantization_config": ((None,), "export int8 with `regnet export --format onnx-int8`"),
    "return_unused_kwargs": ((None, False), _IN_OTHER_WAYS),
    "state_dict": ((None,), "call load_state_dict on the loaded model"),
    "tp_plan": ((None,), _IN_OTHER_WAYS),
    "tp_size": ((None,), _IN_OTHER_WAYS),
    "use_kernels": ((None, False), _IN_OTHER_WAYS),
    "use_safetensors": ((None, True), "weights are read from safetensors alone"),
    "variant": ((None, ""), "rename the variant's file to model.safetensors"),
}
"""Keyword to the values that ask for nothing else than is done, and what to do about others."""


def settings_of(keywords: Mapping[str, Any], known: Collection[str], what: str) -> dict[str, Any]:
    """Those of the keywords that are settings.

    Args:
        keywords: As a user gave them.
        known: Names of the settings.
        what: Which settings these are, for people, such as ``"the configuration"``.

    Raises:
        TypeError: If a keyword asks for what is not done here, or is none at all.
    """
    found = {}
    for name, value in keywords.items():
        if name in known:
            found[name] = value
        elif name in _REFUSED:
            harmless, advice = _REFUSED[name]
            if not any(value is each or value == each for each in harmless):
                raise TypeError(f"{name}={value!r} cannot be honoured here; {advice}.")
        elif name not in WITHOUT_EFFECT:
            near = get_close_matches(name, [*known, *WITHOUT_EFFECT, *_REFUSED], n=1)
            hint = f"; {near[0]} may be meant" if near else ""
            raise TypeError(
                f"{name} is no keyword of from_pretrained and no field of {what}{hint}."
            )
    return found


def dtype_name(dtype: object) -> str | None:
    """The name of a dtype given as ``torch.float16``, ``"float16"`` or ``"torch.float16"``.

    Returns:
        One of :data:`~regnet.files.dtypes.DTYPES`; None for ``"auto"`` and None.

    Raises:
        ValueError: If weights cannot be of it.
    """
    if dtype is None or dtype == "auto":
        return None
    name = str(dtype).removeprefix("torch.")
    if name not in DTYPES:
        raise ValueError(f'dtype={dtype!r} is not "auto" or one of {", ".join(DTYPES)}.')
    return name


def either_dtype(dtype: object, torch_dtype: object) -> object:
    """Of the keyword's two names whichever was given; ``dtype`` wins, as in transformers."""
    return torch_dtype if dtype is None else dtype
