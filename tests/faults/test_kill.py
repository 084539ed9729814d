"""A worker killed anywhere: the run goes on by itself, and ends as if nothing had happened."""

import os
import random
import signal
import time
from collections import Counter

import pytest

from finetune import train
from finetune.store import Run
from tests.faults.conftest import Trial

EVERY = 5
"""Steps between two checkpoints."""


def test_killed_while_training_and_inside_a_save(trial: Trial) -> None:
    whole = trial.end(trial.begin(save_every=EVERY, dropout=0.1))
    trial.fault(slow_save=0.05)
    run = trial.begin(save_every=EVERY, dropout=0.1)
    kill(trial, run, inside_a_save=True)
    kill(trial, run, inside_a_save=False)
    as_uninterrupted(trial, trial.end(run), whole)


@pytest.mark.sweep
@pytest.mark.timeout(3600)
def test_fifty_kills(trial: Trial) -> None:
    whole = trial.end(trial.begin(save_every=EVERY, dropout=0.1))
    trial.fault(slow_save=0.05)
    chance, kills, ends = random.Random(0), Counter[str](), Counter[str]()
    began = time.monotonic()
    while kills.total() < 50:
        run = trial.begin(save_every=EVERY, dropout=0.1)
        for _ in range(3):
            inside = kills["inside a save"] < 25
            if kill(trial, run, inside, 0.0 if inside else chance.uniform(0, 8)):
                kills["inside a save" if inside else "anywhere"] += 1
        ended = trial.end(run)
        as_uninterrupted(trial, ended, whole)
        ends[ended.state] += 1
    print(f"\nworker: {dict(kills)}; runs {dict(ends)}; {time.monotonic() - began:.0f} s")


def kill(trial: Trial, run: Run, inside_a_save: bool, after: float = 0.0) -> bool:
    """Kill the worker, and see that no more is lost than lies between two checkpoints; False when it ended before."""
    attempt = trial.store.run(run.id).attempt
    folder = train.run_folder(run.id) / "checkpoints" / ".partial"
    run = trial.until(run, lambda now: now.pid and now.attempt > attempt or now.pid and attempt == now.attempt)
    if inside_a_save:
        run = trial.until(run, lambda now: any(folder.glob("checkpoint-*/*")))
    else:
        until = time.monotonic() + after
        run = trial.until(run, lambda now: time.monotonic() > until)
    if run.state != "running" or not run.pid:
        return False
    os.kill(run.pid, signal.SIGKILL)
    assert not inside_a_save or any(folder.glob("checkpoint-*"))
    reached = trial.store.run(run.id).step
    again = trial.until(run, lambda now: now.attempt > run.attempt and now.pid)
    trial.until(again, lambda now: _resumed(trial, run) is not None)
    resumed = _resumed(trial, run)
    assert resumed is not None
    assert reached - resumed <= EVERY
    return True


def _resumed(trial: Trial, run: Run) -> int | None:
    """The step from which the attempt after this one went on, once it has said so."""
    events = trial.store.events_of(run.id, "resumed")
    return events[run.attempt - 1].data["step"] if len(events) >= run.attempt else None


def as_uninterrupted(trial: Trial, ended: Run, whole: Run) -> None:
    assert (ended.state, ended.step) == ("succeeded", whole.step)
    for figure in ("eval_loss", "train_loss", "base_eval_loss"):
        assert getattr(ended.result, figure) == pytest.approx(getattr(whole.result, figure), abs=1e-4)
    trial.whole(ended)
