"""ClassyVision's full nest, a bare trunk, a model with attached heads; SWAG's flat files.

Source: ClassyVision ``models/classy_model.py`` (what is stored where), ``models/anynet.py``,
``heads/fully_connected_head.py``, ``hooks/exponential_moving_average_model_hook.py``; SWAG
``models/regnet.py``.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from converters.errors import InputError
from converters.families.classy_vision_config import ClassyVisionConfig
from converters.families.classy_vision_keymap import CLASSY_VISION, SWAG
from converters.families.entries import elsewhere, require_readable
from converters.families.family import EMA_KEYS, Family, choose_state, source_of
from converters.families.heads import Head, branch, choose_head, last_block
from converters.families.recognise import tensors_of
from converters.families.source import BICUBIC, BILINEAR, Decision, EvalTransform
from regnet.config import RegNetConfig

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from converters.checkpoint import AnyCheckpoint, StoredTensor
    from converters.families.options import SourceOptions
    from converters.families.source import Source
    from converters.families.wrapping import StateDict

FAMILY = Family(
    keymap=CLASSY_VISION,
    transform=EvalTransform(256, 224, BILINEAR),
    transform_reason="ClassyVision's ImageNet presets; SWAG's trunks were trained at 224 as well",
    ema_keys=EMA_KEYS | {"ema_model_state"},
)

SWAG_FAMILY = Family(
    keymap=SWAG,
    transform=EvalTransform(384, 384, BICUBIC),
    transform_reason="SWAG's ImageNet fine-tuning",
)

_CURRENT_WEIGHTS = "model_state"
"""A second copy of the raw weights, which the hook that averages them keeps beside its own."""

_INVISIBLE = {"activation": "relu", "bn_epsilon": 1e-5}
"""What the configuration can set otherwise although neither names nor shapes show it."""

_SWAG_HEAD = "head"


@dataclass(frozen=True)
class _StoredHead:
    """A head: the block it reads, and its tensors by name."""

    block: str
    tensors: dict[str, StoredTensor] = field(default_factory=dict)


def read_classy_vision(
    checkpoint: AnyCheckpoint, states: Sequence[StateDict], options: SourceOptions
) -> Source:
    """Read a ClassyVision or SWAG checkpoint; see `converters.families.registry.Reader`."""
    where = checkpoint.path.name
    copies = [state for state in states if state.path[-1:] == (_CURRENT_WEIGHTS,)]
    states = [state for state in states if state not in copies]
    state, weights, skipped = choose_state(FAMILY, states, options, where)
    skipped |= {copy.place: "the raw weights once more, kept by the hook" for copy in copies}
    skipped |= elsewhere(state, but="heads")
    trunk, heads = _trunk_and_heads(state)
    heads |= _detached_heads(branch(checkpoint.tree, *state.path[:-1], "heads"), where)
    stated = ClassyVisionConfig.of(checkpoint.tree)
    config = stated.model
    fit, unfit = _classifiers(heads, last_block(trunk, CLASSY_VISION), _normalising(config))
    chosen = choose_head(fit, unfit, options, where)
    family = SWAG_FAMILY if _SWAG_HEAD in heads else FAMILY
    if stated.says:
        reason = "the checkpoint's own configuration"
        transform = stated.transform(family.transform)
        family = replace(family, transform=transform, transform_reason=reason)
    if chosen.head is not None:
        trunk |= chosen.head.spelled(family.keymap)
    choice = (replace(state, tensors=trunk, beside={}), weights, {**skipped, **chosen.skipped})
    source = source_of(family, choice, options, where)
    decisions = (*source.decisions, chosen.decision, *stated.not_understood)
    return _as_configured(replace(source, decisions=decisions), config, where)


def _trunk_and_heads(state: StateDict) -> tuple[dict[str, StoredTensor], dict[str, _StoredHead]]:
    """Take apart a model with attached heads, by the heads' unique ids.

    Attaching a head to a block inserts the level ``_module`` into the names below that block.
    """
    trunk: dict[str, StoredTensor] = {}
    heads: dict[str, _StoredHead] = {}
    for stored, tensor in (*state.tensors.items(), *state.beside.items()):
        # The averaging hook spells a buffer "stem.stem.1_buffer_running_mean".
        name = stored.replace("._module.", ".").replace("_buffer_", ".")
        match name.split(".", 3):
            case ["_heads", block, head, leaf]:
                heads.setdefault(head, _StoredHead(block)).tensors[leaf] = tensor
            case ["head", *leaf]:
                swag = heads.setdefault(_SWAG_HEAD, _StoredHead("trunk_output"))
                swag.tensors[".".join(leaf)] = tensor
            case _:
                trunk[name] = tensor
    return trunk, heads


def _detached_heads(stored: object, where: str) -> dict[str, _StoredHead]:
    """The heads that are stored beside the trunk: block to id to tensors."""
    heads: dict[str, _StoredHead] = {}
    for block, by_id in stored.items() if isinstance(stored, dict) else ():
        for head, tensors in by_id.items() if isinstance(by_id, dict) else ():
            require_readable(tensors, where)
            if kept := tensors_of(tensors):
                heads[str(head)] = _StoredHead(str(block), kept)
    return heads


def _classifiers(
    heads: Mapping[str, _StoredHead], last: tuple[int, int, int], normalising: set[str]
) -> tuple[dict[str, Head], dict[str, str]]:
    """The heads that are linear classifiers on the pooled output; why the others are not."""
    stage, block, width = last[0] + 1, last[1], last[2]
    ends = {"trunk_output", f"block{stage}", f"block{stage}-{block}"}
    fit: dict[str, Head] = {}
    unfit: dict[str, str] = {}
    for name, head in heads.items():
        weight, bias = head.tensors.get("fc.weight"), head.tensors.get("fc.bias")
        if head.block not in ends:
            unfit[name] = f"it reads {head.block}, not the end of the network"
        elif weight is None or bias is None or len(head.tensors) != 2:  # noqa: PLR2004
            unfit[name] = "it is more than one linear layer"
        elif weight.shape[1:] != (width,):
            unfit[name] = f"it does not read the {width} features in which the network ends"
        elif name in normalising:
            unfit[name] = "it normalises features to length one"
        else:
            fit[name] = Head(weight, bias)
    return fit, unfit


def _normalising(config: object) -> set[str]:
    """The heads that the configuration sets to normalise their input, which no tensor shows."""
    heads = branch(config, "heads")
    return {
        str(head.get("unique_id"))
        for head in (heads if isinstance(heads, list) else ())
        if isinstance(head, dict) and head.get("normalize_inputs")
    }


def _as_configured(source: Source, config: Mapping[str, Any], where: str) -> Source:
    """Take from the training run's own configuration what tensors cannot tell."""
    for key, expected in _INVISIBLE.items():
        if config.get(key, expected) != expected:
            raise InputError(
                f"{where}: its configuration sets {key} to {config[key]!r}; the reference RegNet "
                f"can only be built with {expected}."
            )
    strides = config.get("strides")
    if not isinstance(strides, list | tuple) or set(strides) == {2}:
        return source
    if strides[0] not in {1, 2} or set(strides[1:]) != {2}:
        raise InputError(
            f"{where}: its configuration sets strides {strides!r}; the reference RegNet has stride "
            "2 in every stage, or 1 in the first alone."
        )
    decision = Decision("first stage", "stride 1", "the checkpoint's own configuration")
    return replace(
        source,
        config=RegNetConfig.from_dict(
            source.config.to_dict() | {"downsample_in_first_stage": False}
        ),
        decisions=(*source.decisions, decision),
    )
