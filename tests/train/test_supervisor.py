"""The supervisor's own rules, and the figures that a run ends with."""

import sys
from pathlib import Path

import pytest

from finetune import data, train
from finetune.store import Facts, Store
from tests.conftest import run_to_end
from tests.train.events import evaluation


def test_a_run_whose_files_cannot_be_written_holds_up_no_other(
    store: Store, tiny: Path, small_dataset: data.Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its disk is full: it still ends, and the next one starts."""
    record = data.save_dataset(store, small_dataset)
    config = train.TrainConfig.parse({"model": str(tiny), "max_steps": 1})
    dead, waiting = (train.start(store, config, record) for _ in range(2))
    store.claim(1, 2**22 + 1, 0.0, only=dead.id)  # by a process that there cannot be
    store.update(dead.id, asked="stop")

    def full(*arguments: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(sys.modules["finetune.train.supervisor"], "keep", full)
    supervisor = train.Supervisor(store)
    supervisor.tick()
    ended = store.run(dead.id)
    assert (ended.state, ended.code) == ("cancelled", "cancelled_by_owner")
    assert "could not be written (No space left on device)" in (ended.reason or "")
    assert run_to_end(store, waiting, supervisor=supervisor).state == "succeeded"


def test_a_run_that_was_accepted_and_not_queued_is_queued(
    store: Store, tiny: Path, small_dataset: data.Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.modules["finetune.train.supervisor"], "UNSURE", 0.0)
    record = data.save_dataset(store, small_dataset)
    config = train.TrainConfig.parse({"model": str(tiny)}).model_dump()
    run = store.add_run(owner="local", name="cut short", dataset=record.id, config=config)
    supervisor = train.Supervisor(store)
    supervisor.watch()
    supervisor.watch()
    assert store.run(run.id).state == "queued"


def test_the_loss_of_a_run_is_that_of_the_adapter_it_gives(store: Store) -> None:
    from finetune.train.progress import result

    record = store.add_dataset(owner="local", name="d", folder="f", facts=Facts())
    run = store.add_run(owner="local", name="n", dataset=record.id, config={})
    for step, loss in ((0, 1.7), (10, 0.4), (20, 0.9)):
        store.add_event(run.id, evaluation(step, loss))
    assert [result(store, run.id, step).eval_loss for step in (10, 20, 15, 0)] == [0.4, 0.9, None, None]
    assert result(store, run.id, 10).base_eval_loss == 1.7
