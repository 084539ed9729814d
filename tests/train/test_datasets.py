"""Deleting datasets: record and files, never those that somebody else needs, whole or finished later."""

import contextlib
import json
import os
import shutil
import threading
from pathlib import Path

import pytest

from finetune import data, evaluate, settings, train
from finetune.data import library as kept
from finetune.errors import DataError, RunError
from finetune.store import DatasetRecord, Facts, Run, Store
from finetune.train import manage


def rows(place: Path, count: int = 20, name: str = "sums") -> data.Dataset:
    pairs = [{"prompt": f"What is {i} plus {i}?", "completion": f"It is {2 * i}."} for i in range(count)]
    path = place / f"{name}.jsonl"
    path.write_text("\n".join(map(json.dumps, pairs)), encoding="utf-8")
    return data.load(path)


@pytest.fixture
def record(store: Store, tmp_path: Path) -> DatasetRecord:
    return data.save_dataset(store, rows(tmp_path))


def used(store: Store, record: DatasetRecord, state: str = "succeeded") -> Run:
    run = store.add_run(owner=record.owner, name="first run", dataset=record.id, config={})
    store.update(run.id, state=state)
    (train.run_folder(run.id) / "adapter").mkdir(parents=True)
    return store.run(run.id)


def left() -> list[str]:
    folder = settings.read().datasets
    return sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []


def test_record_files_and_evaluations_go(store: Store, record: DatasetRecord, tmp_path: Path) -> None:
    other = data.save_dataset(store, rows(tmp_path, 30, "others"))
    task = evaluate.of_dataset("m/m", record)
    task.folder.mkdir(parents=True)
    (task.folder / "answers.jsonl").write_text("{}")
    train.delete_dataset(store, record.id)
    assert store.datasets() == [other]
    assert left() == [Path(other.folder).name]
    with pytest.raises(RunError, match="no such dataset"):
        train.delete_dataset(store, record.id)


def test_the_same_data_can_be_brought_again(store: Store, record: DatasetRecord, tmp_path: Path) -> None:
    train.delete_dataset(store, record.id)
    again = data.save_dataset(store, rows(tmp_path))
    assert (again.folder, len(data.reopen(again).examples)) == (record.folder, 20)
    assert again.id != record.id
    manage.clean(store)
    assert len(data.reopen(again).examples) == 20


def test_a_dataset_that_runs_use_stays(store: Store, record: DatasetRecord) -> None:
    runs = [used(store, record) for _ in range(7)]
    with pytest.raises(RunError, match=r"7 runs use it: first run \(r\w+\), .* and 2 more") as told:
        train.delete_dataset(store, record.id)
    assert told.value.code == "dataset_in_use"
    assert all(run.id in str(told.value) for run in runs[-5:])
    assert len(data.reopen(record).examples) == 20
    assert not (Path(record.folder) / manage.DELETED).exists()


def test_with_its_runs(store: Store, record: DatasetRecord, tmp_path: Path) -> None:
    other = used(store, data.save_dataset(store, rows(tmp_path, 30, "others")))
    for state in ("succeeded", "failed", "cancelled"):
        used(store, record, state)
    train.delete_dataset(store, record.id, with_runs=True)
    assert [run.id for run in store.runs()] == [other.id]
    assert [path.name for path in settings.read().runs.iterdir()] == [other.id]
    assert len(left()) == 1


@pytest.mark.parametrize("state", ["validating", "queued", "running", "paused"])
def test_a_run_that_has_not_ended_keeps_all(store: Store, record: DatasetRecord, state: str) -> None:
    ended, going = used(store, record), used(store, record, state)
    with pytest.raises(RunError, match=rf"first run \({going.id}\) is {state}.* Stop it") as told:
        train.delete_dataset(store, record.id, with_runs=True)
    assert told.value.code == "run_not_over"
    assert {run.id for run in store.runs()} == {ended.id, going.id}
    assert not any((folder / manage.DELETED).exists() for folder in settings.read().runs.iterdir())
    manage.clean(store)
    assert len(data.reopen(record).examples) == 20


def test_two_records_may_share_a_folder(store: Store, record: DatasetRecord) -> None:
    twin = store.add_dataset(owner="b", name="twin", folder=record.folder, facts=record.facts)
    train.delete_dataset(store, record.id)
    assert len(data.reopen(twin).examples) == 20
    manage.clean(store)
    assert len(data.reopen(twin).examples) == 20
    train.delete_dataset(store, twin.id)
    assert left() == []


@pytest.mark.parametrize(
    "where", ["elsewhere", "elsewhere/..", "../elsewhere", "", "datasets", "datasets/..", "datasets/a/b"]
)
def test_no_file_outside_is_touched(store: Store, home: Path, where: str) -> None:
    """A record may come from an old home, or from somebody who wrote into the database."""
    for name in ("elsewhere", "datasets/a/b"):
        (home / name).mkdir(parents=True)
        (home / name / "precious").write_text("x")
    found = store.add_dataset(owner="local", name="d", folder=f"{home}/{where}", facts=Facts())
    train.delete_dataset(store, found.id)
    assert store.datasets() == []
    files = sorted(str(path.relative_to(home)) for path in home.rglob("*") if "db" not in path.name and path.is_file())
    assert files == ["datasets/a/b/precious", "elsewhere/precious"]


