"""A server on this machine that answers as the Hugging Face Hub does, for uploads and downloads.

It answers what `huggingface_hub` asks: create a repository, say how each file is uploaded, take a
large file (Git LFS), take a commit, send a file of a commit.  Other requests get 404.
"""

from __future__ import annotations

import base64
import hashlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self


class HubServer:
    """Repositories, each a dict from the name of a file to its bytes."""

    def __init__(self, token: str) -> None:
        self.token = token
        self.repositories: dict[str, dict[str, bytes]] = {}
        self.commits = 0
        self._objects: dict[str, bytes] = {}
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self.address = f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *error: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def post(self, path: str, body: bytes) -> Any:
        """Answer a POST with a value for JSON, or None for an unknown address."""
        if path == "/api/repos/create":
            asked = json.loads(body)
            name = "/".join(filter(None, (asked.get("organization"), asked["name"])))
            self.repositories.setdefault(name, {})
            return {"url": f"{self.address}/{name}", "name": name}
        if path == "/api/validate-yaml":
            return {"errors": [], "warnings": []}
        if "/preupload/" in path:
            files = json.loads(body)["files"]
            return {"files": [{**one, **self._mode(one["path"])} for one in files]}
        if path.endswith("/info/lfs/objects/batch"):
            objects = json.loads(body)["objects"]
            actions = {one["oid"]: {"href": f"{self.address}/put/{one['oid']}"} for one in objects}
            return {
                "transfer": "basic",
                "objects": [{**one, "actions": {"upload": actions[one["oid"]]}} for one in objects],
            }
        if "/commit/" in path:
            return self._commit("/".join(path.split("/")[3:5]), body)
        return None

    def put(self, path: str, body: bytes) -> bool:
        """Keep a large file under its SHA-256; return whether it is the one that was announced."""
        oid = path.rpartition("/")[2]
        self._objects[oid] = body
        return oid == hashlib.sha256(body).hexdigest()

    def file(self, path: str) -> tuple[bytes, str] | None:
        """Return the bytes of `/ORG/NAME/resolve/REVISION/FILE`, and their tag."""
        parts = path.strip("/").split("/")
        if parts[2:3] != ["resolve"]:
            return None
        found = self.repositories.get("/".join(parts[:2]), {}).get("/".join(parts[4:]))
        return None if found is None else (found, hashlib.sha256(found).hexdigest())

    def _mode(self, path: str) -> dict[str, Any]:
        large = path.endswith((".safetensors", ".pt2", ".onnx"))
        return {"uploadMode": "lfs" if large else "regular", "shouldIgnore": False, "oid": None}

    def _commit(self, name: str, body: bytes) -> dict[str, Any]:
        for line in map(json.loads, body.splitlines()):
            value = line["value"]
            if line["key"] == "file":
                self.repositories[name][value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                self.repositories[name][value["path"]] = self._objects[value["oid"]]
        self.commits += 1
        oid = f"{self.commits:040x}"
        return {
            "success": True,
            "commitOid": oid,
            "commitUrl": f"{self.address}/{name}/commit/{oid}",
        }


def _handler(hub: HubServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self._body()
            if self.headers.get("authorization") != f"Bearer {hub.token}":
                return self._say(401, b'{"error": "Invalid username or password."}')
            answer = hub.post(self.path, body)
            return self._say(404 if answer is None else 200, json.dumps(answer).encode())

        def do_PUT(self) -> None:
            self._say(200 if hub.put(self.path, self._body()) else 400, b"")

        def do_HEAD(self) -> None:
            self._file()

        def do_GET(self) -> None:
            self._file()

        def _file(self) -> None:
            found = hub.file(self.path)
            if found is None:
                return self._say(404, b"")
            content, tag = found
            return self._say(200, content, {"ETag": f'"{tag}"', "X-Repo-Commit": "1" * 40})

        def _body(self) -> bytes:
            if self.headers.get("transfer-encoding") != "chunked":
                return self.rfile.read(int(self.headers.get("content-length", 0)))
            parts = []
            while size := int(self.rfile.readline(), 16):
                parts.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(parts)

        def _say(self, status: int, content: bytes, headers: dict[str, str] | None = None) -> None:
            self.send_response(status)
            for name, value in (headers or {}).items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(content)

        def log_message(self, format: str, *given: object) -> None:
            """Print nothing."""

    return Handler
