"""A folder's signature: model_signing itself is the oracle, in both directions."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from converters.errors import ConversionError, InputError, StorageError
from converters.folder.signature import PASSWORD, SIGNATURE_NAME, check_signature, sign_folder
from tests.converters.cli.running import assert_one_sentence, regnet
from tests.converters.demo import snapshot

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes

pytest.importorskip("model_signing", reason="of the extra `signing`")

from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

GIT = (".gitattributes", ".git/config")
"""What a signature leaves out: model_signing does, and the Hub adds the first to a repository."""


def write_keys(folder: Path, name: str, key: PrivateKeyTypes, password: str = "") -> None:
    lock = BestAvailableEncryption(password.encode()) if password else NoEncryption()
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, lock)
    public = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    (folder / f"{name}.pem").write_bytes(private)
    (folder / f"{name}.pub").write_bytes(public)


@pytest.fixture(scope="session")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with pairs of keys, ``NAME.pem`` and ``NAME.pub``."""
    folder = tmp_path_factory.mktemp("keys")
    curves = {"key": ec.SECP256R1(), "other": ec.SECP256R1(), "p384": ec.SECP384R1()}
    for name, curve in {**curves, "p521": ec.SECP521R1(), "k1": ec.SECP256K1()}.items():
        write_keys(folder, name, ec.generate_private_key(curve))
    write_keys(folder, "locked", ec.generate_private_key(ec.SECP256R1()), "sesame")
    write_keys(folder, "ed25519", ed25519.Ed25519PrivateKey.generate())
    write_keys(folder, "rsa", rsa.generate_private_key(65537, 2048))
    return folder


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """A folder of a few files, two of them in folders of their own."""
    folder = tmp_path / "out"
    for name in ("config.json", "model.safetensors", "onnx/model.onnx", "a/b/c.txt", *GIT):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name)
    return folder


@pytest.fixture
def signed(small: Path, keys: Path) -> Path:
    assert sign_folder(small, keys / "key.pem").files == 4
    return small


def model_signing(verb: str, folder: Path, *key: str | Path) -> subprocess.CompletedProcess[str]:
    """Run model_signing's own command on a folder."""
    signature = folder / SIGNATURE_NAME
    options = (verb, "key", folder, "--signature", signature, *key)
    command = [sys.executable, "-m", "model_signing", *options]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("curve", ["key", "p384", "p521"])
def test_model_signing_verifies_what_was_signed_here(small: Path, keys: Path, curve: str) -> None:
    sign_folder(small, keys / f"{curve}.pem")
    done = model_signing("verify", small, "--public_key", keys / f"{curve}.pub")
    assert done.returncode == 0, done.stderr
    (small / "config.json").write_text("changed")
    done = model_signing("verify", small, "--public_key", keys / f"{curve}.pub")
    assert done.returncode == 1


def test_what_model_signing_signed_verifies_here(small: Path, keys: Path) -> None:
    done = model_signing("sign", small, "--private_key", keys / "key.pem")
    assert done.returncode == 0, done.stderr
    assert check_signature(small, keys / "key.pub").passed
    (small / "config.json").write_text("changed")
    assert not check_signature(small, keys / "key.pub").passed


def add(name: str) -> Callable[[Path], object]:
    return lambda folder: (folder / name).write_text("new")


def flip(name: str) -> Callable[[Path], object]:
    def change(folder: Path) -> None:
        content = bytearray((folder / name).read_bytes())
        content[len(content) // 2] ^= 1
        (folder / name).write_bytes(content)

    return change


CHANGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "a bit": (flip("a/b/c.txt"), "a/b/c.txt was changed after it was signed"),
    "a byte more": (add("config.json"), "config.json was changed after it was signed"),
    "a file more": (add("pytorch_model.bin"), "pytorch_model.bin is not signed"),
    "a hidden file more": (add(".hidden"), ".hidden is not signed"),
    "a signature in a folder": (add(f"a/{SIGNATURE_NAME}"), f"a/{SIGNATURE_NAME} is not signed"),
    "git's files in a folder": (add("a/.gitattributes"), "a/.gitattributes is not signed"),
    "a file less": (lambda f: (f / "onnx/model.onnx").unlink(), "onnx/model.onnx is missing"),
    "a folder less": (lambda f: shutil.rmtree(f / "a"), "a/b/c.txt is missing"),
    "another name": (lambda f: (f / "a").rename(f / "z"), "z/b/c.txt is not signed"),
    "no signature": (lambda f: (f / SIGNATURE_NAME).unlink(), f"{SIGNATURE_NAME} is missing"),
    "half a signature": (
        lambda f: (f / SIGNATURE_NAME).write_bytes((f / SIGNATURE_NAME).read_bytes()[:500]),
        f"{SIGNATURE_NAME} is damaged or was made with another key",
    ),
}