def test_a_link_goes_and_what_it_leads_to_stays(store: Store, home: Path, tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("x")
    (home / "datasets").mkdir()
    (home / "datasets" / "link").symlink_to(tmp_path)
    found = store.add_dataset(owner="local", name="d", folder=str(home / "datasets" / "link"), facts=Facts())
    train.delete_dataset(store, found.id)
    assert [path.name for path in tmp_path.iterdir()] == ["precious"]
    assert left() == []


@pytest.mark.parametrize("moment", ["before the record", "before the move", "before the files"])
def test_a_deletion_cut_short_is_whole_or_finished_later(
    store: Store, record: DatasetRecord, tmp_path: Path, moment: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    place = {
        "before the record": (store, "delete_dataset"),
        "before the move": (os, "replace"),
        "before the files": (shutil, "rmtree"),
    }[moment]
    with monkeypatch.context() as patch:
        patch.setattr(*place, killed)
        with pytest.raises(KeyboardInterrupt):
            train.delete_dataset(store, record.id)
    if moment == "before the record":
        manage.clean(store)
        assert len(data.reopen(store.dataset(record.id)).examples) == 20
        return
    assert store.datasets() == []
    assert left()
    manage.clean(store)
    assert left() == []
    assert len(data.reopen(data.save_dataset(store, rows(tmp_path))).examples) == 20


def test_what_is_brought_again_between_is_not_taken_along(
    store: Store, record: DatasetRecord, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed after the record, brought again, cleaned: the mark of the deletion is still in the folder."""
    with monkeypatch.context() as patch:
        patch.setattr(manage, "_put_aside", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            train.delete_dataset(store, record.id)
    again = data.save_dataset(store, rows(tmp_path))
    manage.clean(store)
    assert len(data.reopen(again).examples) == 20


def test_keeping_what_is_deleted_at_the_same_moment_keeps_it_whole(
    store: Store, record: DatasetRecord, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The files are laid into the old folder, which the deletion takes away before the record is made."""
    keep, done = store.add_dataset, []

    def late(**given: object) -> DatasetRecord:
        if not done:
            done.append(train.delete_dataset(store, record.id))
        return keep(**given)  # type: ignore[arg-type]

    monkeypatch.setattr(store, "add_dataset", late)
    again = kept.keep_dataset(store, rows(tmp_path))
    assert len(data.reopen(again).examples) == 20


def test_many_hands_at_once_leave_nothing_half(store: Store, tmp_path: Path) -> None:
    dataset = rows(tmp_path)
    ready = threading.Barrier(4)

    def keep() -> None:
        ready.wait()
        for _ in range(15):
            data.save_dataset(store, dataset)

    def delete() -> None:
        ready.wait()
        for _ in range(40):
            for record in store.datasets():
                with contextlib.suppress(RunError):  # the other was quicker
                    train.delete_dataset(store, record.id)

    threads = [threading.Thread(target=work) for work in (keep, keep, delete, delete)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for record in store.datasets():
        assert len(data.reopen(record).examples) == 20
        train.delete_dataset(store, record.id)
    assert left() == []


def test_a_lost_record_takes_no_data_along(home: Path, record: DatasetRecord) -> None:
    for file in home.glob("finetune.db*"):
        file.unlink()
    manage.clean(Store(home))
    assert (Path(record.folder) / "train.jsonl").exists()


def test_an_evaluation_under_way_brings_nothing_back(store: Store, record: DatasetRecord) -> None:
    """Its report quotes the rows: they would stay for ever, in a folder that no record knows."""
    from finetune.evaluate.measure import answers_of

    task = evaluate.of_dataset("m/m", record)
    with answers_of(task) as file:
        train.delete_dataset(store, record.id)
        file.write("{}\n")
    with pytest.raises(DataError, match="was deleted"), answers_of(task):
        pass
    with pytest.raises(DataError, match="was deleted"):
        task.make_folder()  # as for the report
    assert left() == []


def test_nor_does_one_of_a_run_that_is_deleted(store: Store, record: DatasetRecord, tmp_path: Path) -> None:
    from finetune.evaluate.measure import answers_of

    run = used(store, record)
    store.update(run.id, config=train.TrainConfig().model_dump())
    run, other = store.run(run.id), tmp_path / "other.jsonl"
    other.write_text(json.dumps({"prompt": "Why?", "completion": "So."}))
    tasks = [evaluate.of_run(run, store), evaluate.of_run(run, store, held_out=other)]
    for task in tasks:
        with answers_of(task):
            assert task.folder.is_dir()
    train.delete(store, run.id)
    for task in tasks:
        with pytest.raises(DataError, match="was deleted"), answers_of(task):
            pass
    assert list(settings.read().runs.iterdir()) == []
