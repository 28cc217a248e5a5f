"""A signature over every file of a folder, in the format of model_signing.

The signature states the sha256 of each file, signed with an elliptic-curve key, and lies beside
them. model_signing (https://github.com/sigstore/model-transparency) writes it and checks it; here
is what a signature may leave out, and what differs, in words.
"""

from __future__ import annotations

import json
import os
from base64 import b64decode
from contextlib import redirect_stdout
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from converters.checkpoint.digests import sha256_of
from converters.errors import InputError, StorageError, in_words, printable, require_extra
from converters.staging.staged import staged_file
from regnet.files.reading import open_regular

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

SIGNATURE_NAME = "model.sig"

PASSWORD = "REGNET_KEY_PASSWORD"  # noqa: S105 -- the name of a variable
"""The environment variable with the password of an encrypted private key."""

LEFT_OUT = frozenset({SIGNATURE_NAME, ".git", ".gitattributes", ".github", ".gitignore"})
"""What a signature may leave out, at the top of the folder: itself, and what model_signing does."""

_KEY_FILE = "a PEM file with an elliptic-curve key (P-256, P-384 or P-521)"
_NEED = "signatures are made and checked with it"
_MOST_OF_A_KEY = 1 << 16
"""Bytes; a PEM file of a private key has some hundred."""

_MAX_SIZE = 1 << 24
"""Of a signature, in bytes; one of a thousand files has a quarter of a megabyte."""


@dataclass(frozen=True, slots=True)
class Signature:
    """What a signature says of a folder.

    Attributes:
        files: How many files it covers.
        problems: What is wrong, one clause each.
    """

    files: int
    problems: tuple[str, ...] = ()

    @property
    def passed(self) -> bool:
        """Whether the key signed exactly the files that are there."""
        return not self.problems

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {"passed": self.passed, "files": self.files, "problems": list(self.problems)}


def sign_folder(folder: Path, private_key: Path) -> Signature:
    """Sign every file of a folder; the signature replaces an older one, whole or not at all.

    Args:
        folder: A folder.
        private_key: A PEM file. The password, if it needs one, is in :data:`PASSWORD`.

    Returns:
        What was signed.

    Raises:
        InputError: The key or something in the folder cannot be used.
        StorageError: model_signing is not installed, or a file cannot be read or written.
    """
    require_extra("model_signing", "signing", _NEED)
    from model_signing import signing

    files = _files(folder, links=False)
    _require_elsewhere(private_key, folder)
    password = os.environ.get(PASSWORD)
    config = signing.Config().set_hashing_config(_hashing(links=False))
    try:
        # Its annotation says text, but what it hands the password to takes bytes alone.
        config.use_elliptic_key_signer(
            private_key=private_key, password=password.encode() if password else None
        )
    except Exception as error:  # of three packages; an RSA key, for one, lacks attributes
        raise _bad_key(private_key, "private", f"; its password goes into {PASSWORD}") from error
    with TemporaryDirectory() as place:
        made = Path(place) / SIGNATURE_NAME
        try:
            config.sign(folder, made)
        except OSError as error:
            raise _unreadable(folder, error) from error
        except ValueError as error:
            raise InputError(
                f"{folder}: the name of a file is not UTF-8 text; rename it to sign the folder."
            ) from error
        with staged_file(folder / SIGNATURE_NAME) as staging:
            staging.write_bytes(made.read_bytes())
    return Signature(len(files))


def _require_elsewhere(private_key: Path, folder: Path) -> None:
    """Refuse a folder that holds the key: who gets the folder could sign others.

    Raises:
        InputError: If it does, under whatever name.
    """
    key = _content(private_key)
    others = (path for path in sorted(_walk(folder)) if path != folder / SIGNATURE_NAME)
    held = next((path for path in others if key and _content(path) == key), None)
    if held is not None:
        name = printable(held.relative_to(folder).as_posix())
        raise InputError(
            f"{folder} holds its private key ({name}), with which whoever gets the folder could "
            "sign others; keep the key elsewhere, and sign again."
        )


def _content(path: Path) -> bytes | None:
    """What a file of a key's size holds; None of any other."""
    try:
        with open_regular(path) as file:
            content = file.read(_MOST_OF_A_KEY + 1)
    except OSError:
        return None
    return content if len(content) <= _MOST_OF_A_KEY else None


