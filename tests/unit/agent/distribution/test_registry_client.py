"""The client of registries, against ones in this process that misbehave as they are told."""

from __future__ import annotations

import socket
import socketserver
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from tests.support import certificates, fakeregistry, registries
from tests.support.fakeregistry import Fake
from tests.support.registries import PASSWORD, USER, basic

from hawse_agent.distribution import endpoint, reference
from hawse_agent.distribution.cancel import Cancel, Stopped
from hawse_agent.distribution.credentials import NOBODY, Credentials
from hawse_agent.distribution.documents import sha256
from hawse_agent.distribution.manifest import Descriptor
from hawse_agent.distribution.registry import Client, Repository, Upload
from hawse_agent.distribution.search import search
from hawse_agent.distribution.settings import RegistrySettings
from hawse_agent.errors import HostRefused, InputError, NotFound, ProtocolError, Unauthorized

Start = Callable[[Fake], Fake]

BLOB = b"a blob's bytes" * 20_000
DESCRIPTOR = Descriptor(digest=sha256(BLOB), size=len(BLOB))
MANIFEST = b'{"schemaVersion": 2}'
SOMEBODY = Credentials(username=USER, password=PASSWORD)


@pytest.fixture
def serve() -> Iterator[Start]:
    with ExitStack() as servers:

        def start(fake: Fake) -> Fake:
            servers.enter_context(fakeregistry.serve(fake))
            return fake

        yield start


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(endpoint, "_pause", lambda failures: 0.0)


def a_fake(**behaviour: Any) -> Fake:
    documents = {"1": MANIFEST, sha256(MANIFEST): MANIFEST}
    return Fake(documents=documents, blobs={DESCRIPTOR.digest: BLOB}, **behaviour)


def a_client(**settings: Any) -> Client:
    return Client(RegistrySettings(certificates="/nowhere", **settings), {})


@contextmanager
def repository(
    fake: Fake, credentials: Credentials = NOBODY, client: Client | None = None
) -> Iterator[Repository]:
    name = reference.parse(f"{fake.address}/team/app:1")
    with (client or a_client()).repository(name, credentials) as opened:
        yield opened


def read(opened: Repository) -> bytes:
    return b"".join(opened.blob(DESCRIPTOR))


# -- who we are -----------------------------------------------------------------------------------


def test_a_token_is_used_by_all_until_it_expires(serve: Start) -> None:
    fake, client = serve(a_fake(auth="bearer", expires_in=300)), a_client()
    for _ in range(3):
        with repository(fake, SOMEBODY, client) as opened:
            opened.manifest("1")
            assert read(opened) == BLOB
    assert fake.tokens == 1
    with repository(fake, client=client) as opened:
        opened.manifest("1")
    assert fake.tokens == 2, "nobody has another one's token"
    short = serve(a_fake(auth="bearer", expires_in=1))
    for _ in range(2):
        with repository(short, SOMEBODY, client) as opened:
            opened.manifest("1")
    assert short.tokens == 2


def test_a_token_that_ends_in_the_middle_is_renewed(serve: Start) -> None:
    fake = serve(a_fake(auth="bearer"))
    with repository(fake) as opened:
        opened.manifest("1")
        fake.tokens += 1  # somebody else has got one: ours is good no more
        opened.manifest("1")
    assert fake.tokens == 3


def test_credentials_are_not_for_a_token_service_in_the_clear(serve: Start) -> None:
    fake = serve(a_fake(auth="bearer", realm="http://auth.example/token"))
    with (
        pytest.raises(ProtocolError, match="names a token service that is not https"),
        repository(fake, SOMEBODY) as opened,
    ):
        opened.manifest("1")
    assert basic() not in fake.authorizations()


def test_login(serve: Start) -> None:
    fake, client = serve(a_fake(auth="basic")), a_client()
    assert client.log_in(fake.address, SOMEBODY) == ""
    with pytest.raises(Unauthorized, match=rf'Get "http://{fake.address}/v2/": unauthorized'):
        client.log_in(fake.address, Credentials(username=USER, password="wrong-word"))
    with pytest.raises(Unauthorized, match="no basic auth credentials"):
        client.log_in(fake.address, NOBODY)
    with pytest.raises(HostRefused, match=r"127\.0\.0\.1:1/v2/.*refused"):
        client.log_in("127.0.0.1:1", SOMEBODY)


# -- redirects ------------------------------------------------------------------------------------


def test_nothing_that_proves_who_we_are_goes_elsewhere(serve: Start) -> None:
    other = serve(a_fake())
    fake = serve(a_fake(auth="basic", redirect_to=f"http://localhost:{other.port}"))
    with repository(fake, SOMEBODY) as opened:
        assert read(opened) == BLOB
    assert other.authorizations() == {""} and other.requests


