"""A family: a framework, and all that is known of its checkpoints.

What a framework has of its own (timm's ``pretrained_cfg``, say) is in its module; the list of them
is :data:`converters.families.known.FAMILIES`. Its reader is given what is :class:`Found`, its
writer a :class:`Network`.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any

from converters.checkpoint.array import Array
from converters.checkpoint.torch_pickle import PickledTensor, save_archive
from converters.errors import InputError, require_extra
from converters.families.linear_rule import rule_of
from converters.families.tensor_layout import TORCH, TensorLayout
from converters.families.words import spoken
from regnet.architecture import Architecture
from regnet.config import IMAGENET_MEAN
from regnet.files.dtypes import DEFAULT, DTYPES
from regnet.files.safetensors_file import TensorSpec, write_file
from regnet.wider import squeeze_width

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from converters.checkpoint import Checkpoint, StoredTensor
    from converters.checkpoint.torch_pickle import Value
    from converters.families.keymap import Keymap
    from converters.families.options import SourceOptions
    from converters.families.real_network import RealNetwork
    from converters.families.source import EvalTransform, Preprocessing, Source, StateDict
    from converters.families.words import Says
    from regnet.architecture import Slot
    from regnet.config import RegNetConfig
    from regnet.wider import Padding

EMA_KEYS = frozenset({"ema_state", "state_dict_ema", "model_ema", "ema_model", "ema_state_dict"})
"""Where trainers keep averaged weights: pycls, timm, torchvision and timm, VISSL, OpenMMLab."""


@dataclass(frozen=True, kw_only=True)
class Family:
    """A framework, and what is the same for all of its checkpoints.

    What stands behind ``write`` says what its own code can build and its file can say: a file that
    it could not load strictly is not written.

    Attributes:
        keymap: Its names.
        title: What people call it.
        package: What is installed by pip, and imported, to run its own networks.
        preprocessing: How it evaluates and what its networks were trained on, unless the checkpoint
            says otherwise.
        read: Finds out all that a checkpoint says, without reading a weight; raises InputError for
            a RegNet that the reference cannot be. `reading.family_source` where names and shapes
            say all.
        prefers_ema: Whether it takes averaged weights itself where there are some.
        ema_keys: Which keys or prefixes mean averaged weights.
        layout: The order in which it stores the axes of weights.
        states_evaluation: Whether its files may say how the network was evaluated; VISSL's say
            nothing, however deep they nest tensors.
        build: Lets its own code build the network of a recognised checkpoint, which is open for
            what it says of that; raises NotRunError if the framework has no such network, and
            ImportError if it is not installed. None if nobody can.
        write: Makes its file or folder of a converted folder, at a path that does not exist yet;
            None if it is not written back for.
        says: Its words for what shapes cannot say; what it has no word for is as in the reference
            by default.
        says_of_images: The fields of the evaluation transform that its file says; whoever loads it
            must know the others.
        loads_folder: Whether it loads a folder, or a single file.
        shortcut_last: Whether a block's shortcut follows its layers in the state dict.
        lacks: The layer type that it has not, if there is one, to how it comes that it has not.
        dtypes: What its file can store weights in.
        needs: The package without which its file is neither read nor written, as it is imported,
            and the extra that brings it.
        squeeze: How many channels a block of so many input channels squeezes to.
        always_squeezes_with_relu: Whether squeeze-and-excitation has ReLU whatever the network has.
        stem_width: How wide its stem always is; None if it can be told.
        any_channels: Whether its stem takes other images than those of three channels.
        headless: Whether it has RegNets without a classifier.
        stage_counts: How many stages it builds, if it builds them from the linear rule alone.
        padding: How all of its networks pad what they convolve.
        wider: Fields of the configuration beyond transformers' that its networks may differ in.
        anynet: Those of them that any of its networks can have, beside the others of networks
            that it knows: shapes show them, or ``says`` has a word.
        dialect: Gives its names of a network, where not all of its networks have those of
            ``keymap``.
        knows: Gives its name of a network that it has although no rule is found for it.
        otherwise: Gives what of a network its code builds in other sizes, in words, where none of
            the above says so.
    """

    keymap: Keymap
    title: str
    package: str
    preprocessing: Preprocessing
    read: Callable[[Found], Source]
    prefers_ema: bool = False
    ema_keys: frozenset[str] = EMA_KEYS
    layout: TensorLayout = TORCH
    states_evaluation: bool = True
    build: Callable[[Source, Checkpoint], RealNetwork] | None = None
    write: Callable[[Path, Network], None] | None = None
    says: Says = field(default_factory=dict)
    says_of_images: frozenset[str] = frozenset()
    loads_folder: bool = False
    shortcut_last: bool = False
    lacks: Mapping[str, str] = field(default_factory=dict)
    dtypes: frozenset[str] = frozenset(DTYPES)
    needs: tuple[str, str] | None = None
    squeeze: Callable[[int], int] = squeeze_width
    always_squeezes_with_relu: bool = False
    stem_width: int | None = None
    any_channels: bool = False
    headless: bool = False
    stage_counts: range | None = None
    padding: Padding = "symmetric"
    wider: frozenset[str] = frozenset()
    anynet: frozenset[str] = frozenset()
    dialect: Callable[[RegNetConfig], Keymap] | None = None
    knows: Callable[[RegNetConfig], str | None] = lambda _: None
    otherwise: Callable[[RegNetConfig], Iterable[str]] = lambda _: ()

    @property
    def how_to_install(self) -> str:
        """The command that brings its own networks."""
        return f"pip install {self.package.replace('_', '-')}"

    def require_expressible(
        self, config: RegNetConfig, where: str, dtype: str = DEFAULT, *, has_classifier: bool
    ) -> None:
        """Check that the framework's own code can be a network, which messages call ``where``.

        Args:
            config: Of the network.
            where: What messages call it.
            dtype: What its weights are stored in.
            has_classifier: Whether it has one, or is a trunk alone.

        Raises:
            InputError: Naming the first feature that stands in the way.
            StorageError: A package is missing that writes its file.
        """
        if self.needs:
            require_extra(*self.needs, f"{self.keymap.framework}'s files are written with it")
        if dtype not in self.dtypes:
            raise InputError(
                f"{where} cannot be written for {self.keymap.framework} in {dtype}, which its file "
                "has no type for; add --dtype float32."
            )
        obstacle = next(self._obstacles(config, has_classifier=has_classifier), None)
        if obstacle:
            raise InputError(
                f"{where} cannot be written for {self.keymap.framework}: {obstacle}; choose "
                "another framework with --to."
            )

    def keymap_of(self, config: RegNetConfig) -> Keymap:
        """Its names of a network."""
        return self.dialect(config) if self.dialect else self.keymap

    def _obstacles(self, config: RegNetConfig, *, has_classifier: bool) -> Iterator[str]:
        name = self.keymap.framework
        if config.padding != self.padding:
            yield f"its padding is {config.padding}, that of {name} {self.padding}"
        if (others := self._others(config)) and self.wider and self.knows(config):
            return
        if others:
            field_, value = next(iter(others.items()))
            yield f"its {field_} is {value}, and no {name} network that is known has that"
            return
        if config.layer_type in self.lacks:
            yield f"it is a RegNet{config.layer_type.upper()}, and {self.lacks[config.layer_type]}"
        elif config.layer_type == "y":
            yield from self._squeeze_obstacles(config)
        if config.num_channels != len(IMAGENET_MEAN) and not self.any_channels:
            yield f"it takes {config.num_channels} channels, and the stem of {name} takes three"
        if self.stem_width not in {None, config.embedding_size}:
            yield f"its stem has {config.embedding_size} channels, that of {name} {self.stem_width}"
        if not (has_classifier and config.num_labels):
            yield from self._headless_obstacles(config)
        yield from self._invisible_obstacles(config)
        if self.stage_counts:
            yield from self._rule_obstacles(config, self.stage_counts)
        yield from self.otherwise(config)

    def _others(self, config: RegNetConfig) -> dict[str, Any]:
        """What of the network neither transformers' configuration nor any AnyNet's can say."""
        said = {"padding", *self.anynet}
        return {name: one for name, one in config.wider_fields().items() if name not in said}

    def _headless_obstacles(self, config: RegNetConfig) -> Iterator[str]:
        name = self.keymap.framework
        if not self.headless:
            yield f"it has no classifier, and every RegNet of {name} has one"
        if config.head_size:
            yield f"it has a convolution behind its stages, and a trunk of {name} alone has none"

    def _squeeze_obstacles(self, config: RegNetConfig) -> Iterator[str]:
        within = (
            w for w, depth in zip(config.hidden_sizes, config.depths, strict=True) if depth > 1
        )
        for width in (config.embedding_size, *config.hidden_sizes[:-1], *within):
            if self.squeeze(width) != squeeze_width(width):
                yield (
                    f"a block of {width} channels squeezes to {squeeze_width(width)}, and one of "
                    f"{self.keymap.framework} to {self.squeeze(width)}"
                )

    def _invisible_obstacles(self, config: RegNetConfig) -> Iterator[str]:
        """Obstacles in what the tensors do not show."""
        name = self.keymap.framework
        # Most frameworks squeeze with the same activation, which transformers' network never does.
        own_act = self.always_squeezes_with_relu or "se_act" in self.anynet
        is_relu = config.layer_type == "y" and not own_act
        activations = {"relu"} if is_relu else self._sayable("hidden_act", "relu")
        if config.hidden_act not in activations:
            yield f"its activation is {config.hidden_act}, which no {name} file can say of it"
        if "strides" not in self.anynet and config.downsample_in_first_stage not in self._sayable(
            "downsample_in_first_stage", True
        ):
            yield f"its first stage does not downsample, which no {name} file can say"
        always = {"hidden_act", "downsample_in_first_stage"}
        for field_ in spoken(self.says, config, self.anynet | always)[1]:
            value = getattr(config, field_)
            yield f"its {field_} is {value}, which no {name} file can say beside all else of it"

    def _sayable(self, name: str, default: object) -> set[object]:
        """The values of a field of the configuration that its file can say."""
        return set(self.says[name].ours.values()) if name in self.says else {default}

    def _rule_obstacles(self, config: RegNetConfig, stage_counts: range) -> Iterator[str]:
        name, stages = self.keymap.framework, len(config.depths)
        if stages not in stage_counts:
            yield f"it has {stages} stages, and {name} builds {_in_words(stage_counts)}"
        elif not (rule_of(config) or self.knows(config)):
            yield (
                f"{name} builds stages from the quantised linear rule, which gives no widths "
                f"{_join(config.hidden_sizes)} at depths {_join(config.depths)}"
            )


def _join(numbers: Iterable[int]) -> str:
    return "/".join(map(str, numbers))


def _in_words(counts: range) -> str:
    return f"{counts[0]} to {counts[-1]}" if len(counts) > 1 else str(counts[0])


@dataclass(frozen=True)
class Found:
    """A checkpoint with networks of a framework, for its reader.

    Attributes:
        family: The framework, and the rules by which it is read.
        checkpoint: The open file or folder.
        states: The state dicts of this framework found in it; at least one.
        options: What the user decided.
    """

    family: Family
    checkpoint: Checkpoint
    states: Sequence[StateDict]
    options: SourceOptions

    @property
    def where(self) -> str:
        """What error messages call the checkpoint."""
        return self.checkpoint.path.name

    @property
    def tree(self) -> Any:
        """What the checkpoint holds."""
        return self.checkpoint.tree

    def by(self, **rules: Any) -> Found:
        """The same, read by other rules: fields of the family."""
        return replace(self, family=replace(self.family, **rules))


@dataclass(frozen=True)
class Network:
    """A converted network, read under the names of a framework.

    Attributes:
        target: The framework whose names these are.
        checkpoint: The folder's weights, open.
        stored: Those weights, by the reference's names.
        config: The architecture.
        has_classifier: Whether it has one, or is a trunk alone.
        stated: The evaluation transform; None if images are not resized.
        where: What messages call the folder.
    """

    target: Family
    checkpoint: Checkpoint
    stored: Mapping[str, StoredTensor]
    config: RegNetConfig
    has_classifier: bool
    stated: EvalTransform | None
    where: str

    @property
    def transform(self) -> EvalTransform:
        """The evaluation transform that the folder states.

        Raises:
            InputError: If there is none: its images are not resized.
        """
        if self.stated is None:
            raise InputError(
                f"{self.where} takes images as they are (do_resize is false in its "
                f"preprocessor_config.json), which no {self.target.keymap.framework} file can say; "
                "set do_resize to true."
            )
        return self.stated

    @property
    def keymap(self) -> Keymap:
        """The target's names."""
        return self.target.keymap_of(self.config)

    @cached_property
    def tensors(self) -> dict[str, StoredTensor]:
        """The target's name to where the tensor lies, in its layout and its state dict's order."""
        slots = Architecture.of(self.config, classifier=self.has_classifier).slots
        keymap, layout = self.keymap, self.target.layout
        return {
            keymap.spell(slot.role, slot.fields): layout.theirs(self.stored[slot.name])
            for slot in sorted(slots, key=self._place)
            if keymap.leaves.count_batches or not slot.is_counter
        }

    def _place(self, slot: Slot) -> tuple[int, int, int, bool]:
        """What tensors are sorted by; within a block, all but the shortcut keep their order."""
        outside = {"stem": 0, "stems": 0, "head": 2, "classifier": 3}
        part = outside.get(slot.role.partition(".")[0], 1)
        last = self.target.shortcut_last and slot.role.startswith("shortcut")
        fields = slot.fields
        return part, int(fields.get("stage", 0)), int(fields.get("block", 0)), last

    def array(self, name: str) -> Array:
        """A tensor by its name, for those writers whose files are trees of arrays."""
        tensor = self.tensors[name]
        return Array(tensor.dtype, tensor.shape, partial(self.chunks, name))

    def chunks(self, name: str) -> Iterable[bytes]:
        """The bytes of a tensor as the target has them, by its name: a stem for BGR is flipped."""
        flips = (
            self.target.preprocessing.channel_order == "bgr"
            and self.config.num_channels == len(IMAGENET_MEAN)
        )
        first = Architecture.of(self.config).slots[0]
        is_stem = name == self.keymap.spell(first.role, first.fields)
        axis = self.target.layout.input_axis
        return tensor_chunks(self.checkpoint, self.tensors[name], flip=flips and is_stem, axis=axis)

    def write(self, path: Path) -> None:
        """Make the framework's own file or folder, at a path that does not exist yet.

        Raises:
            InputError: If nothing is written for it, or it cannot say what the folder says.
            OSError: If it cannot be written.
        """
        if self.target.write is None:
            raise InputError(f"{self.where} cannot be written for {self.target.title}.")
        self.target.write(path, self)

    def state_dict(self) -> OrderedDict[str, Value]:
        """All tensors, ready to be pickled; where the target nests them is its own affair."""
        return OrderedDict(
            (name, PickledTensor(str(key), name, tensor, tensor.dtype))
            for key, (name, tensor) in enumerate(self.tensors.items())
        )

    def save(self, path: Path, tree: dict[str, Value]) -> None:
        """Write a zip as ``torch.save`` does, the same bytes every time.

        Args:
            path: Created or replaced.
            tree: What ``torch.load`` is to give; its tensors are those of :meth:`state_dict`.

        Raises:
            InputError: If a tensor is of a dtype that no RegNet computes in.
            OSError: If the file cannot be written.
        """
        elements = ((tensor.nbytes, self.chunks(name)) for name, tensor in self.tensors.items())
        save_archive(path, tree, elements)

    def save_safetensors(self, path: Path, made_for: str = "pt") -> None:
        """Write all tensors as safetensors, the same bytes every time.

        Args:
            path: Created or replaced.
            made_for: Whose the file says that it is; "pt" is torch.

        Raises:
            OSError: If the file cannot be written.
        """
        specs = [TensorSpec(name, t.dtype, t.shape) for name, t in self.tensors.items()]
        write_file(path, specs, lambda spec: self.chunks(spec.name), made_for)


def write_flat(path: Path, network: Network) -> None:
    """Write a file of nothing but tensors; for :attr:`Family.write`."""
    network.save(path, network.state_dict())


def tensor_chunks(
    checkpoint: Checkpoint, tensor: StoredTensor, *, flip: bool, axis: int = 1
) -> Iterable[bytes]:
    """The bytes of a tensor, one of its axes reversed if ``flip``."""
    if not flip:
        return checkpoint.chunks(tensor)
    reverse = (*[slice(None)] * axis, slice(None, None, -1))
    return [checkpoint.array(tensor)[reverse].tobytes()]
