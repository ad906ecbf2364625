"""The agent's memory: one SQLite file, written by the daemon alone.

Only decisions live here (names, addresses, ports, which image). What is true *now* is observed from the
kernel and the shims' files, so a crash, a reboot and an ordinary start take the same path.

WAL with `synchronous=FULL`: a commit survives a power cut. `locking_mode=EXCLUSIVE`: one writer, and the
file can still be read with a full disk and no -shm file. A ballast file is released when the disk is
full, so that removing things can always commit. Rows are JSON documents of `spec.records`; columns exist
where uniqueness or look-up needs them.

What no other file on the disk says is copied beside it in plain JSON, at each change: networks, images and
names to `records.json`, leases to `containers/<id>/lease.json` (and by `engine.containers` its record). A
file that is damaged or gone is never made anew by a start; `doctor --rebuild` does that, from the copies.
"""

from __future__ import annotations

import json
import os
import sqlite3
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Generic, TypeVar

from hawse_agent.errors import Conflict, HostRefused, OutOfSpace
from hawse_agent.paths import Paths
from hawse_agent.spec import codec
from hawse_agent.spec.records import ContainerRecord, EndpointRecord, NetworkRecord, PortRecord

BALLAST_BYTES = 1024 * 1024

_SCHEMA = """
CREATE TABLE containers (id TEXT PRIMARY KEY, name TEXT NOT NULL UNIQUE, record TEXT NOT NULL);
CREATE TABLE networks (id TEXT PRIMARY KEY, name TEXT NOT NULL UNIQUE, record TEXT NOT NULL);
CREATE TABLE endpoints (
    container TEXT NOT NULL, network TEXT NOT NULL, ipv4 TEXT NOT NULL, record TEXT NOT NULL,
    PRIMARY KEY (container, network), UNIQUE (network, ipv4)
);
CREATE TABLE ports (
    container TEXT NOT NULL, host_ip TEXT NOT NULL, host_port INTEGER NOT NULL, protocol TEXT NOT NULL,
    record TEXT NOT NULL, PRIMARY KEY (host_ip, host_port, protocol)
);
CREATE INDEX ports_by_container ON ports (container);
CREATE TABLE images (id TEXT PRIMARY KEY, document TEXT NOT NULL);
CREATE TABLE tags (reference TEXT PRIMARY KEY, image TEXT NOT NULL);
CREATE INDEX tags_by_image ON tags (image);
CREATE TABLE layer_blobs (blob TEXT PRIMARY KEY, diff_id TEXT NOT NULL);
CREATE TABLE journal (
    sequence INTEGER PRIMARY KEY AUTOINCREMENT, run TEXT NOT NULL, time REAL NOT NULL, entry TEXT NOT NULL
);
CREATE INDEX journal_by_run ON journal (run);
"""
_KEPT_LAYERS = """
CREATE TABLE kept_layers (
    holder TEXT NOT NULL, diff_id TEXT NOT NULL, document TEXT NOT NULL, PRIMARY KEY (holder, diff_id)
);
"""
_BUILD_STEPS = """
CREATE TABLE build_steps (key TEXT PRIMARY KEY, document TEXT NOT NULL);
"""
_STEPS = (_SCHEMA, _KEPT_LAYERS, _BUILD_STEPS)
"""From an empty file on; one is added for each change, none is ever changed."""

SCHEMA_VERSION = len(_STEPS)

JOURNAL_KEEP = 10_000

T = TypeVar("T")


class _Known(Generic[T]):
    """Records that were read before: they are immutable, and each start looks at all addresses again.

    Those that are no longer in the state are forgotten by the next look at all.
    """

    def __init__(self, kind: type[T]) -> None:
        self._kind = kind
        self._by_text: dict[str, T] = {}

    def read(self, texts: Iterable[str], *, all_there_are: bool) -> list[T]:
        known = self._by_text
        found = [(text, known[text] if text in known else codec.loads(self._kind, text)) for text in texts]
        if all_there_are:
            self._by_text = dict(found)
        return [record for _, record in found]


