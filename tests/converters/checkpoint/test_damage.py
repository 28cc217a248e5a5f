"""What was cut short or changed on its way is noticed, and never breaks the reader."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save as safetensors_bytes

from converters.checkpoint import StoredTensor, open_checkpoint
from converters.errors import ConversionError, InputError, UnsafeInputError
from tests.converters.checkpoint.compare import LAYOUTS
from tests.converters.checkpoint.files import TREE, refusal, saved

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_truncation_is_refused(layout: str, tmp_path: Path) -> None:
    content = saved(TREE, layout)
    for size in range(1, len(content), 3):
        message = refusal(content[:size], tmp_path)
        assert "truncated" in message or size < len("PK\x03\x04")


def test_a_truncated_legacy_file_says_how_much_is_missing(tmp_path: Path) -> None:
    content = saved(TREE, "legacy")
    message = refusal(content[:-10], tmp_path)
    assert f"it has {len(content) - 10} bytes and should have {len(content)}" in message
    message = refusal(content + b"x", tmp_path)
    assert f"goes on behind its end, it has {len(content) + 1} bytes" in message


def test_a_legacy_storage_of_another_size_is_refused(tmp_path: Path) -> None:
    content = saved({"t": torch.zeros(6)}, "legacy")
    message = refusal(content[:-32] + (5).to_bytes(8, "little") + bytes(24), tmp_path)
    assert "has 5 elements where its tensors say 6" in message


def test_a_legacy_storage_of_two_sizes_is_refused(tmp_path: Path) -> None:
    content = saved({"a": (base := torch.zeros(6)), "b": base[1:]}, "legacy")
    second = content.rindex(b"K\x06Nt")  # ("storage", FloatStorage, key, "cpu", 6, None)
    changed = content[:second] + b"K\x07Nt" + content[second + 4 :]
    assert "with two sizes" in refusal(changed, tmp_path)


def content_of(path: Path) -> tuple[object, bytes]:
    """Return all that a reader takes from a file: its values, and the bytes of its tensor."""
    with open_checkpoint(path) as checkpoint:
        tree: Any = checkpoint.tree
        tensor = tree["weight"]
        assert isinstance(tensor, StoredTensor)
        about = tensor.dtype, tensor.shape, tensor.stride
        return (list(tree), tree["epoch"], about), b"".join(checkpoint.chunks(tensor))


def test_no_flipped_bit_of_a_zip_goes_unnoticed(tmp_path: Path) -> None:
    content = saved(TREE)
    path = tmp_path / "a.pth"
    path.write_bytes(content)
    expected = content_of(path)
    refused = 0
    for position in range(len(content)):
        changed = bytearray(content)
        changed[position] ^= 1 << position % 8
        path.write_bytes(changed)
        try:
            assert content_of(path) == expected
        except ConversionError:
            refused += 1
    # The rest is padding, times, and entries that say nothing about the content.
    assert refused > len(content) // 4


@pytest.mark.parametrize("layout", [*LAYOUTS, "safetensors"])
@given(data=st.data())
@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_a_mutated_file_opens_or_is_refused_but_never_breaks_the_reader(
    data: st.DataObject, layout: str, tmp_path: Path
) -> None:
    weight = {"weight": TREE["weight"]}
    content = bytearray(
        safetensors_bytes(weight) if layout == "safetensors" else saved(TREE, layout)
    )
    for _ in range(data.draw(st.integers(1, 4))):
        position = data.draw(st.integers(0, len(content) - 1))
        content[position : position + data.draw(st.integers(0, 8))] = data.draw(
            st.binary(max_size=8)
        )
    path = tmp_path / "a.pth"
    path.write_bytes(content)
    message = ""
    try:
        with open_checkpoint(path) as checkpoint:
            tree = checkpoint.tree
            for value in tree.values() if isinstance(tree, dict) else []:
                if isinstance(value, StoredTensor) and value.nbytes < 1 << 20:
                    checkpoint.array(value)
    except (InputError, UnsafeInputError) as error:
        message = str(error)
    assert message.isprintable()
    assert not message or message.endswith(".")
