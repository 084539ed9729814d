"""The record: datasets, runs, their events and votes, in one SQLite file under `FINETUNE_HOME`.

Everything that must survive a closed tab, a killed server or a power cut is a row here. Page,
command line, API and workers open the same file, each call with its own short connection, so the
store needs no lock of ours: WAL lets readers go on while one writes, `synchronous=FULL` makes a
returned call durable.

Example:
    >>> store = Store(Path("/tmp/example-home"))
    >>> dataset = store.add_dataset(owner="local", name="recipes", folder="...", facts=Facts())
    >>> run = store.add_run(owner="local", name="first", dataset=dataset.id, config={"epochs": 3})
    >>> store.run(run.id).state
    'validating'
"""

import json
import sqlite3
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

from finetune import limits, schema
from finetune.errors import ConfigError, RunError
from finetune.limits import Most
from finetune.records import Json
from finetune.schema import (
    ACTIVE,
    CHANGES,
    DELETABLE,
    ENDED,
    RESUMABLE,
    STATES,
    DatasetRecord,
    Event,
    EventData,
    Facts,
    Log,
    Result,
    Run,
    State,
    new_id,
)
from finetune.versions import VERSIONS

__all__ = [
    "ACTIVE",
    "DELETABLE",
    "ENDED",
    "RESUMABLE",
    "STATES",
    "DatasetRecord",
    "Event",
    "Facts",
    "Log",
    "Result",
    "Run",
    "State",
    "Store",
    "new_id",
]

DISK_WORDS = ("database or disk is full", "disk i/o error")
"""How SQLite says that the disk took no more."""

WAIT = 30.0
"""Seconds for which a write waits while another process writes; one that was frozen amid a write holds all up."""

AT_ONCE = 500
"""Events of an imported run in one transaction: nobody else waits long for the record."""


