"""What a visitor of a shared server may have of it: runs at a time, and minutes for each."""

import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from finetune import data, settings, train
from finetune.errors import ConfigError, NotAllowed, RunError
from finetune.store import ACTIVE, DatasetRecord, Run, Store
from tests.faults.conftest import Trial


@pytest.fixture
def trial(store: Store, tiny: Path, small_dataset: data.Dataset, monkeypatch: pytest.MonkeyPatch) -> Trial:
    return Trial(store, tiny, small_dataset, monkeypatch)


@pytest.fixture
def mine(store: Store, small_dataset: data.Dataset, monkeypatch: pytest.MonkeyPatch) -> DatasetRecord:
    monkeypatch.setenv("FINETUNE_SHARED", "1")
    return data.save_dataset(store, small_dataset, "a")


def begun(store: Store, record: DatasetRecord, count: int = 1) -> list[str]:
    return [train.start(store, train.TrainConfig(), record, "a").id for _ in range(count)]


def active(store: Store) -> int:
    return len(store.runs(owner="a", states=ACTIVE))


# Runs at a time


def test_pausing_and_resuming_leads_round_no_limit(store: Store, mine: DatasetRecord) -> None:
    """As found: three begun and paused, five times over, then all fifteen resumed."""
    paused = []
    for _ in range(5):
        three = begun(store, mine, 3)
        for run in three:
            train.pause(store, run)
        paused += three
    for run in paused[:3]:
        train.resume(store, run)
    for run in paused[3:]:
        with pytest.raises(NotAllowed, match="already have 3 runs waiting or running"):
            train.resume(store, run)
        assert store.run(run).state == "paused"
    assert active(store) == 3


@pytest.mark.parametrize("state", ["failed", "cancelled"])
def test_what_ended_counts_when_it_is_resumed(store: Store, mine: DatasetRecord, state: str) -> None:
    ended = begun(store, mine)[0]
    store.update(ended, state=state, code="x", reason="It ended.")
    others = begun(store, mine, 3)
    before = store.events(ended)
    with pytest.raises(NotAllowed):
        train.resume(store, ended)
    assert (store.run(ended).state, store.run(ended).reason) == (state, "It ended.")
    assert store.events(ended) == before  # not even said to have moved
    train.stop(store, others[0])
    train.resume(store, ended)
    assert active(store) == 3


