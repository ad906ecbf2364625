"""Records what dockerd's builder makes of the rows of `buildrows`, into tests/data/builds/.

    python -m tests.support.isolation -- .venv/bin/python -m tests.support.recordbuilds [ROW…]

`Corpus` builds a row with whatever docker command it is given: tests use it for both engines.
"""

from __future__ import annotations

import base64
import contextlib
import difflib
import http.client
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from tests.support import buildapps, busybox, imagecontents, isolation, linux
from tests.support.buildrows import BASE, PORT, ROWS, Context, Row, tar
from tests.support.dockerd import Dockerd

RECORDED = Path(__file__).resolve().parents[1] / "data/builds"


def difference(name: str, found: Mapping[str, Any]) -> str:
    """Of what is kept and what was found: nothing, or the lines that differ."""
    return unified(json.loads((RECORDED / f"{name}.json").read_text()), found)


def unified(one: Mapping[str, Any], other: Mapping[str, Any]) -> str:
    lines = (_text(one).splitlines(), _text(other).splitlines())
    return "\n".join(difflib.unified_diff(*lines, "dockerd's", "ours", lineterm="", n=1))


def _text(found: Mapping[str, Any]) -> str:
    return json.dumps(found, indent=1, sort_keys=True, ensure_ascii=False) + "\n"


class Corpus:
    """Builds rows with one engine's socket; images that rows share are made once."""

    def __init__(self, path: Path, scratch: Path) -> None:
        self._socket = path
        self._environment = {**os.environ, "DOCKER_HOST": f"unix://{path}", "DOCKER_BUILDKIT": "0"}
        self._scratch = scratch
        self._loaded: set[str] = set()

    def load_base(self) -> None:
        layer = busybox.make_layer(self._scratch / "root")
        packed = subprocess.run(["tar", "-C", layer, "-c", "."], check=True, capture_output=True).stdout
        path = f"PATH={':'.join(f'/{one}' for one in ('bin', 'sbin', 'usr/bin', 'usr/sbin'))}"
        self.docker("import", "-c", f"ENV {path}", "-c", 'CMD ["sh"]', "-", BASE, input=packed)

    def can_build(self, row: Row) -> bool:
        """Whether this machine has what the images below it are made from."""
        return all(buildapps.base_of(name)[0]() for name in self._applications(row))

    def build(self, row: Row) -> dict[str, Any]:
        """Contents of what it makes, as JSON values. What `row.runs` prints must be what it says."""
        for name in self._applications(row) - self._loaded:
            self._load(name)
        for name, dockerfile in row.before.items():
            self._build({"Dockerfile": dockerfile}, ("-t", name), directory=False)
        context = row.context() if callable(row.context) else row.context
        with _served(row):
            context = {row.file: row.dockerfile, **context}
            if row.secrets:
                self._build_with_secrets(context, row.secrets)
            else:
                self._build(context, ("-t", "corpus/row", *row.options), directory=row.directory)
        below = self._counted(row.base) if row.base else (0, 0)
        if row.prints:
            printed = self.docker("run", "--rm", "corpus/row", *row.runs)
            assert printed == row.prints, printed
        archive = self._scratch / "row.tar"
        self.docker("save", "-o", str(archive), "corpus/row")
        return imagecontents.read(archive, below=below, volatile=row.volatile).to_json()

    def clear(self) -> None:
        """Removes all that rows have made, but the base."""
        names = self.docker("image", "ls", "--format", "{{.Repository}}:{{.Tag}}").split()
        made = [name for name in names if name.startswith("corpus/") and name != BASE]
        if made:
            self.docker("image", "rm", "-f", *made)
        self.docker("builder", "prune", "-af")
        self._loaded.clear()

    def _build(self, context: Context, options: tuple[str, ...], *, directory: bool) -> None:
        packed = tar(context)
        if not directory:
            self.docker("build", *options, "-", input=packed)
            return
        with tempfile.TemporaryDirectory(dir=self._scratch) as top:
            subprocess.run(["tar", "-C", top, "-x"], input=packed, check=True)
            self.docker("build", *options, top)

    def _build_with_secrets(self, context: Context, secrets: Mapping[str, str]) -> None:
        """By the agent's own call."""
        encoded = {name: base64.b64encode(value.encode()).decode() for name, value in secrets.items()}
        body = json.dumps({"secrets": encoded}).encode() + b"\n" + tar(context)
        connection = http.client.HTTPConnection("agent", timeout=300)
        connection.sock = socket.socket(socket.AF_UNIX)
        with contextlib.closing(connection):
            connection.sock.connect(str(self._socket))
            connection.request("POST", "/hawse/v1/build?t=corpus/row", body)
            answer = connection.getresponse()
            said = answer.read().decode()
        assert answer.status == 200 and '"error"' not in said, said
        assert not any(value in said for value in secrets.values()), said

    @staticmethod
    def _applications(row: Row) -> set[str]:
        return {name for name in (row.base, *row.needs) if name in buildapps.BASES}

    def _load(self, name: str) -> None:
        root = self._scratch / "root.tar"
        buildapps.base_of(name)[1](root)
        self.docker("import", "-c", f"ENV {buildapps.PATH}", str(root), name)
        root.unlink()
        self._loaded.add(name)

    def _counted(self, name: str) -> tuple[int, int]:
        """Layers and entries of the history of an image."""
        layers = self.docker("image", "inspect", "-f", "{{len .RootFS.Layers}}", name)
        return int(layers), len(self.docker("history", "-q", name).split())

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


@contextlib.contextmanager
def of_dockerd(root: Path, scratch: Path) -> Iterator[Corpus]:
    """With a dockerd of its own; this thread is in that one's network namespace meanwhile, where ADD looks
    for addresses."""
    dockerd = Dockerd(root / "of/the/agent/d")  # deeper than what is looked through for leaks
    try:
        with (
            open("/proc/thread-self/ns/net", "rb") as ours,
            open(f"/proc/{dockerd.pid}/ns/net", "rb") as theirs,
        ):
            linux.setns(theirs.fileno(), linux.CLONE_NEWNET)
            try:
                corpus = Corpus(dockerd.socket, scratch)
                corpus.load_base()
                corpus.docker("run", "--rm", BASE, "true")  # what dockerd makes once is there before any test
                yield corpus
            finally:
                linux.setns(ours.fileno(), linux.CLONE_NEWNET)
    finally:
        dockerd.close()
        shutil.rmtree(root)


def main(names: list[str]) -> None:
    session = isolation.current()
    assert session is not None, "needs a session: see the docstring"
    RECORDED.mkdir(parents=True, exist_ok=True)
    with (
        tempfile.TemporaryDirectory() as scratch,
        of_dockerd(session.directory / "peer", Path(scratch)) as corpus,
    ):
        for name in names or [name for name, row in ROWS.items() if row.judge == "dockerd"]:
            found = corpus.build(ROWS[name])
            (RECORDED / f"{name}.json").write_text(_text(found))


if __name__ == "__main__":
    main(sys.argv[1:])
