"""The whole journey on a sample, in the background: with a real worker and a real model, and never twice."""

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from finetune import evaluate, train, trial
from finetune.chat import Engine
from finetune.errors import NotAllowed
from finetune.store import Store
from finetune.trial import Trials
from tests.zygote import ForkingSupervisor

ME, OTHER = "local", "1" * 32


@pytest.fixture
def trials(store: Store, monkeypatch: pytest.MonkeyPatch) -> Iterator[Trials]:
    monkeypatch.setattr(trial, "ROWS", 3)
    made = Trials(store, Engine())
    yield made
    made.close()
    _until(lambda: not made._going)


def _until(reached: Callable[[], object], supervisor: ForkingSupervisor | None = None) -> None:
    give_up = time.monotonic() + 240
    while not reached():
        assert time.monotonic() < give_up
        if supervisor:
            supervisor.tick()
        time.sleep(0.1)


def _states(trials: Trials) -> list[str]:
    status = trials.look(ME)
    return [phase.state for phase in status.phases] if status else []


def test_it_measures_trains_and_judges(trials: Trials, store: Store, tiny: Path) -> None:
    assert trials.look(ME) is None
    record = trials.begin(str(tiny), ME)
    assert trials.begin(str(tiny), ME).id == record.id, "one at a time"
    supervisor, seen = ForkingSupervisor(store), set[str]()

    def ended() -> bool:
        status = trials.look(ME)
        assert status
        seen.update(phase.words for phase in status.phases if phase.state == "now")
        return not status.going

    _until(ended, supervisor)
    status = trials.look(ME)
    assert status
    assert status.trial.error is None
    assert _states(trials) == ["done"] * 4
    assert any("answers" in words for words in seen)
    assert status.report
    assert status.report.n == 3
    assert status.report.verdict
    assert status.phases[3].words.startswith("Too few rows to tell: ")
    [run] = store.runs()
    assert run.config["top_layers"] == train.preset("quick").values["top_layers"]
    before = evaluate.known_before(record, str(tiny))
    assert before
    assert before.arms["base"].seconds == status.report.arms["base"].seconds, "what was measured before was taken over"

    trials.begin(str(tiny), ME)  # again: a run of its own
    _until(lambda: len(store.runs()) == 2, supervisor)
    trials.stop(ME)
    _until(lambda: not trials._going, supervisor)


def test_what_was_interrupted_goes_on(trials: Trials, store: Store, tiny: Path) -> None:
    record = trials.begin(str(tiny), ME)
    _until(lambda: store.runs())
    trials.close()  # as a server that is stopped
    _until(lambda: not trials._going)
    status = trials.look(ME)
    assert status
    assert not status.going
    assert _states(trials)[:3] == ["done", "done", "next"]
    trials.begin(str(tiny), ME)
    _until(lambda: (found := trials.look(ME)) and not found.going, ForkingSupervisor(store))
    assert len(store.runs(owner=record.owner)) == 1, "the same run went on"
    assert _states(trials) == ["done"] * 4


def test_a_run_that_is_paused_holds_up_nobody(trials: Trials, store: Store, tiny: Path) -> None:
    trials._turns = threading.Semaphore(1)
    trials.begin(str(tiny), ME)
    _until(lambda: store.runs())
    [run] = store.runs()
    trials.begin(str(tiny), OTHER)
    _until(lambda: len(store.runs()) == 2)  # the other was asked while the first one's run waits
    train.pause(store, run.id)
    _until(lambda: (found := trials.look(ME)) and not found.going)
    trials.stop(OTHER)
    _until(lambda: not trials._going)
    trials.begin(str(tiny), ME)
    _until(lambda: (found := trials.look(ME)) and not found.going, ForkingSupervisor(store))
    assert store.run(run.id).state == "succeeded", "it was resumed"
    assert _states(trials) == ["done"] * 4


def test_who_waits_for_a_turn_can_stop(trials: Trials, tiny: Path) -> None:
    trials._turns = threading.Semaphore(0)
    trials.begin(str(tiny), ME)
    _until(lambda: (found := trials.look(ME)) and any(one.words == trial.WAITING for one in found.phases))
    trials.stop(ME)
    _until(lambda: not trials._going)
    assert _states(trials)[1] == "next", "nothing was asked"


def test_nobody_sees_anothers(trials: Trials, tiny: Path) -> None:
    trials.begin(str(tiny), ME)
    assert trials.look(OTHER) is None
    trials.stop(OTHER)
    assert not next(iter(trials._going.values())).stop.is_set()


def test_why_it_could_not_go_on_is_said(trials: Trials, tmp_path: Path) -> None:
    trials.begin(str(tmp_path / "no-model"), ME)
    _until(lambda: not trials._going)
    status = trials.look(ME)
    assert status
    assert status.trial.error
    assert "no-model" in status.trial.error


def test_only_so_many_wait(trials: Trials, tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trial, "MOST", 1)
    trials.begin(str(tiny), ME)
    with pytest.raises(NotAllowed, match="1 trials are running or waiting here"):
        trials.begin(str(tiny), OTHER)
    assert trials.look(OTHER) is None