def test_others_and_those_at_home_are_not_counted(
    store: Store, mine: DatasetRecord, small_dataset: data.Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    paused = begun(store, mine)[0]
    train.pause(store, paused)
    theirs = data.save_dataset(store, small_dataset, "b")
    for _ in range(3):
        train.start(store, train.TrainConfig(), theirs, "b")
    train.resume(store, paused)
    monkeypatch.setenv("FINETUNE_SHARED", "0")
    begun(store, mine, 5)
    assert active(store) == 6


def at_once(calls: list[Callable[[], object]]) -> int:
    """How many of these calls went through, all made at the same moment."""
    ready, done = threading.Barrier(len(calls)), []

    def call(one: Callable[[], object]) -> None:
        ready.wait()
        try:
            one()
            done.append(one)
        except NotAllowed:
            pass

    threads = [threading.Thread(target=call, args=(one,)) for one in calls]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return len(done)


def test_of_many_at_once_no_more_pass_than_there_is_room_for(store: Store, mine: DatasetRecord) -> None:
    paused = begun(store, mine, 3)
    for run in paused:
        train.pause(store, run)
    begun(store, mine, 2)
    resumes = [lambda run=run: train.resume(store, run) for run in paused]
    starts = [lambda: train.start(store, train.TrainConfig(), mine, "a")] * 5
    assert at_once([*resumes, *starts]) == 1
    assert active(store) == 3


def test_a_run_cannot_begin_on_data_that_was_deleted(store: Store, mine: DatasetRecord) -> None:
    with store._write() as db:
        db.execute("DELETE FROM datasets")
    with pytest.raises(RunError, match="no such dataset") as told:
        train.start(store, train.TrainConfig(), mine, "a")
    assert told.value.code == "dataset_unknown"
    assert store.runs() == []


# Minutes


def test_the_limit_is_a_number_above_0(monkeypatch: pytest.MonkeyPatch) -> None:
    assert settings.read().max_minutes is None
    monkeypatch.setenv("FINETUNE_SHARED", "1")
    assert settings.read().max_minutes == 30
    for text, minutes in (("0.1", 0.1), ("45", 45), (" 2e3 ", 2000)):
        monkeypatch.setenv("FINETUNE_MAX_MINUTES", text)
        assert settings.read().max_minutes == minutes
    for wrong in ("0", "-1", "nan", "inf", "soon", "0,5"):
        monkeypatch.setenv("FINETUNE_MAX_MINUTES", wrong)
        with pytest.raises(ConfigError, match="FINETUNE_MAX_MINUTES: .* is not a number above 0"):
            settings.read()


def kept_step(run: Run) -> int:
    assert (train.adapter_folder(run.id) / "adapter_model.safetensors").is_file()
    return run.result.adapter_step


def test_a_run_ends_after_its_minutes_before_its_first_checkpoint(
    trial: Trial, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FINETUNE_MAX_MINUTES", "0.1")
    run = trial.end(trial.begin(max_steps=100_000, eval_every=50_000))
    assert (run.state, run.code, run.asked) == ("cancelled", "timed_out", None)
    assert (
        run.reason == f"Stopped at step {run.step} after 0.1 minutes, the limit of this server; the adapter was kept."
    )
    assert kept_step(run) == run.step > 0
    assert run.seconds >= 6
    trial.whole(run)
    with pytest.raises(RunError, match=r"after 0.1 minutes.*Download its adapter or a bundle.*your own machine"):
        train.resume(trial.store, run.id)
    monkeypatch.setenv("FINETUNE_MAX_MINUTES", "5")
    train.resume(trial.store, run.id)  # the owner of the server may give it more


def test_a_run_that_is_late_before_its_first_step_keeps_an_adapter_all_the_same(
    trial: Trial, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Attempts add up: it had used its minutes when this one began."""
    monkeypatch.setenv("FINETUNE_MAX_MINUTES", "1")
    run = trial.begin(max_steps=100_000)
    trial.store.update(run.id, seconds=61.0)
    run = trial.end(run)
    assert (run.code, kept_step(run)) == ("timed_out", 1)


def test_a_worker_that_does_not_hear_of_the_limit_is_ended(trial: Trial, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules["finetune.train.supervisor"], "PATIENCE", 1.0)
    trial.fault(deaf=15)
    run = trial.until(trial.begin(max_steps=100_000, save_every=20, eval_every=1000), lambda now: now.step > 25)
    monkeypatch.setenv("FINETUNE_MAX_MINUTES", "0.01")
    run = trial.end(run)
    assert (run.state, run.code) == ("cancelled", "timed_out")
    assert kept_step(run) >= 20
    assert run.reason == (
        f"Stopped after 0.01 minutes, the limit of this server; the adapter of step {kept_step(run)} was kept."
    )


@pytest.fixture
def dead(store: Store, small_dataset: data.Dataset, monkeypatch: pytest.MonkeyPatch) -> Run:
    """A running run whose worker is gone, with a minute to train in all."""
    monkeypatch.setenv("FINETUNE_MAX_MINUTES", "1")
    run = train.start(store, train.TrainConfig(), data.save_dataset(store, small_dataset))
    store.claim(1, 2**22 + 1, 0.0, only=run.id)  # by a process that there cannot be
    return store.run(run.id)


@pytest.mark.parametrize(
    ("seconds", "asked", "end"),
    [
        (59.0, None, ("queued", None)),
        (60.0, None, ("cancelled", "timed_out")),
        (99.0, "stop", ("cancelled", "cancelled_by_owner")),
        (99.0, "pause", ("paused", None)),
    ],
)
def test_what_a_dead_worker_was_asked_decides(
    store: Store, dead: Run, seconds: float, asked: str | None, end: tuple[str, str | None]
) -> None:
    store.update(dead.id, seconds=seconds, asked=asked)
    train.Supervisor(store).watch()
    run = store.run(dead.id)
    assert (run.state, run.code) == end


def test_the_owner_may_still_stop_it_and_not_pause_it(store: Store, dead: Run) -> None:
    store.update(dead.id, asked="timeout")
    train.pause(store, dead.id)
    assert store.run(dead.id).asked == "timeout"
    train.stop(store, dead.id)
    assert store.run(dead.id).asked == "stop"


def test_a_paused_run_that_has_used_its_minutes_keeps_its_adapter_when_stopped(store: Store, dead: Run) -> None:
    store.update(dead.id, state="paused", seconds=61.0)
    with pytest.raises(
        RunError, match="used all its training time .*1.02 minutes.*Stop it to keep its adapter"
    ) as told:
        train.resume(store, dead.id)
    assert told.value.code == "minutes_used"
    train.stop(store, dead.id)
    assert store.run(dead.id).state == "cancelled"


def test_at_home_there_is_no_limit(store: Store, dead: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FINETUNE_MAX_MINUTES")
    store.update(dead.id, seconds=1e6)
    train.Supervisor(store).watch()
    assert store.run(dead.id).state == "queued"


def test_a_hung_worker_is_no_used_up_minute(store: Store, dead: Run) -> None:
    from finetune.train.supervisor import TRIES

    supervisor = train.Supervisor(store)
    store.update(dead.id, tries=TRIES)
    supervisor._since[dead.id, dead.attempt, "hung", True] = 0.0
    supervisor.watch()
    run = store.run(dead.id)
    assert (run.state, run.code) == ("failed", "worker_hung")


def test_a_stop_that_comes_between_two_attempts_is_not_lost(store: Store, dead: Run) -> None:
    """The worker dies just now, so the run is queued again when the owner's word arrives."""
    store.move(dead.id, "queued", only_from=("running",))
    assert store.ask(dead.id, "stop")
    store.claim(1, 2**22 + 1, 0.0, only=dead.id)
    assert store.run(dead.id).asked == "stop"


def test_what_has_ended_is_asked_nothing(store: Store, dead: Run) -> None:
    store.update(dead.id, state="succeeded")
    train.stop(store, dead.id)
    assert store.run(dead.id).asked is None


# Steps


def test_a_run_makes_only_so_many_steps_and_says_so_at_its_start_and_end(
    trial: Trial, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FINETUNE_MAX_STEPS", "6")
    monkeypatch.setenv("FINETUNE_MAX_MINUTES", "30")
    run = trial.end(trial.begin(max_steps=40, eval_every=3))
    assert (run.state, run.code, run.step, run.steps) == ("succeeded", "steps_limited", 6, 6)
    assert run.reason == "It made 6 of 40 steps, the limit of this server."
    assert kept_step(run) == 6
    lines = trial.lines(run)
    assert "On this server a run ends after 30 minutes of training or 6 steps. What it has learned is kept." in lines
    assert "The settings ask for 40 steps; this run makes 6, the limit of this server." in lines
    trial.whole(run)


def test_within_the_limit_nothing_is_said_at_the_end(trial: Trial, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FINETUNE_MAX_STEPS", "6")
    run = trial.end(trial.begin(max_steps=4))
    assert (run.state, run.code, run.reason, run.step) == ("succeeded", None, None, 4)


def test_a_resumed_run_makes_the_steps_it_planned(trial: Trial, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its learning rate was planned for so many."""
    monkeypatch.setenv("FINETUNE_MAX_STEPS", "12")
    run = trial.until(trial.begin(max_steps=40, save_every=2, eval_every=100), lambda now: now.step >= 4)
    train.pause(trial.store, run.id)
    run = trial.until(run, lambda now: now.state == "paused")
    assert run.steps == 12
    monkeypatch.setenv("FINETUNE_MAX_STEPS", "30")
    train.resume(trial.store, run.id)
    assert trial.end(run).step == 12


@pytest.mark.parametrize(
    ("minutes", "steps", "said"),
    [
        ("30", "2000", "after 30 minutes of training or 2,000 steps."),
        ("0.5", None, "after 0.5 minutes of training."),
        (None, "10", "after 10 steps."),
        (None, None, ""),
    ],
)
def test_the_limits_are_said_in_a_sentence(
    minutes: str | None, steps: str | None, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in (("FINETUNE_MAX_MINUTES", minutes), ("FINETUNE_MAX_STEPS", steps)):
        monkeypatch.delenv(name, raising=False)
        if value:
            monkeypatch.setenv(name, value)
    assert said in train.limits_of_server()
    assert bool(said) == bool(train.limits_of_server())
