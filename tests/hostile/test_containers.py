"""6 to 20: containers that are something else, damaged, or read differently by others."""

from __future__ import annotations

import gzip
import io
import lzma
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch

from tests.converters.checkpoint.archives import Made, two_directories
from tests.converters.checkpoint.files import in_zip, tensor_pickle, zip_of
from tests.converters.checkpoint.programs import entries_of, packed
from tests.converters.checkpoint.test_wrong_files import tar_bytes
from tests.converters.checkpoint.test_zip_refusals import encrypted

if TYPE_CHECKING:
    from tests.hostile.victim import Victim

GOOD = tensor_pickle()
EVIL = b"\x80\x02cposix\nsystem\nX\x09\x00\x00\x00touch ran\x85R."


def storage_offset(path: Path) -> int:
    """Where the first large storage of a checkpoint begins, in bytes."""
    with zipfile.ZipFile(path) as archive:
        entry = next(e for e in archive.infolist() if "/data/" in e.filename and e.file_size > 1000)
    header = path.read_bytes()[entry.header_offset :][:30]
    sizes = (int.from_bytes(header[at : at + 2], "little") for at in (26, 28))
    return entry.header_offset + 30 + sum(sizes)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_06_a_torchscript_archive(victim: Victim) -> None:
    trace: Any = torch.jit.trace
    trace(torch.nn.Linear(2, 2).eval(), torch.ones(1, 2)).save("model.pyth")
    victim.refused(2)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_07_an_exported_program_and_a_torch_package(victim: Victim) -> None:
    program = torch.export.export(torch.nn.Linear(2, 2).eval(), (torch.ones(1, 2),))
    torch.export.save(program, "model.pt2")
    victim.refused(2, "convert", "model.pt2", "out", "-q")
    honest = entries_of(Path("model.pt2"))
    for name, content in (("data/sample_inputs/model.pt", EVIL), ("data/aotinductor/m.so", b"")):
        packed(Path("model.pt2"), {**honest, name: content})
        victim.refused(3, "convert", "model.pt2", "out", "-q")
    package: Any = torch.package
    with package.PackageExporter("package.pt") as exporter:
        exporter.save_pickle("weights", "data.pkl", {"a": 1})
    victim.refused(3, "convert", "package.pt", "out", "-q")


def test_08_a_tar_archive_of_torch_before_0_2(victim: Victim) -> None:
    victim.put(tar_bytes())
    victim.refused(2)


def test_09_a_stream_of_torch_before_1_6_converts(victim: Victim, tree: dict[str, Any]) -> None:
    torch.save(tree, "old.pyth", _use_new_zipfile_serialization=False)
    torch.save(tree, "new.pyth")
    old, new = victim.converted("old.pyth"), victim.converted("new.pyth")
    weights = "model.safetensors"
    assert (old / weights).read_bytes() == (new / weights).read_bytes()


def test_10_one_flipped_bit_in_a_weight(victim: Victim, saved: Path) -> None:
    content = bytearray(saved.read_bytes())
    content[storage_offset(saved) + 500] ^= 1
    path = victim.put(bytes(content))
    assert torch.load(path, weights_only=True)  # which does not see it
    sentence = victim.refused(2)
    assert "checksum" in sentence


def test_11_a_truncated_file(victim: Victim) -> None:
    whole = in_zip(GOOD)
    victim.put(whole[: len(whole) // 2])
    victim.refused(2)


def test_12_an_empty_file(victim: Victim) -> None:
    victim.put(b"")
    victim.refused(2)


def test_13_a_web_page_and_a_server_s_error(victim: Victim) -> None:
    victim.put(b"<!DOCTYPE html><html><body>404</body></html>")
    victim.refused(2)
    victim.put(b'{"error": "Invalid credentials"}')
    victim.refused(2)


def test_14_a_pointer_of_git_lfs_or_xet(victim: Victim) -> None:
    victim.put(b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n")
    victim.refused(2)
    victim.put(b"# xet version 0\nfilesize = 1\nhash = '00'\n")
    victim.refused(2)


def test_15_a_compressed_file(victim: Victim, saved: Path) -> None:
    for compress in (gzip.compress, lzma.compress):
        victim.put(compress(saved.read_bytes()))
        victim.refused(2)
        victim.put(compress(EVIL))
        victim.refused(3)


def test_16_compressed_entries_and_a_zip_bomb(victim: Victim) -> None:
    victim.put(zip_of({"archive/data.pkl": GOOD}, zipfile.ZIP_DEFLATED))
    victim.refused(2)
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr("archive/data.pkl", GOOD)
        archive.writestr("archive/data/0", bytes(50_000_000), zipfile.ZIP_DEFLATED)
    victim.put(buffer.getvalue())  # 49 kB
    victim.refused(2)


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_17_two_entries_of_one_name_and_headers_that_disagree(victim: Victim) -> None:
    buffer = io.BytesIO(in_zip(GOOD))
    with zipfile.ZipFile(buffer, "a") as archive:
        archive.writestr("archive/data.pkl", GOOD)
    victim.put(buffer.getvalue())
    victim.refused(3)
    victim.put(in_zip(GOOD).replace(b"archive/data/0", b"archive/data/1", 1))
    victim.refused(3)
    names = (b"a/data.pkl", b"a/version")
    versions = [[Made(n, c) for n, c in zip(names, (p, b"3"), strict=True)] for p in (EVIL, GOOD)]
    victim.put(two_directories(*versions))
    victim.refused(3)
    victim.refused(3, "inspect", "--security", "model.pyth")


def test_18_the_flag_of_encryption(victim: Victim) -> None:
    victim.put(encrypted(in_zip(GOOD)))
    victim.refused(2)


def test_19_entries_whose_names_lead_elsewhere(victim: Victim) -> None:
    for name in ("../../x", "..\\x", "C:/x"):
        victim.put(zip_of({"archive/data.pkl": GOOD, name: b""}))
        victim.refused(3)
    victim.put(zip_of({"/data.pkl": GOOD}))
    victim.refused(3)


def test_20_two_folders_with_a_pickle_each(victim: Victim) -> None:
    victim.put(zip_of({"a/data.pkl": GOOD, "b/data.pkl": GOOD}))
    victim.refused(3)