@pytest.mark.parametrize(
    ("target", "problem"), [("ftp://x", "redirects to ftp:"), ("http://{}", "redirects without an end")]
)
def test_redirects_that_lead_nowhere(serve: Start, target: str, problem: str) -> None:
    fake = serve(a_fake())
    fake.redirect_to = target.format(fake.address)
    with pytest.raises(ProtocolError, match=problem), repository(fake) as opened:
        read(opened)


# -- when it fails --------------------------------------------------------------------------------


def test_too_many_requests_are_waited_for_as_long_as_is_asked(serve: Start) -> None:
    fake = serve(a_fake(statuses=[(429, {"Retry-After": "0"}), (503, {"Retry-After": "0"}), (500, {})]))
    with repository(fake) as opened:
        assert opened.manifest("1").data == MANIFEST
    assert len(fake.requests) == 4


@pytest.mark.parametrize("after", ["0", "Fri, 01 Jan 2010 00:00:00 GMT"])
def test_a_registry_that_has_us_wait_for_nothing_is_given_up(
    serve: Start, monkeypatch: pytest.MonkeyPatch, after: str
) -> None:
    pauses: list[float] = []
    monkeypatch.setattr(endpoint, "_pause", lambda failures: 0.001)
    monkeypatch.setattr(Cancel, "pause", lambda self, seconds: pauses.append(seconds))
    fake = serve(a_fake(statuses=[(429, {"Retry-After": after})], broken=True))
    with pytest.raises(HostRefused, match="refuses more for now"), repository(fake) as opened:
        opened.manifest("1")
    assert (len(fake.requests), set(pauses)) == (20, {0.001})


@pytest.mark.parametrize("size", [100, len(BLOB) + 1])
def test_an_upload_is_never_longer_or_shorter_than_announced(serve: Start, size: int) -> None:
    """The rest would be the next request."""
    fake = serve(a_fake())
    with pytest.raises(ProtocolError, match="what is sent"), repository(fake) as opened:
        opened.upload(Upload(open=lambda offset: iter([BLOB[offset:]]), size=size, digest=lambda: "x"))
    assert len(fake.requests) <= 2


def test_a_configuration_is_verified_and_bounded(serve: Start) -> None:
    fake = serve(a_fake())
    fake.blobs["sha256:" + "0" * 64] = b"{}"
    with repository(fake) as opened:
        with pytest.raises(ProtocolError, match="is damaged"):
            opened.configuration(Descriptor(digest="sha256:" + "0" * 64, size=2))
        with pytest.raises(InputError, match="larger than any configuration"):
            opened.configuration(Descriptor(digest=DESCRIPTOR.digest, size=5 << 20))
        assert opened.configuration(DESCRIPTOR) == BLOB


@pytest.mark.parametrize(
    "headers", [{}, {"Retry-After": "3600"}, {"Retry-After": "Fri, 01 Jan 2100 00:00:00 GMT"}]
)
def test_too_many_requests_are_told_in_the_registrys_words(serve: Start, headers: dict[str, str]) -> None:
    fake = serve(a_fake(statuses=[(429, headers)], broken=True))
    with (
        pytest.raises(
            HostRefused, match="refuses more for now: toomanyrequests: you have pulled enough"
        ) as caught,
        repository(fake) as opened,
    ):
        opened.manifest("1")
    assert len(fake.requests) == 1 and "log in" in caught.value.hint


def test_who_does_not_want_it_any_more_is_not_waited_for(serve: Start) -> None:
    fake, cancel = serve(a_fake(statuses=[(429, {"Retry-After": "50"})])), Cancel()
    begin = time.monotonic()
    with repository(fake) as opened, cancel.calling(opened.stop):
        threading.Timer(0.1, cancel).start()
        with pytest.raises(Stopped):
            opened.manifest("1")
    assert time.monotonic() - begin < 10


def test_a_read_that_hangs_is_cut_at_once(serve: Start) -> None:
    fake = serve(a_fake(gate=threading.Event()))
    with repository(fake) as opened:
        pieces = opened.blob(DESCRIPTOR)
        threading.Thread(target=lambda: (fake.reached.wait(10), opened.stop())).start()
        begin = time.monotonic()
        with pytest.raises(Stopped):
            list(pieces)
        assert time.monotonic() - begin < 10
    assert fake.gate is not None
    fake.gate.set()


# -- mirrors --------------------------------------------------------------------------------------


def mirrored(fake: Fake, *mirrors: str) -> Client:
    return a_client(mirrors={fake.address: mirrors})


