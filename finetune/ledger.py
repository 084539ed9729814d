"""What the API keeps beside datasets and runs: uploaded files, fine-tuning jobs, and keys.

A job is a request and, once its files have been checked, a run: everything after that is the run's. A run that was
started elsewhere (on the page, in a terminal) is a job as well, with its id derived from the run's.
"""

import hashlib
import json
import os
import secrets
import sqlite3
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from finetune.errors import RunError
from finetune.records import Json
from finetune.schema import as_event, columns, marks
from finetune.store import Event, Run, Store
from finetune.train.process import alive, started

JOB = "ftjob-"
FILE = "file-"
RESULTS = f"{FILE}results-"
"""Begins the id of the file with a run's metrics; the rest is the run's id."""

KEY = "sk-ba-"
RECOVERY = "recover-"
"""Begins the key with which another browser becomes the same owner."""


@dataclass(frozen=True)
class Upload:
    """An uploaded file; `created` in Unix seconds."""

    id: str
    owner: str
    name: str
    purpose: str
    bytes: int
    created: float


@dataclass(frozen=True)
class Job:
    """A fine-tuning job. `request` is None for a run that was started elsewhere.

    `said` are events before there was a run: ``[seconds, level, text]``. `error` holds a code, a message and a param.
    """

    id: str
    owner: str
    created: float
    request: Json | None = None
    said: tuple[tuple[float, str, str], ...] = ()
    run: str | None = None
    error: Json | None = None
    ended: float | None = None


class Ledger:
    """Reads and writes these tables of the store.

    Example:
        >>> ledger = Ledger(store)
        >>> ledger.uploads("local")
        []
    """

    def __init__(self, store: Store):
        self.store = store

    # Files

    def add_upload(self, upload: Upload) -> None:
        """Record a file whose bytes are on the disk already."""
        with self.store.writing() as db:
            db.execute("INSERT INTO uploads VALUES (?,?,?,?,?,?)", tuple(vars(upload).values()))

    def uploads(self, owner: str) -> list[Upload]:
        """An owner's files, newest first."""
        with self.store.reading() as db:
            rows = db.execute("SELECT * FROM uploads WHERE owner=? ORDER BY created DESC, rowid DESC", (owner,))
            return [Upload(**row) for row in rows]

    def upload(self, owner: str, file_id: str) -> Upload | None:
        """One of an owner's files."""
        with self.store.reading() as db:
            row = db.execute("SELECT * FROM uploads WHERE owner=? AND id=?", (owner, file_id)).fetchone()
        return Upload(**row) if row else None

    def delete_upload(self, owner: str, file_id: str) -> bool:
        """Forget a file; False when there is none."""
        with self.store.writing() as db:
            return bool(db.execute("DELETE FROM uploads WHERE owner=? AND id=?", (owner, file_id)).rowcount)

    # Jobs

    def add_job(self, owner: str, request: Json, said: list[tuple[str, str]]) -> Job:
        """Record a job whose files are still to be checked, by this process."""
        now = time.time()
        job = Job(f"{JOB}{secrets.token_hex(8)}", owner, now, request, tuple((now, *one) for one in said))
        with self.store.writing() as db:
            row = (job.id, owner, now, json.dumps(request), json.dumps(job.said), *_me())
            db.execute(
                "INSERT INTO jobs (id, owner, created, request, said, claimer, claimer_started) VALUES (?,?,?,?,?,?,?)",
                row,
            )
        return job

    def say(self, job_id: str, text: str, level: str = "info", **fields: Any) -> bool:
        """Add an event to a job that has no run yet, and set columns; False when it has ended or begun meanwhile."""
        with self.store.writing() as db:
            return _say(db, job_id, text, level, **fields)

    def begins(self, job: Job, text: str) -> Callable[[sqlite3.Connection, str], None]:
        """Writes a run into its job, with an event, in the transaction that records the run.

        A server that dies leaves both or neither: its successor would start a second run for a job without one. It
        raises `RunError` for a job that was cancelled meanwhile, so that there is no run either.

        Example:
            >>> train.start(store, config, record, job.owner, ledger.begins(job, "Files validated"))
        """

        def write(db: sqlite3.Connection, run_id: str) -> None:
            if not _say(db, job.id, text, run=run_id):
                raise RunError("The job ended while its files were validated.", where=job.id, code="run_ended")

        return write

    def jobs(self, owner: str) -> list[Job]:
        """An owner's jobs, newest first; those whose run was deleted are gone."""
        with self.store.reading() as db:
            rows = db.execute("SELECT * FROM jobs WHERE owner=?", (owner,)).fetchall()
        runs = {run.id: run for run in self.store.runs(owner=owner)}
        begun = {row["run"] for row in rows}
        jobs = [_job(row) for row in rows if row["run"] is None or row["run"] in runs]
        jobs += [job_of(run) for run in runs.values() if run.id not in begun and run.sweep is None]
        return sorted(jobs, key=lambda job: job.created, reverse=True)

    def job(self, owner: str, job_id: str) -> Job | None:
        """One of an owner's jobs, also one that is a run started elsewhere."""
        with self.store.reading() as db:
            row = db.execute("SELECT * FROM jobs WHERE owner=? AND id=?", (owner, job_id)).fetchone()
            run_id = row["run"] if row else job_id.removeprefix(JOB)
            taken = not row and db.execute("SELECT 1 FROM jobs WHERE run=?", (run_id,)).fetchone()
        if row and run_id is None:
            return _job(row)
        runs = {run.id: run for run in self.store.runs(owner=owner)}
        if taken or run_id not in runs or runs[run_id].sweep:
            return None
        return _job(row) if row else job_of(runs[run_id])

    def job_of_run(self, run: Run) -> Job:
        """The job that a run belongs to."""
        with self.store.reading() as db:
            row = db.execute("SELECT * FROM jobs WHERE run=?", (run.id,)).fetchone()
        return _job(row) if row else job_of(run)

    def unchecked_of(self, owner: str) -> int:
        """How many of an owner's jobs have files that are still to be checked."""
        query = "SELECT COUNT(*) FROM jobs WHERE owner=? AND run IS NULL AND ended IS NULL"
        with self.store.reading() as db:
            return int(db.execute(query, (owner,)).fetchone()[0])

    def unchecked(self) -> list[Job]:
        """Claim the jobs whose files were being checked by a process that is gone."""
        with self.store.writing() as db:
            rows = db.execute("SELECT * FROM jobs WHERE run IS NULL AND ended IS NULL").fetchall()
            left = [row for row in rows if not alive(row["claimer"], row["claimer_started"])]
            for row in left:
                db.execute("UPDATE jobs SET claimer=?, claimer_started=? WHERE id=?", (*_me(), row["id"]))
        return [_job(row) for row in left]

    def events(self, run_id: str, kinds: tuple[str, ...], before: int | None, most: int) -> list[Event]:
        """At most so many events of a run that are of these kinds, newest first; only those `before` a `seq`."""
        query = f"SELECT * FROM events WHERE run=? AND kind IN ({marks(kinds)}) AND seq<? ORDER BY seq DESC LIMIT ?"
        with self.store.reading() as db:
            rows = db.execute(query, (run_id, *kinds, 2**62 if before is None else before, most))
            return [as_event(row) for row in rows]

    # Keys

    def new_key(self, owner: str) -> str:
        """A key for this owner, instead of the one before. Only its hash is kept: it can be shown just once."""
        return self._new("keys", KEY, owner)

    def owner_of(self, key: str) -> str | None:
        """Whose key this is."""
        return self._owner("keys", key)

    def new_recovery(self, owner: str) -> str:
        """A key with which another browser becomes this owner, instead of the one before; kept as `new_key`'s."""
        return self._new("recovery", RECOVERY, owner)

    def recovered(self, key: str) -> str | None:
        """Whom this recovery key makes of a browser."""
        return self._owner("recovery", key)

    def _new(self, table: str, prefix: str, owner: str) -> str:
        key = f"{prefix}{secrets.token_hex(24)}"
        with self.store.writing() as db:
            db.execute(f"DELETE FROM {table} WHERE owner=?", (owner,))
            db.execute(f"INSERT INTO {table} VALUES (?,?,?)", (_hash(key), owner, time.time()))
        return key

    def _owner(self, table: str, key: str) -> str | None:
        with self.store.reading() as db:
            row = db.execute(f"SELECT owner FROM {table} WHERE sha256=?", (_hash(key),)).fetchone()
        return row["owner"] if row else None

    # Forgetting

    def forget(self, owner: str) -> list[str]:
        """Delete an owner's jobs, files and keys; the ids of the files, whose bytes are still there."""
        with self.store.writing() as db:
            files = [row["id"] for row in db.execute("SELECT id FROM uploads WHERE owner=?", (owner,))]
            for table in ("jobs", "uploads", "keys", "recovery"):
                db.execute(f"DELETE FROM {table} WHERE owner=?", (owner,))
        return files


