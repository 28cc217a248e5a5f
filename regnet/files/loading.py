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

_CONVERTED = "convert the checkpoint with `regnet convert` first"
_WITHOUT = "load without it"
_REFUSED: Mapping[str, tuple[tuple[Any, ...], str]] = {
    name: (harmless, advice)
    for names, harmless, advice in (
        ("from_flax from_tf", (None, False), _CONVERTED),
        ("gguf_file key_mapping", (None,), _CONVERTED),
        ("adapter_kwargs device_mesh distributed_config max_memory", (None,), _WITHOUT),
        ("offload_folder tp_plan tp_size", (None,), _WITHOUT),
        ("offload_buffers offload_state_dict", (None, False), _WITHOUT),
        ("return_unused_kwargs use_kernels", (None, False), _WITHOUT),
        ("attn_implementation", (None, "eager"), "a RegNet has no attention"),
        ("device_map", (None, "cpu"), "load, then move the model with model.to(device)"),
        ("generation_config", (None,), "a RegNet generates nothing"),
        ("quantization_config", (None,), "export int8 with `regnet export --format onnx-int8`"),
        ("state_dict", (None,), "call load_state_dict on the loaded model"),
        ("use_safetensors", (None, True), "weights are read from safetensors alone"),
        ("variant", (None, ""), "rename the variant's file to model.safetensors"),
    )
    for name in names.split()
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