def check_signature(folder: Path, public_key: Path) -> Signature:
    """Check that a key has signed a folder as it is: no byte, file or name more or less.

    Args:
        folder: A folder. Links to files, as in the Hub's cache, count as what they lead to.
        public_key: A PEM file that belongs to the signer, from elsewhere than the folder.

    Raises:
        InputError: The key or something in the folder cannot be used.
        StorageError: model_signing is not installed, or a file cannot be read.
    """
    require_extra("model_signing", "signing", _NEED)
    from model_signing import verifying

    files = _files(folder, links=True)
    config = verifying.Config().set_hashing_config(_hashing(links=True))
    try:
        config.use_elliptic_key_verifier(public_key=public_key)
    except Exception as error:  # of three packages; an RSA key, for one, lacks attributes
        raise _bad_key(public_key, "public") from error
    try:
        with (folder / SIGNATURE_NAME).open("rb") as file:
            content = file.read(_MAX_SIZE)
        holds = _holds(config, folder, content)
    except FileNotFoundError:
        return Signature(0, (f"{SIGNATURE_NAME} is missing",))
    except OSError as error:
        raise _unreadable(folder, error) from error
    if holds is None:
        return Signature(0, (f"{SIGNATURE_NAME} is damaged or was made with another key",))
    signed = _signed_digests(content)
    if signed is None:
        return Signature(0, (f"{SIGNATURE_NAME} states something else than sha256 of files",))
    return Signature(len(files), tuple(_problems(folder, files, signed, holds=holds)))


def _hashing(*, links: bool) -> Any:
    """How model_signing makes a manifest: sha256 of each file, all but :data:`LEFT_OUT`."""
    from model_signing import hashing

    config = hashing.Config().use_file_serialization(hashing_algorithm="sha256")
    return config.set_ignored_paths(paths=[SIGNATURE_NAME]).set_allow_symlinks(links)


def _holds(config: Any, folder: Path, content: bytes) -> bool | None:
    """Whether the files are what the key signed; None if the key has not signed this at all."""
    with TemporaryDirectory() as place:  # so that what is verified is what is read below
        copy = Path(place) / SIGNATURE_NAME
        copy.write_bytes(content)
        try:
            with redirect_stdout(StringIO()):  # it prints a warning about older signatures
                config.verify(folder, copy)
        except OSError:
            raise
        except Exception as error:  # noqa: BLE001 -- of JSON, pydantic and cryptography
            return False if str(error).startswith("Signature mismatch") else None
    return True


def _signed_digests(content: bytes) -> dict[str, str] | None:
    """Name to sha256 of what an authentic signature states; None if it states something else."""
    try:
        statement = json.loads(b64decode(json.loads(content)["dsseEnvelope"]["payload"]))
        resources = statement["predicate"]["resources"]
        if statement["predicate"]["serialization"]["method"] != "files":
            return None
        if any(resource["algorithm"] != "sha256" for resource in resources):
            return None
        return {resource["name"]: resource["digest"] for resource in resources}
    except (KeyError, TypeError):
        return None


def _problems(
    folder: Path, files: set[str], signed: Mapping[str, str], *, holds: bool
) -> Iterator[str]:
    """How the files differ from those that were signed, one clause each.

    A signature can name paths that it leaves out. Only :data:`LEFT_OUT` is accepted, so another
    file is not signed even where all that is signed holds.
    """
    yield from (f"{printable(name)} is not signed" for name in sorted(files - set(signed)))
    yield from (f"{printable(name)} is missing" for name in sorted(set(signed) - files))
    if holds:
        return
    for name in sorted(files & set(signed)):
        if sha256_of(folder / name) != signed[name]:
            yield f"{printable(name)} was changed after it was signed"


def _files(folder: Path, *, links: bool) -> set[str]:
    """Every file that a signature is about, by its path in the folder with slashes.

    Raises:
        InputError: There is a link to a folder, whose files no signature covers, or a device.
        StorageError: A folder in it cannot be read, so that nobody knows what is there.
    """
    if not folder.is_dir():
        what = "is a file and no folder" if folder.exists() else "does not exist"
        raise InputError(f"{folder} {what}; name a folder to sign or to check.")
    names = set()
    try:
        for path in _walk(folder):
            name = path.relative_to(folder).as_posix()
            if path.is_symlink() and not (links and path.is_file()):
                raise InputError(
                    f"{folder}: {printable(name)} is a link; put what it leads to in its place."
                )
            if not path.is_file() and not path.is_dir():
                raise InputError(f"{folder}: {printable(name)} is no regular file; remove it.")
            if path.is_file() and name.partition("/")[0] not in LEFT_OUT:
                names.add(name)
    except OSError as error:
        raise _unreadable(folder, error) from error
    return names


def _walk(folder: Path) -> Iterator[Path]:
    def fail(error: OSError) -> None:
        raise error

    for place, folders, files in os.walk(folder, onerror=fail):
        yield from (Path(place, name) for name in (*folders, *files))


def _bad_key(path: Path, kind: str, hint: str = "") -> InputError:
    if not path.exists():
        return InputError(f"{printable(str(path))} does not exist; name {_KEY_FILE}{hint}.")
    return InputError(
        f"{printable(path.name)}: cannot be used as {kind} key; name {_KEY_FILE}{hint}."
    )


def _unreadable(folder: Path, error: OSError) -> StorageError:
    return StorageError(
        f"{folder}: cannot be read or signed ({in_words(error)}); check its permissions."
    )