def test_mirrors_are_asked_first_and_without_credentials(serve: Start) -> None:
    fake, mirror = serve(a_fake(auth="basic")), serve(a_fake())
    with repository(fake, SOMEBODY, mirrored(fake, f"http://{mirror.address}/hub")) as opened:
        assert opened.manifest("1").data == MANIFEST and read(opened) == BLOB
    assert fake.requests == [] and mirror.authorizations() == {""}
    assert all(path.startswith("/hub/v2/team/app/") for path in mirror.paths)


@pytest.mark.parametrize(
    "behaviour", [{"statuses": [(503, {})], "broken": True}, {"documents": {}}, {"auth": "basic"}]
)
def test_a_mirror_that_fails_is_left_for_the_next(serve: Start, behaviour: dict[str, Any]) -> None:
    fake, mirror = serve(a_fake()), serve(Fake(**behaviour))
    client = mirrored(fake, "http://127.0.0.1:1", f"http://{mirror.address}")
    with repository(fake, client=client) as opened:
        assert opened.manifest("1").data == MANIFEST
        asked = len(mirror.requests)
        assert asked and read(opened) == BLOB
        assert len(mirror.requests) == asked, "it is not asked again"


def test_a_mirror_that_fails_in_the_middle(serve: Start) -> None:
    fake, mirror = serve(a_fake()), serve(a_fake(cuts=1))
    with repository(fake, client=mirrored(fake, f"http://{mirror.address}")) as opened:
        opened.manifest("1")
        pieces = opened.blob(DESCRIPTOR)
        data = next(pieces)
        mirror.statuses, mirror.broken = [(404, {})], True
        assert data + b"".join(pieces) == BLOB
    [(_, _, headers)] = fake.requests
    assert int(headers["range"].removeprefix("bytes=").rstrip("-")) > 0


# -- proxies --------------------------------------------------------------------------------------


class _Tunnels(socketserver.ThreadingTCPServer):
    """A proxy for CONNECT, which leads everybody to one place."""

    daemon_threads = True

    def __init__(self, upstream: int, *, tunnels: bool = False) -> None:
        self.upstream = upstream
        self.tunnels = tunnels
        self.heads: list[bytes] = []
        super().__init__(("127.0.0.1", 0), _Tunnel)


class _Tunnel(socketserver.StreamRequestHandler):
    server: _Tunnels

    def handle(self) -> None:
        head = b""
        while (line := self.rfile.readline()) not in (b"\r\n", b""):
            head += line
        self.server.heads.append(head)
        if head.startswith(b"CONNECT"):
            if self.server.tunnels:
                self.tunnel()
            else:
                self.wfile.write(b"HTTP/1.1 403 not here\r\n\r\n")
            return
        with socket.create_connection(("127.0.0.1", self.server.upstream)) as upstream:
            method, url, version = head.split(b"\r\n", 1)[0].split()
            path = b"/" + url.split(b"/", 3)[3]
            upstream.sendall(b" ".join((method, path, version)) + b"\r\nConnection: close\r\n\r\n")
            while piece := upstream.recv(1 << 16):
                self.wfile.write(piece)

    def tunnel(self) -> None:
        with socket.create_connection(("127.0.0.1", self.server.upstream)) as upstream:
            self.wfile.write(b"HTTP/1.1 200 OK\r\n\r\n")
            back = threading.Thread(target=self.passed_on, args=(upstream, self.connection))
            back.start()
            self.passed_on(self.connection, upstream)
            back.join()

    def passed_on(self, source: socket.socket, target: socket.socket) -> None:
        with suppress(OSError):
            while piece := source.recv(1 << 16):
                target.sendall(piece)
            target.shutdown(socket.SHUT_WR)


def test_https_goes_through_a_tunnel_and_is_checked(tmp_path: Path) -> None:
    authority = certificates.authority()
    server = certificates.of_server(authority, "registry.test").write(tmp_path, "server")
    fake = a_fake(auth="basic")
    with fakeregistry.serve(fake, server), _Tunnels(fake.port, tunnels=True) as proxy:
        threading.Thread(target=proxy.serve_forever, args=(0.01,), daemon=True).start()
        address = f"http://127.0.0.1:{proxy.server_address[1]}"
        name = reference.parse("registry.test:5443/team/app:1")
        with (
            pytest.raises(HostRefused, match="its certificate is not trusted"),
            a_client(https_proxy=address).repository(name, SOMEBODY) as opened,
        ):
            opened.manifest("1")
        place = tmp_path / "certs.d/registry.test:5443"
        place.mkdir(parents=True)
        authority.write(place, "ca")[1].unlink()
        settings = RegistrySettings(certificates=str(place.parent), https_proxy=address)
        with Client(settings, {}).repository(name, SOMEBODY) as opened:
            assert opened.manifest("1").data == MANIFEST and read(opened) == BLOB
        proxy.shutdown()
    assert all(head.startswith(b"CONNECT registry.test:5443 ") for head in proxy.heads)
    assert all(b"Authorization" not in head for head in proxy.heads)


