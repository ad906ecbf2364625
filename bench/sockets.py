"""The Docker API of either engine over its unix socket, with one connection kept open."""

from __future__ import annotations

import http.client
import json
import socket
from pathlib import Path
from typing import Any


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=60)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))


class Api:
    def __init__(self, path: Path) -> None:
        self._connection = _UnixConnection(path)

    def call(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        data = None if body is None else json.dumps(body).encode()
        self._connection.request(
            method, f"/v1.41{path}", data, {"Content-Type": "application/json"} if data else {}
        )
        answer = self._connection.getresponse()
        text = answer.read()
        if answer.status >= 400:
            raise RuntimeError(f"{method} {path}: {answer.status} {text.decode(errors='replace')}")
        return json.loads(text) if text.strip() else None

    def create(self, **body: Any) -> str:
        return str(self.call("POST", "/containers/create", body)["Id"])

    def run_to_the_end(self, **body: Any) -> None:
        identity = self.create(**body)
        self.call("POST", f"/containers/{identity}/start")
        self.call("POST", f"/containers/{identity}/wait")
        self.call("DELETE", f"/containers/{identity}")

    def load(self, archive: bytes) -> None:
        self._connection.request("POST", "/v1.41/images/load", archive, {"Content-Type": "application/x-tar"})
        answer = self._connection.getresponse()
        text = answer.read()
        if answer.status >= 400:
            raise RuntimeError(text.decode())
