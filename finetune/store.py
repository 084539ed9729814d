"""The record: datasets, runs and their events, in one SQLite file under `FINETUNE_HOME`.

Everything that must survive a closed tab, a killed server or a power cut is a row here. Page,
command line, API and workers open the same file, each call with its own short connection, so the
store needs no lock of ours: WAL lets readers go on while one writes, `synchronous=FULL` makes a
returned call durable.

Example:
    >>> store = Store(Path("/tmp/example-home"))
    >>> dataset = store.add_dataset(owner="local", name="recipes", folder="...", facts={})
    >>> run = store.add_run(owner="local", name="first", dataset=dataset.id, config={"epochs": 3})
    >>> store.run(run.id).state
    'validating'
"""

import json
import secrets
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from finetune.errors import ConfigError, RunError

STATES = ("validating", "queued", "running", "succeeded", "failed", "cancelled")
ENDED = ("succeeded", "failed", "cancelled")

_SCHEMA = """
CREATE TABLE IF NOT EXISTS datasets (
    id TEXT PRIMARY KEY, owner TEXT NOT NULL, name TEXT NOT NULL, created REAL NOT NULL,
    folder TEXT NOT NULL, facts TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS runs (
    id TEXT PRIMARY KEY, owner TEXT NOT NULL, name TEXT NOT NULL, dataset TEXT NOT NULL REFERENCES datasets(id),
    config TEXT NOT NULL, state TEXT NOT NULL, created REAL NOT NULL, started REAL, ended REAL,
    step INTEGER NOT NULL DEFAULT 0, steps INTEGER NOT NULL DEFAULT 0, pid INTEGER, pid_started REAL,
    stop INTEGER NOT NULL DEFAULT 0, code TEXT, reason TEXT, result TEXT NOT NULL DEFAULT '{}');
CREATE INDEX IF NOT EXISTS runs_by_state ON runs(state, created);
CREATE TABLE IF NOT EXISTS events (
    run TEXT NOT NULL REFERENCES runs(id), seq INTEGER NOT NULL, at REAL NOT NULL, kind TEXT NOT NULL,
    data TEXT NOT NULL, PRIMARY KEY (run, seq));
"""


@dataclass(frozen=True)
class DatasetRecord:
    """An uploaded dataset: `folder` holds its examples, `facts` what was counted in them."""

    id: str
    owner: str
    name: str
    created: float
    folder: str
    facts: dict[str, Any]


@dataclass(frozen=True)
class Run:
    """One fine-tune. Times are Unix seconds; `code` and `reason` say why it ended."""

    id: str
    owner: str
    name: str
    dataset: str
    config: dict[str, Any]
    state: str
    created: float
    started: float | None
    ended: float | None
    step: int
    steps: int
    pid: int | None
    pid_started: float | None
    stop: int
    code: str | None
    reason: str | None
    result: dict[str, Any]


@dataclass(frozen=True)
class Event:
    """One thing that happened in a run; `seq` counts 1, 2, 3 … without a gap."""

    run: str
    seq: int
    at: float
    kind: str
    data: dict[str, Any]


