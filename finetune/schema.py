"""The tables of the record, and their rows as Python sees them."""

import json
import secrets
import sqlite3
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict

from finetune.records import Count, Json, Name, Number, Record, Source

CHANGES: dict[str, tuple[str, ...]] = {
    "validating": ("queued", "cancelled"),
    "queued": ("running", "paused", "cancelled"),
    "running": ("queued", "paused", "succeeded", "failed", "cancelled"),
    "paused": ("queued", "cancelled"),
    "succeeded": (),
    "failed": ("queued",),
    "cancelled": ("queued",),
}
"""Every state of a run, and those that may follow it. `Store.move` refuses all other changes."""

STATES = tuple(CHANGES)
ENDED = ("succeeded", "failed", "cancelled")
RESUMABLE = tuple(state for state, after in CHANGES.items() if "queued" in after and state in (*ENDED, "paused"))
DELETABLE = (*ENDED, "paused")
"""States without a worker."""

ACTIVE = ("validating", "queued", "running")
"""States of runs that have a worker, or wait for one."""

LOCAL = "local"
"""The owner of what is no visitor's: of everything at home, and of what the operator of a shared server made."""


class Result(Record):
    """The figures that a run ended with.

    `source` says where its base was found (`models.find`), `bf16` whether gradients were rounded to that
    (`train.precision`): a later attempt does as the first. `fitting_rate` is the learning rate that fits the model
    (`train.rate`), which is used where none was set.

    `base_eval_loss` is the held-out loss of the base alone. A run that continues another did not measure that: it
    began with the other's adapter, whose loss is `start_eval_loss`.
    """

    source: Source | None = None
    train_loss: Number | None = None
    eval_loss: Number | None = None
    base_eval_loss: Number | None = None
    start_eval_loss: Number | None = None
    train_seconds: Number | None = None
    tokens_per_second: Number | None = None
    adapter_step: Count | None = None
    bf16: bool | None = None
    fitting_rate: Number | None = None


class Ancestor(Record):
    """A run that another continues, as it was called then: it may be deleted, or have stayed on another machine.

    `source` is the copy of the base it was trained on. `rows`: the rows it was trained on are kept with whoever
    continues it (`train.lineage`), so that none of them is taken for an unseen one; False where they were not here.
    """

    run: Name
    name: Name
    data: Name
    source: Source | None = None
    rows: bool = True


class Facts(BaseModel):
    """What was counted in a dataset, and how it was brought. Fields of a later version are left alone.

    `kind` is what its rows teach (`data.Example.kind`), which decides how a run is trained on them.

    `counted` is what a bundle says of rows that were counted elsewhere; they may have `stayed` there.
    `parts` are the files of a mix, with their shares (`data.mix`).
    `edited` counts what the last edits of a version did (`data.edits.Counts`).
    """

    model_config = ConfigDict(frozen=True)

    format: str | None = None
    kind: Literal["answers", "pairs", "ratings"] = "answers"
    rows: int | None = None
    accepted: int | None = None
    system: str | None = None
    thinks: bool = False
    applied: list[str] = []
    mapping: Json | None = None
    fixed_with: Json = {}
    train_file: str | None = None
    validation_file: str | None = None
    parts: list[Json] = []
    counted: Json = {}
    stayed: bool = False
    edited: Json = {}


@dataclass(frozen=True)
class DatasetRecord:
    """An uploaded dataset: `folder` holds its examples, `facts` what was counted in them.

    Each fix and each round of edits makes another: a `version` of the one it was made from, its `parent`. All
    versions have the `family` of the first, which is the first one's id (None in that one itself). `author` is the
    name of a visitor who was signed in when it was made.

    Example:
        >>> record.version, record.title
        (2, 'tickets v2')
    """

    id: str
    owner: str
    name: str
    created: float
    folder: str
    facts: Facts
    parent: str | None = None
    family: str | None = None
    version: int = 1
    author: str = ""

    @property
    def title(self) -> str:
        """The name, with the version of one that was changed."""
        return self.name if self.version == 1 else f"{self.name} v{self.version}"