class Store:
    """The database file of one home. Cheap to make: connections are opened per call.

    Raises:
        ConfigError: the file cannot be made or is no database.
        RunError: the disk is full (code ``disk_full``) or another process holds the record (``record_busy``), from
            any call.
    """

    def __init__(self, home: Path):
        self.path = home / "finetune.db"
        try:
            home.mkdir(parents=True, exist_ok=True)
            with self._connect() as db:
                db.execute("PRAGMA journal_mode=WAL")
            self._grow()
        except (OSError, sqlite3.DatabaseError) as error:
            raise ConfigError(
                f"The database cannot be opened ({error}).",
                where=str(self.path),
                fix="If the file is damaged, move it away; otherwise set FINETUNE_HOME to a folder you can write to.",
            ) from error

    def _grow(self) -> None:
        """Bring a record of an earlier version up to this one, in one transaction."""
        with self._write() as db:
            done = db.execute("PRAGMA user_version").fetchone()[0]
            for step in VERSIONS[done:]:
                for statement in filter(str.strip, step.split(";")):
                    db.execute(statement)
            if done < len(VERSIONS):
                db.execute(f"PRAGMA user_version = {len(VERSIONS)}")

    @contextmanager
    def _connect(self) -> Iterator[sqlite3.Connection]:
        db = sqlite3.connect(self.path, timeout=WAIT, isolation_level=None)
        db.row_factory = sqlite3.Row
        try:
            db.execute("PRAGMA synchronous=FULL")
            yield db
        except sqlite3.OperationalError as error:
            words = str(error).lower()
            if any(full in words for full in DISK_WORDS):
                full = "The disk is full or cannot be written."
                raise RunError(full, fix="Free some space.", code="disk_full") from error
            if "is locked" in words:
                busy = f"Another process has been holding the database for {WAIT:.0f} s."
                raise RunError(busy, fix="Try again in a minute.", code="record_busy") from error
            raise
        finally:
            db.close()

    @contextmanager
    def _write(self) -> Iterator[sqlite3.Connection]:
        with self._connect() as db:
            db.execute("BEGIN IMMEDIATE")
            try:
                yield db
            except BaseException:
                if db.in_transaction:  # SQLite has rolled back by itself when the disk was full
                    db.execute("ROLLBACK")
                raise
            db.execute("COMMIT")

    reading, writing = _connect, _write
    """A connection, and a transaction, for the tables of `finetune.ledger`."""

    # Datasets

    def add_dataset(
        self,
        *,
        owner: str,
        name: str,
        folder: str,
        facts: Facts,
        parent: DatasetRecord | None = None,
        author: str = "",
    ) -> DatasetRecord:
        """Record a dataset whose files are already complete in `folder`; the same one again is the same record.

        With a `parent` it becomes the next version of that one: numbers are given here, so that no two are the same.
        """
        record = DatasetRecord(new_id("d"), owner, _text(name), time.time(), folder, facts, author=_text(author))
        with self._write() as db:
            same = (owner, record.name, folder)
            row = db.execute("SELECT * FROM datasets WHERE owner=? AND name=? AND folder=?", same).fetchone()
            if row is None:
                if parent:
                    family = parent.family or parent.id
                    last = "SELECT MAX(version) FROM datasets WHERE owner=? AND COALESCE(family, id)=?"
                    most = db.execute(last, (owner, family)).fetchone()[0] or parent.version
                    record = replace(record, parent=parent.id, family=family, version=most + 1)
                schema.insert(db, "datasets", record)
        return schema.as_dataset(row) if row else record

    def dataset(self, dataset_id: str) -> DatasetRecord:
        """The dataset with this id. Raises `RunError` when there is none."""
        with self._connect() as db:
            row = db.execute("SELECT * FROM datasets WHERE id=?", (_text(dataset_id),)).fetchone()
        if row is None:
            raise no_dataset(dataset_id)
        return schema.as_dataset(row)

    def datasets(self, *, owner: str | None = None) -> list[DatasetRecord]:
        """Kept datasets, newest first; only this owner's when one is named."""
        query = "SELECT * FROM datasets WHERE owner=COALESCE(?, owner) ORDER BY created DESC, rowid DESC"
        with self._connect() as db:
            return [schema.as_dataset(row) for row in db.execute(query, (owner,))]

    def versions(self, record: DatasetRecord) -> list[DatasetRecord]:
        """The versions of a dataset that are kept, newest first, itself among them."""
        query = "SELECT * FROM datasets WHERE owner=? AND COALESCE(family, id)=? ORDER BY version DESC"
        with self._connect() as db:
            return [schema.as_dataset(row) for row in db.execute(query, (record.owner, record.family or record.id))]

    def delete_dataset(self, dataset_id: str, *, with_runs: bool = False) -> list[Run]:
        """Delete a dataset, and the runs that use it if that is wanted and all of them have ended, together.

        Returns the runs that stand in the way; nothing is deleted then. No run can begin on it meanwhile.
        """
        with self._write() as db:
            rows = db.execute("SELECT * FROM runs WHERE dataset=? ORDER BY created DESC, rowid DESC", (dataset_id,))
            runs = [schema.as_run(row) for row in rows]
            if in_the_way := [run for run in runs if not with_runs or run.state not in ENDED]:
                return in_the_way
            for run in runs:
                schema.delete_run(db, run.id)
            db.execute("DELETE FROM datasets WHERE id=?", (dataset_id,))
        return []

    def while_unkept(self, folder: Path, act: Callable[[], object]) -> bool:
        """Do something with a folder that no dataset is kept in, and let nobody record one meanwhile.

        Folders are named by what is in them, so what was deleted may be brought again at any moment.
        """
        with self._write() as db:
            if folder.name in {Path(row["folder"]).name for row in db.execute("SELECT folder FROM datasets")}:
                return False
            act()
        return True

    # Runs

    def add_run(
        self,
        *,
        owner: str,
        name: str,
        dataset: str,
        config: Json,
        most: Most = Most(),  # noqa: B008 - it cannot be changed
        address: str = "",
        beside: Callable[[sqlite3.Connection, str], object] = lambda db, run_id: None,
        **more: Any,
    ) -> Run:
        """Record a new run in state `validating`; `more` are further columns, such as its `split` and `lineage`.

        What is written `beside` it is there with it, or neither is.

        Raises:
            NotAllowed: the owner, or the address, has `most` active runs already.
            RunError: the dataset was deleted meanwhile.
        """
        run_id = new_id("r")
        with self._write() as db:
            limits.refuse_more(db, owner, address, most)
            if db.execute("SELECT 1 FROM datasets WHERE id=?", (dataset,)).fetchone() is None:
                raise no_dataset(dataset)
            begun = {"owner": owner, "name": name, "dataset": dataset, "config": config, "created": time.time()}
            names, values = schema.columns(begun | {"state": "validating", "address": address} | more)
            places = schema.marks((run_id, *values))
            db.execute(f"INSERT INTO runs (id{names.replace('=?', '')}) VALUES ({places})", (run_id, *values))
            schema.append(db, run_id, State(state="validating"))
            beside(db, run_id)
        return self.run(run_id)

    def import_run(self, dataset: DatasetRecord, run: Run, events: Iterable[Event], votes: Iterable[dict]) -> None:
        """Record a run of another home with its dataset, events and votes (its owner's), all of it or nothing.

        The events go first, part by part; nobody sees the run before the last of it is there.
        """
        ballots = [(f"{run.id}-{count}", run.id, run.owner, json.dumps(vote)) for count, vote in enumerate(votes)]
        left = iter(events)
        try:
            while part := list(islice(left, AT_ONCE)):  # read and checked before others are kept waiting
                with self._write() as db:
                    for event in part:
                        schema.insert(db, "events", event)
            with self._write() as db:
                schema.insert(db, "datasets", dataset)
                schema.insert(db, "runs", run)
                db.executemany("INSERT INTO votes VALUES (?,?,?,?)", ballots)
        except BaseException:
            self.forget(run.id)
            raise

    def forget(self, run_id: str) -> None:
        """Delete the events of a run that was never recorded: an import that was cut short."""
        with self._write() as db:
            db.execute("DELETE FROM events WHERE run=:id AND :id NOT IN (SELECT id FROM runs)", {"id": run_id})

    def run(self, run_id: str) -> Run:
        """The run with this id. Raises `RunError` when there is none."""
        with self._connect() as db:
            row = db.execute("SELECT * FROM runs WHERE id=?", (_text(run_id),)).fetchone()
        if row is None:
            raise no_run(run_id)
        return schema.as_run(row)

    def runs(self, *, owner: str | None = None, states: tuple[str, ...] = STATES) -> list[Run]:
        """Runs in these states, newest first; only this owner's when one is named."""
        theirs, asked = ("", states) if owner is None else (" AND owner=?", (*states, owner))
        query = f"SELECT * FROM runs WHERE state IN ({schema.marks(states)}){theirs} ORDER BY created DESC, rowid DESC"
        with self._connect() as db:
            return [schema.as_run(row) for row in db.execute(query, asked)]

    def move(
        self,
        run_id: str,
        to: str,
        *,
        only_from: tuple[str, ...],
        attempt: int | None = None,
        most: Most = Most(),  # noqa: B008
        **fields: Any,
    ) -> bool:
        """Change a run's state, once: False when it is not in `only_from` (or not at `attempt`) any more.

        Two processes may try the same change; the database lets one of them win. `fields` are
        columns set in the same transaction.

        Raises:
            ValueError: no run may change like this (see `schema.CHANGES`); a mistake of ours.
            NotAllowed: it would change, but its owner, or its address, has `most` active runs already.
        """
        if illegal := [state for state in only_from if to not in CHANGES[state]]:
            raise ValueError(f"a run never goes from {illegal[0]} to {to}")
        places = schema.marks(only_from)
        names, values = schema.columns(fields)
        same = "" if attempt is None else " AND attempt=?"
        with self._write() as db:
            changed = db.execute(
                f"UPDATE runs SET state=?{names} WHERE id=? AND state IN ({places}){same}",
                (to, *values, run_id, *only_from, *([] if attempt is None else [attempt])),
            ).rowcount
            if changed:
                owner, address = db.execute("SELECT owner, address FROM runs WHERE id=?", (run_id,)).fetchone()
                limits.refuse_more(db, owner, address, most, itself=1)  # raising takes the change back
                if to == "queued":
                    limits.join(db, run_id)
                schema.append(db, run_id, State(state=to, code=fields.get("code"), reason=fields.get("reason")))
        return bool(changed)

    def ask(self, run_id: str, what: str, *, unless: tuple[str, ...] = (), attempt: int | None = None) -> bool:
        """Ask the worker of a run to ``stop``, ``pause`` or end for ``timeout``, `unless` it already was.

        One that waits hears it when it begins. False when the run has ended (or is not at `attempt`) by now.
        """
        asked = f"AND COALESCE(asked, '') NOT IN ({schema.marks(unless)})"
        with self._write() as db:
            changed = db.execute(
                f"UPDATE runs SET asked=? WHERE id=? AND state NOT IN ({schema.marks(ENDED)}) {asked}"
                " AND attempt=COALESCE(?, attempt)",
                (what, run_id, *ENDED, *unless, attempt),
            )
            return bool(changed.rowcount)

    def claim(self, limit: int, claimer: int, claimer_started: float, only: str | None = None) -> Run | None:
        """Take the next queued run into `running`, unless `limit` runs are running here already; None without any.

        Next is the run whose turn it is (`finetune.limits`), or the one that `only` names.
        """
        with self._write() as db:
            if db.execute("SELECT COUNT(*) FROM runs WHERE state='running' AND job IS NULL").fetchone()[0] >= limit:
                return None
            if (run_id := limits.next_run(db, only)) is None:
                return None
            db.execute(
                "UPDATE runs SET state='running', started=COALESCE(started, ?), attempt=attempt+1, pid=NULL,"
                " pid_started=NULL, claimer=?, claimer_started=?, turn=? WHERE id=?",
                (time.time(), claimer, claimer_started, limits.next_turn(db), run_id),
            )
            schema.append(db, run_id, State(state="running"))
        return self.run(run_id)

    def take(self, run_id: str, attempt: int, pid: int, pid_started: float) -> bool:
        """The worker of this attempt says who it is; False when the run has gone on without it."""
        with self._write() as db:
            changed = db.execute(
                "UPDATE runs SET pid=?, pid_started=? WHERE id=? AND state='running' AND attempt=? AND pid IS NULL",
                (pid, pid_started, run_id, attempt),
            )
            return bool(changed.rowcount)

    def heartbeat(self, run_id: str, attempt: int, worked: float, memory: int) -> bool:
        """The worker lives, worked so many seconds more, and uses `memory` bytes; False: the run is another's."""
        with self._write() as db:
            changed = db.execute(
                "UPDATE runs SET beat=beat+1, seconds=seconds+?, memory=? WHERE id=? AND state='running' AND attempt=?",
                (worked, memory, run_id, attempt),
            )
            return bool(changed.rowcount)

    def update(self, run_id: str, **fields: Any) -> None:
        """Set columns of a run without changing its state."""
        names, values = schema.columns(fields)
        with self._write() as db:
            db.execute(f"UPDATE runs SET {names.removeprefix(', ')} WHERE id=?", (*values, run_id))

    def record_split(self, run_id: str, split: Json, said: str) -> None:
        """Give a run that was started without one its split, once, and say so in its log."""
        with self._write() as db:
            unsaid = "UPDATE runs SET split=? WHERE id=? AND COALESCE(split, 'null')='null'"
            if db.execute(unsaid, (json.dumps(split), run_id)).rowcount:
                schema.append(db, run_id, Log(text=said))

    # Events

    def add_event(self, run_id: str, data: EventData, **fields: Any) -> int:
        """Append an event, and set columns of its run in the same transaction. Returns its seq."""
        names, values = schema.columns(fields)
        with self._write() as db:
            if fields:
                db.execute(f"UPDATE runs SET {names.removeprefix(', ')} WHERE id=?", (*values, run_id))
            return schema.append(db, run_id, data)

    def events(self, run_id: str, *, after: int = 0) -> list[Event]:
        """The events of a run with `seq` above `after`, in order."""
        with self._connect() as db:
            rows = db.execute("SELECT * FROM events WHERE run=? AND seq>? ORDER BY seq", (run_id, after))
            return [schema.as_event(row) for row in rows]

    def events_of(self, run_id: str, *kinds: str) -> list[Event]:
        """The events of a run that are of these kinds, in order: a short answer about a long run.

        Example:
            >>> [event.data["loss"] for event in store.events_of(run.id, "eval")]
            [1.7, 0.41]
        """
        places = schema.marks(kinds)
        with self._connect() as db:
            rows = db.execute(f"SELECT * FROM events WHERE run=? AND kind IN ({places}) ORDER BY seq", (run_id, *kinds))
            return [schema.as_event(row) for row in rows]

    # Votes

    def add_vote(self, run_id: str, owner: str, ballot: str, vote: Json) -> bool:
        """Keep a `finetune.chat.votes.Vote` about a run; False when this ballot was voted on already."""
        with self._write() as db:
            row = (ballot, run_id, owner, json.dumps(vote))
            return bool(db.execute("INSERT OR IGNORE INTO votes VALUES (?,?,?,?)", row).rowcount)

    def votes(self, run_id: str, owner: str) -> list[Json]:
        """An owner's votes about a run, in the order in which they were given."""
        with self._connect() as db:
            rows = db.execute("SELECT data FROM votes WHERE run=? AND owner=? ORDER BY rowid", (run_id, owner))
            return [json.loads(row["data"]) for row in rows]

    # Keeping house

    def rename(self, run_id: str, name: str) -> None:
        """Give a run another name."""
        self.update(run_id, name=_text(name))

    def delete_run(self, run_id: str) -> bool:
        """Delete a run and its events, together; False when it is not over (or gone), and nothing is deleted then.

        A worker of a run that is not over would write on; its owner stops it first.
        """
        places = schema.marks(DELETABLE)
        with self._write() as db:
            over = db.execute(f"SELECT 1 FROM runs WHERE id=? AND state IN ({places})", (run_id, *DELETABLE)).fetchone()
            if over:
                schema.delete_run(db, run_id)
        return bool(over)


def _text(given: str) -> str:
    """What a person typed, without the half characters that SQLite refuses."""
    return given.encode("utf-8", "replace").decode()


def no_dataset(dataset_id: str) -> RunError:
    """Said of a missing dataset, and in the same words of somebody else's."""
    return RunError("There is no such dataset.", where=_text(dataset_id), code="dataset_unknown")


def no_run(run_id: str) -> RunError:
    """Said of a missing run, and in the same words of somebody else's."""
    gone = "It may have been deleted: choose one from the list of runs."
    return RunError("There is no such run.", where=_text(run_id), fix=gone, code="run_unknown")