class Store:
    """The database file of one home. Cheap to make: connections are opened per call.

    Raises:
        ConfigError: the file cannot be made or is no database.
    """

    def __init__(self, home: Path):
        self.path = home / "finetune.db"
        try:
            home.mkdir(parents=True, exist_ok=True)
            with self._connect() as db:
                db.execute("PRAGMA journal_mode=WAL")
                db.executescript(_SCHEMA)
        except (OSError, sqlite3.DatabaseError) as error:
            raise ConfigError(
                f"The record cannot be opened ({error}).",
                where=str(self.path),
                fix="Set FINETUNE_HOME to a folder you may write to; a damaged file must be moved away first.",
            ) from error

    @contextmanager
    def _connect(self) -> Iterator[sqlite3.Connection]:
        db = sqlite3.connect(self.path, timeout=30, isolation_level=None)
        db.row_factory = sqlite3.Row
        db.execute("PRAGMA synchronous=FULL")
        try:
            yield db
        finally:
            db.close()

    @contextmanager
    def _write(self) -> Iterator[sqlite3.Connection]:
        with self._connect() as db:
            db.execute("BEGIN IMMEDIATE")
            try:
                yield db
            except BaseException:
                db.execute("ROLLBACK")
                raise
            db.execute("COMMIT")

    # Datasets

    def add_dataset(self, *, owner: str, name: str, folder: str, facts: dict[str, Any]) -> DatasetRecord:
        """Record a dataset whose files are already complete in `folder`."""
        record = DatasetRecord(_new_id("d"), owner, name, time.time(), folder, facts)
        with self._write() as db:
            db.execute(
                "INSERT INTO datasets VALUES (?,?,?,?,?,?)",
                (record.id, owner, name, record.created, folder, json.dumps(facts)),
            )
        return record

    def dataset(self, dataset_id: str) -> DatasetRecord:
        """The dataset with this id. Raises `RunError` when there is none."""
        with self._connect() as db:
            row = db.execute("SELECT * FROM datasets WHERE id=?", (dataset_id,)).fetchone()
        if row is None:
            raise RunError("There is no such dataset.", where=dataset_id, code="dataset_unknown")
        return _dataset(row)

    # Runs

    def add_run(self, *, owner: str, name: str, dataset: str, config: dict[str, Any]) -> Run:
        """Record a new run in state `validating`."""
        run_id = _new_id("r")
        with self._write() as db:
            db.execute(
                "INSERT INTO runs (id, owner, name, dataset, config, state, created) VALUES (?,?,?,?,?,?,?)",
                (run_id, owner, name, dataset, json.dumps(config), "validating", time.time()),
            )
            _append(db, run_id, "state", {"state": "validating"})
        return self.run(run_id)

    def run(self, run_id: str) -> Run:
        """The run with this id. Raises `RunError` when there is none."""
        with self._connect() as db:
            row = db.execute("SELECT * FROM runs WHERE id=?", (run_id,)).fetchone()
        if row is None:
            raise RunError(
                "There is no such run.",
                where=run_id,
                fix="See the list with: python -m finetune runs",
                code="run_unknown",
            )
        return _run(row)

    def runs(self, *, owner: str | None = None, states: tuple[str, ...] = STATES) -> list[Run]:
        """Runs in these states, newest first; only this owner's when one is named."""
        marks = ",".join("?" * len(states))
        query = f"SELECT * FROM runs WHERE state IN ({marks})" + (" AND owner=?" if owner else "")
        with self._connect() as db:
            rows = db.execute(f"{query} ORDER BY created DESC, rowid DESC", (*states, *([owner] if owner else [])))
            return [_run(row) for row in rows]

    def move(self, run_id: str, to: str, *, only_from: tuple[str, ...], **fields: Any) -> bool:
        """Change a run's state, once: False when it is not in `only_from` any more.

        Two processes may try the same change; the database lets one of them win. `fields` are
        columns set in the same transaction (`result` is given as a dict).
        """
        marks = ",".join("?" * len(only_from))
        names, values = _columns(fields)
        with self._write() as db:
            changed = db.execute(
                f"UPDATE runs SET state=?{names} WHERE id=? AND state IN ({marks})",
                (to, *values, run_id, *only_from),
            ).rowcount
            if changed:
                _append(db, run_id, "state", {"state": to, "code": fields.get("code"), "reason": fields.get("reason")})
        return bool(changed)

    def claim(self, limit: int) -> Run | None:
        """Take the oldest queued run into `running`, unless `limit` runs are running already."""
        with self._write() as db:
            if db.execute("SELECT COUNT(*) FROM runs WHERE state='running'").fetchone()[0] >= limit:
                return None
            row = db.execute("SELECT id FROM runs WHERE state='queued' ORDER BY created, rowid LIMIT 1").fetchone()
            if row is None:
                return None
            db.execute("UPDATE runs SET state='running', started=? WHERE id=?", (time.time(), row["id"]))
            _append(db, row["id"], "state", {"state": "running"})
        return self.run(row["id"])

    def update(self, run_id: str, **fields: Any) -> None:
        """Set columns of a run without changing its state."""
        names, values = _columns(fields)
        with self._write() as db:
            db.execute(f"UPDATE runs SET {names.removeprefix(', ')} WHERE id=?", (*values, run_id))

    # Events

    def add_event(self, run_id: str, kind: str, data: dict[str, Any], **fields: Any) -> int:
        """Append an event, and set columns of its run in the same transaction. Returns its seq."""
        names, values = _columns(fields)
        with self._write() as db:
            if fields:
                db.execute(f"UPDATE runs SET {names.removeprefix(', ')} WHERE id=?", (*values, run_id))
            return _append(db, run_id, kind, data)

    def events(self, run_id: str, *, after: int = 0) -> list[Event]:
        """The events of a run with `seq` above `after`, in order."""
        with self._connect() as db:
            rows = db.execute("SELECT * FROM events WHERE run=? AND seq>? ORDER BY seq", (run_id, after))
            return [Event(r["run"], r["seq"], r["at"], r["kind"], json.loads(r["data"])) for r in rows]


def _new_id(prefix: str) -> str:
    return prefix + secrets.token_hex(4)


def _append(db: sqlite3.Connection, run_id: str, kind: str, data: dict[str, Any]) -> int:
    row = db.execute("SELECT COALESCE(MAX(seq), 0) + 1 FROM events WHERE run=?", (run_id,)).fetchone()
    db.execute("INSERT INTO events VALUES (?,?,?,?,?)", (run_id, row[0], time.time(), kind, json.dumps(data)))
    return row[0]


def _columns(fields: dict[str, Any]) -> tuple[str, list[Any]]:
    names = "".join(f", {name}=?" for name in fields)
    return names, [json.dumps(value) if isinstance(value, dict) else value for value in fields.values()]


def _dataset(row: sqlite3.Row) -> DatasetRecord:
    return DatasetRecord(**{**dict(row), "facts": json.loads(row["facts"])})


def _run(row: sqlite3.Row) -> Run:
    return Run(**{**dict(row), "config": json.loads(row["config"]), "result": json.loads(row["result"])})