@pytest.mark.parametrize("change", CHANGES)
def test_any_change_is_found_and_named(change: str, signed: Path, keys: Path) -> None:
    make, problem = CHANGES[change]
    assert check_signature(signed, keys / "key.pub").passed
    make(signed)
    found = check_signature(signed, keys / "key.pub")
    assert not found.passed
    assert problem in found.problems


def test_every_bit_of_a_signature_that_is_changed_fails_or_changes_nothing_it_states(
    signed: Path, keys: Path
) -> None:
    path = signed / SIGNATURE_NAME
    content = path.read_bytes()
    passing = []
    for at in range(0, len(content), 41):
        changed = bytearray(content)
        changed[at] ^= 1
        path.write_bytes(changed)
        if check_signature(signed, keys / "key.pub").passed:
            passing.append(at)
    stated = json.loads(content)
    for at in passing:
        changed = bytearray(content)
        changed[at] ^= 1
        envelope = json.loads(changed)["dsseEnvelope"]
        assert envelope["payload"] == stated["dsseEnvelope"]["payload"]
    assert len(passing) < len(content) / 41 / 20


def edited(signature: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Change what a signature states, and keep the rest."""
    from base64 import b64decode, b64encode

    bundle = json.loads(signature.read_text())
    statement = json.loads(b64decode(bundle["dsseEnvelope"]["payload"]))
    change(statement)
    bundle["dsseEnvelope"]["payload"] = b64encode(json.dumps(statement).encode()).decode()
    signature.write_text(json.dumps(bundle))


def test_a_signature_that_states_something_else_is_not_this_keys(signed: Path, keys: Path) -> None:
    edited(signed / SIGNATURE_NAME, lambda statement: statement["predicate"]["resources"].pop())
    (problem,) = check_signature(signed, keys / "key.pub").problems
    assert "damaged or was made with another key" in problem


def test_another_key_and_its_signature_are_refused(signed: Path, keys: Path) -> None:
    assert not check_signature(signed, keys / "other.pub").passed
    sign_folder(signed, keys / "other.pem")  # an attacker signs anew
    assert not check_signature(signed, keys / "key.pub").passed
    assert check_signature(signed, keys / "other.pub").passed


def test_a_file_that_the_signer_left_out_is_not_signed(small: Path, keys: Path) -> None:
    left_out = ("--ignore-paths", small / "config.json")
    done = model_signing("sign", small, "--private_key", keys / "key.pem", *left_out)
    assert done.returncode == 0, done.stderr
    assert model_signing("verify", small, "--public_key", keys / "key.pub").returncode == 0
    found = check_signature(small, keys / "key.pub")
    assert found.problems == ("config.json is not signed",)


def test_git_may_keep_its_own_files_beside_the_signed_ones(signed: Path, keys: Path) -> None:
    for name in GIT:
        (signed / name).write_text("of another clone")
    assert check_signature(signed, keys / "key.pub").passed


def test_links_to_files_verify_as_in_the_hubs_cache_and_links_to_folders_do_not(
    signed: Path, keys: Path, tmp_path: Path
) -> None:
    blobs = tmp_path / "blobs"
    blobs.mkdir()
    (signed / "config.json").rename(blobs / "1")
    (signed / "config.json").symlink_to(blobs / "1")
    assert check_signature(signed, keys / "key.pub").passed
    with pytest.raises(InputError, match=r"config\.json is a link"):
        sign_folder(signed, keys / "key.pem")
    (signed / "more").symlink_to(blobs)  # no manifest would show what is in there
    with pytest.raises(InputError, match="more is a link"):
        check_signature(signed, keys / "key.pub")


@pytest.mark.parametrize("name", ["rsa", "k1", "ed25519", "locked", "nothing", "text"])
def test_a_key_of_another_kind_is_refused_in_one_sentence(
    name: str, small: Path, keys: Path
) -> None:
    (keys / "text.pem").write_text("no key")
    (keys / "text.pub").write_text("no key")
    before = snapshot(small)
    what = "does not exist" if name == "nothing" else "cannot be used as {} key"
    with pytest.raises(InputError, match=f"{name}.pem:? {what.format('private')}; name a PEM"):
        sign_folder(small, keys / f"{name}.pem")
    if name != "locked":
        with pytest.raises(InputError, match=f"{name}.pub:? {what.format('public')}"):
            check_signature(small, keys / f"{name}.pub")
    assert snapshot(small) == before


def test_the_password_of_a_key_comes_from_the_environment(
    small: Path, keys: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(PASSWORD, "wrong")
    with pytest.raises(InputError, match=f"its password goes into {PASSWORD}"):
        sign_folder(small, keys / "locked.pem")
    monkeypatch.setenv(PASSWORD, "sesame")
    sign_folder(small, keys / "locked.pem")
    assert check_signature(small, keys / "locked.pub").passed


def test_without_model_signing_the_extra_is_named(
    small: Path, keys: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("converters.errors.find_spec", lambda _: None)
    for attempt in (sign_folder, check_signature):
        with pytest.raises(StorageError, match=r"regnet-converters\[signing\]"):
            attempt(small, keys / "key.pem")


def test_a_name_that_no_signature_can_state_is_refused(small: Path, keys: Path) -> None:
    (small / "\udcff").write_text("a byte that is not UTF-8")
    before = snapshot(small)
    with pytest.raises(InputError, match="the name of a file is not UTF-8 text"):
        sign_folder(small, keys / "key.pem")
    assert snapshot(small) == before


def test_a_folder_that_is_none_is_refused(keys: Path, tmp_path: Path) -> None:
    with pytest.raises(ConversionError, match="does not exist"):
        sign_folder(tmp_path / "nothing", keys / "key.pem")


def test_the_commands_sign_and_verify_a_converted_folder(folder: Path, keys: Path) -> None:
    files = len(snapshot(folder))
    here = folder.parent
    finished = regnet("sign", folder.name, "--private-key", keys / "key.pem", "--json", cwd=here)
    assert finished.status == 0, finished.err
    assert json.loads(finished.out) == {
        "schema": 1,
        "signature": SIGNATURE_NAME,
        "files": files,
    }
    key = ("--public-key", keys / "key.pub")
    finished = regnet("verify", folder.name, *key, "--json", "--junit", "junit.xml", cwd=here)
    assert finished.status == 0, finished.err
    assert json.loads(finished.out)["signature"] == {
        "passed": True,
        "files": files,
        "problems": [],
    }
    assert '<testcase classname="moved" name="signature" />' in (here / "junit.xml").read_text()


def test_signing_says_of_what_no_verdict_is_on_record(folder: Path, keys: Path) -> None:
    record = json.loads((folder / "conversion.json").read_text())
    verdicts = record["verification"]["verdicts"]
    record["verification"]["verdicts"] = [v for v in verdicts if v["artefact"] != "model.onnx"]
    (folder / "conversion.json").write_text(json.dumps(record))
    key = ("--private-key", keys / "key.pem")
    finished = regnet("sign", folder.name, *key, cwd=folder.parent)
    assert finished.status == 0, finished.err
    assert "No verdict is on record of model.onnx; run: regnet verify moved" in finished.out

    (folder / "conversion.json").write_text("[" * 100_000)
    sentence = assert_one_sentence(regnet("sign", folder.name, *key, cwd=folder.parent), 2)
    assert "conversion.json is damaged (it is nested too deep)" in sentence


def test_a_folder_whose_signature_fails_is_not_opened(folder: Path, keys: Path) -> None:
    sign_folder(folder, keys / "key.pem")
    (folder / "config.json").write_text("[" * 100_000)
    arguments = ("verify", folder.name, "--public-key", keys / "key.pub", "-q")
    sentence = assert_one_sentence(regnet(*arguments, cwd=folder.parent), 1)
    assert "verification failed: config.json was changed after it was signed." in sentence


@pytest.mark.parametrize("name", ["key.pem", ".git/config", "deep/model.bin"])
def test_a_folder_with_the_private_key_in_it_is_not_signed(
    name: str, small: Path, keys: Path
) -> None:
    (small / name).parent.mkdir(parents=True, exist_ok=True)
    (small / name).write_bytes((keys / "key.pem").read_bytes())
    for key in (keys / "key.pem", small / name):
        with pytest.raises(InputError, match=rf"holds its private key \({name}\)"):
            sign_folder(small, key)
    assert not (small / "model.sig").exists()
    (small / name).unlink()
    sign_folder(small, keys / "key.pem")
