"""pycls: which weights of a checkpoint, which channel order, which transform; files like its own.

Source: pycls ``core/checkpoint.py``. Files until May 2021 hold ``epoch``, ``model_state``,
``optimizer_state`` and the ``cfg`` text; later ones add ``ema_state``, ``test_err``, ``ema_err``.
Its names are those of the model zoo of 2020 to this day (``models/anynet.py``,
``models/blocks.py``), its networks built by ``core/builders.py``. What the cfg says is in
:mod:`converters.families.pycls_config`.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from converters.errors import InputError
from converters.families.entries import prepared, settle
from converters.families.family import Family
from converters.families.harmless import OPTIMISER
from converters.families.keymap import keymap
from converters.families.labels import imagenet_labels
from converters.families.linear_rule import group_widths, rule_of
from converters.families.pycls_config import BOTTLENECK, FIELDS, RULE, SAYS, PyclsConfig
from converters.families.reading import as_regnetz, choose_state, source_of
from converters.families.real_network import NotRunError, RealNetwork
from converters.families.source import BILINEAR, Decision, EvalTransform, Preprocessing
from converters.families.words import spoken
from regnet.config import IMAGENET_CLASSES
from regnet.design_space import named_like

if TYPE_CHECKING:
    from collections.abc import Hashable, Mapping
    from pathlib import Path

    from converters.checkpoint import Checkpoint
    from converters.families.family import Found, Network
    from converters.families.source import Source, StateDict
    from regnet.config import RegNetConfig

PYCLS = keymap(
    "pycls",
    "s{stage+1}.b{block+1}",
    stem=("stem.conv", "stem.bn"),
    shortcut=("proj", "bn"),
    reduce=("f.a", "f.a_bn"),
    grouped=("f.b", "f.b_bn"),
    expand=("f.c", "f.c_bn"),
    attention=("f.se.f_ex.0", "f.se.f_ex.2"),
    head=("head.conv", "head.bn"),
    classifier="head.fc",
)

_IMAGENET = Decision("labels", "ImageNet's 1000", "the cfg's TRAIN.DATASET is imagenet")

_OWN = ("model_state", "ema_state")
"""Where pycls keeps raw and averaged weights."""

_MISSING_ERROR = 100.0
"""What pycls assumes of a set of weights whose error was not stored, in percent."""

_SECTIONS = ("MODEL", "REGNET", "ANYNET", "BN")
"""The parts of the cfg that a network is built from."""


def _read(found: Found) -> Source:
    """Read a pycls checkpoint.

    A bare state dict, and one nested elsewhere than under ``model_state``, are understood as well.
    """
    wrapper: Mapping[Hashable, Any] = found.tree if isinstance(found.tree, dict) else {}
    state, weights, skipped = _choose_state(found, wrapper)
    tensors, head, others = settle(found, state)
    cfg = _cfg_in(wrapper, found.where)
    cfg.require_expressible()
    found = found.by(preprocessing=cfg.preprocessing)
    optimiser = {"optimizer_state": OPTIMISER} if "optimizer_state" in wrapper else {}
    state = replace(state, tensors=tensors)
    source = source_of(found, state, weights, optimiser | skipped | others)
    _require_described(source, cfg, found.where)
    source = _as_described(source, cfg, found.where)
    dataset, classes = cfg.get("TRAIN", "DATASET", ""), source.config.num_labels
    if dataset == "imagenet" and classes == IMAGENET_CLASSES:
        source = replace(source.decided(_IMAGENET), labels=imagenet_labels())
    return source.decided(*cfg.not_understood, *head)


def _cfg_in(tree: object, where: str) -> PyclsConfig:
    """The cfg of a checkpoint, which gives pycls' defaults where there is none."""
    text = tree.get("cfg") if isinstance(tree, dict) else None
    return PyclsConfig.parse(text if isinstance(text, str) else None, where)


def _choose_state(
    found: Found, wrapper: Mapping[Hashable, Any]
) -> tuple[StateDict, Decision, dict[str, str]]:
    """Choose by pycls' own rule, the smaller stored error, where the file is one of pycls' own."""
    own = {state.path[0]: state for state in found.states if state.path in {(key,) for key in _OWN}}
    if {len(own), len(found.states)} != {len(_OWN)} or found.options.weights != "best":
        return choose_state(found)
    raw, ema = (_error(wrapper, key) for key in ("test_err", "ema_err"))
    taken, left = _OWN if raw <= ema else reversed(_OWN)
    best = "raw" if raw <= ema else "ema"
    reason = f"pycls' rule: the stored errors are {raw:g} % raw and {ema:g} % EMA"
    return (
        prepared(found, own[taken]),
        Decision("weights", best, reason),
        {left: "the weights that were not chosen"},
    )


def _error(wrapper: Mapping[Hashable, Any], key: str) -> float:
    value = wrapper.get(key)
    return float(value) if isinstance(value, int | float) else _MISSING_ERROR


def _require_described(source: Source, cfg: PyclsConfig, where: str) -> None:
    """Check that the weights are those of the network that the cfg describes."""
    found, stated = source.config.num_labels, cfg.get("MODEL", "NUM_CLASSES", None)
    if source.has_classifier and stated is not None and stated != found:
        raise InputError(
            f"{where}: its head has {found} classes where its cfg says {stated}; the file mixes "
            "two models."
        )
    described, shape = cfg.described_shapes, (source.config.hidden_sizes, source.config.depths)
    if described and shape not in described:
        raise InputError(
            f"{where}: its cfg describes stages of {_stages(*described[0])} where the weights have "
            f"{_stages(*shape)}; the file mixes two models."
        )


