"""A registry in this process that can be told to misbehave: what it has, and how it answers."""

from __future__ import annotations

import json
import threading
import urllib.parse
from dataclasses import dataclass, field
from pathlib import Path

from tests.support.registries import Handler, Server, Serving, basic


@dataclass
class Fake(Serving):
    documents: dict[str, bytes] = field(default_factory=dict)
    """Manifests by tag and by digest."""
    blobs: dict[str, bytes] = field(default_factory=dict)
    auth: str = ""
    """"" | basic | bearer."""
    ranges: bool = True
    cuts: int = 0
    """So many downloads of a large blob end after a third of what is asked for."""
    uploads: dict[str, bytes] = field(default_factory=dict)
    """By path."""
    upload_cuts: int = 0
    """So many uploads end after a third of what is sent."""
    mountable: tuple[str, ...] = ()
    """Digests that it takes over from anywhere."""
    lost: bool = False
    """What is asked for from its middle on is not there any more."""
    redirect_to: str = ""
    """Where the blobs are (URL, without the path)."""
    statuses: list[tuple[int, dict[str, str]]] = field(default_factory=list)
    """Answers instead of the proper ones, one after the other; the last one stays when `broken`."""
    broken: bool = False
    expires_in: int | None = None
    tokens: int = 0
    """Given so far; only the last is good."""
    pages: list[list[str]] = field(default_factory=list)
    """Of its tags."""
    realm: str = ""
    """Another token service than its own."""
    gate: threading.Event | None = None
    """Blobs wait for it after their first byte."""
    reached: threading.Event = field(default_factory=threading.Event)
    """A blob waits at the gate."""

    def of_blobs(self) -> list[str]:
        return [path for path in self.paths if "/blobs/" in path]

    def authorizations(self, part: str = "") -> set[str]:
        return {headers.get("authorization", "") for _, path, headers in self.requests if part in path}


class FakeHandler(Handler):
    serving: Fake

    def do_GET(self) -> None:
        self.note()
        fake, path = self.serving, urllib.parse.urlsplit(self.path)
        if fake.statuses and "/v2/" in self.path:
            status, headers = fake.statuses[0]
            if not (fake.broken and len(fake.statuses) == 1):
                fake.statuses.pop(0)
            words = {"errors": [{"code": "TOOMANYREQUESTS", "message": "you have pulled enough"}]}
            self.answer(status, json.dumps(words).encode() if status == 429 else b"<html>", headers)
        elif path.path == "/token":
            self.token(path.query)
        elif fake.auth and not self.allowed():
            realm = fake.realm or f"http://{fake.address}/token"
            bearer = f'Bearer realm="{realm}",service="fake"'
            challenge = "Basic realm=x" if fake.auth == "basic" else bearer
            self.answer(401, b'{"errors":[{"message":"unauthorized"}]}', {"WWW-Authenticate": challenge})
        elif path.path.endswith("/tags/list"):
            self.tags(path.query)
        elif "/manifests/" in path.path:
            data = fake.documents.get(path.path.rpartition("/")[2])
            if data is None:
                body = {"errors": [{"code": "MANIFEST_UNKNOWN", "message": "manifest unknown"}]}
                self.answer(404, json.dumps(body).encode())
            else:
                self.answer(200, data, {"Content-Type": "application/json"})
        elif path.path in fake.uploads:
            here = len(fake.uploads[path.path])
            self.answer(204, b"", {"Location": path.path, "Range": f"0-{here - 1}"})
        elif fake.redirect_to:
            self.answer(307, b"", {"Location": f"{fake.redirect_to}{self.path}"})
        elif "/blobs/" in path.path:
            self.blob(path.path.rpartition("/")[2])
        else:
            self.answer(200, b"{}")

    def do_POST(self) -> None:
        self.note()
        query = urllib.parse.parse_qs(urllib.parse.urlsplit(self.path).query)
        if query.get("mount", [""])[0] in self.serving.mountable:
            self.serving.blobs[query["mount"][0]] = b"mounted"
            self.answer(201)
            return
        number = len(self.serving.uploads)
        self.serving.uploads[f"/uploads/{number}"] = b""
        self.answer(202, b"", {"Location": f"/uploads/{number}"})

    def do_PATCH(self) -> None:
        self.note()
        fake, length = self.serving, int(self.headers["Content-Length"])
        if fake.upload_cuts:
            fake.upload_cuts -= 1
            fake.uploads[self.path] += self.rfile.read(length // 3)
            self.close_connection = True
            return
        fake.uploads[self.path] += self.rfile.read(length)
        self.answer(202, b"", {"Location": self.path})

    def do_PUT(self) -> None:
        self.note()
        path, _, query = self.path.partition("?")
        data = self.rfile.read(int(self.headers["Content-Length"]))
        if "/manifests/" in path:
            self.serving.documents[path.rpartition("/")[2]] = data
        else:
            [digest] = urllib.parse.parse_qs(query)["digest"]
            self.serving.blobs[digest] = self.serving.uploads.pop(path) + data
        self.answer(201)

    def do_DELETE(self) -> None:
        self.note()
        del self.serving.uploads[self.path]
        self.answer(204)

    def do_HEAD(self) -> None:
        self.note()
        data = self.serving.blobs.get(self.path.rpartition("/")[2])
        self.send_response(404 if data is None else 200)
        self.send_header("Content-Length", str(len(data or b"")))
        self.end_headers()

    def token(self, query: str) -> None:
        authorization = self.headers.get("Authorization", "")
        if authorization and authorization != basic():
            self.answer(401, b"{}")
            return
        asked = urllib.parse.parse_qs(query)
        assert asked["service"] == ["fake"]
        self.serving.tokens += 1
        answer: dict[str, object] = {"token": f"token-{self.serving.tokens}"}
        if self.serving.expires_in is not None:
            answer["expires_in"] = self.serving.expires_in
        self.answer(200, json.dumps(answer).encode())

    def allowed(self) -> bool:
        authorization = self.headers.get("Authorization", "")
        if self.serving.auth == "basic":
            return authorization == basic()
        return authorization == f"Bearer token-{self.serving.tokens}"

    def tags(self, query: str) -> None:
        number = int(urllib.parse.parse_qs(query).get("page", ["0"])[0])
        headers = {}
        if number + 1 < len(self.serving.pages):
            headers["Link"] = f'<{urllib.parse.urlsplit(self.path).path}?page={number + 1}>; rel="next"'
        self.answer(200, json.dumps({"tags": self.serving.pages[number]}).encode(), headers)

    def blob(self, digest: str) -> None:
        fake, wanted = self.serving, self.headers.get("Range", "")
        data, status = fake.blobs.get(digest), 200
        if data is None or (wanted and fake.lost):
            self.answer(404)
            return
        if wanted and fake.ranges:
            data, status = data[int(wanted.removeprefix("bytes=").rstrip("-")) :], 206
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if fake.gate is not None and len(data) > 100_000:
            self.wfile.write(data[:1])
            data = data[1:]
            fake.reached.set()
            fake.gate.wait(20)
        if fake.cuts and len(data) > 100_000:
            fake.cuts -= 1
            self.wfile.write(data[: len(data) // 3])
            self.close_connection = True
        else:
            self.wfile.write(data)


def serve(fake: Fake, tls: tuple[Path, Path] | None = None) -> Server:
    return Server(FakeHandler, fake, tls)
