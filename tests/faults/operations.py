"""The operations that faults are injected into: what lies there before, and what each does."""

from __future__ import annotations

import os
import shutil
import sys
from contextlib import contextmanager
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING

from huggingface_hub import constants

from converters.cli.app import app
from converters.cli.endings import run_app
from converters.families.manifest import Published
from converters.families.source import EvalTransform
from converters.jobs.conversion import ConvertOptions
from converters.jobs.convert import convert
from converters.jobs.publish import prepare, send
from converters.jobs.writeback import write_back
from converters.progress import Silent
from converters.published import fetch
from tests.converters.demo import CHECKPOINT, snapshot
from tests.converters.hub import Hub, hub_taking_uploads
from tests.converters.server import Site, hub_serving, serving

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    State = dict[str, bytes | None]

INPUT = "model.pyth"
_PUBLISHED = Published(
    publisher="somebody",
    name="regnet",
    framework="transformers",
    transform=EvalTransform(256, 224, 2),
)
_CACHE = f"cache/{_PUBLISHED.full_name}"


def _nothing() -> State:
    return {}


@dataclass(frozen=True, slots=True)
class Operation:
    """Something that makes or replaces a result.

    Attributes:
        name: For the table.
        result: What must be the old one or the new one, relative to the working folder.
        prepare: Fills an empty working folder.
        run: Does it, in the working folder.
        source: What is read and can change meanwhile.
        caches: How what is kept beside the result begins: a folder of another library's, which
            looks after it, or the record of a digest.
        remote: What a server holds, which belongs to the result.
        reset: Makes the server forget it.
    """

    name: str
    result: str
    prepare: Callable[[Path], object]
    run: Callable[[], object]
    source: str | None = None
    caches: str = "no-cache"
    remote: Callable[[], State] = _nothing
    reset: Callable[[], object] = _nothing

    def state(self, folder: Path) -> State:
        """The result as it is: nothing, or path to content."""
        whole = snapshot(folder)
        return {k: v for k, v in whole.items() if self._is_result(k)} | self.remote()

    def leftovers(self, folder: Path, before: State) -> list[str]:
        """What lies beside the result and did not before."""
        beside = snapshot(folder).keys() - before.keys()
        cache = self.caches
        return sorted(n for n in beside if not self._is_result(n) and not n.startswith(cache))

    def _is_result(self, name: str) -> bool:
        return name == self.result or name.startswith(f"{self.result}/")


@contextmanager
def operations(templates: Path) -> Iterator[list[Operation]]:
    """All of them, with servers that run inside the block.

    Args:
        templates: An empty folder for what is prepared once.
    """
    old, back = templates / "old", templates / "back.pyth"
    convert(CHECKPOINT, old, formats=("onnx", "onnx-fp16"), verify=False)
    write_back(old, back, "pycls", ConvertOptions(dtype="float16", verify=False))
    files = {name: (old / name).read_bytes() for name in ("config.json", "model.safetensors")}
    with (
        serving(Site(CHECKPOINT.read_bytes())) as site,
        hub_serving(_PUBLISHED.full_name, files) as address,
        hub_taking_uploads(Hub()) as hub,
    ):
        of_servers = [_fetching(site), _linking(old, address), _pushing(old, hub)]
        yield [*_local(old, back), *of_servers]


def written_in_place() -> Operation:
    """What no operation may be: it must be found torn, or nothing else that is found counts."""

    def write(text: str, folder: Path = Path("out")) -> None:
        folder.mkdir(exist_ok=True)
        for name in "abc":
            (folder / name).write_text(text)

    return Operation(
        "written in place",
        "out",
        lambda folder: write("old", folder / "out"),
        _as_command(lambda: write("new")),
    )


