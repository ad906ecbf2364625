"""The agent as one file to send: hawse_agent with the one pure Python package it needs.

    <digest>/hawse_agent/ h11/ VERSION bin/hawse-agent

The same sources give the same digest on every machine: entries are sorted, times and owners are zero, and the
digest is that of the uncompressed tar. Nothing of it is imported: the controller runs where the agent cannot.
"""

from __future__ import annotations

import gzip
import hashlib
import importlib.util
import io
import json
import os
import tarfile
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import hawse_agent
from hawse_agent.errors import InternalError

PROTOCOL = 1
PACKAGES = ("hawse_agent", "h11")
_LEFT_OUT = frozenset({"__pycache__", "tests", "fixtures"})

LAUNCHER = '''\
"""Starts the agent out of its own bundle; the first line of the installed copy names the interpreter."""
import os
import sys

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.realpath(__file__))))

from hawse_agent.__main__ import run

sys.exit(run())
'''


@dataclass(frozen=True, kw_only=True)
class Bundle:
    """A bundle on disk: `path` is the compressed tar, `digest` the SHA-256 of the tar inside, in hex."""

    version: str
    digest: str
    path: Path


def cache_directory() -> Path:
    """`$XDG_CACHE_HOME/hawse`; what is in it can be deleted at any time."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "hawse"


def bundle(directory: Path | None = None) -> Bundle:
    """Our bundle, built anew only when a source file has changed since the last time."""
    directory = directory or cache_directory() / "agent"
    files = [(name, path) for package in PACKAGES for name, path in _sources(package)]
    stamp = _stamp(files)
    remembered = directory / "latest.json"
    try:
        latest = json.loads(remembered.read_text())
        path = directory / f"{latest['digest']}.tar.gz"
        if latest["stamp"] == stamp and path.exists():
            return Bundle(version=hawse_agent.__version__, digest=latest["digest"], path=path)
    except (FileNotFoundError, ValueError, KeyError):
        pass  # never built, or cut off while writing: build it
    tar = build(files)
    digest = hashlib.sha256(tar).hexdigest()
    path = directory / f"{digest}.tar.gz"
    directory.mkdir(parents=True, exist_ok=True)
    _write(path, gzip.compress(tar, compresslevel=6, mtime=0))
    _write(remembered, json.dumps({"stamp": stamp, "digest": digest}).encode())
    for old in directory.glob("*.tar.gz"):
        if old != path:
            old.unlink(missing_ok=True)
    return Bundle(version=hawse_agent.__version__, digest=digest, path=path)


def build(files: list[tuple[str, Path]]) -> bytes:
    """The tar of these files, with launcher and version."""
    contents = {name: path.read_bytes() for name, path in files}
    about = {"version": hawse_agent.__version__, "protocol": PROTOCOL}
    contents["VERSION"] = (json.dumps(about, sort_keys=True) + "\n").encode()
    contents["bin/hawse-agent"] = LAUNCHER.encode()
    output = io.BytesIO()
    with tarfile.open(fileobj=output, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name in sorted(contents):
            entry = tarfile.TarInfo(name)
            entry.size = len(contents[name])
            entry.mode = 0o755 if name.startswith("bin/") else 0o644
            tar.addfile(entry, io.BytesIO(contents[name]))
    return output.getvalue()


def _sources(package: str) -> Iterator[tuple[str, Path]]:
    """Every file of an installed package but tests and byte code, by its name in the bundle."""
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise InternalError(f"the package {package} is not installed beside hawse")
    root = Path(next(iter(spec.submodule_search_locations)))
    for directory, names, files in os.walk(root):
        names[:] = sorted(name for name in names if name not in _LEFT_OUT)
        for name in sorted(files):
            if not name.endswith((".pyc", ".pyo")):
                path = Path(directory, name)
                yield f"{package}/{path.relative_to(root)}", path


def _stamp(files: list[tuple[str, Path]]) -> str:
    """Changes whenever a source does; costs one stat a file."""
    digest = hashlib.sha256(f"{hawse_agent.__version__} {LAUNCHER}".encode())
    for name, path in files:
        status = path.stat()
        digest.update(f"{name} {path} {status.st_size} {status.st_mtime_ns}\n".encode())
    return digest.hexdigest()


def _write(path: Path, data: bytes) -> None:
    """Appears whole or not at all; several controllers may build at once."""
    fd, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(fd, "wb") as file:
            file.write(data)
        os.replace(name, path)
    except BaseException:
        os.unlink(name)
        raise
