"""A converted folder written back: what a framework can be, and its names, order and pixels."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

from converters.checkpoint.torch_archive import TorchArchive
from converters.checkpoint.torch_pickle import PickledTensor, opcodes, program
from converters.errors import InputError
from converters.families.linear_rule import rule_of
from regnet.architecture import Architecture
from regnet.config import IMAGENET_MEAN

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from pathlib import Path
    from typing import BinaryIO

    from converters.checkpoint import AnyCheckpoint, StoredTensor
    from converters.checkpoint.torch_pickle import Value
    from converters.families.keymap import Keymap
    from converters.families.source import ChannelOrder, EvalTransform
    from converters.families.words import Says
    from regnet.architecture import Slot
    from regnet.config import RegNetConfig

_ARCHIVE_ROOT = "archive"
_ARCHIVE_VERSION = b"3\n"
"""Of torch's zip container, since torch 1.6; see its ``caffe2/serialize/versions.h``."""


@dataclass(frozen=True, slots=True)
class Target:
    """A framework that a converted folder can be written back for.

    The rest of the attributes say what its own code can build; files that it could not load
    strictly are not written.

    Attributes:
        keymap: Its names.
        write: Makes its file or folder at a path that does not exist yet.
        is_folder: Whether it loads a folder, or a single file.
        channel_order: Of the images that its own loaders feed.
        shortcut_last: Whether a block's shortcut follows its layers in the state dict.
        has_attention: Whether it has RegNetY.
        any_channels: Whether its stem takes other images than those of three channels.
        headless: Whether it has RegNets without a classifier.
        says: Its words for what shapes cannot say; what it has no word for is as in the reference
            by default.
        evaluation: The fields of the evaluation transform that its file says; whoever loads it must
            know the others.
        stage_counts: How many stages it builds, if it builds them from the linear rule alone.
        knows: Gives its name of a network that it has although no rule is found for it.
    """

    keymap: Keymap
    write: Callable[[Path, Network], None]
    is_folder: bool = False
    channel_order: ChannelOrder = "rgb"
    shortcut_last: bool = False
    has_attention: bool = True
    any_channels: bool = False
    headless: bool = False
    says: Says = field(default_factory=dict)
    evaluation: frozenset[str] = frozenset()
    stage_counts: range | None = None
    knows: Callable[[RegNetConfig], str | None] = lambda _: None

    def require_expressible(
        self, config: RegNetConfig, where: str, *, has_classifier: bool
    ) -> None:
        """Check that the framework's own code can be this network.

        Args:
            config: Its architecture.
            where: What the message calls it.
            has_classifier: Whether it has one, or is a trunk alone.

        Raises:
            InputError: Naming the first feature that stands in the way.
        """
        obstacle = next(self._obstacles(config, has_classifier=has_classifier), None)
        if obstacle:
            raise InputError(
                f"{where} cannot be written for {self.keymap.framework}: {obstacle}; choose "
                "another framework with --to."
            )

    def _obstacles(self, config: RegNetConfig, *, has_classifier: bool) -> Iterator[str]:
        name = self.keymap.framework
        if config.layer_type == "y" and not self.has_attention:
            yield f"it is a RegNetY, and {name} has RegNetX only"
        if config.num_channels != len(IMAGENET_MEAN) and not self.any_channels:
            yield f"it takes {config.num_channels} channels, and the stem of {name} takes three"
        if not (has_classifier and config.num_labels) and not self.headless:
            yield f"it has no classifier, and every RegNet of {name} has one"
        yield from self._invisible_obstacles(config)
        if self.stage_counts:
            yield from self._rule_obstacles(config, self.stage_counts)

    def _invisible_obstacles(self, config: RegNetConfig) -> Iterator[str]:
        """Obstacles in what the tensors do not show."""
        name = self.keymap.framework
        has_attention = config.layer_type == "y"  # in which frameworks put the same activation
        activations = {"relu"} if has_attention else self._sayable("hidden_act", "relu")
        if config.hidden_act not in activations:
            yield f"its activation is {config.hidden_act}, which no {name} file can say of it"
        if config.downsample_in_first_stage not in self._sayable("downsample_in_first_stage", True):
            yield f"its first stage does not downsample, which no {name} file can say"

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


