"""A server killed while it turns a job of the API into a run: the next one starts one run, never a second."""

import io
import os
import time
from pathlib import Path

import pytest

from finetune.api import files, validate
from finetune.api.validate import Validator
from finetune.errors import RunError
from finetune.ledger import Job, Ledger
from finetune.store import Store
from tests.api.conftest import lines
from tests.zygote import ROOT, Command, zygote


def job_of_a_dead_server(ledger: Ledger, tiny: Path) -> Job:
    """A job whose files are still to be checked, by a process that is gone."""
    rows = lines(20)
    kept = files.keep(ledger, files.new_upload("local", "rows.jsonl", "fine-tune", len(rows)), [io.BytesIO(rows)])
    return ledger.add_job("local", {"model": str(tiny), "training_file": kept.id, "seed": 1}, [])


def forget_who_checks(store: Store, job: Job) -> None:
    with store.writing() as db:
        db.execute("UPDATE jobs SET claimer=?, claimer_started=? WHERE id=?", (2**22 + 1, 0.0, job.id))


@pytest.mark.parametrize(("point", "left"), [("recorded", 0), ("started", 1)])
def test_a_job_has_one_run_wherever_its_server_dies(store: Store, tiny: Path, point: str, left: int) -> None:
    ledger = Ledger(store)
    job = job_of_a_dead_server(ledger, tiny)
    command = Command(
        ["-m", "tests.faults.validator", job.id, point], dict(os.environ), str(ROOT), os.devnull, os.devnull
    )
    assert zygote().fork(command).wait(60) not in (0, None), "it was killed"
    assert len(store.runs()) == left
    forget_who_checks(store, job)
    Validator(ledger).go_on()
    until = time.monotonic() + 30
    while (now := ledger.job("local", job.id)) and now.run is None:
        assert time.monotonic() < until, now
        time.sleep(0.05)
    assert now
    (run,) = store.runs()
    assert now.run == run.id
    assert [text for _, _, text in now.said][-1].startswith("Files validated")
    assert ledger.unchecked() == []


def test_a_job_cancelled_while_its_files_are_checked_has_no_run(store: Store, tiny: Path) -> None:
    ledger = Ledger(store)
    job = job_of_a_dead_server(ledger, tiny)
    assert ledger.say(job.id, "Job cancelled", ended=time.time())
    with pytest.raises(RunError, match="ended while its files"):
        validate.begin(ledger, job)
    assert store.runs() == []
