"""Pulling, from a registry in this process that can be told to misbehave."""

from __future__ import annotations

import base64
import gzip
import json
import os
import threading
import urllib.parse
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from tests.support import imagefiles
from tests.support.imagefiles import config, descriptor, files, manifest, sha256

from hawse_agent.distribution import endpoint, reference
from hawse_agent.distribution.credentials import NOBODY, Credentials
from hawse_agent.distribution.manifest import host_platform
from hawse_agent.distribution.registry import Client
from hawse_agent.distribution.settings import RegistrySettings
from hawse_agent.engine.state import State
from hawse_agent.errors import HostRefused, NotFound, ProtocolError
from hawse_agent.images.pull import Progress, Pulls
from hawse_agent.images.store import Image, ImageStore
from hawse_agent.paths import Paths, paths_for

DEFAULTS = RegistrySettings()
LAYER = files({"etc/x": "content"})
BLOB = gzip.compress(LAYER, mtime=0)
NOISE = files({"noise": os.urandom(3_000_000).hex()})
CONFIG = config([sha256(LAYER), sha256(NOISE)], Cmd=["run"])
MANIFEST = manifest(CONFIG, [BLOB, NOISE])


@dataclass
class Fake:
    """What the registry has and how it behaves."""

    documents: dict[str, bytes] = field(default_factory=dict)
    blobs: dict[str, bytes] = field(default_factory=dict)
    auth: str = ""
    """"" | basic | bearer."""
    ranges: bool = True
    cuts: int = 0
    """So many downloads of a blob end after a third of what is asked for."""
    redirect_to: str = ""
    """Another host (URL) that has the blobs."""
    error: int = 0
    tokens: int = 0
    requests: list[tuple[str, str, str]] = field(default_factory=list)
    """(path, Authorization, Range) of each."""
    port: int = 0


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    fake: Fake

    def log_message(self, format: str, *args: object) -> None:
        pass

    def do_GET(self) -> None:
        fake, path = self.fake, urllib.parse.urlsplit(self.path)
        authorization, wanted = self.headers.get("Authorization", ""), self.headers.get("Range", "")
        fake.requests.append((self.path, authorization, wanted))
        if fake.error:
            self.answer(fake.error, b"<html>")
        elif path.path == "/token":
            if authorization and authorization != basic("user", "secret"):
                self.answer(401, b"{}")
                return
            fake.tokens += 1
            query = urllib.parse.parse_qs(path.query)
            assert query["scope"] == ["repository:team/app:pull"] and query["service"] == ["fake"]
            self.answer(200, json.dumps({"token": f"token-{fake.tokens}"}).encode())
        elif fake.auth and not self.allowed(authorization):
            realm = f'realm="http://127.0.0.1:{fake.port}/token",service="fake"'
            challenge = "Basic realm=x" if fake.auth == "basic" else f"Bearer {realm}"
            self.answer(401, b'{"errors":[{"message":"unauthorized"}]}', {"WWW-Authenticate": challenge})
        elif "/manifests/" in path.path:
            data = fake.documents.get(path.path.rpartition("/")[2])
            if data is None:
                body = {"errors": [{"code": "MANIFEST_UNKNOWN", "message": "manifest unknown"}]}
                self.answer(404, json.dumps(body).encode())
            else:
                self.answer(200, data)
        elif fake.redirect_to:
            self.answer(307, b"", {"Location": f"{fake.redirect_to}{self.path}"})
        else:
            self.blob(path.path.rpartition("/")[2], wanted)

    def allowed(self, authorization: str) -> bool:
        if self.fake.auth == "basic":
            return authorization == basic("user", "secret")
        return authorization == f"Bearer token-{self.fake.tokens}"

    def blob(self, digest: str, wanted: str) -> None:
        data, status = self.fake.blobs[digest], 200
        if wanted and self.fake.ranges:
            data, status = data[int(wanted.removeprefix("bytes=").rstrip("-")) :], 206
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.fake.cuts and len(data) > 100_000:
            self.fake.cuts -= 1
            self.wfile.write(data[: len(data) // 3])
            self.close_connection = True
        else:
            self.wfile.write(data)

    def answer(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for key, value in (headers or {}).items():
            self.send_header(key, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def basic(user: str, password: str) -> str:
    return f"Basic {base64.b64encode(f'{user}:{password}'.encode()).decode()}"


@pytest.fixture
def serve() -> Iterator[Any]:
    """Starts fakes; gives them their port."""
    servers = []

    def start(fake: Fake) -> Fake:
        handler = type("Bound", (Handler,), {"fake": fake})
        server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        server.daemon_threads = True
        fake.port = server.server_address[1]
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        servers.append((server, thread))
        return fake

    yield start
    for server, thread in servers:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    return paths_for(tmp_path)


@pytest.fixture
def store(paths: Paths) -> Iterator[ImageStore]:
    state = State(paths)
    yield ImageStore(paths, state)
    state.close()


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(endpoint, "_pause", lambda failures: 0.0)


def a_fake(**behaviour: Any) -> Fake:
    return Fake(
        documents={"1": MANIFEST, sha256(MANIFEST): MANIFEST},
        blobs={sha256(data): data for data in (CONFIG, BLOB, NOISE)},
        **behaviour,
    )


def pull(fake: Fake, store: ImageStore, tag: str = ":1", **auth: str) -> tuple[Image, list[dict[str, Any]]]:
    events: list[dict[str, Any]] = []
    name = f"127.0.0.1:{fake.port}/team/app{tag}"
    return pull_by_name(name, store, events.append, Credentials(**auth)), events


def pull_by_name(
    name: str,
    store: ImageStore,
    progress: Progress = lambda event: None,
    credentials: Credentials = NOBODY,
    *,
    platform: str = "",
    settings: RegistrySettings = DEFAULTS,
) -> Image:
    pulls = Pulls(Client(settings, {}), store)
    return pulls.pull(reference.parse(name), progress, credentials, platform=platform)


def test_pull_and_pull_again(serve: Any, store: ImageStore) -> None:
    fake = serve(a_fake())
    image, events = pull(fake, store)
    name = f"127.0.0.1:{fake.port}/team/app"
    assert (image.id, image.repo_tags) == (sha256(CONFIG), (f"{name}:1",))
    assert image.repo_digests == (f"{name}@{sha256(MANIFEST)}",)
    assert events[0] == {"status": "Pulling from team/app", "id": "1"}
    assert events[-1]["status"] == f"Status: Downloaded newer image for {name}:1"
    assert {"Pulling fs layer", "Download complete", "Pull complete"} <= {e["status"] for e in events}
    fake.requests.clear()
    _, events = pull(fake, store)
    assert events[-1]["status"] == f"Status: Image is up to date for {name}:1"
    assert [path for path, _, _ in fake.requests] == ["/v2/team/app/manifests/1"], "nothing is fetched twice"


def test_by_digest(serve: Any, store: ImageStore) -> None:
    fake = serve(a_fake())
    image, _ = pull(fake, store, f"@{sha256(MANIFEST)}")
    assert image.repo_tags == ()
    assert store.get(f"127.0.0.1:{fake.port}/team/app@{sha256(MANIFEST)}").id == image.id
    fake.documents[sha256(b"other")] = MANIFEST
    with pytest.raises(ProtocolError, match="instead of"):
        pull(fake, store, f"@{sha256(b'other')}")


def test_index_gives_this_hosts_platform(serve: Any, store: ImageStore) -> None:
    mine = {"os": "linux", "architecture": host_platform().architecture}
    index = json.dumps(
        {
            "schemaVersion": 2,
            "manifests": [
                descriptor(b"other", imagefiles.MANIFEST, platform={"os": "linux", "architecture": "none"}),
                descriptor(MANIFEST, imagefiles.MANIFEST, platform=mine),
            ],
        }
    ).encode()
    fake = serve(a_fake())
    fake.documents["1"] = index
    image, _ = pull(fake, store)
    assert image.id == sha256(CONFIG)
    assert image.repo_digests == (f"127.0.0.1:{fake.port}/team/app@{sha256(index)}",)
    with pytest.raises(NotFound, match="no matching manifest for linux/s390x"):
        pull_by_name(f"127.0.0.1:{fake.port}/team/app:1", store, platform="linux/s390x")


@pytest.mark.parametrize("ranges", [True, False])
def test_a_cut_download_goes_on(serve: Any, store: ImageStore, ranges: bool) -> None:
    fake = serve(a_fake(ranges=ranges, cuts=4))
    image, _ = pull(fake, store)
    assert (store.layer_dirs(image)[0] / "noise").stat().st_size == 6_000_000
    resumed = [wanted for path, _, wanted in fake.requests if path.endswith(sha256(NOISE)) and wanted]
    assert len(resumed) == 4


def test_a_server_that_always_cuts_is_given_up_and_whole_blobs_stay(
    serve: Any, store: ImageStore, paths: Paths
) -> None:
    fake = serve(a_fake(ranges=False, cuts=100))
    with pytest.raises(HostRefused, match="cannot reach the registry"):
        pull(fake, store)
    assert list(paths.incoming.iterdir()) == []
    assert store.list() == []
    fake.cuts = 0
    fake.requests.clear()
    pull(fake, store)
    assert sum("/blobs/" in path for path, _, _ in fake.requests) <= 3


def test_damaged_blob_is_refused_and_nothing_stays(serve: Any, store: ImageStore, paths: Paths) -> None:
    fake = serve(a_fake())
    fake.blobs[sha256(BLOB)] = BLOB[:-1] + b"!"
    with pytest.raises(ProtocolError, match=f"{sha256(BLOB)} is damaged"):
        pull(fake, store)
    fake.blobs[sha256(BLOB)] = BLOB + b"more"
    with pytest.raises(ProtocolError, match="more of"):
        pull(fake, store)
    assert (list(paths.incoming.iterdir()), list(paths.blobs.iterdir())) == ([], [])


def test_bearer_token_without_and_with_credentials(serve: Any, store: ImageStore) -> None:
    fake = serve(a_fake(auth="bearer"))
    pull(fake, store)
    assert fake.tokens == 1, "one token serves the whole pull"
    pull(fake, store, username="user", password="secret")
    assert basic("user", "secret") in [auth for path, auth, _ in fake.requests if "/token" in path]
    with pytest.raises(NotFound, match=r"pull access denied for .*team/app, repository does not exist"):
        pull(fake, store, username="user", password="wrong")


def test_basic(serve: Any, store: ImageStore) -> None:
    fake = serve(a_fake(auth="basic"))
    pull(fake, store, username="user", password="secret")
    with pytest.raises(NotFound, match="no basic auth credentials"):
        pull(fake, store)
    with pytest.raises(NotFound, match="unauthorized") as caught:
        pull(fake, store, username="user", password="wrong-one")
    assert "wrong-one" not in str(caught.value)


def test_credentials_do_not_follow_to_another_host(serve: Any, store: ImageStore) -> None:
    other = serve(a_fake())
    fake = serve(a_fake(auth="basic", redirect_to=f"http://localhost:{other.port}"))
    pull(fake, store, username="user", password="secret")
    assert other.requests and all(authorization == "" for _, authorization, _ in other.requests)


def test_what_the_registry_does_not_have(serve: Any, store: ImageStore) -> None:
    fake = serve(a_fake())
    with pytest.raises(NotFound, match=r"manifest for 127.0.0.1:\d+/team/app:2 not found: manifest unknown"):
        pull(fake, store, ":2")


def test_server_errors_are_tried_again_and_then_told(serve: Any, store: ImageStore) -> None:
    fake = serve(a_fake(error=503))
    with pytest.raises(HostRefused, match="answers 503"):
        pull(fake, store)
    assert len(fake.requests) == 5


def test_no_registry_there_fails_at_once(store: ImageStore) -> None:
    with pytest.raises(HostRefused, match=r"cannot reach the registry 127\.0\.0\.1:1: "):
        pull_by_name("127.0.0.1:1/a", store)


def test_a_client_that_goes_away_stops_the_pull(serve: Any, store: ImageStore, paths: Paths) -> None:
    def gone(event: dict[str, Any]) -> None:
        if event["status"] == "Download complete":
            raise BrokenPipeError

    fake = serve(a_fake())
    with pytest.raises(BrokenPipeError):
        pull_by_name(f"127.0.0.1:{fake.port}/team/app:1", store, gone)
    assert (store.list(), list(paths.incoming.iterdir())) == ([], [])
