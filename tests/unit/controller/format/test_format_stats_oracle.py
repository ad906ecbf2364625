"""`hawse stats` and docker's own, on the same figures of a socket that makes them up."""

from __future__ import annotations

import json
import shutil
import subprocess
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest
from tests.support.cli import hawse
from tests.support.dockersocket import UnixServer

pytestmark = pytest.mark.skipif(shutil.which("docker") is None, reason="needs the docker CLI")

BEFORE = {
    "cpu_usage": {"total_usage": 123_456_789_000, "percpu_usage": [1, 2]},
    "system_cpu_usage": 7_000_000_000_000,
}
NOW = {"cpu_usage": {"total_usage": 124_192_123_456}, "system_cpu_usage": 7_004_020_000_000, "online_cpus": 4}
SAMPLE: dict[str, Any] = {
    "name": "/web",
    "id": "0123456789abcdef" * 4,
    "memory_stats": {
        "usage": 123_456_789,
        "limit": 987_654_321,
        "stats": {"total_inactive_file": 23_456_789, "inactive_file": 1},
    },
    "networks": {"eth0": {"rx_bytes": 99_950, "tx_bytes": 1_234}, "eth1": {"rx_bytes": 7, "tx_bytes": 999}},
    "blkio_stats": {
        "io_service_bytes_recursive": [
            {"op": "Read", "value": 5_000_000}, {"op": "Write", "value": 7_777_777}, {"op": "", "value": 9},
        ]
    },
    "pids_stats": {"current": 17},
}  # fmt: skip


@pytest.fixture
def socket(tmp_path: Path) -> Iterator[Path]:
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: object) -> None:
            """Nothing on the terminal."""

        def do_HEAD(self) -> None:
            self._answer(None)

        def do_GET(self) -> None:
            if "one-shot=true" in self.path:  # ours compares two samples
                asked.append(self.path)
                self._answer({**SAMPLE, "cpu_stats": BEFORE if len(asked) == 1 else NOW})
            elif "/stats" in self.path:  # docker has the agent compare them
                self._answer({**SAMPLE, "cpu_stats": NOW, "precpu_stats": BEFORE})
            else:
                self._answer({"Os": "linux", "OSType": "linux", "ApiVersion": "1.44"})

        def _answer(self, value: Any) -> None:
            body = json.dumps(value).encode() if value is not None else b""
            self.send_response(200)
            for name, text in (("Api-Version", "1.44"), ("Content-Length", str(len(body)))):
                self.send_header(name, text)
            self.end_headers()
            self.wfile.write(body)

    path = tmp_path / "s"
    server = UnixServer(str(path), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield path
    server.shutdown()
    server.server_close()


def test_the_same_figures(socket: Path) -> None:
    words = ("stats", "--no-stream", "web")
    docker = subprocess.run(
        ["docker", "-H", f"unix://{socket}", *words], capture_output=True, text=True, timeout=60
    )
    assert docker.returncode == 0, docker.stderr
    assert "73.17%" in docker.stdout
    assert hawse(socket, *words).stdout == docker.stdout
