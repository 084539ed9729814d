"""What is kept no longer on a shared server: runs some days after they ended, and data that no run uses.

The supervisor of a server deletes it, and `clean` on the command line. What waits or runs, and the data it is trained
on, always stays.

Example:
    >>> [one.id for one in old_things(store, Keep(data_hours=24, runs_hours=72))]
    ['r1234abcd', 'd1234abcd']
"""

import contextlib
import os
import shutil
import time
from dataclasses import dataclass
from pathlib import Path

from finetune import quota, settings
from finetune.errors import FinetuneError
from finetune.schema import LOCAL
from finetune.store import DELETABLE, DatasetRecord, Run, Store
from finetune.train.manage import delete, delete_dataset
from finetune.train.start import run_folder

HOUR = 3600.0


@dataclass(frozen=True)
class Keep:
    """For how many hours things are kept; None: until somebody deletes them."""

    data_hours: float | None = None
    runs_hours: float | None = None


@dataclass(frozen=True)
class Old:
    """A ``run``, ``dataset`` or ``file`` that is kept no longer. `age` in hours since it was last of use."""

    kind: str
    id: str
    name: str
    owner: str
    bytes: int
    age: float


def kept_here() -> Keep:
    """How long this server keeps things."""
    where = settings.read()
    return Keep(where.keep_data_hours, where.keep_runs_hours)


def old_things(store: Store, keep: Keep, now: float | None = None) -> list[Old]:
    """What is kept no longer: runs first, then the data that none of the others uses, then files of the API."""
    now = time.time() if now is None else now
    runs, records = store.runs(), {record.id: record for record in store.datasets()}
    ages = {run.id: (now - _last(store, run, records.get(run.dataset))) / HOUR for run in runs}
    old = [run for run in runs if run.state in DELETABLE and _over(ages[run.id], keep.runs_hours)]
    gone = {run.id for run in old}
    used = {run.dataset for run in runs if run.id not in gone}
    found = [Old("run", run.id, run.name, run.owner, quota.size(run_folder(run.id)), ages[run.id]) for run in old]
    for record in records.values():
        age = (now - _changed(record)) / HOUR
        if record.id not in used and _over(age, keep.data_hours):
            found.append(Old("dataset", record.id, record.title, record.owner, quota.size(Path(record.folder)), age))
    return found + _old_files(store, keep, now)


def _over(age: float, hours: float | None) -> bool:
    return hours is not None and age > hours


def _last(store: Store, run: Run, record: DatasetRecord | None) -> float:
    """When something last happened to a run. One that was imported ended elsewhere, perhaps long ago."""
    with store.reading() as db:
        at = db.execute("SELECT MAX(at) FROM events WHERE run=?", (run.id,)).fetchone()[0] or 0.0
    return max(run.created, run.ended or 0.0, at, record.created if record else 0.0)


def _changed(record: DatasetRecord) -> float:
    """When a dataset was last brought or edited. Who brings the same again gets the record of the first time."""
    times = [record.created]
    with contextlib.suppress(OSError):
        times += [file.stat().st_mtime for file in os.scandir(record.folder) if file.is_file()]
    return max(times)


def _old_files(store: Store, keep: Keep, now: float) -> list[Old]:
    """Files of the API that no job of their owner is about to read."""
    waiting = "SELECT 1 FROM jobs WHERE jobs.owner=uploads.owner AND run IS NULL AND ended IS NULL"
    with store.reading() as db:
        rows = db.execute(f"SELECT * FROM uploads WHERE NOT EXISTS ({waiting})").fetchall()
    ages = [(row, (now - row["created"]) / HOUR) for row in rows]
    return [
        Old("file", row["id"], row["name"], row["owner"], row["bytes"], age)
        for row, age in ages
        if _over(age, keep.data_hours)
    ]


def remove(store: Store, old: Old) -> None:
    """Delete one of them, unless it is of use again by now."""
    with contextlib.suppress(FinetuneError):  # resumed, used by a new run, or deleted by its owner
        if old.kind == "run":
            delete(store, old.id)
        elif old.kind == "dataset":
            delete_dataset(store, old.id)
        else:
            with store.writing() as db:
                db.execute("DELETE FROM uploads WHERE id=?", (old.id,))
            shutil.rmtree(settings.read().home / "files" / old.id, ignore_errors=True)


def sweep(store: Store) -> list[Old]:
    """Delete what this server keeps no longer, and the jobs of which nothing is left; what was deleted.

    What the operator made, before or beside the server, is no visitor's: nothing of it goes by itself.
    """
    keep = kept_here()
    found = [old for old in old_things(store, keep) if old.owner != LOCAL]
    for old in found:
        remove(store, old)
    if keep.data_hours is not None:
        before = time.time() - HOUR * keep.data_hours
        with store.writing() as db:
            db.execute(
                "DELETE FROM jobs WHERE owner <> :owner AND (ended < :before"
                " OR created < :before AND run IS NOT NULL AND run NOT IN (SELECT id FROM runs))",
                {"before": before, "owner": LOCAL},
            )
    return found