@dataclass(frozen=True)
class Network:
    """A converted network, read under the names of a target.

    Attributes:
        target: Whose names.
        checkpoint: The folder's weights, open.
        stored: Those weights, by the reference's names.
        config: The architecture.
        has_classifier: Whether it has one, or is a trunk alone.
        stated: The evaluation transform; None if images are not resized.
        where: What messages call the folder.
    """

    target: Target
    checkpoint: AnyCheckpoint
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

    @cached_property
    def tensors(self) -> dict[str, StoredTensor]:
        """The target's name to where the tensor lies, in the order of its state dict."""
        slots = Architecture.of(self.config, classifier=self.has_classifier).slots
        spell = self.target.keymap.spell
        return {
            spell(slot.role, slot.fields): self.stored[slot.name]
            for slot in sorted(slots, key=self._place)
        }

    def _place(self, slot: Slot) -> tuple[int, int, int, bool]:
        """What tensors are sorted by; within a block, all but the shortcut keep their order."""
        outside = {"stem": 0, "classifier": 2}
        part = outside.get(slot.role.partition(".")[0], 1)
        last = self.target.shortcut_last and slot.role.startswith("shortcut")
        fields = slot.fields
        return part, int(fields.get("stage", 0)), int(fields.get("block", 0)), last

    def chunks(self, name: str) -> Iterable[bytes]:
        """The bytes of a tensor as the target has them: a stem for BGR is flipped.

        Args:
            name: The target's.
        """
        flips = self.target.channel_order == "bgr" and self.config.num_channels == len(
            IMAGENET_MEAN
        )
        is_stem = name == self.target.keymap.spell("stem.conv", {})
        return tensor_chunks(self.checkpoint, self.tensors[name], flip=flips and is_stem)

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


def write_flat(path: Path, network: Network) -> None:
    """Write a file of nothing but tensors."""
    network.save(path, network.state_dict())


def save_archive(
    place: Path | BinaryIO,
    tree: dict[str, Value],
    elements: Iterable[tuple[int, Iterable[bytes]]],
) -> None:
    """Write a zip as ``torch.save`` does, front to back.

    Args:
        place: A path, created or replaced; or a file open for writing, which is closed in the end.
        tree: What ``torch.load`` is to give; its tensors are called "0", "1" and so on.
        elements: Of the tensors in that order: how many bytes, and the bytes. Each is asked for
            when the file stands where the bytes belong.

    Raises:
        InputError: If a tensor is of a dtype that no RegNet computes in.
        OSError: If the file cannot be written.
    """
    content = program(opcodes(tree))
    with TorchArchive(place, _ARCHIVE_ROOT) as archive:
        archive.add("data.pkl", len(content), [content])
        archive.add("byteorder", len(b"little"), [b"little"])
        for key, (size, chunks) in enumerate(elements):
            archive.add(f"data/{key}", size, chunks)
        archive.add("version", len(_ARCHIVE_VERSION), [_ARCHIVE_VERSION])


def tensor_chunks(
    checkpoint: AnyCheckpoint, tensor: StoredTensor, *, flip: bool
) -> Iterable[bytes]:
    """The bytes of a tensor, its second axis reversed if ``flip``."""
    if not flip:
        return checkpoint.chunks(tensor)
    return [checkpoint.array(tensor)[:, ::-1].tobytes()]


def _join(numbers: Iterable[int]) -> str:
    return "/".join(map(str, numbers))


def _in_words(counts: range) -> str:
    return f"{counts[0]} to {counts[-1]}" if len(counts) > 1 else str(counts[0])