def test_plain_http_goes_through_a_proxy(serve: Start) -> None:
    fake = serve(a_fake())
    with _Tunnels(fake.port) as proxy:
        threading.Thread(target=proxy.serve_forever, args=(0.01,), daemon=True).start()
        address = f"http://me:word@127.0.0.1:{proxy.server_address[1]}"
        client = a_client(http_proxy=address, https_proxy=address, insecure=("192.0.2.1:5000",), mirrors={})
        with client.repository(reference.parse("192.0.2.1:5000/team/app:1")) as opened:
            assert opened.manifest("1").data == MANIFEST and read(opened) == BLOB
        proxy.shutdown()
    assert proxy.heads[0].startswith(b"CONNECT 192.0.2.1:5000 "), "https is tried first"
    assert proxy.heads[1].startswith(b"GET http://192.0.2.1:5000/v2/team/app/manifests/1 ")
    assert all(b"Proxy-Authorization: Basic bWU6d29yZA==" in head for head in proxy.heads)


def test_loopback_is_never_proxied(serve: Start) -> None:
    fake = serve(a_fake())
    with repository(fake, client=a_client(http_proxy="http://127.0.0.1:1")) as opened:
        assert opened.manifest("1").data == MANIFEST


# -- lists ----------------------------------------------------------------------------------------


def test_tags_come_in_pages(serve: Start) -> None:
    fake = serve(a_fake(pages=[["a", "b"], ["c"], ["d"]]))
    with repository(fake) as opened:
        assert opened.tags() == ["a", "b", "c", "d"]


def test_tags_without_an_end_are_refused(serve: Start) -> None:
    fake = serve(a_fake(pages=[["a"]] * 5))
    with pytest.raises(ProtocolError, match="have no end"), repository(fake) as opened:
        opened.tags()


def test_a_registry_without_search_is_named(serve: Start) -> None:
    fake = serve(Fake(statuses=[]))
    with registries.index([{"name": "x", "star_count": 1}]) as index:
        assert [found.name for found in search(a_client(), f"{index.serving.address}/x")] == ["x"]
    with pytest.raises(HostRefused, match=f"search: cannot reach {index.serving.address}"):
        search(a_client(), f"{index.serving.address}/x")
    fake.auth = "basic"
    with pytest.raises(Unauthorized, match=f"search {fake.address}: no basic auth credentials"):
        search(a_client(), f"{fake.address}/x")


def test_what_is_not_there(serve: Start) -> None:
    fake = serve(a_fake())
    with repository(fake) as opened:
        with pytest.raises(NotFound, match="manifest unknown: manifest unknown"):
            opened.manifest("2")
        with pytest.raises(ProtocolError, match="instead of"):
            fake.documents["sha256:" + "0" * 64] = MANIFEST
            opened.manifest("sha256:" + "0" * 64)


# -- uploads --------------------------------------------------------------------------------------


def an_upload() -> Upload:
    return Upload(open=lambda offset: iter([BLOB[offset:]]), size=len(BLOB), digest=lambda: DESCRIPTOR.digest)


def test_an_upload_that_is_cut_goes_on_where_it_stopped(serve: Start) -> None:
    fake = serve(Fake(upload_cuts=7))
    with repository(fake) as opened:
        opened.upload(an_upload())
    assert fake.blobs == {DESCRIPTOR.digest: BLOB} and fake.uploads == {}
    sent = [headers.get("content-range", "") for method, _, headers in fake.requests if method == "PATCH"]
    assert sent[0] == "" and sent[1] == f"{len(BLOB) // 3}-{len(BLOB) - 1}"
    assert len(fake.uploads) == 0 and len([None for method, _, _ in fake.requests if method == "POST"]) == 1


def test_a_blob_is_taken_over_from_another_repository(serve: Start) -> None:
    fake = serve(Fake(mountable=(DESCRIPTOR.digest,)))
    with repository(fake) as opened:
        assert opened.blob_size(DESCRIPTOR.digest) is None
        assert opened.begin_upload(DESCRIPTOR.digest, "team/base") is None
        assert opened.blob_size(DESCRIPTOR.digest) is not None
        location = opened.begin_upload("sha256:" + "0" * 64, "team/base")
        assert location is not None
        opened.abandon_upload(location)
    assert fake.uploads == {} and "from=team%2Fbase" in fake.paths[1]
