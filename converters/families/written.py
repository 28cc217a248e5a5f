"""A converted folder under another framework's names, in that framework's order and pixels."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from converters.checkpoint.torch_archive import TorchArchive
from converters.checkpoint.torch_pickle import PickledTensor, opcodes, program
from converters.errors import InputError
from converters.families.linear_rule import LinearRule, rule_of
from converters.families.reference_keymap import REFERENCE
from converters.families.source import EvalTransform
from regnet.architecture import BASE_PREFIX
from regnet.config import group_count
from regnet.imagenet import IMAGENET_MEAN

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path
    from typing import BinaryIO

    from converters.checkpoint import AnyCheckpoint, StoredTensor
    from converters.checkpoint.torch_pickle import Value
    from converters.families.keymap import Fields
    from converters.families.target import Target
    from converters.folder.folder import ConvertedFolder
    from regnet.config import RegNetConfig

_ARCHIVE_ROOT = "archive"
_ARCHIVE_VERSION = b"3\n"
"""Of torch's zip container, since torch 1.6; see its ``caffe2/serialize/versions.h``."""


@dataclass(frozen=True)
class Network:
    """A converted folder, read under the names of a target.

    Attributes:
        folder: The converted folder.
        checkpoint: Its weights, open.
        target: Whose names.
    """

    folder: ConvertedFolder
    checkpoint: AnyCheckpoint
    target: Target

    @property
    def config(self) -> RegNetConfig:
        """The architecture."""
        return self.folder.config

    @property
    def rule(self) -> LinearRule:
        """The linear rule behind the stages; there is one, or the target was refused."""
        rule = rule_of(self.config)
        assert rule is not None  # noqa: S101 -- see Target.require_expressible
        return rule

    @property
    def group_widths(self) -> list[int]:
        """Channels per group of each stage."""
        widths = self.config.hidden_sizes
        return [width // group_count(width, self.config.groups_width) for width in widths]

    @cached_property
    def transform(self) -> EvalTransform:
        """The evaluation transform that the folder states.

        Raises:
            InputError: If there is none: its images are not resized.
        """
        if not self.is_resized:
            raise InputError(
                f"{self.folder.path.name} takes images as they are (do_resize is false in its "
                f"preprocessor_config.json), which no {self.target.keymap.framework} file can say; "
                "set do_resize to true."
            )
        return EvalTransform.of(self.folder.processor).for_channels(self.config.num_channels)

    @property
    def is_resized(self) -> bool:
        """Whether the folder has images resized; else it states no transform."""
        return self.folder.processor.do_resize

    @cached_property
    def tensors(self) -> dict[str, StoredTensor]:
        """The target's name to where the tensor lies, in the order of its state dict."""
        expected = self.folder.architecture.tensors(classifier=self.folder.has_classifier)
        parsed = {ours: _parse(ours) for ours, _ in expected}
        in_order = sorted(parsed, key=lambda ours: self._place(*parsed[ours]))
        keymap = self.target.keymap
        return {keymap.spell(*parsed[ours]): self.folder.tensors[ours] for ours in in_order}

    def _place(self, role: str, fields: Fields) -> tuple[int, int, int, bool]:
        """What tensors are sorted by; within a block, all but the shortcut keep their order."""
        outside = {"stem": 0, "classifier": 2}
        part = outside.get(role.partition(".")[0], 1)
        last = self.target.shortcut_last and role.startswith("shortcut")
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


def _parse(name: str) -> tuple[str, Fields]:
    parsed = REFERENCE.parse(name.removeprefix(BASE_PREFIX))
    if parsed is None:
        raise InputError(
            f"The folder holds {name}, which no RegNet has; convert the checkpoint again."
        )
    return parsed
