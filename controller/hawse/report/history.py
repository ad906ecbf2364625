"""Runs that were made, in one small SQLite file that several `hawse` commands may use at once.

It is the project's own (`.hawse/history.db` beside `hawse.toml`), or the user's where there is no project.
Nothing else depends on it: a file that cannot be used is an error of its own, never a reason to skip a run.
"""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from hawse.report.model import HostRun, RunReport
from hawse_agent.errors import HostRefused, InputError, NotFound
from hawse_agent.spec import codec

VERSION = 1
KEEP = 1000
"""Runs that are kept; older ones go as new ones come."""

_SCHEMA = """
CREATE TABLE runs (
    id TEXT PRIMARY KEY, started REAL NOT NULL, seconds REAL NOT NULL, command TEXT NOT NULL,
    check_mode INTEGER NOT NULL, user TEXT NOT NULL, exit_code INTEGER NOT NULL
);
CREATE INDEX runs_started ON runs (started);
CREATE TABLE hosts (
    run TEXT NOT NULL REFERENCES runs (id) ON DELETE CASCADE, position INTEGER NOT NULL, host TEXT NOT NULL,
    outcome TEXT NOT NULL, report TEXT NOT NULL, PRIMARY KEY (run, position)
);
"""


@dataclass(frozen=True, kw_only=True)
class RunSummary:
    """One line of the list of runs. `outcomes` counts hosts: ok, changed, failed, unreachable."""

    id: str
    started: float
    seconds: float
    command: str
    check: bool
    user: str
    exit_code: int
    outcomes: Mapping[str, int]


def history_path(project: Path | None, environment: Mapping[str, str]) -> Path:
    """`project` is the folder of hawse.toml, when there is one."""
    if project is not None:
        return project / ".hawse" / "history.db"
    home = Path(environment.get("HOME") or Path.home())
    state = Path(environment.get("XDG_STATE_HOME") or home / ".local" / "state")
    return state / "hawse" / "history.db"


class History:
    """Use it in a `with` block. Raises HostRefused when the file cannot be used."""

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            os.close(os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600))
            self._db = sqlite3.connect(path, timeout=10.0, isolation_level=None)
            self._open()
        except (OSError, sqlite3.Error) as error:
            raise HostRefused(
                f"cannot use the run history {path}: {error}", hint="move the file away to start a new one"
            ) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._db.close()

    def save(self, run: RunReport) -> None:
        """Keep a run; saving it again replaces it."""
        rows = [
            (run.id, position, host.host, host.outcome, codec.dumps(host))
            for position, host in enumerate(run.hosts)
        ]
        try:
            with self._transaction() as db:
                db.execute("DELETE FROM runs WHERE id = ?", (run.id,))
                db.execute(
                    "INSERT INTO runs VALUES (?, ?, ?, ?, ?, ?, ?)",
                    (
                        run.id,
                        run.started,
                        run.seconds,
                        run.command,
                        int(run.check),
                        run.user,
                        run.exit_code,
                    ),
                )
                db.executemany("INSERT INTO hosts VALUES (?, ?, ?, ?, ?)", rows)
                db.execute(
                    "DELETE FROM runs WHERE id NOT IN (SELECT id FROM runs ORDER BY started DESC LIMIT ?)",
                    (KEEP,),
                )
        except sqlite3.Error as error:
            raise HostRefused(f"cannot write the run history {self._path}: {error}") from error

    def runs(self, limit: int = 20) -> list[RunSummary]:
        """The newest first."""
        rows = self._read("SELECT * FROM runs ORDER BY started DESC, id DESC LIMIT ?", limit)
        return [
            RunSummary(
                id=row[0],
                started=row[1],
                seconds=row[2],
                command=row[3],
                check=bool(row[4]),
                user=row[5],
                exit_code=row[6],
                outcomes=dict(
                    self._read("SELECT outcome, count(*) FROM hosts WHERE run = ? GROUP BY outcome", row[0])
                ),
            )
            for row in rows
        ]

    def run(self, reference: str = "last") -> RunReport:
        """By id, by the beginning of one, or `last`. Raises NotFound, InputError when several begin so."""
        if reference == "last":
            rows = self._read("SELECT * FROM runs ORDER BY started DESC, id DESC LIMIT 1")
        else:
            rows = self._read(
                "SELECT * FROM runs WHERE substr(id, 1, ?) = ? LIMIT 2", len(reference), reference
            )
            rows = [row for row in rows if row[0] == reference] or rows
        if not rows:
            raise NotFound("no run so far" if reference == "last" else f"no run {reference}")
        if len(rows) > 1:
            raise InputError(f"several runs begin with {reference}", hint="write more of the id")
        id_, started, seconds, command, check, user, _ = rows[0]
        reports = self._read("SELECT report FROM hosts WHERE run = ? ORDER BY position", id_)
        return RunReport(
            id=id_,
            command=command,
            started=started,
            seconds=seconds,
            check=bool(check),
            user=user,
            hosts=tuple(codec.from_json(HostRun, json.loads(row[0])) for row in reports),
        )

    def _open(self) -> None:
        self._db.execute("PRAGMA foreign_keys = ON")
        with self._transaction() as db:
            (version,) = db.execute("PRAGMA user_version").fetchone()
            if version == 0:
                for statement in _SCHEMA.split(";"):
                    db.execute(statement)
                db.execute(f"PRAGMA user_version = {VERSION}")
        if version > VERSION:
            raise sqlite3.DatabaseError("a newer Hawse wrote it")

    def _read(self, query: str, *values: object) -> list[Any]:
        try:
            return self._db.execute(query, values).fetchall()
        except sqlite3.Error as error:
            raise HostRefused(f"cannot read the run history {self._path}: {error}") from error

    def _transaction(self) -> _Transaction:
        return _Transaction(self._db)


class _Transaction:
    """BEGIN IMMEDIATE … COMMIT: a second writer waits here, not in the middle."""

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db

    def __enter__(self) -> sqlite3.Connection:
        self._db.execute("BEGIN IMMEDIATE")
        return self._db

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._db.execute("COMMIT" if kind is None else "ROLLBACK")
