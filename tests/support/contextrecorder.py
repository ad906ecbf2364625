"""A daemon that keeps the contexts which the docker command sends it, and builds nothing."""

from __future__ import annotations

import io
import os
import subprocess
import tarfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from socketserver import UnixStreamServer


class Recorder(UnixStreamServer):
    received = b""
    path = ""
    """Of the last request, with its query."""

    def context(self, *words: str, input: bytes = b"") -> list[tarfile.TarInfo]:
        """What `docker build WORDS` sends, entry by entry; names without a slash at their ends."""
        done = subprocess.run(
            ["docker", "build", *words],
            env={
                **os.environ,
                "DOCKER_BUILDKIT": "0",
                "DOCKER_HOST": f"unix://{self.server_address}",
                "DOCKER_CONFIG": str(Path(str(self.server_address)).parent),
            },
            input=input,
            capture_output=True,
            timeout=30,
        )
        assert done.returncode == 0, done.stderr
        # The docker command does not end a tar that it has added a Dockerfile to.
        ended = self.received + bytes(-len(self.received) % tarfile.BLOCKSIZE + 2 * tarfile.BLOCKSIZE)
        with tarfile.open(fileobj=io.BytesIO(ended)) as tar:
            entries = tar.getmembers()
        for entry in entries:
            entry.name = entry.name.rstrip("/")
        return entries


class _Handler(BaseHTTPRequestHandler):
    server: Recorder
    protocol_version = "HTTP/1.1"

    def address_string(self) -> str:
        return "docker"

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        self._answer(b'{"ApiVersion": "1.41", "Os": "linux", "Arch": "amd64", "Version": "20.10"}')

    def do_HEAD(self) -> None:
        self._answer(b"")

    def do_POST(self) -> None:
        body = io.BytesIO()
        while size := int(self.rfile.readline(), 16):
            body.write(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        self.server.received, self.server.path = body.getvalue(), self.path
        self._answer(b'{"stream": "done"}\n')

    def _answer(self, body: bytes) -> None:
        self.send_response(200)
        self.send_header("Api-Version", "1.41")
        self.send_header("Builder-Version", "1")
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


@contextmanager
def recording(path: Path) -> Iterator[Recorder]:
    """At this socket."""
    with Recorder(str(path), _Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()
