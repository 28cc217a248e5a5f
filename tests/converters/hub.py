"""A Hugging Face Hub on this machine that takes uploads, small and large, and remembers them."""

from __future__ import annotations

import base64
import hashlib
import json
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tests.converters.server import _Quiet, _running

if TYPE_CHECKING:
    from collections.abc import Iterator


@dataclass
class Hub:
    """What was asked of it.

    Attributes:
        refuses: The status that what it refuses is answered with; None if all is well.
        refuses_from: How the paths begin that it refuses.
        url: Its address.
        created: What each repository was created with.
        files: Path in the repository to content, once it is committed.
        tokens: The Authorization header of each request.
    """

    refuses: int | None = None
    refuses_from: str = "/"
    url: str = ""
    created: list[dict[str, Any]] = field(default_factory=list)
    files: dict[str, bytes] = field(default_factory=dict)
    tokens: list[str | None] = field(default_factory=list)
    _stored: dict[str, bytes] = field(default_factory=dict)

    def answer(self, path: str, body: bytes) -> dict[str, Any]:
        """What the endpoint at a path says; large files come by way of git LFS."""
        if path == "/api/repos/create":
            self.created.append(json.loads(body))
            return {"url": f"{self.url}/{self._name}", "name": self._name}
        if path.endswith("/preupload/main"):
            return {"files": [self._mode(each) for each in json.loads(body)["files"]]}
        if path.endswith("/info/lfs/objects/batch"):
            asked = json.loads(body)["objects"]
            return {"transfer": "basic", "objects": [self._place(each) for each in asked]}
        if path.startswith("/lfs/"):
            assert hashlib.sha256(body).hexdigest() == path.removeprefix("/lfs/")
            self._stored[path.removeprefix("/lfs/")] = body
        elif path.endswith("/commit/main"):
            for line in body.splitlines():
                self._commit(**json.loads(line))
            url = f"{self.url}/{self._name}/commit/{'5' * 40}"
            return {"success": True, "commitOid": "5" * 40, "commitUrl": url}
        return {}

    @property
    def _name(self) -> str:
        last = self.created[-1]
        return "/".join(filter(None, (last.get("organization"), last["name"])))

    @staticmethod
    def _mode(file: dict[str, Any]) -> dict[str, Any]:
        mode = "lfs" if file["size"] > 1000 else "regular"
        return {"path": file["path"], "uploadMode": mode, "shouldIgnore": False}

    def _place(self, file: dict[str, Any]) -> dict[str, Any]:
        upload = {"href": f"{self.url}/lfs/{file['oid']}"}
        return {**file, "authenticated": True, "actions": {"upload": upload}}

    def _commit(self, key: str, value: dict[str, Any]) -> None:
        if key == "file":
            self.files[value["path"]] = base64.b64decode(value["content"])
        elif key == "lfsFile":
            self.files[value["path"]] = self._stored[value["oid"]]


@contextmanager
def hub_taking_uploads(hub: Hub) -> Iterator[Hub]:
    """Run a hub, at ``hub.url``, inside the block."""

    class Handler(_Quiet):
        def do_POST(self) -> None:  # noqa: N802 -- http.server calls it
            length = int(self.headers.get("Content-Length", 0))
            body = self.rfile.read(length)
            if len(body) < length:  # the caller has gone, and nobody waits for an answer
                return
            hub.tokens.append(self.headers.get("Authorization"))
            if hub.refuses and self.path.startswith(hub.refuses_from):
                self.send_error(hub.refuses)
                return
            answer = json.dumps(hub.answer(self.path.partition("?")[0], body)).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        do_PUT = do_POST  # noqa: N815

    with _running(Handler) as root:
        hub.url = root
        yield hub
