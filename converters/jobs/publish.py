"""Publishing a converted folder on the Hugging Face Hub: what may go up, and sending it.

Only files that ``conversion.json`` names and their signature are sent, so nothing else that lies in
a folder can leak.
`regnet push` sends nothing without a fresh verdict, nor weights that nobody stated a right to
share.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from converters.errors import InputError, StorageError, in_words
from converters.folder.folder import REPORT_NAME
from converters.folder.record import Record
from converters.folder.signature import SIGNATURE_NAME
from converters.reports.card import SHAREABLE

if TYPE_CHECKING:
    from pathlib import Path


RIGHT = "--i-have-the-right"


@dataclass(frozen=True, slots=True)
class Publication:
    """What would go up.

    Attributes:
        repository: Its id on the Hub, ``user/name``.
        files: Path in the repository, with slashes, to size in bytes.
        licence: Of the weights, as the source states it; None if it states none.
    """

    repository: str
    files: dict[str, int]
    licence: str | None

    @property
    def terms(self) -> str:
        """The licence and what it asks for, for people."""
        if self.licence is None:
            return f"no licence is stated; {RIGHT} was given"
        return f"{self.licence}: {SHAREABLE.get(self.licence, f'{RIGHT} was given')}"

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {"repository": self.repository, "licence": self.licence, "files": self.files}


def prepare(path: Path, repository: str, *, has_right: bool = False) -> Publication:
    """Decide what of a folder may go up; nothing is computed or sent.

    Args:
        path: A folder that `regnet convert` wrote.
        repository: ``user/name``.
        has_right: Whether the user vouches for weights that :data:`SHAREABLE` does not cover.

    Raises:
        InputError: If the folder or the id cannot be used, or the weights may not be shared.
    """
    _require_valid(repository)
    record = Record.required(path)
    licence = record.licence
    if licence not in SHAREABLE and not has_right:
        stated = (
            "no licence is stated for" if licence is None else f"{licence} does not let all share"
        )
        raise InputError(
            f"{path} was not sent, since {stated} its weights; if you may publish them, say so "
            f"with {RIGHT}."
        )
    signature = {SIGNATURE_NAME} if (path / SIGNATURE_NAME).is_file() else set()
    names = sorted({*record.files, REPORT_NAME, *signature})
    return Publication(repository, {name: _size(path, record, name) for name in names}, licence)


def send(path: Path, publication: Publication, *, public: bool = False) -> str:
    """Make the repository if there is none, and put all files up in one commit.

    Args:
        path: The folder that was prepared.
        publication: From :func:`prepare`.
        public: Whether a new repository can be seen by everybody; an old one stays as it is.

    Returns:
        Address of the commit.

    Raises:
        StorageError: If the Hub cannot be reached or refuses; it keeps all files or none.
    """
    from huggingface_hub import CommitOperationAdd, HfApi
    from huggingface_hub.errors import HfHubHTTPError

    from converters.published.fetch_hub import UNREACHABLE

    operations = [CommitOperationAdd(name, str(path / name)) for name in publication.files]
    hub = HfApi()
    try:
        hub.create_repo(publication.repository, private=not public, exist_ok=True)
        commit = hub.create_commit(
            publication.repository, operations, commit_message=f"Publish {path.resolve().name}"
        )
    except HfHubHTTPError as error:
        status = error.response.status_code
        raise _failure(publication, f"the server answers {status}") from error
    except (OSError, RuntimeError, UNREACHABLE) as error:  # RuntimeError names the failing file
        raise _failure(publication, in_words(error)) from error
    return commit.commit_url


def _require_valid(repository: str) -> None:
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils._validators import validate_repo_id

    try:
        validate_repo_id(repository)
    except HFValidationError as error:
        raise InputError(f"{repository} is no id of a repository; give it as user/name.") from error
    if "/" not in repository:
        raise InputError(f"{repository} names no user; give the repository as user/name.")


def _size(path: Path, record: Record, name: str) -> int:
    file = record.path_of(path, name)
    if not file.is_file():
        raise InputError(f"{path} holds no {name}, which its {REPORT_NAME} names; convert again.")
    return file.stat().st_size


def _failure(publication: Publication, reason: str) -> StorageError:
    return StorageError(
        f"{publication.repository} was not sent ({reason}); check the connection and log in with "
        "`hf auth login`, then run the command again."
    )