def _as_described(source: Source, cfg: PyclsConfig, where: str) -> Source:
    """The source with what the cfg says of the network, which shapes must bear out."""
    fields = cfg.fields(source.config)
    if not cfg.values:
        return as_regnetz(source, "the file has no cfg that says otherwise")
    source = source.strided("", downsamples=True)  # without what was told of it
    return source.described(fields, f"{where}: its cfg")


def _stages(widths: list[int], depths: list[int]) -> str:
    """Depth x width of each stage, for messages."""
    return ", ".join(f"{depth}x{width}" for width, depth in zip(widths, depths, strict=True))


def _write(path: Path, network: Network) -> None:
    """Write a file as pycls' ``core/checkpoint.py`` does, without the optimiser."""
    import yaml

    text = yaml.safe_dump(_cfg(network), default_flow_style=None)
    network.save(path, {"epoch": 0, "model_state": network.state_dict(), "cfg": text})


def _cfg(network: Network) -> dict[str, Any]:
    """The settings that are not pycls' defaults, or that a reader looks for.

    Published networks are built by the linear rule, all others by their stages, as an AnyNet.
    """
    config = network.config
    is_named = named_like(config) and set(config.stage_strides) == {2}
    rule = rule_of(config) if is_named else None
    kind, stages = ("REGNET", rule.spelled(*RULE)) if rule else ("ANYNET", _anynet(config))
    stages |= {"SE_ON": config.layer_type == "y", "STEM_W": config.embedding_size}
    sections: dict[str, dict[str, Any]] = {
        "MODEL": {"NUM_CLASSES": config.num_labels, "TYPE": kind.lower()},
        "TRAIN": {"IM_SIZE": network.transform.crop},
        "TEST": {"IM_SIZE": network.transform.resize},
        kind: stages,
    }
    for key, value in _unusual(config).items():
        section, _, name = key.rpartition(".")
        if section or rule or name != BOTTLENECK:  # which an AnyNet has per stage
            sections.setdefault(section or kind, {})[name] = value
    return sections


def _unusual(config: RegNetConfig) -> dict[str, Any]:
    """What is not pycls' default, beside stages; 0.1.1 has not all of these keys yet."""
    said, _ = spoken(SAYS, config, (FIELDS | {"hidden_act"}) - {"strides"})
    return {
        word.key: said[word.key]
        for word in SAYS.values()
        if said.get(word.key, word.default) != word.default
    }


def _anynet(config: RegNetConfig) -> dict[str, Any]:
    return {
        "DEPTHS": config.depths,
        "WIDTHS": config.hidden_sizes,
        "STRIDES": config.stage_strides,
        "BOT_MULS": [float(config.expansion)] * len(config.depths),
        "GROUP_WS": group_widths(config),
    }


def _build(source: Source, checkpoint: Checkpoint) -> RealNetwork:
    """Build pycls' network from the cfg, else as an AnyNet."""
    from pycls.core import builders
    from pycls.core.config import cfg, reset_cfg
    from torch.nn import Identity

    config = source.config
    reset_cfg()
    try:
        if config.hidden_act != "relu" and "ACTIVATION_FUN" not in cfg.MODEL:
            raise NotRunError(f"this version of pycls has relu only, not {config.hidden_act}")
        if (config.head_size or config.shortcut == "none") and "HEAD_W" not in cfg.ANYNET:
            raise NotRunError("this version of pycls has no RegNetZ")
        cfg.merge_from_list(_stated(checkpoint, cfg) or _from_shapes(config))
        cfg.MODEL.NUM_CLASSES = config.num_labels
        module = builders.build_model()
    finally:
        reset_cfg()
    if not source.has_classifier:
        module.head.fc = Identity()
    return RealNetwork(module, module.get_submodule(f"s{len(config.depths)}"), module)


def _stated(checkpoint: Checkpoint, known: Any) -> list[Any]:
    """Pairs of key and value that the checkpoint's cfg states and this version of pycls knows."""
    stated = _cfg_in(checkpoint.tree, checkpoint.path.name)
    pairs: list[Any] = []
    for section in _SECTIONS:
        for key in known[section]:
            value = stated.get(section, key, None)
            pairs += [] if value is None else [f"{section}.{key}", value]
    return pairs


def _from_shapes(config: RegNetConfig) -> list[Any]:
    """The settings of a file that holds nothing but tensors."""
    anynet = _anynet(config) | {"STEM_W": config.embedding_size, "SE_ON": config.layer_type == "y"}
    settings = {"MODEL.TYPE": "anynet"} | {f"ANYNET.{key}": anynet[key] for key in anynet}
    for key, value in _unusual(config).items():
        if key != BOTTLENECK:
            settings[key if "." in key else f"ANYNET.{key}"] = value
    return [item for pair in settings.items() for item in pair]


FAMILY = Family(
    keymap=PYCLS,
    title="pycls",
    package="pycls",
    read=_read,
    preprocessing=Preprocessing(EvalTransform(256, 224, BILINEAR), "pycls' default", "bgr"),
    build=_build,
    write=_write,
    says=SAYS,
    says_of_images=frozenset({"resize", "crop"}),
    wider=FIELDS,
    anynet=FIELDS,
)
"""Its defaults are the rules for weights that somebody else's trainer saved, a detector's backbone
included."""