def _local(old: Path, back: Path) -> list[Operation]:
    def with_old(folder: Path) -> None:
        shutil.copy(CHECKPOINT, folder / INPUT)
        shutil.copytree(old, folder / "out")

    def with_back(folder: Path) -> None:
        shutil.copytree(old, folder / "converted")
        shutil.copy(back, folder / "back.pyth")

    def with_both(folder: Path) -> None:
        shutil.copytree(old, folder / "converted")
        shutil.copytree(old, folder / "back")

    into_out = ("convert", INPUT, "out", "--no-verify", "-q", "--format", "onnx")
    onto_back = ("convert", "converted", "--force", "--no-verify", "-q", "--to")
    return [
        Operation(
            "convert",
            "out",
            lambda folder: shutil.copy(CHECKPOINT, folder / INPUT),
            _does(*into_out),
            source=INPUT,
        ),
        Operation(
            "convert --force",
            "out",
            with_old,
            _does(*into_out, "--force", "--dtype", "bfloat16", "--max-shard-size", "1MB"),
            source=INPUT,
        ),
        Operation(
            "export",
            "out",
            with_old,
            _does(
                *("export", "out", "-q", "--no-verify", "--external-data", "--opset", "18"),
                *("--format", "onnx,onnx-web,onnx-fp16"),
            ),
        ),
        Operation(
            "--to pycls",
            "back.pyth",
            with_back,
            _does(*onto_back, "pycls", "back.pyth"),
            source="converted/model.safetensors",
        ),
        Operation(
            "--to timm",
            "back",
            with_both,
            _does(*onto_back, "timm", "back"),
            source="converted/model.safetensors",
        ),
    ]


def _fetching(site: Site) -> Operation:
    published = replace(_PUBLISHED, url=site.url, sha256=sha256(site.content).hexdigest()[:8])
    place = f"{_CACHE}/{site.url.rpartition('/')[2]}"

    def prepare_(folder: Path) -> None:
        (folder / _CACHE).mkdir(parents=True)

    return Operation("fetch", place, prepare_, _fetches(published), caches=f"{place}.sha256")


def _linking(old: Path, address: str) -> Operation:
    """A repository of the Hub, of which an older commit was fetched before."""

    def prepare_(folder: Path) -> None:
        shutil.copytree(old, folder / "older")
        (folder / _CACHE).mkdir(parents=True)
        for name in ("config.json", "README.md"):
            (folder / _CACHE / name).symlink_to(folder / "older" / name)

    return Operation("fetch (Hub)", _CACHE, prepare_, _fetches(_PUBLISHED, address), caches="hub")


def _fetches(published: Published, address: str = "") -> Callable[[], None]:
    def run() -> None:
        os.environ.update(REGNET_CACHE="cache", no_proxy="127.0.0.1")
        constants.HF_HUB_CACHE = "hub"
        pattern = constants.HUGGINGFACE_CO_URL_TEMPLATE
        constants.HUGGINGFACE_CO_URL_TEMPLATE = pattern.replace(constants.ENDPOINT, address)
        fetch.fetch(published, Silent())

    return _as_command(run)


def _pushing(old: Path, hub: Hub) -> Operation:
    def run() -> None:
        os.environ.update(HF_TOKEN="hf_of_somebody", no_proxy="127.0.0.1")  # noqa: S106
        constants.ENDPOINT = hub.url
        constants.HF_HUB_DISABLE_XET = True
        folder = Path("out")
        send(folder, prepare(folder, _PUBLISHED.full_name, has_right=True))

    return Operation(
        "push",
        "out",
        lambda folder: shutil.copytree(old, folder / "out"),
        _as_command(run),
        remote=lambda: {f"remote/{name}": content for name, content in hub.files.items()},
        reset=hub.files.clear,
    )


def _does(*arguments: str) -> Callable[[], None]:
    """The command, as a user calls it."""
    return lambda: sys.exit(run_app(app, "regnet", list(arguments)))


def _as_command(do: Callable[[], None]) -> Callable[[], None]:
    """A part of a command, whose errors end as the command's do."""
    return lambda: sys.exit(run_app(lambda *_, **__: do(), "regnet"))  # type: ignore[arg-type]
