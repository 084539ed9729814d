"""What a shared server keeps no longer, and what it never deletes."""

import os
import time
from pathlib import Path

import pytest

from finetune import data, settings, train
from finetune.ledger import Ledger, Upload
from finetune.store import DatasetRecord, Run, Store
from finetune.train import retention
from finetune.train.retention import Keep, old_things, sweep

OWNER = "a" * 32
HOUR = 3600.0


@pytest.fixture(autouse=True)
def shared(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FINETUNE_SHARED", "1")


@pytest.fixture
def record(store: Store, small_dataset: data.Dataset) -> DatasetRecord:
    return data.save_dataset(store, small_dataset, OWNER)


def begun(store: Store, record: DatasetRecord, state: str) -> Run:
    run = train.start(store, train.TrainConfig(), record, OWNER)
    store.update(run.id, state=state, ended=time.time() if state in ("succeeded", "failed", "cancelled") else None)
    return store.run(run.id)


def grow_old(store: Store, hours: float) -> None:
    """Let everything have happened so many hours ago."""
    with store.writing() as db:
        for table, columns in (
            ("datasets", ("created",)),
            ("runs", ("created", "started", "ended")),
            ("events", ("at",)),
            ("uploads", ("created",)),
            ("jobs", ("created", "ended")),
        ):
            for column in columns:
                db.execute(f"UPDATE {table} SET {column}={column}-?", (hours * HOUR,))
    for file in settings.read().datasets.rglob("*"):
        then = file.stat().st_mtime - hours * HOUR
        os.utime(file, (then, then))


def test_what_the_operator_made_at_home_outlives_a_shared_evening(store: Store, small_dataset: data.Dataset) -> None:
    """Whoever holds a workshop on a home with months of own work finds all of it again."""
    record = data.save_dataset(store, small_dataset)
    run = train.start(store, train.TrainConfig(), record)
    store.update(run.id, state="succeeded", ended=time.time())
    unused = data.save_dataset(store, data.load(data.samples()[0].path))
    grow_old(store, 10_000)
    assert sweep(store) == []
    assert store.run(run.id).state == "succeeded"
    assert {one.id for one in store.datasets()} == {record.id, unused.id}


def test_data_goes_after_a_day_and_a_run_after_three(store: Store, record: DatasetRecord) -> None:
    run = begun(store, record, "succeeded")
    grow_old(store, 71)
    assert sweep(store) == [], "the run is evaluated on its rows"
    grow_old(store, 2)
    gone = sweep(store)
    assert [(one.kind, one.id) for one in gone] == [("run", run.id), ("dataset", record.id)]
    assert not train.run_folder(run.id).exists()
    assert not Path(record.folder).exists()
    assert (store.runs(), store.datasets()) == ([], [])


def test_data_without_a_run_goes_after_a_day(store: Store, record: DatasetRecord) -> None:
    grow_old(store, 23)
    assert sweep(store) == []
    grow_old(store, 2)
    assert [one.id for one in sweep(store)] == [record.id]


@pytest.mark.parametrize("state", ["validating", "queued", "running"])
def test_what_waits_or_runs_stays_with_its_data(store: Store, record: DatasetRecord, state: str) -> None:
    begun(store, record, state)
    grow_old(store, 1000)
    assert sweep(store) == []
    assert Path(record.folder).is_dir()


def test_a_paused_run_goes_three_days_after_it_was_paused(store: Store, record: DatasetRecord) -> None:
    run = begun(store, record, "queued")
    grow_old(store, 100)
    train.pause(store, run.id)
    assert sweep(store) == []
    grow_old(store, 73)
    assert [one.id for one in sweep(store)] == [run.id, record.id]


def test_what_is_brought_again_or_edited_is_new(
    store: Store, record: DatasetRecord, small_dataset: data.Dataset
) -> None:
    grow_old(store, 30)
    assert data.save_dataset(store, small_dataset, OWNER) == store.dataset(record.id)
    assert sweep(store) == []
    grow_old(store, 30)
    (Path(record.folder) / "draft.jsonl").write_text("")
    assert sweep(store) == []


def test_a_run_that_was_resumed_meanwhile_is_not_deleted(store: Store, record: DatasetRecord) -> None:
    run = begun(store, record, "failed")
    grow_old(store, 100)
    old = old_things(store, retention.kept_here())
    train.resume(store, run.id)
    for one in old:
        retention.remove(store, one)
    assert store.run(run.id).state == "queued"
    assert store.dataset(record.id)


def test_files_and_jobs_of_the_api_go_too_unless_a_job_is_about_to_read_them(store: Store) -> None:
    ledger = Ledger(store)
    for owner, file_id in ((OWNER, "file-1"), ("b" * 32, "file-2")):
        ledger.add_upload(Upload(file_id, owner, "rows.jsonl", "fine-tune", 3, time.time()))
        folder = settings.read().home / "files" / file_id
        folder.mkdir(parents=True)
        (folder / "rows.jsonl").write_bytes(b"abc")
    waiting = ledger.add_job(OWNER, {}, [])
    failed = ledger.add_job("b" * 32, {}, [])
    ledger.say(failed.id, "It failed.", ended=time.time())
    grow_old(store, 25)
    assert [one.id for one in sweep(store)] == ["file-2"]
    assert sorted(file.name for file in (settings.read().home / "files").iterdir()) == ["file-1"]
    assert ledger.job(OWNER, waiting.id)
    assert ledger.job("b" * 32, failed.id) is None


def test_at_home_nothing_goes(store: Store, record: DatasetRecord, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FINETUNE_SHARED", "0")
    begun(store, record, "succeeded")
    grow_old(store, 10_000)
    assert sweep(store) == []
    assert len(old_things(store, Keep(1, 1))) == 2


def test_the_supervisor_of_a_server_sweeps(
    store: Store, record: DatasetRecord, monkeypatch: pytest.MonkeyPatch
) -> None:
    grow_old(store, 25)
    supervisor = train.Supervisor(store)
    supervisor.start_thread()
    give_up = time.monotonic() + 20
    while store.datasets() and time.monotonic() < give_up:
        time.sleep(0.1)
    supervisor.close()
    assert store.datasets() == []