class State:
    """Thread-safe access to the file; every public method is one transaction.

    Raises OutOfSpace when the disk is full (rolled back, nothing lost), Conflict when a name, address or
    port is taken, HostRefused when the file cannot be opened or is damaged.
    """

    def __init__(self, paths: Paths) -> None:
        self._paths = paths
        self._lock = threading.RLock()
        self._endpoints, self._ports = _Known(EndpointRecord), _Known(PortRecord)
        paths.lib.mkdir(mode=0o700, parents=True, exist_ok=True)
        _refuse_to_forget(paths)
        self._ensure_ballast()
        try:
            self._db = sqlite3.connect(paths.state, isolation_level=None, check_same_thread=False, timeout=5)
            os.chmod(paths.state, 0o600)
            self._db.execute("PRAGMA locking_mode=EXCLUSIVE")
            self._db.execute("PRAGMA journal_mode=WAL")
            self._db.execute("PRAGMA synchronous=FULL")
            self._migrate()
            (found,) = self._db.execute("PRAGMA quick_check(1)").fetchone()
            if found != "ok":
                raise _damaged(f"open {paths.state}", found)
        except sqlite3.DatabaseError as error:
            raise _translate(error, f"open {paths.state}", paths.state) from error

    def close(self) -> None:
        with self._lock:
            self._db.close()

    # containers

    def add_container(self, record: ContainerRecord) -> None:
        with self._write(f"container name {record.spec.name}") as db:
            db.execute(
                "INSERT INTO containers VALUES (?, ?, ?)", (record.id, record.spec.name, codec.dumps(record))
            )

    def put_container(self, record: ContainerRecord, *, releasing: bool = False) -> None:
        with self._write(f"container name {record.spec.name}", releasing=releasing) as db:
            db.execute(
                "UPDATE containers SET name = ?, record = ? WHERE id = ?",
                (record.spec.name, codec.dumps(record), record.id),
            )

    def delete_container(self, container_id: str) -> None:
        with self._write("container", releasing=True) as db:
            db.execute("DELETE FROM endpoints WHERE container = ?", (container_id,))
            db.execute("DELETE FROM ports WHERE container = ?", (container_id,))
            db.execute("DELETE FROM containers WHERE id = ?", (container_id,))

    def containers(self) -> list[ContainerRecord]:
        rows = self._read("SELECT record FROM containers")
        return [codec.loads(ContainerRecord, row[0]) for row in rows]

    # networks

    def add_network(self, record: NetworkRecord) -> None:
        with self._write(f"network with name {record.name}") as db:
            db.execute("INSERT INTO networks VALUES (?, ?, ?)", (record.id, record.name, codec.dumps(record)))
        self._keep_copy()

    def delete_network(self, network_id: str) -> None:
        with self._write("network", releasing=True) as db:
            db.execute("DELETE FROM networks WHERE id = ?", (network_id,))
        self._keep_copy()

    def networks(self) -> list[NetworkRecord]:
        return [codec.loads(NetworkRecord, row[0]) for row in self._read("SELECT record FROM networks")]

    # endpoints and ports: leases of a started container

    def add_lease(self, endpoints: list[EndpointRecord], ports: list[PortRecord]) -> None:
        """Keep a container's addresses and ports, all or none."""
        with self._write("address or port") as db:
            for e in endpoints:
                db.execute(
                    "INSERT INTO endpoints VALUES (?, ?, ?, ?)",
                    (e.container, e.network, e.ipv4, codec.dumps(e)),
                )
            for p in ports:
                db.execute(
                    "INSERT INTO ports VALUES (?, ?, ?, ?, ?)",
                    (p.container, p.host_ip, p.host_port, p.protocol, codec.dumps(p)),
                )
        for container_id in {e.container for e in endpoints} | {p.container for p in ports}:
            self._keep_lease(container_id)

    def delete_lease(self, container_id: str) -> None:
        with self._write("lease", releasing=True) as db:
            db.execute("DELETE FROM endpoints WHERE container = ?", (container_id,))
            db.execute("DELETE FROM ports WHERE container = ?", (container_id,))

    def delete_endpoint(self, container_id: str, network_id: str) -> None:
        with self._write("endpoint", releasing=True) as db:
            db.execute(
                "DELETE FROM endpoints WHERE container = ? AND network = ?", (container_id, network_id)
            )
        self._keep_lease(container_id)

    def endpoints(self, container_id: str | None = None) -> list[EndpointRecord]:
        rows = self._select("SELECT record FROM endpoints", container_id, " ORDER BY rowid")
        return self._endpoints.read((row[0] for row in rows), all_there_are=container_id is None)

    def ports(self, container_id: str | None = None) -> list[PortRecord]:
        rows = self._select("SELECT record FROM ports", container_id, " ORDER BY host_port")
        return self._ports.read((row[0] for row in rows), all_there_are=container_id is None)

    # images (the table that images.store works on)

    def put_image(self, image_id: str, document: str) -> None:
        with self._write("image") as db:
            db.execute("INSERT OR REPLACE INTO images VALUES (?, ?)", (image_id, document))
        self._keep_copy()

    def get_image(self, image_id: str) -> str | None:
        rows = self._read("SELECT document FROM images WHERE id = ?", (image_id,))
        return str(rows[0][0]) if rows else None

    def list_images(self) -> list[tuple[str, str]]:
        return [(row[0], row[1]) for row in self._read("SELECT id, document FROM images")]

    def delete_image(self, image_id: str) -> None:
        with self._write("image", releasing=True) as db:
            db.execute("DELETE FROM tags WHERE image = ?", (image_id,))
            db.execute("DELETE FROM images WHERE id = ?", (image_id,))
        self._keep_copy()

    def put_tag(self, reference: str, image_id: str) -> None:
        with self._write("tag") as db:
            db.execute("INSERT OR REPLACE INTO tags VALUES (?, ?)", (reference, image_id))
        self._keep_copy()

    def get_tag(self, reference: str) -> str | None:
        rows = self._read("SELECT image FROM tags WHERE reference = ?", (reference,))
        return str(rows[0][0]) if rows else None

    def delete_tag(self, reference: str) -> None:
        with self._write("tag", releasing=True) as db:
            db.execute("DELETE FROM tags WHERE reference = ?", (reference,))
        self._keep_copy()

    def list_tags(self) -> list[tuple[str, str]]:
        return [(row[0], row[1]) for row in self._read("SELECT reference, image FROM tags")]

    def keep_layers(self, holder: str, layers: Sequence[tuple[str, str]]) -> None:
        """`layers`: diff_id and document of each."""
        with self._write("layer") as db:
            db.execute("DELETE FROM kept_layers WHERE holder = ?", (holder,))
            db.executemany(
                "INSERT INTO kept_layers VALUES (?, ?, ?)",
                [(holder, diff_id, document) for diff_id, document in layers],
            )

    def drop_layers(self, holder: str) -> None:
        with self._write("layer", releasing=True) as db:
            db.execute("DELETE FROM kept_layers WHERE holder = ?", (holder,))

    def kept_layers(self) -> list[tuple[str, str]]:
        """Holder and document of each."""
        return [(row[0], row[1]) for row in self._read("SELECT holder, document FROM kept_layers")]

    def put_layer_blob(self, blob: str, diff_id: str) -> None:
        with self._write("layer") as db:
            db.execute("INSERT OR REPLACE INTO layer_blobs VALUES (?, ?)", (blob, diff_id))

    def list_layer_blobs(self) -> list[tuple[str, str]]:
        return [(row[0], row[1]) for row in self._read("SELECT blob, diff_id FROM layer_blobs")]

    def delete_layer_blobs(self, diff_id: str) -> None:
        with self._write("layer", releasing=True) as db:
            db.execute("DELETE FROM layer_blobs WHERE diff_id = ?", (diff_id,))

    # the cache of builds (the table that build.cache works on)

    def put_build_steps(self, rows: Sequence[tuple[str, str]]) -> None:
        """Key and document of each."""
        with self._write("build step") as db:
            db.executemany("INSERT OR REPLACE INTO build_steps VALUES (?, ?)", rows)

    def delete_build_steps(self, keys: Sequence[str]) -> None:
        with self._write("build step", releasing=True) as db:
            db.executemany("DELETE FROM build_steps WHERE key = ?", [(key,) for key in keys])

    def build_steps(self) -> list[tuple[str, str]]:
        return [(row[0], row[1]) for row in self._read("SELECT key, document FROM build_steps")]

    # journal

    def add_journal(self, run: str, time: float, entry: dict[str, Any]) -> None:
        with self._write("journal") as db:
            cursor = db.execute(
                "INSERT INTO journal (run, time, entry) VALUES (?, ?, ?)", (run, time, json.dumps(entry))
            )
            db.execute("DELETE FROM journal WHERE sequence <= ?", ((cursor.lastrowid or 0) - JOURNAL_KEEP,))

    def journal(self, run: str | None = None, limit: int = 1000) -> list[dict[str, Any]]:
        """Oldest first: `{"sequence", "run", "time", …entry}`."""
        where, args = (" WHERE run = ?", (run,)) if run else ("", ())
        rows = self._read(
            f"SELECT sequence, run, time, entry FROM journal{where} ORDER BY sequence DESC LIMIT ?",
            (*args, limit),
        )
        return [
            {"sequence": row[0], "run": row[1], "time": row[2], **json.loads(row[3])}
            for row in reversed(rows)
        ]

    # copies

    def _keep_copy(self) -> None:
        with self._lock:
            copy = {
                "networks": [codec.to_json(record) for record in self.networks()],
                "images": dict(self.list_images()),
                "tags": dict(self.list_tags()),
            }
            _write_copy(self._paths.records_copy, copy)

    def _keep_lease(self, container_id: str) -> None:
        with self._lock:
            copy = {
                "endpoints": [codec.to_json(record) for record in self.endpoints(container_id)],
                "ports": [codec.to_json(record) for record in self.ports(container_id)],
            }
            _write_copy(self._paths.lease_copy(container_id), copy)

    # internals

    def _select(self, query: str, container_id: str | None, order: str) -> list[Any]:
        if container_id is None:
            return self._read(query + order)
        return self._read(f"{query} WHERE container = ?{order}", (container_id,))

    def _read(self, query: str, args: tuple[Any, ...] = ()) -> list[Any]:
        with self._lock:
            try:
                return self._db.execute(query, args).fetchall()
            except sqlite3.DatabaseError as error:
                raise _translate(error, f"read {self._paths.state}", self._paths.state) from error

    @contextmanager
    def _write(self, what: str, *, releasing: bool = False) -> Iterator[sqlite3.Connection]:
        with self._lock:
            if releasing:
                self._release_ballast_when_full()
            try:
                self._db.execute("BEGIN IMMEDIATE")
                try:
                    yield self._db
                    self._db.execute("COMMIT")
                except BaseException:
                    if self._db.in_transaction:
                        self._db.execute("ROLLBACK")
                    raise
            except sqlite3.IntegrityError as error:
                raise Conflict(f"{what} is already in use") from error
            except sqlite3.DatabaseError as error:
                raise _translate(error, f"write {self._paths.state}", self._paths.state) from error
            if releasing:
                self._ensure_ballast()

    def _migrate(self) -> None:
        version = self._db.execute("PRAGMA user_version").fetchone()[0]
        if version > SCHEMA_VERSION:
            raise HostRefused(
                f"{self._paths.state} was written by a newer agent (schema {version}, not {SCHEMA_VERSION})",
                hint="upgrade the agent on this host",
            )
        if version < SCHEMA_VERSION:
            steps = " ".join(_STEPS[version:])
            self._db.executescript(f"BEGIN; {steps} PRAGMA user_version = {SCHEMA_VERSION}; COMMIT;")

    def _release_ballast_when_full(self) -> None:
        stat = os.statvfs(self._paths.lib)
        if stat.f_bavail * stat.f_frsize < BALLAST_BYTES // 2:
            self._paths.ballast.unlink(missing_ok=True)

    def _ensure_ballast(self) -> None:
        """Reserve the ballast where there is room for it; on a full disk there is none to reserve."""
        try:
            if self._paths.ballast.stat().st_size >= BALLAST_BYTES:
                return
        except FileNotFoundError:
            pass
        stat = os.statvfs(self._paths.lib)
        if stat.f_bavail * stat.f_frsize < 8 * BALLAST_BYTES:
            return
        fd = os.open(self._paths.ballast, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            os.posix_fallocate(fd, 0, BALLAST_BYTES)
        finally:
            os.close(fd)


def _write_copy(path: Path, copy: dict[str, Any]) -> None:
    """On a full disk the older one stays: it is the state that counts."""
    fresh = path.with_suffix(".new")
    with suppress(OSError):
        fd = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        with os.fdopen(fd, "w") as file:
            json.dump(copy, file)
        os.rename(fresh, path)


_REBUILD = "hawse-agent doctor --rebuild makes it anew of what the disk and the kernel still tell"


def _refuse_to_forget(paths: Paths) -> None:
    """Raises HostRefused when the file is gone and the containers are not: to begin anew would orphan them,
    and sweep away the layers that they run on."""
    if paths.state.exists():
        return
    if any(kept.is_dir() and any(kept.iterdir()) for kept in (paths.containers, paths.layers)):
        raise HostRefused(
            f"{paths.state} is gone, but there are containers or images in {paths.lib}", hint=_REBUILD
        )


def _damaged(doing: str, how: str) -> HostRefused:
    return HostRefused(f"{doing}: the file is damaged ({how})", hint=f"nothing was changed; {_REBUILD}")


def _translate(error: sqlite3.DatabaseError, doing: str, path: Path) -> HostRefused:
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    if code == sqlite3.SQLITE_FULL:
        return OutOfSpace(
            f"{doing}: the disk is full", hint="remove containers, images or volumes, then run again"
        )
    if code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
        return _damaged(doing, str(error))
    if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        holders = ", ".join(_holders(path)) or "another process"
        return HostRefused(f"{doing}: {holders} holds it locked", hint="end that process, then try again")
    return HostRefused(f"{doing}: {error}")


def _holders(path: Path) -> list[str]:
    """Who else has the file open."""
    found = []
    wanted = os.stat(path)
    for pid in (entry for entry in os.listdir("/proc") if entry.isdecimal() and int(entry) != os.getpid()):
        with suppress(OSError):  # it has ended meanwhile
            opened = [os.stat(f"/proc/{pid}/fd/{fd}") for fd in os.listdir(f"/proc/{pid}/fd")]
            if any(os.path.samestat(wanted, other) for other in opened):
                found.append(f"process {pid} ({Path('/proc', pid, 'comm').read_text().strip()})")
    return found
