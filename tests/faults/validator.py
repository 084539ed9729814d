"""A server's check of a job that is killed: ``python -m tests.faults.validator JOB POINT``.

`POINT` is ``recorded``, within the transaction that records the run, or ``started``, right after the run has begun.
"""

import os
import signal
import sqlite3
import sys
from typing import Any

from finetune import schema, settings, train
from finetune.api import validate
from finetune.ledger import Ledger
from finetune.schema import EventData
from finetune.store import Run, Store


def die(*_: Any) -> None:
    """As a power cut does."""
    os.kill(os.getpid(), signal.SIGKILL)


def main(job_id: str, point: str) -> None:
    """Check the job, and die there."""
    if point == "recorded":
        append = schema.append

        def recorded(db: sqlite3.Connection, run_id: str, data: EventData) -> int:
            append(db, run_id, data)
            die()
            raise AssertionError

        schema.append = recorded
    else:
        start = train.start

        def started(*arguments: Any, **keys: Any) -> Run:
            run = start(*arguments, **keys)
            die()
            return run

        train.start = started
    ledger = Ledger(Store(settings.read().home))
    job = ledger.job("local", job_id)
    assert job
    validate.begin(ledger, job)


if __name__ == "__main__":
    main(*sys.argv[1:])
