"""A stand-in for the Hugging Face Hub: the addresses that `huggingface_hub` asks for models."""

import base64
import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class Hub(HTTPServer):
    """Repositories in memory: files by name."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.repositories: dict[str, dict[str, bytes]] = {}
        self.private: dict[str, bool] = {}
        self.stored: dict[str, bytes] = {}
        self.wrong_checksum = False
        self.token = ""
        """What a request must carry to write; nothing if empty."""

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class _Handler(BaseHTTPRequestHandler):
    server: Hub

    def log_message(self, *_: Any) -> None:
        """Nothing is printed."""

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        path = self.path.split("?")[0]
        if self.server.token and self.headers.get("Authorization") != f"Bearer {self.server.token}":
            self._answer({"error": "not allowed"}, 403)
        elif path == "/api/repos/create":
            asked = json.loads(body)
            name = "/".join(filter(None, (asked.get("organization"), asked["name"])))
            self.server.repositories.setdefault(name, {})
            self.server.private[name] = bool(asked.get("private")) or (
                asked.get("visibility") == "private"
            )
            self._answer({"url": f"{self.server.address}/{name}", "name": name})
        elif path == "/api/validate-yaml":
            self._answer({"errors": [], "warnings": []})
        elif "/preupload/" in path:
            self._answer({"files": [_upload(each) for each in json.loads(body)["files"]]})
        elif path.endswith("/info/lfs/objects/batch"):
            objects = json.loads(body)["objects"]
            for each in objects:
                each["actions"] = {"upload": {"href": f"{self.server.address}/lfs/{each['oid']}"}}
            self._answer({"transfer": "basic", "objects": objects})
        elif "/commit/" in path:
            self._commit(_name(path), body)
        else:
            self._answer({}, 404)

    def do_PUT(self) -> None:
        data = self.rfile.read(int(self.headers["Content-Length"]))
        oid = self.path.rsplit("/", 1)[1]
        assert hashlib.sha256(data).hexdigest() == oid
        self.server.stored[oid] = data
        self._answer({})

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        path = self.path.split("?")[0]
        if path.startswith("/api/models/"):
            files = self.server.repositories.get(_name(path))
            if files is None:
                self._answer({"error": "not there"}, 404, {"X-Error-Code": "RepoNotFound"})
                return
            siblings = [self._described(name, data) for name, data in files.items()]
            self._answer({"id": _name(path), "sha": COMMIT, "siblings": siblings})
            return
        if "/resolve/" not in path:
            self._answer({}, 404)
            return
        owner, name, _, _, file = path.strip("/").split("/", 4)
        data = self.server.repositories[f"{owner}/{name}"][file]
        etag = hashlib.sha256(data).hexdigest()
        self._send(data, 200, {"X-Repo-Commit": COMMIT, "ETag": f'"{etag}"'})

    def _described(self, name: str, data: bytes) -> dict[str, Any]:
        digest = "0" * 64 if self.server.wrong_checksum else hashlib.sha256(data).hexdigest()
        lfs = {"size": len(data), "sha256": digest, "pointerSize": 130}
        return {"rfilename": name, "size": len(data), "blobId": "1", "lfs": lfs}

    def _commit(self, repository: str, body: bytes) -> None:
        files = self.server.repositories[repository]
        for line in map(json.loads, body.splitlines()):
            value = line["value"]
            if line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                files[value["path"]] = self.server.stored[value["oid"]]
        address = f"{self.server.address}/{repository}/commit/{COMMIT}"
        self._answer({"commitUrl": address, "commitOid": COMMIT})

    def _answer(self, value: Any, status: int = 200, headers: dict[str, str] | None = None) -> None:
        self._send(
            json.dumps(value).encode(),
            status,
            {"Content-Type": "application/json"} | (headers or {}),
        )

    def _send(self, data: bytes, status: int, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(data)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)


def _name(path: str) -> str:
    """``OWNER/NAME`` of ``/api/models/OWNER/NAME/...``."""
    return "/".join(path.split("/")[3:5])


def _upload(file: dict[str, Any]) -> dict[str, Any]:
    mode = "lfs" if file["path"].endswith(".safetensors") else "regular"
    return {"path": file["path"], "uploadMode": mode, "shouldIgnore": False}


@contextmanager
def running_hub() -> Iterator[Hub]:
    """The server in a thread of its own."""
    with Hub() as hub:
        thread = threading.Thread(target=hub.serve_forever, name="hub")
        thread.start()
        try:
            yield hub
        finally:
            hub.shutdown()
            thread.join()
