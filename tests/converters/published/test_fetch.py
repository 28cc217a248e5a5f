"""Fetching from a real server on this machine, from the Hub's cache, and converting by name."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import timm
import torch
import torchvision
from huggingface_hub import constants
from timm.models import save_for_hf

from converters.errors import InputError, StorageError
from converters.families.manifest import find, manifest
from converters.families.options import SourceOptions
from converters.jobs.convert import convert
from converters.progress import Silent
from converters.published import fetch
from converters.published.fetch import cache_folder, download
from converters.published.located import located
from tests.converters.cli.running import assert_one_sentence, regnet, run
from tests.converters.server import Site, hub_serving, serving

if TYPE_CHECKING:
    from collections.abc import Iterator

CONTENT = bytes(range(256)) * 2000
DIGEST = hashlib.sha256(CONTENT).hexdigest()


class Watcher(Silent):
    """Progress that is remembered: the bytes of each step."""

    def __init__(self) -> None:
        self.steps: list[tuple[str, int | None]] = []
        self.done = 0

    def step(self, title: str, nbytes: int | None = None) -> None:
        self.steps.append((title, nbytes))
        self.done = 0

    def advance(self, nbytes: int) -> None:
        self.done += nbytes


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    monkeypatch.setattr(fetch, "PAUSE", 0.0)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with serving(Site(CONTENT)) as site:
        yield site


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "cache" / "net.pth"


def left_behind(target: Path) -> list[str]:
    return sorted(path.name for path in target.parent.iterdir())


def test_a_file_is_fetched_with_progress_by_bytes(site: Site, target: Path) -> None:
    watcher = Watcher()
    download(site.url, target, watcher, DIGEST[:8])
    assert target.read_bytes() == CONTENT
    assert left_behind(target) == ["net.pth"]
    assert watcher.steps == [("fetching net.pth", len(CONTENT))]
    assert watcher.done == len(CONTENT)


@pytest.mark.parametrize("cuts", [[1000], [1000, 5, 300_000]], ids=["once", "thrice"])
def test_a_cut_download_is_continued_where_it_ended(
    cuts: list[int], site: Site, target: Path
) -> None:
    site.cuts = list(cuts)
    watcher = Watcher()
    download(site.url, target, watcher)
    held = [sum(cuts[:count]) for count in range(1, len(cuts) + 1)]
    assert site.ranges == [None, *(f"bytes={count}-" for count in held)]
    assert target.read_bytes() == CONTENT
    assert watcher.done == len(CONTENT)


def test_a_download_that_was_given_up_is_continued_by_the_next_command(
    site: Site, target: Path
) -> None:
    site.cuts = [1000, 0, 0]
    with pytest.raises(StorageError, match="continue from 1000 bytes"):
        download(site.url, target, Silent())
    assert left_behind(target) == ["net.pth.incomplete", "net.pth.version"]
    site.ranges.clear()
    download(site.url, target, Silent())
    assert site.ranges == ["bytes=1000-"]
    assert target.read_bytes() == CONTENT
    assert left_behind(target) == ["net.pth"]


@pytest.mark.parametrize("change", ["other content", "no ranges", "no version", "weak version"])
def test_a_download_that_cannot_be_continued_starts_over(
    change: str, site: Site, target: Path
) -> None:
    if change == "no version":
        site.version = ""
    elif change == "weak version":
        site.version = 'W/"one"'
    site.cuts = [1000, 0, 0]
    with pytest.raises(StorageError):
        download(site.url, target, Silent())
    if change == "other content":
        site.version, site.content = '"two"', bytes(reversed(CONTENT))
    elif change == "no ranges":
        site.takes_ranges = False
    download(site.url, target, Silent())
    assert target.read_bytes() == site.content


def test_a_download_that_was_whole_but_not_moved_is_fetched_again(site: Site, target: Path) -> None:
    target.parent.mkdir()
    target.with_name("net.pth.incomplete").write_bytes(CONTENT)
    target.with_name("net.pth.version").write_text(site.version)
    download(site.url, target, Silent())
    assert target.read_bytes() == CONTENT
    assert left_behind(target) == ["net.pth"]


def test_another_digest_than_promised_is_refused_and_nothing_kept(site: Site, target: Path) -> None:
    with pytest.raises(InputError, match=r"sha256 .* where 0123abcd was published") as caught:
        download(site.url, target, Silent(), "0123abcd")
    assert caught.value.exit_status == 2
    assert left_behind(target) == []


@pytest.mark.parametrize("status", [403, 404, 410])
def test_a_refusal_is_told_at_once(status: int, site: Site, target: Path) -> None:
    site.statuses = [status]
    with pytest.raises(StorageError, match=f"the server answers {status}") as caught:
        download(site.url, target, Silent())
    assert caught.value.exit_status == 4
    assert len(site.ranges) == 1
    assert left_behind(target) == []


def test_a_passing_failure_of_the_server_is_overcome(site: Site, target: Path) -> None:
    site.statuses = [503, 429]
    download(site.url, target, Silent())
    assert target.read_bytes() == CONTENT


def test_a_silent_server_is_given_up_in_bounded_time(
    site: Site, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fetch, "TIMEOUT", 0.1)
    site.silence = 0.5
    began = time.monotonic()
    with pytest.raises(StorageError, match="timed out"):
        download(site.url, target, Silent())
    assert time.monotonic() - began < 2
    assert left_behind(target) == []


def test_a_server_that_is_not_there_is_told_in_words(target: Path, site: Site) -> None:
    gone = site.url.replace("127.0.0.1", "127.0.0.2")  # nobody listens there
    with pytest.raises(StorageError, match=r"connection refused\)"):
        download(gone, target, Silent())


def test_a_full_disk_is_told_before_anything_is_fetched(
    site: Site, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = os.statvfs_result((1, 1, 1, 0, 0, 0, 0, 0, 0, 255))
    monkeypatch.setattr(os, "statvfs", lambda _: usage)
    with pytest.raises(StorageError, match="room for 0 bytes where 512000"):
        download(site.url, target, Silent())
    assert not target.exists()


def test_two_commands_do_not_fill_the_same_file(site: Site, target: Path) -> None:
    target.parent.mkdir()
    with target.with_name("net.pth.incomplete").open("ab") as other:
        other.write(b"half")
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(StorageError, match=r"^Another command is fetching net\.pth"):
            download(site.url, target, Silent())
    assert site.ranges == []


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("REGNET_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    return tmp_path / "cache"


def test_the_cache_is_in_the_home_unless_told_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("REGNET_CACHE", raising=False)
    assert cache_folder() == Path.home() / ".cache" / "regnet"


def test_a_name_is_fetched_once_and_converted_as_its_publisher_evaluates_it(
    site: Site, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.save(torchvision.models.regnet_x_400mf().state_dict(), tmp_path / "served.pth")
    site.content = (tmp_path / "served.pth").read_bytes()
    listed = find("regnet_x_400mf.IMAGENET1K_V1")
    assert listed
    digest = hashlib.sha256(site.content).hexdigest()
    served = replace(listed, url=site.url, sha256=digest[:8])
    monkeypatch.setattr("converters.families.manifest.manifest", lambda: (served,))
    name = "Torchvision/regnet_x_400mf.imagenet1k_v1"

    for _ in range(2):
        path, options = located(name, SourceOptions())
    assert len(site.ranges) == 1
    assert path == cache / served.full_name / "net-0123abcd.pth"
    assert options == SourceOptions("torchvision", published=served)
    convert(name, tmp_path / "out", formats=["onnx"])
    assert len(site.ranges) == 1

    record = json.loads((tmp_path / "out" / "conversion.json").read_text())
    assert record["source"]["sha256"] == {path.name: digest}
    decisions = {decision["topic"]: decision for decision in record["decisions"]}
    assert decisions["evaluation transform"] == {
        "topic": "evaluation transform",
        "value": "short side to 256, centre crop 224, bilinear",  # 232 unless it were known
        "reason": "the manifest's entry torchvision/regnet_x_400mf.IMAGENET1K_V1",
    }
    processor = json.loads((tmp_path / "out" / "preprocessor_config.json").read_text())
    assert int(processor["size"]["shortest_edge"] / processor["crop_pct"]) == 256
    assert '\nlicense: "bsd-3-clause"\n' in (tmp_path / "out" / "README.md").read_text()


def offline(tmp_path: Path, variable: str = "HF_HUB_OFFLINE") -> dict[str, str]:
    return {
        variable: "1",
        "REGNET_CACHE": str(tmp_path / "cache"),
        "HF_HUB_CACHE": str(tmp_path / "hub"),
    }


@pytest.mark.parametrize("variable", ["REGNET_OFFLINE", "HF_HUB_OFFLINE"])
@pytest.mark.parametrize("name", ["RegNetY-4.0GF", "timm/regnety_040.ra3_in1k"])
def test_offline_what_is_not_in_the_cache_is_named(
    name: str, variable: str, tmp_path: Path
) -> None:
    finished = regnet("convert", name, "out", cwd=tmp_path, env=offline(tmp_path, variable))
    sentence = assert_one_sentence(finished, 4)
    assert name in sentence
    assert "REGNET_OFFLINE" in sentence
    assert not (tmp_path / "out").exists()


def test_a_cache_that_cannot_be_written_is_an_error_of_the_environment(tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("mine")
    env = {"REGNET_CACHE": str(tmp_path / "cache"), "REGNET_OFFLINE": ""}
    finished = regnet("inspect", "RegNetX-200MF", cwd=tmp_path, env=env)
    assert "REGNET_CACHE" in assert_one_sentence(finished, 4)


def hub_cache(hub: Path, repository: str, model: torch.nn.Module) -> None:
    """Lay a model out as the Hub's library caches what it downloads: links to named blobs."""
    root = hub / f"models--{repository.replace('/', '--')}"
    commit = "5c0ffee" + "0" * 33
    snapshot = root / "snapshots" / commit
    (root / "refs").mkdir(parents=True)
    (root / "refs" / "main").write_text(commit)
    (root / "blobs").mkdir()
    save_for_hf(model, snapshot, safe_serialization=True)
    for file in list(snapshot.iterdir()):
        blob = root / "blobs" / hashlib.sha256(file.read_bytes()).hexdigest()
        file.rename(blob)
        file.symlink_to(Path("../../blobs") / blob.name)


