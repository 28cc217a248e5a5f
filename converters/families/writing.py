"""A converted folder under another framework's names, in that framework's order and pixels."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from converters.checkpoint.torch_archive import TorchArchive
from converters.checkpoint.torch_pickle import PickledTensor, opcodes, program
from converters.errors import InputError
from regnet.architecture import Architecture
from regnet.config import IMAGENET_MEAN

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path
    from typing import BinaryIO

    from converters.checkpoint import AnyCheckpoint, StoredTensor
    from converters.checkpoint.torch_pickle import Value
    from converters.families.family import Family
    from converters.families.source import EvalTransform
    from regnet.architecture import Slot
    from regnet.config import RegNetConfig

_ARCHIVE_ROOT = "archive"
_ARCHIVE_VERSION = b"3\n"
"""Of torch's zip container, since torch 1.6; see its ``caffe2/serialize/versions.h``."""


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
        flips = (
            self.target.preprocessing.channel_order == "bgr"
            and self.config.num_channels == len(IMAGENET_MEAN)
        )
        is_stem = name == self.target.keymap.spell("stem.conv", {})
        return tensor_chunks(self.checkpoint, self.tensors[name], flip=flips and is_stem)

    def write(self, path: Path) -> None:
        """Make the framework's own file or folder.

        Args:
            path: What does not exist yet.

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