@dataclass(frozen=True)
class Run:
    """One fine-tune. `created`, `started` and `ended` are Unix seconds; `code` and `reason` say why it ended.

    `asked` is ``stop``, ``pause`` or ``timeout`` while a worker is to hear it. `attempt` counts worker processes,
    `tries` those that died without getting any further. The worker counts `beat` up while it lives,
    and keeps `seconds` of work (by a clock that nobody can set) and `memory`, its peak in bytes, beside it.
    `claimer` is the supervisor that is starting a worker; `pid` the worker, once it has begun.
    `turn` is the server's count of turns when it last got one, `joined` when it last began to wait (`limits`).
    `address` marks the network address that it was started from (`visitor.mark`).
    `split` is the `data.RowSplit` it was started with; None for one started before splits were recorded.
    `lineage` are the runs it continues, the nearest first; () for one that began with the base alone.
    `sweep` are the minutes of one that looks for good settings (`train.sweep`); None for one that trains an adapter.
    `job` is the `jobs.Job` that trains it elsewhere; `claimer` then follows the job, and `reason` says how it goes.
    """

    id: str
    owner: str
    name: str
    dataset: str
    config: Json
    state: str
    created: float
    started: float | None
    ended: float | None
    step: int
    steps: int
    pid: int | None
    pid_started: float | None
    asked: str | None
    code: str | None
    reason: str | None
    result: Result
    attempt: int = 0
    tries: int = 0
    turn: int = 0
    claimer: int | None = None
    claimer_started: float | None = None
    beat: int = 0
    seconds: float = 0.0
    memory: int = 0
    split: Json | None = None
    lineage: tuple[Ancestor, ...] = ()
    sweep: float | None = None
    joined: int = 0
    address: str = ""
    job: Json | None = None

    @property
    def parent(self) -> str | None:
        """The id of the run it continues, which need not be here any more; None for one that continues none."""
        return self.lineage[0].run if self.lineage else None


@dataclass(frozen=True)
class Event:
    """One thing that happened in a run; `seq` counts 1, 2, 3 … without a gap."""

    run: str
    seq: int
    at: float
    kind: str
    data: Json


class EventData(Record):
    """What one kind of event holds."""

    kind: ClassVar[str]


class State(EventData):
    """The run's state changed."""

    kind: ClassVar[str] = "state"
    state: Literal[*STATES]  # type: ignore[valid-type]
    code: str | None = None
    reason: str | None = None


class Log(EventData):
    """A line for people."""

    kind: ClassVar[str] = "log"
    text: str


def as_dataset(row: sqlite3.Row) -> DatasetRecord:
    """A row of the table of datasets."""
    return DatasetRecord(**{**dict(row), "facts": Facts.model_validate_json(row["facts"])})


def as_run(row: sqlite3.Row) -> Run:
    """A row of the table of runs."""
    read = {name: json.loads(row[name] or "null") for name in ("config", "split", "lineage", "job")}
    read["lineage"] = tuple(Ancestor(**one) for one in read["lineage"] or ())
    return Run(**{**dict(row), **read, "result": Result.model_validate_json(row["result"])})


def as_event(row: sqlite3.Row) -> Event:
    """A row of the table of events."""
    return Event(**{**dict(row), "data": json.loads(row["data"])})


def columns(fields: Json) -> tuple[str, list[Any]]:
    """``, name=?`` for each field, and the values as SQLite keeps them."""
    names = "".join(f", {name}=?" for name in fields)
    return names, [_kept(value) for value in fields.values()]


def _kept(value: Any) -> Any:
    if isinstance(value, BaseModel):
        return value.model_dump_json(exclude_unset=True)
    if isinstance(value, tuple):
        return json.dumps([one.model_dump() for one in value])
    return json.dumps(value) if isinstance(value, dict) else value


def marks(values: Sequence[Any]) -> str:
    """A question mark for each value."""
    return ",".join("?" * len(values))


def new_id(prefix: str) -> str:
    """An id that nobody has: ``d`` a dataset's, ``r`` a run's."""
    return prefix + secrets.token_hex(4)


def insert(db: sqlite3.Connection, table: str, record: DatasetRecord | Run | Event) -> None:
    """Add a row to a table."""
    values = columns(vars(record))[1]
    db.execute(f"INSERT INTO {table} ({','.join(vars(record))}) VALUES ({marks(values)})", values)


def append(db: sqlite3.Connection, run_id: str, data: EventData) -> int:
    """Add an event behind the others of its run; returns its number."""
    row = db.execute("SELECT COALESCE(MAX(seq), 0) + 1 FROM events WHERE run=?", (run_id,)).fetchone()
    event = (run_id, row[0], time.time(), data.kind, data.model_dump_json())
    db.execute("INSERT INTO events VALUES (?,?,?,?,?)", event)
    return row[0]


def delete_run(db: sqlite3.Connection, run_id: str) -> None:
    """Delete a run with its events and votes. What its owner has waiting is not owed a turn the sooner for that."""
    db.execute(
        "UPDATE runs SET turn=MAX(turn, (SELECT turn FROM runs WHERE id=:id))"
        " WHERE state='queued' AND owner=(SELECT owner FROM runs WHERE id=:id)",
        {"id": run_id},
    )
    for table, key in (("events", "run"), ("votes", "run"), ("shown", "run"), ("runs", "id")):
        db.execute(f"DELETE FROM {table} WHERE {key}=?", (run_id,))