def test_a_repository_in_the_hub_s_cache_is_converted_offline_by_its_name(tmp_path: Path) -> None:
    model = timm.create_model("regnetx_002.pycls_in1k", pretrained=False)
    hub_cache(tmp_path / "hub", "timm/regnetx_002.pycls_in1k", model)
    command = ("timm/regnetx_002.pycls_in1k", "out", "--format", "onnx", "--json")
    finished = run("convert-timm", *command, cwd=tmp_path, env=offline(tmp_path))
    assert finished.status == 0, finished.err
    record = json.loads(finished.out)
    assert record["source"]["file"] == "regnetx_002.pycls_in1k"
    assert record["architecture"]["name"] == "RegNetX-200MF"
    assert {"topic": "licence", "value": "mit"}.items() <= record["decisions"][-1].items()
    assert (tmp_path / "cache/timm/regnetx_002.pycls_in1k/model.safetensors").is_symlink()


def hub_at(root: str, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the Hub's library look for the Hub, and keep its cache, elsewhere."""
    pattern = constants.HUGGINGFACE_CO_URL_TEMPLATE.replace(constants.ENDPOINT, root)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", pattern)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))


SHARDED = {
    "config.json": b"{}",
    "pytorch_model.bin.index.json": b'{"weight_map": {"a": "one.bin", "b": "two.bin"}}',
    "one.bin": CONTENT,
    "two.bin": CONTENT[::-1],
    "tf_model.h5": b"not wanted",
}


@pytest.mark.parametrize(
    "wanted",
    [
        ["config.json", "model.safetensors"],
        ["config.json", "one.bin", "pytorch_model.bin.index.json", "two.bin"],
    ],
    ids=["one file", "shards"],
)
def test_of_a_repository_only_configuration_and_weights_are_fetched(
    wanted: list[str], cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = SHARDED | ({"model.safetensors": CONTENT} if "model.safetensors" in wanted else {})
    published = find("facebook/regnet-y-10b-seer")
    assert published
    watcher = Watcher()
    stale = cache / "facebook" / "regnet-y-10b-seer" / "pytorch_model.bin"
    stale.parent.mkdir(parents=True)
    stale.symlink_to("withdrawn")
    with hub_serving(published.full_name, files) as root:
        hub_at(root, tmp_path / "hub", monkeypatch)
        folder = fetch.fetch(published, watcher)
    assert folder == cache / "facebook" / "regnet-y-10b-seer"
    assert left_behind(folder / "x") == wanted
    assert all((folder / name).read_bytes() == files[name] for name in wanted)
    assert watcher.steps[-1][1] == watcher.done == len(CONTENT)


def test_a_file_of_a_repository_is_fetched_with_what_says_what_it_is(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = {"config.json": b"{}", "pytorch_model.bin": b"not wanted", "tf_model.h5": CONTENT}
    published = find("facebook/regnet-y-040/tf_model.h5")
    assert published
    with hub_serving("facebook/regnet-y-040", files) as root:
        hub_at(root, tmp_path / "hub", monkeypatch)
        folder = fetch.fetch(published, Silent())
    assert folder == cache / "facebook" / "regnet-y-040-tf_model.h5"
    assert left_behind(folder / "x") == ["config.json", "tf_model.h5"]


def test_a_hub_that_cannot_be_reached_is_an_error_of_the_environment(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    published = find("facebook/regnet-y-040")
    assert published
    hub_at("http://127.0.0.2:9", tmp_path / "hub", monkeypatch)
    monkeypatch.setattr(time, "sleep", lambda _: None)  # the library tries six times
    with pytest.raises(StorageError, match=r"Hub \(there is no connection\)"):
        fetch.fetch(published, Silent())
    assert not cache.exists()


def test_a_name_of_another_framework_is_not_fetched(tmp_path: Path) -> None:
    finished = run("convert-timm", "RegNetY-4.0GF", "out", cwd=tmp_path, env=offline(tmp_path))
    assert "use `convert-pycls`" in assert_one_sentence(finished, 2)


@pytest.mark.parametrize("name", ["RegNetY-4.0", "RegNetY-4.0GF.pyth"])
def test_a_mistaken_name_is_answered_with_the_one_that_was_meant(name: str, tmp_path: Path) -> None:
    sentence = assert_one_sentence(regnet("inspect", name, cwd=tmp_path), 2)
    assert sentence.startswith(f"{name}: there is no such file; ")
    assert "RegNetY-4.0GF or " in sentence


def test_a_file_of_that_name_comes_before_the_published_one(tmp_path: Path) -> None:
    (tmp_path / "RegNetY-4.0GF").touch()
    finished = regnet("inspect", "RegNetY-4.0GF", cwd=tmp_path)
    assert "is empty" in assert_one_sentence(finished, 2)


@pytest.mark.parametrize(
    ("arguments", "count", "row"),
    [
        ([], len(manifest()), "pycls/RegNetX-200MF  .* RegNetX-200MF .* 2.7 M  .* 68.91 %"),
        (["SWAG"], 20, "swag/regnety_16gf  .* RegNetY-16GF .* 80.6 M  .* cc-by-nc-4.0"),
        (["--from", "vissl"], 14, "vissl/seer_256Gf  .* -  "),
    ],
)
def test_list_shows_what_was_asked_for(
    arguments: list[str], count: int, row: str, tmp_path: Path
) -> None:
    table = regnet("list", *arguments, cwd=tmp_path).out
    assert len(table.splitlines()) == count + 1
    assert re.search(row, table)
    record = json.loads(regnet("list", *arguments, "--json", cwd=tmp_path).out)
    assert len(record["checkpoints"]) == count
    assert {"name", "framework", "url", "transform", "parameters", "licence"} <= record[
        "checkpoints"
    ][0].keys()


def test_list_says_when_there_is_none(tmp_path: Path) -> None:
    finished = regnet("list", "vit", "--from", "timm", cwd=tmp_path)
    assert "of timm has 'vit'" in assert_one_sentence(finished, 2)
