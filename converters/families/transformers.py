"""Hugging Face transformers: a folder with its configuration, or a bare file of weights.

Source: transformers ``models/regnet/`` and ``models/convnext/image_processing_convnext.py``, from
4.18, which brought RegNet, to 5.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from converters.errors import InputError, UnsafeInputError
from converters.families.family import Family
from converters.families.keymap import REFERENCE
from converters.families.reading import family_source
from converters.families.real_network import NotRunError, RealNetwork
from converters.families.source import BICUBIC, Decision, EvalTransform, Preprocessing
from converters.families.words import Word
from regnet.architecture import BASE_PREFIX, CLASSIFIER, Architecture
from regnet.config import DEFAULT_NUM_LABELS, MODEL_TYPE, RegNetConfig
from regnet.files.json_file import PREPROCESSOR_NAME, write_json
from regnet.wider import WIDER_DEFAULTS, WIDER_TYPE

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from converters.checkpoint import Checkpoint
    from converters.checkpoint.values import Beside
    from converters.families.family import Found, Network
    from converters.families.source import Source

_FROM_SHAPES = (
    "num_channels",
    "embedding_size",
    "hidden_sizes",
    "depths",
    "layer_type",
    "num_labels",
    "groups_width",
)

PREPROCESSING = Preprocessing(
    EvalTransform(256, 224, BICUBIC),
    "what facebook's RegNets on the Hub say; there is no preprocessor_config.json",
)
"""Of whatever transformers is written in."""

SAYS = {"hidden_act": Word("hidden_act", {a: a for a in ("relu", "gelu", "gelu_new", "silu")}, "")}
"""Of TensorFlow's and Flax's classes, which lack torch's SELU (their ``ACT2FN``)."""

_CODE = "auto_map"
"""What transformers imports from a repository if ``trust_remote_code`` is set."""

_NOT_KEPT = ("model_type", "torch_dtype", "_name_or_path")
"""Of the new file: the type of the old weights, and where they lay."""


def read(found: Found) -> Source:
    """Read a folder of transformers with what lies beside its weights, or a bare file of them."""
    if found.checkpoint.beside.config.get("model_type") == WIDER_TYPE:  # ours, which says all
        found = found.by(wider=frozenset({"groups_width", *WIDER_DEFAULTS}))
    return with_folder(family_source(found), found)


def with_folder(source: Source, found: Found) -> Source:
    """The source with what the files of transformers beside it say of it.

    Raises:
        InputError: If they cannot be used, or are another network's.
        UnsafeInputError: If they ask for code to be run.
    """
    beside = found.checkpoint.beside
    if beside.preprocessor:
        source = _with_processor(source, beside, found.where)
    return _with_config(source, beside.config, found.where) if beside.config else source


def _with_config(source: Source, keys: Mapping[str, Any], where: str) -> Source:
    """The source with all that its ``config.json`` says, checked against the shapes."""
    if keys.get("model_type", MODEL_TYPE) not in {MODEL_TYPE, WIDER_TYPE}:
        raise InputError(
            f"{where}: its config.json is that of a {keys['model_type']} where the weights are a "
            "RegNet's; the folder mixes two models."
        )
    if _CODE in keys:
        raise UnsafeInputError(
            f"{where}: its config.json asks programs to run code that comes with the weights "
            f"({_CODE}), which no RegNet needs; nothing was run, so remove the entry to convert."
        )
    kept = {key: value for key, value in keys.items() if key not in _NOT_KEPT}
    headless = {} if source.has_classifier else {"num_labels": DEFAULT_NUM_LABELS}
    try:
        stated = RegNetConfig.from_dict(kept, **headless)
    except (TypeError, ValueError) as error:
        why = str(error).rstrip(".")
        raise InputError(f"{where}: its config.json cannot be used: {why}.") from error
    if not stated.wider_fields():  # of which shapes do not show all
        _require_same(source.config, stated, where)
    source = source.strided("", downsamples=stated.downsample_in_first_stage)
    decisions = [Decision("configuration", "as stored", "the folder's config.json")]
    if not stated.downsample_in_first_stage:
        reason = "as config.json says, and transformers 5 reads it; 4.x computed with stride 2"
        decisions.append(Decision("stride of the first stage", "1", reason))
    return replace(source, config=stated).decided(*decisions)


def _require_same(found: RegNetConfig, stated: RegNetConfig, where: str) -> None:
    """Check every tensor's shape; several group widths may mean the same ones."""
    strided = found.to_dict() | {"downsample_in_first_stage": stated.downsample_in_first_stage}
    ours, theirs = (
        Architecture.of(config).shapes for config in (RegNetConfig.from_dict(strided), stated)
    )
    if ours == theirs:
        return
    field = next(f for f in _FROM_SHAPES if getattr(found, f) != getattr(stated, f))
    raise InputError(
        f"{where}: its config.json says {field} {getattr(stated, field)} where the weights have "
        f"{getattr(found, field)}; the folder mixes two models."
    )


def _with_processor(source: Source, beside: Beside, where: str) -> Source:
    """The source with the transform of its ``preprocessor_config.json``, of any version."""
    from regnet.image_processor import RegNetImageProcessor

    try:
        processor = RegNetImageProcessor.from_dict(beside.preprocessor)
    except (TypeError, ValueError) as error:
        raise InputError(
            f"{where}: its {beside.preprocessor_file} cannot be used ({str(error).rstrip('.')}); "
            "save its numbers with the processor of a RegNet, a ConvNextImageProcessor."
        ) from error
    settings = processor.to_dict()
    del settings["image_processor_type"]
    transform = EvalTransform.of(processor)
    decision = Decision(
        "evaluation transform", transform.in_words, f"the folder's {beside.preprocessor_file}"
    )
    others = [d for d in source.decisions if d.topic != decision.topic]
    return replace(source, transform=transform, processor=settings, decisions=(*others, decision))


def _build(source: Source, _: Checkpoint) -> RealNetwork:
    """Build transformers' model."""
    from transformers import RegNetConfig, RegNetForImageClassification, RegNetModel

    fields = source.config.to_dict()
    if fields.pop("model_type") != MODEL_TYPE:
        raise NotRunError("transformers has no such network")
    kind = RegNetForImageClassification if source.has_classifier else RegNetModel
    module = kind(RegNetConfig(**fields))
    trunk = module.regnet if source.has_classifier else module

    def spell(name: str) -> str:
        in_trunk = source.has_classifier and not name.startswith(CLASSIFIER)
        return BASE_PREFIX + name if in_trunk else name

    output = "logits" if source.has_classifier else "pooler_output"
    last = trunk.encoder.stages[-1]
    return RealNetwork(module, last, lambda images: getattr(module(images), output), spell)


def in_model(name: str, network: Network) -> str:
    """What a parameter is called in the class with a classifier, if the network has one."""
    in_trunk = network.has_classifier and not name.startswith(CLASSIFIER)
    return BASE_PREFIX + name if in_trunk else name


def write_beside(path: Path, network: Network) -> None:
    """Write what lies beside the weights: the converted folder's own configuration and settings.

    Raises:
        OSError: If it cannot be written.
    """
    network.config.save_pretrained(path)
    write_json(path / PREPROCESSOR_NAME, network.checkpoint.beside.preprocessor)


FAMILY = Family(
    keymap=REFERENCE,
    title="Hugging Face transformers",
    package="transformers",
    read=read,
    preprocessing=PREPROCESSING,
    build=_build,
)
