"""A directory as a tar stream: by GNU tar where the host has it, by our own writer elsewhere.

Both write pax headers, extended attributes (ACLs are such), hard links, sparse files in GNU's format 1.0 and
numbers for owners, names beginning with `./`, directories before what is in them. The directory may be in
use, by who is not trusted: no link is ever followed, and what changes meanwhile becomes a warning.
"""

from __future__ import annotations

import itertools
import os
import shutil
import subprocess
import threading
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from functools import cache
from pathlib import Path

from hawse_agent.errors import HostRefused
from hawse_agent.images.compression import Readable
from hawse_agent.images.tarball import END, TarWriter
from hawse_agent.volumes.store import refused

_LEFT_OUT = "security.selinux"
"""A label of this machine's policy."""


def open_tar(directory: Path, warnings: list[str]) -> AbstractContextManager[Readable]:
    """The tar of `directory`. `warnings` is complete when the context is left. Raises HostRefused."""
    program = gnu_tar()
    return _by_gnu_tar(program, directory, warnings) if program else _by_python(directory, warnings)


@cache
def gnu_tar() -> str:
    """Path of GNU tar; "" where the host has none (busybox and bsdtar are others)."""
    program = shutil.which("tar") or ""
    if not program:
        return ""
    answer = subprocess.run([program, "--version"], capture_output=True, text=True, check=False)
    return program if answer.stdout.startswith("tar (GNU tar)") else ""


@contextmanager
def _by_gnu_tar(program: str, directory: Path, warnings: list[str]) -> Iterator[Readable]:
    argv = [
        program,
        *("--create", "--file=-", "--format=pax", "--numeric-owner", "--sort=name"),
        *("--sparse", "--sparse-version=1.0", "--xattrs", "--xattrs-include=*"),
        f"--xattrs-exclude={_LEFT_OUT}",
        # Times of access and change only fill headers: nothing can restore them.
        "--pax-option=exthdr.name=%d/PaxHeaders/%f,delete=atime,delete=ctime",
        *("--directory", str(directory), "."),
    ]
    process = subprocess.Popen(
        argv,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={"PATH": os.defpath, "LC_ALL": "C"},
    )
    assert process.stdout is not None and process.stderr is not None
    lines: list[str] = []
    told = threading.Thread(
        target=_collect, args=(process.stderr, f"{program}: ", lines), name="tar", daemon=True
    )
    told.start()
    try:
        yield process.stdout
    except BaseException:
        process.kill()
        raise
    finally:
        process.stdout.close()
        process.wait()
        told.join()
        process.stderr.close()
    if process.returncode not in (0, 1):  # 1: files changed while they were read
        raise HostRefused(f"tar: {'; '.join(lines[:3]) or f'ended with {process.returncode}'}")
    warnings += lines


def _collect(stream: Iterable[bytes], prefix: str, lines: list[str]) -> None:
    for line in stream:
        lines.append(os.fsdecode(line).strip().removeprefix(prefix))


@contextmanager
def _by_python(directory: Path, warnings: list[str]) -> Iterator[Readable]:
    root = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        with closing(TarWriter(warnings).directory(root, b"./")) as pieces:
            yield _Pieces(itertools.chain(pieces, (END,)))
    finally:
        os.close(root)


class _Pieces:
    """What an iterator gives, to be read."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces = pieces
        self._buffer = b""

    def read(self, size: int, /) -> bytes:
        if not self._buffer:
            parts, length = [], 0
            with refused("read the volume"):
                for piece in self._pieces:
                    parts.append(piece)
                    length += len(piece)
                    if length >= size:
                        break
            self._buffer = b"".join(parts)
        data, self._buffer = self._buffer[:size], self._buffer[size:]
        return data
