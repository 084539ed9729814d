"""Renaming and deleting runs; a deletion that is cut short is finished later, and takes nothing else along."""

import shutil
from pathlib import Path

import pytest

from finetune import data, train
from finetune.errors import ConfigError, NotAllowed, RunError
from finetune.store import Facts, Store
from finetune.train import manage


def run_with_files(store: Store, state: str = "succeeded") -> tuple[str, Path]:
    dataset = store.add_dataset(owner="local", name="d", folder="f", facts=Facts())
    run = store.add_run(owner="local", name="n", dataset=dataset.id, config={})
    store.update(run.id, state=state)
    folder = train.run_folder(run.id)
    (folder / "adapter").mkdir(parents=True)
    (folder / "adapter" / "adapter_model.safetensors").write_text("weights")
    return run.id, folder


def test_a_name_is_one_line_within_bounds(store: Store) -> None:
    run, _ = run_with_files(store)
    assert manage.rename(store, run, " a\n new\tname ") == "a new name" == store.run(run).name
    for wrong in ("", " \n", "x" * (manage.LONGEST_NAME + 1)):
        with pytest.raises(ConfigError, match="1 to 120"):
            manage.rename(store, run, wrong)
    assert store.run(run).name == "a new name"


def test_deleting_takes_record_events_and_files_and_nothing_else(store: Store) -> None:
    run, folder = run_with_files(store)
    other, kept = run_with_files(store)
    manage.delete(store, run)
    assert [one.id for one in store.runs()] == [other]
    assert store.events(run) == []
    assert [path.name for path in folder.parent.iterdir()] == [kept.name]
    assert (kept / "adapter" / "adapter_model.safetensors").exists()
    with pytest.raises(RunError, match="no such run"):
        manage.delete(store, run)


@pytest.mark.parametrize("state", ["validating", "queued", "running"])
def test_a_run_that_is_not_over_stays(store: Store, state: str) -> None:
    run, folder = run_with_files(store, state)
    with pytest.raises(RunError, match=f"The run is {state}. Stop it first.") as refused:
        manage.delete(store, run)
    assert refused.value.code == "run_not_over"
    assert store.run(run).state == state
    assert [path.name for path in folder.iterdir()] == ["adapter"]


def test_a_deletion_cut_short_is_finished_by_the_next(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    run, folder = run_with_files(store)
    with monkeypatch.context() as patch:
        patch.setattr(manage, "clean", lambda store: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            manage.delete(store, run)
    assert (store.runs(), folder.is_dir()) == ([], True)
    second, folder_too = run_with_files(store)
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "rmtree", lambda *args, **named: None)
        manage.delete(store, second)
    assert list(folder.parent.iterdir())
    manage.clean(store)
    assert list(folder.parent.iterdir()) == []
    assert not folder_too.exists()


def test_a_lost_record_takes_no_adapters_along(store: Store, home: Path) -> None:
    _, folder = run_with_files(store)
    for file in home.glob("finetune.db*"):
        file.unlink()
    manage.clean(Store(home))
    assert (folder / "adapter" / "adapter_model.safetensors").exists()


def test_deleting_without_a_folder(store: Store) -> None:
    run, folder = run_with_files(store)
    shutil.rmtree(folder)
    manage.delete(store, run)
    assert store.runs() == []


def test_one_visitor_of_a_shared_server_has_a_few_runs_at_a_time(
    store: Store, small_dataset: data.Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FINETUNE_SHARED", "1")
    mine, other = (data.save_dataset(store, small_dataset, owner) for owner in "ab")
    runs = [train.start(store, train.TrainConfig(), mine, "a") for _ in range(3)]
    with pytest.raises(NotAllowed, match="3 runs waiting or running"):
        train.start(store, train.TrainConfig(), mine, "a")
    train.start(store, train.TrainConfig(), other, "b")
    train.stop(store, runs[0].id)
    train.start(store, train.TrainConfig(), mine, "a")
