"""Records what dockerd's builder makes of the rows of `buildrows`, into tests/data/builds/.

    python -m tests.support.isolation -- .venv/bin/python -m tests.support.recordbuilds [ROW…]

`Corpus` builds a row with whatever docker command it is given: tests use it for both engines.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from tests.support import busybox, imagecontents, isolation, linux
from tests.support.buildrows import BASE, PORT, ROWS, Row, tar
from tests.support.dockerd import Dockerd

RECORDED = Path(__file__).resolve().parents[1] / "data/builds"


def recorded(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((RECORDED / f"{name}.json").read_text())
    return found


class Corpus:
    """Builds rows with one engine's socket; images that rows share are made once."""

    def __init__(self, socket: Path, scratch: Path) -> None:
        self._environment = {**os.environ, "DOCKER_HOST": f"unix://{socket}", "DOCKER_BUILDKIT": "0"}
        self._scratch = scratch
        self._saved: dict[str, Path] = {}

    def load_base(self) -> None:
        layer = busybox.make_layer(self._scratch / "root")
        packed = subprocess.run(["tar", "-C", layer, "-c", "."], check=True, capture_output=True).stdout
        path = f"PATH={':'.join(f'/{one}' for one in ('bin', 'sbin', 'usr/bin', 'usr/sbin'))}"
        self.docker("import", "-c", f"ENV {path}", "-c", 'CMD ["sh"]', "-", BASE, input=packed)

    def build(self, row: Row) -> dict[str, Any]:
        """Contents of what it makes, as JSON values."""
        for name, dockerfile in row.before.items():
            self._build(dockerfile, {}, ("-t", name), directory=False)
        context = row.context() if callable(row.context) else row.context
        with _served(row):
            self._build(row.dockerfile, context, ("-t", "corpus/row", *row.options), directory=row.directory)
        base = self._archive(row.base) if row.base else None
        archive = self._save("corpus/row", self._scratch / "row.tar")
        return imagecontents.read(archive, base=base, volatile=row.volatile).to_json()

    def _build(self, dockerfile: str, context: Any, options: tuple[str, ...], *, directory: bool) -> None:
        packed = tar({"Dockerfile": dockerfile, **context})
        if not directory:
            self.docker("build", *options, "-", input=packed)
            return
        with tempfile.TemporaryDirectory(dir=self._scratch) as top:
            subprocess.run(["tar", "-C", top, "-x"], input=packed, check=True)
            self.docker("build", *options, top)

    def _archive(self, name: str) -> Path:
        path = self._scratch / f"{name.replace('/', '-')}.tar"
        return self._save(name, path)

    def _save(self, name: str, path: Path) -> Path:
        self.docker("save", "-o", str(path), name)
        return path

    def docker(self, *words: str, input: bytes = b"") -> str:
        done = subprocess.run(
            ["docker", *words], env=self._environment, input=input, capture_output=True, timeout=300
        )
        if done.returncode != 0:
            raise AssertionError(f"docker {words}: {done.stdout.decode()}{done.stderr.decode()}")
        return done.stdout.decode()


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


@contextlib.contextmanager
def _served(row: Row) -> Iterator[None]:
    """In this network namespace, as far as the row wants something served."""
    if not row.served:
        yield
        return
    with tempfile.TemporaryDirectory() as top:
        for name, data in row.served.items():
            path = Path(top, name)
            path.write_bytes(data)
            os.utime(path, (imagecontents.FIXED_TIME, imagecontents.FIXED_TIME))
        with ThreadingHTTPServer(("127.0.0.1", PORT), partial(_Quiet, directory=top)) as server:
            thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
            thread.start()
            try:
                yield
            finally:
                server.shutdown()
                thread.join()


def main(names: list[str]) -> None:
    session = isolation.current()
    assert session is not None, "needs a session: see the docstring"
    RECORDED.mkdir(parents=True, exist_ok=True)
    dockerd = Dockerd(session.directory / "peer")
    try:
        with tempfile.TemporaryDirectory() as scratch:
            with open(f"/proc/{dockerd.pid}/ns/net", "rb") as namespace:
                linux.setns(namespace.fileno(), linux.CLONE_NEWNET)  # where ADD looks for addresses
            corpus = Corpus(dockerd.socket, Path(scratch))
            corpus.load_base()
            for name in names or [name for name, row in ROWS.items() if row.judge == "dockerd"]:
                try:
                    found = corpus.build(ROWS[name])
                except AssertionError as error:
                    print(f"{name}: {error}", file=sys.stderr)
                    continue
                text = json.dumps(found, indent=1, sort_keys=True, ensure_ascii=False)
                (RECORDED / f"{name}.json").write_text(f"{text}\n")
    finally:
        dockerd.close()


if __name__ == "__main__":
    main(sys.argv[1:])
