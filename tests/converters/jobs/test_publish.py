"""Publishing a folder, against a hub on this machine: what may go up, what goes, what is told."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from huggingface_hub import constants

from converters.errors import InputError, StorageError
from converters.folder.folder import REPORT_NAME
from converters.folder.signature import SIGNATURE_NAME
from converters.jobs.publish import RIGHT, prepare, send
from converters.parity.recording import file_record
from regnet.files.json_file import write_json
from tests.converters.cli.running import assert_one_sentence, regnet
from tests.converters.demo import FILES, snapshot
from tests.converters.hub import Hub, hub_taking_uploads

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.converters.cli.running import Finished

NAME = "somebody/regnet"

LIBRARY_WARNS = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")
"""Of huggingface_hub 2.4 beside its own HTTP library."""


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setenv("HF_TOKEN", "hf_of_somebody")
    with hub_taking_uploads(Hub()) as hub:
        monkeypatch.setattr(constants, "ENDPOINT", hub.url)
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)  # the Hub's own storage protocol
        yield hub


@pytest.fixture
def licensed(folder: Path) -> Path:
    """A converted folder whose source states a licence."""
    return with_licence(folder, "mit")


def with_licence(folder: Path, licence: str) -> Path:
    record = read(folder)
    decision = {"topic": "licence", "value": licence, "reason": "the manifest's entry"}
    record["decisions"].append(decision)
    write_json(folder / REPORT_NAME, record)
    return folder


def read(folder: Path) -> dict[str, Any]:
    record: dict[str, Any] = json.loads((folder / REPORT_NAME).read_text())
    return record


def push(folder: Path, hub: Hub, *arguments: str) -> Finished:
    """The command itself; it verifies, so it takes seconds."""
    env = {"HF_ENDPOINT": hub.url, "HF_HUB_OFFLINE": "0", "HF_HUB_DISABLE_XET": "1"}
    return regnet("push", folder, NAME, *arguments, cwd=folder.parent, env=env)


def test_the_command_sends_what_the_record_names_and_nothing_else(licensed: Path, hub: Hub) -> None:
    lying_there = snapshot(licensed)
    (licensed / "notes.txt").write_text("not for others")
    (licensed / ".env").write_text("PASSWORD=1234")
    finished = push(licensed, hub, "--json")
    assert finished.status == 0, finished.err
    assert hub.files == lying_there
    assert sorted(hub.files) == sorted(FILES)
    assert b"| model.onnx | onnxruntime " in hub.files["README.md"]  # its measured verdict
    assert json.loads(finished.out) == {
        "schema": 1,
        "repository": NAME,
        "licence": "mit",
        "files": {name: len(content) for name, content in sorted(hub.files.items())},
        "url": f"{hub.url}/{NAME}/commit/{'5' * 40}",
    }
    assert "Bearer hf_of_somebody" in hub.tokens


def test_a_signature_goes_up_with_what_it_signs(licensed: Path) -> None:
    (licensed / SIGNATURE_NAME).write_text("signed")
    assert SIGNATURE_NAME in prepare(licensed, NAME).files


def test_a_dry_run_lists_what_would_go_up_and_sends_nothing(folder: Path, hub: Hub) -> None:
    finished = push(folder, hub, "--dry-run", RIGHT)
    assert finished.status == 0, finished.err
    assert "nothing was sent" in finished.out
    assert f"licence: no licence is stated; {RIGHT} was given" in finished.out
    for name in FILES:
        assert name in finished.out
    assert not hub.created


def test_a_folder_whose_verdict_is_fail_is_refused_whatever_its_record_says(
    licensed: Path, hub: Hub
) -> None:
    network = licensed / "model.onnx"
    content = bytearray(network.read_bytes())
    content[len(content) // 2] ^= 0x40  # in the weights
    network.write_bytes(content)
    record = read(licensed)
    record["files"]["model.onnx"] = file_record(licensed, network.name)
    write_json(licensed / REPORT_NAME, record)
    sentence = assert_one_sentence(push(licensed, hub, RIGHT), 1)
    assert "was not sent, for verification failed: model.onnx" in sentence
    assert not hub.created


@LIBRARY_WARNS
@pytest.mark.parametrize("public", [False, True])
def test_a_new_repository_is_private_unless_asked_for(
    public: bool, licensed: Path, hub: Hub
) -> None:
    url = send(licensed, prepare(licensed, NAME), public=public)
    assert url == f"{hub.url}/{NAME}/commit/{'5' * 40}"
    (created,) = hub.created
    assert (created["organization"], created["name"]) == ("somebody", "regnet")
    assert is_private(created) != public


def is_private(created: dict[str, Any]) -> bool:
    return created.get("private") is True or created.get("visibility") == "private"


@pytest.mark.parametrize(
    ("licence", "said"),
    [
        (None, "no licence is stated for its weights"),
        ("seer-license", "seer-license does not let all share its weights"),
        ("home-made", "home-made does not let all share its weights"),
    ],
)
def test_weights_that_not_all_may_share_need_a_word(
    licence: str | None, said: str, folder: Path
) -> None:
    if licence:
        with_licence(folder, licence)
    with pytest.raises(InputError, match=rf"was not sent, since {said}.*{RIGHT}\.$"):
        prepare(folder, NAME)
    publication = prepare(folder, NAME, has_right=True)
    assert publication.licence == licence
    assert sorted(publication.files) == sorted(FILES)
    assert f"{RIGHT} was given" in publication.terms


@pytest.mark.parametrize("licence", ["mit", "apache-2.0", "bsd-3-clause", "cc-by-nc-4.0"])
def test_weights_that_all_may_share_need_none(licence: str, folder: Path) -> None:
    publication = prepare(with_licence(folder, licence), NAME)
    assert publication.terms.startswith(f"{licence}: shareable with ")


@pytest.mark.parametrize(
    ("name", "said"), [("regnet", "names no user"), ("a/b/c", "no id"), ("a/b c", "no id")]
)
def test_an_id_that_is_none_is_refused(name: str, said: str, licensed: Path) -> None:
    with pytest.raises(InputError, match=said):
        prepare(licensed, name)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("../secret", "which is no file of the folder"),
        ("/etc/hostname", "which is no file of the folder"),
        ("sub/../../secret", "which is no file of the folder"),
        ("linked/secret", "which a link takes out of the folder"),
        ("gone.onnx", "holds no gone.onnx"),
    ],
)
def test_a_record_cannot_name_what_lies_elsewhere(name: str, said: str, licensed: Path) -> None:
    (licensed.parent / "secret").write_text("mine")
    (licensed / "sub").mkdir()
    (licensed / "linked").symlink_to(licensed.parent)
    record = read(licensed)
    record["files"][name] = {"sha256": "", "size": 0}
    write_json(licensed / REPORT_NAME, record)
    with pytest.raises(InputError, match=said):
        prepare(licensed, NAME)


@pytest.mark.parametrize("content", [None, "{}", "[", '{"decisions": [1], "files": {}}'])
def test_a_folder_without_a_record_is_refused(content: str | None, folder: Path) -> None:
    (folder / REPORT_NAME).unlink()
    if content:
        (folder / REPORT_NAME).write_text(content)
    with pytest.raises(InputError, match=REPORT_NAME):
        prepare(folder, NAME)


@pytest.mark.parametrize("status", [401, 403, 500])
def test_a_hub_that_refuses_is_told_in_a_sentence(status: int, licensed: Path, hub: Hub) -> None:
    hub.refuses = status
    with pytest.raises(StorageError, match=rf"the server answers {status}\).*`hf auth login`"):
        send(licensed, prepare(licensed, NAME))


@LIBRARY_WARNS
def test_an_upload_that_breaks_off_is_told_and_nothing_is_committed(
    licensed: Path, hub: Hub
) -> None:
    hub.refuses, hub.refuses_from = 403, "/lfs/"
    with pytest.raises(StorageError, match="was not sent"):
        send(licensed, prepare(licensed, NAME))
    assert not hub.files


def test_a_hub_that_is_not_there_is_told_in_a_sentence(
    licensed: Path, hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(constants, "ENDPOINT", hub.url.replace("127.0.0.1", "127.0.0.2"))
    monkeypatch.setenv("no_proxy", "127.0.0.2")
    with pytest.raises(StorageError, match="Connection refused") as caught:
        send(licensed, prepare(licensed, NAME))
    assert caught.value.exit_status == 4
