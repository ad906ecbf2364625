"""Reads and extends OpenSSH's known_hosts files.

Supports what sshd(8) describes: comma lists, wildcards and negation, `[host]:port`, hashed names, and the
markers `@revoked` and `@cert-authority`. Host certificates are not accepted, so an authority says nothing
about a plain key. A broken line is skipped, as OpenSSH does; one bad entry must not hide the others. New keys
are appended under a lock and synced, never by rewriting the file.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import fcntl
import fnmatch
import hashlib
import hmac
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Verdict = Literal["match", "mismatch", "unknown", "revoked"]


@dataclass(frozen=True, kw_only=True)
class HostKey:
    """A public key: its type and its wire blob."""

    kind: str
    blob: bytes

    @property
    def text(self) -> str:
        return f"{self.kind} {base64.b64encode(self.blob).decode()}"

    @property
    def fingerprint(self) -> str:
        digest = base64.b64encode(hashlib.sha256(self.blob).digest()).decode().rstrip("=")
        return f"SHA256:{digest}"


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One line: a key, whom it is for, and where it is written."""

    names: tuple[str, ...]
    key: HostKey
    marker: str
    where: str


def parse_key(text: str) -> HostKey:
    """A key as in `ssh-ed25519 AAAA… comment`; raises ValueError when it is none."""
    words = text.split()
    if len(words) < 2:
        raise ValueError("a host key is written as TYPE BASE64")
    try:
        blob = base64.b64decode(words[1], validate=True)
    except binascii.Error as error:
        raise ValueError(f"not base64: {error}") from error
    kind = words[0].encode()
    if blob[:4] != len(kind).to_bytes(4, "big") or blob[4 : 4 + len(kind)] != kind:
        raise ValueError(f"the key's own type is not {words[0]}")
    return HostKey(kind=words[0], blob=blob)


class KnownHosts:
    """The entries of some files, first file first. Immutable after loading, so threads may share it."""

    def __init__(self, entries: Iterable[Entry] = ()) -> None:
        self._exact: dict[str, list[Entry]] = {}
        self._scanned: list[Entry] = []
        for entry in entries:
            if any(name.startswith("|1|") or set("*?!") & set(name) for name in entry.names):
                self._scanned.append(entry)
            else:
                for name in entry.names:
                    self._exact.setdefault(name.lower(), []).append(entry)

    @classmethod
    def load(cls, paths: Iterable[Path]) -> KnownHosts:
        return cls(entry for path in paths for entry in _read(path))

    def entries(self, host: str, port: int) -> list[Entry]:
        """Every line that speaks of this host."""
        name = host_name(host, port)
        scanned = [entry for entry in self._scanned if _matches(entry.names, name)]
        return [*self._exact.get(name, ()), *scanned]

    def check(self, host: str, port: int, key: HostKey) -> tuple[Verdict, Entry | None]:
        """What the files say about a key that a host has shown, and the line that says so."""
        entries = self.entries(host, port)
        for entry in entries:
            if entry.marker == "@revoked" and entry.key == key:
                return "revoked", entry
        plain = [entry for entry in entries if not entry.marker]
        for entry in plain:
            if entry.key == key:
                return "match", entry
        return ("mismatch", plain[0]) if plain else ("unknown", None)

    def kinds(self, host: str, port: int) -> list[str]:
        """Key types that are known for the host: ask for these first, else a known host looks unknown."""
        return list(dict.fromkeys(entry.key.kind for entry in self.entries(host, port) if not entry.marker))


def host_name(host: str, port: int) -> str:
    """How known_hosts writes a host: `[host]:port` unless the port is 22."""
    return host.lower() if port == 22 else f"[{host.lower()}]:{port}"


def append(path: Path, host: str, port: int, key: HostKey) -> None:
    """Adds a line, durably; several processes may do so at once. Makes the file (0600) and ~/.ssh (0700)."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with contextlib.ExitStack() as stack:
        fd = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        stack.callback(os.close, fd)
        fcntl.flock(fd, fcntl.LOCK_EX)
        if KnownHosts(_read(path)).check(host, port, key)[0] == "match":
            return  # another thread or process was first
        size = os.fstat(fd).st_size
        torn = size > 0 and os.pread(fd, 1, size - 1) != b"\n"
        line = f"{host_name(host, port)} {key.text}\n"
        os.write(fd, (f"\n{line}" if torn else line).encode())
        os.fsync(fd)


def _read(path: Path) -> Iterable[Entry]:
    try:
        text = path.read_text(errors="replace")
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        return
    for number, line in enumerate(text.splitlines(), 1):
        words = line.split()
        marker = words.pop(0) if words and words[0].startswith("@") else ""
        if len(words) < 3 or words[0].startswith("#"):
            continue
        with contextlib.suppress(ValueError):
            key = parse_key(" ".join(words[1:3]))
            yield Entry(names=tuple(words[0].split(",")), key=key, marker=marker, where=f"{path}:{number}")


def _matches(names: tuple[str, ...], name: str) -> bool:
    found = False
    for pattern in names:
        if pattern.startswith("|1|"):
            found = found or _hash_matches(pattern, name)
        elif pattern.startswith("!"):
            if _glob(pattern[1:], name):
                return False
        else:
            found = found or _glob(pattern, name)
    return found


def _glob(pattern: str, name: str) -> bool:
    """Only `*` and `?` are special: the brackets of `[host]:port` are not."""
    return fnmatch.fnmatchcase(name, pattern.lower().replace("[", "[[]"))


def _hash_matches(pattern: str, name: str) -> bool:
    """`|1|base64(salt)|base64(HMAC-SHA1(salt, name))`"""
    parts = pattern.split("|")
    try:
        salt, digest = (base64.b64decode(part, validate=True) for part in parts[2:4])
    except ValueError:
        return False
    return hmac.compare_digest(hmac.new(salt, name.encode(), hashlib.sha1).digest(), digest)
