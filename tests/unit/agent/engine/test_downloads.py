"""Downloads of ADD, from servers that do not what they should."""

from __future__ import annotations

import hashlib
import http.server
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hawse_agent.engine.building.downloads import download, name_of
from hawse_agent.engine.building.stopping import BuildStopped, Stopping
from hawse_agent.errors import HostRefused, InputError


@pytest.fixture(scope="module")
def web() -> Iterator[str]:
    over = threading.Event()

    class Files(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self.close_connection = True
            self.send_response(302 if self.path == "/away" else 200)
            match self.path:
                case "/whole":
                    self._body(b"Content-Length: 5", b"whole")
                case "/cut":
                    self._body(b"Content-Length: 1000", bytes(100))
                case "/cut-chunks":
                    self._body(b"Transfer-Encoding: chunked", b"5\r\nwhole\r\n9\r\nhal")
                case "/slow":
                    self._body(b"Content-Length: 1000", b"a")
                    over.wait()
                case "/away":
                    self._body(b"Location: ftp://127.0.0.1/x", b"")

        def _body(self, header: bytes, body: bytes) -> None:
            self.flush_headers()
            self.wfile.write(header + b"\r\n\r\n" + body)
            self.wfile.flush()

        def log_message(self, format: str, *args: Any) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Files) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        over.set()
        server.shutdown()


def test_the_digest_is_the_wanted_kind(web: str, tmp_path: Path) -> None:
    digest, _ = download(f"{web}/whole", tmp_path / "f", Stopping(), algorithm="sha512")
    assert digest == f"sha512:{hashlib.sha512(b'whole').hexdigest()}"
    assert (tmp_path / "f").read_bytes() == b"whole"


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("cut", "ended after 100 of 1000 bytes"),
        ("cut-chunks", "IncompleteRead"),
        ("away", "ftp"),
    ],
)
def test_a_part_is_not_the_whole(web: str, path: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(HostRefused, match=said):
        download(f"{web}/{path}", tmp_path / "f", Stopping(), algorithm="sha256")


def test_a_stop_waits_for_no_server(web: str, tmp_path: Path) -> None:
    stopping = Stopping()
    timer = threading.Timer(0.2, stopping.stop)
    timer.start()
    with pytest.raises(BuildStopped):
        download(f"{web}/slow", tmp_path / "f", stopping, algorithm="sha256")
    timer.join()


@pytest.mark.parametrize(
    "url", ["http://[bad/x", "http://h/a%00b", "http://h/%2e%2e", f"http://h/{'a' * 300}"]
)
def test_a_name_that_is_none(url: str) -> None:
    with pytest.raises(InputError):
        name_of(url)


@pytest.mark.parametrize("url", ["http://127.0.0.1:x/y", "http://127.0.0.1/a b", "http://127.0.0.1/é"])
def test_an_address_that_is_none(url: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is no address"):
        download(url, tmp_path / "f", Stopping(), algorithm="sha256")