def key_in(headers: Mapping[str, str]) -> str:
    """The key that a request carries, in OpenAI's header or in Azure's; "" for none.

    Example:
        >>> key_in({"authorization": "Bearer sk-ba-1"})
        'sk-ba-1'
    """
    kind, _, key = headers.get("authorization", "").partition(" ")
    return key.strip() if kind.lower() == "bearer" else headers.get("api-key", "").strip()


def job_of(run: Run) -> Job:
    """A run that was started elsewhere, as a job."""
    return Job(f"{JOB}{run.id}", run.owner, run.created, run=run.id)


def _say(db: sqlite3.Connection, job_id: str, text: str, level: str = "info", **fields: Any) -> bool:
    names, values = columns(fields)
    where = "WHERE id=? AND run IS NULL AND ended IS NULL"
    row = db.execute(f"SELECT said FROM jobs {where}", (job_id,)).fetchone()
    if row is None:
        return False
    said = json.dumps([*json.loads(row["said"]), (time.time(), level, text)])
    db.execute(f"UPDATE jobs SET said=?{names} {where}", (said, *values, job_id))
    return True


def _job(row: sqlite3.Row) -> Job:
    read = {name: json.loads(row[name] or "null") for name in ("request", "error")}
    said = tuple((at, level, text) for at, level, text in json.loads(row["said"]))
    return Job(row["id"], row["owner"], row["created"], said=said, run=row["run"], ended=row["ended"], **read)


def _me() -> tuple[int, float]:
    return os.getpid(), started(os.getpid())


def _hash(key: str) -> str:
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()
