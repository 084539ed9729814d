"""What the store keeps of a run that a job trains: which job, and how much of its log has been read.

The job's own numbers of its events are kept with the events, in one transaction. So a log that is read again from
the beginning, by whoever goes on following it, adds nothing twice.
"""

import time
from typing import Any

from finetune.records import Count, Moment, Record
from finetune.schema import EventData, Log, State, append, columns
from finetune.store import ACTIVE, Run, Store


class Job(Record):
    """A job on Hugging Face, as the column `job` of its run has it.

    `seconds` is its hard time limit, `account` who pays for it, `repo` the private repository with all that goes
    there and comes back. `id` and `url` are empty until it was submitted, at `submitted`. `read` counts the events
    of its log that are in the record.
    """

    flavor: str
    seconds: Count
    account: str
    repo: str = ""
    id: str = ""
    url: str = ""
    submitted: Moment = 0.0
    read: Count = 0


def job_of(run: Run) -> Job:
    """The job of a run that has one.

    Example:
        >>> job_of(run).flavor
        't4-small'
    """
    return Job.model_validate(run.job)


def follow_alone(store: Store, run: Run, me: tuple[int, float]) -> bool:
    """Become the one process that follows this run, of which nobody living does; False if another was quicker."""
    with store.writing() as db:
        changed = db.execute(
            "UPDATE runs SET claimer=?, claimer_started=? WHERE id=? AND claimer IS ? AND claimer_started IS ?",
            (*me, run.id, run.claimer, run.claimer_started),
        )
        return bool(changed.rowcount)


def begin(store: Store, run: Run) -> bool:
    """The job has its machine: the run is running, in another attempt. False if it is not waiting any more."""
    with store.writing() as db:
        changed = db.execute(
            "UPDATE runs SET state='running', reason=NULL, started=COALESCE(started, ?), attempt=attempt+1, pid=NULL"
            " WHERE id=? AND state='queued'",
            (time.time(), run.id),
        ).rowcount
        if changed:
            append(db, run.id, State(state="running"))
    return bool(changed)


def add(store: Store, run: Run, number: int, data: EventData, **fields: Any) -> bool:
    """Add the event with this number in the job's own record, once, and set columns of the run with it.

    Example:
        >>> add(store, run, 7, Step(...), step=3), add(store, run, 7, Step(...), step=3)
        (True, False)
    """
    names, values = columns(fields)
    with store.writing() as db:
        changed = db.execute(
            f"UPDATE runs SET job=json_set(job, '$.read', ?){names}"
            " WHERE id=? AND state='running' AND attempt=? AND json_extract(job, '$.read') < ?",
            (number, *values, run.id, run.attempt, number),
        ).rowcount
        if changed:
            append(db, run.id, data)
    return bool(changed)


def beat(store: Store, run: Run, seconds: float, memory: int) -> None:
    """The job lives, and has worked for so many seconds in all; what is read again sets nothing back."""
    with store.writing() as db:
        db.execute(
            "UPDATE runs SET beat=beat+1, seconds=MAX(seconds, ?), memory=MAX(memory, ?)"
            " WHERE id=? AND state='running' AND attempt=?",
            (seconds, memory, run.id, run.attempt),
        )


def say(store: Store, run: Run, text: str | None) -> None:
    """What there is to say of a run that goes on: on its card, and in its log when it is something new."""
    if run.reason == text:
        return
    with store.writing() as db:
        places = ",".join("?" * len(ACTIVE))
        changed = db.execute(
            f"UPDATE runs SET reason=? WHERE id=? AND reason IS NOT ? AND state IN ({places})",
            (text, run.id, text, *ACTIVE),
        ).rowcount
        if changed and text:
            append(db, run.id, Log(text=text))
