"""The audit of the pinned versions, against an index on this machine."""

from __future__ import annotations

import json
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING

import pytest

from tests.advisories import Index, main, pins

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

CONSTRAINTS = Path(__file__).parents[1] / "constraints.txt"

GOOD = {"vulnerabilities": []}
BAD = {
    "vulnerabilities": [
        {
            "id": "PYSEC-1",
            "aliases": ["CVE-1"],
            "fixed_in": ["2.0"],
            "summary": "Runs\nwhat it reads.",
            "withdrawn": None,
        },
        {"id": "PYSEC-2", "aliases": [], "fixed_in": [], "withdrawn": "2020-01-01T00:00:00Z"},
    ]
}


@contextmanager
def index(answers: Mapping[str, object], login: str = "") -> Iterator[Index]:
    """An index that tells of some versions, ``name/version``."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            path = self.path.removeprefix("/mirror/pypi/").removesuffix("/json")
            allowed = not login or self.headers["Authorization"] == "Basic bWU6YSBi"
            self.send_response(200 if path in answers and allowed else 404)
            self.end_headers()
            self.wfile.write(json.dumps(answers.get(path)).encode())

        def log_message(self, *_: object) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        who = f"{login}@" if login else ""
        yield Index(f"http://{who}127.0.0.1:{server.server_port}/mirror/simple/")
        server.shutdown()
        thread.join()


@pytest.fixture(autouse=True)
def direct(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "127.0.0.1")


@pytest.fixture
def constraints(tmp_path: Path) -> str:
    path = tmp_path / "constraints.txt"
    path.write_text("# What is tested together.\none==1.0\ntwo==1.5  # for a reason\n")
    return str(path)


def test_every_line_of_the_constraints_is_a_pin() -> None:
    text = CONSTRAINTS.read_text()
    assert len(pins(text)) == sum(line[0] != "#" for line in text.splitlines())
    assert all(name and version for name, version in pins(text))


def test_an_advisory_fails_and_a_withdrawn_one_does_not(
    constraints: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with index({"one/1.0": GOOD, "two/1.5": BAD}) as here:
        assert main([constraints], here) == 1
    assert capsys.readouterr().out.splitlines() == [
        "two 1.5: PYSEC-1, CVE-1, fixed in 2.0: Runs what it reads.",
        "Advisories against 2 versions: 1.",
    ]


def test_nothing_known_against_any_version_passes(
    constraints: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with index({"one/1.0": GOOD, "two/1.5": GOOD}, login="me:a%20b") as here:
        assert main([constraints], here) == 0
    assert capsys.readouterr().out == "Advisories against 2 versions: 0.\n"


def test_a_version_that_the_index_does_not_know_is_told(
    constraints: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with index({"one/1.0": GOOD}) as here:
        assert main([constraints], here) == 0
    assert "No answer for two 1.5 (HTTPError 404)." in capsys.readouterr().out


@pytest.mark.parametrize("answers", [{}, {"one/1.0": {"info": {}}}, {"one/1.0": []}])
def test_an_index_that_does_not_tell_is_no_failure(
    answers: dict[str, object], constraints: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with index(answers) as here:
        assert main([constraints], here) == 0
    assert "No advisories could be read" in capsys.readouterr().out


def test_no_network_is_no_failure_and_no_address_is_printed(
    constraints: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([constraints], Index("https://me:secret@127.0.0.1:9/simple")) == 0
    out = capsys.readouterr().out
    assert "No advisories could be read" in out
    assert "secret" not in out
    assert "127.0.0.1" not in out


def test_the_index_is_the_one_that_pip_is_configured_with(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_INDEX_URL", "https://index.example/simple")
    assert Index.of_pip().url == "https://index.example/simple"
