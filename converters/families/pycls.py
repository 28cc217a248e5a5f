"""Reading a pycls checkpoint: which weights, which channel order, which transform.

Source: pycls ``core/checkpoint.py``. Files until May 2021 hold ``epoch``, ``model_state``,
``optimizer_state`` and the ``cfg`` text; later ones add ``ema_state``, ``test_err``, ``ema_err``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from converters.errors import InputError
from converters.families.entries import OPTIMISER, prepared, settle
from converters.families.family import Family, choose_state
from converters.families.labels import imagenet_labels
from converters.families.pycls_config import PyclsConfig
from converters.families.pycls_keymap import PYCLS
from converters.families.recognise import architecture_of
from converters.families.source import BILINEAR, Decision, EvalTransform, Source
from regnet.config import RegNetConfig
from regnet.imagenet import IMAGENET_CLASSES, IMAGENET_MEAN

if TYPE_CHECKING:
    from collections.abc import Hashable, Mapping, Sequence

    from converters.checkpoint import AnyCheckpoint, StoredTensor
    from converters.families.options import SourceOptions
    from converters.families.source import ChannelOrder
    from converters.families.wrapping import StateDict

_IMAGENET = Decision("labels", "ImageNet's 1000", "the cfg's TRAIN.DATASET is imagenet")

FAMILY = Family(
    keymap=PYCLS,
    transform=EvalTransform(256, 224, BILINEAR),
    transform_reason="pycls' default",
    channel_order="bgr",
)
"""The rules for weights that somebody else's trainer saved, a detector's backbone included."""

_OWN = ("model_state", "ema_state")
"""Where pycls keeps raw and averaged weights."""

_MISSING_ERROR = 100.0
"""What pycls assumes of a set of weights whose error was not stored, in percent."""


def read_pycls(
    checkpoint: AnyCheckpoint, states: Sequence[StateDict], options: SourceOptions
) -> Source:
    """Find out all that a pycls checkpoint says, without reading a weight.

    Args:
        checkpoint: An open file.
        states: The state dicts found in it; a bare one and one nested elsewhere than under
            ``model_state`` are understood as well.
        options: What the user decided.

    Raises:
        InputError: If it is a RegNet that the reference cannot be.
    """
    where = checkpoint.path.name
    wrapper: Mapping[Hashable, Any] = checkpoint.tree if isinstance(checkpoint.tree, dict) else {}
    state, chosen, skipped = _choose_state(wrapper, states, options, where)
    settled = settle(state, PYCLS, options, where)
    tensors = settled.tensors
    text = wrapper.get("cfg")
    cfg = PyclsConfig.parse(text if isinstance(text, str) else None, where)
    cfg.require_expressible()
    config = _config(tensors, cfg, where)
    order, order_decision = _channel_order(cfg, options.channel_order, config)
    transform = cfg.transform.for_channels(config.num_channels)
    return Source(
        framework="pycls",
        keymap=PYCLS,
        tensors=tensors,
        config=config,
        has_classifier=_has_classifier(tensors),
        channel_order=order,
        transform=transform,
        labels=imagenet_labels() if _is_imagenet(cfg, config) else None,
        decisions=(
            chosen,
            order_decision,
            Decision("evaluation transform", transform.in_words, cfg.transform_reason),
            *([_IMAGENET] if _is_imagenet(cfg, config) else ()),
            *cfg.not_understood,
            *([settled.head] if settled.head else ()),
        ),
        skipped=_optimiser(wrapper) | skipped | dict(settled.skipped),
        normalisers=state.normalisers,
    )


def _choose_state(
    wrapper: Mapping[Hashable, Any],
    states: Sequence[StateDict],
    options: SourceOptions,
    where: str,
) -> tuple[StateDict, Decision, dict[str, str]]:
    """Choose by pycls' own rule, the smaller stored error, where the file is one of pycls' own."""
    own = {state.path[0]: state for state in states if state.path in {(key,) for key in _OWN}}
    if len(own) < len(states) or len(own) < len(_OWN) or options.weights != "best":
        return choose_state(FAMILY, states, options, where)
    raw, ema = (_error(wrapper, key) for key in ("test_err", "ema_err"))
    taken, left = _OWN if raw <= ema else reversed(_OWN)
    best = "raw" if raw <= ema else "ema"
    reason = f"pycls' rule: the stored errors are {raw:g} % raw and {ema:g} % EMA"
    state = prepared(own[taken], PYCLS, where)
    return state, Decision("weights", best, reason), {left: "the weights that were not chosen"}


def _error(wrapper: Mapping[Hashable, Any], key: str) -> float:
    value = wrapper.get(key)
    return float(value) if isinstance(value, int | float) else _MISSING_ERROR


def _config(tensors: Mapping[str, StoredTensor], cfg: PyclsConfig, where: str) -> RegNetConfig:
    fields = architecture_of(tensors, PYCLS, where)
    stated = cfg.get("MODEL", "NUM_CLASSES", None)
    found = fields["num_labels"]
    if found and stated is not None and stated != found:
        raise InputError(
            f"{where}: its head has {found} classes where its cfg says {stated}; the file mixes "
            "two models."
        )
    if not found:
        del fields["num_labels"]
    described = cfg.described_shape
    if described and described != (fields["hidden_sizes"], fields["depths"]):
        raise InputError(
            f"{where}: its cfg describes stages of {_stages(*described)} where the weights have "
            f"{_stages(fields['hidden_sizes'], fields['depths'])}; the file mixes two models."
        )
    return RegNetConfig(
        **fields,
        hidden_act=cfg.activation,
        downsample_in_first_stage=cfg.downsample_in_first_stage,
    )


def _stages(widths: list[int], depths: list[int]) -> str:
    """Depth x width of each stage, for messages."""
    return ", ".join(f"{depth}x{width}" for width, depth in zip(widths, depths, strict=True))


def _has_classifier(tensors: Mapping[str, StoredTensor]) -> bool:
    return PYCLS.spell("classifier", {"affine": "weight"}) in tensors


def _channel_order(
    cfg: PyclsConfig, asked: ChannelOrder | None, config: RegNetConfig
) -> tuple[ChannelOrder, Decision]:
    if asked:
        order, reason = asked, "as asked for with --channel-order"
    else:
        order, reason = cfg.channel_order, cfg.channel_order_reason
    if config.num_channels != len(IMAGENET_MEAN):
        return order, Decision("channel order", "kept", f"{config.num_channels} input channels")
    value = "BGR, stem flipped to take RGB" if order == "bgr" else "RGB, stem kept"
    return order, Decision("channel order", value, reason)


def _is_imagenet(cfg: PyclsConfig, config: RegNetConfig) -> bool:
    dataset = cfg.get("TRAIN", "DATASET", "")
    return bool(dataset == "imagenet" and config.num_labels == IMAGENET_CLASSES)


def _optimiser(wrapper: Mapping[Hashable, Any]) -> dict[str, str]:
    key = "optimizer_state"
    return {key: OPTIMISER} if key in wrapper else {}
