"""Fetching repositories of the Hugging Face Hub, through its own library and its own cache."""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from huggingface_hub import hf_hub_download
from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError, LocalEntryNotFoundError
from huggingface_hub.utils.tqdm import tqdm

from converters.checkpoint.beside import CONFIGURATIONS, WEIGHTS
from converters.errors import StorageError, in_words
from converters.staging.staged import staged_folder
from converters.staging.unfinished import partial_name
from regnet.files.reading import read_json
from regnet.files.system import link

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from converters.progress import Progress

_PLAIN_NAME = re.compile(r"[\w-][\w.-]*", re.ASCII)
"""Of a shard; any other could lead out of the folder."""

UNREACHABLE: type[Exception] = HfHubHTTPError.__mro__[1]
"""What the Hub's HTTP library raises, which by version is one of three."""


def fetch_repository(
    repository: str,
    folder: Path,
    progress: Progress,
    weights: str | None = None,
    *,
    offline: bool,
) -> Path:
    """Give a folder with a repository's configuration and weights, fetched unless they are there.

    The Hub's cache keeps files under the name of a commit; ``folder`` holds links to them, so that
    messages and reports can call the checkpoint by its name.

    Args:
        repository: Its id.
        folder: Where the links are made.
        progress: Told the bytes of what is fetched.
        weights: Which of its weights; None for those that transformers takes.
        offline: Whether only the Hub's cache may be read.

    Raises:
        StorageError: If it cannot be fetched or is not in the cache.
    """
    get = partial(_get, repository, _bar_for(progress), offline)
    files = dict(_files(get, (weights,) if weights else WEIGHTS))
    if not files.keys() & set(WEIGHTS):
        raise StorageError(
            f"{repository} is not in the Hub's cache and the network is forbidden; unset "
            f"REGNET_OFFLINE and HF_HUB_OFFLINE, or run `hf download {repository}` elsewhere."
            if offline
            else f"{repository} has no weights on the Hub that can be read; convert a copy of your "
            "own."
        )
    _link(folder, files)
    return folder


def _files(
    get: Callable[[str], Path | None], weights: tuple[str, ...]
) -> Iterator[tuple[str, Path]]:
    """Yield name and place of what a conversion reads."""
    for name in CONFIGURATIONS:
        if path := get(name):
            yield name, path
    for name in weights:
        if path := get(name):
            yield name, path
            for shard in _shards(path):
                if part := get(shard):
                    yield shard, part
            return


def _get(repository: str, bar: type[tqdm], offline: bool, name: str) -> Path | None:
    """A file in the Hub's cache; None if the repository, or offline the cache, has none."""
    cause: Exception
    try:
        return Path(hf_hub_download(repository, name, local_files_only=offline, tqdm_class=bar))
    except EntryNotFoundError as error:
        if offline or not isinstance(error, LocalEntryNotFoundError):
            return None
        reason, cause = "there is no connection", error
    except HfHubHTTPError as error:
        reason, cause = f"the server answers {error.response.status_code}", error
    except (OSError, UNREACHABLE) as error:
        reason, cause = in_words(error), error
    raise StorageError(
        f"{repository} cannot be fetched from the Hugging Face Hub ({reason}); check the "
        "connection and run the command again."
    ) from cause


def _shards(path: Path) -> list[str]:
    """The files beside it that an index names; the reader refuses an index that is none."""
    if not path.name.endswith(".index.json"):
        return []
    try:
        weight_map = read_json(path)["weight_map"]
        names = {str(name) for name in weight_map.values()}
    except (ValueError, KeyError, TypeError, AttributeError):
        return []
    return sorted(filter(_PLAIN_NAME.fullmatch, names))


def _link(folder: Path, files: dict[str, Path]) -> None:
    """Make a folder that holds links to these files and nothing else, unless it is there."""
    held = {path.name: path for path in folder.iterdir()} if folder.is_dir() else {}
    is_left = folder.with_name(partial_name(folder.name)).exists()
    is_other = held.keys() != files.keys() or not all(
        held[name].exists() and held[name].samefile(place) for name, place in files.items()
    )
    if is_left or is_other:
        with staged_folder(folder, force=True) as staging:
            for name, place in files.items():
                link(place.absolute(), staging / name)


def _bar_for(progress: Progress) -> type[tqdm]:
    """A bar of the Hub's library that draws nothing and tells our progress."""

    class Bar(tqdm):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs | {"disable": True})  # type: ignore[no-untyped-call]
            progress.step(f"fetching {kwargs.get('desc') or ''}", kwargs.get("total"))
            progress.advance(int(kwargs.get("initial") or 0))

        def update(self, n: float | None = 1) -> None:
            progress.advance(int(n or 0))

    return Bar
